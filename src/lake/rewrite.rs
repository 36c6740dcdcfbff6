//! Rows that must not stay as they are: their files are written anew, and go at once.
//!
//! A file without such a row is only read. It runs beside appends and instead of upkeep, so that no merge carries a row on
//! that is being replaced.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::error::{LakeError, Result};
use super::files::{self, off_the_runtime};
use super::state::{DataFile, TableState};
use super::table::Table;
use super::upkeep::{exchange, rows_of};

/// What becomes of a batch, and how many of its rows are others then; `None` where all of them stay. It gives as many rows of
/// the same columns, and always the same for the same.
pub type Edit = Arc<dyn Fn(&RecordBatch) -> std::result::Result<Option<(RecordBatch, u64)>, ArrowError> + Send + Sync>;

/// Returns how many rows are others now.
pub(super) async fn rewrite(table: &Table, edit: &Edit) -> Result<u64> {
    let Some(state) = table.state() else { return Ok(0) };
    let mut changed = 0;
    for file in &state.files {
        let rows = count(table, rows_of(&table.name, state.clone(), vec![file.clone()]).await?, edit.clone()).await?;
        if rows > 0 {
            write_anew(table, &state, file, edit.clone()).await?;
        }
        changed += rows;
    }
    Ok(changed)
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

async fn write_anew(table: &Table, state: &Arc<TableState>, file: &Arc<DataFile>, edit: Edit) -> Result<()> {
    let rows = rows_of(&table.name, state.clone(), vec![file.clone()]).await?;
    let schema = rows.schema();
    let edited = rows.map(move |batch| {
        let batch = batch?;
        Ok::<_, DataFusionError>(edit(&batch)?.map_or(batch, |(edited, _)| edited))
    });
    let edited: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, edited));
    let added = files::write_stream(&table.name, &table.log, &state.layout, edited).await?;
    match exchange(table, vec![file.clone()], added).await? {
        true => Ok(()),
        // Only a rebuild takes files away meanwhile, and nobody runs one beside this.
        false => Err(LakeError::Contended { table: table.name.to_string(), attempts: 1 }),
    }
}

fn unreadable(table: &str, error: DataFusionError) -> LakeError {
    LakeError::Rows { table: table.to_owned(), source: error.into() }
}
