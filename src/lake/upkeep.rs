//! Upkeep of the tables: small files merged, logs checkpointed and cut, files deleted that nothing refers to any more.
//!
//! It runs beside appends. Merging writes its files without a table's queue and joins it for the commit alone, which is
//! given up when one of the merged files is gone by then. No answer changes by it, and no position: a checkpoint carries
//! all positions, and a log is cut only behind a checkpoint.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::physical_plan::execute_stream;
use deltalake_core::DeltaTable;
use deltalake_core::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use deltalake_core::kernel::Add;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::error::{LakeError, Result};
use super::files::{self, FULL_FILE};
use super::log::{LOG_DIRECTORY, Purpose};
use super::provider::Scan;
use super::state::{Change, DataFile, TableState};
use super::table::{Table, Turn};

/// What is due, and what may be deleted.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// Commits behind the last checkpoint that make another due: what a start has to read one by one.
    pub commits: u64,
    /// Files of about one size, of one partition, that are merged into one.
    pub alike: usize,
    /// How long a partition has been left alone when its last few small files are merged too.
    pub quiet: Duration,
    /// How long files stay that a newer version replaced: longer than the longest query.
    pub keep_files: Duration,
    /// How long commits stay in the log behind a checkpoint.
    pub keep_log: Duration,
}

impl Upkeep {
    /// Nothing stays that is not part of the tables as they are now. Readers in the middle of a query may lose a file.
    fn at_once() -> Upkeep {
        Upkeep { commits: 1, keep_files: Duration::ZERO, keep_log: Duration::ZERO, ..Upkeep::default() }
    }
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        let hour = Duration::from_secs(3600);
        Upkeep { commits: 100, alike: 8, quiet: hour, keep_files: hour, keep_log: hour }
    }
}

/// What upkeep did, over all tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    pub files_merged: usize,
    pub files_made: usize,
    pub bytes_written: u64,
    pub checkpoints: usize,
    pub log_files_deleted: usize,
    pub files_deleted: usize,
}

/// Only the newest version of the table is left on the disk, and of its log what that takes.
pub(super) async fn sweep(table: &Table) -> Result<()> {
    let (upkeep, mut done) = (Upkeep::at_once(), Maintained::default());
    checkpoint(table, &upkeep, &mut done).await?;
    delete_unused(table, table.turn().await, &upkeep, &mut done).await
}

pub(super) async fn maintain(table: &Table, upkeep: &Upkeep, done: &mut Maintained) -> Result<()> {
    let Some(state) = table.state() else { return Ok(()) };
    for files in due(&state, upkeep) {
        merge(table, state.clone(), files, done).await?;
    }
    checkpoint(table, upkeep, done).await?;
    // Upkeep comes again.
    let Some(turn) = table.free_turn() else { return Ok(()) };
    delete_unused(table, turn, upkeep, done).await
}

/// The sets of files to merge, each into one. Only files of about one size are merged: with sizes in steps of eight a byte is
/// rewritten about three times until its file is full, however small the appends were.
fn due(state: &TableState, upkeep: &Upkeep) -> Vec<Vec<Arc<DataFile>>> {
    let mut alike: BTreeMap<(String, u32), Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in state.files.iter().filter(|f| step(f.size) < FULL_STEP) {
        alike.entry((partition(file), step(file.size))).or_default().push(file.clone());
    }
    let now = chrono::Utc::now().timestamp_millis();
    let quiet_since = now.saturating_sub(i64::try_from(upkeep.quiet.as_millis()).unwrap_or(i64::MAX));
    let is_due = |files: &Vec<Arc<DataFile>>| {
        let quiet = || files.iter().all(|f| f.add.modification_time <= quiet_since);
        files.len() >= upkeep.alike.max(2) || (files.len() > 1 && !state.layout.partition_by.is_empty() && quiet())
    };
    alike.into_values().filter(is_due).flat_map(into_full_files).collect()
}

/// The step from which on a file is left alone.
const FULL_STEP: u32 = 3;

/// 0 below 1 MiB, 1 below 8 MiB, 2 below 64 MiB.
fn step(size: u64) -> u32 {
    (size >> 20).checked_ilog(8).map_or(0, |n| n + 1)
}

fn partition(file: &DataFile) -> String {
    let values: BTreeMap<_, _> = file.add.partition_values.iter().collect();
    format!("{values:?}")
}

/// Cuts a long run of files where one file would become too large.
fn into_full_files(files: Vec<Arc<DataFile>>) -> Vec<Vec<Arc<DataFile>>> {
    let mut sets: Vec<Vec<Arc<DataFile>>> = vec![Vec::new()];
    let mut bytes = 0;
    for file in files {
        if bytes + file.size > FULL_FILE {
            sets.push(Vec::new());
            bytes = 0;
        }
        bytes += file.size;
        if let Some(set) = sets.last_mut() {
            set.push(file);
        }
    }
    sets.retain(|set| set.len() > 1);
    sets
}

async fn merge(table: &Table, state: Arc<TableState>, files: Vec<Arc<DataFile>>, done: &mut Maintained) -> Result<()> {
    let layout = state.layout.clone();
    let rows = rows_of(&table.name, state, files.clone()).await?;
    let added = files::write_stream(&table.name, &table.log, &layout, rows).await?;
    let (count, written) = (added.len(), added.iter().map(|a| a.size.unsigned_abs()).sum::<u64>());
    let merged = exchange(table, files.clone(), added).await?;
    if merged {
        done.files_merged += files.len();
        done.files_made += count;
        done.bytes_written += written;
    }
    Ok(())
}

/// Puts files in the place of others that hold the same rows. False, and nothing is changed, where one of those is no part of
/// the table any more, replaced or removed meanwhile: what was written is none either then.
pub(super) async fn exchange(table: &Table, removed: Vec<Arc<DataFile>>, added: Vec<Add>) -> Result<bool> {
    let turn = table.turn().await;
    turn.commit(Purpose::Compact, &added, |current| {
        let here: HashSet<&str> = current.iter().flat_map(|c| c.files.iter()).map(|f| f.add.path.as_str()).collect();
        let still = removed.iter().all(|f| here.contains(f.add.path.as_str()));
        Ok(still.then(|| Change { removed: removed.clone(), added: added.clone(), ..Change::default() }))
    })
    .await
}

/// The rows of `files` in their order.
pub(super) async fn rows_of(
    table: &str,
    state: Arc<TableState>,
    files: Vec<Arc<DataFile>>,
) -> Result<SendableRecordBatchStream> {
    let failed = |e: datafusion::error::DataFusionError| LakeError::Rows { table: table.to_owned(), source: e.into() };
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let plan = Scan::of_files(state, files).scan(&session.state(), None, &[], None).await.map_err(failed)?;
    execute_stream(plan, session.task_ctx()).map_err(failed)
}

async fn checkpoint(table: &Table, upkeep: &Upkeep, done: &mut Maintained) -> Result<()> {
    let Some(state) = table.state() else { return Ok(()) };
    let failed = |e| LakeError::storage(&table.name, "checkpoint the log in", &table.directory, e);
    if state.version.saturating_sub(table.checkpointed()) >= upkeep.commits.max(1) {
        let (log, runtime) = (table.log.clone(), Handle::current());
        // The library works through the whole log without letting go of its thread.
        let written = spawn_blocking(move || {
            runtime.block_on(async move {
                let mut read = DeltaTable::new(log);
                read.load().await?;
                create_checkpoint(&read, None).await?;
                Ok(read.version())
            })
        });
        let written = written.await.map_err(|e| LakeError::storage(&table.name, "checkpoint", &table.directory, e))?;
        table.set_checkpointed(written.map_err(failed)?.unwrap_or(state.version));
        done.checkpoints += 1;
    }
    if table.checkpointed() > 0 {
        let age = i64::try_from(upkeep.keep_log.as_millis()).unwrap_or(i64::MAX);
        let before = chrono::Utc::now().timestamp_millis().saturating_sub(age);
        let deleted = cleanup_expired_logs_for(table.checkpointed(), table.log.as_ref(), before, None).await;
        done.log_files_deleted += deleted.map_err(failed)?;
    }
    Ok(())
}

/// `_turn`: files of a write under way are in no version yet.
async fn delete_unused(table: &Table, _turn: Turn<'_>, upkeep: &Upkeep, done: &mut Maintained) -> Result<()> {
    let Some(state) = table.state() else { return Ok(()) };
    let (directory, keep) = (table.directory.clone(), upkeep.keep_files);
    let used: HashSet<PathBuf> = state.files.iter().map(|f| directory.join(&f.add.path)).collect();
    let replaced = table.replaced(keep);
    let deleted = spawn_blocking(move || {
        let mut found = HashSet::new();
        files_in(&directory, &mut found)?;
        if let Some(missing) = used.iter().find(|path| !found.contains(*path)) {
            return Ok(Err(missing.clone()));
        }
        let before = SystemTime::now().checked_sub(keep).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut deleted = 0;
        for path in found.difference(&used).filter(|path| !replaced.contains(*path)) {
            if fs::metadata(path)?.modified()? < before {
                fs::remove_file(path)?;
                deleted += 1;
            }
        }
        Ok::<_, io::Error>(Ok(deleted))
    });
    let failed = |e: io::Error| LakeError::storage(&table.name, "delete unused files in", &table.directory, e);
    done.files_deleted += deleted.await.map_err(|e| failed(e.into()))?.map_err(failed)?.map_err(|missing| {
        // Nothing is deleted from a table that lacks a file: the file may only be misplaced.
        LakeError::Corrupt {
            table: table.name.to_string(),
            path: table.directory.as_path().to_owned(),
            detail: format!("its file {} is missing", missing.display()),
        }
    })?;
    Ok(())
}

/// All files in `directory` but those of the log.
fn files_in(directory: &Path, found: &mut HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            found.insert(path);
        } else if !path.ends_with(LOG_DIRECTORY) {
            files_in(&path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_steps_of_eight() {
        let mib = 1 << 20;
        assert_eq!([0, mib - 1, mib, 8 * mib - 1, 8 * mib, 64 * mib - 1].map(step), [0, 0, 1, 1, 2, 2]);
        assert_eq!([64 * mib, FULL_FILE].map(step), [FULL_STEP, FULL_STEP]);
    }
}
