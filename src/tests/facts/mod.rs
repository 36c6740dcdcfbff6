//! From payloads to rows: what events of every version and source say, and that no order of them changes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attempts;
mod balance;
mod billing;
mod drift;
mod fold;
mod golden;
mod intents;
mod people;
mod refunds;
mod sample;
mod shop;
mod simulation;
mod sources;
mod stripe;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    base::{Digest, Envelope, Micros, Offset, Pseudonymizer, SharedAddresses, Source, Via},
    facts::{Decoded, Decoder, ObjectKey, ObjectState, Row},
};

pub fn decoder() -> Decoder {
    decoder_where(SharedAddresses::default())
}

/// Where many people order with these addresses.
pub fn decoder_where(shared: SharedAddresses) -> Decoder {
    Decoder::new(names(), Some("US".to_owned()), shared)
}

pub fn names() -> Pseudonymizer {
    Pseudonymizer::new(&[7; 32])
}

pub fn seconds(s: i64) -> Micros {
    Micros(s * 1_000_000)
}

/// The envelope that the Stripe source makes of an event.
pub fn stripe_envelope(event: &Value) -> Envelope {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let kind = event["type"].as_str().unwrap();
    let object = &event["data"]["object"];
    Envelope {
        source: Source::Stripe,
        event_id: text(&event["id"]).unwrap(),
        event_type: kind.to_owned(),
        api_version: text(&event["api_version"]),
        account: text(&event["account"]),
        livemode: event["livemode"].as_bool().unwrap_or(false),
        occurred_at: seconds(event["created"].as_i64().unwrap()),
        received_at: seconds(2_000_000_000),
        via: Via::File,
        object_type: text(&object["object"]),
        object_id: text(&object["id"]),
        person_hint: None,
        digest: Digest::of(&event["data"]).unwrap().with(kind),
        payload: Bytes::from(event.to_string()),
    }
}

/// One of Stripe's events.
pub fn event(id: &str, kind: &str, created: i64, data: Value) -> Value {
    json!({"id": id, "object": "event", "api_version": "2025-03-31.basil", "created": created, "livemode": true,
        "type": kind, "request": {"id": "req_1"}, "data": data})
}

/// The events of a file of our own.
pub fn fixture(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/facts/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn envelope(source: Source, event_id: &str, event_type: &str, at: Micros, payload: &str) -> Envelope {
    Envelope {
        source,
        event_id: event_id.to_owned(),
        event_type: event_type.to_owned(),
        api_version: None,
        account: None,
        livemode: true,
        occurred_at: at,
        received_at: at,
        via: Via::File,
        object_type: None,
        object_id: None,
        person_hint: None,
        digest: Digest::of_json(payload).unwrap().with(event_type),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub fn decode(event: &Value) -> Decoded {
    decoder().decode(&stripe_envelope(event)).unwrap()
}

/// The states that these events come to, in this order, at offsets from 0 on.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<ObjectKey, ObjectState> {
    let numbered = events.into_iter().enumerate().map(|(i, event)| (Offset(i as u64), event));
    fold_at(numbered)
}

pub fn fold_at<'a>(events: impl IntoIterator<Item = (Offset, &'a Value)>) -> BTreeMap<ObjectKey, ObjectState> {
    let mut states: BTreeMap<ObjectKey, ObjectState> = BTreeMap::new();
    for (offset, event) in events {
        for observation in decode(event).observations {
            let key = observation.key().clone();
            states.entry(key.clone()).or_insert_with(|| ObjectState::new(key)).admit(observation, offset);
        }
    }
    states
}

/// The rows as the loader makes them: with what one object's state says of others.
pub fn loaded<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<ObjectKey, Row> {
    let mut states: BTreeMap<ObjectKey, ObjectState> = BTreeMap::new();
    for (i, event) in events.into_iter().enumerate() {
        let mut observations = decode(event).observations;
        while let Some(observation) = observations.pop() {
            let key = observation.key().clone();
            let state = states.entry(key.clone()).or_insert_with(|| ObjectState::new(key));
            observations.extend(state.admit_and_tell(observation, Offset(i as u64)).into_iter().flatten());
        }
    }
    rows(&states)
}

/// The rows that these events' observations come to, in this order.
pub fn folded<'a>(events: impl IntoIterator<Item = &'a Decoded>) -> Vec<Row> {
    let mut states: BTreeMap<ObjectKey, ObjectState> = BTreeMap::new();
    for (i, observation) in events.into_iter().flat_map(|e| e.observations.clone()).enumerate() {
        let key = observation.key().clone();
        states.entry(key.clone()).or_insert_with(|| ObjectState::new(key)).admit(observation, Offset(i as u64));
    }
    rows(&states).into_values().collect()
}

/// The rows of the states, by key.
pub fn rows(states: &BTreeMap<ObjectKey, ObjectState>) -> BTreeMap<ObjectKey, Row> {
    states.iter().filter_map(|(key, state)| Some((key.clone(), state.row()?))).collect()
}

/// The rows of these events in every order of them: they are the same.
pub fn in_any_order(events: &[Value]) -> Vec<Row> {
    let all = |events: &[Value]| -> Vec<Row> { loaded(events).into_values().collect() };
    let straight = all(events);
    let mut turned = events.to_vec();
    for _ in 0..events.len() {
        turned.rotate_left(1);
        assert_eq!(all(&turned), straight);
        let reversed: Vec<Value> = turned.iter().rev().cloned().collect();
        assert_eq!(all(&reversed), straight);
    }
    straight
}

/// The one row of this kind.
macro_rules! only {
    ($rows:expr, $variant:ident) => {{
        let found: Vec<_> = $rows
            .iter()
            .filter_map(|row| match row {
                crate::facts::Row::$variant(row) => Some((**row).clone()),
                _ => None,
            })
            .collect();
        assert_eq!(found.len(), 1, "rows of {}: {found:?}", stringify!($variant));
        found.into_iter().next().unwrap()
    }};
}
pub(super) use only;
