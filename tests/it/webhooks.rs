//! Stripe's webhooks into a running `serve`.

use std::{thread, time::Duration};

use serde_json::json;

use crate::support::{Serving, Till, post, signature, wait};

const SECRET: &str = "whsec_of_the_tests";

fn customer(id: &str) -> String {
    json!({
        "id": format!("evt_{id}"), "object": "event", "type": "customer.created", "created": 1_782_000_000,
        "livemode": true, "api_version": "2026-07-29.dahlia", "pending_webhooks": 1,
        "data": {"object": {"id": format!("cus_{id}"), "object": "customer", "created": 1_782_000_000,
            "email": format!("{id}@example.com"), "livemode": true}}
    })
    .to_string()
}

fn get(serving: &Serving, path: &str, token: Option<&str>) -> (u16, String) {
    serving.get(path, token)
}

fn ask(serving: &Serving, query: &str, token: Option<&str>) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = reqwest::Client::new().post(serving.url("/v1/sql")).json(&json!({ "query": query }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    })
}

fn till() -> Till {
    Till::new().set("STRIPE__WEBHOOK_SECRETS", &format!("whsec_of_last_year,{SECRET}"))
}

#[test]
fn a_signed_webhook_is_in_an_answer_within_two_seconds() {
    let till = till();
    let serving = Serving::start(&till);
    // The first query opens what later ones find open.
    assert_eq!(till.count("core.customers"), 0);
    let body = customer("quick");
    let signed = signature(SECRET, &body);
    assert_eq!(post(&serving, &body, &signed), 200);
    wait("the webhook is in an answer", Duration::from_secs(2), || till.count("core.customers") == 1);
    let rows = till.sql("SELECT customer_id, livemode FROM core.customers");
    assert_eq!(rows[0], json!({"customer_id": "cus_quick", "livemode": true}));
}

#[test]
fn a_wrong_signature_leaves_no_trace_but_a_counter() {
    let till = till();
    let serving = Serving::start(&till);
    let body = customer("forged");
    assert_eq!(post(&serving, &body, &signature("whsec_of_a_thief", &body)), 400);
    assert_eq!(post(&serving, &body, ""), 400);
    assert_eq!(post(&serving, &(body.clone() + " "), &signature(SECRET, &body)), 400);
    assert_eq!(post(&serving, &"x".repeat(2 << 20), &signature(SECRET, "x")), 413);
    thread::sleep(Duration::from_millis(700));
    assert_eq!((till.count("raw.events"), till.count("raw.quarantine")), (0, 0));
    let (_, metrics) = get(&serving, "/metrics", Some(&serving.token));
    let counted = "tillstream_webhooks_refused_total{source=\"stripe\",reason=\"signature\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn one_event_posted_fifty_times_at_once_is_stored_once() {
    let till = till();
    let serving = Serving::start(&till);
    let body = customer("fifty");
    let statuses: Vec<u16> = thread::scope(|scope| {
        let posts: Vec<_> = (0..50)
            .map(|i| {
                // Each delivery counts differently how many endpoints still wait.
                let body = body.replace("\"pending_webhooks\":1", &format!("\"pending_webhooks\":{i}"));
                let serving = &serving;
                scope.spawn(move || post(serving, &body, &signature(SECRET, &body)))
            })
            .collect();
        posts.into_iter().map(|p| p.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 50]);
    wait("the event is loaded", Duration::from_secs(5), || till.count("raw.events") > 0);
    assert_eq!((till.count("raw.events"), till.count("core.customers")), (1, 1));
}

#[test]
fn a_verified_body_that_is_no_event_is_kept_and_answered() {
    let till = till();
    let serving = Serving::start(&till);
    let body = "{\"id\": \"evt_1\", ".to_owned();
    let signed = signature(SECRET, &body);
    assert_eq!(post(&serving, &body, &signed), 200);
    wait("it is in quarantine", Duration::from_secs(5), || till.count("raw.quarantine") == 1);
    assert_eq!(till.count("raw.events"), 0);
}

#[test]
fn a_delivery_says_how_far_it_came_and_when() {
    let till = till();
    let serving = Serving::start(&till);
    let send = |body: String| {
        let signed = signature(SECRET, &body);
        assert_eq!(post(&serving, &body, &signed), 200);
    };
    send(customer("good"));
    send("{\"id\": \"evt_cut\", ".to_owned());
    let negative = json!({
        "id": "evt_bad", "object": "event", "type": "charge.succeeded", "created": 1_782_000_000, "livemode": true,
        "data": {"object": {"id": "ch_1", "object": "charge", "created": 1_782_000_000, "amount": -5, "currency": "usd",
            "status": "succeeded", "paid": true, "captured": true}}
    });
    send(negative.to_string());
    let statuses =
        || till.sql("SELECT type, status, loaded_at IS NULL AS open FROM ops.webhook_deliveries ORDER BY log_offset");
    // Seen from memory first: it is durable, and in no table yet.
    wait("the deliveries are seen", Duration::from_secs(5), || statuses().len() == 3);
    wait("they are committed", Duration::from_secs(15), || statuses().iter().all(|s| s["status"] != "durable"));
    let of = |event: &str| {
        let sql = format!("SELECT * FROM ops.webhook_deliveries WHERE {event}");
        let rows = till.sql(&sql);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].clone()
    };
    let good = of("event_id = 'evt_good'");
    assert_eq!((good["status"].as_str(), good["reason"].as_str()), (Some("loaded"), None));
    let times = ["received_at", "durable_by", "loaded_at"].map(|t| good[t].as_str().unwrap().to_owned());
    assert!(times.is_sorted(), "{times:?}");
    let bad = of("event_id = 'evt_bad'");
    assert_eq!((bad["status"].as_str(), bad["loaded_at"].as_str()), (Some("failed"), None));
    assert!(bad["reason"].as_str().unwrap().contains("-5") && bad["failed_at"].is_string(), "{bad}");
    let cut = of("type IS NULL");
    assert_eq!((cut["status"].as_str(), cut["source"].as_str()), (Some("failed"), Some("stripe")));

    let metrics = || get(&serving, "/metrics", Some(&serving.token)).1;
    wait("the loader takes note of its commit", Duration::from_secs(5), || {
        metrics().contains("tillstream_load_uncommitted_events 0")
    });
    let metrics = metrics();
    for told in [
        "tillstream_load_lag_events 0",
        "tillstream_log_events_total 3",
        "tillstream_log_sync_seconds_count",
        "tillstream_log_queue_bytes 0",
        "tillstream_events_duplicate_total{source=\"stripe\"} 0",
        "tillstream_events_quarantined_total 2",
        "tillstream_table_files{table=\"raw.events\"} 1",
        "tillstream_table_bytes{table=\"raw.events\"}",
        "tillstream_state_bytes",
    ] {
        assert!(metrics.contains(told), "{told} is not in\n{metrics}");
    }
    let doctor = till.run(&["--quiet", "doctor"]);
    for told in
        ["3 events and 0 duplicates", "0 events in the log wait", "2 were set aside: tillstream quarantine list"]
    {
        assert!(doctor.contains(told), "{told} is not in\n{doctor}");
    }
    // What a file brought is no delivery.
    let file = till.write("file.ndjson", format!("{}\n{{\"id\": \"evt_torn\", \n", customer("of_a_file")));
    assert_eq!(till.json(&["ingest", "stripe", file.to_str().unwrap()])["accepted"], 1);
    wait("the file is seen", Duration::from_secs(5), || till.count("raw.events") == 3);
    assert_eq!(statuses().len(), 3);
}

#[test]
fn every_route_but_those_that_receive_and_health_wants_a_token() {
    let till = till();
    let serving = Serving::start(&till);
    for path in ["/metrics", "/v1/segments", "/v1/segments/cart_abandoned"] {
        assert_eq!(get(&serving, path, None).0, 401, "{path}");
        assert_eq!(get(&serving, path, Some("not-the-token")).0, 401, "{path}");
        assert_eq!(get(&serving, path, Some(&serving.token)).0, 200, "{path}");
    }
    for (token, status) in [(None, 401), (Some("not-the-token"), 401), (Some(serving.token.as_str()), 200)] {
        assert_eq!(ask(&serving, "SELECT 1 AS one", token), status, "{token:?}");
    }
    assert_eq!(get(&serving, "/healthz", None).0, 200);
    assert_eq!(get(&serving, "/readyz", None).0, 200);
}
