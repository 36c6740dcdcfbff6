//! What ran: the tables `ops.pipeline_runs` and `ops.check_results`, written at the end of a run and read before the next.
//!
//! One row a model or check of a run. Rows are only ever appended. A model's row is written after its table, and both
//! hold one number: where a crash came between them the numbers differ, and the table is computed whole.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};

use super::{
    doubt::PRESENT,
    report::{CheckOutcome, ModelOutcome},
    runner::RunError,
};
use crate::{
    base::Micros,
    engine::{Session, SqlError, View},
    lake::{Lake, Position},
};

const RUNS: &str = "ops.pipeline_runs";
const CHECKS: &str = "ops.check_results";
/// The stage under which these tables and the models' own count their commits.
const STAGE: &str = "pipeline";

static RUNS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("run_id", false),
        text("pipeline", false),
        text("model", false),
        time("started_at"),
        time("finished_at"),
        time("as_of"),
        Field::new("log_offset", DataType::Int64, true),
        Field::new("rows", DataType::Int64, true),
        text("status", false),
        text("error", true),
        // Of the SQL that made the table: what a later run compares, to see whether the table is still of that SQL.
        text("sql_digest", false),
        // The number of the table's commit, where there is a table.
        Field::new("table_commit", DataType::Int64, true),
    ]))
});

static CHECKS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("run_id", false),
        text("pipeline", false),
        text("check_name", false),
        text("severity", false),
        Field::new("failures", DataType::Int64, true),
        text("status", false),
        time("checked_at"),
        text("error", true),
        // Of the check's own SQL. Null where a build that did not note it wrote the row.
        text("sql_digest", true),
    ]))
});

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false)
}

/// What all rows of one run share.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) as_of: Micros,
    /// The loader's position when the run began: rows up to it are in the tables.
    pub(super) log_offset: Option<i64>,
}

/// The last time that a model was computed without failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastRun {
    pub(super) as_of: Micros,
    /// When its run began, and when the model was made.
    pub(super) began_at: Micros,
    pub(super) finished_at: Micros,
    pub(super) log_offset: Option<i64>,
    pub(super) sql_digest: String,
    pub(super) table_commit: Option<i64>,
}

/// How a model of a run ended, and when.
pub(super) struct ModelRecord {
    pub(super) outcome: ModelOutcome,
    pub(super) started_at: Micros,
    pub(super) finished_at: Micros,
    pub(super) sql_digest: String,
    pub(super) table_commit: Option<i64>,
}

/// How a check of a run ended, and when.
pub(super) struct CheckRecord {
    pub(super) outcome: CheckOutcome,
    pub(super) checked_at: Micros,
    pub(super) sql_digest: String,
}

/// The last time that a check looked.
pub(super) struct LastCheck {
    pub(super) passed: bool,
    pub(super) checked_at: Micros,
    pub(super) sql_digest: Option<String>,
}

/// Adds a run's rows.
pub(super) async fn record(
    lake: &Lake,
    run: &Run,
    models: &[ModelRecord],
    checks: &[CheckRecord],
) -> Result<(), RunError> {
    // In this order: a verdict without its run vouches for nothing, and a run without its verdicts would be vouched for by older
    // ones.
    append(lake, CHECKS, &CHECKS_SCHEMA, check_columns(run, checks)).await?;
    append(lake, RUNS, &RUNS_SCHEMA, model_columns(run, models)).await
}

fn model_columns(run: &Run, models: &[ModelRecord]) -> Vec<ArrayRef> {
    let outcomes = || models.iter().map(|m| &m.outcome);
    vec![
        words(models.iter().map(|_| run.id.as_str())),
        words(outcomes().map(|o| o.pipeline.as_str())),
        words(outcomes().map(|o| o.model.as_str())),
        moments(models.iter().map(|m| m.started_at)),
        moments(models.iter().map(|m| m.finished_at)),
        moments(models.iter().map(|_| run.as_of)),
        numbers(models.iter().map(|_| run.log_offset)),
        numbers(outcomes().map(|o| o.rows.and_then(|r| i64::try_from(r).ok()))),
        words(outcomes().map(|o| o.status.as_str())),
        Arc::new(outcomes().map(|o| o.error.as_deref()).collect::<StringArray>()),
        words(models.iter().map(|m| m.sql_digest.as_str())),
        numbers(models.iter().map(|m| m.table_commit)),
    ]
}

fn check_columns(run: &Run, checks: &[CheckRecord]) -> Vec<ArrayRef> {
    let outcomes = || checks.iter().map(|c| &c.outcome);
    vec![
        words(checks.iter().map(|_| run.id.as_str())),
        words(outcomes().map(|o| o.pipeline.as_str())),
        words(outcomes().map(|o| o.check.as_str())),
        words(outcomes().map(|o| o.severity.as_str())),
        numbers(outcomes().map(|o| o.failures.and_then(|r| i64::try_from(r).ok()))),
        words(outcomes().map(|o| o.status.as_str())),
        moments(checks.iter().map(|c| c.checked_at)),
        Arc::new(outcomes().map(|o| o.error.as_deref()).collect::<StringArray>()),
        words(checks.iter().map(|c| c.sql_digest.as_str())),
    ]
}

/// Of each model that ever succeeded, the last time.
pub(super) async fn last_runs(session: &Session) -> Result<HashMap<String, LastRun>, SqlError> {
    let sql = format!(
        "SELECT model, as_of, log_offset, sql_digest, table_commit, began_at, finished_at FROM (
            SELECT *, min(started_at) OVER (PARTITION BY run_id) AS began_at,
                row_number() OVER (PARTITION BY model ORDER BY finished_at DESC, run_id DESC) AS from_last
            FROM {RUNS} WHERE status = 'succeeded'
        ) WHERE from_last = 1"
    );
    let mut runs = HashMap::new();
    for batch in session.query(&sql).await?.collect().await? {
        let (models, digests) = (batch.column(0).as_string::<i32>(), batch.column(3).as_string::<i32>());
        let time = |column: usize, row: usize| {
            Micros(batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row))
        };
        let number =
            |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().iter().nth(row).flatten();
        for row in 0..batch.num_rows() {
            let run = LastRun {
                as_of: time(1, row),
                began_at: time(5, row),
                finished_at: time(6, row),
                log_offset: number(2, row),
                sql_digest: digests.value(row).to_owned(),
                table_commit: number(4, row),
            };
            runs.insert(models.value(row).to_owned(), run);
        }
    }
    Ok(runs)
}

/// What each check, by its pipeline's name and its own, said when it last looked, in a run of business time `as_of` or of its
/// own present. One that was skipped did not look.
pub(super) async fn last_checks(
    session: &Session,
    as_of: Micros,
) -> Result<BTreeMap<(String, String), LastCheck>, SqlError> {
    let as_of = format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", as_of.0);
    let present = format!("INTERVAL '{PRESENT} microseconds'");
    let sql = format!(
        "SELECT * FROM (
            SELECT *, status = 'succeeded' AS passed,
                row_number() OVER (PARTITION BY pipeline, check_name ORDER BY checked_at DESC, run_id DESC) AS from_last
            FROM {CHECKS} WHERE status <> 'skipped' AND run_id NOT IN (
                SELECT run_id FROM {RUNS} WHERE as_of <> {as_of} GROUP BY run_id
                HAVING max(log_offset) IS NULL
                    OR min(started_at) NOT BETWEEN min(as_of) - {present} AND min(as_of) + {present}
            )
        ) WHERE from_last = 1"
    );
    let mut checks = BTreeMap::new();
    for batch in session.query(&sql).await?.collect().await? {
        // By name: a table that an earlier build made may lack the digest.
        let column = |name: &str| batch.column_by_name(name);
        let text = |name: &str, row: usize| {
            let texts = column(name)?.as_string_opt::<i32>()?;
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        let passed = column("passed").and_then(|c| c.as_boolean_opt());
        let times = column("checked_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let Some((passed, times)) = passed.zip(times) else { continue };
        for row in 0..batch.num_rows() {
            let Some(name) = text("pipeline", row).zip(text("check_name", row)) else { continue };
            let (passed, checked_at) = (passed.value(row), Micros(times.value(row)));
            checks.insert(name, LastCheck { passed, checked_at, sql_digest: text("sql_digest", row) });
        }
    }
    Ok(checks)
}

/// Empty stand-ins for the tables of this module that were never written, so that a query may name them all the same.
pub(super) fn stand_ins(is_stored: impl Fn(&str) -> bool) -> Vec<View> {
    [(RUNS, &RUNS_SCHEMA), (CHECKS, &CHECKS_SCHEMA)]
        .into_iter()
        .filter(|(name, _)| !is_stored(name))
        .map(|(name, schema)| View { name: name.to_owned(), sql: nothing_of(schema) })
        .collect()
}

fn nothing_of(schema: &Schema) -> String {
    let column = |f: &Arc<Field>| {
        let (cast, name) = match f.data_type() {
            DataType::Int64 => ("CAST(NULL AS BIGINT)", f.name()),
            DataType::Timestamp(..) => ("arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"UTC\"))')", f.name()),
            _ => ("CAST(NULL AS VARCHAR)", f.name()),
        };
        format!("{cast} AS {name}")
    };
    format!("SELECT {} WHERE false", schema.fields().iter().map(column).collect::<Vec<_>>().join(", "))
}

/// Runs of one process stand in a queue, so nobody else counts these commits up.
async fn append(lake: &Lake, table: &str, schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<(), RunError> {
    let rows = RecordBatch::try_new(Arc::clone(schema), columns);
    let rows = rows.map_err(|e: ArrowError| RunError::Record(format!("{table}: {e}")))?;
    if rows.num_rows() == 0 {
        return Ok(());
    }
    if lake.append(table, Arc::clone(schema), &[], vec![rows], next_commit(lake, table)).await? {
        return Ok(());
    }
    Err(RunError::Record(format!("{table}: another run wrote at the same time")))
}

/// The number of a table's last commit by a run.
pub(super) fn last_commit(lake: &Lake, table: &str) -> Option<i64> {
    lake.position(table, STAGE)
}

pub(super) fn next_commit(lake: &Lake, table: &str) -> Position<'static> {
    Position { stage: STAGE, version: last_commit(lake, table).map_or(0, |v| v + 1) }
}

fn words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn moments(values: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(|v| v.0)).with_timezone("UTC"))
}
