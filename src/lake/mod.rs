//! The tables: Delta tables in a directory, `<root>/<schema>/<table>`. The only place that names deltalake.
//!
//! What always holds: what a call has answered survives a power cut; rows are appended exactly once for each position of
//! each stage, whatever is repeated or killed; a snapshot never changes. One process owns the directory. Appends to
//! different tables may run at the same time, writes to one table queue up. Nothing written is seen by readers of
//! [`Lake::snapshot`] until [`Lake::publish`], which also shows what its stage holds in memory ([`Tail`]).
//!
//! It looks into no row but for the key of a change that it folds in, never decides what is stored where, and knows nothing of the log of events.

mod durable;
mod error;
mod files;
mod fold_in;
mod log;
mod open;
pub mod overlay;
mod provider;
mod prune;
mod rewrite;
mod schema;
mod snapshot;
mod state;
mod stats;
mod table;
mod tail;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use deltalake_core::kernel::Add;

pub use error::LakeError;
pub use overlay::changes_of;
pub use rewrite::Edit;
pub use snapshot::{Damaged, Inspected, Snapshot};
pub use tail::Tail;
pub use upkeep::{Maintained, Upkeep};

use durable::Fate;
use error::Result;
use log::Purpose;
use state::{Change, Layout, TableState};
use table::Table;

/// How far a stage has come: `version` is the last offset whose rows are in the table. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position<'a> {
    pub stage: &'a str,
    pub version: i64,
}

/// The whole new content of a table.
pub enum Rows {
    Batches(Vec<RecordBatch>),
    /// Read as it is written, so it may be larger than memory.
    Stream(SendableRecordBatchStream),
}

impl From<Vec<RecordBatch>> for Rows {
    fn from(batches: Vec<RecordBatch>) -> Rows {
        Rows::Batches(batches)
    }
}

impl From<SendableRecordBatchStream> for Rows {
    fn from(stream: SendableRecordBatchStream) -> Rows {
        Rows::Stream(stream)
    }
}

/// The tables of one data directory. Clones are the same lake.
#[derive(Clone)]
pub struct Lake(Arc<Inner>);

struct Inner {
    root: PathBuf,
    tables: RwLock<BTreeMap<Arc<str>, Arc<Table>>>,
    published: ArcSwap<Snapshot>,
    /// What readers see beside the files; held while a snapshot is published.
    tail: Mutex<Tail>,
    fate: Fate,
    /// Held while upkeep runs: two at once would merge the same files.
    upkeep: tokio::sync::Mutex<()>,
}

impl Lake {
    /// Opens the tables below `root`, which is made when it is missing, and publishes them.
    ///
    /// What an earlier process left half-done is cleared away: files that were being written, tables that were being
    /// removed. A table whose log cannot be read is an error that names it.
    pub async fn open(root: &Path) -> Result<Lake> {
        let root = open::root(root).await?;
        let fate = Fate::default();
        let tables = open::tables(&root, &fate).await?;
        let lake = Lake(Arc::new(Inner {
            root,
            tables: RwLock::new(tables),
            published: ArcSwap::default(),
            tail: Mutex::default(),
            fate,
            upkeep: tokio::sync::Mutex::new(()),
        }));
        lake.publish();
        Ok(lake)
    }

    /// The tables as last published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.published.load_full()
    }

    /// Makes everything committed so far visible, as one new snapshot, with what is in the tail beside it.
    pub fn publish(&self) {
        // One at a time, so that an older view never replaces a newer one.
        let tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.published.store(Arc::new(Snapshot::of(self.states(), &tail)));
    }

    /// The same with `new` in place of what of `old` is in the tail. What is new and has a column that its table lacks is not seen
    /// before it is committed.
    pub fn replace_in_tail(&self, old: &Tail, new: Tail) {
        let mut held = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = std::mem::take(&mut *held).without(old);
        let fits = new.fits(&self.states().map(|state| (state.name.clone(), state)).collect());
        *held = if fits { new.and(&rest) } else { rest };
        self.0.published.store(Arc::new(Snapshot::of(self.states(), &held)));
    }

    /// The same with another tail; false, and nothing is changed, where a table lacks a column that the tail has.
    pub fn publish_with(&self, tail: Tail) -> bool {
        let mut held = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if !tail.fits(&self.states().map(|state| (state.name.clone(), state)).collect()) {
            return false;
        }
        *held = tail;
        self.0.published.store(Arc::new(Snapshot::of(self.states(), &held)));
        true
    }

    /// Why nothing more is written until a restart, where that is so.
    pub fn broken(&self) -> Option<LakeError> {
        self.0.fate.broken().map(|why| LakeError::Broken(why.to_owned()))
    }

    /// How far `stage` has come in `table`, by the newest commit, published or not.
    pub fn position(&self, table: &str, stage: &str) -> Option<i64> {
        self.find(table)?.state()?.position(stage)
    }

    /// Adds rows, and moves `at.stage` to `at.version`, in one commit. False when the table has come that far already:
    /// then nothing was written.
    ///
    /// Makes the table when there is none; `partition_by` counts only then. `schema` is that of `batches`; columns that the
    /// table lacks are added to it, columns that the rows lack are null. Batches may be few or none, the position moves all
    /// the same.
    pub async fn append(
        &self,
        table: &str,
        schema: SchemaRef,
        partition_by: &[&str],
        batches: Vec<RecordBatch>,
        at: Position<'_>,
    ) -> Result<bool> {
        let schema = schema::stored(table, &schema)?;
        let table = self.find_or_make(table)?;
        let turn = table.turn().await;
        let current = table.state();
        if has_come(current.as_deref(), at) {
            return Ok(false);
        }
        let partition_by: Vec<String> = partition_by.iter().map(|c| (*c).to_owned()).collect();
        let layout = appended_layout(&table.name, current.as_deref(), &schema, &partition_by)?;
        let added = files::write(&table.name, &table.log, &layout, batches).await?;
        turn.commit(Purpose::Append, &added, |current| {
            if has_come(current, at) {
                return Ok(None);
            }
            let layout = appended_layout(&table.name, current, &schema, &partition_by)?;
            change(&table.name, current, layout, Vec::new(), &added, Some(at)).map(Some)
        })
        .await
    }

    /// Makes `rows` the table's whole content, in one commit; returns how many rows it then has. Columns and their types
    /// may change. No rows leave an empty table. With a position that the table has reached already nothing is written.
    ///
    /// A table stays partitioned by what it was, where the new columns still have it.
    pub async fn replace(
        &self,
        table: &str,
        schema: SchemaRef,
        rows: impl Into<Rows>,
        at: Option<Position<'_>>,
    ) -> Result<u64> {
        let schema = schema::stored(table, &schema)?;
        let table = self.find_or_make(table)?;
        let turn = table.turn().await;
        let current = table.state();
        if let (Some(at), Some(current)) = (at, current.as_deref())
            && has_come(Some(current), at)
        {
            return Ok(current.rows());
        }
        let layout = replaced_layout(&table.name, current.as_deref(), &schema)?;
        let added = match rows.into() {
            Rows::Batches(batches) => files::write(&table.name, &table.log, &layout, batches).await?,
            Rows::Stream(stream) => files::write_stream(&table.name, &table.log, &layout, stream).await?,
        };
        turn.commit(Purpose::Replace, &added, |current| {
            if at.is_some_and(|at| has_come(current, at)) {
                return Ok(None);
            }
            let removed = current.map(|c| c.files.clone()).unwrap_or_default();
            change(&table.name, current, layout.clone(), removed, &added, at).map(Some)
        })
        .await?;
        Ok(table.state().map_or(0, |state| state.rows()))
    }

    /// Checkpoints logs, merges small files, and deletes what is no longer needed, as [`Upkeep::default`] says.
    pub async fn maintain(&self) -> Result<Maintained> {
        self.maintain_with(&Upkeep::default()).await
    }

    /// Upkeep beside running appends: it holds a table's queue only for the moment of a commit or a deletion. A table that
    /// fails does not keep the others from theirs; the first failure is what is returned.
    pub async fn maintain_with(&self, upkeep: &Upkeep) -> Result<Maintained> {
        let _only = self.0.upkeep.lock().await;
        let mut done = Maintained::default();
        let mut failed = None;
        for table in self.all() {
            if let Err(error) = upkeep::maintain(&table, upkeep, &mut done).await {
                match &failed {
                    None => failed = Some(error),
                    Some(_) => tracing::error!("upkeep of one more table failed: {error}"),
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }

    /// Writes the files anew that hold rows which `edit` changes, and leaves nothing of what they were. Returns how many rows
    /// are others. Queries that are running may fail by it.
    pub async fn rewrite(&self, table: &str, edit: &Edit) -> Result<u64> {
        let Some(found) = self.find(table) else { return Ok(0) };
        let changed = rewrite::rewrite(&found, edit, &self.0.upkeep).await?;
        self.sweep(table).await?;
        Ok(changed)
    }

    /// Leaves nothing of a table but what it is now: neither files nor, of its log, commits before. Queries that are running may
    /// fail by it.
    pub async fn sweep(&self, table: &str) -> Result<()> {
        let _only = self.0.upkeep.lock().await;
        self.publish();
        match self.find(table) {
            Some(table) => upkeep::sweep(&table).await,
            None => Ok(()),
        }
    }

    fn states(&self) -> impl Iterator<Item = Arc<TableState>> {
        self.all().into_iter().filter_map(|table| table.state())
    }

    /// Keeps upkeep from beginning, once any that runs is over, for as long as what this gives lives.
    pub async fn still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.upkeep.lock().await
    }

    fn all(&self) -> Vec<Arc<Table>> {
        self.0.tables.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn find(&self, table: &str) -> Option<Arc<Table>> {
        self.0.tables.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    fn find_or_make(&self, name: &str) -> Result<Arc<Table>> {
        if let Some(table) = self.find(name) {
            return Ok(table);
        }
        // The lock is held while directories are made: none is used before its own name is synced.
        let mut tables = self.0.tables.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(table.clone());
        }
        let table = open::make(&self.0.root, name, &self.0.fate)?;
        tables.insert(table.name.clone(), table.clone());
        Ok(table)
    }
}

fn has_come(current: Option<&TableState>, at: Position<'_>) -> bool {
    current.and_then(|c| c.position(at.stage)).is_some_and(|reached| reached >= at.version)
}

/// The layout after rows of `schema` were appended: the table's own, with what it lacks.
fn appended_layout(
    table: &str,
    current: Option<&TableState>,
    schema: &SchemaRef,
    partition_by: &[String],
) -> Result<Arc<Layout>> {
    let Some(current) = current else { return Layout::new(table, schema.clone(), partition_by).map(Arc::new) };
    match schema::grown(table, &current.layout.schema, schema)? {
        Some(grown) => Layout::new(table, grown, &current.layout.partition_by).map(Arc::new),
        None => Ok(current.layout.clone()),
    }
}

fn replaced_layout(table: &str, current: Option<&TableState>, schema: &SchemaRef) -> Result<Arc<Layout>> {
    let Some(current) = current else { return Layout::new(table, schema.clone(), &[]).map(Arc::new) };
    if current.layout.schema == *schema {
        return Ok(current.layout.clone());
    }
    let partitioned = &current.layout.partition_by;
    let kept = partitioned.iter().all(|c| schema.column_with_name(c).is_some());
    Layout::new(table, schema.clone(), if kept { partitioned } else { &[] }).map(Arc::new)
}

/// The change that gives the table `layout`, these files, and this position.
fn change(
    table: &str,
    current: Option<&TableState>,
    layout: Arc<Layout>,
    removed: Vec<Arc<state::DataFile>>,
    added: &[Add],
    at: Option<Position<'_>>,
) -> Result<Change> {
    let mut described = match current {
        Some(current) if Arc::ptr_eq(&current.layout, &layout) => None,
        current => Some(log::describe(table, &layout, current.map(|c| &c.metadata))?),
    };
    if let Some(at) = at
        && let Some(metadata) = described.as_ref().or(current.map(|c| &c.metadata))
        && let Some(with_stage) = log::with_stage(table, metadata, at.stage)?
    {
        described = Some(with_stage);
    }
    Ok(Change {
        described: described.map(|metadata| (metadata, layout)),
        removed,
        added: added.to_vec(),
        position: at.map(|at| (at.stage.to_owned(), at.version)),
    })
}
