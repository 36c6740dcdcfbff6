//! One event as a source handed it over: what routing needs, and the payload untouched.
//!
//! An envelope is made only from input that its source verified. Nothing after the source reads the payload to find
//! out *which* event this is; everything after it may read the payload to find out what it *says*.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Digest, Micros, Offset};

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    Stripe,
    Klaviyo,
    Storefront,
    /// Past orders, imported from a file.
    Orders,
    /// Our own records: what was queued, claimed and sent.
    Tillstream,
    /// What became of text messages, and what was texted back.
    Twilio,
    /// What became of text messages.
    Aliyun,
}

impl Source {
    pub const ALL: [Source; 7] = [
        Source::Stripe,
        Source::Klaviyo,
        Source::Storefront,
        Source::Orders,
        Source::Tillstream,
        Source::Twilio,
        Source::Aliyun,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Source::Stripe => "stripe",
            Source::Klaviyo => "klaviyo",
            Source::Storefront => "storefront",
            Source::Orders => "orders",
            Source::Tillstream => "tillstream",
            Source::Twilio => "twilio",
            Source::Aliyun => "aliyun",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown source {0:?}: it is one of stripe, klaviyo, storefront, orders")]
pub struct UnknownSource(String);

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Source::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| UnknownSource(text.to_owned()))
    }
}

/// How an event came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    File,
    /// Its source, or a page of the shop, posted it.
    Webhook,
    /// We asked its source's API.
    Api,
    /// We made it.
    Own,
}

impl Via {
    const ALL: [Via; 4] = [Via::File, Via::Webhook, Via::Api, Via::Own];

    pub fn as_str(self) -> &'static str {
        match self {
            Via::File => "file",
            Via::Webhook => "webhook",
            Via::Api => "api",
            Via::Own => "own",
        }
    }

    pub fn parse(text: &str) -> Option<Via> {
        Via::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// One verified event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub source: Source,
    /// The source's own id of the event. With `source` and `digest` it is the event's identity: real sources never
    /// give one id to two events, but exports with scrubbed ids do, and those events must not be lost.
    pub event_id: String,
    /// The source's name for what happened, as `payment_intent.succeeded`.
    pub event_type: String,
    pub api_version: Option<String>,
    /// The account at the source, where it says (Stripe Connect).
    pub account: Option<String>,
    pub livemode: bool,
    /// When it happened, by the source's clock. Stripe's has whole seconds.
    pub occurred_at: Micros,
    pub received_at: Micros,
    pub via: Via,
    pub object_type: Option<String>,
    pub object_id: Option<String>,
    /// The source's own name for the person, in clear text only where it is an opaque id (`cus_…`).
    pub person_hint: Option<String>,
    /// Of what the event says (Stripe: `type` and `data`), insensitive to white space and key order.
    pub digest: Digest,
    /// The event as received: one JSON document.
    #[serde(with = "verbatim")]
    pub payload: Bytes,
}

impl Envelope {
    /// A record of our own: live, of no object and no person. Callers say what differs.
    ///
    /// # Errors
    /// Where `payload` is no JSON.
    pub fn own(event_type: &str, event_id: String, at: Micros, payload: String) -> Result<Envelope, serde_json::Error> {
        Ok(Envelope {
            source: Source::Tillstream,
            event_id,
            event_type: event_type.to_owned(),
            api_version: None,
            account: None,
            livemode: true,
            occurred_at: at,
            received_at: at,
            via: Via::Own,
            object_type: None,
            object_id: None,
            person_hint: None,
            digest: Digest::of_json(&payload)?,
            payload: Bytes::from(payload),
        })
    }

    /// Which event it is.
    pub fn identity(&self) -> Identity<'_> {
        let Envelope { source, event_id, event_type, digest, .. } = self;
        Identity { source: *source, event_id, event_type, digest: *digest }
    }

    /// Whether its source itself gave it to us: then its name alone says which event it is ([`Identity::name`]).
    pub fn is_first_hand(&self) -> bool {
        matches!(self.via, Via::Webhook | Via::Api)
    }

    /// The same, come another way.
    pub fn by(self, via: Via) -> Envelope {
        Envelope { via, ..self }
    }
}

/// What tells an event from others. Fields as in [`Envelope`].
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub source: Source,
    pub event_id: &'a str,
    pub event_type: &'a str,
    pub digest: Digest,
}

impl Identity<'_> {
    /// What duplicates of the event have too. It is on disk: sources keep their numbers, new ones come last.
    pub fn key(&self) -> Vec<u8> {
        [&[self.source as u8], self.event_id.as_bytes(), &self.digest.0.to_be_bytes()].concat()
    }

    /// What other renderings of the event have too, where there may be any: Stripe writes one event anew for each API version
    /// that it is asked for in, an endpoint's or a request's. The type is part of it since a thin event goes by the id of the
    /// one that it announces.
    pub fn name(&self) -> Option<Vec<u8>> {
        let Identity { source, event_id, event_type, .. } = self;
        // No key begins with this byte.
        let first = !(*source as u8);
        (*source == Source::Stripe).then(|| [&[first], event_id.as_bytes(), &[0], event_type.as_bytes()].concat())
    }
}

/// A payload's bytes, as they are.
mod verbatim {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

/// An envelope and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub offset: Offset,
    pub envelope: Envelope,
}
