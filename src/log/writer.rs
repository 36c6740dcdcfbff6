//! The one thread that writes: it takes what has gathered in the queue as a group, writes the new events of it, syncs
//! once, answers everyone, and hands the identities to the thread that adds them to the index.
//!
//! ```text
//! queue ──► group ──► duplicates out ──► pack ──► write ──► sync ──► publish ──► answer ──► keeper ──► index
//!               (index, keeper, group)              │         │                                │
//!                                   full: cut back, │         └─ failed: stop for good         └─ failed: stop; the next
//!                                   refuse, go on  ─┘                                             start adds what is missing
//! ```
//!
//! After a failed sync the pages may be gone and a second sync would still succeed, so there is no second one.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ahash::HashMap;

use super::{
    Appended, Options,
    block::{self, Packer},
    error::{AppendError, LogError},
    index::{Covered, Entry, Index, Key, Place},
    keeper::Keeper,
    request::Request,
    segment::{self, Extent, FILE_HEADER, Segment},
    shared::Shared,
};
use crate::{
    base::Offset,
    store::{StoreError, remedy},
    telemetry,
};

/// So often a writer that has nothing to do looks whether identities that wait can go to the index.
const LINGER: Duration = Duration::from_millis(100);

/// Bytes that are worth a sync of their own, before they are packed: the page of 4 KiB that a group ends in is written again with
/// the next group, which for one event of 2 KB at a time is two bytes a byte.
const WORTH_A_SYNC: usize = 24 << 10;
/// For fewer a group waits while others come …
const SILENCE: Duration = Duration::from_millis(4);
/// … and for so long at most.
const PATIENCE: Duration = Duration::from_millis(10);
/// A group that waited in vain is followed by none that waits for so long, twice as long after each that waits in vain again, and
/// at most so long: senders who each wait for their answer before they send more must not wait for one another, and others only
/// pause now and then.
const IMPATIENCE: Duration = Duration::from_millis(4);
const MOST_IMPATIENCE: Duration = Duration::from_millis(100);
/// Requests that must join for the waiting to be worth it.
const JOINED: usize = 2;

/// The segment that is written to.
pub(super) struct Active {
    pub segment: Arc<Segment>,
    pub file: File,
    /// Its length, all of it durable.
    pub length: u64,
    /// Of the next event.
    pub next: u64,
}

struct Writer {
    shared: Arc<Shared>,
    index: Index,
    keeper: Keeper,
    active: Active,
    options: Options,
    /// Something was stored since the log was opened.
    dirty: bool,
    impatience: Impatience,
}

/// When waiting for others is worth it.
struct Impatience {
    until: Instant,
    /// After the next group that waits in vain.
    next: Duration,
}

impl Impatience {
    fn none() -> Impatience {
        Impatience { until: Instant::now(), next: IMPATIENCE }
    }

    /// After waiting to no avail, or not.
    fn waited(&mut self, in_vain: bool) {
        if !in_vain {
            self.next = IMPATIENCE;
            return;
        }
        self.until = Instant::now() + self.next;
        self.next = MOST_IMPATIENCE.min(self.next * 2);
    }
}

pub(super) fn start(
    shared: Arc<Shared>,
    index: Index,
    active: Active,
    options: Options,
    requests: mpsc::Receiver<Request>,
) -> Result<JoinHandle<()>, LogError> {
    let dir = shared.dir.clone();
    let keeper = Keeper::start(index.clone()).map_err(LogError::io(&dir))?;
    let writer = Writer { shared, index, keeper, active, options, dirty: false, impatience: Impatience::none() };
    thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(&requests)).map_err(LogError::io(&dir))
}

/// Requests that share one sync.
struct Group {
    requests: Vec<(Request, Vec<Appended>)>,
    /// Their new events.
    events: Packer,
    /// What the index is to have of the new events.
    entries: HashMap<Key, Entry>,
    duplicates: u64,
}

impl Writer {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        while let Some(first) = self.next(requests) {
            let mut group = Group::new(self.active.next);
            self.add(&mut group, first);
            self.gather(&mut group, requests);
            self.commit(group);
        }
        self.close();
    }

    /// The next request, once there is one; `None` at the end.
    fn next(&mut self, requests: &mpsc::Receiver<Request>) -> Option<Request> {
        while self.keeper.is_waiting() {
            match requests.recv_timeout(LINGER) {
                Ok(request) => return Some(request),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let gone_on = self.keeper.go_on();
                    if !heed(&self.shared, gone_on) {
                        break;
                    }
                }
            }
        }
        requests.recv().ok()
    }

    /// Adds what is in the queue, and what joins a small group in the moments after.
    fn gather(&mut self, group: &mut Group, requests: &mpsc::Receiver<Request>) {
        let began = Instant::now();
        let mut joined = None;
        while group.events.taken() < self.options.group_bytes {
            if let Ok(request) = requests.try_recv() {
                self.add(group, request);
                continue;
            }
            let is_small = (1..WORTH_A_SYNC).contains(&group.events.taken());
            let left = PATIENCE.saturating_sub(began.elapsed());
            if !is_small || left.is_zero() || began < self.impatience.until {
                break;
            }
            let joined = joined.get_or_insert(0);
            let Ok(request) = requests.recv_timeout(left.min(SILENCE)) else { break };
            *joined += 1;
            self.add(group, request);
        }
        if let Some(joined) = joined {
            self.impatience.waited(joined < JOINED && group.events.taken() < WORTH_A_SYNC);
        }
    }

    /// Sorts a request's events into new ones and duplicates.
    fn add(&self, group: &mut Group, request: Request) {
        if let Err(e) = self.shared.check() {
            return request.answer(Err(e));
        }
        match self.sort(group, &request) {
            Ok(answer) => group.requests.push((request, answer)),
            // What of it is in the group already is stored with it, and found when it is sent again.
            Err(e) => request.answer(Err(AppendError::Write { reason: e.to_string() })),
        }
    }

    fn sort(&self, group: &mut Group, request: &Request) -> Result<Vec<Appended>, StoreError> {
        let sorted = request.events().map(|(keys, body)| {
            let found = keys.place(|key| match group.entries.get(key).copied().or_else(|| self.keeper.find(key)) {
                Some(entry) => Ok(Some(entry)),
                None => self.index.find(key),
            });
            let (key, says) = match found? {
                Place::Free(key, says) => (key, says),
                Place::Taken(offset) => {
                    group.duplicates += 1;
                    return Ok(Appended::Duplicate(offset));
                }
            };
            let offset = Offset(group.events.add(body));
            group.entries.insert(key, Entry { offset, says });
            Ok(Appended::Stored(offset))
        });
        sorted.collect()
    }

    fn commit(&mut self, group: Group) {
        let Group { requests, events, entries, duplicates } = group;
        if requests.is_empty() {
            return;
        }
        if !events.is_empty()
            && let Err(e) = self.store(events)
        {
            self.shared.counters.refused.fetch_add(1, Relaxed);
            return refuse(requests, self.active.next, &e);
        }
        self.shared.counters.duplicates.fetch_add(duplicates, Relaxed);
        for (request, answer) in requests {
            let answer = match request.begins_segment() {
                true => self.roll().map(|()| vec![Appended::Stored(Offset(self.active.next))]),
                false => Ok(answer),
            };
            request.answer(answer);
        }
        self.remember(entries);
    }

    /// Returns when a group's events are on disk.
    fn store(&mut self, events: Packer) -> Result<(), AppendError> {
        let end = events.end();
        let (bytes, starts) = events.finish();
        self.make_sure_of_room(bytes.len() as u64)?;
        if self.active.length >= self.options.segment_bytes {
            self.roll()?;
        }
        let Active { segment, file, length, next } = &mut self.active;
        if let Err(e) = self.options.disk.write(file, &bytes, *length) {
            return Err(match file.set_len(*length) {
                Ok(()) => refused(&segment.path, &e),
                Err(e) => self.shared.stop(format!("an unfinished write could not be cut off: {e}")),
            });
        }
        let began = Instant::now();
        if let Err(e) = self.options.disk.sync(file) {
            return Err(self.shared.stop(format!("{} could not be synced: {e}", segment.path.display())));
        }
        let took = began.elapsed();
        let (stored, at) = (end - *next, *length);
        *next = end;
        *length += bytes.len() as u64;
        segment.extend(starts.into_iter().map(|(first, start)| (first, at + start as u64)), *next, *length);
        self.shared.publish(*next);
        self.dirty = true;
        telemetry::log_synced(stored, took.as_secs_f64());
        let counters = &self.shared.counters;
        counters.events.fetch_add(stored, Relaxed);
        counters.sync_micros.fetch_add(took.as_micros() as u64, Relaxed);
        counters.syncs.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn make_sure_of_room(&self, bytes: u64) -> Result<(), AppendError> {
        let dir = &self.shared.dir;
        let full = match self.options.disk.room(dir) {
            Ok(room) if room >= bytes => return Ok(()),
            Ok(_) => io::Error::from(io::ErrorKind::StorageFull),
            Err(e) => e,
        };
        Err(refused(dir, &full))
    }

    /// Goes on in a new segment, unless this one has nothing yet.
    fn roll(&mut self) -> Result<(), AppendError> {
        if self.active.next == self.active.segment.first {
            return Ok(());
        }
        let (dir, first) = (&self.shared.dir, self.active.next);
        let file = segment::prepare(dir, first, first, self.options.disk.as_ref())
            .map_err(|e| refused(&segment::path(dir, first), &e))?;
        segment::publish(dir, first)
            .map_err(|e| self.shared.stop(format!("a new segment in {} could not be synced: {e}", dir.display())))?;
        let segment = Arc::new(Segment::new(dir, first, Extent::new(first)));
        self.shared.add_segment(segment.clone());
        self.shared.counters.bytes.fetch_add(FILE_HEADER, Relaxed);
        self.active = Active { segment, file, length: FILE_HEADER, next: first };
        Ok(())
    }

    fn remember(&mut self, entries: HashMap<Key, Entry>) {
        if entries.is_empty() {
            return;
        }
        let covered = Covered { end: self.active.next, segment: self.active.segment.first };
        let kept = self.keeper.keep(entries, covered);
        heed(&self.shared, kept);
    }

    /// Leaves a mark, so that damage to the last events is told from a write that was never finished.
    fn close(self) {
        let Writer { shared, keeper, active: Active { file, length, next, .. }, options, dirty, .. } = self;
        heed(&shared, keeper.close());
        if !dirty || shared.check().is_err() {
            return;
        }
        let closed = options.disk.write(&file, &block::mark(next), length).and_then(|()| options.disk.sync(&file));
        if let Err(e) = closed.or_else(|e: io::Error| file.set_len(length).and(Err(e))) {
            tracing::warn!(log = %shared.dir.display(), "the log was closed without its last mark: {e}");
        }
    }
}

/// Where identities cannot be kept nothing more is taken: then it is false.
fn heed(shared: &Shared, kept: Result<(), String>) -> bool {
    kept.map_err(|e| shared.stop(format!("duplicates can no longer be told: {e}"))).is_ok()
}

fn refused(path: &Path, error: &io::Error) -> AppendError {
    AppendError::Write { reason: format!("{}: {error}{}", path.display(), remedy(error)) }
}

impl Group {
    /// `next`: the offset of its first new event.
    fn new(next: u64) -> Group {
        Group { requests: Vec::new(), events: Packer::new(next), entries: HashMap::default(), duplicates: 0 }
    }
}

/// Nothing of a group was stored, from the offset `first` on. Who brought only duplicates of stored events is answered all the same.
fn refuse(requests: Vec<(Request, Vec<Appended>)>, first: u64, error: &AppendError) {
    for (request, answer) in requests {
        let is_of_it = |event: &Appended| match event {
            Appended::Stored(at) | Appended::Duplicate(at) => at.0 >= first,
            Appended::Delivered => false,
        };
        let pending = request.begins_segment() || answer.iter().any(is_of_it);
        request.answer(if pending { Err(error.clone()) } else { Ok(answer) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_is_held_up_ever_more_rarely_and_a_pause_of_others_is_soon_forgotten() {
        let mut impatience = Impatience::none();
        let mut waited = |in_vain| {
            let began = Instant::now();
            let wanted = impatience.next;
            impatience.waited(in_vain);
            assert!(!in_vain || impatience.until >= began + wanted);
            impatience.next.as_millis()
        };
        let alone: Vec<u128> = (0..7).map(|_| waited(true)).collect();
        assert_eq!(alone, [8, 16, 32, 64, 100, 100, 100]);
        assert_eq!((waited(false), waited(true)), (4, 8), "one pause after others had joined");
    }
}
