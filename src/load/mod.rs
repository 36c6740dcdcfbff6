//! The loader: reads the log, folds what it read into rows, commits rows to the lake, then its own state.
//!
//! The law of the place: rows reach a table together with the log offset they are true to (Delta's application
//! transaction), and the state that made them is written after. So a crash between the two repeats a batch whose rows
//! the tables recognise by their offsets, and a crash anywhere loses and doubles nothing, wherever the next batch is cut.
//! Between two commits rows are folded, and seen, in memory ([`Loader::follow`]): a crash forgets them, and the log has
//! them still.
//! One loader owns a directory's tables; nothing else writes `raw`, `core` or the folded tables of `ops`.

mod commit;
mod erase;
mod fold;
mod folded;
mod forgotten;
mod pending;
mod people;
mod publish;
mod rebuild;
mod recall;
mod wanted;

use std::{
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinHandle;

pub use erase::{Sought, events_about, redact, sweep};
pub use fold::Folder;
pub use people::{PhoneBook, component};
pub use publish::{FoldIn, fold_in};
pub use rebuild::{Refolded, Until, refold};
pub use recall::{at_offsets, events_of, note_versions, raw_end};
pub use wanted::Wanted;

use self::{
    commit::{Commit, Rooms},
    pending::Pending,
};
use crate::{
    base::{Offset, Progress},
    facts::{BatchError, StateError, raw},
    lake::{Lake, LakeError, Tail},
    log::{EventLog, LogError},
    store::{Keyspace, Store, StoreError},
};

/// The application id of the loader's commits.
pub(crate) const STAGE: &str = "load";

/// Payload bytes folded at once: decoded rows take some three times as much. What is in flight is one of these, what has gathered
/// for a commit ([`Pending::is_full`], and less than one of these above it), and a commit that is under way.
const BATCH_BYTES: usize = 16 << 20;

/// Payload bytes folded before they are shown: some tens of milliseconds of work.
const FOLLOW_BYTES: usize = 4 << 20;
/// Events behind the log from which on nothing is shown before it is committed.
const CATCH_UP: u64 = 20_000;

/// Payload bytes between two trims of the log. State must be synced first, which is not free.
const TRIM_EVERY: u64 = 256 << 20;

/// In the store: the first offset that is not committed.
const NEXT: &[u8] = b"next";

const PROGRESS: &str = "load";

/// The tables that events became rows of, and their versions: one that is absent now, or older, was lost.
const TABLES: &[u8] = b"tables";

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the identity graph cannot be read ({0}): `tillstream rebuild` makes it again from raw.events")]
    Identity(String),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("events could not be put into rows: {0}")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("raw.events could not be read back: {0}")]
    ReadBack(String),
    #[error(
        "tables and state do not match, and the tables must be made again: run `tillstream rebuild`, or restart serve, which \
         does it"
    )]
    HalfRebuilt,
    #[error(
        "the tables hold events up to {held} and the log ends before {end}: the log folder was lost, and with it what was \
         not loaded yet. Restore it from a backup, together with the state folder"
    )]
    LogBehind { held: Offset, end: Offset },
    #[error(
        "{0} was lost, its folder or its newest commits, and the log no longer has all of it. Restore the whole data directory \
         from one backup. Or restore this folder and remove the state folder: what it and the log hold is loaded again, and \
         what neither holds is lost, and with it who said STOP and what was sent"
    )]
    RawLost(&'static str),
    #[error("the loader's work was cut off: {0}")]
    CutOff(String),
}

fn unreadable(error: impl std::fmt::Display) -> LoadError {
    LoadError::ReadBack(error.to_string())
}

/// What one batch, or several, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Loaded {
    pub events: u64,
    pub bytes: u64,
    /// Input that is no event.
    pub rejected: u64,
    /// Events that are kept raw but state what cannot be (a negative amount).
    pub quarantined_facts: u64,
    /// Events of types that no table is made from; they are kept raw.
    pub unhandled: u64,
}

impl AddAssign for Loaded {
    fn add_assign(&mut self, other: Loaded) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.rejected += other.rejected;
        self.quarantined_facts += other.quarantined_facts;
        self.unhandled += other.unhandled;
    }
}

pub struct Loader {
    log: EventLog,
    lake: Lake,
    store: Store,
    progress: Keyspace,
    folder: Arc<Folder>,
    /// The first offset that is not folded yet, and the first that is not committed.
    next: Offset,
    committed: Offset,
    pending: Option<Pending>,
    commit: Option<Commit>,
    /// Changes are being folded in, of which a long run of loads would make too many.
    relief: Option<JoinHandle<()>>,
    /// The tables hold what the store knows nothing of.
    forgotten: bool,
    /// Tables that were lost: their folders, or their newest commits.
    lost: Vec<String>,
    /// Some tables hold what the others do not, and the log does not either.
    torn: bool,
    since_trim: u64,
    place: Place,
}

/// How far a loader has come, for whoever cannot wait for it. Clones are the same place.
#[derive(Clone, Default)]
pub struct Place(Arc<[AtomicU64; 2]>);

/// See [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The first offset whose rows readers may not see yet.
    pub next: Offset,
    /// The first offset that no table holds.
    pub committed: Offset,
}

impl Place {
    pub fn now(&self) -> Reached {
        let [next, committed] = &*self.0;
        Reached { next: Offset(next.load(Ordering::Relaxed)), committed: Offset(committed.load(Ordering::Relaxed)) }
    }

    fn set(&self, reached: Reached) {
        let [next, committed] = &*self.0;
        next.store(reached.next.0, Ordering::Relaxed);
        committed.store(reached.committed.0, Ordering::Relaxed);
    }
}

fn position(progress: &Keyspace) -> Result<Option<Offset>, StoreError> {
    Ok(progress.get(NEXT)?.map(|b| Offset(u64::from_be_bytes(b.as_ref().try_into().unwrap_or_default()))))
}

impl Loader {
    /// Opens at the position that the store holds. Where it holds none and the tables do, the state was lost: nothing is
    /// loaded before a rebuild ([`Loader::must_rebuild`]).
    pub fn open(log: EventLog, lake: Lake, store: Store, folder: Folder) -> Result<Loader, LoadError> {
        let progress = store.keyspace(PROGRESS)?;
        let known = position(&progress)?;
        let held = recall::held(&lake);
        if let Some(held) = held.filter(|held| *held >= log.end()) {
            return Err(LoadError::LogBehind { held, end: log.end() });
        }
        let next = known.unwrap_or_else(|| log.start());
        let forgotten = known.is_none() && held.is_some();
        let lost = recall::lost(&lake, &progress)?;
        if let Some(raw) = [raw::EVENTS, raw::QUARANTINE].into_iter().find(|raw| lost.iter().any(|table| table == raw))
            && Offset(lake.position(raw, STAGE).map_or(0, |at| at as u64 + 1)) < log.start()
        {
            return Err(LoadError::RawLost(raw));
        }
        // A commit was cut off, and the log has not what it was of.
        let torn = match (known, held) {
            (Some(next), Some(held)) if held >= next => log.read(next, 1)?.first().is_none_or(|l| l.offset > next),
            _ => false,
        };
        // What followed was lost with the log's disk, and is in no table: nothing stands there, and nothing will.
        let is_whole = !forgotten && !torn && lost.is_empty();
        let is_gone = is_whole && log.read(next, 1).is_ok_and(|left| left.is_empty());
        let next = if is_gone { next.max(log.end()) } else { next };
        if known.is_some() && progress.get(TABLES)?.is_none() {
            recall::note_versions(&lake, &store)?;
        }
        let folder = Arc::new(folder);
        Ok(Loader {
            log,
            lake,
            store,
            progress,
            folder,
            next,
            committed: next,
            pending: None,
            commit: None,
            relief: None,
            forgotten,
            lost,
            torn,
            since_trim: 0,
            place: Place::default(),
        })
        .inspect(Loader::tell)
    }

    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// The first offset that is not folded yet.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The first offset whose rows readers may not see yet: what is folded far behind the log is seen when it is committed.
    pub fn seen(&self) -> Offset {
        let hidden = self.commit.as_ref().and_then(Commit::hidden);
        hidden.or_else(|| self.pending.as_ref().and_then(Pending::hidden)).unwrap_or(self.next)
    }

    /// Loads one batch. Batches gather for a commit, which goes on while the next are folded. `None`, and everything is
    /// committed, when there is nothing to load.
    pub async fn step(&mut self) -> Result<Option<Loaded>, LoadError> {
        let mut loaded = self.fold(BATCH_BYTES, false).await?;
        while let Some(total) = loaded.as_mut()
            && self.is_behind()
        {
            let Some(more) = self.fold(BATCH_BYTES, false).await? else { break };
            *total += more;
        }
        match loaded {
            Some(_) if self.pending.as_ref().is_some_and(Pending::is_full) => {
                self.begin_commit(false).await?;
                if self.relief.as_ref().is_none_or(JoinHandle::is_finished) {
                    self.relief = publish::relieve(&self.lake);
                }
            }
            Some(_) => self.end_commit_if_over().await?,
            None => {
                self.commit().await?;
                if let Some(relief) = self.relief.take() {
                    relief.await.map_err(|e| LoadError::CutOff(e.to_string()))?;
                }
            }
        }
        Ok(loaded)
    }

    /// Whether some table holds what is still to be folded, since a commit was cut off between two tables. Until all hold it
    /// nothing is shown early and nothing committed short of it: an older row must not be laid over a newer one.
    fn is_behind(&self) -> bool {
        recall::held(&self.lake).is_some_and(|held| held >= self.next)
    }

    /// The same for whoever calls often: rows are seen at once, and committed when enough have gathered, or when they
    /// have waited long enough. Far behind the log nothing is shown early, since catching up is the faster way.
    pub async fn follow(&mut self) -> Result<Option<Loaded>, LoadError> {
        if !self.is_abreast() {
            let loaded = self.step().await?;
            self.reveal().await?;
            return Ok(loaded);
        }
        self.end_commit_if_over().await?;
        self.reveal().await?;
        let loaded = self.fold(FOLLOW_BYTES, true).await?;
        if loaded.is_some() && !self.show() {
            self.commit().await?;
        } else if self.pending.as_ref().is_some_and(Pending::is_due) {
            self.begin_commit(true).await?;
        }
        self.tell();
        Ok(loaded)
    }

    /// Whether what is folded is worth showing before it is committed.
    fn is_abreast(&self) -> bool {
        self.log.end().0.saturating_sub(self.next.0) <= CATCH_UP && !self.is_behind()
    }

    /// Begins the commit that shows what was folded far behind the log, once that is no longer so.
    async fn reveal(&mut self) -> Result<(), LoadError> {
        let hides = self.pending.as_ref().is_some_and(|pending| pending.hidden().is_some());
        if hides && self.is_abreast() { self.begin_commit(true).await } else { Ok(()) }
    }

    /// Loads what is in the log now, and returns when readers see all of it.
    pub async fn show_all(&mut self) -> Result<(), LoadError> {
        while self.follow().await?.is_some() {}
        if self.seen() < self.next {
            self.commit().await?;
        }
        Ok(())
    }

    /// Loads everything that is in the log now, and leaves the tables in their shortest form.
    pub async fn drain(&mut self, progress: &dyn Progress) -> Result<Loaded, LoadError> {
        let mut total = Loaded::default();
        let todo = self.log.end().0.saturating_sub(self.next.0);
        if todo == 0 {
            self.commit().await?;
            return Ok(total);
        }
        progress.begin("Loading tables", Some(todo), "events");
        while let Some(loaded) = self.step().await? {
            total += loaded;
            progress.at(total.events);
        }
        fold_in(&self.lake, FoldIn::Worthwhile).await?;
        note_versions(&self.lake, &self.store)?;
        progress.end(&format!("{} events", total.events));
        Ok(total)
    }

    /// Commits what was folded. After an error it is as if it had never been folded, and what the tables hold of it is
    /// recognised when it is folded again.
    pub async fn commit(&mut self) -> Result<(), LoadError> {
        self.begin_commit(false).await?;
        self.end_commit().await
    }

    /// One commit at a time: what is folded faster than it can be committed waits here for the one before.
    async fn begin_commit(&mut self, gently: bool) -> Result<(), LoadError> {
        self.end_commit().await?;
        if let Some(pending) = self.pending.take() {
            let (lake, store) = (self.lake.clone(), self.store.clone());
            let rooms = Rooms { lake, store, progress: self.progress.clone(), folder: self.folder.clone() };
            self.commit = Some(Commit::begin(rooms, pending, gently));
        }
        Ok(())
    }

    async fn end_commit_if_over(&mut self) -> Result<(), LoadError> {
        match self.commit.as_ref().is_some_and(Commit::is_over) {
            true => self.end_commit().await,
            false => Ok(()),
        }
    }

    /// Waits for the commit that is under way, if one is.
    async fn end_commit(&mut self) -> Result<(), LoadError> {
        let Some(commit) = &mut self.commit else { return Ok(()) };
        let (next, bytes, ended) = (commit.next(), commit.loaded().bytes, commit.end().await);
        self.commit = None;
        match ended {
            Ok(()) => {
                self.committed = next;
                if let Some(pending) = &mut self.pending {
                    pending.over(None);
                }
                self.show();
                self.tell();
                self.trim(bytes)
            }
            Err(error) => {
                self.fall_back();
                Err(error)
            }
        }
    }

    /// What is not committed yet, seen; false where a table must have another column first.
    fn show(&self) -> bool {
        let committing = self.commit.as_ref().map(Commit::tail);
        let tails = committing.as_deref().into_iter().chain(self.pending.as_ref().map(Pending::tail));
        self.lake.publish_with(tails.fold(Tail::of(STAGE), Tail::and))
    }

    /// Reads the next events, `bytes` of payload at most, and folds them onto what is pending. How far that is is told
    /// ([`Loader::tell`]) once it is shown.
    async fn fold(&mut self, bytes: usize, show: bool) -> Result<Option<Loaded>, LoadError> {
        if self.must_rebuild()?.is_some() {
            return Err(LoadError::HalfRebuilt);
        }
        if self.log.end() <= self.next {
            return Ok(None);
        }
        let (log, from) = (self.log.clone(), self.next);
        let events = blocking(move || Ok(log.read(from, bytes)?)).await?;
        let Some(last) = events.last().map(|e| e.offset) else { return Ok(None) };
        let again = recall::retried(&self.lake, &events).await?;
        let mut pending = self.pending.take().unwrap_or_else(|| Pending::new(from));
        pending.over(self.commit.as_ref().map(Commit::folded));
        let (folder, lake) = (self.folder.clone(), self.lake.clone());
        let folded = blocking(move || {
            let loaded = pending.add(&folder, &lake, (events, again), show)?;
            Ok((pending, loaded))
        });
        match folded.await {
            Ok((pending, loaded)) => {
                self.pending = Some(pending);
                self.next = last.next();
                Ok(Some(loaded))
            }
            Err(error) => {
                self.fall_back();
                Err(error)
            }
        }
    }

    /// To the last commit, or the one under way: what was folded since is forgotten, and no longer shown.
    fn fall_back(&mut self) {
        self.pending = None;
        self.next = self.commit.as_ref().map_or(self.committed, Commit::next);
        self.show();
        self.tell();
    }

    /// Others go by it: never before readers see it.
    fn tell(&self) {
        self.place.set(Reached { next: self.seen(), committed: self.committed });
    }

    /// The log keeps what the tables and the synced state do not hold yet, and little more.
    fn trim(&mut self, bytes: u64) -> Result<(), LoadError> {
        self.since_trim += bytes;
        if self.since_trim >= TRIM_EVERY {
            self.since_trim = 0;
            self.store.sync()?;
            self.log.trim(self.committed)?;
        }
        Ok(())
    }
}

/// Work that would hold up everything else on the runtime's threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    // Boxed, as a task's code is compiled for each type of work.
    let work: Box<dyn FnOnce() -> Result<T, LoadError> + Send> = Box::new(work);
    tokio::task::spawn_blocking(work).await.map_err(|e| LoadError::CutOff(e.to_string()))?
}
