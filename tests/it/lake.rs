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
use tillstream::lake::{Lake, LakeError, Position, Rows, Snapshot, Tail, Upkeep, changes_of, overlay};

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
    assert_eq!(snapshot.schema("marts.m").unwrap().field(0).name(), "score");
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
async fn upkeep_keeps_answers_and_positions_and_lowers_the_number_of_files() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for n in 0..150 {
        assert!(append(&lake, n * 10..(n + 1) * 10, n).await);
    }
    let answer = "SELECT count(*), sum(amount), min(created_at), max(charge_id) FROM charges";
    let before = published(&lake);
    let expected = query(&before, answer).await;
    assert_eq!(before.files(TABLE), Some(150));

    let eager = Upkeep { keep_log: Duration::ZERO, ..Upkeep::default() };
    let done = lake.maintain_with(&eager).await.unwrap();
    assert_eq!((done.files_merged, done.files_made, done.checkpoints), (150, 1, 1));
    assert!(done.log_files_deleted > 100, "{done:?}");
    let after = published(&lake);
    assert_eq!(after.files(TABLE), Some(1));
    assert_eq!(query(&after, answer).await, expected);
    assert_eq!(query(&before, answer).await, expected, "files of an older snapshot are kept");

    let now = Upkeep { keep_files: Duration::ZERO, keep_log: Duration::ZERO, ..Upkeep::default() };
    assert_eq!(lake.maintain_with(&now).await.unwrap().files_deleted, 150);
    assert_eq!(query(&lake.snapshot(), answer).await, expected);
    drop(lake);

    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.position(TABLE, "load"), Some(149));
    assert!(!append(&lake, 0..10, 149).await);
    assert!(append(&lake, 1500..1501, 150).await);
    assert_eq!(query(&lake.snapshot(), answer).await, expected);
    assert_eq!(lake.maintain().await.unwrap().checkpoints, 0, "a checkpoint is due only after many commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_runs_beside_appends() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    append(&lake, 0..1, 0).await;
    let writer = {
        let lake = lake.clone();
        tokio::spawn(async move {
            for n in 1..80 {
                assert!(append(&lake, n..n + 1, n).await);
            }
        })
    };
    let eager = Upkeep { commits: 5, alike: 2, keep_log: Duration::ZERO, ..Upkeep::default() };
    let mut merged = 0;
    while !writer.is_finished() {
        merged += lake.maintain_with(&eager).await.unwrap().files_merged;
    }
    writer.await.unwrap();
    assert!(merged > 0);
    assert_eq!(number(&published(&lake), "SELECT count(DISTINCT amount) * 1000 + count(*) FROM charges").await, 80_080);
    let reopened = Lake::open(dir.path()).await.unwrap();
    assert_eq!(
        number(&reopened.snapshot(), "SELECT count(DISTINCT amount) * 1000 + count(*) FROM charges").await,
        80_080
    );
}

/// A steady flow of small flushes with upkeep between them.
#[tokio::test(flavor = "multi_thread")]
async fn files_stay_few_under_a_steady_flow_and_readers_under_way_keep_theirs() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let keep_files = Duration::from_millis(1500);
    let upkeep = Upkeep { commits: 20, keep_files, keep_log: Duration::ZERO, ..Upkeep::default() };
    let (mut flushed, mut most, mut most_on_disk, mut most_in_log) = (0, 0, 0, 0);
    for round in 0..24 {
        for _ in 0..12 {
            assert!(append(&lake, flushed..flushed + 1, flushed).await);
            flushed += 1;
        }
        let reader = published(&lake);
        lake.maintain_with(&upkeep).await.unwrap();
        assert_eq!(number(&reader, "SELECT count(DISTINCT amount) FROM charges").await, flushed);
        let table = dir.path().join("core/charges");
        most = most.max(published(&lake).files(TABLE).unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
        if round >= 12 {
            most_on_disk = most_on_disk.max(files_below(&table, ".parquet").len());
            most_in_log = most_in_log.max(files_below(&table, ".json").len());
        }
    }
    assert_eq!(
        number(&published(&lake), "SELECT count(*) * 1000 + count(DISTINCT amount) FROM charges").await,
        288_288
    );
    assert!(most <= 8, "{most} files are read");
    // Twelve a round, and rounds of some 200 ms, are what the time that files are kept holds.
    assert!(most_on_disk <= 12 * 8 + 8, "{most_on_disk} files on disk");
    assert!(most_in_log <= 12 * 5, "{most_in_log} commits in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_does_not_keep_the_others_from_their_upkeep() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for n in 0..10 {
        for table in ["core.a", "core.b", "core.c"] {
            lake.append(table, schema(), &[], vec![rows(n..n + 1)], at(n)).await.unwrap();
        }
    }
    fs::remove_file(files_below(&dir.path().join("core/b"), ".parquet").pop().unwrap()).unwrap();
    let error = lake.maintain().await.unwrap_err();
    assert!(error.to_string().contains("core.b"), "{error}");
    let snapshot = published(&lake);
    assert_eq!(["core.a", "core.b", "core.c"].map(|t| snapshot.files(t).unwrap()), [1, 10, 1]);
}

fn objects() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("charge_id", DataType::Utf8, false),
        Field::new("amount", DataType::Int64, false),
        Field::new("livemode", DataType::Boolean, false),
        Field::new("log_offset", DataType::Int64, false),
    ]))
}

/// Versions of objects `ch_<n>`: number, amount, offset.
fn versions(of: &[(i64, i64, i64)]) -> RecordBatch {
    let column = |pick: fn(&(i64, i64, i64)) -> i64| Int64Array::from_iter_values(of.iter().map(pick));
    RecordBatch::try_new(
        objects(),
        vec![
            Arc::new(StringArray::from_iter_values(of.iter().map(|v| format!("ch_{}", v.0)))),
            Arc::new(column(|v| v.1)),
            Arc::new(arrow::array::BooleanArray::from(vec![true; of.len()])),
            Arc::new(column(|v| v.2)),
        ],
    )
    .unwrap()
}

/// Object and amount, as a reader of base and changes sees them.
async fn overlaid(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let changes = snapshot.provider(&changes_of(TABLE)).unwrap();
    let plan = overlay::laid_over(snapshot.provider(TABLE).unwrap(), changes, "charge_id", &objects());
    let rows = SessionContext::new().execute_logical_plan(plan.unwrap().build().unwrap()).await.unwrap();
    let rows = rows.select_columns(&["charge_id", "amount"]).unwrap().collect().await.unwrap();
    let cell = |b: &RecordBatch, row, column: usize| array_value_to_string(b.column(column), row).unwrap();
    let mut all: Vec<Vec<String>> =
        rows.iter().flat_map(|b| (0..b.num_rows()).map(|r| vec![cell(b, r, 0), cell(b, r, 1)])).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_folded_into_the_files_they_touch_beside_what_is_appended_meanwhile() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let changes = changes_of(TABLE);
    let put = |table: String, of: Vec<(i64, i64, i64)>| {
        let lake = lake.clone();
        async move {
            let last = of.iter().map(|v| v.2).max().unwrap();
            lake.append(&table, objects(), &[], vec![versions(&of)], at(last)).await.unwrap();
        }
    };
    // Three files; an object of the second has changed twice.
    for (n, first) in [0, 10, 20].into_iter().enumerate() {
        put(TABLE.to_owned(), (first..first + 10).map(|i| (i, i, n as i64)).collect()).await;
    }
    put(changes.clone(), vec![(12, 500, 10)]).await;
    put(changes.clone(), vec![(12, 501, 11)]).await;
    let before = overlaid(&published(&lake)).await;
    let untouched = files_below(&dir.path().join("core/charges"), ".parquet").len();
    assert_eq!(untouched, 3);

    // As often as it can beside a writer: no object is ever missing, doubled, or older than it was.
    let writer = {
        let changes = changes.clone();
        async move {
            for n in 20..60 {
                put(changes.clone(), vec![(n % 30, 1000 + n, n)]).await;
                put(TABLE.to_owned(), vec![(n + 100, 0, n)]).await;
            }
        }
    };
    assert!(lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap());
    let folded = published(&lake);
    assert_eq!(overlaid(&folded).await, before);
    assert_eq!((folded.rows(TABLE), folded.rows(&changes)), (Some(30), Some(0)));
    assert_eq!(files_below(&dir.path().join("core/charges"), ".parquet").len(), 4, "one file was written again");

    let folding = async {
        let mut folds = 0;
        for _ in 0..12 {
            folds += u32::from(lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap());
            let seen = overlaid(&published(&lake)).await;
            let ids: std::collections::BTreeSet<&String> = seen.iter().map(|r| &r[0]).collect();
            assert_eq!(ids.len(), seen.len(), "an object is there twice");
            assert!(seen.iter().any(|r| r[0] == "ch_12" && r[1].parse::<i64>().unwrap() >= 501));
        }
        folds
    };
    let ((), folds) = tokio::join!(writer, folding);
    assert!(folds > 0);
    lake.fold_in(TABLE, objects(), "charge_id", "charge_id").await.unwrap();
    let end = published(&lake);
    assert_eq!((end.rows(TABLE), end.rows(&changes)), (Some(70), Some(0)));
    let found = overlaid(&end).await;
    assert!(found.contains(&vec!["ch_29".to_owned(), "1059".to_owned()]), "{found:?}");
    assert_eq!(found, overlaid(&Lake::open(dir.path()).await.unwrap().snapshot()).await);
}

/// A new object is seen among the changes and committed to the base, in whatever order the two tables are committed.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_on_its_way_to_the_base_is_never_out_of_sight() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let changes = changes_of(TABLE);
    let put = async |table: &str, of: &[(i64, i64, i64)], last| {
        lake.append(table, objects(), &[], vec![versions(of)], at(last)).await.unwrap();
        lake.publish();
        overlaid(&lake.snapshot()).await
    };
    lake.append(TABLE, objects(), &[], vec![versions(&[(1, 10, 0)])], at(0)).await.unwrap();
    put(&changes, &[(1, 11, 1)], 1).await;
    let mut tail = Tail::of("load");
    tail.lay_over(&changes, versions(&[(1, 12, 2), (2, 20, 3)]));
    assert!(lake.publish_with(tail));
    let expected = [["ch_1", "12"], ["ch_2", "20"]];
    assert_eq!(overlaid(&lake.snapshot()).await, expected);
    assert_eq!(put(&changes, &[(1, 12, 2)], 3).await, expected, "the changes are committed, the base is not");
    assert_eq!(put(TABLE, &[(2, 20, 3)], 3).await, expected, "both are committed");
    assert!(lake.publish_with(Tail::default()));
    assert_eq!(overlaid(&lake.snapshot()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_seen_once_before_and_after_its_commit() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let mut tail = Tail::of("load");
    tail.append(TABLE, 5, rows(0..5));
    assert!(lake.publish_with(tail.clone()));
    let seen = "SELECT count(*) * 100 + count(DISTINCT amount) FROM charges";
    let hot = lake.snapshot();
    assert_eq!((number(&hot, seen).await, hot.rows(TABLE), hot.files(TABLE)), (505, Some(5), None));

    tail.append(TABLE, 8, rows(5..8));
    assert!(lake.publish_with(tail.clone()));
    assert_eq!(number(&lake.snapshot(), seen).await, 808);
    assert_eq!(number(&lake.snapshot(), "SELECT count(*) FROM charges WHERE amount >= 4").await, 4);
    assert_eq!(query(&lake.snapshot(), "SELECT charge_id FROM charges WHERE amount = 6").await, [["ch_000006"]]);
    assert_eq!(query(&lake.snapshot(), "SELECT amount FROM charges LIMIT 2").await.len(), 2);

    // The commit is made, and whoever publishes next knows nothing of the tail.
    assert!(append(&lake, 0..8, 8).await);
    assert_eq!(number(&lake.snapshot(), seen).await, 808);
    lake.publish();
    assert_eq!((number(&lake.snapshot(), seen).await, lake.snapshot().rows(TABLE)), (808, Some(8)));
    assert_eq!(number(&hot, seen).await, 505, "an old snapshot stays as it was");

    // Rows after the commit are seen beside its files, partitions and all.
    tail.append(TABLE, 9, rows(8..9));
    assert!(lake.publish_with(tail));
    assert_eq!(number(&lake.snapshot(), seen).await, 909);
    let day = "SELECT count(*) FROM charges WHERE day = DATE '2024-10-04'";
    assert_eq!(number(&lake.snapshot(), day).await, 9);

    // A column that the table lacks comes by a commit.
    let mut wider = Tail::of("load");
    let other = Arc::new(Schema::new(vec![Field::new("note", DataType::Utf8, true)]));
    let notes = StringArray::from(vec!["first"]);
    wider.append(TABLE, 10, RecordBatch::try_new(other, vec![Arc::new(notes)]).unwrap());
    assert!(!lake.publish_with(wider));
    assert_eq!(number(&lake.snapshot(), seen).await, 909);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_table_is_gone_and_its_name_free() {
    let dir = TempDir::new().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    append(&lake, 0..10, 10).await;
    assert!(lake.remove(TABLE).await.unwrap());
    assert!(!lake.remove(TABLE).await.unwrap());
    assert!(published(&lake).tables().is_empty());
    assert_eq!(lake.position(TABLE, "load"), None);
    assert!(append(&lake, 0..3, 3).await);
    // As if another removal had been killed after its first step.
    let table = dir.path().join("core/charges");
    drop(lake);
    fs::rename(table.join("_delta_log"), table.join("_delta_log.removed")).unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert!(lake.snapshot().tables().is_empty());
    assert!(files_below(&table, ".parquet").is_empty());
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
