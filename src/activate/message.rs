//! One message and the states it goes through.
//!
//! ```text
//!            ┌────── rate limit ──────┐
//!            ▼                        │
//!  queued ──► claimed ──► sent ──► delivered
//!    │          │  │        └─────► failed
//!    │          │  └──► failed
//!    │          └─────► unknown ──► sent | delivered | failed   (by asking the provider, never by sending)
//!    ├──► skipped   a rule forbids it
//!    └──► failed    it cannot be written
//! ```
//!
//! Delivered, failed and skipped are final. No state but queued leads to a claim, and nothing leads from unknown back to
//! queued: a message that may have gone out is never sent again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::key::MessageKey;
use crate::base::{Micros, PersonId};

/// The row of a segment: what a template may use.
pub type Columns = Map<String, Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Queued,
    Claimed,
    /// A request went out, or may have, and no answer is known.
    Unknown,
    Sent,
    Delivered,
    Failed,
    Skipped,
}

impl State {
    pub const ALL: [State; 7] =
        [State::Queued, State::Claimed, State::Unknown, State::Sent, State::Delivered, State::Failed, State::Skipped];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Claimed => "claimed",
            State::Unknown => "unknown",
            State::Sent => "sent",
            State::Delivered => "delivered",
            State::Failed => "failed",
            State::Skipped => "skipped",
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, State::Delivered | State::Failed | State::Skipped)
    }

    /// Did it reach the person, or may it have? Caps count these.
    pub fn may_have_arrived(self) -> bool {
        matches!(self, State::Claimed | State::Unknown | State::Sent | State::Delivered)
    }

    /// The machine of the module's head.
    pub fn may_become(self, next: State) -> bool {
        use State::{Claimed, Delivered, Failed, Queued, Sent, Skipped, Unknown};
        match self {
            Queued => matches!(next, Queued | Claimed | Failed | Skipped),
            Claimed => matches!(next, Queued | Unknown | Sent | Delivered | Failed),
            Unknown => matches!(next, Unknown | Sent | Delivered | Failed),
            Sent => matches!(next, Delivered | Failed),
            Delivered | Failed | Skipped => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The way by which a message reaches a person; which provider carries it is the configuration's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    Sms,
    Email,
}

impl Medium {
    pub const ALL: [Medium; 2] = [Medium::Sms, Medium::Email];

    pub fn as_str(self) -> &'static str {
        match self {
            Medium::Sms => "sms",
            Medium::Email => "email",
        }
    }

    /// As a marketer writes it.
    pub fn spoken(self) -> &'static str {
        match self {
            Medium::Sms => "SMS",
            Medium::Email => "e-mail",
        }
    }

    /// The vault's kind of value that a message of this medium is addressed to.
    pub fn address_kind(self) -> &'static str {
        match self {
            Medium::Sms => "phone",
            Medium::Email => "email",
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown channel {0:?}: it is sms or email")]
pub struct UnknownMedium(String);

impl FromStr for Medium {
    type Err = UnknownMedium;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Medium::ALL.into_iter().find(|m| m.as_str() == text).ok_or_else(|| UnknownMedium(text.to_owned()))
    }
}

/// Why it is written: marketing wants consent, an open hour and room under the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    Marketing,
    Transactional,
}

/// A message as the outbox holds it. It names the recipient by hashes only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub key: MessageKey,
    pub person_id: PersonId,
    pub trigger: String,
    pub segment: String,
    /// The row's own occurrence, empty where it names none: with `person_id` it finds the membership again.
    pub row_occurrence: String,
    pub occurrence: String,
    pub medium: Medium,
    pub template: String,
    pub purpose: Purpose,
    pub livemode: bool,
    /// Empty where no destination was known: then the message is skipped.
    pub destination_hash: String,
    /// The row at the time of queueing.
    pub columns: Columns,
    pub state: State,
    /// How often it was claimed.
    pub attempt: u32,
    pub provider: Option<String>,
    pub provider_id: Option<String>,
    /// Why it is in this state, for a marketer to read.
    pub reason: Option<String>,
    /// As it was sent.
    pub text: Option<Text>,
    pub queued_at: Micros,
    /// Not to be looked at before: the end of the quiet hours, of a rate limit, or the next question to the provider.
    pub not_before: Micros,
    pub claimed_at: Option<Micros>,
    pub sent_at: Option<Micros>,
    pub settled_at: Option<Micros>,
    /// How often the provider was asked what became of it.
    pub asked: u32,
}

/// A message as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Of an e-mail.
    pub subject: Option<String>,
    pub body: String,
}

impl Message {
    /// When it went out as far as is known: what a cap's window looks at.
    pub fn went_at(&self) -> Micros {
        self.sent_at.or(self.claimed_at).unwrap_or(self.queued_at)
    }

    /// Whether its last claim was made here: records bring no text.
    pub fn is_ours(&self) -> bool {
        self.text.is_some()
    }

    /// Microseconds since its last claim.
    pub fn claimed_for(&self, now: Micros) -> i64 {
        now.0.saturating_sub(self.claimed_at.unwrap_or(now).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_gone_out_is_never_queued_again() {
        for state in [State::Unknown, State::Sent, State::Delivered, State::Failed, State::Skipped] {
            assert!(!state.may_become(State::Queued), "{state}");
            assert!(!state.may_become(State::Claimed), "{state}");
        }
    }

    #[test]
    fn final_states_are_final_and_all_others_lead_on() {
        for state in State::ALL {
            assert_eq!(State::ALL.iter().any(|next| state.may_become(*next)), !state.is_final(), "{state}");
        }
    }
}
