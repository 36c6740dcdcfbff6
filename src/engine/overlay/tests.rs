//! What readers see of a base, its changes and merged people, against a reckoning by hand; and what plans leave out.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;

use super::*;
use crate::engine::session::{
    Session,
    tests::{Memory, engine, options, shown},
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Payment {
    key: u8,
    livemode: bool,
    status: u8,
    person: Option<u8>,
    offset: i64,
}

fn payments() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("payment_id", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new(PERSON, DataType::Utf8, true),
        Field::new("livemode", DataType::Boolean, false),
        Field::new("log_offset", DataType::Int64, false),
    ]))
}

fn merges() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("old"), text("new"), Field::new("livemode", DataType::Boolean, false)]))
}

fn shapes() -> Arc<Vec<Shape>> {
    Arc::new(vec![
        Shape { name: "core.payments", schema: payments(), key: Some("payment_id"), visible: None },
        Shape { name: MERGES, schema: merges(), key: Some("old"), visible: None },
    ])
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn batch(rows: &[Payment]) -> RecordBatch {
    RecordBatch::try_new(
        payments(),
        vec![
            texts(rows.iter().map(|r| Some(format!("pi_{}", r.key)))),
            texts(rows.iter().map(|r| Some(format!("s{}", r.status)))),
            texts(rows.iter().map(|r| r.person.map(|p| format!("per_{p}")))),
            Arc::new(rows.iter().map(|r| Some(r.livemode)).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| Some(r.offset)).collect::<Int64Array>()),
        ],
    )
    .unwrap()
}

fn merges_batch(merged: &BTreeMap<(u8, bool), u8>) -> RecordBatch {
    RecordBatch::try_new(
        merges(),
        vec![
            texts(merged.keys().map(|(old, _)| Some(format!("per_{old}")))),
            texts(merged.values().map(|new| Some(format!("per_{new}")))),
            Arc::new(merged.keys().map(|(_, live)| Some(*live)).collect::<BooleanArray>()),
        ],
    )
    .unwrap()
}

fn session(base: &[Payment], changes: &[Payment], merged: &BTreeMap<(u8, bool), u8>) -> (Session, tempfile::TempDir) {
    let mut tables = Memory::default().with("core.payments", batch(base));
    if !changes.is_empty() {
        tables = tables.with("core.payments_changes", batch(changes));
    }
    if !merged.is_empty() {
        tables = tables.with(MERGES, merges_batch(merged));
    }
    let (engine, dir) = engine();
    (Session::new(engine, options(tables), shapes()).unwrap(), dir)
}

/// What a reader must see, row by row: the newest version of each object, its person after merges.
fn naive(base: &[Payment], changes: &[Payment], merged: &BTreeMap<(u8, bool), u8>) -> BTreeSet<Payment> {
    let mut rows: BTreeMap<(u8, bool), Payment> = BTreeMap::new();
    for row in base.iter().chain(changes) {
        let newest = rows.entry((row.key, row.livemode)).or_insert_with(|| row.clone());
        if row.offset >= newest.offset {
            *newest = row.clone();
        }
    }
    rows.into_values()
        .map(|r| Payment { person: r.person.map(|p| merged.get(&(p, r.livemode)).copied().unwrap_or(p)), ..r })
        .collect()
}

/// Rows of an answer of all columns, as the table shows them.
async fn rows(session: &Session, condition: &str) -> Vec<String> {
    let table = shown(session, &format!("SELECT * FROM core.payments WHERE {condition}")).await;
    sorted(table.lines().skip(3).filter(|l| l.starts_with('|')).map(|l| l.replace(' ', "")))
}

/// Each as often as it comes.
fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable();
    rows
}

fn expected(rows: impl Iterator<Item = Payment>) -> Vec<String> {
    sorted(rows.map(|r| {
        let person = r.person.map(|p| format!("per_{p}")).unwrap_or_default();
        format!("|pi_{}|s{}|{person}|{}|{}|", r.key, r.status, r.livemode, r.offset)
    }))
}

type World = (Vec<Payment>, Vec<Payment>, BTreeMap<(u8, bool), u8>);

/// Objects 0..6 with versions in the order of their offsets: the first few versions folded into the base.
fn worlds() -> impl Strategy<Value = World> {
    let version = (0u8..6, any::<bool>(), 0u8..3, proptest::option::of(0u8..6));
    let merged = proptest::collection::btree_map((0u8..3, any::<bool>()), 3u8..6, 0..4);
    (proptest::collection::vec(version, 1..24), 0usize..24, merged).prop_map(|(versions, folded, merged)| {
        let all: Vec<Payment> = versions
            .into_iter()
            .zip(0..)
            .map(|((key, livemode, status, person), offset)| Payment { key, livemode, status, person, offset })
            .collect();
        let (old, new) = all.split_at(folded.min(all.len()));
        let base = naive(old, &[], &BTreeMap::new()).into_iter().collect();
        (base, new.to_vec(), merged)
    })
}

proptest! {
    #![proptest_config(crate::tests::cases(40))]

    #[test]
    fn a_reader_sees_the_newest_version_of_every_object((base, changes, merged) in worlds()) {
        let truth = naive(&base, &changes, &merged);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (session, _dir) = session(&base, &changes, &merged);
            prop_assert_eq!(rows(&session, "true").await, expected(truth.iter().cloned()));
            // A filter that an old version passes and the newest does not must not bring the old one back.
            let of_status = truth.iter().filter(|r| r.status == 1).cloned();
            prop_assert_eq!(rows(&session, "status = 's1'").await, expected(of_status));
            let of_person = truth.iter().filter(|r| r.person == Some(4) && r.livemode).cloned();
            prop_assert_eq!(rows(&session, "person_id = 'per_4' AND livemode").await, expected(of_person));
            let of_four = truth.iter().filter(|r| r.person.is_some_and(|p| p != 1 && p != 5)).cloned();
            let four = "person_id IN ('per_0', 'per_2', 'per_3', 'per_4')";
            prop_assert_eq!(rows(&session, four).await, expected(of_four));
            let count = shown(&session, "SELECT count(*) FROM core.payments WHERE log_offset >= 5").await;
            let later = truth.iter().filter(|r| r.offset >= 5).count();
            prop_assert!(count.contains(&format!("| {later} ")), "{count} {later}");
            Ok(())
        })?;
    }
}

fn payment(key: u8, status: u8, person: u8, offset: i64) -> Payment {
    Payment { key, livemode: true, status, person: Some(person), offset }
}

#[tokio::test]
async fn what_is_not_needed_is_not_in_the_plan() {
    let merged = BTreeMap::from([((1, true), 2)]);
    let plan = |base, changes, merged, sql: &'static str| async move {
        let (session, _dir) = session(base, changes, merged);
        shown(&session, &format!("EXPLAIN {sql}")).await
    };
    let base = &[payment(1, 1, 1, 1)];
    let unmerged = BTreeMap::new();
    let plain = plan(base, &[], &unmerged, "SELECT * FROM core.payments WHERE status = 's1'").await;
    assert!(!plain.contains("Join") && !plain.contains("Aggregate") && !plain.contains("Union"), "{plain}");
    let no_person = plan(base, &[], &merged, "SELECT status FROM core.payments").await;
    assert!(!no_person.contains("Join"), "{no_person}");
    let person = plan(base, &[], &merged, "SELECT status FROM core.payments WHERE person_id = 'per_2'").await;
    assert!(person.contains("Join"), "{person}");
    // Both seeds of the person reach the rows below the join.
    let (_, below) = person.rsplit_once("Join").unwrap();
    assert!(below.contains("per_1") && below.contains("per_2"), "{person}");
}

#[tokio::test]
async fn absent_tables_are_empty_and_changes_alone_are_a_table() {
    let (engine, _dir) = engine();
    let session = Session::new(engine.clone(), options(Memory::default()), shapes()).unwrap();
    assert!(rows(&session, "true").await.is_empty());
    assert_eq!(session.validate("SELECT * FROM core.payments").await.unwrap().len(), 5);
    let newest = payment(1, 2, 1, 9);
    let tables = Memory::default().with("core.payments_changes", batch(&[payment(1, 1, 1, 8), newest.clone()]));
    let session = Session::new(engine, options(tables), shapes()).unwrap();
    assert_eq!(rows(&session, "true").await, expected([newest].into_iter()));
    assert_eq!(session.tables().iter().filter(|t| t.contains("payments")).count(), 1);
}

#[tokio::test]
async fn a_column_that_the_base_does_not_have_yet_is_null() {
    let old = batch(&[payment(1, 1, 1, 1)]).project(&[0, 2, 3, 4]).unwrap();
    let tables =
        Memory::default().with("core.payments", old).with("core.payments_changes", batch(&[payment(2, 1, 1, 2)]));
    let (engine, _dir) = engine();
    let session = Session::new(engine, options(tables), shapes()).unwrap();
    let table = shown(&session, "SELECT payment_id, status IS NULL AS gone FROM core.payments ORDER BY 1").await;
    assert!(table.contains("| pi_1       | true  |") && table.contains("| pi_2       | false |"), "{table}");
}
