//! Changes laid into the base: the files that hold a changed object are written again, then the changes are cleared.
//!
//! ```text
//!  changes C, base B ──► rows of the touched files of B, with C's newest in the places of C's objects; then what is new in C
//!                            │ commit to the base: touched files out, new ones in
//!                            └──► commit to the changes: the files of C out
//! ```
//!
//! It runs beside appends: both commits take out only the files that were read, so what came meanwhile stays where it
//! is. Before the first commit nothing is changed; between the two the changes say what the base already says. Files
//! without a changed object are left alone, so that a refund after a month costs its own file and not all of history.
//!
//! In memory are the changes, and of the base one row group or a handful of small files at a time.

use std::collections::HashSet;
use std::sync::Arc;

use ahash::HashMap;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{interleave, interleave_record_batch, sort_to_indices};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result as PlanResult, exec_datafusion_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::kernel::Add;
use futures::{StreamExt, TryStreamExt};

use super::error::{LakeError, Result};
use super::files::{self, Place};
use super::log::Purpose;
use super::overlay::{changes_of, columns, newest, scan};
use super::provider::Scan;
use super::state::{Change, DataFile, Layout, TableState};
use super::table::Table;
use super::{Lake, appended_layout, change, schema};

/// Touched files of so many bytes together are written as one that is sorted. What is larger keeps the order of its rows, as
/// sorting would hold all of it.
const SORTED: u64 = 16 << 20;

/// An object as its key columns name it.
type Key<'a> = (bool, &'a str);

impl Lake {
    /// Lays what `table`'s changes say by now into its base, small files sorted by `order`. Objects are told apart by
    /// `livemode` and `key`. False when there was nothing to do, or when another rewrite came first.
    pub async fn fold_in(&self, table: &str, schema: SchemaRef, key: &str, order: &str) -> Result<bool> {
        self.fold_in_sorting(table, schema, key, order, SORTED).await
    }

    async fn fold_in_sorting(
        &self,
        table: &str,
        schema: SchemaRef,
        key: &str,
        order: &str,
        sorted_up_to: u64,
    ) -> Result<bool> {
        // Merging would take away the files that are read here.
        let _only = self.0.upkeep.lock().await;
        let Some(changes) = self.find(&changes_of(table)) else { return Ok(false) };
        let base = self.find_or_make(table)?;
        // In this order: whatever has changed by now was in the base before it changed.
        let Some(changed) = changes.state().filter(|state| !state.files.is_empty()) else { return Ok(false) };
        let held = base.state();
        let stored = schema::stored(table, &schema)?;
        let layout = appended_layout(&base.name, held.as_deref(), &stored, &[])?;
        let (key, order, folded) = (key.to_owned(), order.to_owned(), changed.files.clone());
        // Rows are decoded, compared and sorted, which takes its time.
        let (touched, added) = files::off_the_runtime(base.name.clone(), {
            let (table, schema) = (base.clone(), stored.clone());
            async move {
                let newest = Newest::of(changed, &key, &schema).await.map_err(|e| unread(&table.name, e))?;
                Rewrite { table, held, layout, newest, schema, order, sorted_up_to }.write().await
            }
        })
        .await?;
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
        Ok(laid && clear(&changes, &folded).await?)
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

/// The newest version of every object that has changed.
struct Newest {
    /// As they were read: one batch of them all would be all of it twice.
    rows: Arc<[RecordBatch]>,
    /// Of each id, in test mode and in live mode.
    places: HashMap<String, [Option<Place>; 2]>,
    key: String,
}

impl Newest {
    async fn of(changed: Arc<TableState>, key: &str, schema: &SchemaRef) -> PlanResult<Newest> {
        let plan = newest(Arc::new(Scan::new(changed)), key, schema)?.build()?;
        let rows: Arc<[RecordBatch]> = execute(plan).await?.try_collect::<Vec<_>>().await?.into();
        let mut places: HashMap<String, [Option<Place>; 2]> = HashMap::default();
        for (batch, rows) in rows.iter().enumerate() {
            for (row, (livemode, id)) in keys_of(rows, key)?.into_iter().enumerate() {
                places.entry(id.to_owned()).or_default()[usize::from(livemode)] = Some((batch, row));
            }
        }
        Ok(Newest { rows, places, key: key.to_owned() })
    }

    fn place(&self, (livemode, id): &Key<'_>) -> Option<Place> {
        self.places.get(*id)?[usize::from(*livemode)]
    }

    /// `batch`, each row that has a newer version replaced by it.
    fn laid_over(&self, batch: RecordBatch) -> PlanResult<RecordBatch> {
        let newer: Vec<Option<Place>> = keys_of(&batch, &self.key)?.iter().map(|key| self.place(key)).collect();
        if newer.iter().all(Option::is_none) {
            return Ok(batch);
        }
        let all: Vec<&RecordBatch> = std::iter::once(&batch).chain(self.rows.iter()).collect();
        let place = |(row, newer): (usize, &Option<Place>)| newer.map_or((0, row), |(batch, row)| (1 + batch, row));
        Ok(interleave_record_batch(&all, &newer.iter().enumerate().map(place).collect::<Vec<_>>())?)
    }

    /// Of the objects that are not `known`.
    fn unknown(&self, known: &HashSet<Place>) -> Vec<Place> {
        all(&self.rows).filter(|place| !known.contains(place)).collect()
    }
}

/// The place of every row.
fn all(batches: &[RecordBatch]) -> impl Iterator<Item = Place> {
    batches.iter().enumerate().flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
}

/// New files for those that hold a changed object, and for what is new.
struct Rewrite {
    table: Arc<Table>,
    held: Option<Arc<TableState>>,
    layout: Arc<Layout>,
    newest: Newest,
    /// As it is stored.
    schema: SchemaRef,
    order: String,
    /// See [`SORTED`].
    sorted_up_to: u64,
}

impl Rewrite {
    /// The files of the base that new ones take the place of, and those.
    async fn write(self) -> Result<(Vec<Arc<DataFile>>, Vec<Add>)> {
        let (mut touched, mut known, mut added) = (Vec::new(), HashSet::new(), Vec::new());
        let this = Arc::new(self);
        if let Some(held) = &this.held {
            (touched, known) = this.touched(held).await?;
            for group in groups(&touched, this.sorted_up_to) {
                added.extend(this.clone().group(held, group).await?);
            }
        }
        let new = this.newest.unknown(&known);
        added.extend(this.write_sorted(this.newest.rows.clone(), new).await?);
        Ok((touched, added))
    }

    /// The files of the base that hold a changed object, and the places of those objects among the newest.
    async fn touched(&self, held: &Arc<TableState>) -> Result<(Vec<Arc<DataFile>>, HashSet<Place>)> {
        let (mut touched, mut known) = (Vec::new(), HashSet::new());
        for file in &held.files {
            let one = Scan::of_files(held.clone(), vec![file.clone()]);
            let found = self.known(one).await.map_err(|e| self.unread(e))?;
            if !found.is_empty() {
                touched.push(file.clone());
                known.extend(found);
            }
        }
        Ok((touched, known))
    }

    /// Which of the newest are versions of objects in `rows`.
    async fn known(&self, rows: Scan) -> PlanResult<Vec<Place>> {
        let rows = SessionContext::new().read_table(Arc::new(rows))?;
        let mut keys = rows.select_columns(&["livemode", &self.newest.key])?.execute_stream().await?;
        let mut known = Vec::new();
        while let Some(batch) = keys.try_next().await? {
            known.extend(keys_of(&batch, &self.newest.key)?.iter().filter_map(|key| self.newest.place(key)));
        }
        Ok(known)
    }

    async fn group(self: Arc<Self>, held: &Arc<TableState>, group: &[Arc<DataFile>]) -> Result<Vec<Add>> {
        let base = Arc::new(Scan::of_files(held.clone(), group.to_vec()));
        let read = async {
            let columns = columns("base", &self.schema, &base.schema());
            execute(scan("base", base)?.project(columns)?.build()?).await
        };
        let rows = read.await.map_err(|e| self.unread(e))?;
        let this = self.clone();
        let rows = rows.map(move |batch| this.newest.laid_over(batch?));
        if bytes(group) > self.sorted_up_to {
            let rows = Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows));
            return files::write_stream(&self.table.name, &self.table.log, &self.layout, rows).await;
        }
        let rows: Vec<RecordBatch> = rows.try_collect().await.map_err(|e| self.unread(e))?;
        let places = all(&rows).collect();
        self.write_sorted(rows.into(), places).await
    }

    /// The rows at `places`.
    async fn write_sorted(&self, rows: Arc<[RecordBatch]>, places: Vec<Place>) -> Result<Vec<Add>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = || {
            let at = self.schema.index_of(&self.order)?;
            let columns: Vec<&dyn Array> = rows.iter().map(|batch| batch.column(at).as_ref()).collect();
            let order = sort_to_indices(&interleave(&columns, &places)?, None, None)?;
            Ok(order.values().iter().filter_map(|place| places.get(*place as usize).copied()).collect())
        };
        let sorted = sorted().map_err(|e: ArrowError| self.unread(e.into()))?;
        files::write_at(&self.table.name, &self.table.log, &self.layout, rows, sorted).await
    }

    fn unread(&self, error: DataFusionError) -> LakeError {
        unread(&self.table.name, error)
    }
}

/// Neighbours that are small together, of at most `most` bytes; each larger file by itself.
fn groups(touched: &[Arc<DataFile>], most: u64) -> Vec<&[Arc<DataFile>]> {
    let mut groups = Vec::new();
    let mut rest = touched;
    while !rest.is_empty() {
        let fits = |n: &usize| bytes(&rest[..*n]) <= most;
        let n = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
        let (group, others) = rest.split_at(n);
        groups.push(group);
        rest = others;
    }
    groups
}

fn bytes(files: &[Arc<DataFile>]) -> u64 {
    files.iter().map(|file| file.size).sum()
}

/// In the order in which the plan reads.
async fn execute(plan: LogicalPlan) -> PlanResult<SendableRecordBatchStream> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    session.execute_logical_plan(plan).await?.execute_stream().await
}

/// Of each row, in their order.
fn keys_of<'a>(batch: &'a RecordBatch, key: &str) -> PlanResult<Vec<Key<'a>>> {
    let live = batch.column_by_name("livemode").and_then(|c| c.as_boolean_opt());
    let keys = batch.column_by_name(key).and_then(|c| c.as_string_opt::<i32>());
    let all = live.zip(keys).and_then(|(live, keys)| {
        live.iter().zip(keys.iter()).map(|(live, key)| Some((live?, key?))).collect::<Option<Vec<Key>>>()
    });
    all.ok_or_else(|| exec_datafusion_err!("livemode and {key} do not name an object in each row"))
}

fn unread(table: &str, error: DataFusionError) -> LakeError {
    LakeError::Rows { table: table.to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::lake::Position;

    fn schema() -> SchemaRef {
        let field = |name, kind| Field::new(name, kind, false);
        Arc::new(Schema::new(vec![
            field("id", DataType::Utf8),
            field("livemode", DataType::Boolean),
            field("log_offset", DataType::Int64),
            field("at", DataType::Int64),
            field("amount", DataType::Int64),
        ]))
    }

    /// Objects of both worlds under each number; a lower number is of a later time. `columns`: as many as the release had.
    fn versions(numbers: Range<i64>, amount: i64, columns: usize) -> RecordBatch {
        let both: Vec<(i64, bool)> = numbers.flat_map(|n| [(n, true), (n, false)]).collect();
        let count = |of: fn(i64) -> i64| Int64Array::from_iter_values(both.iter().map(|(n, _)| of(*n)));
        let all: [ArrayRef; 5] = [
            Arc::new(StringArray::from_iter_values(both.iter().map(|(n, _)| format!("o_{n}")))),
            Arc::new(BooleanArray::from_iter(both.iter().map(|(_, live)| Some(*live)))),
            Arc::new(Int64Array::from_iter_values(both.iter().map(|_| amount))),
            Arc::new(count(|n| 1_000 - n)),
            Arc::new(Int64Array::from_iter_values(both.iter().map(|(_, live)| if *live { amount } else { -amount }))),
        ];
        let kept: Vec<usize> = (0..columns).collect();
        RecordBatch::try_new(schema(), all.to_vec()).unwrap().project(&kept).unwrap()
    }

    async fn put(lake: &Lake, table: &str, rows: RecordBatch, at: i64) {
        let schema = rows.schema();
        let at = Position { stage: "load", version: at };
        lake.append(table, schema, &[], vec![rows], at).await.unwrap();
    }

    /// Of each row: id, world, time, amount.
    async fn rows(lake: &Lake, table: &str) -> Vec<(String, bool, i64, Option<i64>)> {
        let state = lake.find(table).unwrap().state().unwrap();
        let plan = scan("t", Arc::new(Scan::new(state))).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = execute(plan).await.unwrap().try_collect().await.unwrap();
        let of = |b: &RecordBatch, i: usize| {
            let whole = |name| b.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            let amount = whole("amount");
            let amount = (!arrow::array::Array::is_null(&amount, i)).then(|| amount.value(i));
            (
                b.column(0).as_string::<i32>().value(i).to_owned(),
                b.column(1).as_boolean().value(i),
                whole("at").value(i),
                amount,
            )
        };
        batches.iter().flat_map(|b| (0..b.num_rows()).map(move |i| of(b, i))).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn large_files_keep_their_order_small_ones_get_one_and_what_is_new_comes_after() {
        for sorted in [0, SORTED] {
            let home = tempfile::tempdir().unwrap();
            let lake = Lake::open(home.path()).await.unwrap();
            // The first release knew no amounts.
            put(&lake, "core.o", versions(0..50, 1, 4), 1).await;
            put(&lake, "core.o", versions(50..90, 2, 5), 2).await;
            put(&lake, "core.o", versions(90..95, 3, 5), 3).await;
            for (numbers, amount) in [(10..12, 7), (60..61, 8), (200..202, 9), (11..12, 10)] {
                put(&lake, "core.o_changes", versions(numbers, amount, 5), amount).await;
            }
            let untouched = lake.find("core.o").unwrap().state().unwrap().files[2].add.path.clone();
            assert!(lake.fold_in_sorting("core.o", schema(), "id", "at", sorted).await.unwrap());
            let state = lake.find("core.o").unwrap().state().unwrap();
            assert!(state.files.iter().any(|f| f.add.path == untouched));
            assert_eq!(state.files.len(), if sorted == 0 { 4 } else { 3 }, "each of two files, or both together");

            let amount = |n: i64| match n {
                0..10 | 12..50 => None,
                10 => Some(7),
                11 => Some(10),
                60 => Some(8),
                50..90 => Some(2),
                90..95 => Some(3),
                _ => Some(9),
            };
            let expected = |numbers: &mut dyn Iterator<Item = i64>| -> Vec<_> {
                let both = numbers.flat_map(|n| [(n, true, 1), (n, false, -1)]);
                both.map(|(n, live, sign)| (format!("o_{n}"), live, 1_000 - n, amount(n).map(|a| a * sign))).collect()
            };
            let mut found = rows(&lake, "core.o").await;
            if sorted == 0 {
                let kept = expected(&mut (0..50));
                assert!(found.windows(kept.len()).any(|run| run == kept), "in the order in which they were: {found:?}");
            } else {
                let times: Vec<i64> = found.iter().map(|row| row.2).collect();
                assert!(times.windows(180).any(|run| run.is_sorted()), "{times:?}");
            }
            found.sort();
            let mut all = expected(&mut (0..95).chain(200..202));
            all.sort();
            assert_eq!(found, all);
            assert!(rows(&lake, "core.o_changes").await.is_empty());
        }
    }

    #[test]
    fn rows_that_name_no_object_are_an_error() {
        let batch = versions(0..2, 1, 5);
        assert_eq!(keys_of(&batch, "id").unwrap().len(), 4);
        assert!(keys_of(&batch, "log_offset").is_err());
    }
}
