//! Single objects, asked for by their ids: what events leave open, Stripe's API is asked once, and its answer is an event
//! among the others.

use std::collections::HashSet;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{sync::watch, task::block_in_place};

use super::{Ingested, Instance, OpsError};
use crate::{
    base::{Envelope, Micros, Source, time::MINUTE},
    facts::Table,
    load::Want,
    sources::api::{Api, ApiError, StripeApi},
    telemetry,
};

/// Objects that are asked for before more are looked for.
const ROUND: usize = 64;
/// Questions under way at once; how many a second there may be is the client's to keep.
const AT_ONCE: usize = 8;
/// An object that could not be had is not asked for again before this, and stands in no other's way meanwhile.
const PUT_OFF: i64 = 10 * MINUTE;

/// An object as the API knows it: its type and its id.
type Named = (&'static str, String);
type Answered = (Result<Option<Envelope>, ApiError>, Named, Vec<Want>);

impl Instance {
    /// Asks for all that is wanted by now, in the world that the key sees. Without a key, or told to stop, it leaves the rest
    /// for later.
    ///
    /// # Errors
    /// Where Stripe cannot be asked for some of it; what can be had is taken nevertheless, and the rest is asked for again.
    pub async fn ask_for_wanted(&self, mut stop: watch::Receiver<bool>) -> Result<(), OpsError> {
        let Some(Api::Stripe(api)) = self.backfills.api(Source::Stripe, &self.settings).await? else { return Ok(()) };
        let mut round = Round { instance: self, api, asked: HashSet::new(), failed: Ok(()) };
        for table in Table::ALL {
            tokio::select! {
                asked = round.table(table) => asked?,
                _ = stop.wait_for(|s| *s) => return Ok(()),
            }
        }
        round.failed
    }
}

struct Round<'a> {
    instance: &'a Instance,
    api: StripeApi,
    /// What was answered: an attempt and its charge are one object.
    asked: HashSet<Named>,
    /// The first failure.
    failed: Result<(), OpsError>,
}

impl Round<'_> {
    /// All that is wanted of one table, up to a failure.
    async fn table(&mut self, table: Table) -> Result<(), OpsError> {
        loop {
            let wanted = &self.instance.wanted;
            let objects = block_in_place(|| wanted.ripe(table, self.api.is_live(), ROUND, Micros::now()))?;
            if objects.is_empty() || !self.objects(objects).await? {
                return Ok(());
            }
        }
    }

    /// False where one of them could not be had.
    async fn objects(&mut self, objects: Vec<Vec<Want>>) -> Result<bool, OpsError> {
        let (instance, mut whole) = (self.instance, true);
        let mut questions: Vec<BoxFuture<'static, Answered>> = Vec::new();
        for wants in objects {
            let named = wants.first().and_then(|want| want.key.asked_for()).map(|(kind, id)| (kind, id.to_owned()));
            match named.filter(|named| !self.asked.contains(named)) {
                Some(named) => questions.push(ask(self.api.clone(), named, wants).boxed()),
                None => instance.wanted.strike(&wants)?,
            }
        }
        let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
        while let Some((answer, named, wants)) = answers.next().await {
            match answer {
                Ok(told) => {
                    self.asked.insert(named);
                    take(instance, told, &wants).await?;
                }
                Err(error) => {
                    whole = false;
                    instance.wanted.put_off(&wants, Micros::now().plus(PUT_OFF))?;
                    if self.failed.is_ok() {
                        self.failed = Err(unanswered(&named, &error));
                    }
                }
            }
        }
        Ok(whole)
    }
}

async fn ask(api: StripeApi, named: Named, wants: Vec<Want>) -> Answered {
    (api.object(named.0, &named.1).await, named, wants)
}

/// The answer into the log, then the wants off the list.
async fn take(instance: &Instance, told: Option<Envelope>, wants: &[Want]) -> Result<(), OpsError> {
    telemetry::asked_for_object(told.is_some());
    instance.take(Source::Stripe, told.into_iter().collect(), &mut Ingested::default()).await?;
    Ok(instance.wanted.strike(wants)?)
}

fn unanswered((kind, id): &Named, error: &ApiError) -> OpsError {
    OpsError::Told(format!("{kind} {id} could not be had and stays as its events tell it for now: {error}"))
}
