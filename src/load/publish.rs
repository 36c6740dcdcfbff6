//! Rows into tables, once. A row that its table already holds is known by its log offset and left out.
//!
//! New objects are appended to the base table, newer rows of known objects to its changes; readers lay one over the
//! other (`lake::overlay`). A refund after a month so costs one small file, not the rewrite of a large one.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use tokio::task::JoinHandle;

use super::{
    LoadError, STAGE,
    folded::{Change, Changes},
};
use crate::{
    base::{Logged, Offset},
    facts::{
        self, Stamped, Table,
        raw::{self, Quarantined},
    },
    lake::{Lake, Position, Tail, changes_of},
};

/// Tables written at the same time: commits wait for the disk more than for a core.
const AT_ONCE: usize = 4;

/// Changes are folded in when they are more than this share of their base …
const FOLD_IN_SHARE: f64 = 0.1;
/// … or more than this many rows, past which every query feels them.
const FOLD_IN_ROWS: u64 = 200_000;
/// During a long load when they are more than this, as all are in memory while they are folded in, beside what is loaded …
const CROWDED: u64 = 80_000;
/// … and than this share of their base, as long as that is not too many either: those of people lie all over it, and each time all
/// of it is written again.
const CROWDED_SHARE: f64 = 0.2;

/// Of which tables changes are folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldIn {
    /// Of every one that has any.
    All,
    /// Of those that have enough to be worth the rewrite.
    Worthwhile,
    /// Of those that have more than should wait for a better time.
    Crowded,
}

impl FoldIn {
    fn takes(self, changes: u64, base: u64) -> bool {
        match self {
            FoldIn::All => changes > 0,
            FoldIn::Worthwhile => changes > FOLD_IN_ROWS || changes as f64 > FOLD_IN_SHARE * base as f64,
            FoldIn::Crowded => changes > FOLD_IN_ROWS.min(CROWDED.max((CROWDED_SHARE * base as f64) as u64)),
        }
    }

    fn tables(self, lake: &Lake) -> Vec<Table> {
        let snapshot = lake.snapshot();
        let rows = |table: &str| snapshot.rows(table).unwrap_or(0);
        let takes = |table: &Table| self.takes(rows(&changes_of(table.name())), rows(table.name()));
        Table::ALL.into_iter().filter(|table| table.is_folded() && takes(table)).collect()
    }
}

/// Batches on their way into tables, by the table's name.
#[derive(Default)]
pub struct Appends(BTreeMap<String, Vec<RecordBatch>>);

impl Appends {
    pub fn extend(&mut self, other: Appends) {
        for (table, batches) in other.0 {
            self.0.entry(table).or_default().extend(batches);
        }
    }

    /// With the rows of folded tables, whose objects are known to the last event of the commit.
    pub fn with_rows(mut self, lake: &Lake, merchant: &str, rows: Changes) -> Result<Appends, LoadError> {
        self.extend(table_appends(lake, merchant, rows)?);
        Ok(self)
    }

    /// All of it, to be seen until its tables have come as far as `last`.
    pub fn tail(&self, last: Offset) -> Tail {
        let mut tail = Tail::of(STAGE);
        self.batches().for_each(|(table, batch)| tail.append(table, last.0 as i64, batch.clone()));
        tail
    }

    /// Table by table.
    pub fn batches(&self) -> impl Iterator<Item = (&str, &RecordBatch)> {
        self.0.iter().flat_map(|(table, batches)| batches.iter().map(move |b| (table.as_str(), b)))
    }

    fn push(&mut self, table: String, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.0.entry(table).or_default().push(batch);
        }
    }

    /// Commits them all, each table's at once; readers see nothing of it yet.
    pub async fn commit(self, lake: &Lake, last: Offset) -> Result<(), LoadError> {
        let at = Position { stage: STAGE, version: last.0 as i64 };
        let commits = self.0.into_iter().filter_map(|(table, batches)| {
            let schema = batches.first()?.schema();
            let partition_by: &[&str] = if table == raw::EVENTS { &["event_date"] } else { &[] };
            Some(async move { lake.append(&table, schema, partition_by, batches, at).await })
        });
        // Each to its end: one that is dropped half-way may be on the disk and not in its table's position here.
        let ended: Vec<_> = stream::iter(commits).buffer_unordered(AT_ONCE).collect().await;
        ended.into_iter().try_for_each(|appended| appended.map(|_| ()))?;
        Ok(())
    }
}

fn after(lake: &Lake, table: &str) -> i64 {
    lake.position(table, STAGE).unwrap_or(-1)
}

/// The rows of `raw` that a run of events makes. `load`: the first offset of what is committed together.
pub fn raw_appends(
    lake: &Lake,
    merchant: &str,
    load: Offset,
    events: &[Logged],
    quarantined: Vec<Quarantined>,
) -> Result<Appends, LoadError> {
    let mut appends = Appends::default();
    let held = after(lake, raw::EVENTS);
    let new = events.partition_point(|e| e.offset.0 as i64 <= held);
    appends.push(raw::EVENTS.to_owned(), raw::events_batch(merchant, load, &events[new..])?);
    let held = after(lake, raw::QUARANTINE);
    let new: Vec<Quarantined> = quarantined.into_iter().filter(|q| q.offset.0 as i64 > held).collect();
    appends.push(raw::QUARANTINE.to_owned(), raw::quarantine_batch(merchant, load, &new)?);
    Ok(appends)
}

/// Rows of tables of facts, each to where it belongs.
pub fn table_appends(lake: &Lake, merchant: &str, rows: Changes) -> Result<Appends, LoadError> {
    let mut appends = Appends::default();
    for (table, rows) in rows {
        let (base, changes) = (table.name().to_owned(), changes_of(table.name()));
        let (base_held, changes_held) = (after(lake, &base), after(lake, &changes));
        let (fresh, changed): (Vec<Change>, Vec<Change>) = rows
            .into_iter()
            .partition(|row| !table.is_folded() || row.first.is_some_and(|first| first.0 as i64 > base_held));
        let newer = |rows: Vec<Change>, held: i64| -> Vec<Stamped> {
            rows.into_iter().map(|c| c.row).filter(|r| r.offset.0 as i64 > held).collect()
        };
        appends.push(base, facts::batch(table, merchant, &newer(fresh, base_held))?);
        appends.push(changes, facts::batch(table, merchant, &newer(changed, changes_held))?);
    }
    Ok(appends)
}

/// Rows of folded tables that are seen before they are committed: changes all of them, whatever becomes of them later.
/// What base or changes may hold already is left out: an older row among the changes would hide a newer one in the base.
pub fn hot_rows(lake: &Lake, merchant: &str, rows: Changes) -> Result<Appends, LoadError> {
    let mut appends = Appends::default();
    for (table, rows) in rows {
        let changes = changes_of(table.name());
        let held = after(lake, table.name()).max(after(lake, &changes));
        let rows: Vec<Stamped> = rows.into_iter().map(|c| c.row).filter(|r| r.offset.0 as i64 > held).collect();
        appends.push(changes, facts::batch(table, merchant, &rows)?);
    }
    Ok(appends)
}

/// Lays the changes of tables into their bases, beside whatever is loaded meanwhile. Readers see both in one snapshot. A table
/// that fails does not keep the others from theirs; the first failure is returned.
pub async fn fold_in(lake: &Lake, which: FoldIn) -> Result<(), LoadError> {
    let mut failed = None;
    for table in which.tables(lake) {
        let base = table.name();
        if let Err(error) = lake.fold_in(base, table.schema(), table.key(), table.time_column()).await {
            match &failed {
                None => failed = Some(error),
                Some(_) => tracing::error!("the changes of one more table could not be folded in: {error}"),
            }
        }
    }
    lake.publish();
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// The same of crowded tables, as a task, if there are any. What it cannot do is tried again by whoever folds in next.
pub fn relieve(lake: &Lake) -> Option<JoinHandle<()>> {
    if FoldIn::Crowded.tables(lake).is_empty() {
        return None;
    }
    let lake = lake.clone();
    Some(tokio::spawn(async move {
        if let Err(error) = fold_in(&lake, FoldIn::Crowded).await {
            tracing::warn!("changes could not be folded in while events are loaded: {error}");
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("x", column)]).unwrap()
    }

    #[tokio::test]
    async fn where_one_table_fails_the_others_still_come_to_their_end() {
        let home = tempfile::tempdir().unwrap();
        let lake = Lake::open(&home.path().join("lake")).await.unwrap();
        let number = || batch(Arc::new(Int64Array::from(vec![1])));
        let text = batch(Arc::new(StringArray::from(vec!["a"])));
        let at = Position { stage: STAGE, version: 0 };
        lake.append("core.a", text.schema(), &[], vec![text], at).await.unwrap();
        let all = ["core.a", "core.b", "core.c", "core.d", "core.e", "core.f"];
        let appends = Appends(all.map(|table| (table.to_owned(), vec![number()])).into_iter().collect());
        appends.commit(&lake, Offset(7)).await.unwrap_err();
        assert_eq!(all.map(|table| after(&lake, table)), [0, 7, 7, 7, 7, 7]);
    }
}
