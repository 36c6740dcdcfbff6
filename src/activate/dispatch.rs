//! Sending what is ready, each message at most once.
//!
//! ```text
//!  ready ─► still a member? rules? text? ─► claim ─► store synced, log synced ─► STOP? ─► request ─► outcome ─► store, log
//!    ▲        └─ no: skipped, or later                                            │
//!    └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What must hold: no request goes out before its claim is in the store *and* the log, as the first claim there, nor to
//! anybody whose STOP is in the log by then. What was claimed and not answered, because the process died or the work was dropped, is unknown; `settle`
//! asks the provider. Media are sent side by side, so that a provider that fails holds up no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::{
    Activator,
    channel::{Channel, Parcel, Sent},
    error::ActivateError,
    knowledge::{self, Knowledge},
    mask,
    members::Row,
    message::{Medium, Message, Purpose, State, Text},
    patience,
    record::SuppressionRecord,
    rules::{Refusal, Stage, Verdict},
};
use crate::{
    base::{
        Micros, PersonId,
        time::{MINUTE, SECOND},
    },
    engine::Session,
    pipeline::{On, Trigger},
};

/// Messages of one medium in one call.
const AT_ONCE: usize = 500;
/// Those of them that may leave: their facts are read once, and must not be more than some seconds old.
const LEAVING_AT_ONCE: usize = 50;
/// The first question to a provider after a request without an answer.
pub(super) const FIRST_QUESTION: i64 = 15 * SECOND;
/// How far business time may be from the clock for a message to leave: quiet hours and consent are of the present.
const PRESENT: i64 = 10 * MINUTE;
/// A segment that cannot be read now, or a message of it, is looked at again after this.
pub(super) const UNREADABLE: i64 = 5 * MINUTE;

/// What one dispatch did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispatched {
    pub messages: Vec<Outcome>,
    /// What is wrong with a provider, for an operator.
    pub faults: Vec<String>,
    /// There may be more to send at once.
    pub more: bool,
}

/// What became of one message in one dispatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub key: String,
    pub person_id: PersonId,
    pub trigger: String,
    pub medium: Medium,
    pub provider: Option<String>,
    /// Masked.
    pub destination: Option<String>,
    pub state: State,
    pub reason: Option<String>,
    pub livemode: bool,
}

impl Dispatched {
    pub fn count(&self, state: State) -> usize {
        self.messages.iter().filter(|m| m.state == state).count()
    }

    pub(super) fn add(&mut self, message: &Message, address: Option<&str>) {
        self.messages.push(Outcome {
            key: message.key.to_string(),
            person_id: message.person_id.clone(),
            trigger: message.trigger.clone(),
            medium: message.medium,
            provider: message.provider.clone(),
            destination: address.map(|a| mask(message.medium, a)),
            state: message.state,
            reason: message.reason.clone(),
            livemode: message.livemode,
        });
    }

    pub fn join(&mut self, other: Dispatched) {
        self.messages.extend(other.messages);
        self.faults.extend(other.faults);
        self.more |= other.more;
    }
}

/// What the tables say now of some queued messages.
pub(super) struct Facts {
    pub known: Knowledge,
    /// The recipient's name of now, by message key.
    pub names: HashMap<String, PersonId>,
    /// The rows of the messages' people, by segment; or why it cannot be read.
    members: BTreeMap<String, Result<Vec<Row>, String>>,
}

/// A message that the rules let go.
struct Ready {
    message: Message,
    address: String,
    text: Text,
}

impl Activator {
    /// Sends what is ready at `now`, and asks providers about what is unknown. `session` must be of now: it decides who
    /// is still to be written to. As of another time than the present messages are only recorded, none leaves.
    pub async fn dispatch(&self, session: &Session, now: Micros) -> Result<Dispatched, ActivateError> {
        let _turn = self.dispatching.lock().await;
        self.recover(session, now).await?;
        self.hear().await?;
        // Nothing is under way here: a claim is of a dispatch that was dropped.
        self.outbox.forget_contested().await;
        self.outbox.abandon(now, patience(&self.log))?;
        let mut dispatched = self.settle(session, now).await?;
        let [sms, email] = Medium::ALL.map(|medium| self.dispatch_medium(session, medium, now));
        let (sms, email) = tokio::join!(sms, email);
        dispatched.join(sms?);
        dispatched.join(email?);
        self.outbox.log(&self.log).await?;
        Ok(dispatched)
    }

    async fn dispatch_medium(
        &self,
        session: &Session,
        medium: Medium,
        now: Micros,
    ) -> Result<Dispatched, ActivateError> {
        let mut dispatched = Dispatched::default();
        let ready = self.outbox.ready(medium, now, AT_ONCE)?;
        if ready.is_empty() {
            return Ok(dispatched);
        }
        let (mut leaving, recorded): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|m| self.channel_of(medium, m.livemode).leaves());
        let full = leaving.len() > LEAVING_AT_ONCE || leaving.len() + recorded.len() == AT_ONCE;
        leaving.truncate(LEAVING_AT_ONCE);
        let facts = self.facts(session, leaving.iter().chain(&recorded), now).await?;
        for (messages, livemode) in [(recorded, false), (leaving, true)] {
            let channel = self.channel_of(medium, livemode).clone();
            if messages.is_empty() || (channel.leaves() && self.held_until(medium).is_some_and(|until| until > now)) {
                continue;
            }
            let clock = (self.clock)();
            if channel.leaves() && clock.0.abs_diff(now.0) > PRESENT as u64 {
                dispatched
                    .faults
                    .push(format!("nothing leaves as of {now}: it is {clock}, and the rules are of the present"));
                continue;
            }
            for group in messages.chunks(channel.concurrency()) {
                // Words are of text messages. Between two groups none of those is under way, so a receipt finds its message.
                if medium == Medium::Sms {
                    self.hear().await?;
                }
                if !self.dispatch_group(&channel, group, &facts, now, &mut dispatched).await? {
                    break;
                }
            }
        }
        dispatched.more = full && self.held_until(medium).is_none_or(|until| until <= now);
        Ok(dispatched)
    }

    /// False where the provider wants no more requests now.
    async fn dispatch_group(
        &self,
        channel: &Arc<dyn Channel>,
        group: &[Message],
        facts: &Facts,
        now: Micros,
        dispatched: &mut Dispatched,
    ) -> Result<bool, ActivateError> {
        let mut claimed = Vec::new();
        for message in group {
            if let Some(ready) = self.prepare(message, facts, now, dispatched)?
                && let Some(message) = self.outbox.change(&message.key, State::Claimed, now, |m| {
                    m.provider = Some(channel.name().to_owned());
                    m.text = Some(ready.text.clone());
                })?
            {
                claimed.push(Ready { message, ..ready });
            }
        }
        let anothers = self.outbox.log_claims(&self.log, claimed.iter().map(|r| &r.message.key)).await?;
        for contested in claimed.extract_if(.., |r| anothers.contains(&r.message.key.0)) {
            self.outbox.change(&contested.message.key, State::Unknown, now, |m| {
                m.text = None;
                m.reason = Some("another process claimed it first".to_owned());
            })?;
        }
        let claimed = self.still_welcome(channel, claimed, now).await?;
        let parcel =
            |r: &'_ Ready| -> (Message, String, Text) { (r.message.clone(), r.address.clone(), r.text.clone()) };
        let sends = claimed.iter().map(parcel).map(|(message, address, text)| async move {
            let parcel = Parcel { message: &message, address: &address, text: Some(&text), now };
            channel.send(&parcel).await
        });
        let mut go_on = true;
        for (ready, sent) in claimed.iter().zip(join_all(sends).await) {
            go_on &= self.record(ready, sent, now, dispatched)?;
        }
        self.outbox.log(&self.log).await?;
        Ok(go_on)
    }

    /// Those of `claimed` to whom nobody's STOP came before the claim was in the log; the others go back to the queue,
    /// where the rules will refuse them.
    async fn still_welcome(
        &self,
        channel: &Arc<dyn Channel>,
        claimed: Vec<Ready>,
        now: Micros,
    ) -> Result<Vec<Ready>, ActivateError> {
        if !channel.leaves() || claimed.iter().all(|ready| ready.message.medium != Medium::Sms) {
            return Ok(claimed);
        }
        self.hear().await?;
        let mut welcome = Vec::new();
        for ready in claimed {
            let message = &ready.message;
            match self.outbox.suppressed(message.medium, &message.destination_hash)? {
                None => welcome.push(ready),
                Some(_) => drop(self.outbox.change(&message.key, State::Queued, now, |m| m.not_before = now)?),
            }
        }
        Ok(welcome)
    }

    /// The message as it may go, or `None` where it may not: then its state says why.
    fn prepare(
        &self,
        message: &Message,
        facts: &Facts,
        now: Micros,
        dispatched: &mut Dispatched,
    ) -> Result<Option<Ready>, ActivateError> {
        let Some(trigger) = self.project.trigger(&message.trigger) else {
            return self.refuse(
                message,
                &Refusal::Ended { trigger: message.trigger.clone() }.to_string(),
                State::Skipped,
                now,
                dispatched,
            );
        };
        let person = facts.names.get(&message.key.0).unwrap_or(&message.person_id);
        let columns = match facts.standing(message, person, trigger, now) {
            Stands::Here(row) => row.columns.clone(),
            Stands::Gone => message.columns.clone(),
            Stands::Refused(refusal) => {
                return self.refuse(message, &refusal.to_string(), State::Skipped, now, dispatched);
            }
            Stands::Unreadable(why) => {
                self.outbox.postpone(&message.key, now.plus(UNREADABLE), why)?;
                return Ok(None);
            }
        };
        // What the pipeline file says today, not when the message was queued.
        let planned = Message { purpose: Purpose::from(trigger.purpose), columns, ..message.clone() };
        let cap = trigger.cap.as_ref().map(Into::into);
        let assessed = self.assess(&facts.known, &planned, person, cap, (Stage::Sending, &[]), now)?;
        let address = match (assessed.verdict, assessed.address) {
            (Verdict::Go, Some(address)) => address,
            (Verdict::Go, None) => {
                return self.refuse(
                    message,
                    &Refusal::Unreachable(message.medium).to_string(),
                    State::Skipped,
                    now,
                    dispatched,
                );
            }
            (Verdict::Refused(refusal), _) => {
                return self.refuse(message, &refusal.to_string(), State::Skipped, now, dispatched);
            }
            (Verdict::Wait { until, why }, _) => {
                self.outbox.postpone(&message.key, until, &why)?;
                return Ok(None);
            }
        };
        let marketing = planned.purpose == Purpose::Marketing;
        match self.templates.write(&trigger.template, message.medium, marketing, &planned.columns, &self.merchant) {
            Ok(text) => Ok(Some(Ready { message: planned, address, text })),
            Err(error) => self.refuse(message, &error.to_string(), State::Failed, now, dispatched),
        }
    }

    fn refuse(
        &self,
        message: &Message,
        why: &str,
        state: State,
        now: Micros,
        dispatched: &mut Dispatched,
    ) -> Result<Option<Ready>, ActivateError> {
        if let Some(message) = self.outbox.change(&message.key, state, now, |m| m.reason = Some(why.to_owned()))? {
            dispatched.add(&message, None);
        }
        Ok(None)
    }

    /// Writes down what the channel said. False where the provider wants no more requests now.
    fn record(
        &self,
        ready: &Ready,
        sent: Sent,
        now: Micros,
        dispatched: &mut Dispatched,
    ) -> Result<bool, ActivateError> {
        let message = &ready.message;
        let change = |to, edit: &dyn Fn(&mut Message)| self.outbox.change(&message.key, to, now, edit);
        let mut go_on = true;
        let changed = match sent {
            Sent::Accepted { provider_id } => change(State::Sent, &|m| m.provider_id.clone_from(&provider_id))?,
            Sent::Refused { why, opted_out } => {
                if opted_out {
                    let (channel, destination_hash) = (message.medium, message.destination_hash.clone());
                    self.outbox.suppress(SuppressionRecord {
                        channel,
                        destination_hash,
                        reason: why.clone(),
                        at: now,
                        provider: message.provider.clone(),
                    })?;
                }
                change(State::Failed, &|m| m.reason = Some(why.clone()))?
            }
            Sent::Later { after, why } => {
                go_on = false;
                let until = now.plus(i64::try_from(after.as_micros()).unwrap_or(MINUTE).max(SECOND));
                self.hold(message.medium, until);
                dispatched.faults.push(why.clone());
                change(State::Queued, &|m| (m.not_before, m.reason) = (until, Some(why.clone())))?
            }
            // A provider that does not answer gets no more until it is asked what became of this.
            Sent::Unknown { why } => {
                go_on = false;
                let until = now.plus(FIRST_QUESTION);
                self.hold(message.medium, until);
                dispatched.faults.push(why.clone());
                change(State::Unknown, &|m| (m.not_before, m.reason) = (until, Some(why.clone())))?
            }
        };
        if let Some(changed) = changed {
            dispatched.add(&changed, Some(&ready.address));
        }
        Ok(go_on)
    }

    /// Reads what the tables say of the people of these messages.
    async fn facts(
        &self,
        session: &Session,
        messages: impl Iterator<Item = &Message> + Clone,
        now: Micros,
    ) -> Result<Facts, ActivateError> {
        let (known, names) = self.known_of(session, messages.clone()).await?;
        let mut people: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for message in messages {
            let person = names.get(&message.key.0).unwrap_or(&message.person_id);
            people.entry(&message.segment).or_default().insert(person.0.clone());
        }
        let mut members = BTreeMap::new();
        for (name, people) in people {
            let rows = match self.project.segment(name) {
                None => Ok(Vec::new()),
                Some(segment) => match self.segment_rows(session, segment, Some(&people), now).await {
                    Err(error) if error.is_of_the_segment() => {
                        tracing::warn!("{error}");
                        Err(error.to_string())
                    }
                    rows => Ok(rows?.into_iter().filter(|r| r.due_at.is_none_or(|due| due <= now)).collect()),
                },
            };
            members.insert(name.to_owned(), rows);
        }
        Ok(Facts { known, names, members })
    }

    pub(super) async fn known_of(
        &self,
        session: &Session,
        messages: impl Iterator<Item = &Message> + Clone,
    ) -> Result<(Knowledge, HashMap<String, PersonId>), ActivateError> {
        let names = knowledge::names_of_now(session, messages.clone()).await?;
        let people = names.values().map(|p| p.0.clone()).collect();
        let destinations = messages.map(|m| m.destination_hash.clone());
        Ok((Knowledge::of(session, &people, destinations).await?, names))
    }
}

/// Where the recipient stands in the segment now.
enum Stands<'a> {
    /// Still a member: the row of now.
    Here(&'a Row),
    /// Not a member, as a message on leaving wants it.
    Gone,
    Refused(Refusal),
    /// And why.
    Unreadable(&'a str),
}

impl Facts {
    fn standing(&self, message: &Message, person: &PersonId, trigger: &Trigger, now: Micros) -> Stands<'_> {
        let rows = match self.members.get(&message.segment) {
            Some(Ok(rows)) => rows,
            Some(Err(why)) => return Stands::Unreadable(why),
            None => return Stands::Unreadable("its segment was not looked at"),
        };
        let here = rows.iter().find(|row| {
            let stated = row.columns.get("livemode").and_then(serde_json::Value::as_bool);
            row.key.person_id == *person
                && row.key.occurrence == message.row_occurrence
                && stated.is_none_or(|live| live == message.livemode)
                && row.due_at.is_none_or(|due| due <= now)
        });
        let segment = message.segment.clone();
        match (here, trigger.on) {
            (Some(_), On::Exit) => Stands::Refused(Refusal::BackInSegment { segment }),
            (Some(row), _) => Stands::Here(row),
            (None, On::Exit) => Stands::Gone,
            (None, _) => Stands::Refused(Refusal::LeftSegment { segment }),
        }
    }
}
