//! Changes laid into the base: the files that hold a changed object are written again, then the changes are cleared.
//!
//! ```text
//!  changes C, base B ──► rows of the touched files of B without C's objects, and C's newest rows
//!                            │ commit to the base: touched files out, new ones in
//!                            └──► commit to the changes: the files of C out
//! ```
//!
//! It runs beside appends: both commits take out only the files that were read, so what came meanwhile stays where it
//! is. Before the first commit nothing is changed; between the two the changes say what the base already says. Files
//! without a changed object are left alone, so that a refund after a month costs its own file and not all of history.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::col;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::error::{LakeError, Result};
use super::files;
use super::log::Purpose;
use super::overlay::{changes_of, laid_over, newest};
use super::provider::Scan;
use super::state::{Change, DataFile, TableState};
use super::table::Table;
use super::{Lake, appended_layout, change, schema};

/// An object as its key columns name it.
type Key = (bool, String);

impl Lake {
    /// Lays what `table`'s changes say by now into its base, new files sorted by `order`. Objects are told apart by
    /// `livemode` and `key`. False when there was nothing to do, or when another rewrite came first.
    pub async fn fold_in(&self, table: &str, schema: SchemaRef, key: &str, order: &str) -> Result<bool> {
        // Merging would take away the files that are read here.
        let _only = self.0.upkeep.lock().await;
        let Some(changes) = self.find(&changes_of(table)) else { return Ok(false) };
        let base = self.find_or_make(table)?;
        // In this order: whatever has changed by now was in the base before it changed.
        let Some(changed) = changes.state().filter(|state| !state.files.is_empty()) else { return Ok(false) };
        let held = base.state();
        let touched = match &held {
            Some(held) => touched(&base.name, held.clone(), changed.clone(), key).await?,
            None => Vec::new(),
        };
        let stored = schema::stored(table, &schema)?;
        let layout = appended_layout(&base.name, held.as_deref(), &stored, &[])?;
        let rows = laid_in(held, &touched, changed.clone(), (key, order), &schema).await;
        let rows = rows.map_err(|e| unread(table, e))?;
        let added = files::write_stream(&base.name, &base.log, &layout, rows).await?;
        let laid = base
            .turn()
            .await
            .commit(Purpose::Replace, &added, |current| {
                if !holds(current, &touched) {
                    return Ok(None);
                }
                let layout = appended_layout(&base.name, current, &stored, &[])?;
                change(&base.name, current, layout, touched.clone(), &added, None).map(Some)
            })
            .await?;
        Ok(laid && clear(&changes, &changed.files).await?)
    }
}

/// Takes the files that are in the base by now out of the changes.
async fn clear(changes: &Table, folded: &[Arc<DataFile>]) -> Result<bool> {
    let removed = |current: Option<&TableState>| {
        Ok(holds(current, folded).then(|| Change { removed: folded.to_vec(), ..Change::default() }))
    };
    changes.turn().await.commit(Purpose::Replace, &[], removed).await
}

fn holds(current: Option<&TableState>, files: &[Arc<DataFile>]) -> bool {
    let here: HashSet<&str> = current.iter().flat_map(|c| c.files.iter()).map(|f| f.add.path.as_str()).collect();
    files.iter().all(|f| here.contains(f.add.path.as_str()))
}

async fn laid_in(
    base: Option<Arc<TableState>>,
    touched: &[Arc<DataFile>],
    changed: Arc<TableState>,
    (key, order): (&str, &str),
    schema: &SchemaRef,
) -> PlanResult<SendableRecordBatchStream> {
    let newer = Arc::new(Scan::new(changed));
    let plan = match base.filter(|_| !touched.is_empty()) {
        Some(base) => laid_over(Arc::new(Scan::of_files(base, touched.to_vec())), newer, key, schema)?,
        None => newest(newer, key, schema)?,
    };
    let plan = plan.sort([col(order).sort(true, true)])?.build()?;
    SessionContext::new().execute_logical_plan(plan).await?.execute_stream().await
}

/// The files of the base that hold an object of `changed`.
async fn touched(
    table: &Arc<str>,
    base: Arc<TableState>,
    changed: Arc<TableState>,
    key: &str,
) -> Result<Vec<Arc<DataFile>>> {
    let (name, key) = (table.clone(), key.to_owned());
    files::off_the_runtime(table.clone(), async move {
        let failed = |e| unread(&name, e);
        let mut objects = HashSet::new();
        let mut rows = keys(Scan::new(changed), &key).await.map_err(failed)?;
        while let Some(batch) = rows.next().await {
            objects.extend(keys_of(&batch.map_err(failed)?));
        }
        let mut touched = Vec::new();
        for file in &base.files {
            let one = Scan::of_files(base.clone(), vec![file.clone()]);
            let mut rows = keys(one, &key).await.map_err(failed)?;
            while let Some(batch) = rows.next().await {
                if keys_of(&batch.map_err(failed)?).any(|object| objects.contains(&object)) {
                    touched.push(file.clone());
                    break;
                }
            }
        }
        Ok(touched)
    })
    .await
}

async fn keys(scan: Scan, key: &str) -> PlanResult<SendableRecordBatchStream> {
    let rows = SessionContext::new().read_table(Arc::new(scan))?;
    rows.select_columns(&["livemode", key])?.execute_stream().await
}

/// Keys are never null: every row is one object's.
fn keys_of(batch: &RecordBatch) -> impl Iterator<Item = Key> + '_ {
    let live = batch.column(0).as_boolean_opt();
    let keys = batch.column(1).as_string_opt::<i32>();
    live.into_iter()
        .zip(keys)
        .flat_map(|(live, keys)| live.iter().zip(keys.iter()).filter_map(|(live, key)| Some((live?, key?.to_owned()))))
}

fn unread(table: &str, error: DataFusionError) -> LakeError {
    LakeError::Rows { table: table.to_owned(), source: Box::new(error) }
}
