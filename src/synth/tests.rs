//! What the sample shop promises to whoever builds on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::*;
use crate::base::time::{DAY, HOUR, SECOND};

fn shop(seed: u64) -> Shop {
    Shop { customers: 220, days: 60, seed, ..Shop::default() }
}

fn only(source: Source, seed: u64) -> Shop {
    Shop { sources: vec![source], ..shop(seed) }
}

/// All lines in order, and the truth.
fn told(shop: Shop) -> (Vec<(Source, Vec<u8>)>, Value) {
    let mut generated = shop.generate();
    let lines = generated.by_ref().collect();
    (lines, generated.truth())
}

fn parsed(lines: &[(Source, Vec<u8>)], source: Source) -> Vec<Value> {
    let of = lines.iter().filter(|(s, _)| *s == source);
    of.map(|(_, line)| serde_json::from_slice(line).unwrap()).collect()
}

/// Stripe's events, each once.
fn events(lines: &[(Source, Vec<u8>)]) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let all = parsed(lines, Source::Stripe).into_iter();
    all.filter(|e| seen.insert(e["id"].as_str().unwrap().to_owned())).collect()
}

fn rows<'a>(truth: &'a Value, name: &str) -> &'a Vec<Value> {
    let total = truth["totals"].as_array().unwrap().iter().find(|t| t["name"] == name);
    total.unwrap_or_else(|| panic!("no total {name}"))["rows"].as_array().unwrap()
}

/// The sum of a column over the rows that `keep`.
fn sum(truth: &Value, name: &str, column: usize, keep: impl Fn(&Value) -> bool) -> i64 {
    rows(truth, name).iter().filter(|r| keep(r)).map(|r| r[column].as_i64().unwrap()).sum()
}

#[test]
fn one_seed_is_one_shop_byte_for_byte() {
    assert_eq!(told(shop(7)), told(shop(7)));
    assert_ne!(told(shop(7)).0, told(shop(8)).0);
}

#[test]
fn leaving_a_source_out_changes_nothing_in_the_others() {
    let (all, _) = told(shop(7));
    for source in [Source::Stripe, Source::Klaviyo, Source::Storefront] {
        let (own, _) = told(only(source, 7));
        // Arrival is by time; among the lines of one source the order is the same.
        assert!(all.iter().filter(|(s, _)| *s == source).eq(own.iter()), "{source}");
    }
}

#[test]
fn every_line_is_what_its_source_needs() {
    let (lines, _) = told(shop(3));
    assert!(lines.iter().all(|(_, line)| !line.contains(&b'\n')));
    for event in parsed(&lines, Source::Stripe) {
        let object = &event["data"]["object"];
        assert!(event["id"].as_str().unwrap().starts_with("evt_") && object["id"].is_string(), "{event}");
        assert!(event["created"].is_i64() && event["livemode"].is_boolean() && event["type"].is_string());
        assert!(event["api_version"].is_string() && object["object"].is_string());
        assert!(object["livemode"].is_null() || object["livemode"] == event["livemode"], "{event}");
        assert!(event["created"].as_i64() >= object["created"].as_i64(), "{event}");
    }
    for line in parsed(&lines, Source::Klaviyo) {
        let email = if line["type"] == "event" {
            assert!(
                line["attributes"]["datetime"].is_string() && line["included"][0]["attributes"]["name"].is_string()
            );
            let linked = &line["relationships"]["profile"]["data"]["id"];
            assert_eq!(linked, &line["included"][1]["id"]);
            &line["included"][1]["attributes"]["email"]
        } else {
            assert!(line["attributes"]["updated"].is_string(), "{line}");
            &line["attributes"]["email"]
        };
        assert!(email.as_str().unwrap().contains("@example."), "{line}");
    }
    for line in parsed(&lines, Source::Storefront) {
        assert!(line["messageId"].is_string() && line["anonymousId"].is_string(), "{line}");
        assert!(line["timestamp"].as_str() < line["sentAt"].as_str(), "{line}");
        let price = &line["properties"]["price"];
        assert!(price.is_null() || (price.is_number() && line["properties"]["currency"].is_string()), "{line}");
    }
}

#[test]
fn phones_in_events_are_numbers() {
    let (lines, _) = told(only(Source::Stripe, 5));
    let customers = events(&lines).into_iter().filter(|e| e["type"] == "customer.updated");
    let phones: BTreeSet<String> =
        customers.filter_map(|e| e["data"]["object"]["phone"].as_str().map(str::to_owned)).collect();
    assert!(phones.len() > 20);
    for phone in phones {
        assert_eq!(crate::base::E164::parse(&phone, None).unwrap().as_str(), phone);
    }
}

#[test]
fn the_line_is_as_noisy_as_promised() {
    let (lines, truth) = told(Shop { customers: 600, ..shop(11) });
    let (total, duplicates) = (truth["lines"].as_f64().unwrap(), truth["duplicates"].as_f64().unwrap());
    assert_eq!(lines.len() as f64, total);
    assert!((0.025..0.035).contains(&(duplicates / total)), "{duplicates} of {total}");
    let all = parsed(&lines, Source::Stripe);
    let distinct = events(&lines);
    assert_eq!(distinct.len() as i64, sum(&truth, "events_by_source", 1, |r| r[0] == "stripe"));
    // Duplicates differ in what a retry changes and in nothing else.
    let mut first: HashMap<&str, &Value> = HashMap::new();
    for event in &all {
        let earlier = *first.entry(event["id"].as_str().unwrap()).or_insert(event);
        assert_eq!((&earlier["data"], &earlier["type"]), (&event["data"], &event["type"]));
    }
    // A twin says the same under another id.
    let mut said: BTreeMap<(String, i64), u32> = BTreeMap::new();
    for event in &distinct {
        let what = (format!("{}{}", event["type"], event["data"]), event["created"].as_i64().unwrap());
        *said.entry(what).or_default() += 1;
    }
    let twins = said.values().filter(|n| **n > 1).count();
    assert!(twins > 0 && twins < distinct.len() / 150, "{twins} twins of {}", distinct.len());
    let late = all.windows(2).filter(|w| w[1]["created"].as_i64() < w[0]["created"].as_i64()).count();
    assert!(late > all.len() / 40 && late < all.len() / 3, "{late} of {} are out of order", all.len());
}

#[test]
fn payments_fail_as_often_as_payments_do() {
    let shop = Shop { customers: 1_500, ..only(Source::Stripe, 2) };
    // Two hours of card testing weigh much in a small shop's two months: customers are everyone else.
    let attack = shop.end.0 - i64::from(shop.days) * DAY * 2 / 5;
    let (lines, truth) = told(shop);
    let mut charges: HashMap<String, bool> = HashMap::new();
    for event in events(&lines).iter().filter(|e| e["livemode"] == true) {
        let charge = &event["data"]["object"];
        let created = charge["created"].as_i64().unwrap_or_default() * SECOND;
        if charge["object"] == "charge" && !(attack..attack + 3 * HOUR).contains(&created) {
            *charges.entry(charge["id"].to_string()).or_default() |= charge["status"] == "succeeded";
        }
    }
    let share = charges.values().filter(|paid| **paid).count() as f64 / charges.len() as f64;
    assert!((0.75..0.92).contains(&share), "{share} of {} charges are paid", charges.len());

    let live = |outcome: &'static str| sum(&truth, "attempts", 2, |r| r[0] == true && r[1] == outcome) as f64;
    let valid: f64 = ["authorised", "issuer_declined", "blocked", "auth_failed", "pending"].map(live).iter().sum();
    let technical = sum(&truth, "technical", 1, |r| r[0] == true) as f64;
    assert!((0.0005..0.015).contains(&(technical / valid)), "{technical} of {valid}");
    let sizes: usize = lines.iter().map(|(_, l)| l.len()).sum();
    assert!((1_900..2_700).contains(&(sizes / lines.len())), "{} bytes an event", sizes / lines.len());
    let tests = parsed(&lines, Source::Stripe).iter().filter(|e| e["livemode"] == false).count();
    assert!(tests > 0 && tests < lines.len() / 20, "{tests} test events");
}

#[test]
fn everything_happens_in_a_shop() {
    let (lines, truth) = told(Shop { customers: 1_500, days: 120, ..shop(4) });
    let kinds: BTreeSet<&str> = rows(&truth, "events").iter().map(|r| r[1].as_str().unwrap()).collect();
    let wanted = "payment_intent.created payment_intent.requires_action payment_intent.payment_failed \
        payment_intent.processing payment_intent.amount_capturable_updated payment_intent.succeeded \
        payment_intent.canceled charge.succeeded charge.failed charge.pending charge.captured charge.updated \
        charge.refunded refund.created refund.updated refund.failed charge.dispute.created charge.dispute.updated \
        charge.dispute.closed checkout.session.completed checkout.session.expired customer.created customer.updated \
        customer.deleted customer.subscription.created customer.subscription.updated customer.subscription.deleted \
        invoice.created invoice.paid invoice.payment_failed invoice_payment.paid balance_transaction.fetched \
        payout.created payout.paid payout.reconciliation_completed payout.listed payout.failed radar.early_fraud_warning.created charge.dispute.funds_withdrawn \
        review.opened review.closed page identify profile.updated";
    for kind in wanted.split_whitespace() {
        assert!(kinds.contains(kind), "no {kind}");
    }
    for metric in ["Received Email", "Opened Email", "Clicked Email", "Unsubscribed from Email Marketing", "Sent SMS"] {
        assert!(kinds.contains(metric), "no {metric}");
    }
    let methods: BTreeSet<String> = rows(&truth, "methods").iter().map(|r| format!("{} {}", r[1], r[2])).collect();
    for method in ["\"card\" null", "\"card\" \"apple_pay\"", "\"paypal\" null", "\"sepa_debit\" null"] {
        assert!(methods.contains(method), "no {method} in {methods:?}");
    }
    assert!(rows(&truth, "three_ds").len() >= 4);
    assert!(!rows(&truth, "abandoned_carts").is_empty() && !rows(&truth, "recoverable_payments").is_empty());
    let all = events(&lines);
    let old = all.iter().filter(|e| e["api_version"] == "2022-08-01");
    assert!(old.clone().any(|e| e["data"]["object"]["charges"]["data"][0]["id"].is_string()));
    assert!(old.clone().any(|e| e["type"] == "charge.succeeded" && e["data"]["object"]["payment_intent"].is_null()));
    assert!(all.iter().any(|e| e["api_version"] == "2026-07-29.dahlia"));
}

/// A JSON value without what is null: absent and null say the same.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), bare(v)));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

fn overlay(object: &mut Value, previous: &Value) {
    match (object, previous) {
        (Value::Object(object), Value::Object(previous)) => {
            previous.iter().for_each(|(k, v)| overlay(object.entry(k.clone()).or_insert(Value::Null), v));
        }
        (object, previous) => *object = previous.clone(),
    }
}

#[test]
fn what_an_update_says_of_before_is_what_was_before() {
    let (lines, _) = told(only(Source::Stripe, 6));
    let mut states: HashMap<String, Vec<Value>> = HashMap::new();
    let all = events(&lines);
    // The upgrade of the account changed every shape.
    let new = || all.iter().filter(|e| e["api_version"] == "2026-07-29.dahlia");
    for event in new() {
        let object = &event["data"]["object"];
        states.entry(object["id"].as_str().unwrap().to_owned()).or_default().push(bare(object));
    }
    let (mut linked, mut loose) = (0, 0);
    for event in new().filter(|e| !e["data"]["previous_attributes"].is_null()) {
        let object = &event["data"]["object"];
        let mut before = object.clone();
        overlay(&mut before, &event["data"]["previous_attributes"]);
        let known = &states[object["id"].as_str().unwrap()];
        *(if known.contains(&bare(&before)) { &mut linked } else { &mut loose }) += 1;
    }
    // What was last told of before the upgrade, or before a refund failed, is told nowhere in the new shape.
    assert!(linked > 200 && loose * 25 < linked, "{linked} updates follow from what was told, {loose} do not");
}

#[test]
fn several_things_happen_to_one_object_in_one_second() {
    let (lines, _) = told(only(Source::Stripe, 6));
    let mut seconds: BTreeMap<(String, i64), BTreeSet<String>> = BTreeMap::new();
    for event in events(&lines) {
        let object = event["data"]["object"]["id"].as_str().unwrap().to_owned();
        let kinds = seconds.entry((object, event["created"].as_i64().unwrap())).or_default();
        kinds.insert(event["type"].as_str().unwrap().to_owned());
    }
    assert!(seconds.values().filter(|kinds| kinds.len() > 1).count() > 50);
}

#[test]
fn the_truth_agrees_with_itself() {
    let (_, truth) = told(Shop { customers: 800, ..shop(9) });
    for live in [true, false] {
        let of = |r: &Value| r[0] == live;
        let intents = sum(&truth, "intents", 3, of);
        assert_eq!(intents, sum(&truth, "attempts_per_intent", 2, of));
        let attempts = sum(&truth, "attempts", 2, of);
        let without_charge = sum(&truth, "attempts", 2, |r| of(r) && r[1] == "auth_failed");
        assert_eq!(attempts, sum(&truth, "charges", 3, of) + without_charge);
        assert_eq!(sum(&truth, "declines", 3, of), sum(&truth, "attempts", 2, |r| of(r) && r[1] == "issuer_declined"));
        assert_eq!(sum(&truth, "methods", 3, of), sum(&truth, "attempts", 2, |r| of(r) && r[1] == "authorised"));
        assert!(sum(&truth, "refunds", 4, of) < sum(&truth, "charges", 5, of));
    }
    // What subscriptions bring now is what came in less what went.
    let moved = |kind: &'static str| sum(&truth, "mrr_movements", 3, |r| r[1] == kind);
    assert!(moved("new") > moved("churn") && moved("churn") > 0);
    assert_eq!(sum(&truth, "subscriptions", 3, |_| true), moved("new") - moved("churn"));
    let paid = sum(&truth, "invoices", 4, |_| true);
    assert_eq!(paid, sum(&truth, "invoice_payments", 2, |_| true));
    let of_charges = |r: &Value| r[2] == "charge" || r[2] == "payment";
    let fees = sum(&truth, "balance_transactions", 5, of_charges);
    assert_eq!(fees, sum(&truth, "charges_settled", 3, |_| true));
    // What is listed as paid out was paid out, but for what came back and went out again.
    let net = |name, at| sum(&truth, name, at, |_| true) - sum(&truth, name, at + 1, |_| true);
    let out = sum(&truth, "payouts", 3, |r| r[1] == "paid" || r[1] == "failed");
    let again = out - net("payout_parts", 3);
    let returned = sum(&truth, "balance_transactions", 4, |r| r[2] == "payout_failure");
    assert!((0..=returned).contains(&again) && returned > 0, "{again} of {returned}, which came back");
    assert!(rows(&truth, "settled_rates").iter().any(|r| r[1] == "sek" && r[2].as_i64() > Some(10)));
    let succeeded = |r: &Value| r[0] == true && r[2] == "succeeded";
    let orders = sum(&truth, "orders", 1, |_| true);
    let direct = orders - sum(&truth, "intents", 3, succeeded);
    assert!((0..orders / 20).contains(&direct), "{direct} of {orders} orders have no intent");
    assert_eq!(sum(&truth, "events", 2, |_| true), sum(&truth, "events_by_source", 1, |_| true));
    assert_eq!(
        sum(&truth, "cart_events", 1, |r| r[0] == "added"),
        sum(&truth, "events", 2, |r| r[1] == "Product Added")
    );
    let steps: Vec<i64> = rows(&truth, "reached").iter().map(|r| r[1].as_i64().unwrap()).collect();
    assert!(steps.len() == 6 && steps[..4].is_sorted_by(|a, b| a >= b) && steps[4] >= steps[5], "{steps:?}");
    for total in truth["totals"].as_array().unwrap() {
        let width = total["columns"].as_array().unwrap().len();
        assert!(total["rows"].as_array().unwrap().iter().all(|r| r.as_array().unwrap().len() == width), "{total}");
        assert!(total["sql"].as_str().unwrap().contains("SELECT"));
    }
}

#[test]
fn the_events_tell_the_truth() {
    let (lines, truth) = told(shop(12));
    let mut intents: BTreeMap<String, (i64, bool, String, Value)> = BTreeMap::new();
    for event in events(&lines).into_iter().filter(|e| e["data"]["object"]["object"] == "payment_intent") {
        let object = event["data"]["object"].clone();
        let status = object["status"].as_str().unwrap().to_owned();
        let ended = matches!(&*status, "succeeded" | "canceled");
        // The end is the end; else the later second; within the first second, creation comes first.
        let rank = event["created"].as_i64().unwrap() * 2 + i64::from(event["type"] != "payment_intent.created");
        let rank = if ended { i64::MAX } else { rank };
        let known = intents.get(object["id"].as_str().unwrap()).map_or(i64::MIN, |known| known.0);
        if rank > known {
            let live = event["livemode"].as_bool().unwrap();
            intents.insert(object["id"].as_str().unwrap().to_owned(), (rank, live, status, object));
        }
    }
    let mut found: BTreeMap<(bool, String, String), [i64; 3]> = BTreeMap::new();
    for (_, live, status, object) in intents.into_values() {
        let sums = found.entry((live, object["currency"].as_str().unwrap().to_owned(), status)).or_default();
        sums[0] += 1;
        sums[1] += object["amount"].as_i64().unwrap();
        sums[2] += object["amount_received"].as_i64().unwrap();
    }
    let found: Vec<Value> =
        found.into_iter().map(|((l, c, s), [n, a, r])| serde_json::json!([l, c, s, n, a, r])).collect();
    assert_eq!(&found, rows(&truth, "intents"));
}

#[test]
fn people_are_who_the_events_link() {
    let (lines, truth) = told(shop(13));
    let mut groups: Vec<BTreeSet<String>> = Vec::new();
    let mut claim = |identifiers: Vec<Option<String>>| {
        let mut joined: BTreeSet<String> = identifiers.into_iter().flatten().collect();
        let (linked, apart): (Vec<_>, Vec<_>) =
            std::mem::take(&mut groups).into_iter().partition(|g| !g.is_disjoint(&joined));
        linked.into_iter().for_each(|g| joined.extend(g));
        groups = apart;
        groups.extend((!joined.is_empty()).then_some(joined));
    };
    let text = |kind: &str, value: &Value| value.as_str().map(|v| format!("{kind}:{v}"));
    for event in events(&lines).iter().filter(|e| e["livemode"] == true) {
        let object = &event["data"]["object"];
        let customer = if object["object"] == "customer" { &object["id"] } else { &object["customer"] };
        let emails = [
            &object["email"],
            &object["receipt_email"],
            &object["billing_details"]["email"],
            &object["customer_details"]["email"],
        ];
        let mut all: Vec<_> = emails.into_iter().map(|e| text("email", e)).collect();
        all.push(text("customer", customer));
        claim(all);
    }
    for line in parsed(&lines, Source::Storefront) {
        let (user, device) = (text("user", &line["userId"]), text("device", &line["anonymousId"]));
        claim(vec![user, device, text("email", &line["traits"]["email"])]);
    }
    for line in parsed(&lines, Source::Klaviyo) {
        let profile = if line["type"] == "event" { &line["included"][1] } else { &line };
        let attributes = &profile["attributes"];
        claim(vec![
            text("profile", &profile["id"]),
            text("email", &attributes["email"]),
            text("user", &attributes["external_id"]),
        ]);
    }
    assert_eq!(groups.len() as i64, sum(&truth, "people", 1, |r| r[0] == true));
}

#[test]
fn files_hold_what_was_generated() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_files(shop(7), &folder.path().join("shop.ndjson.zst")).unwrap();
    let names: Vec<_> = written.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    let wanted = [
        "shop.stripe.ndjson.zst",
        "shop.klaviyo.ndjson.zst",
        "shop.storefront.ndjson.zst",
        "shop.ndjson.zst.truth.json",
    ];
    assert_eq!(names, wanted);
    let (lines, truth) = told(shop(7));
    assert_eq!(written.events, lines.len() as u64);
    let stripe = zstd::decode_all(std::fs::File::open(&written.files[0]).unwrap()).unwrap();
    let own: Vec<u8> = lines
        .iter()
        .filter(|(s, _)| *s == Source::Stripe)
        .flat_map(|(_, l)| l.iter().copied().chain([b'\n']))
        .collect();
    assert_eq!(stripe, own);
    let file: Value = serde_json::from_slice(&std::fs::read(&written.files[3]).unwrap()).unwrap();
    assert_eq!(file, truth);

    let one = write_files(only(Source::Klaviyo, 7), &folder.path().join("k.ndjson.gz")).unwrap();
    assert!(one.files[0].ends_with("k.ndjson.gz") && one.files[1].ends_with("k.ndjson.gz.truth.json"));
    let mut text = String::new();
    let file = std::fs::File::open(&one.files[0]).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
    assert_eq!(text.lines().count() as u64, one.events);
}

#[test]
fn what_cannot_be_written_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere").join("shop.ndjson");
    let error = write_files(only(Source::Stripe, 1), &missing).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("cannot be written"), "{error}");
    let orders = write_files(only(Source::Orders, 1), &folder.path().join("x")).unwrap_err().to_string();
    assert!(orders.contains("orders cannot be generated"), "{orders}");
    let none = Shop { sources: Vec::new(), ..shop(1) };
    assert!(matches!(write_files(none, &folder.path().join("x")), Err(WriteError::NoSource)));
}

#[test]
fn the_smallest_shops_work() {
    for (customers, days) in [(0, 1), (1, 1), (3, 0), (2, 2_000)] {
        let (lines, truth) = told(Shop { customers, days, seed: u64::MAX, ..Shop::default() });
        assert_eq!(truth["lines"].as_u64(), Some(lines.len() as u64), "{customers} customers, {days} days");
    }
}
