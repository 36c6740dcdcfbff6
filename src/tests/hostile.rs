//! Input made to break the readers: real events bent, cut and stuffed. Whatever comes is an event, or is kept with the
//! reason why it is none; nothing panics, and what can be a fact fits its table.
//!
//! `PROPTEST_CASES=100000` makes a long run of it.

mod through;

use std::{collections::HashSet, sync::LazyLock};

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use self::through::{NOW, take_through};
use crate::{
    base::Source,
    sources::{ID_LIMIT, delivery},
    synth::Shop,
};

/// Each type of event once, as its source sends it.
static SAMPLES: LazyLock<Vec<(Source, Value)>> = LazyLock::new(|| {
    let shop = Shop { customers: 120, days: 20, ..Shop::default() };
    let told = shop.generate().map(|(source, line)| (source, serde_json::from_slice(&line).unwrap()));
    let receipts = [
        (
            Source::Twilio,
            json!({"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "30003", "To": "+1415"}),
        ),
        (
            Source::Twilio,
            json!({"MessageSid": "SM2", "From": "+447400123456", "Body": "STOP", "SmsStatus": "received"}),
        ),
        (
            Source::Aliyun,
            json!({"phone_number": "13800000000", "send_time": "2026-01-31 09:00:00", "success": false,
            "report_time": "2026-01-31 09:00:02", "err_code": "UNDELIVERED", "err_msg": "no", "sms_size": "1",
            "biz_id": "12345", "out_id": "67890"}),
        ),
    ];
    let mut kinds = HashSet::new();
    let kind = |event: &Value| event["type"].as_str().map(|t| format!("{t} {}", event["event"])).unwrap_or_default();
    let all = told.filter(|(source, event): &(Source, Value)| kinds.insert((*source, kind(event))));
    let all: Vec<_> = all.chain(receipts).collect();
    assert!(all.len() > 30, "{} types", all.len());
    all
});

/// What stands where it should not.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![i64::MIN, -1, 0, 1, 253_402_300_800, i64::MAX / 1_000_000, i64::MAX])
            .prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        "[A-Z]{3}|[a-z]{3}|-?[0-9]{1,40}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,20}Z?|\\+[0-9]{0,20}"
            .prop_map(Value::from),
        (1usize..70_000).prop_map(|n| "x".repeat(n).into()),
        Just(json!([])),
        Just(json!({})),
        (1usize..200).prop_map(|n| (0..n).fold(Value::Null, |inner, _| json!([inner]))),
    ]
}

#[derive(Debug, Clone)]
enum Bend {
    Replace(Index, Value),
    Remove(Index),
    /// One value stands in the place of another.
    Swap(Index, Index),
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let bend = prop_oneof![
        4 => (any::<Index>(), odd()).prop_map(|(at, value)| Bend::Replace(at, value)),
        2 => any::<Index>().prop_map(Bend::Remove),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Bend::Swap(a, b)),
    ];
    prop::collection::vec(bend, 0..6)
}

/// Every place in a document.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        Value::Object(entries) => entries.iter().map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let place = format!("{here}/{key}");
        places(value, &place, found);
        found.push(place);
    }
}

fn place<'a>(at: &Index, all: &'a [String]) -> &'a str {
    &all[at.index(all.len())]
}

fn bent(mut event: Value, bends: &[Bend]) -> Value {
    for bend in bends {
        let mut all = Vec::new();
        places(&event, "", &mut all);
        if all.is_empty() {
            return event;
        }
        match bend {
            Bend::Replace(at, value) => *event.pointer_mut(place(at, &all)).unwrap() = value.clone(),
            Bend::Swap(a, b) => {
                let value = event.pointer(place(a, &all)).unwrap().clone();
                *event.pointer_mut(place(b, &all)).unwrap() = value;
            }
            Bend::Remove(at) => {
                let (parent, key) = place(at, &all).rsplit_once('/').unwrap();
                match event.pointer_mut(parent).unwrap() {
                    Value::Object(entries) => drop(entries.remove(&key.replace("~1", "/").replace("~0", "~"))),
                    Value::Array(items) => drop(items.remove(key.parse().unwrap())),
                    _ => {}
                }
            }
        }
    }
    event
}

proptest! {
    #![proptest_config(super::cases(512))]

    #[test]
    fn a_bent_event_is_kept_and_its_facts_fit_their_tables(which: Index, bends in bends()) {
        let (source, event) = which.get(&SAMPLES);
        take_through(*source, &Bytes::from(bent(event.clone(), &bends).to_string()));
    }

    #[test]
    fn a_cut_or_spoiled_event_is_kept(which: Index, at: Index, byte: u8, cut: bool, stranger: Index) {
        let (_, event) = which.get(&SAMPLES);
        let mut body = event.to_string().into_bytes();
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = byte }
        let sources = [Source::Stripe, Source::Klaviyo, Source::Storefront, Source::Twilio, Source::Aliyun];
        take_through(*stranger.get(&sources), &Bytes::from(body));
    }

    #[test]
    fn any_bytes_are_kept(body in prop::collection::vec(any::<u8>(), 0..200), source: Index) {
        let sources = [Source::Stripe, Source::Klaviyo, Source::Storefront, Source::Twilio, Source::Aliyun];
        let body = Bytes::from(body);
        take_through(*source.get(&sources), &body);
        delivery::reports(&body, NOW).unwrap();
    }

    #[test]
    fn a_bent_request_is_taken_apart_or_kept(bends in bends(), which: Index) {
        let some = |source| SAMPLES.iter().filter(move |s| s.0 == source).map(|s| s.1.clone()).take(3).collect::<Vec<_>>();
        let klaviyo = json!({"meta": {"klaviyo_account_id": "A", "version": "1", "klaviyo_webhook_id": "w"}, "data": [
            {"topic": "event:klaviyo.opened_email", "external_id": "1", "payload": some(Source::Klaviyo)}]});
        let requests = [klaviyo, json!(some(Source::Aliyun)), json!({"batch": some(Source::Storefront), "writeKey": "k"})];
        let request = bent(which.get(&requests).clone(), &bends);
        let body = Bytes::from(request.to_string());
        let of_klaviyo = delivery::webhook(&body, "w", NOW).unwrap_or_default();
        let reports = delivery::reports(&body, NOW).unwrap();
        let pages = delivery::Collected::read(delivery::Call::Batch, body.clone()).envelopes(NOW).unwrap();
        for envelope in of_klaviyo.into_iter().chain(reports).chain(pages) {
            prop_assert!((1..=ID_LIMIT).contains(&envelope.event_id.len()));
            take_through(envelope.source, &envelope.payload);
        }
    }
}
