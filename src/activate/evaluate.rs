//! One look at the segments: who came and went, and whom the triggers want to write to.
//!
//! For each segment memberships, the position and the queued messages are one durable batch of the store; records for the
//! log and the copy in the lake follow. A crash before the batch has changed nothing, one after it is healed by the next
//! look or start. A segment that cannot be read is reported and holds up no other.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::PoisonError,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Activator, Rest,
    dispatch::UNREADABLE,
    error::ActivateError,
    key::{MessageKey, day_bucket, no_destination, repetition},
    knowledge::{self, Knowledge},
    members::{Diff, Look, Member, MemberKey, Row, diff, next_repetition},
    message::{Columns, Medium, Message, Purpose, State},
    rules::{Stage, Verdict},
};
use crate::{
    base::{Micros, PersonId, time::HOUR},
    engine::Session,
    pipeline::{self, On, Segment, Trigger},
};

/// How long after somebody entered a segment an address of theirs is waited for: events that tell of a payment and of the
/// customer behind it come in any order.
const ADDRESS_GRACE: i64 = HOUR;

/// What a look at all segments found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub as_of: Micros,
    pub segments: Vec<SegmentChange>,
}

/// What a look at one segment found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SegmentChange {
    pub segment: String,
    pub members: usize,
    pub entered: usize,
    pub exited: usize,
    /// Messages that are to go, now or later.
    pub queued: usize,
    /// Messages that a rule forbids, by reason.
    pub skipped: usize,
    /// When the segment is to be looked at again even if nothing happens.
    pub next: Option<Micros>,
    /// Why it could not be looked at. Then nothing of it changed.
    pub error: Option<String>,
    /// Why it is not acted on until its pipeline has run, or passes its checks. Then nothing of it changed either.
    pub held: Option<String>,
}

impl Evaluated {
    pub fn queued(&self) -> usize {
        self.segments.iter().map(|s| s.queued).sum()
    }
}

impl Activator {
    /// Looks at every segment as of the session's business time, which must be `as_of`.
    pub async fn evaluate(&self, session: &Session, as_of: Micros) -> Result<Evaluated, ActivateError> {
        let _turn = self.evaluating.lock().await;
        self.recover(session, as_of).await?;
        let mut evaluated = Evaluated { as_of, segments: Vec::new() };
        let project = self.project.clone();
        for segment in project.segments() {
            let change = match self.look(session, segment, as_of).await {
                Err(error) if error.is_of_the_segment() => {
                    let why = self.rest(segment, &error, as_of);
                    let (error, held) = match error {
                        ActivateError::InDoubt { .. } => (None, Some(why)),
                        _ => (Some(why), None),
                    };
                    SegmentChange { segment: segment.name.clone(), error, held, ..Default::default() }
                }
                other => other?,
            };
            evaluated.segments.push(change);
        }
        self.outbox.log(&self.log).await?;
        self.copy_memberships().await?;
        Ok(evaluated)
    }

    /// Leaves a segment alone for a while, unless something happens. Why is told once.
    fn rest(&self, segment: &Segment, error: &ActivateError, as_of: Micros) -> String {
        let (why, until) = (error.to_string(), as_of.plus(UNREADABLE));
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = resting.insert(segment.name.clone(), Rest { why: why.clone(), until });
        if before.is_none_or(|before| before.why != why) {
            tracing::warn!("{why}");
        }
        why
    }

    async fn look(&self, session: &Session, segment: &Segment, as_of: Micros) -> Result<SegmentChange, ActivateError> {
        let before = self.members.look(&segment.name)?;
        if let Some(last) = before.map(|l| l.as_of).filter(|last| *last > as_of) {
            return Err(ActivateError::GoesBack { last, asked: as_of });
        }
        let rows = self.segment_rows(session, segment, None, as_of).await?;
        let stored = self.members.of(&segment.name)?;
        let here: HashSet<&PersonId> = rows.iter().map(|r| &r.key.person_id).collect();
        let gone = stored.iter().map(|m| &m.key.person_id).filter(|p| !here.contains(p)).map(|p| p.0.clone()).collect();
        let merges = knowledge::merges(session, &gone).await?;
        let found = diff(stored, rows, &merges, as_of);
        let messages = self.wanted(session, segment, &found, before, as_of).await?;
        let next = self.next_look(segment, &found, as_of);
        let look = Look { as_of, next, members: found.members };
        let mut batch = self.store.batch();
        self.members.write(&mut batch, &segment.name, &found, look)?;
        for message in &messages {
            self.outbox.queue(&mut batch, message, as_of)?;
        }
        batch.commit_durable()?;
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment.name);
        let queued = messages.iter().filter(|m| m.state == State::Queued).count();
        Ok(SegmentChange {
            segment: segment.name.clone(),
            members: found.members,
            entered: found.entered.len(),
            exited: found.exited.len(),
            queued,
            skipped: messages.len() - queued,
            next,
            error: None,
            held: None,
        })
    }

    /// The messages that this look makes due, each judged.
    async fn wanted(
        &self,
        session: &Session,
        segment: &Segment,
        found: &Diff,
        before: Option<Look>,
        as_of: Micros,
    ) -> Result<Vec<Message>, ActivateError> {
        let triggers: Vec<&Trigger> = self.project.triggers().filter(|t| t.segment == segment.name).collect();
        let calls: Vec<Call<'_>> = triggers.iter().flat_map(|t| self.calls(t, found, before, as_of)).collect();
        let people: BTreeSet<String> = calls.iter().map(|c| c.member.key.person_id.0.clone()).collect();
        let known = Knowledge::of(session, &people, []).await?;
        let mut drafts = Drafts::default();
        for call in calls {
            let message = self.draft(&call, &known, as_of);
            if self.was_said(&known, &message)? || drafts.said(&message) {
                continue;
            }
            let cap = call.trigger.cap.as_ref().map(Into::into);
            let others = drafts.near(&message);
            let person = &message.person_id;
            let assessed = self.assess(&known, &message, person, cap, (Stage::Queueing, &others), as_of)?;
            drafts.add(settle_draft(message, assessed.verdict, as_of));
        }
        Ok(drafts.messages)
    }

    /// Whom a trigger calls for.
    fn calls<'a>(&self, trigger: &'a Trigger, found: &'a Diff, before: Option<Look>, as_of: Micros) -> Vec<Call<'a>> {
        let call = |member: &'a Member, at: Micros, times: Option<i64>| {
            let own = member.key.occurrence.as_str();
            let base = if own.is_empty() { day_bucket(at, self.zone) } else { own.to_owned() };
            let occurrence = times.map_or(base.clone(), |n| format!("{base}#{n}"));
            Call { trigger, member, occurrence }
        };
        match trigger.on {
            // Who entered lately is called for again: by now there may be an address. Who was told is not told again.
            On::Enter => {
                let lately = found.lasting.iter().filter(|m| as_of.0 - m.entered_at.0 < ADDRESS_GRACE);
                found.entered.iter().chain(lately).map(|m| call(m, m.entered_at, None)).collect()
            }
            On::Exit => found.exited.iter().map(|m| call(m, as_of, None)).collect(),
            On::Every(every) => {
                let every = micros(every);
                let last = before.map(|l| l.as_of);
                let again = found.lasting.iter().filter(|m| {
                    last.is_none_or(|last| {
                        repetition(m.entered_at, every, as_of) > repetition(m.entered_at, every, last)
                    })
                });
                let all = found.entered.iter().chain(again);
                all.map(|m| call(m, m.entered_at, Some(repetition(m.entered_at, every, as_of)))).collect()
            }
        }
    }

    pub(super) fn draft(&self, call: &Call<'_>, known: &Knowledge, as_of: Micros) -> Message {
        let Call { trigger, member, occurrence } = call;
        let medium = Medium::from(trigger.channel);
        let person_id = member.key.person_id.clone();
        // A row that does not say which world it is of is of the live one only if that knows the person.
        let stated = member.columns.get("livemode").and_then(Value::as_bool);
        let livemode = stated.unwrap_or_else(|| known.is_live(&person_id));
        let person = known.person(&person_id, livemode);
        let destination_hash = person.and_then(|p| p.destination(medium)).unwrap_or_default().to_owned();
        let addressed = if destination_hash.is_empty() { no_destination(&person_id) } else { destination_hash.clone() };
        Message {
            key: MessageKey::new(&trigger.name, occurrence, medium.as_str(), &addressed, livemode),
            person_id,
            trigger: trigger.name.clone(),
            segment: trigger.segment.clone(),
            row_occurrence: member.key.occurrence.clone(),
            occurrence: occurrence.clone(),
            medium,
            template: trigger.template.clone(),
            purpose: Purpose::from(trigger.purpose),
            livemode,
            destination_hash,
            columns: member.columns.clone(),
            state: State::Queued,
            attempt: 0,
            provider: None,
            provider_id: None,
            reason: None,
            text: None,
            queued_at: as_of,
            not_before: as_of,
            claimed_at: None,
            sent_at: None,
            settled_at: None,
            asked: 0,
        }
    }

    /// Was this said before: under this key, or to the same person at another destination?
    fn was_said(&self, known: &Knowledge, message: &Message) -> Result<bool, ActivateError> {
        if self.outbox.get(&message.key)?.is_some() {
            return Ok(true);
        }
        let before = self.outbox.to(&known.names(&message.person_id), "")?;
        Ok(before.iter().any(|m| m.state != State::Skipped && same_word(m, message)))
    }

    fn next_look(&self, segment: &Segment, found: &Diff, as_of: Micros) -> Option<Micros> {
        let repeats = self.project.triggers().filter(|t| t.segment == segment.name).filter_map(|t| match t.on {
            On::Every(every) => {
                let members = found.entered.iter().chain(&found.lasting).map(|m| m.entered_at);
                next_repetition(members, micros(every), as_of)
            }
            _ => None,
        });
        repeats.chain(found.next_due).min()
    }
}

/// A trigger that fires for a member.
pub(super) struct Call<'a> {
    pub trigger: &'a Trigger,
    pub member: &'a Member,
    pub occurrence: String,
}

/// The messages of one look, with what finds those to one person or destination.
#[derive(Default)]
struct Drafts {
    messages: Vec<Message>,
    keys: HashSet<MessageKey>,
    to: HashMap<String, Vec<usize>>,
}

impl Drafts {
    fn add(&mut self, message: Message) {
        for address in [&message.person_id.0, &message.destination_hash] {
            self.to.entry(address.clone()).or_default().push(self.messages.len());
        }
        self.keys.insert(message.key.clone());
        self.messages.push(message);
    }

    fn said(&self, message: &Message) -> bool {
        self.keys.contains(&message.key)
            || self.near(message).iter().any(|m| m.person_id == message.person_id && same_word(m, message))
    }

    /// Those to the same person or destination.
    fn near(&self, message: &Message) -> Vec<Message> {
        let at = |address: &String| self.to.get(address).into_iter().flatten();
        let found: BTreeSet<&usize> = at(&message.person_id.0)
            .chain(at(&message.destination_hash).filter(|_| !message.destination_hash.is_empty()))
            .collect();
        found.into_iter().filter_map(|i| self.messages.get(*i)).cloned().collect()
    }
}

/// Do two messages say the same about the same thing?
fn same_word(a: &Message, b: &Message) -> bool {
    a.trigger == b.trigger && a.occurrence == b.occurrence && a.medium == b.medium && a.livemode == b.livemode
}

fn settle_draft(mut message: Message, verdict: Verdict, as_of: Micros) -> Message {
    match verdict {
        Verdict::Go => {}
        Verdict::Wait { until, why } => (message.not_before, message.reason) = (until, Some(why)),
        Verdict::Refused(refusal) => {
            message.state = State::Skipped;
            message.reason = Some(refusal.to_string());
            message.settled_at = Some(as_of);
        }
    }
    message
}

impl Activator {
    /// The rows of a segment at the session's business time; with `people`, of these only. None where what it reads is in
    /// doubt.
    pub(super) async fn segment_rows(
        &self,
        session: &Session,
        segment: &Segment,
        people: Option<&BTreeSet<String>>,
        as_of: Micros,
    ) -> Result<Vec<Row>, ActivateError> {
        if let Some(reason) = pipeline::doubt(session, &self.lake, &self.project, &segment.table(), as_of).await? {
            return Err(ActivateError::InDoubt { segment: segment.name.clone(), reason });
        }
        rows_of(session, segment, people).await
    }
}

async fn rows_of(
    session: &Session,
    segment: &Segment,
    people: Option<&BTreeSet<String>>,
) -> Result<Vec<Row>, ActivateError> {
    let sql = format!("SELECT * FROM {} WHERE person_id IS NOT NULL", segment.table());
    let found = match people {
        None => session.rows::<Columns>(&sql).await.map_err(ActivateError::from),
        Some(people) => super::read::rows_of::<Columns>(session, &sql, "person_id", people).await,
    };
    let found = found.map_err(|error| match error {
        ActivateError::Sql(source) => ActivateError::Segment { file: segment.sql.file.clone(), source },
        other => other,
    })?;
    let row = |columns| parse_row(columns).ok_or_else(|| ActivateError::NoPerson { segment: segment.name.clone() });
    found.into_iter().map(row).collect()
}

/// Columns with a meaning of their own: `person_id`, `occurrence`, `due_at` and `livemode`. A template may use all but
/// the first.
fn parse_row(mut columns: Columns) -> Option<Row> {
    let person_id = PersonId(columns.remove("person_id")?.as_str()?.to_owned());
    let occurrence = match columns.get("occurrence") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let livemode = columns.get("livemode").and_then(Value::as_bool).unwrap_or(true);
    let due_at = columns.get("due_at").and_then(Value::as_str).map(knowledge::time);
    Some(Row { key: MemberKey { person_id, occurrence, livemode }, due_at, columns })
}

fn micros(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
