//! What events leave open, of single objects, and of payouts what they are made of: Stripe's API is asked once, and its answer is
//! events among the others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::PoisonError,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::sync::watch;

use super::{Ingested, Instance, OpsError};
use crate::{
    base::{Envelope, Micros, Source, time::MINUTE},
    facts::{PAID_OUT, Table, Want},
    load,
    sources::api::{Api, ApiError, StripeApi},
    telemetry,
};

/// Objects of a table that are asked for before it is another's turn.
const TURN: usize = 64;
/// Questions under way at once; how many a second there may be is the client's to keep.
const AT_ONCE: usize = 8;
/// What could not be had is not asked for again before this, and stands in no other's way meanwhile.
const PUT_OFF: i64 = 10 * MINUTE;
/// So many questions without any answer, and there is nobody to ask.
const IN_VAIN: usize = 3;
/// Events behind the log from which on nothing is asked: what they leave open, later ones may tell.
const BEHIND: u64 = 20_000;

/// What the API is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Question {
    /// A type of objects.
    kind: &'static str,
    id: String,
    /// In whose name, where it is not the key's own.
    account: Option<String>,
}

/// What could not be had, and why.
pub(super) type Unanswered = (Question, String);
type Answered = (Result<Vec<Envelope>, OpsError>, Question, Vec<Want>);

impl Instance {
    /// Asks for all that is wanted by now, in the world that the key sees. Without a key, or told to stop, it leaves the rest
    /// for later.
    ///
    /// # Errors
    /// Where Stripe cannot be asked for some of it; what can be had is taken nevertheless, and the rest is asked for again.
    pub async fn ask_for_wanted(&self, mut stop: watch::Receiver<bool>) -> Result<(), OpsError> {
        let Some(Api::Stripe(api)) = self.backfills.api(Source::Stripe, &self.settings).await? else { return Ok(()) };
        if self.lag().0 > BEHIND {
            return Ok(());
        }
        let mut round = Round {
            instance: self,
            api,
            answered: HashMap::new(),
            in_vain: 0,
            shut: HashSet::new(),
            first_failure: None,
        };
        tokio::select! {
            asked = round.go() => asked?,
            _ = stop.wait_for(|s| *s) => return Ok(()),
        }
        let Round { answered, first_failure, .. } = round;
        let mut last = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        // What is put off is still not had.
        if last.as_ref().is_some_and(|(question, _)| answered.contains_key(question)) {
            *last = None;
        }
        let Some((question, why)) = first_failure else { return Ok(()) };
        *last = Some((question, why.clone()));
        Err(OpsError::Told(why))
    }
}

impl Question {
    fn of(want: &Want) -> Option<Question> {
        let (kind, id) = want.asked_for()?;
        let is_account =
            |text: &&String| text.starts_with("acct_") && text[5..].bytes().all(|b| b.is_ascii_alphanumeric());
        Some(Question { kind, id: id.to_owned(), account: want.account.as_ref().filter(is_account).cloned() })
    }
}

struct Round<'a> {
    instance: &'a Instance,
    api: StripeApi,
    /// When what was answered was asked for: an attempt and its charge are one object.
    answered: HashMap<Question, Micros>,
    /// Questions without an answer since the last one that had one.
    in_vain: usize,
    /// Connected accounts that the key is not let into.
    shut: HashSet<String>,
    first_failure: Option<Unanswered>,
}

impl Round<'_> {
    async fn go(&mut self) -> Result<(), OpsError> {
        let mut tables = Table::ALL.to_vec();
        while !tables.is_empty() {
            let mut more = Vec::new();
            for table in tables {
                more.extend(self.turn(table).await?.then_some(table));
                if self.in_vain >= IN_VAIN {
                    return Ok(());
                }
            }
            tables = more;
        }
        Ok(())
    }

    /// False where nothing is left of a table, or nothing of it can be had for now.
    async fn turn(&mut self, table: Table) -> Result<bool, OpsError> {
        let (instance, world) = (self.instance, self.api.is_live());
        let wanted = instance.wanted.clone();
        let objects = load::blocking(move || wanted.take_ripe((table, world), TURN, Micros::now())).await?;
        let (more, began) = (!objects.is_empty(), Micros::now());
        // Several may be told by one answer.
        let mut told_by: BTreeMap<Question, Vec<Want>> = BTreeMap::new();
        for wants in objects {
            let question = wants.first().and_then(Question::of);
            let known = question.as_ref().and_then(|question| self.answered.get(question));
            if question.as_ref().and_then(|q| q.account.as_ref()).is_some_and(|account| self.shut.contains(account)) {
                instance.wanted.put_off(&wants, began.plus(PUT_OFF))?;
                continue;
            }
            match question.filter(|_| !known.is_some_and(|at| wants.iter().all(|want| want.since < *at))) {
                Some(question) => told_by.entry(question).or_default().extend(wants),
                None => instance.wanted.strike(&wants)?,
            }
        }
        let questions = told_by.into_iter().map(|(asked, wants)| ask(instance, self.api.clone(), asked, wants).boxed());
        let questions: Vec<BoxFuture<'_, Answered>> = questions.collect();
        let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
        while let Some((answer, question, wants)) = answers.next().await {
            let error = match answer {
                Ok(told) => {
                    self.in_vain = 0;
                    self.answered.insert(question, began);
                    take(instance, told, &wants).await?;
                    continue;
                }
                Err(OpsError::Api(error)) => error,
                Err(other) => return Err(other),
            };
            self.first_failure.get_or_insert_with(|| (question.clone(), unanswered(&question, &error)));
            match error {
                // The key may read payouts, and not what they are made of.
                ApiError::Key { .. } if question.kind == PAID_OUT => self.in_vain = 0,
                // Nor need it be let into an account, and still reads others.
                ApiError::Key { status: 403, .. } if question.account.is_some() => {
                    self.shut.extend(question.account);
                    self.in_vain = 0;
                }
                // The key may not read this type of objects, and perhaps others.
                ApiError::Key { .. } => return Ok(false),
                ApiError::Refused { .. } | ApiError::NoPage { .. } => self.in_vain = 0,
                _ => self.in_vain += 1,
            }
            if self.in_vain >= IN_VAIN {
                return Ok(false);
            }
            instance.wanted.put_off(&wants, Micros::now().plus(PUT_OFF))?;
        }
        Ok(more)
    }
}

async fn ask(instance: &Instance, api: StripeApi, question: Question, wants: Vec<Want>) -> Answered {
    let api = api.of_account(question.account.clone());
    let told = match question.kind {
        PAID_OUT => list(instance, &api, &question.id).await,
        kind => api.object(kind, &question.id).await.map(|told| told.into_iter().collect()).map_err(OpsError::from),
    };
    (told, question, wants)
}

/// What a payout is made of, page by page: into the log all but the last page, which is the answer.
async fn list(instance: &Instance, api: &StripeApi, payout: &str) -> Result<Vec<Envelope>, OpsError> {
    let mut after = None;
    loop {
        let Some(page) = api.paid_out(payout, after.as_deref()).await? else { return Ok(Vec::new()) };
        if page.next.is_none() {
            return Ok(page.envelopes);
        }
        instance.take(Source::Stripe, page.envelopes, &mut Ingested::default()).await?;
        after = page.next;
    }
}

/// The answer into the log, then the wants off the list.
async fn take(instance: &Instance, told: Vec<Envelope>, wants: &[Want]) -> Result<(), OpsError> {
    telemetry::asked_for_object(!told.is_empty());
    instance.take(Source::Stripe, told, &mut Ingested::default()).await?;
    Ok(instance.wanted.strike(wants)?)
}

fn unanswered(Question { kind, id, account }: &Question, error: &ApiError) -> String {
    let why = match error {
        ApiError::Unreachable { why, .. } => format!("it could not be asked: {why}"),
        ApiError::NoPage { why, .. } => format!("its answer is none: {why}"),
        other => other.to_string(),
    };
    let whose = account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    let what = match *kind {
        PAID_OUT => format!("what payout {id}{whose} is made of"),
        kind => format!("what {kind} {id}{whose} is by now"),
    };
    format!(
        "Stripe has not told {what} ({why}); it is asked again, in ten minutes or sooner. Where that does \
         not help see [stripe] api_base and what its api_key may read"
    )
}
