//! Bytes in, verified envelopes out: what Stripe, Klaviyo, Twilio, Aliyun and the shop post, the pages of the providers'
//! APIs, files of events, past orders, the merchant's own topics.
//!
//! What must hold: nothing that was accepted is lost. Input of an unknown type, version or shape is an envelope like any
//! other; what cannot be decoded is an envelope too ([`REJECTED`]), with the reason and the text. The same input makes the
//! same identity, so taking it twice is taking it once. Payloads are handed on as they came; nothing here reads an amount
//! or a status out of an event.

mod aliyun;
pub mod api;
mod content;
pub mod delivery;
mod files;
#[cfg_attr(not(feature = "kafka"), path = "no_kafka.rs")]
mod kafka;
mod klaviyo;
mod lines;
pub mod orders;
pub mod rates;
mod rejected;
mod signature;
mod storefront;
mod stripe;
mod tap;
mod twilio;

use bytes::Bytes;

use crate::base::{Envelope, Micros, Source};
pub use content::FileError;
pub use files::{Batch, Batches, Options, from_reader, open};
pub use kafka::{Records, Topics, TopicsError};
pub use rejected::{REJECTED, Rejected, is_whole};
pub use signature::{
    klaviyo::{KlaviyoFault, KlaviyoVerifier},
    stripe::{BadSignature, Verifier, sign},
    twilio::{Signed, TwilioFault, TwilioVerifier},
};

/// The largest event that is taken, from a file or a webhook. Stripe's and Klaviyo's are well below (Klaviyo's tracked
/// properties may reach 5 MB by its rules, but a shop's do not), and a stranger's must not fill the memory.
pub const EVENT_LIMIT: usize = 1024 * 1024;

/// What is kept of an event beyond that limit: enough to see what it was.
pub const EXCERPT: usize = 64 * 1024;

/// The longest id, type or name, in bytes. Stripe promises 255; keys of the state store must stay below 64 KiB.
pub const ID_LIMIT: usize = 255;

/// One event of a source, as the body of a webhook or a line of a file. An `Err` is kept by [`Rejected::envelope`].
///
/// As a file's, unless whoever received it says otherwise ([`Envelope::by`]). Not for orders, of which one is many rows: see
/// [`orders`]. Our own records do not come in this way.
pub fn decode(source: Source, body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    if body.len() > EVENT_LIMIT {
        return Err(Rejected::TooLarge { bytes: body.len() as u64, kept: body.len() });
    }
    match source {
        Source::Stripe => stripe::decode(body, received_at),
        Source::Klaviyo => klaviyo::decode(body, received_at),
        Source::Storefront => storefront::decode(body, received_at),
        Source::Twilio => twilio::decode(body, received_at),
        Source::Aliyun => aliyun::decode(body, received_at),
        Source::Orders | Source::Tillstream => Err(Rejected::NotASource(source)),
    }
}

/// The same, with what cannot be decoded as the envelope that keeps it.
pub fn decode_or_keep(source: Source, body: &Bytes, received_at: Micros) -> Envelope {
    decode(source, body, received_at).unwrap_or_else(|rejected| rejected.envelope(source, body, received_at))
}

/// The body as text, which JSON must be.
fn text(body: &[u8]) -> Result<&str, Rejected> {
    std::str::from_utf8(body).map_err(|e| Rejected::NotUtf8 { at: e.valid_up_to() })
}

/// A text that can be an id: not empty, not endless.
fn short(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= ID_LIMIT).then(|| text.to_owned())
}

/// A person's name at the source, where it is an opaque id: an address or a phone number is not for envelopes.
fn opaque(name: &str) -> Option<String> {
    short(name).filter(|n| !n.contains('@') && !n.starts_with('+'))
}

#[cfg(test)]
mod tests;
