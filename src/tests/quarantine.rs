//! What was set aside is listed, shown, and taken in by a retry when today's decoders find it good: once.

use std::{collections::HashMap, sync::Arc};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::{
    base::{Micros, Source},
    lake::Lake,
    log::EventLog,
    sources::Rejected,
    store::Store,
    tests::support::{Serving, Till, text},
};

fn customer(id: &str) -> String {
    json!({
        "id": format!("evt_{id}"), "object": "event", "type": "customer.created", "created": 1_782_000_000,
        "livemode": true,
        "data": {"object": {"id": format!("cus_{id}"), "object": "customer", "created": 1_782_000_000,
            "email": format!("{id}@example.com"), "livemode": true}}
    })
    .to_string()
}

fn ids(till: &Till) -> Vec<u64> {
    let listed = till.json(&["quarantine", "list"]);
    let ids: Vec<u64> = listed["rows"].as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()).collect();
    assert_eq!(listed["open"].as_u64().unwrap(), ids.len() as u64);
    ids
}

fn retried(till: &Till, args: &[&str]) -> (u64, u64, u64) {
    let output = till.try_run(&[&["--json", "--quiet", "quarantine", "retry"], args].concat());
    let retried: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let n = |name: &str| retried[name].as_u64().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(n("refused") > 0)));
    (n("taken_in"), n("refused"), n("already"))
}

/// As a build put them into the log that did not know better.
fn rejected_by_an_older_build(till: &Till, bodies: &[String]) {
    let store = Store::open(&till.data().join("state")).unwrap();
    let log = EventLog::open(&till.data().join("log"), &store).unwrap();
    let envelopes = bodies.iter().map(|body| {
        Rejected::NotAnObject.envelope(Source::Stripe, &Bytes::from(body.clone()), Micros(1_782_000_000_000_000))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(envelopes.collect())).unwrap();
}

#[test]
fn input_that_is_an_event_by_now_is_taken_in_once() {
    let till = Till::new();
    till.run(&["--quiet", "check"]);
    rejected_by_an_older_build(&till, &[customer("one"), "{\"id\": \"evt_cut".to_owned(), customer("two")]);
    let [two, cut, one] = ids(&till)[..] else { panic!("three were set aside") };
    let shown = till.json(&["quarantine", "show", &one.to_string()]);
    assert_eq!(shown["payload"].as_str().unwrap(), customer("one"));
    assert_eq!((shown["reason"].as_str(), shown["taken_in"].as_bool()), (Some("not a JSON object"), Some(false)));

    assert_eq!(retried(&till, &[&one.to_string()]), (1, 0, 0));
    assert_eq!(till.sql("SELECT customer_id FROM core.customers"), [json!({"customer_id": "cus_one"})]);
    assert_eq!(retried(&till, &[&one.to_string()]), (0, 0, 1));
    assert_eq!(ids(&till), [two, cut]);
    assert_eq!(till.json(&["quarantine", "show", &one.to_string()])["taken_in"], true);

    // Beside a serve that owns the directory, and what is no event still stays where it is.
    let serving = Serving::start(&till);
    assert_eq!(retried(&till, &[]), (1, 1, 0));
    assert_eq!(ids(&till), [cut]);
    drop(serving);
    assert_eq!(retried(&till, &[]), (0, 1, 0));
    let events = "raw.events WHERE source = 'stripe'";
    assert_eq!((till.count(events), till.count("core.customers"), till.count("raw.quarantine")), (2, 2, 3));
    let facts = till.facts();
    till.run(&["--quiet", "rebuild"]);
    assert!(till.facts() == facts && ids(&till) == [cut]);

    let output = till.try_run(&["quarantine", "show", "77"]);
    assert!(text(&output.stderr).contains("nothing was set aside under 77: `tillstream quarantine list`"));
}

#[test]
fn what_was_not_kept_whole_is_not_guessed_at() {
    let till = Till::new();
    // Bytes that are no characters are kept as such that stand for them: the text that is kept would be an event.
    let mut body = customer("odd").into_bytes();
    let at = body.windows(4).position(|w| w == b"odd@").unwrap();
    body[at] = 0xff;
    let file = till.write("odd.ndjson", body);
    assert_eq!(till.try_run(&["ingest", "stripe", file.to_str().unwrap()]).status.code(), Some(1));
    assert_eq!(retried(&till, &[]), (0, 1, 0));
    assert_eq!((till.count("core.customers"), ids(&till).len()), (0, 1));
}

fn charge(amount: i64) -> String {
    json!({
        "id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1_782_000_000, "livemode": true,
        "data": {"object": {"id": "ch_1", "object": "charge", "created": 1_782_000_000, "amount": amount,
            "currency": "usd", "status": "succeeded", "paid": true, "captured": true}}
    })
    .to_string()
}

fn added(quantity: i64) -> String {
    json!({
        "type": "track", "messageId": "m1", "anonymousId": "a-1", "event": "Product Added",
        "properties": {"cart_id": "cart_1", "product_id": "17", "quantity": quantity, "price": "12.99", "currency": "EUR"},
        "timestamp": "2026-01-31T09:00:02Z"
    })
    .to_string()
}

/// Two events that no fact can be made of, and then the same directory as it would be had only the decoders of that day not
/// read them: their payloads say what today's read.
fn unread_by_an_older_build() -> Till {
    let till = Till::new();
    let mended: HashMap<String, String> = [(charge(-5), charge(5)), (added(-2), added(2))].into_iter().collect();
    for (source, payload) in [("stripe", charge(-5)), ("storefront", added(-2))] {
        let file = till.write(&format!("{source}.ndjson"), payload);
        assert_eq!(till.json(&["ingest", source, file.to_str().unwrap()])["quarantined"], 1);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lake = Lake::open(&till.data().join("lake")).await.unwrap();
        let events = SessionContext::new().read_table(lake.snapshot().provider("raw.events").unwrap()).unwrap();
        let batches: Vec<RecordBatch> = events.collect().await.unwrap().iter().map(|b| mend(b, &mended)).collect();
        lake.replace("raw.events", batches[0].schema(), batches, None).await.unwrap();
    });
    till
}

fn mend(batch: &RecordBatch, mended: &HashMap<String, String>) -> RecordBatch {
    let at = batch.schema().index_of("payload").unwrap();
    let payloads = batch.column(at).as_string::<i32>();
    let payloads: StringArray = payloads.iter().map(|p| p.map(|p| mended[p].clone())).collect();
    let mut columns = batch.columns().to_vec();
    assert_eq!(payloads.len(), batch.num_rows());
    columns[at] = Arc::new(payloads);
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[test]
fn an_event_that_can_be_read_by_now_is_a_fact_once_by_retry_and_by_rebuild() {
    let till = unread_by_an_older_build();
    assert_eq!((till.count("core.charges"), till.count("core.cart_events")), (0, 0));
    let both = ids(&till);
    assert_eq!(retried(&till, &[]), (2, 0, 0));
    assert_eq!(till.sql("SELECT charge_id, amount FROM core.charges"), [json!({"charge_id": "ch_1", "amount": 5})]);
    assert_eq!(
        till.sql("SELECT cart_id, quantity FROM core.cart_events"),
        [json!({"cart_id": "cart_1", "quantity": 2})]
    );
    let facts = till.facts();
    let both: Vec<String> = both.iter().map(u64::to_string).collect();
    assert_eq!(retried(&till, &both.iter().map(String::as_str).collect::<Vec<_>>()), (0, 0, 2));
    till.run(&["--quiet", "rebuild"]);
    assert!(till.facts() == facts, "a rebuild finds the same");

    let till = unread_by_an_older_build();
    till.run(&["--quiet", "rebuild"]);
    assert_eq!((till.count("core.charges"), till.count("core.cart_events")), (1, 1));
    assert_eq!(retried(&till, &[]), (2, 0, 0));
    assert_eq!(
        (till.count("core.charges"), till.count("core.cart_events")),
        (1, 1),
        "the rebuild took them in already"
    );
    assert!(ids(&till).is_empty());

    // Nor is an event left half taken in where one table was to be made again.
    let till = unread_by_an_older_build();
    till.run(&["--quiet", "rebuild", "core.charges"]);
    assert_eq!((till.count("core.charges"), till.count("core.cart_events")), (1, 1));
    assert_eq!(retried(&till, &[]), (2, 0, 0));
    assert_eq!((till.count("core.charges"), till.count("core.cart_events")), (1, 1));
}
