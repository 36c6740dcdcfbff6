//! Rows into tables, once. A row that its table already holds is known by its log offset and left out.
//!
//! New objects are appended to the base table, newer rows of known objects to its changes; readers lay one over the
//! other (`lake::overlay`). A refund after a month so costs one small file, not the rewrite of a large one.

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    LoadError, STAGE,
    fold::{Change, Folded},
};
use crate::{
    base::{Logged, Offset},
    facts::{
        self, Stamped, Table,
        raw::{self, Quarantined},
    },
    lake::{Lake, Position},
};

/// Tables written at the same time: commits wait for the disk more than for a core.
const AT_ONCE: usize = 4;

/// Changes are folded in when they are more than this share of their base …
const FOLD_IN_SHARE: f64 = 0.1;
/// … or more than this many rows, past which every query feels them.
const FOLD_IN_ROWS: u64 = 200_000;

struct Append {
    table: String,
    partition_by: &'static [&'static str],
    batch: arrow::record_batch::RecordBatch,
}

/// Commits what a batch of events made, and shows it to readers as one.
pub async fn publish(
    lake: &Lake,
    merchant: &str,
    events: Vec<Logged>,
    folded: Folded,
    last: Offset,
) -> Result<(), LoadError> {
    let at = Position { stage: STAGE, version: last.0 as i64 };
    let mut appends = raw_appends(lake, merchant, &events, folded.quarantined)?;
    drop(events);
    for (table, changes) in folded.rows {
        appends.extend(table_appends(lake, merchant, table, changes)?);
    }
    stream::iter(appends.into_iter().map(|append| async move {
        lake.append(&append.table, append.batch.schema(), append.partition_by, vec![append.batch], at).await
    }))
    .buffer_unordered(AT_ONCE)
    .try_collect::<Vec<_>>()
    .await?;
    lake.publish();
    Ok(())
}

fn after(lake: &Lake, table: &str) -> i64 {
    lake.position(table, STAGE).unwrap_or(-1)
}

fn raw_appends(
    lake: &Lake,
    merchant: &str,
    events: &[Logged],
    quarantined: Vec<Quarantined>,
) -> Result<Vec<Append>, LoadError> {
    let mut appends = Vec::new();
    let held = after(lake, raw::EVENTS);
    let new = events.partition_point(|e| e.offset.0 as i64 <= held);
    let batch = raw::events_batch(merchant, &events[new..])?;
    if batch.num_rows() > 0 {
        appends.push(Append { table: raw::EVENTS.to_owned(), partition_by: &["event_date"], batch });
    }
    let held = after(lake, raw::QUARANTINE);
    let new: Vec<Quarantined> = quarantined.into_iter().filter(|q| q.offset.0 as i64 > held).collect();
    if !new.is_empty() {
        let batch = raw::quarantine_batch(merchant, &new)?;
        appends.push(Append { table: raw::QUARANTINE.to_owned(), partition_by: &[], batch });
    }
    Ok(appends)
}

fn table_appends(lake: &Lake, merchant: &str, table: Table, rows: Vec<Change>) -> Result<Vec<Append>, LoadError> {
    let base = table.name().to_owned();
    let changes = crate::lake::changes_of(table.name());
    let (base_held, changes_held) = (after(lake, &base), after(lake, &changes));
    let (fresh, changed): (Vec<Change>, Vec<Change>) = rows
        .into_iter()
        .partition(|row| !table.is_folded() || row.first.is_some_and(|first| first.0 as i64 > base_held));
    let newer = |rows: Vec<Change>, held: i64| -> Vec<Stamped> {
        rows.into_iter().map(|c| c.row).filter(|r| r.offset.0 as i64 > held).collect()
    };
    let mut appends = Vec::new();
    for (name, rows) in [(base, newer(fresh, base_held)), (changes, newer(changed, changes_held))] {
        if !rows.is_empty() {
            appends.push(Append { table: name, partition_by: &[], batch: facts::batch(table, merchant, &rows)? });
        }
    }
    Ok(appends)
}

/// Lays the changes of each table that has many over its base: first the base with them in one commit, then the changes
/// without them. Readers see both in one snapshot; a crash between leaves changes that say what the base already says.
pub async fn fold_in(lake: &Lake) -> Result<(), LoadError> {
    for table in Table::ALL.into_iter().filter(|t| t.is_folded()) {
        let (base, changes) = (table.name(), crate::lake::changes_of(table.name()));
        let snapshot = lake.snapshot();
        let gathered = snapshot.rows(&changes).unwrap_or(0);
        let enough =
            gathered > FOLD_IN_ROWS || gathered as f64 > FOLD_IN_SHARE * snapshot.rows(base).unwrap_or(0) as f64;
        if gathered > 0 && enough {
            lake.fold_in(base, table.schema(), table.key(), table.time_column()).await?;
        }
    }
    lake.publish();
    Ok(())
}
