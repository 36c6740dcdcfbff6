//! What can go wrong with the log, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    base::Offset,
    store::{StoreError, remedy},
};

/// Of opening, reading and trimming.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{}: damaged at byte {position}, where event {offset} should stand: {reason}. This is no unfinished write, so \
         nothing was cut and the log stays closed. Restore this file from a backup",
        path.display()
    )]
    Corrupt { path: PathBuf, position: u64, offset: Offset, reason: &'static str },
    #[error(
        "{}: events {from} to {last} are gone: a segment file is missing or was cut short, so the log stays closed. \
         Restore the log folder from a backup, together with the state folder",
        path.display()
    )]
    Missing { path: PathBuf, from: Offset, last: Offset },
    #[error("{}: written in format {found}, and this program reads format {known}: use the tillstream that wrote it", path.display())]
    Format { path: PathBuf, found: u32, known: u32 },
    #[error("event {from} was trimmed from the log; the oldest kept is {start}: read from there")]
    Trimmed { from: Offset, start: Offset },
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("the log's brokers: {0}")]
    Brokers(String),
    #[error("the log's index: {0}")]
    Index(#[from] StoreError),
}

impl LogError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.to_owned();
        move |source| LogError::Io { path, source }
    }
}

/// Of appending. One error may answer many callers, hence text and not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the log's queue is full: try again in a second")]
    Full,
    #[error("event {event_id:?} has {bytes} bytes, and the log takes {limit} at most")]
    TooLarge { event_id: String, bytes: usize, limit: usize },
    #[error("not stored: {reason}")]
    Write { reason: String },
    #[error("the log takes no more events since {reason}: see that its disk is sound, then start again")]
    Stopped { reason: String },
    #[error("the log is closed: start again")]
    Closed,
}

impl AppendError {
    /// Whether the same append may succeed later in this process.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AppendError::Full | AppendError::Write { .. })
    }
}
