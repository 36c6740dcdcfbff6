//! History from Stripe's and Klaviyo's APIs: all of it, once, whatever fails, and gone on with where it was cut off.

mod objects;
mod provider;

use std::{
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use self::provider::{Fault, KEY, Provider};
use crate::support::{Serving, Till, post, signature, text, wait};

const EVENTS: &str = "/v1/events";
const DAY: i64 = 86_400;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An event of some minutes ago.
fn event(n: i64) -> Value {
    let created = now() - 120 - n * 600;
    json!({"id": format!("evt_{n:05}"), "object": "event", "type": "customer.created", "created": created,
        "api_version": "2026-07-29.dahlia", "livemode": false, "pending_webhooks": 0,
        "data": {"object": {"id": format!("cus_{n:05}"), "object": "customer", "created": created,
            "email": format!("c{n}@example.com"), "livemode": false}}})
}

fn till(provider: &Provider) -> Till {
    Till::new().set("STRIPE__API_KEY", KEY).set("STRIPE__API_BASE", &provider.base)
}

fn shop(provider: &Provider) -> Till {
    Till::new().set("KLAVIYO__API_KEY", KEY).set("KLAVIYO__API_BASE", &provider.base)
}

fn held(till: &Till) -> Vec<String> {
    let rows = till.sql("SELECT event_id FROM raw.events ORDER BY event_id");
    rows.iter().map(|r| r["event_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_listed_event_is_held_once_whatever_fails() {
    let provider = Provider::start().with(EVENTS, (0..730).map(event));
    provider.fail([
        Fault::Fails,
        Fault::TooMany { retry_after: None },
        Fault::TooMany { retry_after: Some(1) },
        Fault::CutMidBody,
        Fault::HalfAPage,
        Fault::Slow,
    ]);
    let till = till(&provider);
    let done = till.json(&["backfill", "stripe"]);
    assert_eq!((done["read"].as_u64(), done["accepted"].as_u64()), (Some(730), Some(730)), "{done}");
    assert_eq!(held(&till), provider.ids(EVENTS));

    provider.fail([Fault::Fails, Fault::HalfAPage, Fault::CutMidBody]);
    let again = till.json(&["backfill", "stripe"]);
    assert_eq!((again["accepted"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(730)), "{again}");
    assert_eq!(held(&till), provider.ids(EVENTS));
    assert_eq!(till.count("core.customers"), 730);
}

#[test]
fn a_retry_waits_as_long_as_it_is_told() {
    let provider = Provider::start().with(EVENTS, (0..3).map(event));
    provider.fail([Fault::TooMany { retry_after: Some(2) }]);
    till(&provider).json(&["backfill", "stripe"]);
    let asked = provider.asked(EVENTS);
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(2));
}

#[test]
fn one_endpoint_is_asked_25_times_a_second_at_most() {
    let customer = |n: i64| json!({"id": format!("cus_{n}"), "object": "customer", "created": now() - 200 * DAY - n});
    let provider = Provider::start().with("/v1/customers", (0..60).map(customer));
    provider.book().page_limit = 1;
    till(&provider).json(&["backfill", "stripe"]);
    let asked = provider.asked("/v1/customers");
    assert_eq!(asked.len(), 60);
    for run in asked.windows(26) {
        let took = run[25].at - run[0].at;
        // A request may be on its way a little longer than the next.
        assert!(took >= Duration::from_millis(950), "26 requests in {took:?}");
    }
}

#[test]
fn the_page_before_served_again_loses_and_doubles_nothing() {
    let provider = Provider::start().with(EVENTS, (0..450).map(event));
    let till = till(&provider);
    // The third and fourth answers are the second page once more.
    provider.book().page_limit = 50;
    provider.book().pace = Duration::from_millis(30);
    let arm = provider.clone();
    let armed = std::thread::spawn(move || {
        wait("two pages were asked for", Duration::from_secs(30), || arm.asked(EVENTS).len() >= 2);
        arm.fail([Fault::OldPage, Fault::OldPage]);
    });
    let done = till.json(&["backfill", "stripe"]);
    armed.join().unwrap();
    assert_eq!(done["accepted"], 450, "{done}");
    assert_eq!(held(&till), provider.ids(EVENTS));
    assert!(provider.asked(EVENTS).len() > 9, "an old page was met");
}

#[test]
fn a_killed_backfill_goes_on_at_its_page() {
    let provider = Provider::start().with(EVENTS, (0..1000).map(event));
    provider.book().page_limit = 50;
    provider.book().pace = Duration::from_millis(150);
    let till = till(&provider);
    let mut command = till.command(&["--quiet", "backfill", "stripe"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("some pages were asked for", Duration::from_secs(60), || provider.asked(EVENTS).len() >= 6);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = provider.asked(EVENTS).len();

    let done = till.json(&["backfill", "stripe"]);
    assert_eq!(done["resumed"], true, "{done}");
    let resumed = &provider.asked(EVENTS)[before..];
    assert!(resumed[0].query.contains_key("starting_after"), "{resumed:?}");
    // At most the page that was under way is asked for again.
    assert!(before + resumed.len() <= 20 + 2, "{before} pages, then {}", resumed.len());
    assert_eq!(held(&till), provider.ids(EVENTS));
    assert_eq!(till.json(&["backfill", "stripe"])["resumed"], false);
}

#[test]
fn a_place_that_the_api_forgot_is_begun_anew() {
    let provider = Provider::start().with(EVENTS, (0..300).map(event));
    provider.book().pace = Duration::from_millis(50);
    let till = till(&provider);
    let arm = provider.clone();
    let armed = std::thread::spawn(move || {
        wait("a page was asked for", Duration::from_secs(30), || !arm.asked(EVENTS).is_empty());
        arm.fail([Fault::Forgets]);
    });
    till.json(&["backfill", "stripe"]);
    armed.join().unwrap();
    assert_eq!(held(&till), provider.ids(EVENTS));
}

#[test]
fn events_that_arrive_while_pages_are_read_move_no_page() {
    let provider = Provider::start().with(EVENTS, (0..500).map(event));
    let before = provider.ids(EVENTS);
    let arrive = |n: i64| {
        let mut event = event(1000 + n);
        event["created"] = json!(now() + n % 2);
        event
    };
    provider.book().arriving.extend((0..40).map(arrive));
    let till = till(&provider);
    till.json(&["backfill", "stripe"]);
    let held_now = held(&till);
    assert!(before.iter().all(|id| held_now.contains(id)));
    // What arrived is the next window's.
    std::thread::sleep(Duration::from_secs(2));
    provider.book().arriving.clear();
    till.json(&["backfill", "stripe"]);
    assert_eq!(held(&till), provider.ids(EVENTS));
}

#[test]
fn what_webhooks_missed_is_found_and_taken() {
    let events: Vec<Value> = (0..300).map(event).collect();
    let provider = Provider::start().with(EVENTS, events.clone());
    let till = till(&provider);
    let came: String = events
        .iter()
        .filter(|e| !["evt_00007", "evt_00250"].contains(&e["id"].as_str().unwrap()))
        .map(|e| format!("{e}\n"))
        .collect();
    let file = till.write("came.ndjson", came);
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);

    let check = till.try_run(&["--quiet", "backfill", "stripe", "--check"]);
    let told = text(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{told}");
    assert!(told.starts_with("99.333% complete: 300 events listed, 2 of them missing"), "{told}");
    assert!(told.contains("missing   evt_00007") && told.contains("missing   evt_00250"), "{told}");
    assert_eq!(held(&till).len(), 298, "a comparison takes nothing");

    let done = till.json(&["backfill", "stripe"]);
    assert_eq!((done["missing"].as_u64(), done["accepted"].as_u64()), (Some(2), Some(2)), "{done}");
    let check = till.json(&["backfill", "stripe", "--check"]);
    assert_eq!((check["read"].as_u64(), check["missing"].as_u64()), (Some(300), Some(0)));
}

#[test]
fn an_event_that_its_endpoint_got_in_another_version_is_one_event() {
    let provider = Provider::start().with(EVENTS, (0..5).map(event));
    let till = till(&provider);
    let mut pinned = event(3);
    pinned["api_version"] = json!("2023-10-16");
    pinned["data"]["object"]["default_source"] = json!("card_1");
    let file = till.write("pinned.ndjson", pinned.to_string());
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    till.json(&["backfill", "stripe"]);
    assert_eq!(held(&till), provider.ids(EVENTS));

    // And where the API was the first to tell of it, and after the state was lost.
    let till = till.set("STRIPE__WEBHOOK_SECRETS", "whsec_1");
    let mut late = event(2);
    late["data"]["object"]["default_source"] = json!("card_1");
    for lost in [false, true] {
        if lost {
            std::fs::remove_dir_all(till.data().join("state")).unwrap();
        }
        let serving = Serving::start(&till);
        for told in [&late, &pinned] {
            let told = told.to_string();
            assert_eq!(post(&serving, &told, &signature("whsec_1", &told)), 200);
        }
        drop(serving);
        assert_eq!(held(&till), provider.ids(EVENTS));
    }
}

/// A sale of 200 days ago that List Events has long forgotten, and of which it shows that a part was paid back.
fn old_sale(provider: Provider) -> Provider {
    let then = now() - 200 * DAY;
    let charge = json!({"id": "ch_1", "object": "charge", "amount": 5000, "amount_captured": 5000, "amount_refunded": 1200,
        "captured": true, "created": then + 60, "currency": "usd", "customer": "cus_old", "livemode": false, "paid": true,
        "payment_intent": "pi_1", "refunded": false, "status": "succeeded", "outcome": {"type": "authorized"},
        "billing_details": {"email": "old@example.com", "address": {"country": "US"}},
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "country": "US"}}});
    let told = json!({"id": "evt_refund", "object": "event", "type": "charge.refunded", "created": now() - 10 * DAY,
        "livemode": false, "data": {"object": charge, "previous_attributes": {"amount_refunded": 0}}});
    provider
        .with(EVENTS, [event(1), told])
        .with("/v1/charges", [charge])
        .with(
            "/v1/payment_intents",
            [json!({"id": "pi_1", "object": "payment_intent", "amount": 5000,
            "amount_received": 5000, "created": then, "currency": "usd", "customer": "cus_old", "latest_charge": "ch_1",
            "livemode": false, "status": "succeeded", "payment_method_types": ["card"]})],
        )
        .with(
            "/v1/refunds",
            [json!({"id": "re_1", "object": "refund", "amount": 1200, "charge": "ch_1",
            "created": then + DAY, "currency": "usd", "payment_intent": "pi_1", "status": "succeeded"})],
        )
        .with(
            "/v1/checkout/sessions",
            [
                json!({"id": "cs_1", "object": "checkout.session", "amount_total": 5000,
            "created": then - 30, "expires_at": then + DAY, "currency": "usd", "customer": "cus_old", "livemode": false,
            "payment_intent": "pi_1", "payment_status": "paid", "status": "complete"}),
                json!({"id": "cs_2", "object": "checkout.session", "created": then, "expires_at": then + DAY,
            "currency": "usd", "livemode": false, "payment_status": "unpaid", "status": "expired"}),
            ],
        )
        .with(
            "/v1/customers",
            [json!({"id": "cus_old", "object": "customer", "created": then - DAY,
            "email": "old@example.com", "livemode": false})],
        )
}

#[test]
fn what_is_older_than_events_is_in_the_tables_at_its_own_time() {
    let provider = old_sale(Provider::start());
    let till = till(&provider);
    let done = till.json(&["backfill", "stripe"]);
    assert_eq!((done["accepted"].as_u64(), done["quarantined"].as_u64()), (Some(8), Some(0)), "{done}");
    let old = "< now() - INTERVAL '190 days'";
    let one = |sql: &str| till.sql(sql).remove(0);
    let orders = one(&format!("SELECT count(*) AS n, sum(amount) AS amount FROM core.orders WHERE ordered_at {old}"));
    assert_eq!((orders["n"].as_u64(), orders["amount"].as_i64()), (Some(1), Some(5000)), "{orders}");
    let intent = one(&format!("SELECT attempts, succeeded_at {old} AS old FROM core.payment_intents"));
    assert_eq!((intent["attempts"].as_i64(), &intent["old"]), (Some(1), &json!(true)), "{intent}");
    let charge = one(&format!("SELECT captured_at {old} AS old, amount_refunded FROM core.charges"));
    assert_eq!((&charge["old"], charge["amount_refunded"].as_i64()), (&json!(true), Some(1200)));
    let refunds = one("SELECT sum(amount) AS amount FROM core.refunds");
    assert_eq!(refunds["amount"], 1200, "the charge's total and the refund are one");
    let ended = one(&format!(
        "SELECT count(*) FILTER (WHERE completed_at {old}) AS done, count(*) FILTER (WHERE expired_at {old}) AS gone \
         FROM core.checkouts"
    ));
    assert_eq!(ended, json!({"done": 1, "gone": 1}));
    assert_eq!(till.count("core.customers"), 2);

    let again = till.json(&["backfill", "stripe"]);
    assert_eq!((again["accepted"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(8)), "{again}");
    let facts = till.facts();
    till.run(&["--quiet", "rebuild"]);
    assert_eq!(till.facts(), facts, "raw.events alone makes the same tables");
}

#[test]
fn what_no_event_tells_of_is_fetched() {
    let then = now() - 200 * DAY;
    let provider = old_sale(Provider::start())
        .with(
            "/v1/balance_transactions",
            [json!({"id": "txn_1", "object": "balance_transaction", "amount": 5000, "fee": 175, "net": 4825,
                "created": then, "available_on": then + DAY, "currency": "usd", "source": "ch_1", "type": "charge",
                "status": "available", "fee_details": [{"type": "stripe_fee", "amount": 175, "currency": "usd"}]})],
        )
        .with(
            "/v1/subscriptions",
            [json!({"id": "sub_1", "object": "subscription", "created": then, "customer": "cus_old", "currency": "usd",
                "status": "canceled", "ended_at": then + 30 * DAY, "livemode": false, "items": {"data": []}})],
        )
        .with(
            "/v1/disputes",
            [json!({"id": "dp_1", "object": "dispute", "amount": 5000, "charge": "ch_1", "created": then + DAY,
                "currency": "usd", "status": "lost", "livemode": false, "balance_transactions": []})],
        );
    let till = till(&provider);
    let done = till.json(&["backfill", "stripe"]);
    assert_eq!((done["accepted"].as_u64(), done["quarantined"].as_u64()), (Some(11), Some(0)), "{done}");
    let charge = &till.sql("SELECT fee, net, balance_transaction_id AS txn FROM core.charges")[0];
    assert_eq!(charge, &json!({"fee": 175, "net": 4825, "txn": "txn_1"}));
    let fees = &till.sql("SELECT type, amount FROM core.fee_details")[0];
    assert_eq!(fees, &json!({"type": "stripe_fee", "amount": 175}));
    assert_eq!((till.count("core.disputes WHERE status = 'lost'"), till.count("core.subscriptions")), (1, 1));
    // Those that are over are listed only where they are asked for.
    let asked = provider.asked("/v1/subscriptions");
    assert!(asked.iter().all(|a| a.query.get("status").map(String::as_str) == Some("all")) && !asked.is_empty());
}

#[test]
fn a_fetched_object_yields_to_what_happens_after() {
    let provider = old_sale(Provider::start());
    let till = till(&provider);
    till.json(&["backfill", "stripe"]);
    let mut later = event(0);
    later["id"] = json!("evt_later");
    later["type"] = json!("customer.updated");
    later["created"] = json!(now() + 5);
    later["data"]["object"] = json!({"id": "cus_old", "object": "customer", "created": now() - 201 * DAY,
        "email": "old@example.com", "delinquent": true, "livemode": false});
    let file = till.write("later.ndjson", later.to_string());
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let customer = &till.sql("SELECT delinquent, order_ambiguous FROM core.customers WHERE customer_id = 'cus_old'")[0];
    assert_eq!(customer, &json!({"delinquent": true, "order_ambiguous": false}));
}

#[test]
fn a_window_is_what_was_asked_for() {
    let provider = old_sale(Provider::start()).with(EVENTS, (2..400).map(event));
    let till = till(&provider);
    let since = chrono::DateTime::from_timestamp(now() - DAY, 0).unwrap().to_rfc3339();
    let until = chrono::DateTime::from_timestamp(now() - DAY / 2, 0).unwrap().to_rfc3339();
    let done = till.json(&["backfill", "stripe", "--since", &since, "--until", &until]);
    assert_eq!(done["read"].as_u64(), Some(72), "{done}");
    assert!(provider.asked("/v1/charges").is_empty(), "events tell all of the last 30 days");
    let wrong = till.try_run(&["backfill", "stripe", "--since", &until, "--until", &since]);
    assert!(text(&wrong.stderr).contains("--since must be before"), "{}", text(&wrong.stderr));
}

/// The sample shop's Klaviyo, as its API lists it: metrics and profiles beside the events.
fn sample(till: &Till, provider: &Provider) -> String {
    till.run(&[
        "--quiet",
        "generate",
        "--out",
        "shop.ndjson",
        "--customers",
        "40",
        "--days",
        "30",
        "--sources",
        "klaviyo",
    ]);
    let lines = std::fs::read_to_string(till.path("shop.ndjson")).unwrap();
    let mut book = provider.book();
    for line in lines.lines() {
        let mut item: Value = serde_json::from_str(line).unwrap();
        let path = if item["type"] == "event" { "/api/events" } else { "/api/profiles" };
        if let Some(Value::Array(included)) = item.as_object_mut().unwrap().remove("included") {
            for mut other in included {
                if other["type"] == "profile" {
                    // The profile has moved on since the file was written.
                    other["attributes"]["locale"] = json!("en-GB");
                }
                if !book.beside.iter().any(|b| b["id"] == other["id"]) {
                    book.beside.push(other);
                }
            }
        }
        let items = book.items.entry(path.to_owned()).or_default();
        if !items.contains(&item) {
            items.push(item);
        }
    }
    lines
}

#[test]
fn klaviyos_pages_and_a_file_of_the_same_events_are_the_same_events() {
    let provider = Provider::start();
    let till = shop(&provider);
    let lines = sample(&till, &provider);
    provider.book().page_limit = 40;
    provider.fail([Fault::Fails, Fault::CutMidBody, Fault::HalfAPage, Fault::TooMany { retry_after: Some(1) }]);
    let from_api = till.json(&["backfill", "klaviyo"]);
    let listed = provider.book().items.values().map(|items| items.len() as u64).sum::<u64>();
    assert_eq!(from_api["accepted"].as_u64(), Some(listed), "{from_api}");
    assert!(from_api["pages"].as_u64() > Some(3), "{from_api}");

    let file = till.write("again.ndjson", &lines);
    let from_file = till.json(&["ingest", "klaviyo", file.to_str().unwrap()]);
    assert_eq!(from_file["accepted"], 0, "{from_file}");
    assert_eq!(from_file["duplicates"], from_file["read"]);
    assert!(till.count("core.message_events") > 0 && till.count("core.consents") > 0);
}

#[test]
fn klaviyos_spent_window_is_waited_out() {
    let provider = Provider::start();
    let till = shop(&provider);
    sample(&till, &provider);
    let third = provider.ids("/api/events").len() / 3;
    provider.book().page_limit = third;
    provider.book().window = Some((0, 1));
    till.json(&["backfill", "klaviyo"]);
    let asked = provider.asked("/api/events");
    assert!(asked.len() > 2);
    for pair in asked.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1), "{:?}", pair[1].at - pair[0].at);
    }
    assert!(!provider.asked("/api/profiles").is_empty());
}

#[test]
fn serve_asks_for_what_nothing_brought_and_commands_are_its_clients() {
    let provider = Provider::start().with(EVENTS, (0..3).map(event));
    sample(&Till::new(), &provider);
    let till = till(&provider).set("KLAVIYO__API_KEY", KEY).set("KLAVIYO__API_BASE", &provider.base);
    let serving = Serving::start(&till);
    wait("the poll's events are in the tables", Duration::from_secs(30), || till.count("core.customers") == 3);
    let findings = till.json(&["doctor"])["findings"].clone();
    let api = |name: &str| findings.as_array().unwrap().iter().find(|f| f["subject"] == name).unwrap().clone();
    wait("both were asked", Duration::from_secs(30), || {
        let findings = till.json(&["doctor"])["findings"].clone();
        let told = |f: &&Value| f["found"].as_str().is_some_and(|t| t.contains("was asked for"));
        findings.as_array().unwrap().iter().filter(told).count() == 2
    });
    assert_eq!((&api("stripe api")["ok"], &api("klaviyo api")["ok"]), (&json!(true), &json!(true)));

    let provider = provider.with(EVENTS, (10..400).map(event));
    let done = till.json(&["backfill", "stripe"]);
    assert_eq!(done["accepted"], 390, "{done}");
    assert_eq!(till.count("core.customers"), 393);
    drop(serving);
    assert_eq!(till.json(&["backfill", "stripe", "--check"])["missing"], 0);
    drop(provider);
}

/// A payment that failed for want of money an hour ago, and the same paid ten minutes ago.
fn declined_and_paid() -> ([Value; 2], Value) {
    let (then, lately) = (now() - 3600, now() - 600);
    let event = |id: &str, kind: &str, at: i64, object: &Value| json!({"id": id, "object": "event", "type": kind, "created": at, "livemode": true, "data": {"object": object}});
    let mut intent = json!({"id": "pi_1", "object": "payment_intent", "amount": 5000, "amount_received": 0,
        "created": then, "currency": "usd", "customer": "cus_1", "livemode": true, "status": "requires_payment_method"});
    let charge = json!({"id": "ch_1", "object": "charge", "amount": 5000, "created": then, "currency": "usd",
        "customer": "cus_1", "livemode": true, "paid": false, "payment_intent": "pi_1", "status": "failed",
        "failure_code": "card_declined", "billing_details": {"email": "ann@example.com"},
        "outcome": {"type": "issuer_declined", "reason": "insufficient_funds", "network_status": "declined_by_network"},
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "country": "US"}}});
    let declined = [
        event("evt_1", "charge.failed", then, &charge),
        event("evt_2", "payment_intent.payment_failed", then, &intent),
    ];
    (intent["status"], intent["amount_received"]) = (json!("succeeded"), json!(5000));
    (declined, event("evt_3", "payment_intent.succeeded", lately, &intent))
}

#[test]
fn who_paid_while_nothing_ran_is_no_member_however_late_the_api_answers() {
    let (declined, paid) = declined_and_paid();
    for asked in [false, true] {
        let provider = Provider::start().with(EVENTS, [paid.clone()]);
        provider.book().pace = Duration::from_secs(5);
        let till = if asked { till(&provider) } else { Till::new() };
        let file = till.write("declined.ndjson", declined.each_ref().map(Value::to_string).join("\n"));
        till.json(&["ingest", "stripe", file.to_str().unwrap()]);
        let serving = Serving::start(&till);
        let members = || till.entered("payment_recoverable");
        if asked {
            let paid = "core.payment_intents WHERE status = 'succeeded'";
            wait("the API has answered", Duration::from_secs(30), || till.count(paid) == 1);
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(members(), 0);
        } else {
            wait("the segments are looked at", Duration::from_secs(30), || members() == 1);
        }
        drop(serving);
    }
}

const HELLO: &str = r#"
name = "hello"
description = "A word to whoever wants to hear of us"

[[segment]]
name = "wants_to_hear"
sql = "wants_to_hear.sql"

[[trigger]]
name = "hello"
segment = "wants_to_hear"
on = "enter"
channel = "email"
template = "hello"
purpose = "marketing"
"#;

#[test]
fn a_poll_makes_consent_fresh_enough_to_write_to_people() {
    let provider = Provider::start();
    let till = shop(&provider);
    let told_at = now() - 2 * DAY;
    let time = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let updated = time(told_at);
    let agreed = json!({"can_receive_email_marketing": true, "consent": "SUBSCRIBED", "last_updated": updated});
    let profile = json!({"type": "profile", "id": "P1", "attributes": {"email": "ann@example.com", "updated": updated,
        "subscriptions": {"email": {"marketing": agreed}}}});
    let file = till.write("profiles.ndjson", profile.to_string());
    till.json(&["ingest", "klaviyo", file.to_str().unwrap()]);
    till.write("shop/pipelines/hello.toml", HELLO);
    till.write(
        "shop/sql/wants_to_hear.sql",
        "-- One row a person.\nSELECT DISTINCT person_id FROM core.consents WHERE state = 'subscribed'",
    );
    till.write("shop/templates/hello.email.j2", "Subject: Hello\nThis is {{ merchant }}.\n");
    // `serve` runs without the trigger, so that nothing but the preview speaks of it.
    let preview = || {
        let mut command = till.command(&["--quiet", "--json", "triggers", "preview", "hello"]);
        command.env("TILLSTREAM__PIPELINES__DIR", till.path("shop"));
        command.env("TILLSTREAM__ACTIVATE__SEND", "true").env("TILLSTREAM__ACTIVATE__EMAIL", "klaviyo");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let before = preview();
    assert!(before.contains("consent in Klaviyo was last looked at"), "{before}");

    let serving = Serving::start(&till);
    wait("Klaviyo was asked", Duration::from_secs(30), || till.json(&["doctor"]).to_string().contains("was asked for"));
    drop(serving);
    let since = &provider.asked("/api/profiles")[0].query["filter"];
    // From an hour before consent was last told of, so that nothing lies between.
    assert!(since.starts_with(&format!("greater-than(updated,{})", time(told_at - 3601))), "{since}");
    let after = preview();
    assert!(after.contains(r#""goes""#), "{after}");
}

#[test]
fn what_stands_in_the_way_is_told_and_no_key_is_shown() {
    let provider = Provider::start().with(EVENTS, [event(1)]);
    let without = Till::new();
    let told = |till: &Till, args: &[&str]| {
        let output = till.try_run(args);
        (output.status.code(), text(&output.stderr))
    };
    let (code, error) = told(&without, &["backfill", "stripe"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("[stripe] api_key is not set") && error.contains("TILLSTREAM__STRIPE__API_KEY"), "{error}");
    assert_eq!(told(&without, &["backfill", "storefront"]).0, Some(2));

    let wrong = Till::new().set("STRIPE__API_KEY", "sk_test_wrong").set("STRIPE__API_BASE", &provider.base);
    let (_, error) = told(&wrong, &["backfill", "stripe"]);
    assert!(error.contains("does not take our key (401)") && error.contains("[stripe] api_key"), "{error}");
    assert!(!error.contains("sk_test"), "{error}");

    let busy = till(&provider);
    provider.fail([Fault::TooMany { retry_after: Some(900) }]);
    let (_, error) = told(&busy, &["backfill", "stripe"]);
    assert!(error.contains("no request for 900 s") && error.contains("goes on from there"), "{error}");
}
