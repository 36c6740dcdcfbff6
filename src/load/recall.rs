//! What the loader takes back from the tables: events that are to be read again, and all that the store knew, when it was
//! lost.
//!
//! A store is lost where it has no position and the tables have one. Then `raw.events` is brought up to whatever any
//! table holds, the identities of trimmed events go back into the log's index, and a rebuild makes tables and state from
//! `raw.events`: folding new events over no state would make wrong rows. The same is done where a table, or its newest
//! commits, were lost.

use std::ops::Range;

use arrow::record_batch::RecordBatch;
use datafusion::{
    execution::SendableRecordBatchStream,
    logical_expr::Expr,
    prelude::{SessionContext, col, lit},
};
use futures::StreamExt;

use super::{
    BATCH_BYTES, LoadError, Loader, PROGRESS, STAGE, TABLES, blocking, folded::Folded, publish::raw_appends,
    rebuild::REBUILDING, unreadable,
};
use crate::{
    base::{Logged, Offset, Source},
    facts::{
        Table,
        raw::{self, EVENTS, QUARANTINE},
        replay::{self, Identified, ReplayError},
    },
    lake::{Lake, Snapshot, changes_of},
    store::{Keyspace, Store, StoreError},
};

/// The last offset of which any table holds rows.
pub fn held(lake: &Lake) -> Option<Offset> {
    tables().filter_map(|name| u64::try_from(lake.position(&name, STAGE)?).ok()).max().map(Offset)
}

/// What events become rows of.
fn tables() -> impl Iterator<Item = String> {
    let facts = Table::ALL.into_iter().flat_map(|t| [t.name().to_owned(), changes_of(t.name())]);
    facts.chain([EVENTS.to_owned(), QUARANTINE.to_owned()])
}

/// Notes in which versions the tables of events are: an older one, or none, is then known to be lost.
pub fn note_versions(lake: &Lake, store: &Store) -> Result<(), StoreError> {
    let mut batch = store.batch();
    batch.put(&store.keyspace(PROGRESS)?, TABLES, versions(lake));
    batch.commit()
}

/// A line each: the name and the version.
pub fn versions(lake: &Lake) -> String {
    let snapshot = lake.snapshot();
    let line = |name: String| Some(format!("{name} {}\n", snapshot.version(&name)?));
    tables().filter_map(line).collect()
}

/// The tables that are not in the lake, or in an older version than was noted.
pub fn lost(lake: &Lake, progress: &Keyspace) -> Result<Vec<String>, LoadError> {
    let Some(known) = progress.get(TABLES)? else { return Ok(Vec::new()) };
    let snapshot = lake.snapshot();
    let is_lost = |line: &str| {
        let (name, version) = line.split_once(' ')?;
        let there = snapshot.version(name).is_some_and(|there| version.parse().is_ok_and(|version| there >= version));
        (!there).then(|| name.to_owned())
    };
    Ok(String::from_utf8_lossy(&known).lines().filter_map(is_lost).collect())
}

/// The first offset that `raw.events` and `raw.quarantine` do not hold.
pub fn raw_end(lake: &Lake) -> Offset {
    let of = |table| lake.position(table, STAGE).map_or(0, |at| at as u64 + 1);
    Offset(of(EVENTS).max(of(QUARANTINE)))
}

/// The events of `raw.events` that retries among `events` name.
pub async fn retried(lake: &Lake, events: &[Logged]) -> Result<Vec<Logged>, LoadError> {
    let named: Vec<Offset> = events.iter().filter_map(|e| raw::retried(&e.envelope)).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    at_offsets(&lake.snapshot(), &named).await
}

/// The events of `raw.events` at these offsets, as far as it has them.
pub async fn at_offsets(snapshot: &Snapshot, offsets: &[Offset]) -> Result<Vec<Logged>, LoadError> {
    let offsets = offsets.iter().map(|o| lit(o.0 as i64)).collect();
    events_where(snapshot, col("log_offset").in_list(offsets, false)).await
}

/// The events of `raw.events` that these sources brought, in a stretch of the log, in its order.
pub async fn events_of(
    snapshot: &Snapshot,
    sources: impl IntoIterator<Item = Source>,
    stretch: Range<Offset>,
) -> Result<Vec<Logged>, LoadError> {
    let sources = sources.into_iter().map(|source| lit(source.as_str())).collect();
    let (from, to) = (lit(stretch.start.0 as i64), lit(stretch.end.0 as i64));
    let stretch = col("log_offset").gt_eq(from).and(col("log_offset").lt(to));
    let mut found = events_where(snapshot, col("source").in_list(sources, false).and(stretch)).await?;
    found.sort_by_key(|event| event.offset);
    Ok(found)
}

async fn events_where(snapshot: &Snapshot, condition: Expr) -> Result<Vec<Logged>, LoadError> {
    let Some(mut rows) = rows(snapshot, EVENTS, &[], Some(condition)).await? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    while let Some(batch) = rows.next().await {
        found.extend(replay::events(&batch.map_err(unreadable)?).map_err(unreadable)?);
    }
    Ok(found)
}

impl Loader {
    /// Why tables and state are not of one another, where they are not: all must be made again.
    pub fn must_rebuild(&self) -> Result<Option<String>, LoadError> {
        Ok(if self.forgotten {
            Some("the state folder was lost".to_owned())
        } else if !self.lost.is_empty() {
            Some(format!("{} lost their folder or their newest commits", self.lost.join(", ")))
        } else if self.torn {
            Some("the log's end was lost while a commit was under way".to_owned())
        } else {
            self.progress.get(REBUILDING)?.map(|_| "an earlier rebuild was cut off".to_owned())
        })
    }

    /// Makes `raw.events` hold all that any table does, and this loader stand behind it: what a rebuild starts from.
    pub async fn settle(&mut self) -> Result<(), LoadError> {
        self.commit().await?;
        // Of what is loaded raw.events may have lost the newest.
        let loaded = if self.forgotten { None } else { self.next.0.checked_sub(1).map(Offset) };
        let held = held(&self.lake).max(loaded);
        let behind = self.forgotten || !self.lost.is_empty() || held > loaded;
        let Some(held) = held.filter(|_| behind) else { return Ok(()) };
        if self.forgotten {
            self.recall_identities().await?;
            self.folder.recall_forgotten(&self.lake.snapshot()).await?;
        }
        // What was cut off in the middle of a commit may be in other tables and not in this one.
        let of = |table| self.lake.position(table, STAGE).map_or(0, |at| at as u64 + 1);
        let mut from = Offset(of(EVENTS).min(of(QUARANTINE))).max(self.log.start());
        while from <= held {
            let (log, folder, lake) = (self.log.clone(), self.folder.clone(), self.lake.clone());
            let read = blocking(move || {
                let mut events = log.read(from, BATCH_BYTES)?;
                events.retain(|e| e.offset <= held);
                let Some(last) = events.last().map(|e| e.offset) else { return Ok(None) };
                let run = folder.fold(&mut Folded::default(), &events, &[])?;
                run.redact(&mut events);
                Ok(Some((raw_appends(&lake, folder.merchant_id(), from, &events, run.quarantined)?, last)))
            });
            let Some((appends, last)) = read.await? else { break };
            appends.commit(&self.lake, last).await?;
            from = last.next();
        }
        self.lake.publish();
        self.next = held.next();
        self.committed = self.next;
        self.tell();
        Ok(())
    }

    /// The log's index has the identities of what the log still holds; those of what was trimmed are in the tables.
    async fn recall_identities(&self) -> Result<(), LoadError> {
        let start = self.log.start();
        if start == Offset(0) {
            return Ok(());
        }
        let trimmed = || Some(col("log_offset").lt(lit(start.0 as i64)));
        let snapshot = self.lake.snapshot();
        let events = rows(&snapshot, EVENTS, &replay::IDENTITY, trimmed()).await?;
        self.restore(events, replay::identities).await?;
        let rejected = rows(&snapshot, QUARANTINE, &["source", "event_id", "log_offset"], trimmed()).await?;
        self.restore(rejected, replay::rejected_identities).await
    }

    async fn restore(
        &self,
        rows: Option<SendableRecordBatchStream>,
        identities: fn(&RecordBatch) -> Result<Vec<Identified<'_>>, ReplayError>,
    ) -> Result<(), LoadError> {
        let Some(mut rows) = rows else { return Ok(()) };
        while let Some(batch) = rows.next().await {
            let (batch, log) = (batch.map_err(unreadable)?, self.log.clone());
            blocking(move || Ok(log.restore(&identities(&batch).map_err(unreadable)?)?)).await?;
        }
        Ok(())
    }
}

/// Some columns (all where none is named) of a table's rows, all or those that meet a condition; `None` where there is no such table.
pub async fn rows(
    snapshot: &Snapshot,
    table: &str,
    columns: &[&str],
    condition: Option<Expr>,
) -> Result<Option<SendableRecordBatchStream>, LoadError> {
    let Some(table) = snapshot.provider(table) else { return Ok(None) };
    let mut rows = SessionContext::new().read_table(table).map_err(unreadable)?;
    if let Some(condition) = condition {
        rows = rows.filter(condition).map_err(unreadable)?;
    }
    if !columns.is_empty() {
        rows = rows.select_columns(columns).map_err(unreadable)?;
    }
    rows.execute_stream().await.map(Some).map_err(unreadable)
}
