//! One request, taken apart into the events that it delivers.
//!
//! What must hold: of a request that was believed everything is kept. A part that is no event becomes an envelope with the
//! reason, as in a file, and the parts beside it are not touched by it; so does a body that cannot be taken apart.

mod aliyun;
mod klaviyo;
mod segment;
mod twilio;

pub use self::{
    aliyun::reports,
    klaviyo::{WebhookFault, webhook},
    segment::{Call, Collected},
    twilio::{form, parameters},
};

/// Events in one request. Klaviyo and Aliyun send some hundreds at most and Segment's own API takes 2,500; a megabyte
/// of empty values would be half a million.
const MOST: usize = 2_500;

/// Bytes that what a request says once comes to when each of its events says it: a megabyte for thousands of events would
/// be gigabytes.
const MOST_SHARED: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request holds more than {MOST} events, or says too much of all of them ({} MiB in all): send smaller ones",
    MOST_SHARED >> 20
)]
pub struct TooMany;

/// `events`, if they are not too many for one request.
fn few<T>(events: Vec<T>) -> Result<Vec<T>, TooMany> {
    if events.len() > MOST { Err(TooMany) } else { Ok(events) }
}
