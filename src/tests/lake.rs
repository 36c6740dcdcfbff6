//! The promises of the lake: exactly once, all or nothing, nothing lost by upkeep.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use crate::lake::{Lake, LakeError, Position, Rows, Snapshot, Upkeep};

mod fold_in;
mod tail;
mod upkeep;

const TABLE: &str = "core.charges";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("charge_id", DataType::Utf8, false),
        Field::new("amount", DataType::Int64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("created_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

/// Rows `ch_<n>` with amount n, on day `n / 100`.
fn rows(numbers: impl Iterator<Item = i64> + Clone) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("ch_{n:06}")))),
            Arc::new(Int64Array::from_iter_values(numbers.clone())),
            Arc::new(Date32Array::from_iter_values(numbers.clone().map(|n| 20_000 + (n / 100) as i32))),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(numbers.map(|n| n * 1_000_000 + 17)).with_timezone("UTC"),
            ),
        ],
    )
    .unwrap()
}

fn at(version: i64) -> Position<'static> {
    Position { stage: "load", version }
}

async fn append(lake: &Lake, numbers: std::ops::Range<i64>, version: i64) -> bool {
    lake.append(TABLE, schema(), &[], vec![rows(numbers)], at(version)).await.unwrap()
}

fn session(snapshot: &Snapshot) -> SessionContext {
    let session = SessionContext::new();
    for name in snapshot.tables() {
        let table = name.rsplit('.').next().unwrap().to_owned();
        session.register_table(&table, snapshot.provider(&name).unwrap()).unwrap();
    }
    session
}

async fn query(snapshot: &Snapshot, sql: &str) -> Vec<Vec<String>> {
    let batches = session(snapshot).sql(sql).await.unwrap().collect().await.unwrap();
    let cell = |b: &RecordBatch, row, column: usize| array_value_to_string(b.column(column), row).unwrap();
    batches
        .iter()
        .flat_map(|b| {
            (0..b.num_rows()).map(|r| (0..b.num_columns()).map(|c| cell(b, r, c)).collect()).collect::<Vec<_>>()
        })
        .collect()
}

async fn number(snapshot: &Snapshot, sql: &str) -> i64 {
    query(snapshot, sql).await[0][0].parse().unwrap()
}

async fn explain(snapshot: &Snapshot, sql: &str) -> String {
    query(snapshot, &format!("EXPLAIN {sql}")).await.into_iter().flatten().collect()
}

fn published(lake: &Lake) -> Arc<Snapshot> {
    lake.publish();
    lake.snapshot()
}

fn files_below(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_applied_once_however_often_it_is_repeated() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(append(&lake, 0..10, 10).await);
    assert!(!append(&lake, 0..10, 10).await);
    assert!(!append(&lake, 5..9, 3).await, "an older position is applied too");
    assert!(append(&lake, 10..15, 15).await);
    drop(lake);

    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.position(TABLE, "load"), Some(15));
    assert_eq!(lake.position(TABLE, "other"), None);
    assert!(!append(&lake, 10..15, 15).await);
    assert!(append(&lake, 15..16, 16).await);
    let snapshot = published(&lake);
    assert_eq!(snapshot.rows(TABLE), Some(16));
    assert_eq!(number(&snapshot, "SELECT count(*) FROM charges").await, 16);
    assert_eq!(number(&snapshot, "SELECT count(DISTINCT charge_id) FROM charges").await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_do_not_share_a_position_and_an_empty_append_moves_it() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(append(&lake, 0..1, 7).await);
    let rebuild = Position { stage: "rebuild", version: 2 };
    assert!(lake.append(TABLE, schema(), &[], vec![rows(1..2)], rebuild).await.unwrap());
    assert!(lake.append(TABLE, schema(), &[], vec![], at(9)).await.unwrap());
    drop(lake);
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!((lake.position(TABLE, "load"), lake.position(TABLE, "rebuild")), (Some(9), Some(2)));
    assert_eq!(lake.snapshot().rows(TABLE), Some(2));
}

/// Two handles on one directory are what a process that should be dead and its successor look like.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_writer_neither_doubles_nor_loses_rows() {
    let dir = TempDir::new().unwrap();
    let one = Lake::open(dir.path()).await.unwrap();
    assert!(append(&one, 0..1, 1).await);
    let two = Lake::open(dir.path()).await.unwrap();
    assert!(append(&one, 1..2, 2).await);
    assert!(!append(&two, 1..2, 2).await, "the commit of the other is found when its own is refused");
    assert!(append(&two, 2..3, 3).await);
    let other = Position { stage: "other", version: 1 };
    assert!(one.append(TABLE, schema(), &[], vec![rows(3..4)], other).await.unwrap());
    assert_eq!(number(&published(&one), "SELECT count(DISTINCT amount) * 100 + count(*) FROM charges").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_append_that_was_killed_before_its_commit_are_never_read() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(append(&lake, 0..10, 10).await);
    assert!(append(&lake, 10..20, 20).await);
    drop(lake);
    // As if the second had been killed between its files and its commit, and a third while writing a file.
    let table = dir.path().join("core/charges");
    fs::remove_file(table.join("_delta_log/00000000000000000001.json")).unwrap();
    let torn = table.join("part-torn.parquet#1");
    fs::write(&torn, b"PAR1").unwrap();

    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(!torn.exists());
    assert_eq!(lake.position(TABLE, "load"), Some(10));
    assert_eq!(number(&lake.snapshot(), "SELECT max(amount) FROM charges").await, 9);
    assert!(append(&lake, 10..20, 20).await);
    assert_eq!(number(&published(&lake), "SELECT sum(amount) FROM charges").await, 190);

    // What nothing refers to goes, once it is old enough to be no writer's.
    assert_eq!(files_below(&table, ".parquet").len(), 3);
    assert_eq!(lake.maintain().await.unwrap().files_deleted, 0);
    let now = Upkeep { keep_files: Duration::ZERO, ..Upkeep::default() };
    assert_eq!(lake.maintain_with(&now).await.unwrap().files_deleted, 1);
    assert_eq!(number(&lake.snapshot(), "SELECT sum(amount) FROM charges").await, 190);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replace_is_all_or_nothing_to_whoever_reads() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(append(&lake, 0..100, 100).await);
    let before = published(&lake);

    let parts = (0..50).map(|i| Ok(rows(i * 1000..(i + 1) * 1000)));
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter(parts));
    let replaced = lake.replace(TABLE, schema(), Rows::Stream(Box::pin(stream)), None).await.unwrap();
    assert_eq!(replaced, 50_000);
    assert_eq!(number(&lake.snapshot(), "SELECT sum(amount) FROM charges").await, 4950, "not published yet");
    let after = published(&lake);
    assert_eq!(number(&before, "SELECT sum(amount) FROM charges").await, 4950, "an old snapshot stays as it was");
    assert_eq!(number(&after, "SELECT count(*) FROM charges WHERE amount >= 0").await, 50_000);
    assert_eq!(lake.position(TABLE, "load"), Some(100), "positions outlive a replacement");

    // A stream that fails changes nothing.
    let failing = vec![Ok(rows(0..5)), Err(datafusion::error::DataFusionError::Execution("division by zero".into()))];
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter(failing));
    let error = lake.replace(TABLE, schema(), Rows::Stream(Box::pin(stream)), None).await.unwrap_err();
    assert!(error.to_string().contains("core.charges") && error.to_string().contains("division by zero"), "{error}");
    assert_eq!(published(&lake).rows(TABLE), Some(50_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replace_may_change_columns_and_leave_no_rows() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append("marts.m", schema(), &["day"], vec![rows(0..250)], at(1)).await.unwrap();
    let other = Arc::new(Schema::new(vec![Field::new("score", DataType::UInt64, false)]));
    assert_eq!(lake.replace("marts.m", other.clone(), vec![], Some(at(2))).await.unwrap(), 0);
    assert_eq!(lake.replace("marts.m", schema(), vec![rows(0..3)], Some(at(2))).await.unwrap(), 0, "applied already");
    drop(lake);
    let lake = Lake::open(dir.path()).await.unwrap();
    let snapshot = lake.snapshot();
    assert_eq!(snapshot.provider("marts.m").unwrap().schema().field(0).name(), "score");
    assert_eq!(query(&snapshot, "SELECT count(*), max(score) FROM m").await, [["0", ""]]);
    assert_eq!(query(&snapshot, "SELECT * FROM m").await.len(), 0);
    assert_eq!(lake.replace("marts.m", schema(), vec![rows(0..3)], Some(at(3))).await.unwrap(), 3);
    assert_eq!(query(&published(&lake), "SELECT min(charge_id) FROM m").await, [["ch_000000"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_null_in_the_rows_before_it() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    append(&lake, 0..5, 5).await;
    let wider = Arc::new(Schema::new(vec![
        Field::new("note", DataType::Utf8View, true),
        Field::new("amount", DataType::Int64, true),
    ]));
    let notes = arrow::array::StringViewArray::from(vec!["first", "second"]);
    let batch =
        RecordBatch::try_new(wider.clone(), vec![Arc::new(notes), Arc::new(Int64Array::from(vec![5, 6]))]).unwrap();
    assert!(lake.append(TABLE, wider, &[], vec![batch], at(7)).await.unwrap());
    let sum = "SELECT sum(amount), count(note), count(charge_id), min(note) FROM charges";
    assert_eq!(query(&published(&lake), sum).await, [["21", "2", "5", "first"]]);
    drop(lake);
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(query(&lake.snapshot(), sum).await, [["21", "2", "5", "first"]]);
    assert_eq!(query(&lake.snapshot(), "SELECT amount FROM charges WHERE note = 'second'").await, [["6"]]);
    assert_eq!(number(&lake.snapshot(), "SELECT count(*) FROM charges WHERE note IS NULL").await, 5);

    let clash = Arc::new(Schema::new(vec![Field::new("amount", DataType::Utf8, true)]));
    let error = lake.append(TABLE, clash, &[], vec![], at(8)).await.unwrap_err();
    assert!(matches!(error, LakeError::Schema { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_reads_only_the_partitions_and_files_it_needs() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append(TABLE, schema(), &["day"], vec![rows(0..1000)], at(1)).await.unwrap();
    let snapshot = published(&lake);
    assert_eq!(snapshot.files(TABLE), Some(10));
    let all = explain(&snapshot, "SELECT charge_id FROM charges").await;
    // The plan names five files of a group at most.
    assert!(all.matches(".parquet").count() > 5, "{all}");

    let by_day = "FROM charges WHERE day >= DATE '2024-10-07' AND day < DATE '2024-10-09'";
    assert_eq!(number(&snapshot, &format!("SELECT count(*) {by_day}")).await, 200);
    let plan = explain(&snapshot, &format!("SELECT charge_id {by_day}")).await;
    assert_eq!(plan.matches(".parquet").count(), 2, "{plan}");
    assert!(!plan.contains("FilterExec"), "partitions decide it: {plan}");

    // Statistics, by number, text and time, the last past the millisecond that the log keeps.
    for condition in ["amount = 555", "charge_id = 'ch_000555'", "created_at = TIMESTAMP '1970-01-01T00:09:15.000017Z'"]
    {
        let from = format!("FROM charges WHERE {condition}");
        assert_eq!(query(&snapshot, &format!("SELECT amount {from}")).await, [["555"]], "{condition}");
        let plan = explain(&snapshot, &format!("SELECT day {from}")).await;
        assert_eq!(plan.matches(".parquet").count(), 1, "{condition}: {plan}");
    }
    let last = "SELECT min(amount) FROM charges WHERE day = (SELECT max(day) FROM charges)";
    assert_eq!(number(&snapshot, last).await, 900);
    let counted = explain(&snapshot, "SELECT count(*) FROM charges").await;
    assert!(!counted.contains("DataSourceExec: file_groups"), "answered from the log: {counted}");

    let names = "SELECT column_name FROM information_schema.columns";
    let session =
        SessionContext::new_with_config(datafusion::prelude::SessionConfig::new().with_information_schema(true));
    session.register_table("charges", snapshot.provider(TABLE).unwrap()).unwrap();
    let columns = session.sql(names).await.unwrap().collect().await.unwrap();
    let columns: Vec<&str> = columns[0].column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(columns, ["charge_id", "amount", "day", "created_at"], "in the order they were declared");
    let mixed = query(&snapshot, "SELECT created_at, day, amount FROM charges WHERE amount = 999").await;
    assert_eq!(mixed, [["1970-01-01T00:16:39.000017Z", "2024-10-13", "999"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_partition_values_come_back_as_they_were() {
    let dir = TempDir::new().unwrap();
    let spaced = dir.path().join("a lake with % and spaces");
    let lake = Lake::open(&spaced).await.unwrap();
    let schema =
        Arc::new(Schema::new(vec![Field::new("kind", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
    let kinds = [Some("a b"), Some("50%/x=1?"), None, Some("é")];
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![Arc::new(StringArray::from(kinds.to_vec())), Arc::new(Int64Array::from(vec![1, 2, 3, 4]))],
    )
    .unwrap();
    lake.append("t.odd", schema, &["kind"], vec![batch], at(1)).await.unwrap();
    for lake in [lake.clone(), Lake::open(&spaced).await.unwrap()] {
        let snapshot = published(&lake);
        let rows = query(&snapshot, "SELECT kind, n FROM odd ORDER BY n").await;
        assert_eq!(rows, [["a b", "1"], ["50%/x=1?", "2"], ["", "3"], ["é", "4"]]);
        assert_eq!(number(&snapshot, "SELECT n FROM odd WHERE kind IS NULL").await, 3);
        assert_eq!(number(&snapshot, "SELECT n FROM odd WHERE kind = '50%/x=1?'").await, 2);
        let now = Upkeep { keep_files: Duration::ZERO, ..Upkeep::default() };
        assert_eq!(lake.maintain_with(&now).await.unwrap().files_deleted, 0);
        assert_eq!(number(&snapshot, "SELECT sum(n) FROM odd").await, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_named_and_a_half_made_one_is_no_table() {
    let dir = TempDir::new().unwrap();
    let half = dir.path().join("core/half");
    fs::create_dir_all(half.join("_delta_log")).unwrap();
    fs::write(half.join("part-0.parquet"), b"of a commit that never was").unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(lake.snapshot().tables().is_empty());
    append(&lake, 0..1, 1).await;
    append(&lake, 1..2, 2).await;
    drop(lake);

    let commit = dir.path().join("core/charges/_delta_log/00000000000000000001.json");
    let whole = fs::read(&commit).unwrap();
    for damage in [&b""[..], &whole[..whole.len() / 2]] {
        fs::write(&commit, damage).unwrap();
        let error = Lake::open(dir.path()).await.err().expect("a damaged log is refused");
        assert!(matches!(&error, LakeError::Corrupt { table, .. } if table == TABLE), "{error}");
        assert!(error.to_string().contains("Restore the directory from a backup"), "{error}");
    }
    fs::write(&commit, &whole).unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.snapshot().rows(TABLE), Some(2));

    fs::remove_file(files_below(&dir.path().join("core/charges"), ".parquet").pop().unwrap()).unwrap();
    let now = Upkeep { keep_files: Duration::ZERO, ..Upkeep::default() };
    let error = lake.maintain_with(&now).await.unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_says_where_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    fs::write(dir.path().join("core"), b"a file in the way").unwrap();
    let error = lake.append(TABLE, schema(), &[], vec![rows(0..1)], at(1)).await.unwrap_err();
    assert!(matches!(error, LakeError::Storage { .. }), "{error}");
    assert!(error.to_string().contains("core.charges: cannot make the directory"), "{error}");
    for name in ["orders", "core.Orders", "../x.y", "core.a.b"] {
        let error = lake.append(name, schema(), &[], vec![], at(1)).await.unwrap_err();
        assert!(matches!(error, LakeError::BadName(_)), "{error}");
    }
}

/// What is appended, repeated, replaced and maintained, in any order and across reopening, is what a list of rows says.
#[derive(Debug, Clone)]
enum Act {
    Append { rows: u8, repeat: bool },
    Replace { rows: u8 },
    Maintain,
    Reopen,
}

#[test]
fn any_run_of_appends_repeats_replaces_and_upkeep_gives_the_rows_of_a_plain_list() {
    let act = prop_oneof![
        6 => (0..20_u8, any::<bool>()).prop_map(|(rows, repeat)| Act::Append { rows, repeat }),
        1 => (0..20_u8).prop_map(|rows| Act::Replace { rows }),
        2 => Just(Act::Maintain),
        1 => Just(Act::Reopen),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(act, 1..25), |acts| {
        runtime.block_on(check(acts));
        Ok(())
    });
    outcome.unwrap();
}

async fn check(acts: Vec<Act>) {
    let dir = TempDir::new().unwrap();
    let mut lake = Lake::open(dir.path()).await.unwrap();
    let eager =
        Upkeep { commits: 3, alike: 2, quiet: Duration::ZERO, keep_files: Duration::ZERO, keep_log: Duration::ZERO };
    let (mut model, mut next, mut position) = (BTreeMap::<i64, usize>::new(), 0_i64, 0_i64);
    for act in acts {
        match act {
            Act::Append { rows: count, repeat } => {
                let range = next..next + i64::from(count);
                (next, position) = (range.end, position + 1);
                for again in 0..=usize::from(repeat) {
                    let batches = vec![rows(range.clone())];
                    let done = lake.append(TABLE, schema(), &["day"], batches, at(position)).await.unwrap();
                    assert_eq!(done, again == 0);
                }
                range.for_each(|n| *model.entry(n).or_default() += 1);
            }
            Act::Replace { rows: count } => {
                let range = next..next + i64::from(count);
                next = range.end;
                let all = lake.replace(TABLE, schema(), vec![rows(range.clone())], None).await.unwrap();
                assert_eq!(all, u64::from(count));
                model = range.map(|n| (n, 1)).collect();
            }
            Act::Maintain => drop(lake.maintain_with(&eager).await.unwrap()),
            Act::Reopen => lake = Lake::open(dir.path()).await.unwrap(),
        }
        let snapshot = published(&lake);
        let found = match snapshot.provider(TABLE) {
            Some(_) => query(&snapshot, "SELECT amount, count(*) FROM charges GROUP BY 1 ORDER BY 1").await,
            None => vec![],
        };
        let expected: Vec<_> = model.iter().map(|(n, count)| vec![n.to_string(), count.to_string()]).collect();
        assert_eq!(found, expected);
        assert_eq!(snapshot.rows(TABLE).unwrap_or(0), model.values().sum::<usize>() as u64);
        if position > 0 {
            assert_eq!(lake.position(TABLE, "load"), Some(position));
        }
    }
}
