//! Our own records in the log: what was queued, claimed and sent, and who said STOP.
//!
//! A record of a message holds all that the outbox knows of it but the text, so that the outbox can be made anew from
//! records alone. It names the recipient by hashes. `event_id` is `<message key>:<state>`; a second claim of one message
//! differs in `attempt`, so it is a record of its own. But one claim is one record whoever makes it: of two processes that
//! claim a message, the log holds the first and tells the other that it is a duplicate.

use serde::{Deserialize, Serialize};

use super::{
    error::ActivateError,
    key::MessageKey,
    message::{Columns, Medium, Message, Purpose, State},
};
use crate::base::{Digest, Envelope, Micros, PersonId};

const MESSAGE: &str = "message";
const SUPPRESSION: &str = "suppression.added";

/// The payload of `message.<state>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageRecord {
    pub message_key: MessageKey,
    pub person_id: PersonId,
    pub trigger: String,
    pub channel: Medium,
    pub provider: Option<String>,
    pub provider_id: Option<String>,
    pub template: String,
    pub destination_hash: String,
    /// When it came into this state.
    pub at: Micros,
    pub reason: Option<String>,
    pub livemode: bool,
    pub state: State,
    pub attempt: u32,
    pub segment: String,
    pub row_occurrence: String,
    pub occurrence: String,
    pub purpose: Purpose,
    pub queued_at: Micros,
    /// Only in the first record of a message.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// The payload of `suppression.added`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionRecord {
    pub channel: Medium,
    pub destination_hash: String,
    pub reason: String,
    pub at: Micros,
    /// The provider whose word it is; who takes it back there takes it back here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// What one of our records says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Message(Box<MessageRecord>),
    Suppression(SuppressionRecord),
}

impl Record {
    /// The record of the state that `message` came into at `at`.
    pub fn of(message: &Message, at: Micros) -> Record {
        let first = message.attempt == 0 && matches!(message.state, State::Queued | State::Skipped);
        Record::Message(Box::new(MessageRecord {
            message_key: message.key.clone(),
            person_id: message.person_id.clone(),
            trigger: message.trigger.clone(),
            channel: message.medium,
            provider: message.provider.clone(),
            provider_id: message.provider_id.clone(),
            template: message.template.clone(),
            destination_hash: message.destination_hash.clone(),
            at,
            reason: message.reason.clone(),
            livemode: message.livemode,
            state: message.state,
            attempt: message.attempt,
            segment: message.segment.clone(),
            row_occurrence: message.row_occurrence.clone(),
            occurrence: message.occurrence.clone(),
            purpose: message.purpose,
            queued_at: message.queued_at,
            columns: if first { message.columns.clone() } else { Columns::new() },
        }))
    }

    /// Reads a record back. `None` where it is none of ours, or of a kind that a later version writes.
    pub fn parse(event_type: &str, payload: &[u8]) -> Option<Record> {
        if event_type == SUPPRESSION {
            return serde_json::from_slice(payload).ok().map(Record::Suppression);
        }
        let known = event_type.strip_prefix(MESSAGE).is_some_and(|rest| rest.starts_with('.'));
        known.then(|| serde_json::from_slice(payload).ok().map(Record::Message)).flatten()
    }

    pub fn envelope(&self) -> Result<Envelope, ActivateError> {
        let unwritable = |e| ActivateError::Encoding { what: "a record of the outbox", source: e };
        let (event_type, event_id, object_id, person, livemode, at) = match self {
            Record::Message(m) => (
                format!("{MESSAGE}.{}", m.state),
                format!("{}:{}", m.message_key, m.state),
                m.message_key.to_string(),
                Some(m.person_id.to_string()),
                m.livemode,
                m.at,
            ),
            Record::Suppression(s) => (
                SUPPRESSION.to_owned(),
                format!("{}:{}", s.channel, s.destination_hash),
                s.destination_hash.clone(),
                None,
                true,
                s.at,
            ),
        };
        let payload = match self {
            Record::Message(m) => serde_json::to_string(m),
            Record::Suppression(s) => serde_json::to_string(s),
        };
        let payload = payload.map_err(unwritable)?;
        let own = Envelope::own(&event_type, event_id, at, payload).map_err(unwritable)?;
        let digest = match self {
            Record::Message(m) if m.state == State::Claimed => {
                Digest::of_json(&m.attempt.to_string()).map_err(unwritable)?
            }
            Record::Message(_) | Record::Suppression(_) => own.digest,
        };
        Ok(Envelope {
            livemode,
            object_type: Some(if matches!(self, Record::Message(_)) { MESSAGE } else { "suppression" }.to_owned()),
            object_id: Some(object_id),
            person_hint: person,
            digest,
            ..own
        })
    }
}

/// The key of the message whose claim this is.
pub fn claimed(envelope: &Envelope) -> Option<String> {
    let is_claim = envelope.event_type.strip_prefix("message.") == Some(State::Claimed.as_str());
    envelope.object_id.clone().filter(|_| is_claim)
}

impl MessageRecord {
    /// Which of two records of one message is the later, whatever order they are read in: by attempt, then by the way
    /// that a message goes. Back in the queue comes after the claim that it ended.
    pub fn order(&self) -> (u32, u8) {
        (self.attempt, order_of(self.state, self.attempt))
    }

    /// The message as this record shows it.
    pub fn message(self) -> Message {
        let (state, at) = (self.state, self.at);
        let when = |held: bool| held.then_some(at);
        Message {
            key: self.message_key,
            person_id: self.person_id,
            trigger: self.trigger,
            segment: self.segment,
            row_occurrence: self.row_occurrence,
            occurrence: self.occurrence,
            medium: self.channel,
            template: self.template,
            purpose: self.purpose,
            livemode: self.livemode,
            destination_hash: self.destination_hash,
            columns: self.columns,
            state,
            attempt: self.attempt,
            provider: self.provider,
            provider_id: self.provider_id,
            reason: self.reason,
            text: None,
            queued_at: self.queued_at,
            not_before: at,
            claimed_at: when(matches!(state, State::Claimed | State::Unknown)),
            sent_at: when(state == State::Sent),
            settled_at: when(state.is_final()),
            asked: 0,
        }
    }
}

/// See [`MessageRecord::order`].
pub fn order_of(state: State, attempt: u32) -> u8 {
    match state {
        State::Queued if attempt == 0 => 0,
        State::Claimed => 1,
        State::Unknown => 2,
        State::Sent => 3,
        State::Queued => 4,
        State::Delivered | State::Failed | State::Skipped => 5,
    }
}
