//! A question about one day, one person or one object reads the files of that day, person or object alone, as the plan of its
//! own execution says.

use serde_json::json;

use crate::{
    base::{Logged, Micros, Offset, Source, time::DAY},
    engine::{Limits, Session, SessionOptions},
    facts::{self, Row, Stamped, Table, raw, rows},
    lake::{Lake, Position, changes_of},
    tests::{
        engine::{csv, engine, options},
        facts::envelope,
        tables::row,
    },
};

const DAYS: i64 = 30;
/// Of each day; enough for filters, which small files go without.
const ROWS: i64 = 1_200;
/// 2026-06-01T00:00:00Z.
const FIRST: i64 = 1_780_272_000_000_000;

fn charge(n: i64, refunded: i64, offset: i64) -> Stamped {
    let columns = json!({
        "charge_id": format!("ch_{n:06}"), "created_at": FIRST + n / ROWS * DAY + n % ROWS, "status": "succeeded", "amount": 100,
        "amount_captured": 100, "amount_refunded": refunded, "currency": "eur", "captured": true, "refunded": false,
        "disputed": false, "order_ambiguous": false, "person_id": format!("per_{:06}", n * 7919 % (DAYS * ROWS)),
    });
    Stamped {
        row: Row::from(row::<rows::Charge>(columns)),
        account: None,
        livemode: true,
        offset: Offset(offset as u64),
    }
}

/// A month of charges and their events, a load a day, of which one was refunded since; and two people who are one.
async fn month(lake: &Lake) {
    let at = |version| Position { stage: "load", version };
    let table = Table::Charges;
    for day in 0..DAYS {
        let numbers = day * ROWS..(day + 1) * ROWS;
        let charges: Vec<Stamped> = numbers.clone().map(|n| charge(n, 0, n)).collect();
        let batch = facts::batch(table, "m", &charges).unwrap();
        lake.append(table.name(), batch.schema(), &[], vec![batch], at(numbers.end)).await.unwrap();
        let event = |n: i64| {
            let at = Micros(FIRST + day * DAY + n % ROWS);
            let envelope = envelope(Source::Stripe, &format!("evt_{n:06}"), "charge.succeeded", at, &format!("[{n}]"));
            Logged { offset: Offset(n as u64), envelope }
        };
        let events: Vec<Logged> = numbers.clone().map(event).collect();
        let batch = raw::events_batch("m", Offset(0), &events).unwrap();
        lake.append(raw::EVENTS, batch.schema(), &["event_date"], vec![batch], at(numbers.end)).await.unwrap();
    }
    let changed = facts::batch(table, "m", &[charge(5, 40, DAYS * ROWS + 1)]).unwrap();
    let merged = row::<rows::PersonMerge>(json!({"old": "per_018003", "new": "per_018001", "merged_at": FIRST}));
    let merged = Stamped { row: merged.into(), account: None, livemode: true, offset: Offset(1) };
    let merged = facts::batch(Table::PersonMerges, "m", &[merged]).unwrap();
    for (name, batch) in [(changes_of(table.name()), changed), (Table::PersonMerges.name().to_owned(), merged)] {
        lake.append(&name, batch.schema(), &[], vec![batch], at(DAYS * ROWS + 2)).await.unwrap();
    }
    lake.publish();
}

/// How many groups of rows, of which each file here has one, the scan of the base began with and read: the files that the plan
/// names, and those of them whose filters let a row be there.
async fn scanned(session: &Session, sql: &str) -> (usize, usize) {
    let plan = csv(session, &format!("EXPLAIN ANALYZE {sql}")).await;
    let groups = |scan: &str| {
        let (_, told) = scan.split_once("row_groups_pruned_bloom_filter=")?;
        let (_, all) = scan.split_once("row_groups_pruned_statistics=")?;
        let number = |text: &str| text.split_whitespace().next()?.parse::<usize>().ok();
        Some((number(all)?, number(told.split_once('→')?.1)?))
    };
    let scans =
        plan.lines().filter(|line| line.contains("DataSourceExec") && !line.contains("changes")).filter_map(groups);
    scans.max().unwrap_or_else(|| panic!("no scan in {plan}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_a_person_and_an_object_are_read_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let lake = Lake::open(home.path()).await.unwrap();
    month(&lake).await;
    let (engine, _spill) = engine();
    let options = SessionOptions { tables: lake.snapshot(), ..options(Limits::default()) };
    let session = engine.session(options).unwrap();
    let days = DAYS as usize;
    let day = |column: &str| {
        format!("{column} >= TIMESTAMP '2026-06-11T00:00:00Z' AND {column} < TIMESTAMP '2026-06-12T00:00:00Z'")
    };
    for (sql, answer, read) in [
        ("SELECT sum(amount_refunded) FROM core.charges".to_owned(), "40", (days, days)),
        (format!("SELECT count(amount) FROM core.charges WHERE {}", day("created_at")), "1200", (1, 1)),
        (format!("SELECT count(payload) FROM raw.events WHERE {}", day("occurred_at")), "1200", (1, 1)),
        ("SELECT count(payload) FROM raw.events WHERE event_date = DATE '2026-06-11'".to_owned(), "1200", (1, 1)),
        ("SELECT sum(amount) FROM core.charges WHERE charge_id = 'ch_012003'".to_owned(), "100", (1, 1)),
        // Ids in no order of time: the files' filters say which hold them. The second person was two, of two days.
        ("SELECT sum(amount) FROM core.charges WHERE person_id = 'per_018100'".to_owned(), "100", (days, 1)),
        ("SELECT sum(amount) FROM core.charges WHERE person_id = 'per_018001'".to_owned(), "200", (days, 2)),
    ] {
        let told = csv(&session, &sql).await;
        assert_eq!(told.lines().nth(1), Some(answer), "{sql}");
        let (files, matched) = scanned(&session, &sql).await;
        assert_eq!((files, matched), read, "{sql}");
    }
}
