//! Rows into Parquet files. A written file is no part of its table until a commit names it; one that no commit ever names
//! is swept by upkeep.

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field};
use datafusion::execution::SendableRecordBatchStream;
use deltalake_core::DeltaTableError;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::Add;
use deltalake_core::logstore::LogStoreRef;
use futures::StreamExt;
use futures::future::try_join_all;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::error::{LakeError, Result};
use super::schema::conform;
use super::state::Layout;

/// Large enough that a scan's start costs nothing beside its work, small enough to rewrite.
pub(super) const FULL_FILE: u64 = 128 << 20;

/// A row group is held in memory while it is written, and is the least that a thread reads.
const ROW_GROUP_ROWS: usize = 128 << 10;
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Below this many rows a file is soon merged into another: it is written as cheaply as it can be.
const SMALL: usize = 1000;

/// Rows in memory beyond this are written by several threads, a file each.
const LANE_BYTES: usize = 32 << 20;

/// Columns beyond these carry no statistics in the log.
const INDEXED_COLUMNS: usize = 40;

/// Writes `batches`, each brought into the shape of `layout`.
pub(super) async fn write(
    table: &Arc<str>,
    log: &LogStoreRef,
    layout: &Arc<Layout>,
    batches: Vec<RecordBatch>,
) -> Result<Vec<Add>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        // A batch without rows still has to be one of this table's.
        batches.iter().try_for_each(|batch| conform(table, batch, &layout.schema).map(drop))?;
        return Ok(Vec::new());
    }
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let written = lanes_of(batches, rows.div_ceil(lanes(bytes))).into_iter().map(|lane| {
        let (table, log, layout) = (table.clone(), log.clone(), layout.clone());
        let name = table.clone();
        off_the_runtime(name, async move { write_each(&table, &log, &layout, rows, lane.into_iter().map(Ok)).await })
    });
    Ok(try_join_all(written).await?.into_iter().flatten().collect())
}

/// A batch, and a row of it.
pub(super) type Place = (usize, usize);

/// Rows that are brought together at a time.
const TOGETHER: usize = 8192;

/// Writes the rows of `batches` that stand at `places`, in that order, holding of them no second copy but of a few thousand at a
/// time.
pub(super) async fn write_at(
    table: &Arc<str>,
    log: &LogStoreRef,
    layout: &Arc<Layout>,
    batches: Arc<[RecordBatch]>,
    places: Vec<Place>,
) -> Result<Vec<Add>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let lanes = lanes(bytes / rows.max(1) * places.len());
    let written = places.chunks(places.len().div_ceil(lanes)).map(|lane| {
        let (table, log, layout) = (table.clone(), log.clone(), layout.clone());
        let (name, batches, lane, rows) = (table.clone(), batches.clone(), lane.to_vec(), places.len());
        off_the_runtime(name, async move {
            let batches: Vec<&RecordBatch> = batches.iter().collect();
            let chosen = lane.chunks(TOGETHER).map(|places| {
                interleave_record_batch(&batches, places)
                    .map_err(|e| LakeError::Rows { table: table.to_string(), source: e.into() })
            });
            write_each(&table, &log, &layout, rows, chosen).await
        })
    });
    Ok(try_join_all(written).await?.into_iter().flatten().collect())
}

/// `rows`: of all that is written, beside this too.
async fn write_each(
    table: &str,
    log: &LogStoreRef,
    layout: &Layout,
    rows: usize,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<Vec<Add>> {
    let mut writer = writer(log, layout, rows);
    for batch in batches {
        let batch = conform(table, &batch?, &layout.schema)?;
        writer.write(&batch).await.map_err(|e| writing(table, log, e))?;
    }
    close(table, log, writer).await
}

/// How many threads are to write so much of memory.
fn lanes(bytes: usize) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    (bytes / LANE_BYTES).clamp(1, threads)
}

/// Writes a stream of unknown length, holding no more of it than a row group; also gives the number of rows.
pub(super) async fn write_stream(
    table: &Arc<str>,
    log: &LogStoreRef,
    layout: &Arc<Layout>,
    mut rows: SendableRecordBatchStream,
) -> Result<Vec<Add>> {
    let (table, log, layout) = (table.clone(), log.clone(), layout.clone());
    off_the_runtime(table.clone(), async move {
        let mut writer = writer(&log, &layout, usize::MAX);
        while let Some(batch) = rows.next().await {
            let batch = batch
                .map_err(|e| LakeError::Rows { table: table.to_string(), source: e.into() })
                .and_then(|b| conform(&table, &b, &layout.schema));
            writer.write(&batch?).await.map_err(|e| writing(&table, &log, e))?;
        }
        close(&table, &log, writer).await
    })
    .await
}

/// Batches cut into runs of about `rows` rows, in their order.
fn lanes_of(batches: Vec<RecordBatch>, rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut lanes = vec![Vec::new()];
    let mut room = rows;
    for batch in batches {
        let mut start = 0;
        while start < batch.num_rows() {
            if room == 0 {
                lanes.push(Vec::new());
                room = rows;
            }
            let taken = room.min(batch.num_rows() - start);
            if let Some(lane) = lanes.last_mut() {
                lane.push(batch.slice(start, taken));
            }
            (start, room) = (start + taken, room - taken);
        }
    }
    lanes
}

/// Encoding and compressing would hold up everything else that runs on the runtime's threads.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    table: Arc<str>,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::current();
    let done = spawn_blocking(move || runtime.block_on(work)).await;
    done.map_err(|e| LakeError::Rows { table: table.to_string(), source: e.into() })?
}

/// One that is dropped before it is closed leaves no file but those that were full before: upkeep removes them.
fn writer(log: &LogStoreRef, layout: &Layout, rows: usize) -> DeltaWriter {
    let config = WriterConfig::new(
        layout.schema.clone(),
        layout.partition_by.clone(),
        Some(properties(layout, rows)),
        NonZeroU64::new(FULL_FILE),
        Some(8192),
        Default::default(),
        Some(indexed(layout)),
    );
    DeltaWriter::new(log.object_store(None), config)
}

fn properties(layout: &Layout, rows: usize) -> WriterProperties {
    let small = rows < SMALL;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(if small { EnabledStatistics::Chunk } else { EnabledStatistics::Page });
    for field in layout.scan.file_schema().fields() {
        let column = ColumnPath::from(field.name().as_str());
        if is_payload(field) {
            // Every payload is unique: a dictionary of them is work for nothing, and so is their least and greatest.
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_statistics_enabled(column, EnabledStatistics::None);
        } else if !small && is_identifier(field) {
            properties = properties.set_column_bloom_filter_enabled(column, true);
        }
    }
    properties.build()
}

fn is_payload(field: &Field) -> bool {
    field.name() == "payload"
}

/// Columns that people look single rows up by. `merchant_id` is the same in every row.
fn is_identifier(field: &Field) -> bool {
    let name = field.name();
    *field.data_type() == DataType::Utf8
        && (name.ends_with("_id") || name.ends_with("_hash") || name.ends_with("_ref"))
        && name != "merchant_id"
}

/// The columns with statistics in the log, quoted as SQL identifiers.
fn indexed(layout: &Layout) -> Vec<String> {
    let plain = |t: &DataType| !t.is_nested() && !matches!(t, DataType::Binary);
    let fields = layout.scan.file_schema().fields().iter();
    fields
        .filter(|f| plain(f.data_type()) && !is_payload(f))
        .take(INDEXED_COLUMNS)
        .map(|f| format!("\"{}\"", f.name().replace('"', "\"\"")))
        .collect()
}

async fn close(table: &str, log: &LogStoreRef, writer: DeltaWriter) -> Result<Vec<Add>> {
    writer.close().await.map_err(|e| writing(table, log, e))
}

fn writing(table: &str, log: &LogStoreRef, error: DeltaTableError) -> LakeError {
    let directory = log.root_url().to_file_path().unwrap_or_default();
    LakeError::storage(table, "write files in", &directory, error)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn lanes_keep_every_row_once_and_in_order() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch = |range: std::ops::Range<i64>| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(range))]).unwrap()
        };
        let lanes = lanes_of(vec![batch(0..5), batch(5..5), batch(5..6), batch(6..17)], 6);
        let sizes: Vec<usize> = lanes.iter().map(|l| l.iter().map(RecordBatch::num_rows).sum()).collect();
        assert_eq!(sizes, [6, 6, 5]);
        let values: Vec<i64> = lanes
            .iter()
            .flatten()
            .flat_map(|b| b.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec())
            .collect();
        assert_eq!(values, (0..17).collect::<Vec<_>>());
    }
}
