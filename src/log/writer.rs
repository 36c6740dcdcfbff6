//! The one thread that writes: it takes what has gathered in the queue as a group, writes the new events of it, syncs
//! once, answers everyone, and hands the identities to the thread that adds them to the index.
//!
//! ```text
//! queue ──► group ──► duplicates out ──► write ──► sync ──► publish ──► answer ──► keeper ──► index
//!               (index, keeper, group)     │         │                                │
//!                          full: cut back, │         └─ failed: stop for good         └─ failed: stop; the next
//!                          refuse, go on  ─┘                                             start adds what is missing
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
    error::{AppendError, LogError},
    index::{Covered, Index, Key},
    keeper::Keeper,
    record,
    request::Request,
    segment::{self, Extent, FILE_HEADER, Segment},
    shared::Shared,
};
use crate::{base::Offset, store::remedy, telemetry};

/// So often a writer that has nothing to do looks whether identities that wait can go to the index.
const LINGER: Duration = Duration::from_millis(100);

/// Bytes that are worth a sync of their own: the page of 4 KiB that a group ends in is written again with the next group, which
/// for one event of 2 KB at a time is three bytes a byte.
const WORTH_A_SYNC: usize = 16 << 10;
/// For fewer a group waits while others come …
const SILENCE: Duration = Duration::from_millis(2);
/// … and for so long at most.
const PATIENCE: Duration = Duration::from_millis(10);
/// Groups that nobody joined are followed by none that waits for so long: senders who each wait for their answer before they send
/// more must not wait for one another.
const IMPATIENCE: Duration = Duration::from_millis(100);
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
    impatient_until: Instant,
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
    let writer = Writer { shared, index, keeper, active, options, dirty: false, impatient_until: Instant::now() };
    thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(&requests)).map_err(LogError::io(&dir))
}

/// Requests that share one sync.
#[derive(Default)]
struct Group {
    requests: Vec<(Request, Vec<Appended>)>,
    /// New events, as they are written.
    bytes: Vec<u8>,
    /// Of each new event: where its record begins in `bytes`.
    starts: Vec<usize>,
    /// By each key of each new event: its offset.
    offsets: HashMap<Key, u64>,
    duplicates: u64,
}

impl Writer {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        while let Some(first) = self.next(requests) {
            let mut group = Group::default();
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
        while group.bytes.len() < self.options.group_bytes {
            if let Ok(request) = requests.try_recv() {
                self.add(group, request);
                continue;
            }
            let is_small = (1..WORTH_A_SYNC).contains(&group.bytes.len());
            let left = PATIENCE.saturating_sub(began.elapsed());
            if !is_small || left.is_zero() || began < self.impatient_until {
                break;
            }
            let joined = joined.get_or_insert(0);
            let Ok(request) = requests.recv_timeout(left.min(SILENCE)) else { break };
            *joined += 1;
            self.add(group, request);
        }
        if joined.is_some_and(|joined| joined < JOINED) && group.bytes.len() < WORTH_A_SYNC {
            self.impatient_until = Instant::now() + IMPATIENCE;
        }
    }

    /// Sorts a request's events into new ones and duplicates.
    fn add(&self, group: &mut Group, request: Request) {
        if let Err(e) = self.shared.check() {
            return request.answer(Err(e));
        }
        match self.sort(group, &request) {
            Ok(answer) => group.requests.push((request, answer)),
            Err(e) => request.answer(Err(AppendError::Write { reason: e.to_string() })),
        }
    }

    fn sort(&self, group: &mut Group, request: &Request) -> Result<Vec<Appended>, LogError> {
        let mut known = Vec::new();
        for key in request.sought() {
            let near = group.offsets.get(&key).copied().or_else(|| self.keeper.find(&key));
            known.push(match near {
                Some(offset) => Some(Offset(offset)),
                None => self.index.find(&key)?,
            });
        }
        let answers = request.events().zip(known).map(|((keys, body), known)| {
            let known = known.or_else(|| group.offsets.get(&keys.sought()).copied().map(Offset));
            if let Some(known) = known {
                group.duplicates += 1;
                return Appended::Duplicate(known);
            }
            let place = group.starts.len();
            let offset = self.active.next + place as u64;
            group.starts.push(group.bytes.len());
            record::write(&mut group.bytes, offset, place as u32, body);
            group.offsets.extend(keys.all().map(|key| (key, offset)));
            Appended::Stored(Offset(offset))
        });
        Ok(answers.collect())
    }

    fn commit(&mut self, group: Group) {
        if group.requests.is_empty() {
            return;
        }
        if !group.starts.is_empty()
            && let Err(e) = self.store(&group)
        {
            self.shared.counters.refused.fetch_add(1, Relaxed);
            return group.refuse(&e);
        }
        let counters = &self.shared.counters;
        counters.events.fetch_add(group.starts.len() as u64, Relaxed);
        counters.duplicates.fetch_add(group.duplicates, Relaxed);
        let Group { requests, offsets, .. } = group;
        for (request, answer) in requests {
            let answer = match request.begins_segment() {
                true => self.roll().map(|()| vec![Appended::Stored(Offset(self.active.next))]),
                false => Ok(answer),
            };
            request.answer(answer);
        }
        self.remember(offsets);
    }

    /// Returns when the group's events are on disk.
    fn store(&mut self, group: &Group) -> Result<(), AppendError> {
        self.make_sure_of_room(group.bytes.len() as u64)?;
        if self.active.length >= self.options.segment_bytes {
            self.roll()?;
        }
        let Active { segment, file, length, next } = &mut self.active;
        if let Err(e) = self.options.disk.write(file, &group.bytes, *length) {
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
        telemetry::log_synced(group.starts.len() as u64, took.as_secs_f64());
        self.shared.counters.sync_micros.fetch_add(took.as_micros() as u64, Relaxed);
        let (first, at) = (*next, *length);
        *next += group.starts.len() as u64;
        *length += group.bytes.len() as u64;
        let places = (first..).zip(group.starts.iter().map(|start| at + *start as u64));
        segment.extend(places, *next, *length);
        self.shared.publish(*next);
        self.dirty = true;
        self.shared.counters.syncs.fetch_add(1, Relaxed);
        self.shared.counters.bytes.fetch_add(group.bytes.len() as u64, Relaxed);
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

    fn remember(&mut self, offsets: HashMap<Key, u64>) {
        if offsets.is_empty() {
            return;
        }
        let covered = Covered { end: self.active.next, segment: self.active.segment.first };
        let kept = self.keeper.keep(offsets, covered);
        heed(&self.shared, kept);
    }

    /// Leaves a mark, so that damage to the last events is told from a write that was never finished.
    fn close(self) {
        let Writer { shared, keeper, active: Active { file, length, next, .. }, options, dirty, .. } = self;
        heed(&shared, keeper.close());
        if !dirty || shared.check().is_err() {
            return;
        }
        let mut mark = Vec::new();
        record::write(&mut mark, next, 0, &[]);
        let closed = options.disk.write(&file, &mark, length).and_then(|()| options.disk.sync(&file));
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
    /// Nothing of it was stored. Who brought only duplicates of stored events is answered all the same.
    fn refuse(self, error: &AppendError) {
        for (request, answer) in self.requests {
            let pending = request.begins_segment() || request.sought().any(|key| self.offsets.contains_key(&key));
            request.answer(if pending { Err(error.clone()) } else { Ok(answer) });
        }
    }
}
