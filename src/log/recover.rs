//! What happens when the log is opened: every block is proven, an unfinished end is cut, the index is caught up.
//!
//! An end is unfinished if it can have been written without having been synced. That is so where no whole block
//! stands behind the broken one, or only blocks of its own group, of which the index does not know. A whole block
//! of a later group proves that the broken one was on disk once: that is damage, and nothing is changed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    block::{self, MAGIC, Parsed},
    disk::Disk,
    error::LogError,
    index::{Covered, Index, Keys, Proof},
    segment::{self, Extent, FILE_HEADER, Scan, Segment, Step},
    shared::Shared,
    writer::Active,
};
use crate::{base::Offset, store::sync_dir};

pub(super) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    pub active: Active,
    pub end: u64,
}

/// How much of the log is read at a time to catch up.
const CATCH_UP_BYTES: usize = 8 << 20;

/// `held`: the first offset that the tables do not hold.
pub(super) fn recover(dir: &Path, index: &Index, held: Offset, disk: &dyn Disk) -> Result<Recovered, LogError> {
    make_dir(dir).map_err(LogError::io(dir))?;
    let covered = index.covered()?;
    let firsts = segment::list(dir).map_err(LogError::io(dir))?;
    let Some((&last, sealed)) = firsts.split_last() else {
        return begin(dir, covered, disk);
    };
    let mut segments = Vec::new();
    let mut end = None;
    for &first in sealed {
        let extent = prove_sealed(dir, first, end, index)?;
        end = Some(extent.end);
        segments.push(Arc::new(Segment::new(dir, first, extent)));
    }
    let known = covered.map_or(0, |c| c.end);
    let active = prove_last(dir, last, end, known, disk)?;
    segments.push(active.segment.clone());
    let found = Recovered { segments, end: active.next, active };
    match covered {
        Some(covered) if covered.end > found.end => skip_lost(dir, index, covered, found, (held, disk)),
        _ => Ok(found),
    }
}

/// Adds to the index what the log holds beyond it.
pub(super) fn catch_up(shared: &Shared, index: &Index) -> Result<(), LogError> {
    let mut next = index.covered()?.map_or(0, |c| c.end).max(shared.start().0);
    loop {
        let events = shared.read(Offset(next), CATCH_UP_BYTES)?;
        let Some(last) = events.last() else {
            return Ok(());
        };
        next = last.offset.0 + 1;
        let segments = shared.segments();
        let segment = segments.partition_point(|s| s.first < next);
        let covered = Covered { end: next, segment: segments[segment.saturating_sub(1)].first };
        drop(segments);
        let missing = index.missing(events.iter().map(|e| (Keys::of(&e.envelope), e.offset)))?;
        index.add(missing.into_iter(), covered)?;
    }
}

/// The first segment of a new log.
fn begin(dir: &Path, covered: Option<Covered>, disk: &dyn Disk) -> Result<Recovered, LogError> {
    if let Some(covered) = covered.filter(|c| c.end > 0) {
        return Err(missing(dir, covered.segment, covered.end));
    }
    let active = next_segment(dir, 0, 0, disk)?;
    Ok(Recovered { segments: vec![active.segment.clone()], active, end: 0 })
}

fn next_segment(dir: &Path, first: u64, previous_end: u64, disk: &dyn Disk) -> Result<Active, LogError> {
    let path = segment::path(dir, first);
    let file = segment::prepare(dir, first, previous_end, disk).map_err(LogError::io(&path))?;
    segment::publish(dir, first).map_err(LogError::io(&path))?;
    let segment = Arc::new(Segment::new(dir, first, Extent::new(first)));
    Ok(Active { segment, file, length: FILE_HEADER, next: first })
}

fn missing(dir: &Path, from: u64, end: u64) -> LogError {
    LogError::Missing { path: dir.to_owned(), from: Offset(from), last: Offset(end.saturating_sub(1)) }
}

/// The index knows of events that the log does not hold: they were on disk, and their end of the file is gone. The
/// identities of those that no table holds are forgotten, so that they are stored when they are sent again; their offsets
/// are not used again, since others remember by offset how far they read.
fn skip_lost(
    dir: &Path,
    index: &Index,
    covered: Covered,
    mut found: Recovered,
    (held, disk): (Offset, &dyn Disk),
) -> Result<Recovered, LogError> {
    if found.segments.iter().all(|s| s.first != covered.segment) {
        return Err(missing(dir, found.end, covered.end));
    }
    let gone = held.0.clamp(found.end, covered.end);
    if gone < covered.end {
        tracing::error!(
            log = %dir.display(),
            "events {gone} to {} were acknowledged and are gone from the end of the log: its disk lost them. Send them again \
             (ingest the files, replay the webhooks): they are not taken for duplicates",
            covered.end - 1,
        );
    } else {
        tracing::warn!(
            log = %dir.display(),
            "the end of the log is gone from its disk, from event {} on: the tables hold all of it, nothing is to be sent again",
            found.end,
        );
    }
    index.forget_from(gone)?;
    let active = next_segment(dir, covered.end, found.end, disk)?;
    found.segments.push(active.segment.clone());
    Ok(Recovered { segments: found.segments, end: active.next, active })
}

/// A segment that is followed by another: all of it must be sound.
fn prove_sealed(dir: &Path, first: u64, previous_end: Option<u64>, index: &Index) -> Result<Extent, LogError> {
    let path = segment::path(dir, first);
    let file = File::open(&path).map_err(LogError::io(&path))?;
    check_place(&file, dir, first, previous_end)?;
    let metadata = file.metadata().map_err(LogError::io(&path))?;
    let proof = |end| Proof {
        length: metadata.len(),
        inode: metadata.ino(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        end,
    };
    if let Some(known) = index.proven(first)?.filter(|known| *known == proof(known.end)) {
        return Ok(Extent::whole(first, known.end, known.length));
    }
    match walk(&file, first).map_err(LogError::io(&path))? {
        (extent, None) => {
            index.prove(first, &proof(extent.end))?;
            Ok(extent)
        }
        (extent, Some(reason)) => Err(corrupt(path, &extent, reason)),
    }
}

/// The segment that is written to: its end may be unfinished, and is cut then. `known`: the index proves that events
/// below it were on disk.
fn prove_last(
    dir: &Path,
    first: u64,
    previous_end: Option<u64>,
    known: u64,
    disk: &dyn Disk,
) -> Result<Active, LogError> {
    let path = segment::path(dir, first);
    let io = |e| LogError::io(&path)(e);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
    check_place(&file, dir, first, previous_end)?;
    let (extent, broken) = walk(&file, first).map_err(io)?;
    if let Some(reason) = broken {
        if was_synced(&file, &extent, known).map_err(io)? {
            return Err(corrupt(path, &extent, reason));
        }
        tracing::warn!(log = %path.display(), byte = extent.length, "the unfinished end of the log is cut off");
    }
    let (next, length) = (extent.end, extent.length);
    let segment = Arc::new(Segment::new(dir, first, extent));
    settle(&file, &segment, known, disk).map_err(io)?;
    Ok(Active { segment, file, length, next })
}

/// Proves that a segment's file is what its name says, and follows the one before.
fn check_place(file: &File, dir: &Path, first: u64, previous_end: Option<u64>) -> Result<(), LogError> {
    let path = segment::path(dir, first);
    let follows = segment::check_header(file, &path, first)?;
    match previous_end {
        Some(end) if end < follows => Err(missing(dir, end, follows)),
        Some(end) if end > follows => Err(LogError::Corrupt {
            path,
            position: 0,
            offset: Offset(first),
            reason: "the segment before it goes further",
        }),
        _ => Ok(()),
    }
}

/// Reads a segment's file to its end, or to where no sound block begins: there its extent ends, and the reason is
/// beside it.
fn walk(file: &File, first: u64) -> io::Result<(Extent, Option<&'static str>)> {
    let mut extent = Extent::new(first);
    let mut scan = Scan::new(file, FILE_HEADER, file.metadata()?.len());
    loop {
        match scan.next()? {
            Step::Block(header, _) if header.first != extent.end => {
                return Ok((extent, Some("another event stands there")));
            }
            Step::Block(header, _) => {
                if !header.is_mark() {
                    extent.pass(header.first, extent.length);
                }
                extent.end = header.end();
            }
            Step::End => return Ok((extent, None)),
            Step::Broken(reason) => return Ok((extent, Some(reason))),
        }
        extent.length = scan.position;
    }
}

fn corrupt(path: PathBuf, sound: &Extent, reason: &'static str) -> LogError {
    LogError::Corrupt { path, position: sound.length, offset: Offset(sound.end), reason }
}

/// Whether the block behind the sound ones is proven to have been on disk. If it was a mark, the next begins at its offset, and a
/// start made sure of it before anything was written behind it.
fn was_synced(file: &File, sound: &Extent, known: u64) -> io::Result<bool> {
    let offset = sound.end;
    let mut rest = vec![0; file.metadata()?.len().saturating_sub(sound.length) as usize];
    file.read_exact_at(&mut rest, sound.length)?;
    let later = (1..rest.len()).filter(|at| rest[*at..].starts_with(&MAGIC)).find(|at| {
        matches!(block::parse(&rest[*at..]), Parsed::Block(header)
            if header.first == offset || header.first > offset && (header.group_start() > offset || known > offset))
    });
    Ok(later.is_some())
}

/// Cuts what stands behind the last whole block, and writes again what the index does not know of: if its sync
/// failed and the process ended, the system may hold pages that it takes for written and that no sync would write.
fn settle(file: &File, segment: &Segment, known: u64, disk: &dyn Disk) -> io::Result<()> {
    let (end, length) = segment.durable();
    file.set_len(length)?;
    if known < end {
        let (_, from) = segment.place(known.max(segment.first));
        let mut bytes = vec![0; (length - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        disk.write(file, &bytes, from)?;
    }
    disk.sync(file)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    DirBuilder::new().mode(0o700).create(dir)?;
    sync_dir(parent)
}
