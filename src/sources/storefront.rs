//! The shop's own events, in the shape of Segment's tracking messages: page, track, identify, alias, group, screen.
//!
//! The digest is of the whole message but `sentAt` and `_metadata`, which libraries change when they send again. The type
//! of a `track` message is its event's name (`Product Added`); of the others, the message's type. A message is live unless
//! a top-level `"livemode": false` marks it as made up.

use bytes::Bytes;
use serde_json::Value;

use super::{Rejected, opaque, short, text};
use crate::base::{Digest, Envelope, Micros, Source, Via};

pub(super) fn decode(body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    let message: Value = serde_json::from_str(text(body)?).map_err(|e| Rejected::from_json(&e))?;
    let Value::Object(mut message) = message else { return Err(Rejected::NotAnObject) };
    let sent_at = message.remove("sentAt");
    message.remove("_metadata");
    let digest = Digest::of(&message).map_err(|e| Rejected::from_json(&e))?;

    let string = |field: &str| message.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
    let kind = string("type").ok_or(Rejected::Missing { field: "type" })?;
    let event_type = match kind {
        "track" => string("event").ok_or(Rejected::Missing { field: "event" })?,
        other => other,
    };
    let event_type = short(event_type).ok_or(Rejected::BadField { field: "event", why: "is longer than 255 bytes" })?;
    let event_id = match string("messageId") {
        Some(id) => short(id).ok_or(Rejected::BadField { field: "messageId", why: "is longer than 255 bytes" })?,
        None => digest.to_string(),
    };
    // Who has logged in is known by that name, before it by the browser's.
    let person_hint = string("userId").and_then(opaque).or_else(|| string("anonymousId").and_then(opaque));
    let (object_type, object_id) = object(message.get("properties"));
    let occurred_at = match time(message.get("timestamp"), "timestamp")? {
        Some(at) => at,
        None => time(sent_at.as_ref(), "sentAt")?.unwrap_or(received_at),
    };
    Ok(Envelope {
        source: Source::Storefront,
        event_id,
        event_type,
        api_version: None,
        account: None,
        livemode: message.get("livemode").and_then(Value::as_bool).unwrap_or(true),
        occurred_at,
        received_at,
        via: Via::File,
        object_type,
        object_id,
        person_hint,
        digest,
        payload: body.clone(),
    })
}

/// The cart that a message is about, else the order.
fn object(properties: Option<&Value>) -> (Option<String>, Option<String>) {
    let id = |key: &str| properties?.get(key)?.as_str().and_then(opaque);
    match (id("cart_id"), id("order_id")) {
        (Some(cart), _) => (Some("cart".to_owned()), Some(cart)),
        (None, Some(order)) => (Some("order".to_owned()), Some(order)),
        (None, None) => (None, None),
    }
}

fn time(value: Option<&Value>, field: &'static str) -> Result<Option<Micros>, Rejected> {
    let at = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => Micros::from_rfc3339(text),
        Some(_) => None,
    };
    at.filter(|at| at.is_reckonable())
        .map(Some)
        .ok_or(Rejected::BadField { field, why: "is no time, as 2026-01-31T09:30:00Z" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn read(json: &str) -> Result<Envelope, Rejected> {
        decode(&Bytes::copy_from_slice(json.as_bytes()), NOW)
    }

    #[test]
    fn a_track_message_is_named_by_its_event() {
        let json = r#"{"type":"track","messageId":"m1","anonymousId":"an1","event":"Product Added","userId":"u1",
            "properties":{"cart_id":"c1","price":12.5},"timestamp":"2026-01-31T09:30:00.123Z","sentAt":"2026-01-31T09:31:00Z"}"#;
        let event = read(json).unwrap();
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("m1", "Product Added"));
        assert_eq!(event.occurred_at.to_string(), "2026-01-31T09:30:00.123Z");
        assert_eq!((event.object_type.as_deref(), event.object_id.as_deref()), (Some("cart"), Some("c1")));
        assert_eq!(event.person_hint.as_deref(), Some("u1"));
        assert_eq!(event.payload, json.as_bytes(), "sentAt too");
    }

    #[test]
    fn a_message_sent_again_is_the_same_message() {
        let at = |sent: &str| format!(r#"{{"type":"page","anonymousId":"an1","name":"Home","sentAt":"{sent}"}}"#);
        let first = read(&at("2026-01-31T09:31:00Z")).unwrap();
        let counted = at("2026-01-31T09:32:00Z").replace("{", r#"{"_metadata":{"retryCount":2},"#);
        assert_eq!(first.identity().key(), read(&counted).unwrap().identity().key());
        assert_eq!(first.identity().key(), read(&at("2026-01-31T09:39:00Z")).unwrap().identity().key());
        assert_eq!(first.event_id, first.digest.to_string(), "without a messageId it is named by what it says");
        assert_ne!(
            first.identity().key(),
            read(r#"{"type":"page","anonymousId":"an2","name":"Home"}"#).unwrap().identity().key()
        );
    }

    #[test]
    fn an_address_is_no_hint() {
        let event = read(r#"{"type":"identify","userId":"ann@example.com","anonymousId":"an1"}"#).unwrap();
        assert_eq!(event.person_hint.as_deref(), Some("an1"));
        assert_eq!(event.occurred_at, NOW);
    }

    #[test]
    fn what_is_no_message_says_why() {
        let reason = |json| read(json).unwrap_err().to_string();
        assert_eq!(reason(r#"{"messageId":"m"}"#), "it has no \"type\"");
        assert_eq!(reason(r#"{"type":"track"}"#), "it has no \"event\"");
        assert_eq!(reason(r#"{"type":"page","timestamp":1}"#), "its \"timestamp\" is no time, as 2026-01-31T09:30:00Z");
    }
}
