//! One table that is written to: its newest version, and the way to the next.
//!
//! ```text
//!  rows ──► files (no part of the table yet) ──► plan against the newest version ──► put commit N+1
//!                                                     ▲                                  │ done: publish version N+1
//!                                                     └── read the log again ◄───────────┘ taken, or unknown
//! ```
//!
//! Writes to one table stand in a queue; tables do not wait for one another. A plan looks at the newest version before
//! every try, so a position that is already there is never written twice: an error of a commit does not mean that it was
//! not made, and after any error the log is read again and asked.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use deltalake_core::kernel::Add;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::logstore::LogStoreRef;
use tokio::sync::{Mutex, MutexGuard};

use super::durable::Fate;
use super::error::{LakeError, Result};
use super::log::{self, Purpose};
use super::state::{Change, TableState};
use crate::base::Backoff;

/// One process owns the lake, so another writer is a mistake; this many commits of it in a row are no accident.
const ATTEMPTS: u32 = 12;
/// Another's commit takes some milliseconds; a disk that is in trouble is given most of a second.
const BETWEEN_COMMITS: Backoff = Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(700) };

pub(super) struct Table {
    pub name: Arc<str>,
    pub directory: Arc<PathBuf>,
    pub log: LogStoreRef,
    /// `None` until its first commit.
    state: ArcSwapOption<TableState>,
    fate: Fate,
    writing: Mutex<()>,
    /// The version of the newest checkpoint, 0 without one.
    checkpointed: AtomicU64,
    /// Files that this process took out of the table, and when: a reader may still hold a version with them.
    replaced: std::sync::Mutex<HashMap<PathBuf, Instant>>,
}

/// The right to write to a table.
pub(super) struct Turn<'a> {
    table: &'a Table,
    _queue: MutexGuard<'a, ()>,
}

impl Table {
    pub fn new(name: Arc<str>, directory: Arc<PathBuf>, fate: Fate) -> Result<Table> {
        let log = log::open(&name, &directory, &fate)?;
        Ok(Table {
            name,
            directory,
            log,
            state: ArcSwapOption::empty(),
            fate,
            writing: Mutex::new(()),
            checkpointed: AtomicU64::new(0),
            replaced: Default::default(),
        })
    }

    pub fn state(&self) -> Option<Arc<TableState>> {
        self.state.load_full()
    }

    pub fn checkpointed(&self) -> u64 {
        self.checkpointed.load(Ordering::Relaxed)
    }

    pub fn set_checkpointed(&self, version: u64) {
        self.checkpointed.store(version, Ordering::Relaxed);
    }

    /// The files taken out of the table less than `keep` ago; older ones are forgotten.
    pub fn replaced(&self, keep: Duration) -> HashSet<PathBuf> {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|_, at| at.elapsed() < keep);
        replaced.keys().cloned().collect()
    }

    fn remember_replaced(&self, change: &Change) {
        let now = Instant::now();
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.extend(change.removed.iter().map(|file| (self.directory.join(&file.add.path), now)));
    }

    pub async fn turn(&self) -> Turn<'_> {
        Turn { table: self, _queue: self.writing.lock().await }
    }

    /// A turn, unless someone is writing.
    pub fn free_turn(&self) -> Option<Turn<'_>> {
        self.writing.try_lock().ok().map(|queue| Turn { table: self, _queue: queue })
    }
}

impl Turn<'_> {
    /// Reads the newest version from the log.
    pub async fn reload(&self) -> Result<()> {
        let table = self.table;
        let state = log::read(&table.name, &table.directory, &table.log).await?;
        table.set_checkpointed(log::checkpointed(&table.log).await);
        table.state.store(state.map(Arc::new));
        Ok(())
    }

    /// Commits what `plan` makes of the newest version, asking it again whenever that turns out not to be the newest.
    /// `added` are the files of the change, which show whether a commit of unknown fate was made. False when `plan` finds
    /// nothing to be done.
    pub async fn commit(
        &self,
        purpose: Purpose,
        added: &[Add],
        plan: impl Fn(Option<&TableState>) -> Result<Option<Change>>,
    ) -> Result<bool> {
        let table = self.table;
        for attempt in 0..ATTEMPTS {
            let current = table.state.load_full();
            let Some(change) = plan(current.as_deref())? else { return Ok(false) };
            // Made before the commit, so that nothing is committed that could not be read.
            let next = match &current {
                Some(current) => current.next(&change)?,
                None => TableState::first(table.name.clone(), table.directory.clone(), &change)?,
            };
            match log::write(&table.log, purpose, &next, &change).await {
                Ok(()) => {
                    table.remember_replaced(&change);
                    table.state.store(Some(Arc::new(next)));
                    return Ok(true);
                }
                Err(error) if self.was_made(added).await? => {
                    table.remember_replaced(&change);
                    tracing::warn!(table = &*table.name, %error, "a commit was made and yet gave an error");
                    return Ok(true);
                }
                Err(error) => self.before_retry(error, attempt).await?,
            }
        }
        Err(LakeError::Contended { table: table.name.to_string(), attempts: ATTEMPTS })
    }

    /// Reads the log again after a failed try, and looks for the files of the change in it.
    async fn was_made(&self, added: &[Add]) -> Result<bool> {
        if let Some(reason) = self.table.fate.broken() {
            // What can be read now may be gone after a power cut.
            return Err(LakeError::Broken(reason.to_owned()));
        }
        self.reload().await?;
        Ok(self.table.state.load().as_ref().is_some_and(|state| state.holds(added)))
    }

    /// Waits, where trying again makes sense.
    async fn before_retry(&self, error: TransactionError, attempt: u32) -> Result<()> {
        let table = self.table;
        if !matches!(error, TransactionError::VersionAlreadyExists(_)) {
            let error = LakeError::storage(&table.name, "commit to", &table.directory, error);
            if !error.is_retryable() || attempt >= 2 {
                return Err(error);
            }
            tracing::warn!(table = &*table.name, %error, "a commit failed; trying again");
        }
        tokio::time::sleep(BETWEEN_COMMITS.wait(attempt + 1)).await;
        Ok(())
    }
}
