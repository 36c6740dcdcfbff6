//! Klaviyo's webhook: `{"data": [{external_id, payload, topic}, …], "meta": {klaviyo_webhook_id, …}}`.
//!
//! A payload is what its API answers to Get Event. It goes on in the shape in which the API lists events, so that one that
//! was posted and then polled is one event: the resource, and what was included. What it does not include, its metric's
//! name above all, the topic tells.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{TooMany, few};
use crate::{
    base::{Envelope, Micros, Source},
    facts::klaviyo::METRICS,
    sources::{Rejected, decode_or_keep},
};

/// Why nothing of a webhook is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookFault {
    #[error("the Klaviyo-Webhook-Id header and the body's klaviyo_webhook_id name different webhooks")]
    Mismatch,
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    klaviyo_webhook_id: Option<String>,
}

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    topic: Option<String>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    included: Vec<Value>,
}

/// Every event in `body`, which its signature vouches for. `webhook_id`: as the header names it.
pub fn webhook(body: &Bytes, webhook_id: &str, received_at: Micros) -> Result<Vec<Envelope>, WebhookFault> {
    let parsed: Body = match serde_json::from_slice(body) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(vec![Rejected::from_json(&error).envelope(Source::Klaviyo, body, received_at)]),
    };
    if parsed.meta.klaviyo_webhook_id.as_deref() != Some(webhook_id) {
        return Err(WebhookFault::Mismatch);
    }
    let resource = |raw: &RawValue| resource(raw).unwrap_or_else(|| body.slice_ref(raw.get().as_bytes()));
    let resources = few(parsed.data)?.into_iter().map(resource);
    Ok(resources.map(|r| decode_or_keep(Source::Klaviyo, &r, received_at)).collect())
}

/// An element as the resource that it delivers; `None` where it is none.
fn resource(raw: &RawValue) -> Option<Bytes> {
    let element: Element = serde_json::from_str(raw.get()).ok()?;
    let (data, mut included) = match serde_json::from_str::<Payload>(element.payload.get()) {
        Ok(payload) => (payload.data, payload.included),
        // The resource itself, without an envelope of its own.
        Err(_) => (element.payload, Vec::new()),
    };
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(data.get()).ok()?;
    let knows_metric = included.iter().any(|i| i["type"] == "metric" && i["attributes"]["name"].is_string());
    if let Some(topic) = element.topic.as_deref().filter(|_| !knows_metric) {
        let relationships: Value =
            serde_json::from_str(fields.get("relationships").map_or("null", |r| r.get())).ok()?;
        let id = &relationships["metric"]["data"]["id"];
        included.push(json!({"type": "metric", "id": id, "attributes": {"name": metric(topic)}}));
    }
    if !included.is_empty() {
        fields.insert("included".to_owned(), serde_json::value::to_raw_value(&included).ok()?);
    }
    serde_json::to_vec(&fields).ok().map(Bytes::from)
}

/// The metric of a topic (`event:klaviyo.opened_email`): by the name that Klaviyo's API gives it where it is one of
/// [`METRICS`], else the topic itself.
fn metric(topic: &str) -> &str {
    let Some(slug) = topic.strip_prefix("event:klaviyo.") else { return topic };
    let known = METRICS.iter().find(|name| name.to_ascii_lowercase().replace(' ', "_") == slug);
    match (known, slug) {
        (Some(name), _) => name,
        (None, "email_delivered") => "Received Email",
        (None, _) => topic,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::{REJECTED, decode};

    fn event(id: &str) -> Value {
        json!({"type": "event", "id": id,
            "attributes": {"datetime": "2026-08-01T09:30:00+00:00", "event_properties": {"$value": 12.50}},
            "relationships": {"profile": {"data": {"type": "profile", "id": "01H"}},
                "metric": {"data": {"type": "metric", "id": "M1"}}}})
    }

    fn body(elements: &Value) -> Bytes {
        json!({"data": elements, "meta": {"klaviyo_webhook_id": "W1", "klaviyo_account_id": "A1"}}).to_string().into()
    }

    #[test]
    fn an_event_that_was_posted_is_the_event_that_is_polled() {
        let posted =
            json!([{"external_id": "e1", "topic": "event:klaviyo.opened_email", "payload": {"data": event("e1")}}]);
        let posted = webhook(&body(&posted), "W1", Micros(1)).unwrap().remove(0);
        let mut polled = event("e1");
        polled["included"] = json!([{"type": "metric", "id": "M1", "attributes": {"name": "Opened Email"}},
            {"type": "profile", "id": "01H", "attributes": {"email": "ann@example.com"}}]);
        let polled = decode(Source::Klaviyo, &Bytes::from(polled.to_string()), Micros(9)).unwrap();
        assert_eq!(posted.identity().key(), polled.identity().key());
        assert_eq!((posted.event_type, posted.occurred_at), (polled.event_type, polled.occurred_at));
        assert_eq!(posted.person_hint.as_deref(), Some("01H"));
    }

    #[test]
    fn what_the_payload_includes_outweighs_the_topic_and_an_unknown_topic_names_itself() {
        let included = json!([{"type": "metric", "id": "M1", "attributes": {"name": "Sent SMS"}}]);
        let elements = json!([
            {"topic": "event:klaviyo.opened_email", "payload": {"data": event("e1"), "included": included}},
            {"topic": "event:klaviyo.email_delivered", "payload": event("e2")},
            {"topic": "event:api.back_in_stock", "payload": {"data": event("e3")}},
            {"payload": {"data": event("e4")}},
            {"topic": "event:klaviyo.sent_sms"},
            7
        ]);
        let events = webhook(&body(&elements), "W1", Micros(1)).unwrap();
        let types: Vec<_> = events.iter().map(|e| e.event_type.as_str()).collect();
        let wanted = ["Sent SMS", "Received Email", "event:api.back_in_stock", "metric:M1", REJECTED, REJECTED];
        assert_eq!(types, wanted);
    }

    #[test]
    fn a_body_for_another_webhook_is_refused_and_one_that_is_no_json_kept() {
        assert_eq!(webhook(&body(&json!([])), "W2", Micros(1)), Err(WebhookFault::Mismatch));
        let nameless = Bytes::from_static(b"{\"data\":[]}");
        assert_eq!(webhook(&nameless, "", Micros(1)), Err(WebhookFault::Mismatch));
        assert_eq!(webhook(&Bytes::from_static(b"{"), "W1", Micros(1)).unwrap()[0].event_type, REJECTED);
        assert_eq!(webhook(&body(&json!([])), "W1", Micros(1)), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_parser(text in "[\\[\\]{}\":,a-z0-9 ]{0,80}|\\PC{0,80}") {
            let whole = format!("{{\"meta\":{{\"klaviyo_webhook_id\":\"W1\"}},\"data\":[{{\"payload\":{text}}}]}}");
            drop(webhook(&Bytes::from(text), "W1", Micros(1)));
            drop(webhook(&Bytes::from(whole), "W1", Micros(1)));
        }
    }
}
