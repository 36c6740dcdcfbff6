//! Stripe's events of any API version, snapshot and thin: one reading of the body.
//!
//! Only what routing needs is read. An event without `data.object.id` (`balance.available`, `invoice.upcoming`) is valid,
//! and so is a thin one, without `data`. A thin event that has a snapshot twin goes by the twin's id, and its digest by what
//! it says: told twice it is one event, and beside its twin, which says more, it takes nothing away.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    Rejected, short,
    tap::{Data, Names},
    text,
};
use crate::base::{Digest, Envelope, Micros, Source, Via};

pub(super) fn decode(body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    let text = text(body)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let event = Event::deserialize(&mut reader).map_err(|e| Rejected::from_json(&e))?;
    reader.end().map_err(|e| Rejected::from_json(&e))?;

    let event_type = event.kind.required("type")?;
    // A thin event says what it is about in `related_object`; its digest is that of this reference.
    let digest = event.data.or(event.related).unwrap_or_default().with(&event_type);
    let Names { object, id, customer } = event.names;
    let person_hint = if object.as_deref() == Some("customer") { id.clone() } else { customer };
    Ok(Envelope {
        source: Source::Stripe,
        event_id: match event.snapshot.optional() {
            Some(twin) => twin,
            None => event.id.required("id")?,
        },
        event_type,
        api_version: event.api_version.optional(),
        account: event.account.optional().or(event.context.optional()),
        livemode: matches!(event.livemode, Scalar::Bool(true)),
        occurred_at: event.created.time("created")?.unwrap_or(received_at),
        received_at,
        via: Via::File,
        object_type: object,
        object_id: id,
        person_hint,
        digest,
        payload: body.clone(),
    })
}

#[derive(Default)]
struct Event<'a> {
    id: Scalar<'a>,
    kind: Scalar<'a>,
    created: Scalar<'a>,
    api_version: Scalar<'a>,
    account: Scalar<'a>,
    /// A thin event's word for the account.
    context: Scalar<'a>,
    livemode: Scalar<'a>,
    /// Of a thin event: the id of the event that tells the same with its data.
    snapshot: Scalar<'a>,
    names: Names,
    data: Option<Digest>,
    related: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Type,
    Created,
    ApiVersion,
    Account,
    Context,
    Livemode,
    SnapshotEvent,
    Data,
    RelatedObject,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Event<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Event<'de>, A::Error> {
        let mut event = Event::default();
        while let Some(key) = fields.next_key()? {
            match key {
                Key::Id => event.id = fields.next_value()?,
                Key::Type => event.kind = fields.next_value()?,
                Key::Created => event.created = fields.next_value()?,
                Key::ApiVersion => event.api_version = fields.next_value()?,
                Key::Account => event.account = fields.next_value()?,
                Key::Context => event.context = fields.next_value()?,
                Key::Livemode => event.livemode = fields.next_value()?,
                Key::SnapshotEvent => event.snapshot = fields.next_value()?,
                Key::Data => event.data = Some(fields.next_value_seed(Data::of_event(&mut event.names))?),
                Key::RelatedObject => {
                    // Where there is a snapshot as well, the snapshot names the object.
                    let mut names = Names::default();
                    event.related = Some(fields.next_value_seed(Data::of_reference(&mut names))?);
                    event.names = event.names.or(names);
                }
                Key::Other => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(event)
    }
}

/// A value that should be simple: what it is, whatever it is, so that an odd shape is an answer and not an error.
#[derive(Debug, Default)]
enum Scalar<'a> {
    #[default]
    Absent,
    Bool(bool),
    Whole(i64),
    Text(Cow<'a, str>),
    /// A list, an object, a number that is not whole or does not fit.
    Other,
}

impl Scalar<'_> {
    fn required(self, field: &'static str) -> Result<String, Rejected> {
        match self {
            Scalar::Absent => Err(Rejected::Missing { field }),
            Scalar::Text(text) if text.is_empty() => Err(Rejected::Missing { field }),
            Scalar::Text(text) => short(&text).ok_or(Rejected::BadField { field, why: "is longer than 255 bytes" }),
            _ => Err(Rejected::BadField { field, why: "is not a text" }),
        }
    }

    fn optional(self) -> Option<String> {
        match self {
            Scalar::Text(text) => short(&text),
            _ => None,
        }
    }

    /// Seconds since 1970, or RFC 3339 text as in thin events.
    fn time(self, field: &'static str) -> Result<Option<Micros>, Rejected> {
        let at = match self {
            Scalar::Absent => return Ok(None),
            Scalar::Whole(seconds) => Micros::from_seconds(seconds),
            Scalar::Text(text) => Micros::from_rfc3339(&text),
            _ => None,
        };
        // A point that has no date cannot be laid in a day's partition.
        match at.filter(|at| at.is_reckonable()) {
            Some(at) => Ok(Some(at)),
            None => Err(Rejected::BadField { field, why: "is no time" }),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Absent)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(value).map_or(Scalar::Other, Scalar::Whole))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar<'de>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn read(json: &str) -> Result<Envelope, Rejected> {
        decode(&Bytes::copy_from_slice(json.as_bytes()), NOW)
    }

    #[test]
    fn an_event_is_read_and_its_payload_untouched() {
        let json = r#" {"id":"evt_1","object":"event","api_version":"2023-10-16","account":"acct_1","created":1760000000,
            "data":{"object":{"id":"pi_1","object":"payment_intent","customer":"cus_1"}},"livemode":true,
            "pending_webhooks":1,"request":{"id":"req_1"},"type":"payment_intent.succeeded"}"#;
        let event = read(json).unwrap();
        assert_eq!(event.event_id, "evt_1");
        assert_eq!(event.event_type, "payment_intent.succeeded");
        assert_eq!(event.api_version.as_deref(), Some("2023-10-16"));
        assert_eq!(event.account.as_deref(), Some("acct_1"));
        assert_eq!(event.occurred_at, Micros(1_760_000_000_000_000));
        assert_eq!(event.object_type.as_deref(), Some("payment_intent"));
        assert_eq!(event.object_id.as_deref(), Some("pi_1"));
        assert_eq!(event.person_hint.as_deref(), Some("cus_1"));
        assert!(event.livemode);
        assert_eq!(event.payload, json.as_bytes());
    }

    #[test]
    fn a_retry_is_the_same_event_and_another_type_is_not() {
        let first =
            read(r#"{"id":"evt_1","type":"a.b","created":5,"data":{"object":{"id":"x","n":1}},"pending_webhooks":2}"#);
        let retry = read(
            r#"{"pending_webhooks":1,"type":"a.b","data": {"object": {"n":1, "id":"x"}},"id":"evt_1","created":5}"#,
        );
        let other = read(r#"{"id":"evt_1","type":"a.c","created":5,"data":{"object":{"id":"x","n":1}}}"#);
        let later = read(r#"{"id":"evt_1","type":"a.b","created":5,"data":{"object":{"id":"x","n":2}}}"#);
        let identity = |e: Result<Envelope, Rejected>| e.unwrap().identity().key();
        let first = identity(first);
        assert_eq!(first, identity(retry));
        assert_ne!(first, identity(other));
        assert_ne!(first, identity(later));
        let data = Digest::of_json(r#"{"object":{"id":"x","n":1}}"#).unwrap();
        assert!(first.ends_with(&data.with("a.b").0.to_be_bytes()));
    }

    #[test]
    fn events_without_an_objects_id_are_valid() {
        let event =
            read(r#"{"id":"evt_1","type":"balance.available","created":5,"data":{"object":{"object":"balance"}}}"#);
        let event = event.unwrap();
        assert_eq!((event.object_type.as_deref(), event.object_id), (Some("balance"), None));
        assert!(!event.livemode, "what does not say that it is live is not");
    }

    #[test]
    fn a_customers_own_events_are_about_that_person() {
        let json = r#"{"id":"e","type":"customer.created","data":{"object":{"object":"customer","id":"cus_1"}}}"#;
        assert_eq!(read(json).unwrap().person_hint.as_deref(), Some("cus_1"));
        let json = r#"{"id":"e","type":"customer.discount.created","data":{"object":{"object":"discount","customer":"cus_1"}}}"#;
        assert_eq!(read(json).unwrap().person_hint.as_deref(), Some("cus_1"));
    }

    #[test]
    fn thin_events_are_kept() {
        let json = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.customer.created","livemode":true,
            "created":"2026-10-01T12:00:00.250Z","related_object":{"id":"cus_1","type":"customer","url":"/v1/customers/cus_1"},
            "context":null}"#;
        let event = read(json).unwrap();
        assert_eq!(event.occurred_at.to_string(), "2026-10-01T12:00:00.250Z");
        assert_eq!((event.object_type.as_deref(), event.object_id.as_deref()), (Some("customer"), Some("cus_1")));
        assert_eq!(event.person_hint.as_deref(), Some("cus_1"));
        let bare = read(r#"{"id":"evt_3","object":"v2.core.event","type":"v2.core.ping"}"#).unwrap();
        assert_eq!(bare.occurred_at, NOW, "without a time of its own it happened when it came");
        assert_ne!(bare.digest, event.digest);
    }

    #[test]
    fn a_thin_event_goes_by_its_twin_and_never_stands_in_its_place() {
        let thin = |id: &str| {
            read(&format!(
                r#"{{"id":"{id}","object":"v2.core.event","type":"v1.customer.created","livemode":true,
                "created":"2026-10-01T12:00:00.250Z","context":"acct_1","snapshot_event":"evt_twin",
                "related_object":{{"id":"cus_1","type":"customer","url":"/v1/customers/cus_1"}}}}"#
            ))
            .unwrap()
        };
        let event = thin("evt_thin_1");
        assert_eq!((event.event_id.as_str(), event.account.as_deref()), ("evt_twin", Some("acct_1")));
        assert_eq!(event.identity().key(), thin("evt_thin_2").identity().key());
        let twin = read(
            r#"{"id":"evt_twin","type":"customer.created","created":1790856000,"livemode":true,
            "data":{"object":{"id":"cus_1","object":"customer"}}}"#,
        );
        assert_ne!(event.identity().key(), twin.unwrap().identity().key(), "the twin holds the data");
        let odd = read(r#"{"id":"evt_4","object":"v2.core.event","type":"t","snapshot_event":{"id":7}}"#).unwrap();
        assert_eq!(odd.event_id, "evt_4");
    }

    #[test]
    fn odd_shapes_are_kept_and_what_is_no_event_says_why() {
        let odd = r#"{"id":"e","type":"t","data":[1],"livemode":"yes","api_version":7,"account":{},"created":null}"#;
        assert!(read(odd).is_ok());
        let reason = |json: &str| read(json).unwrap_err().to_string();
        assert_eq!(reason(r#"{"type":"t"}"#), "it has no \"id\"");
        assert_eq!(reason(r#"{"id":"","type":"t"}"#), "it has no \"id\"");
        assert_eq!(reason(r#"{"id":"e"}"#), "it has no \"type\"");
        assert_eq!(reason(r#"{"id":7,"type":"t"}"#), "its \"id\" is not a text");
        assert_eq!(
            reason(&format!(r#"{{"id":"{}","type":"t"}}"#, "x".repeat(256))),
            "its \"id\" is longer than 255 bytes"
        );
        assert_eq!(reason(r#"{"id":"e","type":"t","created":9223372036854775807}"#), "its \"created\" is no time");
        assert_eq!(reason(r#"{"id":"e","type":"t","created":"soon"}"#), "its \"created\" is no time");
        assert_eq!(reason("[]"), "not a JSON object");
        assert_eq!(reason("7"), "not a JSON object");
        assert_eq!(reason("{\"id\":\n  truth}"), "not JSON: line 2, column 6: expected ident");
        assert_eq!(reason(r#"{"id":"e","type":"t"} x"#), "not JSON: line 1, column 23: trailing characters");
        assert_eq!(reason(""), "not JSON: line 1, column 0: EOF while parsing a value");
        assert!(reason(&"[".repeat(100_000)).starts_with("not"));
        assert!(reason(&format!(r#"{{"id":"e","data":{}"#, "[".repeat(100_000))).contains("recursion limit"));
    }
}
