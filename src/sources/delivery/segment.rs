//! The calls of Segment's HTTP tracking API: one message (`track`, `page`, …), or a batch of them.
//!
//! A message is kept as it was written, number by number. Added are only what a call leaves out because it stands
//! elsewhere in the request: the type, which the address tells, and of a batch the context and the time of sending. A write
//! key in the body proves the sender and is not kept.

use std::{collections::BTreeMap, str::FromStr};

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};

use super::{MOST_SHARED, TooMany, few};
use crate::{
    base::{Envelope, Micros, Source},
    sources::{Rejected, decode_or_keep},
};

/// What an address takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// One message of this type.
    One(&'static str),
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such call: it is one of track, page, screen, identify, alias, group, batch")]
pub struct UnknownCall;

impl FromStr for Call {
    type Err = UnknownCall;

    /// By its name, or by the one letter that libraries in browsers and phones use.
    fn from_str(text: &str) -> Result<Call, UnknownCall> {
        match text {
            "batch" | "b" => Ok(Call::Batch),
            "track" | "t" => Ok(Call::One("track")),
            "page" | "p" => Ok(Call::One("page")),
            "screen" | "s" => Ok(Call::One("screen")),
            "identify" | "i" => Ok(Call::One("identify")),
            "alias" | "a" => Ok(Call::One("alias")),
            "group" | "g" => Ok(Call::One("group")),
            _ => Err(UnknownCall),
        }
    }
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// A request's body, read as far as it must be to ask who sent it.
pub struct Collected {
    body: Bytes,
    call: Call,
    fields: Result<Fields, Rejected>,
}

impl Collected {
    pub fn read(call: Call, body: Bytes) -> Collected {
        let fields = serde_json::from_slice(&body).map_err(|e| Rejected::from_json(&e));
        Collected { body, call, fields }
    }

    /// The key that the body names.
    pub fn write_key(&self) -> Option<String> {
        serde_json::from_str(self.fields.as_ref().ok()?.get("writeKey")?.get()).ok()
    }

    pub fn envelopes(self, received_at: Micros) -> Result<Vec<Envelope>, TooMany> {
        let keep = |rejected: &Rejected, body: &[u8]| rejected.envelope(Source::Storefront, body, received_at);
        let decode = |message: &Bytes| decode_or_keep(Source::Storefront, message, received_at);
        let fields = match self.fields {
            Ok(fields) => fields,
            Err(rejected) => return Ok(vec![keep(&rejected, &self.body)]),
        };
        let kind = match self.call {
            Call::Batch => None,
            Call::One(kind) => Some(kind),
        };
        let Some(kind) = kind else {
            let Some(messages) = fields.get("batch") else {
                return Ok(vec![keep(&Rejected::Missing { field: "batch" }, &self.body)]);
            };
            let Ok(messages) = serde_json::from_str::<Vec<&RawValue>>(messages.get()) else {
                let rejected = Rejected::BadField { field: "batch", why: "is no list" };
                return Ok(vec![keep(&rejected, &self.body)]);
            };
            let message = |raw: &RawValue| match serde_json::from_str(raw.get()) {
                Ok(message) => decode(&written(shared(message, &fields))),
                Err(error) => keep(&Rejected::from_json(&error), raw.get().as_bytes()),
            };
            let messages = few(messages)?;
            let said_once: usize = SHARED.iter().filter_map(|name| fields.get(*name)).map(|v| v.get().len()).sum();
            if said_once.saturating_mul(messages.len()) > MOST_SHARED {
                return Err(TooMany);
            }
            return Ok(messages.into_iter().map(message).collect());
        };
        let mut message = fields;
        if let Ok(kind) = to_raw_value(kind) {
            message.insert("type".to_owned(), kind);
        }
        Ok(vec![decode(&written(message))])
    }
}

/// What a batch says of all its messages.
const SHARED: [&str; 2] = ["sentAt", "context"];

/// The message with what its batch says of all: the context where it has none of its own on a matter, the time of sending.
fn shared(mut message: Fields, batch: &Fields) -> Fields {
    let [sent_at, context] = SHARED;
    if let Some(time) = batch.get(sent_at) {
        message.entry(sent_at.to_owned()).or_insert_with(|| time.clone());
    }
    let of = |fields: &Fields| fields.get(context).and_then(|c| serde_json::from_str::<Fields>(c.get()).ok());
    if let Some(mut merged) = of(batch) {
        merged.extend(of(&message).unwrap_or_default());
        if let Ok(merged) = to_raw_value(&merged) {
            message.insert(context.to_owned(), merged);
        }
    }
    message
}

fn written(mut message: Fields) -> Bytes {
    message.remove("writeKey");
    // Raw values always serialise.
    serde_json::to_vec(&message).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::sources::REJECTED;

    fn events(call: &str, body: &str) -> Vec<Envelope> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Collected::read(call.parse().unwrap(), body).envelopes(Micros(7)).unwrap()
    }

    #[test]
    fn the_address_tells_the_type_and_numbers_stay_as_written() {
        let body = r#"{"event":"Product Added","userId":"u1","writeKey":"wk","properties":{"price":12.50,"n":12345678901234567890.10}}"#;
        for call in ["track", "t"] {
            let event = events(call, body).remove(0);
            assert_eq!(event.event_type, "Product Added");
            let payload = std::str::from_utf8(&event.payload).unwrap();
            assert!(payload.contains(r#""price":12.50,"n":12345678901234567890.10"#), "{payload}");
            assert!(payload.contains(r#""type":"track""#) && !payload.contains("wk"), "{payload}");
        }
        for (call, kind) in
            [("page", "page"), ("s", "screen"), ("identify", "identify"), ("a", "alias"), ("g", "group")]
        {
            assert_eq!(events(call, r#"{"anonymousId":"an1"}"#)[0].event_type, kind);
        }
        assert!("sql".parse::<Call>().is_err());
    }

    #[test]
    fn a_batchs_context_is_every_messages_and_its_own_goes_first() {
        let batch = json!({"writeKey": "wk", "sentAt": "2026-08-01T09:31:00Z",
        "context": {"locale": "de-DE", "ip": "203.0.113.7"},
        "batch": [
            {"type": "page", "messageId": "m1", "anonymousId": "an1"},
            {"type": "page", "messageId": "m2", "anonymousId": "an1", "context": {"locale": "fr-FR"}, "timestamp": "2026-08-01T09:00:00Z"},
            7,
        ]});
        let found = events("batch", &batch.to_string());
        let context = |i: usize| serde_json::from_slice::<Value>(&found[i].payload).unwrap()["context"].clone();
        assert_eq!(context(0), json!({"locale": "de-DE", "ip": "203.0.113.7"}));
        assert_eq!(context(1), json!({"locale": "fr-FR", "ip": "203.0.113.7"}));
        assert_eq!(
            found[0].occurred_at.to_string(),
            "2026-08-01T09:31:00Z",
            "without a time of its own, when it was sent"
        );
        assert_eq!(found[1].occurred_at.to_string(), "2026-08-01T09:00:00Z");
        assert_eq!((found[2].event_type.as_str(), found.len()), (REJECTED, 3));
    }

    #[test]
    fn a_batch_that_is_sent_again_is_the_same_events() {
        let sent = |at: &str| {
            let batch = json!({"sentAt": at, "batch": [{"type": "page", "messageId": "m1", "anonymousId": "an1"}]});
            events("batch", &batch.to_string()).remove(0)
        };
        assert_eq!(sent("2026-08-01T09:31:00Z").identity().key(), sent("2026-08-01T09:39:00Z").identity().key());
    }

    #[test]
    fn what_is_no_call_is_kept_whole() {
        for body in ["{", "[]", "{\"batch\":7}", "{}"] {
            let found = events("batch", body);
            assert_eq!((found.len(), found[0].event_type.as_str()), (1, REJECTED), "{body}");
        }
        let read = |body: &'static str| Collected::read(Call::Batch, Bytes::from_static(body.as_bytes())).write_key();
        assert_eq!(read(r#"{"writeKey":"wk","batch":[]}"#).as_deref(), Some("wk"));
        assert_eq!((read(r#"{"writeKey":7}"#), read("{")), (None, None));
        let many = format!("{{\"batch\":[{}0]}}", "0,".repeat(2_500));
        assert_eq!(Collected::read(Call::Batch, Bytes::from(many)).envelopes(Micros(1)), Err(TooMany));
    }

    #[test]
    fn a_batch_that_says_a_lot_of_many_is_refused_before_it_is_spread() {
        let read = |bytes: usize, messages: usize, field: &str| {
            let batch = vec!["{}"; messages].join(",");
            let body = format!(r#"{{"{field}":{{"a":"{}"}},"batch":[{batch}]}}"#, "x".repeat(bytes));
            Collected::read(Call::Batch, Bytes::from(body)).envelopes(Micros(1)).map(|all| all.len())
        };
        for field in SHARED {
            assert_eq!(read(900_000, 2_500, field), Err(TooMany), "{field}");
            assert_eq!(read(3_000, 2_500, field), Ok(2_500), "{field}");
            assert_eq!(read(900_000, 5, field), Ok(5), "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_parser(text in "[\\[\\]{}\":,a-z0-9 ]{0,80}|\\PC{0,80}", one: bool) {
            let call = if one { Call::One("track") } else { Call::Batch };
            let whole = format!("{{\"context\":{text},\"batch\":[{{\"context\":{text}}},{text}]}}");
            for body in [text, whole] {
                prop_assert!(Collected::read(call, Bytes::from(body)).envelopes(Micros(1)).is_ok());
            }
        }
    }
}
