//! The durable event log: every verified event, once, in the order in which it was taken.
//!
//! What must always hold: an append that was answered with `Ok` is on disk; an event whose identity the log holds, or
//! ever held, is not stored twice; offsets only grow and are never given to another event; a reader never sees an
//! event that a power cut could still take back. The log never changes an event, nor reads its payload.
//!
//! The embedded log (`embedded`) is a folder of segment files (`segment`, `block`, `record`) with one writer (`writer`), an index
//! of identities in the store (`index`) that another thread fills (`keeper`), readers (`reader`), what happens at start
//! (`recover`) and what is let go of (`trim`). Where brokers keep the log (`kafka`), an append goes to them first, and the
//! embedded log is this directory's ordered copy of theirs without the duplicates: whatever reads, reads that one, and
//! does not know of brokers.

mod block;
mod disk;
mod embedded;
mod error;
mod index;
#[cfg_attr(not(feature = "kafka"), path = "no_kafka.rs")]
mod kafka;
mod keeper;
mod reader;
mod record;
mod recover;
mod request;
mod segment;
mod shared;
mod trim;
mod writer;

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

pub use self::{
    disk::{Disk, OsDisk},
    error::{AppendError, LogError},
    shared::{LogSize, LogStats},
};
use self::{embedded::Embedded, kafka::Brokers};
use crate::{
    base::{Envelope, Identity, Logged, Offset},
    config::{Log, LogKind},
    store::Store,
};

/// What became of one envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Stored(Offset),
    /// It was in the log already, there.
    Duplicate(Offset),
    /// It is with the brokers; whether it is new is found when they give it back.
    Delivered,
}

/// How the embedded log works; the default is right outside tests.
#[derive(Clone)]
pub struct Options {
    /// A segment whose file has reached this size is followed by the next one.
    pub segment_bytes: u64,
    /// What may wait for the writer, in payload bytes.
    pub queue_bytes: usize,
    /// What one sync may cover, in payload bytes.
    pub group_bytes: usize,
    /// The first offset that no table holds: what is before it stays known should the log's end be lost.
    pub held: Offset,
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        let (segment_bytes, queue_bytes, group_bytes) = (64 << 20, 32 << 20, 8 << 20);
        Options { segment_bytes, queue_bytes, group_bytes, held: Offset(0), disk: Arc::new(OsDisk) }
    }
}

/// The opened log. Clones are the same log; when the last is dropped, what is queued is written and the files closed.
#[derive(Clone)]
pub struct EventLog(Arc<Opened>);

struct Opened {
    /// Ended, as the fields are dropped in this order, before the log that they write to.
    brokers: Option<Brokers>,
    embedded: Arc<Embedded>,
}

impl EventLog {
    /// Opens the log in `dir`, or makes it; its index of identities is in `store`.
    ///
    /// A last block that a power cut left unfinished is cut off. Anything else that is damaged is an error that
    /// names the file and the place, and nothing is changed.
    pub fn open(dir: &Path, store: &Store) -> Result<EventLog, LogError> {
        EventLog::open_with(dir, store, Options::default())
    }

    pub fn open_with(dir: &Path, store: &Store, options: Options) -> Result<EventLog, LogError> {
        let embedded = Arc::new(Embedded::open(dir, store, options)?);
        Ok(EventLog(Arc::new(Opened { brokers: None, embedded })))
    }

    /// The log that the settings want; `held` as in [`Options`]. Nothing comes from brokers before [`EventLog::follow`].
    pub fn of(settings: &Log, dir: &Path, store: &Store, held: Offset) -> Result<EventLog, LogError> {
        let options = Options { segment_bytes: u64::from(settings.segment_mib) << 20, held, ..Options::default() };
        let embedded = Arc::new(Embedded::open(dir, store, options)?);
        let brokers = match settings.kind {
            LogKind::Embedded => None,
            LogKind::Kafka => Some(Brokers::join(settings, store, embedded.clone())?),
        };
        Ok(EventLog(Arc::new(Opened { brokers, embedded })))
    }

    /// From now on what brokers have comes in here. Before, the index must know all that was ever held
    /// ([`EventLog::restore`]). They need not be up: until they are nothing is taken, and what is here is read.
    pub fn follow(&self) -> Result<(), LogError> {
        self.0.brokers.as_ref().map_or(Ok(()), Brokers::follow)
    }

    /// Stores what the log does not hold yet, and says of each envelope, in order, what became of it. Waits for room
    /// in the queue; returns when all of it is on disk, and read from here on. After an error some of it may have been
    /// stored: append it again, and that part is found to be duplicates.
    pub async fn append(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        match &self.0.brokers {
            None => self.0.embedded.append(envelopes).await,
            Some(brokers) => brokers.append(envelopes).await,
        }
    }

    /// As [`EventLog::append`], but [`AppendError::Full`] at once where the queue has no room: for callers who must
    /// not keep their own clients waiting. Brokers answer before this log has the events.
    pub async fn offer(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        match &self.0.brokers {
            None => self.0.embedded.offer(&envelopes).await,
            Some(brokers) => brokers.offer(&envelopes).await,
        }
    }

    /// Returns when everything that was acknowledged before the call, by whichever process, can be read here; at once
    /// before [`EventLog::follow`].
    pub async fn catch_up(&self) -> Result<(), AppendError> {
        match &self.0.brokers {
            None => Ok(()),
            Some(brokers) => brokers.catch_up().await,
        }
    }

    /// Whether other processes may append to it as well.
    pub fn is_shared(&self) -> bool {
        self.0.brokers.is_some()
    }

    /// The first offset that is not on disk yet: one past the last event.
    pub fn end(&self) -> Offset {
        self.0.embedded.shared.end()
    }

    /// Follows [`EventLog::end`].
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.0.embedded.shared.watch()
    }

    /// The oldest offset kept.
    pub fn start(&self) -> Offset {
        self.0.embedded.shared.start()
    }

    /// Events from `from` on, up to `max_bytes` of payload; one at least, if there is any. Blocks on the disk. Reading
    /// on from where an earlier read ended needs no search.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Vec<Logged>, LogError> {
        self.0.embedded.shared.read(from, max_bytes)
    }

    /// Goes on in a new segment: all before can be [trimmed](EventLog::trim). Returns where it begins.
    pub async fn begin_segment(&self) -> Result<Offset, AppendError> {
        self.0.embedded.begin_segment().await
    }

    /// Lets go of the segments all of whose events are below `before`, as far as their identities are on disk in the
    /// index. Returns the bytes that are freed by and by.
    pub fn trim(&self, before: Offset) -> Result<u64, LogError> {
        self.0.embedded.trim(before, false)
    }

    /// The same, and the files are removed before it returns, whoever waits for the disk meanwhile.
    pub fn remove(&self, before: Offset) -> Result<u64, LogError> {
        self.0.embedded.trim(before, true)
    }

    /// Takes up again the identities of events that were trimmed, after the index was lost with the store: they are known as
    /// duplicates then. Blocks on the disk.
    pub fn restore(&self, events: &[(Identity<'_>, Offset)]) -> Result<(), LogError> {
        self.0.embedded.restore(events)
    }

    /// Why it takes no events now, if it does not.
    pub fn stopped(&self) -> Option<AppendError> {
        self.broken().or_else(|| self.0.brokers.as_ref()?.stopped())
    }

    /// Why it takes none before it is opened again, if so. Brokers may come back.
    pub fn broken(&self) -> Option<AppendError> {
        self.0.embedded.shared.check().err()
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.0.embedded.shared.stats()
    }

    /// What it holds, and what waits to be put into it.
    pub fn size(&self) -> LogSize {
        self.0.embedded.size()
    }
}

#[cfg(test)]
mod tests;
