//! The durable event log: every verified event, once, in the order in which it was taken.
//!
//! What must always hold: an append that was answered with `Ok` is on disk; an event whose identity the log holds, or
//! ever held, is not stored twice; offsets only grow and are never given to another event; a reader never sees an
//! event that a power cut could still take back. The log never changes an event, nor reads its payload.
//!
//! The embedded log is a folder of segment files (`segment`, `record`) with one writer (`writer`), an index of
//! identities in the store (`index`), readers (`reader`) and what happens at start (`recover`). `EventLog` hides which
//! log it is and every verb here names only envelopes and offsets, so that a log kept by brokers can stand beside the
//! embedded one without its callers knowing.

mod disk;
mod error;
mod index;
mod reader;
mod record;
mod recover;
mod request;
mod segment;
mod shared;
mod writer;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{Semaphore, oneshot, watch};

pub use self::{
    disk::{Disk, OsDisk},
    error::{AppendError, LogError},
    shared::{LogSize, LogStats},
};
use self::{index::Index, request::Request, shared::Shared};
use crate::{
    base::{Envelope, Logged, Offset},
    store::Store,
};

/// What became of one envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Stored(Offset),
    /// It was in the log already. A log kept by brokers does not know where.
    Duplicate(Option<Offset>),
}

/// How the embedded log works; the default is right outside tests.
#[derive(Clone)]
pub struct Options {
    /// A segment that has reached this size is followed by the next one.
    pub segment_bytes: u64,
    /// What may wait for the writer, in payload bytes.
    pub queue_bytes: usize,
    /// What one sync may cover, in payload bytes.
    pub group_bytes: usize,
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, queue_bytes: 32 << 20, group_bytes: 8 << 20, disk: Arc::new(OsDisk) }
    }
}

/// The opened log. Clones are the same log; when the last is dropped, what is queued is written and the files closed.
#[derive(Clone)]
pub struct EventLog(Arc<Embedded>);

struct Embedded {
    shared: Arc<Shared>,
    index: Index,
    /// Room in the queue. Waiters are served in the order in which they came.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl EventLog {
    /// Opens the log in `dir`, or makes it; its index of identities is in `store`.
    ///
    /// A last record that a power cut left unfinished is cut off. Anything else that is damaged is an error that
    /// names the file and the place, and nothing is changed.
    pub fn open(dir: &Path, store: &Store) -> Result<EventLog, LogError> {
        EventLog::open_with(dir, store, Options::default())
    }

    pub fn open_with(dir: &Path, store: &Store, options: Options) -> Result<EventLog, LogError> {
        let index = Index::open(store)?;
        let recovered = recover::recover(dir, &index, options.disk.as_ref())?;
        let shared = Arc::new(Shared::new(dir, recovered.segments, recovered.end));
        recover::catch_up(&shared, &index)?;
        let queue_bytes = options.queue_bytes.clamp(1, u32::MAX as usize);
        let (queue, requests) = mpsc::channel();
        let writer = writer::start(shared.clone(), index.clone(), recovered.active, options, requests)?;
        Ok(EventLog(Arc::new(Embedded {
            shared,
            index,
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            queue: Some(queue),
            writer: Some(writer),
        })))
    }

    /// Stores what the log does not hold yet, and says of each envelope, in order, what became of it. Waits for room
    /// in the queue; returns when all of it is on disk. After an error some of it may have been stored: append it
    /// again, and that part is found to be duplicates.
    pub async fn append(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        let mut answers = Vec::new();
        for part in request::parts(envelopes) {
            let (request, answer) = request::prepare(&part)?;
            let room = self.0.room.clone().acquire_many_owned(self.cost(&request)).await;
            self.send(request.with_room(room.map_err(|_| AppendError::Closed)?))?;
            answers.push(answer);
        }
        gather(answers).await
    }

    /// As [`EventLog::append`], but [`AppendError::Full`] at once where the queue has no room: for callers who must
    /// not keep their own clients waiting.
    pub async fn offer(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        let (request, answer) = request::prepare(&envelopes)?;
        let room = self.0.room.clone().try_acquire_many_owned(self.cost(&request));
        self.send(request.with_room(room.map_err(|_| AppendError::Full)?))?;
        gather(vec![answer]).await
    }

    /// The first offset that is not on disk yet: one past the last event.
    pub fn end(&self) -> Offset {
        self.0.shared.end()
    }

    /// Follows [`EventLog::end`].
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.0.shared.watch()
    }

    /// The oldest offset kept.
    pub fn start(&self) -> Offset {
        self.0.shared.start()
    }

    /// Events from `from` on, up to `max_bytes` of payload; one at least, if there is any. Blocks on the disk. Reading
    /// on from where an earlier read ended needs no search.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Vec<Logged>, LogError> {
        self.0.shared.read(from, max_bytes)
    }

    /// Deletes the segments all of whose events are below `before`, as far as their identities are on disk in the
    /// index. Returns the bytes freed.
    pub fn trim(&self, before: Offset) -> Result<u64, LogError> {
        let known = self.0.index.sync()?;
        self.0.shared.trim(before.min(known))
    }

    /// Takes up again the identities (see [`Envelope::identity`]) of events that were trimmed, after the index was lost with
    /// the store: they are known as duplicates then. Blocks on the disk.
    pub fn restore(&self, identities: &[(Vec<u8>, Offset)]) -> Result<(), LogError> {
        Ok(self.0.index.restore(identities)?)
    }

    /// Why it takes no more events, if it does not.
    pub fn stopped(&self) -> Option<AppendError> {
        self.0.shared.check().err()
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.0.shared.stats()
    }

    /// What it holds, and what waits to be put into it.
    pub fn size(&self) -> LogSize {
        let segments = self.0.shared.segments();
        LogSize {
            queued_bytes: self.0.queue_bytes.saturating_sub(self.0.room.available_permits()) as u64,
            kept_bytes: segments.iter().map(|s| s.durable().1).sum(),
            segments: segments.len() as u64,
        }
    }

    fn cost(&self, request: &Request) -> u32 {
        u32::try_from(request.bytes().min(self.0.queue_bytes)).unwrap_or(u32::MAX)
    }

    fn send(&self, request: Request) -> Result<(), AppendError> {
        self.0.shared.check()?;
        let queue = self.0.queue.as_ref().ok_or(AppendError::Closed)?;
        queue.send(request).map_err(|_| AppendError::Closed)
    }
}

async fn gather(
    answers: Vec<oneshot::Receiver<Result<Vec<Appended>, AppendError>>>,
) -> Result<Vec<Appended>, AppendError> {
    let mut all = Vec::new();
    for answer in answers {
        all.append(&mut answer.await.map_err(|_| AppendError::Closed)??);
    }
    Ok(all)
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer ended abnormally; what was acknowledged is on disk");
        }
    }
}

#[cfg(test)]
mod tests;
