//! The rows of real events, written out for a person to read and to check against the event.
//!
//! `TILLSTREAM_GOLDEN=write` writes the files anew. What is not part of the product (`sample::reference`) is skipped where
//! it is absent.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use arrow::{
    array::Array,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::{Value, json};

use super::{decoder, fixture, loaded, sample::reference, stripe_envelope};
use crate::{
    base::Offset,
    facts::{ObjectKey, Row, Stamped, Table, batch},
};

/// A row by its columns, those that are null left out.
fn shown(key: &ObjectKey, row: &Row) -> String {
    let stamped = Stamped { row: row.clone(), account: None, livemode: key.livemode, offset: Offset(0) };
    let made = batch(key.table, "shop", &[stamped]).unwrap();
    let options = FormatOptions::new().with_timestamp_tz_format(Some("%FT%T%.fZ"));
    let mut text = format!("  {}\n", key.table.name());
    for (field, column) in made.schema().fields().iter().zip(made.columns()) {
        if column.is_valid(0) && !["merchant_id", "log_offset"].contains(&field.name().as_str()) {
            let value = ArrayFormatter::try_new(column, &options).unwrap().value(0).to_string();
            writeln!(text, "    {:<32}{value}", field.name()).unwrap();
        }
    }
    text
}

fn all_shown(rows: &BTreeMap<ObjectKey, Row>) -> String {
    rows.iter().map(|(key, row)| shown(key, row)).collect()
}

/// What each event comes to by itself.
fn one_by_one<'a>(events: impl Iterator<Item = &'a Value>) -> String {
    let mut text = String::new();
    for (n, event) in events.enumerate() {
        let version = event["api_version"].as_str().unwrap_or("no version");
        let head = format!("{}. {} ({version})", n + 1, event["type"].as_str().unwrap());
        match decoder().decode(&stripe_envelope(event)) {
            Err(error) => writeln!(text, "{head}: refused, {error}").unwrap(),
            Ok(decoded) if !decoded.handled => writeln!(text, "{head}: kept in raw.events").unwrap(),
            Ok(_) => write!(text, "{head}\n{}", all_shown(&loaded([event]))).unwrap(),
        }
    }
    text
}

pub fn check(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name);
    if std::env::var("TILLSTREAM_GOLDEN").is_ok() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    let differ = wanted.lines().zip(found.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(wanted == found, "{name} differs, first at {differ:?}; TILLSTREAM_GOLDEN=write writes it anew");
}

#[test]
fn events_of_many_versions_become_the_rows_one_would_write_by_hand() {
    let Some(text) = reference("events_sample.ndjson") else { return };
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    check("events_sample.txt", &one_by_one(events.iter()));
}

#[test]
fn objects_of_the_newest_version_become_the_rows_one_would_write_by_hand() {
    let Some(text) = reference("objects_2026-07-29.json") else { return };
    let objects: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let events: Vec<Value> = objects
        .iter()
        .map(|(object, value)| {
            json!({"id": format!("evt_{object}"), "object": "event", "api_version": "2026-07-29.dahlia",
                "created": 1_785_000_000, "livemode": false, "type": format!("{object}.fetched"),
                "data": {"object": value}})
        })
        .collect();
    check("objects_2026-07-29.txt", &one_by_one(events.iter()));
}

#[test]
fn a_clubs_year_in_two_renderings_is_one_set_of_rows() {
    let renderings = ["club_acacia.ndjson", "club_basil.ndjson"].map(|name| all_shown(&loaded(&fixture(name))));
    for rendering in &renderings {
        check("club.txt", rendering);
    }
    // Nothing is left out that the history has.
    let rows = loaded(&fixture("club_basil.ndjson"));
    for table in [Table::Subscriptions, Table::Invoices, Table::InvoicePayments, Table::Charges, Table::Checkouts] {
        assert!(rows.keys().any(|key| key.table == table), "{table:?}");
    }
}
