//! Segment files: a header that names the first offset, then blocks of events without a gap.
//!
//! ```text
//! "TILLSLOG" 8 | format 4 | first offset 8 | end of the segment before 8 | crc32 of all that 4 | blocks
//! ```
//!
//! The file is named after its first offset. It appears under its name only when its header is on disk. Between two
//! segments the offsets may jump (the header says from where): after a loss, offsets that were given out are not used
//! again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    block::{self, HEADER, Header, Parsed, number, word},
    disk::Disk,
    error::LogError,
    trim::{self, TRIMMED},
};
use crate::{base::Offset, store::sync_dir};

pub(super) const FILE_HEADER: u64 = 32;
const MAGIC: &[u8; 8] = b"TILLSLOG";
const FORMAT: u32 = 3;
/// A reader that begins anywhere reads at most this much, and a block, to find its place.
const MARK_EVERY: u64 = 64 << 10;
/// What is read at a time.
const CHUNK: u64 = 1 << 20;

/// One segment and how far it is durable.
pub(super) struct Segment {
    pub first: u64,
    pub path: PathBuf,
    extent: Mutex<Extent>,
}

/// The durable part of a segment.
#[derive(Clone, Default)]
pub(super) struct Extent {
    /// One past the last offset.
    pub end: u64,
    /// In bytes, of the file.
    pub length: u64,
    /// Of some blocks, ascending: first offset and place.
    places: Vec<(u64, u64)>,
}

impl Extent {
    pub fn new(first: u64) -> Extent {
        Extent { end: first, length: FILE_HEADER, places: vec![(first, FILE_HEADER)] }
    }

    /// Of a segment whose blocks were not read.
    pub fn whole(first: u64, end: u64, length: u64) -> Extent {
        Extent { end, length, ..Extent::new(first) }
    }

    /// Notes a block that begins at `position`, now and then.
    pub fn pass(&mut self, offset: u64, position: u64) {
        if self.places.last().is_none_or(|(_, last)| position >= last + MARK_EVERY) {
            self.places.push((offset, position));
        }
    }
}

impl Segment {
    pub fn new(dir: &Path, first: u64, extent: Extent) -> Segment {
        Segment { first, path: path(dir, first), extent: Mutex::new(extent) }
    }

    /// One past the last durable offset, and the file's durable length.
    pub fn durable(&self) -> (u64, u64) {
        let extent = self.lock();
        (extent.end, extent.length)
    }

    /// The place of a block that begins at or before `offset`.
    pub fn place(&self, offset: u64) -> (u64, u64) {
        let extent = self.lock();
        let after = extent.places.partition_point(|(o, _)| *o <= offset);
        after.checked_sub(1).and_then(|i| extent.places.get(i)).copied().unwrap_or((self.first, FILE_HEADER))
    }

    /// More of it has become durable: blocks that begin at `places` (offset, position).
    pub fn extend(&self, places: impl Iterator<Item = (u64, u64)>, end: u64, length: u64) {
        let mut extent = self.lock();
        places.for_each(|(offset, position)| extent.pass(offset, position));
        extent.end = end;
        extent.length = length;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// The first offsets of the segments in `dir`, ascending. Removes what a killed process left unfinished.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|e| e.to_str())) {
            (_, Some("new")) => fs::remove_file(&path)?,
            (_, Some(TRIMMED)) => trim::remove(&path)?,
            (Some(stem), Some("seg")) if stem.len() == 20 => firsts.extend(stem.parse::<u64>().ok()),
            _ => {}
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Writes the file of the segment that begins at `first`, under another name as yet; returns it open for writing.
pub(super) fn prepare(dir: &Path, first: u64, previous_end: u64, disk: &dyn Disk) -> io::Result<File> {
    let path = unfinished(dir, first);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    if let Err(e) = disk.write(&file, &header(first, previous_end), 0).and_then(|()| disk.sync(&file)) {
        fs::remove_file(&path)?;
        return Err(e);
    }
    Ok(file)
}

/// Gives a prepared segment its name. After an error nobody knows which name it has.
pub(super) fn publish(dir: &Path, first: u64) -> io::Result<()> {
    fs::rename(unfinished(dir, first), path(dir, first))?;
    sync_dir(dir)
}

fn unfinished(dir: &Path, first: u64) -> PathBuf {
    path(dir, first).with_extension("new")
}

fn header(first: u64, previous_end: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&previous_end.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Proves the header of the segment that begins at `first`; returns where the one before it ended.
pub(super) fn check_header(file: &File, path: &Path, first: u64) -> Result<u64, LogError> {
    let corrupt = |reason| LogError::Corrupt { path: path.to_owned(), position: 0, offset: Offset(first), reason };
    let mut bytes = [0; FILE_HEADER as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(corrupt("its header is cut short")),
        other => other.map_err(LogError::io(path))?,
    }
    if bytes[..8] != *MAGIC || crc32fast::hash(&bytes[..28]) != word(&bytes, 28) {
        return Err(corrupt("its header is not one of a segment"));
    }
    if word(&bytes, 8) != FORMAT {
        return Err(LogError::Format { path: path.to_owned(), found: word(&bytes, 8), known: FORMAT });
    }
    if number(&bytes, 12) != first {
        return Err(corrupt("its header names another first event: the file was renamed"));
    }
    Ok(number(&bytes, 20))
}

/// Walks over the blocks of a file from a place where one begins, up to `limit` bytes of the file.
pub(super) struct Scan<'f> {
    file: &'f File,
    /// Of the next block.
    pub position: u64,
    limit: u64,
    chunk_bytes: u64,
    chunk: Bytes,
}

pub(super) enum Step {
    /// A block, as it is packed.
    Block(Header, Bytes),
    End,
    /// No whole block begins at the position.
    Broken(&'static str),
}

impl<'f> Scan<'f> {
    pub fn new(file: &'f File, position: u64, limit: u64) -> Scan<'f> {
        Scan { file, position, limit, chunk_bytes: CHUNK, chunk: Bytes::new() }
    }

    /// For a reader that wants about so many bytes in all.
    pub fn expecting(mut self, bytes: usize) -> Scan<'f> {
        self.chunk_bytes = (bytes as u64).saturating_add(4096).min(CHUNK);
        self
    }

    pub fn next(&mut self) -> io::Result<Step> {
        if self.position >= self.limit {
            return Ok(Step::End);
        }
        loop {
            match block::parse(&self.chunk) {
                Parsed::Block(header) => {
                    let block = self.chunk.split_to(HEADER + header.packed);
                    self.position += block.len() as u64;
                    return Ok(Step::Block(header, block.slice(HEADER..)));
                }
                Parsed::Bad(reason) => return Ok(Step::Broken(reason)),
                Parsed::Needs(bytes) => {
                    let left = self.limit - self.position;
                    if bytes as u64 > left {
                        return Ok(Step::Broken("it is cut short"));
                    }
                    self.load(left.min(self.chunk_bytes.max(bytes as u64)))?;
                }
            }
        }
    }

    fn load(&mut self, bytes: u64) -> io::Result<()> {
        let mut chunk = vec![0; bytes as usize];
        self.file.read_exact_at(&mut chunk, self.position)?;
        self.chunk = chunk.into();
        Ok(())
    }
}
