//! The loader: reads the log, folds what it read into rows, commits rows to the lake, then its own state.
//!
//! The law of the place: rows reach a table together with the log offset they are true to (Delta's application
//! transaction), and the state that made them is written after. So a crash between the two repeats a batch whose rows
//! the tables recognise by their offsets, and a crash anywhere loses and doubles nothing, wherever the next batch is cut.
//! One loader owns a directory's tables; nothing else writes `raw`, `core` or the folded tables of `ops`.

mod fold;
mod people;
mod publish;
mod rebuild;

use std::{ops::AddAssign, time::Instant};

pub use fold::Folder;
pub use rebuild::{Refolded, Until, refold};

use crate::{
    base::{Offset, Progress},
    facts::{BatchError, StateError},
    lake::{Lake, LakeError},
    log::{EventLog, LogError},
    store::{Keyspace, Store, StoreError},
    telemetry,
};

/// The application id of the loader's commits.
pub(crate) const STAGE: &str = "load";

/// Payload bytes folded at once: large enough that a commit's fixed cost does not show, small enough that what is in
/// flight (decoded rows take some three times the payload) stays under a few hundred MB.
const BATCH_BYTES: usize = 48 << 20;

/// Payload bytes between two trims of the log. State must be synced first, which is not free.
const TRIM_EVERY: u64 = 256 << 20;

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
    #[error("a rebuild was cut off and must be done again: run `tillstream rebuild`, or restart serve, which does it")]
    HalfRebuilt,
    #[error("the loader's work was cut off: {0}")]
    CutOff(String),
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
    folder: std::sync::Arc<Folder>,
    next: Offset,
    since_trim: u64,
}

impl Loader {
    pub fn open(log: EventLog, lake: Lake, store: Store, folder: Folder) -> Result<Loader, LoadError> {
        let progress = store.keyspace("load")?;
        let next = match progress.get(b"next")? {
            Some(bytes) => Offset(u64::from_be_bytes(bytes.as_ref().try_into().unwrap_or_default())),
            None => log.start(),
        };
        Ok(Loader { log, lake, store, progress, folder: folder.into(), next, since_trim: 0 })
    }

    /// The first offset not yet in the tables.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Loads one batch; `None` when there is nothing to load.
    pub async fn step(&mut self) -> Result<Option<Loaded>, LoadError> {
        if self.is_half_rebuilt()? {
            return Err(LoadError::HalfRebuilt);
        }
        let began = Instant::now();
        let (log, folder, from) = (self.log.clone(), self.folder.clone(), self.next);
        let work = tokio::task::spawn_blocking(move || {
            let events = log.read(from, BATCH_BYTES)?;
            let folded = folder.fold(&events)?;
            Ok::<_, LoadError>((events, folded))
        });
        let (events, folded) = work.await.map_err(|e| LoadError::CutOff(e.to_string()))??;
        let Some(last) = events.last().map(|e| e.offset) else { return Ok(None) };
        let loaded = Loaded {
            events: events.len() as u64,
            bytes: events.iter().map(|e| e.envelope.payload.len() as u64).sum(),
            rejected: folded.rejected,
            quarantined_facts: folded.quarantined.len() as u64 - folded.rejected,
            unhandled: folded.unhandled,
        };
        let mut batch = self.store.batch();
        folded.store_changes(&self.folder, &mut batch)?;
        publish::publish(&self.lake, self.folder.merchant_id(), events, folded, last).await?;
        batch.put(&self.progress, b"next", last.next().0.to_be_bytes());
        batch.commit()?;
        self.next = last.next();
        self.trim(loaded.bytes)?;
        let behind = self.log.end().0.saturating_sub(self.next.0);
        telemetry::loaded(
            loaded.events,
            loaded.rejected + loaded.quarantined_facts,
            began.elapsed().as_secs_f64(),
            behind,
        );
        telemetry::unhandled_type(loaded.unhandled);
        Ok(Some(loaded))
    }

    /// Loads everything that is in the log now, and leaves the tables in their shortest form.
    pub async fn drain(&mut self, progress: &dyn Progress) -> Result<Loaded, LoadError> {
        let mut total = Loaded::default();
        let todo = self.log.end().0.saturating_sub(self.next.0);
        if todo == 0 {
            return Ok(total);
        }
        progress.begin("Loading tables", Some(todo), "events");
        while let Some(loaded) = self.step().await? {
            total += loaded;
            progress.at(total.events);
        }
        self.fold_in().await?;
        progress.end(&format!("{} events", total.events));
        Ok(total)
    }

    /// Lays gathered changes into their base tables where there are enough of them to be worth the rewrite.
    pub async fn fold_in(&self) -> Result<(), LoadError> {
        publish::fold_in(&self.lake).await
    }

    /// The log keeps what the tables and the synced state do not hold yet, and little more.
    fn trim(&mut self, bytes: u64) -> Result<(), LoadError> {
        self.since_trim += bytes;
        if self.since_trim >= TRIM_EVERY {
            self.since_trim = 0;
            self.store.sync()?;
            self.log.trim(self.next)?;
        }
        Ok(())
    }
}
