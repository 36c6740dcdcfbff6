//! Events as they came: `raw.events`, from which every fact can be made again, and `raw.quarantine`, for what is no
//! event or could not become a fact.
//!
//! An event that only failed to become a fact is in both. Input that is no event is in the quarantine alone.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Int64Array, RecordBatch, StringArray, StringBuilder,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use serde::Deserialize;

use super::{DecodeError, rows::column::timestamp};
use crate::base::{Digest, Envelope, Logged, Micros, Offset, Source, Via, time::DAY};

pub const EVENTS: &str = "raw.events";
pub const QUARANTINE: &str = "raw.quarantine";

/// The type of an envelope that holds undecodable input of any source: its payload is `{"reason","text"}`.
pub const REJECTED: &str = "tillstream.rejected";

static EVENTS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("api_version", DataType::Utf8, true),
        Field::new("merchant_id", DataType::Utf8, false),
        Field::new("livemode", DataType::Boolean, false),
        Field::new("occurred_at", timestamp(), false),
        Field::new("received_at", timestamp(), false),
        Field::new("object_type", DataType::Utf8, true),
        Field::new("object_id", DataType::Utf8, true),
        Field::new("person_hint", DataType::Utf8, true),
        Field::new("log_offset", DataType::Int64, false),
        Field::new("event_date", DataType::Date32, false),
        Field::new("account", DataType::Utf8, true),
        // As 16 hexadecimal digits: with source and event_id it is the event's identity.
        Field::new("digest", DataType::Utf8, false),
        // The first offset of the load that brought it: the key of `ops.loads`.
        Field::new("load_offset", DataType::Int64, true),
        // Null where a build that did not note it wrote the row.
        Field::new("via", DataType::Utf8, true),
        Field::new("payload", DataType::Utf8, false),
    ]))
});

static QUARANTINE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("received_at", timestamp(), false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("payload", DataType::Utf8, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("merchant_id", DataType::Utf8, false),
        Field::new("livemode", DataType::Boolean, false),
        // No two rows have one: it names the row, for ever.
        Field::new("log_offset", DataType::Int64, false),
        Field::new("load_offset", DataType::Int64, true),
        Field::new("via", DataType::Utf8, true),
    ]))
});

pub fn events_schema() -> SchemaRef {
    Arc::clone(&EVENTS_SCHEMA)
}

pub fn quarantine_schema() -> SchemaRef {
    Arc::clone(&QUARANTINE_SCHEMA)
}

/// Whether the envelope holds input that is no event.
pub fn is_rejected(envelope: &Envelope) -> bool {
    envelope.event_type == REJECTED
}

/// What the identity of rejected input is made of: its id is the fingerprint of its bytes, and the digest a half of it.
/// `None` for an id that is none of such input.
pub fn rejected_digest(event_id: &str) -> Option<Digest> {
    let print = u128::from_str_radix(event_id, 16).ok().filter(|_| event_id.len() == 32)?;
    Some(Digest(print as u64))
}

/// The type of our own record that a row of the quarantine was decoded again and found good; `object_id` names the row.
pub const RETRIED: &str = "quarantine.retried";

/// The row of the quarantine that this event says was taken in.
pub fn retried(envelope: &Envelope) -> Option<Offset> {
    let is_retry = envelope.source == Source::Tillstream && envelope.event_type == RETRIED;
    envelope.object_id.as_ref().filter(|_| is_retry)?.parse().ok().map(Offset)
}

/// The events as one batch of `events_schema()`, less those that are rejected input. `load`: the first offset of the load
/// that brings them.
pub fn events_batch(merchant_id: &str, load: Offset, events: &[Logged]) -> Result<RecordBatch, ArrowError> {
    let events: Vec<&Logged> = events.iter().filter(|e| !is_rejected(&e.envelope)).collect();
    let text = |of: fn(&Envelope) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| of(&e.envelope))))
    };
    let maybe = |of: fn(&Envelope) -> &Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(events.iter().map(|e| of(&e.envelope).as_deref())))
    };
    let time = |of: fn(&Envelope) -> Micros| -> ArrayRef { times(events.iter().map(|e| of(&e.envelope))) };
    let digests = StringArray::from_iter_values(events.iter().map(|e| e.envelope.digest.to_string()));
    let dates = Date32Array::from_iter_values(events.iter().map(|e| day(e.envelope.occurred_at)));
    let columns: Vec<ArrayRef> = vec![
        text(|e| &e.event_id),
        text(|e| e.source.as_str()),
        text(|e| &e.event_type),
        maybe(|e| &e.api_version),
        Arc::new(StringArray::from_iter_values(events.iter().map(|_| merchant_id))),
        Arc::new(BooleanArray::from_iter(events.iter().map(|e| Some(e.envelope.livemode)))),
        time(|e| e.occurred_at),
        time(|e| e.received_at),
        maybe(|e| &e.object_type),
        maybe(|e| &e.object_id),
        maybe(|e| &e.person_hint),
        offsets(events.iter().map(|e| e.offset))?,
        Arc::new(dates),
        maybe(|e| &e.account),
        Arc::new(digests),
        offsets(events.iter().map(|_| load))?,
        text(|e| e.via.as_str()),
        payloads(&events),
    ];
    RecordBatch::try_new(events_schema(), columns)
}

/// One row of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub source: Source,
    pub event_id: String,
    pub livemode: bool,
    pub received_at: Micros,
    pub via: Via,
    pub reason: String,
    /// As it was received.
    pub payload: String,
    pub offset: Offset,
}

impl Quarantined {
    /// Input that is no event; `None` of an envelope that holds one.
    pub fn rejected(logged: &Logged) -> Option<Quarantined> {
        #[derive(Deserialize)]
        struct Rejected {
            reason: String,
            text: String,
        }
        if !is_rejected(&logged.envelope) {
            return None;
        }
        let whole = || String::from_utf8_lossy(&logged.envelope.payload).into_owned();
        let (reason, text) = match serde_json::from_slice(&logged.envelope.payload) {
            Ok(Rejected { reason, text }) => (reason, text),
            Err(error) => (format!("rejected, and the reason cannot be read ({error})"), whole()),
        };
        Some(Quarantined::new(logged, reason, text))
    }

    /// An event that could not become a fact.
    pub fn undecodable(logged: &Logged, error: &DecodeError) -> Quarantined {
        let payload = String::from_utf8_lossy(&logged.envelope.payload).into_owned();
        Quarantined::new(logged, error.to_string(), payload)
    }

    fn new(logged: &Logged, reason: String, payload: String) -> Quarantined {
        let Envelope { source, event_id, livemode, received_at, via, .. } = &logged.envelope;
        let (source, event_id, livemode) = (*source, event_id.clone(), *livemode);
        let (received_at, via, offset) = (*received_at, *via, logged.offset);
        Quarantined { source, event_id, livemode, received_at, via, reason, payload, offset }
    }
}

/// The rows as one batch of `quarantine_schema()`.
pub fn quarantine_batch(merchant_id: &str, load: Offset, rows: &[Quarantined]) -> Result<RecordBatch, ArrowError> {
    let text =
        |of: fn(&Quarantined) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let columns: Vec<ArrayRef> = vec![
        text(|r| r.source.as_str()),
        times(rows.iter().map(|r| r.received_at)),
        text(|r| &r.reason),
        text(|r| &r.payload),
        text(|r| &r.event_id),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| merchant_id))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.livemode)))),
        offsets(rows.iter().map(|r| r.offset))?,
        offsets(rows.iter().map(|_| load))?,
        text(|r| r.via.as_str()),
    ];
    RecordBatch::try_new(quarantine_schema(), columns)
}

fn times(at: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(at.map(|t| t.0)).with_timezone("UTC"))
}

fn offsets(offsets: impl Iterator<Item = Offset>) -> Result<ArrayRef, ArrowError> {
    let wide = |offset: Offset| ArrowError::CastError(format!("log offset {offset} does not fit log_offset"));
    let all: Vec<i64> = offsets.map(|o| i64::try_from(o.0).map_err(|_| wide(o))).collect::<Result<_, _>>()?;
    Ok(Arc::new(Int64Array::from(all)))
}

/// Days since 1970, in UTC.
fn day(at: Micros) -> i32 {
    i32::try_from(at.0.div_euclid(DAY)).unwrap_or(if at.0 < 0 { i32::MIN } else { i32::MAX })
}

fn payloads(events: &[&Logged]) -> ArrayRef {
    let bytes = events.iter().map(|e| e.envelope.payload.len()).sum();
    let mut builder = StringBuilder::with_capacity(events.len(), bytes);
    for event in events {
        let payload = &event.envelope.payload;
        match str::from_utf8(payload) {
            Ok(text) => builder.append_value(text),
            Err(_) => builder.append_value(String::from_utf8_lossy(payload)),
        }
    }
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use bytes::Bytes;

    use super::*;

    fn logged(offset: u64, event_type: &str, payload: &str) -> Logged {
        let envelope = Envelope {
            source: Source::Stripe,
            event_id: "evt_1".to_owned(),
            event_type: event_type.to_owned(),
            api_version: None,
            account: None,
            livemode: true,
            occurred_at: Micros(-1),
            received_at: Micros(DAY),
            via: Via::Webhook,
            object_type: None,
            object_id: Some("ch_1".to_owned()),
            person_hint: None,
            digest: Digest(0xab),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        Logged { offset: Offset(offset), envelope }
    }

    #[test]
    fn rejected_input_goes_to_the_quarantine_and_nowhere_else() {
        let bad = logged(8, REJECTED, r#"{"reason":"no JSON","text":"{\"a"}"#);
        let events = [logged(7, "charge.failed", "{}"), bad.clone()];
        let batch = events_batch("m1", Offset(7), &events).unwrap();
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.column_by_name("payload").unwrap().as_string::<i32>().value(0), "{}");
        // A moment before 1970 is on the last day of 1969.
        let dates = batch.column_by_name("event_date").unwrap();
        assert_eq!(dates.as_primitive::<arrow::datatypes::Date32Type>().value(0), -1);
        let row = Quarantined::rejected(&bad).unwrap();
        assert_eq!((row.reason.as_str(), row.payload.as_str()), ("no JSON", "{\"a"));
        assert!(Quarantined::rejected(&events[0]).is_none());
        let batch = quarantine_batch("m1", Offset(7), &[row]).unwrap();
        assert_eq!(batch.column_by_name("reason").unwrap().as_string::<i32>().value(0), "no JSON");
        assert!(batch.column_by_name("livemode").unwrap().is_valid(0));
    }
}
