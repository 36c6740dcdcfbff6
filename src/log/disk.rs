//! How the writer touches the disk, in one place, so that a test can let it fail.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// What the log leaves free: room for the state and the tables that follow from what it has taken.
const RESERVE: u64 = 64 << 20;

pub trait Disk: Send + Sync + 'static {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// The bytes of the file and what is needed to find them again.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Bytes that may yet be written to the disk that `dir` is on.
    ///
    /// The store stops for good when its disk is full, and what the log takes must still get through the later
    /// stages: so the log is the first to find the disk full, at 64 MiB before the end or, on a small disk, 5%.
    fn room(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        let reserve = RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20);
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(reserve))
    }
}

/// The disk as the operating system gives it.
pub struct OsDisk;

impl Disk for OsDisk {}
