//! What the writer publishes and everyone else reads: the segments, how far they are durable, the counts.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use super::{
    error::{AppendError, LogError},
    segment::Segment,
    trim,
};
use crate::{base::Offset, store::sync_dir};

/// Counts since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Events stored.
    pub events: u64,
    pub duplicates: u64,
    /// Groups stored: one sync each. Syncs of new segments' headers and of directories are not counted.
    pub syncs: u64,
    /// All of them together.
    pub sync_micros: u64,
    /// Written to segments, headers included.
    pub bytes: u64,
    /// Groups refused because the disk took no more.
    pub refused: u64,
}

/// What the log holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSize {
    /// What waits for the writer.
    pub queued_bytes: u64,
    pub kept_bytes: u64,
    pub segments: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub events: AtomicU64,
    pub duplicates: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_micros: AtomicU64,
    pub bytes: AtomicU64,
    pub refused: AtomicU64,
}

pub(super) struct Shared {
    pub dir: PathBuf,
    pub counters: Counters,
    /// Ascending, never empty. The last is written to.
    segments: RwLock<Vec<Arc<Segment>>>,
    end: watch::Sender<Offset>,
    stopped: OnceLock<AppendError>,
    /// Where the last few readers ended, latest last.
    pub(super) cursors: Mutex<Vec<Cursor>>,
}

/// A place in a segment where the block of an offset begins.
pub(super) struct Cursor {
    pub segment: Arc<Segment>,
    pub file: Arc<File>,
    pub offset: u64,
    pub position: u64,
}

impl Shared {
    pub fn new(dir: &Path, segments: Vec<Arc<Segment>>, end: u64) -> Shared {
        Shared {
            dir: dir.to_owned(),
            counters: Counters::default(),
            segments: RwLock::new(segments),
            end: watch::Sender::new(Offset(end)),
            stopped: OnceLock::new(),
            cursors: Mutex::default(),
        }
    }

    pub fn end(&self) -> Offset {
        *self.end.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    pub fn start(&self) -> Offset {
        Offset(self.segments().first().map_or(0, |s| s.first))
    }

    /// Everything below `end` is durable.
    pub fn publish(&self, end: u64) {
        self.end.send_replace(Offset(end));
    }

    pub fn segments(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_segment(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Fails where the log has stopped taking events.
    pub fn check(&self) -> Result<(), AppendError> {
        self.stopped.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// No more events are taken, by this process.
    pub fn stop(&self, reason: String) -> AppendError {
        tracing::error!(log = %self.dir.display(), "the log takes no more events since {reason}");
        self.stopped.get_or_init(|| AppendError::Stopped { reason }).clone()
    }

    /// Lets go of whole segments that end at or below `before`, oldest first, never of the one that is written to. Returns
    /// the bytes that are freed, by and by or `at_once`.
    pub fn trim(&self, before: Offset, at_once: bool) -> Result<u64, LogError> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        let mut left = Ok(());
        while let [oldest, _, ..] = segments.as_slice()
            && oldest.durable().0 <= before.0
        {
            left = trim::leave(oldest).map_err(LogError::io(&oldest.path));
            if left.is_err() {
                break;
            }
            gone.push(segments.remove(0));
        }
        let start = segments.first().map_or(0, |s| s.first);
        drop(segments);
        if gone.is_empty() {
            return left.map(|()| 0);
        }
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).retain(|c| c.segment.first >= start);
        let synced = sync_dir(&self.dir).map_err(LogError::io(&self.dir));
        let freed = gone.iter().map(|segment| segment.durable().1).sum();
        let removed = match at_once {
            true => gone.iter().try_for_each(|segment| trim::remove_left(segment)),
            false => {
                trim::give_back(gone);
                Ok(())
            }
        };
        left.and(synced).and(removed.map_err(LogError::io(&self.dir))).map(|()| freed)
    }

    pub fn stats(&self) -> LogStats {
        let c = &self.counters;
        LogStats {
            events: c.events.load(Relaxed),
            duplicates: c.duplicates.load(Relaxed),
            syncs: c.syncs.load(Relaxed),
            sync_micros: c.sync_micros.load(Relaxed),
            bytes: c.bytes.load(Relaxed),
            refused: c.refused.load(Relaxed),
        }
    }
}
