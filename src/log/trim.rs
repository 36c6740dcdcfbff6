//! Segments that nobody needs any more, given back to the disk little by little.
//!
//! Where the file system tells the disk at once of what is freed (`discard`), removing a large file keeps everybody else's
//! syncs waiting, those of the log above all. So a segment leaves the log under another name, and its file is shortened step
//! by step, on a thread of its own, before it is removed. What the process's end leaves so is removed at the next start.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::segment::Segment;

/// Shortened by so much at a time, …
const STEP: u64 = 4 << 20;
/// … with so long a pause for others' syncs.
const PAUSE: Duration = Duration::from_millis(10);
/// Readers that are in the middle of it get so many pauses to come to their end; then the file is removed whole, which they
/// do not feel.
const PATIENCE: usize = 1000;

/// How the file of a segment that left the log is called.
pub(super) const TRIMMED: &str = "old";

/// Takes a segment's file out of the log: what lies under its name is no part of it any more.
pub(super) fn leave(segment: &Segment) -> io::Result<()> {
    fs::rename(&segment.path, trimmed(&segment.path))
}

/// Gives the space of segments that left back, by and by.
pub(super) fn give_back(segments: Vec<Arc<Segment>>) {
    let all = move || {
        for segment in segments {
            let path = trimmed(&segment.path);
            if let Err(error) = shorten(segment, &path).and_then(|()| remove(&path)) {
                tracing::warn!(file = %path.display(), "a trimmed part of the log is removed at the next start: {error}");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("log-trim".into()).spawn(all) {
        tracing::warn!("trimmed parts of the log are removed at the next start: {error}");
    }
}

fn shorten(segment: Arc<Segment>, path: &Path) -> io::Result<()> {
    for _ in 0..PATIENCE {
        if Arc::strong_count(&segment) == 1 {
            let file = match OpenOptions::new().write(true).open(path) {
                // The next start was earlier.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                opened => opened?,
            };
            let mut length = file.metadata()?.len();
            while length > STEP {
                length -= STEP;
                file.set_len(length)?;
                thread::sleep(PAUSE);
            }
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Removes the file of a segment that left.
pub(super) fn remove_left(segment: &Segment) -> io::Result<()> {
    remove(&trimmed(&segment.path))
}

/// Removes a file that left the log, if nobody did yet.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn trimmed(path: &Path) -> PathBuf {
    path.with_extension(TRIMMED)
}
