//! The ways out: one trait, and a file for each provider.
//!
//! A channel sends one message once and says what is known of it afterwards. It never tries a thing again that may have
//! been done, never decides whether a message may go, and never writes to the outbox.

pub mod klaviyo;
pub mod outbox;
pub mod twilio;

use std::time::Duration;

use async_trait::async_trait;

use super::message::{Message, State, Text};
use crate::base::Micros;

pub use {klaviyo::Klaviyo, outbox::RecordOnly, twilio::Twilio};

/// See the module.
#[async_trait]
pub trait Channel: Send + Sync {
    /// As records name the provider.
    fn name(&self) -> &'static str;

    /// Whether messages leave the house through it.
    fn leaves(&self) -> bool {
        true
    }

    /// How many requests may be under way at once.
    fn concurrency(&self) -> usize {
        4
    }

    /// Whether [`Channel::ask`] hands the message over again, to a provider that tells repetitions apart: then the rules
    /// must allow it once more.
    fn asks_by_sending(&self) -> bool {
        false
    }

    /// Hands a message over. Called at most once for each claim.
    async fn send(&self, parcel: &Parcel<'_>) -> Sent;

    /// What became of a message that may have gone out. `taken`: the provider's ids that are other messages' already.
    async fn ask(&self, parcel: &Parcel<'_>, taken: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Answer;
}

/// A message ready to go.
pub struct Parcel<'a> {
    pub message: &'a Message,
    /// The phone number or e-mail address itself.
    pub address: &'a str,
    /// `None` only where the text was lost with the store.
    pub text: Option<&'a Text>,
    pub now: Micros,
}

/// What a channel knows after sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Accepted {
        provider_id: Option<String>,
    },
    /// The provider will not send it, now or later.
    Refused {
        why: String,
        /// The recipient told the provider to stop.
        opted_out: bool,
    },
    /// The provider did nothing and may be asked again: a rate limit, no connection, credentials it does not take.
    Later {
        after: Duration,
        why: String,
    },
    /// It may have been sent.
    Unknown {
        why: String,
    },
}

/// What a provider says of a message that may have gone out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it: `state` is sent, delivered or failed.
    Has { state: State, provider_id: Option<String>, why: Option<String> },
    /// It knows nothing of it.
    Nothing,
    /// It did not answer.
    Silent { why: String },
}
