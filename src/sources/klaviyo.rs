//! Klaviyo's events and profiles, as its API writes them: an event with its included metric and profile, or a profile.
//!
//! Neither says whether it is live: it is, unless a top-level `"livemode": false` marks it as made up.
//!
//! The digest is of the attributes: of an event, whether it was polled or posted, and with what included, it is one. The
//! profile that comes with it changes from one look to the next.

use bytes::Bytes;
use serde_json::Value;

use super::{Rejected, opaque, short, text};
use crate::base::{Digest, Envelope, Micros, Source, Via};

/// The event type of a profile as it is now.
const PROFILE_UPDATED: &str = "profile.updated";

pub(super) fn decode(body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    let resource: Value = serde_json::from_str(text(body)?).map_err(|e| Rejected::from_json(&e))?;
    if !resource.is_object() {
        return Err(Rejected::NotAnObject);
    }
    let kind = required(&resource, "type")?;
    let id = required(&resource, "id")?;
    if resource["object"] == "event" {
        return Err(Rejected::BadField { field: "object", why: "is Stripe's: ingest it as stripe" });
    }
    let attributes = &resource["attributes"];
    let says = if matches!(kind.as_str(), "event" | "profile") { attributes } else { &resource };
    let digest = Digest::of(says).map_err(|e| Rejected::from_json(&e))?;
    let (event_id, event_type, occurred_at, person) = match kind.as_str() {
        "profile" => {
            // A profile is sent again with every change; the time of the change tells them apart, else what it says.
            let updated = attributes["updated"].as_str();
            let version = updated.map_or_else(|| digest.to_string(), str::to_owned);
            let event_id =
                short(&format!("profile:{id}:{version}")).unwrap_or_else(|| format!("profile:{}", digest.with(&id)));
            (event_id, PROFILE_UPDATED.to_owned(), profile_time(attributes)?, Some(id.as_str()))
        }
        "event" => (id.clone(), metric(&resource), event_time(attributes)?, related(&resource, "profile")),
        // A resource of a kind that we do not know yet.
        other => (id.clone(), other.to_owned(), None, None),
    };
    Ok(Envelope {
        source: Source::Klaviyo,
        event_id,
        event_type,
        api_version: None,
        account: None,
        livemode: resource["livemode"].as_bool().unwrap_or(true),
        occurred_at: occurred_at.unwrap_or(received_at),
        received_at,
        via: Via::File,
        person_hint: person.and_then(opaque),
        object_type: Some(kind),
        object_id: Some(id),
        digest,
        payload: body.clone(),
    })
}

fn required(resource: &Value, field: &'static str) -> Result<String, Rejected> {
    match &resource[field] {
        Value::Null => Err(Rejected::Missing { field }),
        Value::String(text) if text.is_empty() => Err(Rejected::Missing { field }),
        Value::String(text) => short(text).ok_or(Rejected::BadField { field, why: "is longer than 255 bytes" }),
        _ => Err(Rejected::BadField { field, why: "is not a text" }),
    }
}

fn related<'a>(resource: &'a Value, what: &str) -> Option<&'a str> {
    resource["relationships"][what]["data"]["id"].as_str()
}

/// The name of the event's metric, as `Opened Email`; `metric:<id>` where the metric was not included.
fn metric(resource: &Value) -> String {
    let id = related(resource, "metric");
    let metrics = resource["included"].as_array().into_iter().flatten().filter(|i| i["type"] == "metric");
    let name = metrics
        .filter(|m| id.is_none() || m["id"].as_str() == id)
        .find_map(|m| m["attributes"]["name"].as_str().and_then(short));
    name.or_else(|| short(&format!("metric:{}", id?))).unwrap_or_else(|| "event".to_owned())
}

/// `datetime`, else `timestamp` in seconds.
fn event_time(attributes: &Value) -> Result<Option<Micros>, Rejected> {
    match time(&attributes["datetime"], "datetime")? {
        Some(at) => Ok(Some(at)),
        None => time(&attributes["timestamp"], "timestamp"),
    }
}

fn profile_time(attributes: &Value) -> Result<Option<Micros>, Rejected> {
    match time(&attributes["updated"], "updated")? {
        Some(at) => Ok(Some(at)),
        None => time(&attributes["created"], "created"),
    }
}

fn time(value: &Value, field: &'static str) -> Result<Option<Micros>, Rejected> {
    let at = match value {
        Value::Null => return Ok(None),
        Value::Number(seconds) => seconds.as_i64().and_then(Micros::from_seconds),
        Value::String(text) => Micros::from_rfc3339(text),
        _ => None,
    };
    at.filter(|at| at.is_reckonable())
        .map(Some)
        .ok_or(Rejected::BadField { field, why: "is no time, as 2026-01-31T09:30:00+00:00" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn read(value: &Value) -> Result<Envelope, Rejected> {
        decode(&Bytes::from(value.to_string()), NOW)
    }

    fn event() -> Value {
        serde_json::json!({
            "type": "event", "id": "ev1",
            "attributes": {"timestamp": 1_700_000_000, "datetime": "2026-01-31T09:30:00+01:00", "event_properties": {"$message": "m1"}},
            "relationships": {
                "profile": {"data": {"type": "profile", "id": "01H"}},
                "metric": {"data": {"type": "metric", "id": "Xy1"}}},
            "included": [
                {"type": "metric", "id": "Zz9", "attributes": {"name": "Other"}},
                {"type": "metric", "id": "Xy1", "attributes": {"name": "Received Email"}},
                {"type": "profile", "id": "01H", "attributes": {"email": "ann@example.com"}}]
        })
    }

    #[test]
    fn an_event_is_named_by_its_metric() {
        let envelope = read(&event()).unwrap();
        assert_eq!((envelope.event_id.as_str(), envelope.event_type.as_str()), ("ev1", "Received Email"));
        assert_eq!(envelope.occurred_at.to_string(), "2026-01-31T08:30:00Z");
        assert_eq!(envelope.person_hint.as_deref(), Some("01H"));
        assert!(envelope.livemode);
        let mut bare = event();
        bare["included"] = Value::Null;
        bare["attributes"]["datetime"] = Value::Null;
        let envelope = read(&bare).unwrap();
        assert_eq!(envelope.event_type, "metric:Xy1");
        assert_eq!(envelope.occurred_at.seconds(), 1_700_000_000);
    }

    #[test]
    fn names_that_are_made_of_long_ids_are_not_longer_than_ids() {
        let mut event = event();
        event["included"] = Value::Null;
        event["relationships"]["metric"]["data"]["id"] = "m".repeat(255).into();
        assert_eq!(read(&event).unwrap().event_type, "event");
        let profile = |id: &str| serde_json::json!({"type": "profile", "id": id, "attributes": {"updated": "2026-01-31T09:30:00+01:00"}});
        let (long, other) = ("p".repeat(250), "q".repeat(250));
        let [one, another] = [&long, &other].map(|id| read(&profile(id)).unwrap());
        assert!(one.event_id.len() <= 255 && one.object_id == Some(long));
        assert_ne!((one.identity().key(), &one.object_id), (another.identity().key(), &another.object_id));
    }

    #[test]
    fn an_event_is_the_same_whatever_became_of_its_profile() {
        let mut later = event();
        later["included"][2]["attributes"]["email"] = "ann@example.org".into();
        later["links"] = serde_json::json!({"self": "https://a.klaviyo.com/api/events/ev1/"});
        assert_eq!(read(&event()).unwrap().identity().key(), read(&later).unwrap().identity().key());
        let mut other = event();
        other["attributes"]["event_properties"]["$message"] = "m2".into();
        assert_ne!(read(&event()).unwrap().identity().key(), read(&other).unwrap().identity().key());
    }

    #[test]
    fn each_version_of_a_profile_is_an_event_of_its_own() {
        let profile = |updated: &str| {
            read(
                &serde_json::json!({"type": "profile", "id": "01H", "attributes": {"email": "a@b.c", "updated": updated}}),
            )
        };
        let first = profile("2026-01-31T09:30:00+00:00").unwrap();
        assert_eq!(first.event_id, "profile:01H:2026-01-31T09:30:00+00:00");
        assert_eq!(first.event_type, "profile.updated");
        assert_eq!((first.object_type.as_deref(), first.person_hint.as_deref()), (Some("profile"), Some("01H")));
        assert_ne!(first.identity().key(), profile("2026-02-01T09:30:00+00:00").unwrap().identity().key());
        assert_eq!(first.identity().key(), profile("2026-01-31T09:30:00+00:00").unwrap().identity().key());
    }

    #[test]
    fn what_is_no_resource_says_why() {
        let reason = |value| read(&value).unwrap_err().to_string();
        assert_eq!(reason(serde_json::json!({"data": []})), "it has no \"type\"");
        assert_eq!(reason(serde_json::json!({"type": "event", "id": 1})), "its \"id\" is not a text");
        let mut late = event();
        late["attributes"]["datetime"] = "late".into();
        assert_eq!(reason(late), "its \"datetime\" is no time, as 2026-01-31T09:30:00+00:00");
        assert_eq!(reason(serde_json::json!([event()])), "not a JSON object");
        assert!(read(&serde_json::json!({"type": "list", "id": "L1"})).is_ok());
    }
}
