//! The channel that only records: what would be sent, to be looked at. Nothing leaves.

use async_trait::async_trait;

use super::{Answer, Channel, Parcel, Sent};
use crate::activate::message::State;

/// As records name it.
pub const NAME: &str = "outbox";

/// See the module.
pub struct RecordOnly;

#[async_trait]
impl Channel for RecordOnly {
    fn name(&self) -> &'static str {
        NAME
    }

    fn leaves(&self) -> bool {
        false
    }

    fn concurrency(&self) -> usize {
        256
    }

    /// The record of the message is its delivery.
    async fn send(&self, _: &Parcel<'_>) -> Sent {
        Sent::Accepted { provider_id: None }
    }

    async fn ask(&self, _: &Parcel<'_>, _: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Answer {
        Answer::Has { state: State::Sent, provider_id: None, why: None }
    }
}
