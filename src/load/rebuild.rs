//! Core tables again from `raw.events`, all of it or the part up to some time or offset.
//!
//! The fold is a function of the set of events, so a smaller set is the past and the whole set is what the tables should
//! hold now. It is done beside the live tables, in a scratch directory; only [`Loader::rebuild`] then puts the result in
//! their place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use arrow::record_batch::RecordBatch;
use datafusion::{
    logical_expr::Expr,
    prelude::{col, lit},
    scalar::ScalarValue,
};
use futures::StreamExt;

use super::{
    LoadError, Loader,
    fold::Folder,
    folded::{self, Folded},
    recall, unreadable,
};
use crate::{
    base::{Logged, Micros, Offset, Progress},
    facts::{self, Decoder, Stamped, Table, raw, replay},
    lake::{self, Lake, Position, Snapshot},
    store::{Store, Vault},
};

/// Rows written at once to a scratch table.
const CHUNK: usize = 50_000;
const STAGE: &str = "refold";
/// In the store from the first table that is replaced until all state is.
pub(super) const REBUILDING: &[u8] = b"rebuilding";

/// Which events count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Until {
    /// What happened before this time.
    pub before: Option<Micros>,
    /// What the log had got before this offset.
    pub offset: Option<Offset>,
}

impl Until {
    /// `None`: all of them count.
    fn condition(self) -> Option<Expr> {
        let time = |before: Micros| lit(ScalarValue::TimestampMicrosecond(Some(before.0), Some("UTC".into())));
        let before = self.before.map(|before| col("occurred_at").lt(time(before)));
        let offset = self.offset.map(|offset| col("log_offset").lt(lit(offset.0 as i64)));
        before.into_iter().chain(offset).reduce(Expr::and)
    }
}

/// Tables and state as the chosen events make them, in a directory that goes with this.
pub struct Refolded {
    pub lake: Lake,
    folder: Folder,
    /// Goes last, when nobody has a file of it open any more.
    _scratch: Scratch,
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} could not be removed: {error}; it holds nothing that is needed", self.0.display());
        }
    }
}

/// Folds the events of `source` that count, in a new directory `scratch`.
pub async fn refold(
    source: &Snapshot,
    until: Until,
    scratch: &Path,
    privacy_key: &[u8],
    (decoder, merchant): (Decoder, &str),
    progress: &dyn Progress,
) -> Result<Refolded, LoadError> {
    let _scratch = Scratch(scratch.to_owned());
    let store = Store::open(&scratch.join("state"))?;
    let folder = Folder::open(&store, Vault::new(&store, privacy_key)?, decoder, merchant)?;
    let lake = Lake::open(&scratch.join("lake")).await?;
    let refolded = Refolded { lake, folder, _scratch };
    progress.begin("Folding raw.events", source.rows(raw::EVENTS), "events");
    refolded.folder.recall_forgotten(source).await?;
    let mut done = 0u64;
    let mut chunk = 0i64;
    if let Some(mut events) = recall::rows(source, raw::EVENTS, &[], until.condition()).await? {
        while let Some(batch) = events.next().await {
            let events = replay::events(&batch.map_err(unreadable)?).map_err(unreadable)?;
            done += events.len() as u64;
            refolded.admit(&store, &events, &mut chunk).await?;
            progress.at(done);
        }
    }
    refolded.write_folded(&mut chunk).await?;
    refolded.lake.publish();
    progress.end(&format!("{done} events"));
    Ok(refolded)
}

impl Refolded {
    async fn admit(&self, store: &Store, events: &[Logged], chunk: &mut i64) -> Result<(), LoadError> {
        let run = tokio::task::block_in_place(|| {
            let mut folded = Folded::default();
            // A retry brings nothing that its event, read by the same decoder, did not.
            let run = self.folder.fold(&mut folded, events, &[])?;
            self.folder.keep_contacts(&run)?;
            let mut batch = store.batch();
            folded.store(&self.folder, false, &mut batch)?;
            batch.commit()?;
            Ok::<_, LoadError>(run)
        })?;
        for (table, changes) in run.appended {
            let rows: Vec<Stamped> = changes.into_iter().map(|c| c.row).collect();
            self.append(table, &rows, chunk).await?;
        }
        Ok(())
    }

    /// The folded tables, from the state that all events led to.
    async fn write_folded(&self, chunk: &mut i64) -> Result<(), LoadError> {
        let mut all = folded::all_rows(&self.folder);
        let mut waiting: BTreeMap<Table, Vec<Stamped>> = BTreeMap::new();
        while let Some((table, rows)) = tokio::task::block_in_place(|| next_chunk(&mut all, &mut waiting))? {
            self.append(table, &rows, chunk).await?;
        }
        Ok(())
    }

    async fn append(&self, table: Table, rows: &[Stamped], chunk: &mut i64) -> Result<(), LoadError> {
        if rows.is_empty() {
            return Ok(());
        }
        *chunk += 1;
        let made = tokio::task::block_in_place(|| facts::batch(table, self.folder.merchant_id(), rows));
        let batch: RecordBatch = made?;
        let at = Position { stage: STAGE, version: *chunk };
        self.lake.append(table.name(), batch.schema(), &[], vec![batch], at).await?;
        Ok(())
    }
}

/// Rows of one table, as many as are written at once; at the end of all what is left, a table after the other.
fn next_chunk(
    all: &mut impl Iterator<Item = Result<Stamped, LoadError>>,
    waiting: &mut BTreeMap<Table, Vec<Stamped>>,
) -> Result<Option<(Table, Vec<Stamped>)>, LoadError> {
    for row in all {
        let row = row?;
        let table = row.row.table();
        let rows = waiting.entry(table).or_default();
        rows.push(row);
        if rows.len() >= CHUNK {
            return Ok(Some((table, std::mem::take(rows))));
        }
    }
    Ok(waiting.pop_first())
}

impl Loader {
    /// Puts what `refolded` holds in the place of `tables` (all where empty) and of the state behind them. It must be of
    /// all events that this loader has loaded, [settled](Loader::settle) before.
    ///
    /// State is of all tables. Where it knows events by now that could not be read before, all tables get what they say:
    /// nothing else would ever bring it, since the state has it.
    pub async fn rebuild(&mut self, refolded: Refolded, tables: &[Table]) -> Result<u64, LoadError> {
        let snapshot = refolded.lake.snapshot();
        let is_as_before = tokio::task::block_in_place(|| self.folder.is_baffled_by_the_same(&refolded.folder))?;
        if !is_as_before && !tables.is_empty() {
            tracing::warn!(
                "events can be read that could not be before: all tables are made again, not only those named"
            );
        }
        let tables = if is_as_before { tables } else { &[] };
        let mut rows = 0;
        // Until the mark is gone, a start finds the state half replaced and rebuilds again.
        let mut begin = self.store.batch();
        begin.put(&self.progress, REBUILDING, []);
        begin.commit_durable()?;
        // What upkeep read before a table is replaced must not be laid into it after.
        let still = self.lake.still().await;
        for table in Table::ALL.into_iter().filter(|t| tables.is_empty() || tables.contains(t)) {
            let content: lake::Rows = match recall::rows(&snapshot, table.name(), &[], None).await? {
                Some(all) => all.into(),
                None => Vec::new().into(),
            };
            rows += self.lake.replace(table.name(), table.schema(), content, None).await?;
            self.reached(table.name(), table).await?;
            if table.is_folded() {
                let changes = lake::changes_of(table.name());
                self.lake.replace(&changes, table.schema(), Vec::new(), None).await?;
                self.reached(&changes, table).await?;
            }
        }
        drop(still);
        self.lake.publish();
        tokio::task::block_in_place(|| {
            self.folder.adopt(&refolded.folder)?;
            let mut end = self.store.batch();
            end.delete(&self.progress, REBUILDING);
            end.put(&self.progress, super::NEXT, self.next.0.to_be_bytes());
            // Versions begin anew with a table that is made anew.
            end.put(&self.progress, super::TABLES, recall::versions(&self.lake));
            end.commit_durable()
        })?;
        self.forgotten = false;
        self.torn = false;
        self.lost.clear();
        Ok(rows)
    }

    /// Notes that `name` holds all that was loaded: what its objects' next events make is then known to be a change.
    async fn reached(&self, name: &str, table: Table) -> Result<(), LoadError> {
        if let Some(last) = self.next.0.checked_sub(1) {
            let at = Position { stage: super::STAGE, version: last as i64 };
            self.lake.append(name, table.schema(), &[], Vec::new(), at).await?;
        }
        Ok(())
    }
}
