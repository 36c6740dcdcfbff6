//! Reading events back, in order, from any kept offset.
//!
//! A reader that goes on where it, or another, ended finds the open file and the place remembered. Every block's
//! checksum is proven again. Nothing beyond what is durable is ever read.

use std::{
    fs::File,
    sync::{Arc, PoisonError},
};

use super::{
    block,
    error::LogError,
    record,
    segment::{Scan, Segment, Step},
    shared::{Cursor, Shared},
};
use crate::base::{Logged, Offset};

/// The loader, the activation, a browsing human: readers at different places at one time.
const CURSORS: usize = 8;

impl Shared {
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Vec<Logged>, LogError> {
        let mut events = Vec::new();
        let mut left = max_bytes;
        let mut next = from.0;
        while let Some(mut cursor) = self.cursor(next)? {
            let full = read_segment(&mut cursor, next, &mut left, &mut events)?;
            next = cursor.offset;
            self.remember(cursor);
            if full {
                break;
            }
        }
        Ok(events)
    }

    /// A place at or before the first durable event from `offset` on; `None` at the end.
    fn cursor(&self, offset: u64) -> Result<Option<Cursor>, LogError> {
        let Some(segment) = self.segment(offset)? else {
            return Ok(None);
        };
        {
            let mut known = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            let at = known.iter().rposition(|c| c.offset == offset && Arc::ptr_eq(&c.segment, &segment));
            if let Some(at) = at {
                return Ok(Some(known.remove(at)));
            }
        }
        let file = Arc::new(File::open(&segment.path).map_err(LogError::io(&segment.path))?);
        let (place, position) = segment.place(offset.max(segment.first));
        Ok(Some(Cursor { segment, file, offset: place, position }))
    }

    /// The segment with the first durable event from `offset` on.
    fn segment(&self, offset: u64) -> Result<Option<Arc<Segment>>, LogError> {
        let segments = self.segments();
        let after = segments.partition_point(|s| s.first <= offset);
        let Some(at) = after.checked_sub(1) else {
            let start = segments.first().map_or(0, |s| s.first);
            return Err(LogError::Trimmed { from: Offset(offset), start: Offset(start) });
        };
        let holds = |s: &&Arc<Segment>| s.durable().0 > offset.max(s.first);
        Ok(segments[at..].iter().find(holds).cloned())
    }

    fn remember(&self, cursor: Cursor) {
        // Its file, which was trimmed meanwhile, would stay open.
        if cursor.segment.first < self.start().0 {
            return;
        }
        let mut known = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CURSORS {
            known.remove(0);
        }
        known.push(cursor);
    }
}

/// Reads from the cursor on, keeping events from `from` on, to the durable end of the segment or until `left` is used
/// up, which `true` says.
fn read_segment(cursor: &mut Cursor, from: u64, left: &mut usize, events: &mut Vec<Logged>) -> Result<bool, LogError> {
    let Cursor { segment, file, offset, position } = cursor;
    let (end, length) = segment.durable();
    let mut scan = Scan::new(file, *position, length).expecting(*left);
    let corrupt = |position, offset, reason| LogError::Corrupt {
        path: segment.path.clone(),
        position,
        offset: Offset(offset),
        reason,
    };
    while *offset < end {
        let (header, packed) = match scan.next().map_err(LogError::io(&segment.path))? {
            Step::Block(header, _) if header.is_mark() => continue,
            Step::Block(header, packed) => (header, packed),
            Step::End => return Err(corrupt(scan.position, *offset, "the file ends before it")),
            Step::Broken(reason) => return Err(corrupt(scan.position, *offset, reason)),
        };
        if !(header.first..header.end()).contains(offset) {
            return Err(corrupt(*position, *offset, "another event stands there"));
        }
        if header.end() > from {
            let unreadable = |at| corrupt(*position, at, "it is no event of this format");
            let bodies = block::bodies(&header, packed).ok_or_else(|| unreadable(header.first))?;
            for (at, body) in (header.first..).zip(&bodies).filter(|(at, _)| *at >= from) {
                let envelope = record::decode(body).map_err(|_| unreadable(at))?;
                let bytes = envelope.payload.len();
                if !events.is_empty() && bytes > *left {
                    // The block is unpacked again for what is left of it.
                    *offset = at;
                    return Ok(true);
                }
                *left = left.saturating_sub(bytes);
                events.push(Logged { offset: Offset(at), envelope });
            }
        }
        *offset = header.end();
        *position = scan.position;
    }
    Ok(*left == 0)
}
