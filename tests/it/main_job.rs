//! The main job as a user does it: files in, tables out, the same again changes nothing, and the order never matters.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::support::{Serving, Till, reference, text};

const SOURCES: [&str; 3] = ["stripe", "klaviyo", "storefront"];

fn generate(till: &Till, customers: &str, days: &str) {
    till.run(&["--quiet", "generate", "--seed", "7", "--customers", customers, "--days", days, "--out", "shop.ndjson"]);
}

fn file(till: &Till, source: &str) -> String {
    till.path(&format!("shop.{source}.ndjson")).to_str().unwrap().to_owned()
}

#[test]
fn every_total_of_the_truth_is_found() {
    let till = Till::new();
    generate(&till, "400", "40");
    for source in SOURCES {
        let ingested = till.json(&["ingest", source, &file(&till, source)]);
        assert_eq!(ingested["quarantined"], 0, "{source}");
        assert_eq!(
            ingested["read"].as_u64().unwrap(),
            ingested["accepted"].as_u64().unwrap() + ingested["duplicates"].as_u64().unwrap()
        );
    }
    // The end of the shop's last day: what the truth is true at.
    let ran = till.json(&["run", "--as-of", "2026-07-01"]);
    assert!(ran["models"].as_array().unwrap().iter().all(|m| m["status"] == "succeeded"), "{ran}");
    let truth: Value = serde_json::from_str(&fs::read_to_string(till.path("shop.ndjson.truth.json")).unwrap()).unwrap();
    let totals = truth["totals"].as_array().unwrap();
    assert!(totals.len() > 20, "the truth says something");
    let mut wrong = Vec::new();
    for total in totals {
        let columns: Vec<&str> = total["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let rows = till.sql(total["sql"].as_str().unwrap());
        let found: Vec<Value> =
            rows.iter().map(|r| columns.iter().map(|c| r.get(*c).cloned().unwrap_or(Value::Null)).collect()).collect();
        if Value::Array(found.clone()) != total["rows"] {
            wrong.push(format!(
                "{}\n  {}\n  found    {found:?}\n  expected {}",
                total["name"], total["sql"], total["rows"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} totals differ:\n{}", wrong.len(), totals.len(), wrong.join("\n"));
}

#[test]
fn what_was_taken_is_not_taken_again_and_order_does_not_matter() {
    let keys = Till::new();
    let key = keys.write("key", [7u8; 32]);
    let first = Till::with_key(&key);
    generate(&first, "120", "25");
    for source in SOURCES {
        first.json(&["ingest", source, &file(&first, source)]);
    }
    let facts = first.facts();
    assert!(facts.len() > 1000, "there is something to compare");

    let raw = first.count("raw.events");
    for source in SOURCES {
        let again = first.json(&["ingest", source, &file(&first, source)]);
        assert_eq!((again["accepted"].as_u64(), again["quarantined"].as_u64()), (Some(0), Some(0)), "{again}");
    }
    assert_eq!(first.count("raw.events"), raw);
    assert!(first.facts() == facts, "a second ingest changed a table");

    let other = Till::with_key(&key);
    for source in SOURCES.iter().rev() {
        for part in shuffled_parts(&first, &other, source) {
            other.json(&["ingest", source, part.to_str().unwrap()]);
        }
    }
    assert_eq!(other.count("raw.events"), raw);
    let shuffled = other.facts();
    let differ: Vec<_> = facts.iter().zip(&shuffled).filter(|(a, b)| a != b).take(5).collect();
    assert!(facts == shuffled, "{} rows and {}; the first that differ: {differ:#?}", facts.len(), shuffled.len());

    other.run(&["--quiet", "rebuild"]);
    assert!(other.facts() == facts, "a rebuild from raw.events gives other tables");
}

/// The first half of a source's lines, and the rest.
fn halves(till: &Till, source: &str) -> (PathBuf, PathBuf) {
    let text = fs::read_to_string(file(till, source)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_at(lines.len() / 2);
    let part = |name: &str, lines: &[&str]| till.write(&format!("{source}.{name}.ndjson"), lines.join("\n") + "\n");
    (part("first", first), part("rest", rest))
}

#[test]
fn what_comes_after_a_rebuild_is_taken_as_before_it() {
    let keys = Till::new();
    let key = keys.write("key", [3u8; 32]);
    let straight = Till::with_key(&key);
    generate(&straight, "60", "15");
    straight.run(&["--quiet", "ingest", "stripe", &file(&straight, "stripe")]);
    let (first, rest) = halves(&straight, "stripe");

    let rebuilt = Till::with_key(&key);
    rebuilt.run(&["--quiet", "ingest", "stripe", first.to_str().unwrap()]);
    rebuilt.run(&["--quiet", "rebuild"]);
    rebuilt.run(&["--quiet", "ingest", "stripe", rest.to_str().unwrap()]);
    rebuilt.run(&["--quiet", "rebuild", "core.charges"]);
    // What is known already changes nothing, whichever table knew it first.
    rebuilt.run(&["--quiet", "ingest", "stripe", first.to_str().unwrap()]);
    let (expected, found) = (straight.facts(), rebuilt.facts());
    assert!(expected.len() > 200, "there is something to compare");
    let differ: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).take(3).collect();
    assert!(expected == found, "{} rows and {}; the first that differ: {differ:#?}", expected.len(), found.len());
}

#[test]
fn an_earlier_run_is_had_again_from_what_was_known_to_it() {
    let till = Till::new();
    generate(&till, "80", "20");
    let (first, rest) = halves(&till, "stripe");
    let rates = || till.sql("SELECT * FROM marts.payment_rates_daily ORDER BY day, currency");
    let run = |args: &[&str]| till.json(&[&["run", "failures"], args].concat());

    till.run(&["--quiet", "ingest", "stripe", first.to_str().unwrap()]);
    let night = run(&[])["run_id"].as_str().unwrap().to_owned();
    let known = rates();
    assert!(known.len() > 5, "there is something to compare");
    till.run(&["--quiet", "ingest", "stripe", rest.to_str().unwrap()]);
    run(&[]);
    assert_ne!(rates(), known, "the rest says something");
    let again = run(&["--known-at", &night]);
    assert_eq!(rates(), known);

    let again = again["run_id"].as_str().unwrap();
    for (id, code, words) in
        [("run_of_another_shop", 2, "no run run_of_another_shop"), (again, 1, "recorded no position")]
    {
        let refused = till.try_run(&["run", "--known-at", id]);
        assert_eq!(refused.status.code(), Some(code));
        assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    }
}

#[test]
fn what_is_piped_in_beside_serve_lands() {
    let till = Till::new();
    generate(&till, "40", "10");
    let serving = Serving::start(&till);
    for (source, new) in [("stripe", true), ("stripe", false)] {
        let events = fs::File::open(file(&till, source)).unwrap();
        let output = till.command(&["--json", "--quiet", "ingest", source, "-"]).stdin(events).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let ingested: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(ingested["accepted"].as_u64().unwrap() > 100, new, "{ingested}");
        assert_eq!(ingested["quarantined"], 0);
    }
    assert!(till.count("core.charges") > 10);
    drop(serving);
}

/// The lines of a source's file in another order, in ten files, the last part first.
fn shuffled_parts(from: &Till, to: &Till, source: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(file(from, source)).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let n = lines.len();
    lines.sort_by_key(|l| xxhash_rust::xxh3::xxh3_64(l.as_bytes()));
    lines
        .chunks(n.div_ceil(10))
        .enumerate()
        .map(|(i, part)| to.write(&format!("{source}.{i}.ndjson"), part.join("\n") + "\n"))
        .rev()
        .collect()
}

#[test]
fn every_real_event_lands() {
    let Some(sample) = reference("stripe/events_sample.ndjson") else { return };
    let till = Till::new();
    let events: Vec<Value> = fs::read_to_string(sample)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["event"].clone())
        .collect();
    assert_eq!(events.len(), 172);
    let lines: String = events.iter().map(|e| format!("{e}\n")).collect();
    let path = till.write("events.ndjson", lines);
    let ingested = till.json(&["ingest", "stripe", path.to_str().unwrap()]);
    assert_eq!((ingested["read"].as_u64(), ingested["quarantined"].as_u64()), (Some(172), Some(0)));
    // Scrubbing gave many events one id; two of them are the same to the letter.
    let mut expected: Vec<String> = events.iter().map(|e| e["data"].to_string() + &e["type"].to_string()).collect();
    expected.sort();
    expected.dedup();
    let mut found: Vec<String> = till
        .sql("SELECT payload FROM raw.events")
        .iter()
        .map(|r| serde_json::from_str::<Value>(r["payload"].as_str().unwrap()).unwrap())
        .map(|e| e["data"].to_string() + &e["type"].to_string())
        .collect();
    found.sort();
    assert_eq!(found, expected);
    for (table, types) in [
        ("core.payment_intents", "payment_intent."),
        ("core.charges", "charge."),
        ("core.refunds", "refund."),
        ("core.customers", "customer.created"),
        ("core.checkouts", "checkout.session."),
        ("core.disputes", "charge.dispute."),
        ("core.invoices", "invoice."),
        ("core.invoice_payments", "invoice."),
        ("core.subscriptions", "customer.subscription."),
        ("core.subscription_intervals", "customer.subscription."),
        ("core.payouts", "payout."),
        ("core.balance_transactions", "charge.dispute."),
        ("core.early_fraud_warnings", "radar.early_fraud_warning."),
        ("core.reviews", "review."),
    ] {
        assert!(till.count(table) > 0, "{types}* makes rows in {table}");
    }
    assert_eq!(till.count("raw.quarantine"), 0);
}

#[test]
fn the_online_retail_file_works_as_it_is() {
    let Some(file) = reference("rfm/online_retail.parquet") else { return };
    let till = Till::new();
    let page = till.json(&["demo", "--orders", file.to_str().unwrap()]);
    let orders = &page["orders"][0];
    assert_eq!(
        (
            orders["currency"].as_str(),
            orders["customers"].as_u64(),
            orders["orders"].as_u64(),
            orders["amount"].as_i64()
        ),
        (Some("gbp"), Some(4_338), Some(18_532), Some(891_140_790))
    );
    assert_eq!(page["as_of"], "2011-12-11T00:00:00Z");
    let segments: Vec<(&str, u64)> = page["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["segment"].as_str().unwrap(), s["customers"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("hibernating", 1071),
        ("loyal", 819),
        ("champions", 633),
        ("at_risk", 593),
        ("potential_loyalists", 484),
        ("about_to_sleep", 352),
        ("need_attention", 187),
        ("promising", 94),
        ("cant_loose", 63),
        ("new", 42),
    ];
    assert_eq!(segments, expected);
}
