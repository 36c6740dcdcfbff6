//! Rows that must not stay as they are: their files are written anew, and go at once.
//!
//! A file without such a row is only read. It runs beside appends, and beside upkeep file by file, so that no merge carries a
//! row on that is being replaced.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::sync::Mutex;

use super::error::{LakeError, Result};
use super::files::{self, off_the_runtime};
use super::state::{DataFile, TableState};
use super::table::Table;
use super::upkeep::{exchange, rows_of};

/// What becomes of a batch, and how many of its rows are others then; `None` where all of them stay. It gives as many rows of
/// the same columns, and always the same for the same.
pub type Edit = Arc<dyn Fn(&RecordBatch) -> std::result::Result<Option<(RecordBatch, u64)>, ArrowError> + Send + Sync>;

/// Returns how many rows are others now. Upkeep waits for one file at a time, `only` its lock, so what it merges meanwhile is
/// looked at again.
pub(super) async fn rewrite(table: &Table, edit: &Edit, only: &Mutex<()>) -> Result<u64> {
    let mut changed = 0;
    let mut clean: HashSet<String> = HashSet::new();
    loop {
        let _only = only.lock().await;
        let Some(state) = table.state() else { return Ok(changed) };
        let Some(file) = state.files.iter().find(|file| !clean.contains(&file.add.path)) else { return Ok(changed) };
        let rows = count(table, rows_of(&table.name, state.clone(), vec![file.clone()]).await?, edit.clone()).await?;
        // One that is gone by now is in another, or nowhere.
        if rows == 0 || write_anew(table, &state, file, edit.clone(), &mut clean).await? {
            clean.insert(file.add.path.clone());
            changed += rows;
        }
    }
}

async fn count(table: &Table, mut rows: SendableRecordBatchStream, edit: Edit) -> Result<u64> {
    let name = table.name.clone();
    off_the_runtime(table.name.clone(), async move {
        let mut changed = 0;
        while let Some(batch) = rows.next().await {
            let edited = batch.and_then(|batch| Ok(edit(&batch)?));
            changed += edited.map_err(|e| unreadable(&name, e))?.map_or(0, |(_, rows)| rows);
        }
        Ok(changed)
    })
    .await
}

async fn write_anew(
    table: &Table,
    state: &Arc<TableState>,
    file: &Arc<DataFile>,
    edit: Edit,
    clean: &mut HashSet<String>,
) -> Result<bool> {
    let rows = rows_of(&table.name, state.clone(), vec![file.clone()]).await?;
    let schema = rows.schema();
    let edited = rows.map(move |batch| {
        let batch = batch?;
        Ok::<_, DataFusionError>(edit(&batch)?.map_or(batch, |(edited, _)| edited))
    });
    let edited: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, edited));
    let added = files::write_stream(&table.name, &table.log, &state.layout, edited).await?;
    let written: Vec<String> = added.iter().map(|add| add.path.clone()).collect();
    let exchanged = exchange(table, vec![file.clone()], added).await?;
    clean.extend(written.into_iter().filter(|_| exchanged));
    Ok(exchanged)
}

fn unreadable(table: &str, error: DataFusionError) -> LakeError {
    LakeError::Rows { table: table.to_owned(), source: error.into() }
}
