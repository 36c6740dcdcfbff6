//! What only the log's own parts can show: faults of the disk, and damage at chosen bytes.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;

use super::{index::Index, *};
use crate::base::{Digest, Micros, Source, Via};

fn event(id: &str, payload: &str) -> Envelope {
    Envelope {
        source: Source::Stripe,
        event_id: id.to_owned(),
        event_type: "charge.succeeded".to_owned(),
        api_version: Some("2025-01-27.acacia".to_owned()),
        account: None,
        livemode: true,
        occurred_at: Micros(1_700_000_000_000_000),
        received_at: Micros(1_700_000_001_000_000),
        via: Via::File,
        object_type: Some("charge".to_owned()),
        object_id: Some(format!("ch_{id}")),
        person_hint: None,
        digest: Digest(7),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

/// A log's folder and its store, which stays open while the log is opened again and again.
struct Home {
    dir: tempfile::TempDir,
    store: Store,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        Home { dir, store }
    }
    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
    fn open_with(&self, options: Options) -> Result<EventLog, LogError> {
        EventLog::open_with(&self.log(), &self.store, options)
    }
    fn open(&self) -> Result<EventLog, LogError> {
        self.open_with(Options::default())
    }
    fn forget_state(&self) {
        self.store.keyspace("log.identities").unwrap().clear().unwrap();
    }
    fn last_segment(&self) -> PathBuf {
        let mut all: Vec<_> = fs::read_dir(self.log()).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all.pop().unwrap()
    }
}

fn append(log: &EventLog, ids: &[&str]) -> Result<Vec<Appended>, AppendError> {
    let events = ids.iter().map(|id| event(id, &format!("{{\"id\":\"{id}\"}}"))).collect();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(log.append(events))
}

fn ids(log: &EventLog) -> Vec<String> {
    log.read(log.start(), usize::MAX).unwrap().into_iter().map(|e| e.envelope.event_id).collect()
}

fn stored(offsets: impl IntoIterator<Item = u64>) -> Vec<Appended> {
    offsets.into_iter().map(|o| Appended::Stored(Offset(o))).collect()
}

/// Where the blocks of a segment file begin.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&block::MAGIC)).collect()
}

#[test]
fn a_last_block_cut_anywhere_is_dropped_and_the_log_goes_on() {
    let home = Home::new();
    let log = home.open().unwrap();
    append(&log, &["a", "b"]).unwrap();
    append(&log, &["c"]).unwrap();
    drop(log);
    let path = home.last_segment();
    let whole = fs::read(&path).unwrap();
    let places = blocks(&whole);
    let [_, c, mark] = places[..] else { panic!("{places:?}") };
    for cut in c..mark {
        fs::write(&path, &whole[..cut]).unwrap();
        home.forget_state();
        let log = home.open().unwrap();
        assert_eq!(ids(&log), ["a", "b"], "cut at {cut}");
        assert_eq!(log.end(), Offset(2));
        assert_eq!(append(&log, &["a", "c"]).unwrap()[0], Appended::Duplicate(Offset(0)));
        assert_eq!(ids(&log), ["a", "b", "c"]);
    }
    for cut in mark..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        home.forget_state();
        assert_eq!(ids(&home.open().unwrap()), ["a", "b", "c"], "cut at {cut}");
    }
}

#[test]
fn acknowledged_events_that_the_disk_lost_are_taken_again_under_new_offsets() {
    let home = Home::new();
    let log = home.open().unwrap();
    append(&log, &["a", "b"]).unwrap();
    append(&log, &["c", "d"]).unwrap();
    drop(log);
    let path = home.last_segment();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..blocks(&whole)[1] + 5]).unwrap();

    let log = home.open().unwrap();
    assert_eq!(ids(&log), ["a", "b"]);
    let answers = append(&log, &["b", "c", "d"]).unwrap();
    assert_eq!(answers[0], Appended::Duplicate(Offset(1)));
    assert_eq!(answers[1..], stored([4, 5]));
    drop(log);
    let log = home.open().unwrap();
    assert_eq!(ids(&log), ["a", "b", "c", "d"]);
    assert_eq!(log.read(Offset(2), 1).unwrap()[0].offset, Offset(4), "the gap is stepped over");
    assert_eq!(append(&log, &["c", "e"]).unwrap(), [Appended::Duplicate(Offset(4)), Appended::Stored(Offset(6))]);
}

#[test]
fn a_wrong_byte_before_the_end_is_named_and_refused() {
    let home = Home::new();
    let log = home.open().unwrap();
    append(&log, &["a", "b", "c"]).unwrap();
    append(&log, &["d"]).unwrap();
    drop(log);
    let path = home.last_segment();
    let whole = fs::read(&path).unwrap();
    let places = blocks(&whole);
    let [_, _, mark] = places[..] else { panic!("{places:?}") };
    let mut seen = false;
    // With the state at hand, and then without.
    for at in (0..mark).chain(0..mark) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        if at == 0 && seen {
            home.forget_state();
        }
        seen = true;
        let error = home.open().err().unwrap_or_else(|| panic!("byte {at} is wrong and not seen"));
        let expected = places.iter().rposition(|p| *p <= at);
        match &error {
            LogError::Corrupt { path: named, position, offset, .. } => {
                assert_eq!(named, &path);
                assert_eq!(*position, expected.map_or(0, |i| places[i] as u64));
                assert_eq!(offset.0, if expected == Some(1) { 3 } else { 0 });
            }
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is changed");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(ids(&home.open().unwrap()), ["a", "b", "c", "d"]);
}

#[test]
fn a_group_that_reached_the_disk_in_part_is_cut_at_its_first_hole() {
    let home = Home::new();
    let log = home.open().unwrap();
    append(&log, &["a"]).unwrap();
    // More than goes into one block.
    let large = ["b", "c", "d"].map(|id| event(id, &id.repeat(60 << 10)));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(log.append(large.to_vec())).unwrap();
    drop(log);
    let path = home.last_segment();
    let whole = fs::read(&path).unwrap();
    let places = blocks(&whole);
    // As if power had gone before the sync: no mark, no index, and the page with "c" never written.
    let mut torn = whole[..places[4]].to_vec();
    torn[places[2]..places[3]].fill(0);
    fs::write(&path, &torn).unwrap();
    let error = home.open().err().unwrap();
    assert!(matches!(error, LogError::Corrupt { offset: Offset(2), .. }), "the index knows that it was: {error}");
    assert_eq!(fs::read(&path).unwrap(), torn, "nothing is changed");
    home.forget_state();
    let log = home.open().unwrap();
    assert_eq!(ids(&log), ["a", "b"]);
    assert_eq!(append(&log, &["b", "c"]).unwrap(), [Appended::Duplicate(Offset(1)), Appended::Stored(Offset(2))]);
}

#[test]
fn a_damaged_mark_is_refused_with_what_stands_behind_it() {
    let home = Home::new();
    for id in ["a", "b"] {
        append(&home.open().unwrap(), &[id]).unwrap();
    }
    let path = home.last_segment();
    let mut whole = fs::read(&path).unwrap();
    let [_, mark, b, last] = blocks(&whole)[..] else { panic!("{:?}", blocks(&whole)) };
    // As a kill leaves it.
    whole.truncate(last);
    for at in (mark..b).chain(mark..b) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = home.open().err().unwrap_or_else(|| panic!("byte {at} is wrong and not seen"));
        let LogError::Corrupt { position, offset, .. } = error else { panic!("{error}") };
        assert_eq!((position, offset), (mark as u64, Offset(1)));
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is changed");
        if at + 1 == b {
            home.forget_state();
        }
    }
}

#[test]
fn damage_in_an_earlier_segment_and_a_missing_one_are_refused() {
    let home = Home::new();
    let small = Options { segment_bytes: 64, ..Options::default() };
    let log = home.open_with(small.clone()).unwrap();
    for id in ["a", "b", "c"] {
        append(&log, &[id]).unwrap();
    }
    assert_eq!(ids(&log), ["a", "b", "c"]);
    drop(log);
    let path = |first| segment::path(&home.log(), first);
    let middle = fs::read(path(1)).unwrap();

    fs::write(path(1), &middle[..middle.len() - 1]).unwrap();
    let error = home.open_with(small.clone()).err().unwrap();
    assert!(matches!(&error, LogError::Corrupt { path: p, offset: Offset(1), .. } if *p == path(1)), "{error}");

    fs::remove_file(path(1)).unwrap();
    let error = home.open_with(small.clone()).err().unwrap();
    assert!(matches!(error, LogError::Missing { from: Offset(1), last: Offset(1), .. }), "{error}");

    fs::write(path(1), &middle).unwrap();
    let last = fs::read(path(2)).unwrap();
    fs::remove_file(path(2)).unwrap();
    let error = home.open_with(small.clone()).err().unwrap();
    assert!(matches!(error, LogError::Missing { from: Offset(2), last: Offset(2), .. }), "{error}");

    fs::write(path(2), last).unwrap();
    assert_eq!(ids(&home.open_with(small).unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_sealed_segment_is_read_again_at_a_start_only_if_its_file_has_changed() {
    let home = Home::new();
    let small = Options { segment_bytes: 64, ..Options::default() };
    let log = home.open_with(small.clone()).unwrap();
    append(&log, &["a"]).unwrap();
    append(&log, &["b"]).unwrap();
    drop(log);
    assert_eq!(log_index(&home).proven(0).unwrap(), None);
    drop(home.open_with(small.clone()).unwrap());
    let proof = log_index(&home).proven(0).unwrap().unwrap();
    assert_eq!(proof.end, 1);
    assert_eq!(ids(&home.open_with(small.clone()).unwrap()), ["a", "b"], "proven, and read without a scan before");

    let path = segment::path(&home.log(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, &bytes).unwrap();
    let error = home.open_with(small).err().unwrap();
    assert!(matches!(&error, LogError::Corrupt { path: p, .. } if *p == path), "{error}");
}

fn log_index(home: &Home) -> Index {
    Index::open(&home.store).unwrap()
}

#[test]
fn a_log_in_another_format_is_refused_as_such() {
    let home = Home::new();
    drop(home.open().unwrap());
    let path = home.last_segment();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(matches!(home.open(), Err(LogError::Format { found: 9, known: 3, .. })));
}

#[test]
fn a_log_without_its_folder_is_refused_while_the_state_knows_of_events() {
    let home = Home::new();
    let log = home.open().unwrap();
    append(&log, &["a"]).unwrap();
    drop(log);
    fs::remove_dir_all(home.log()).unwrap();
    assert!(matches!(home.open(), Err(LogError::Missing { from: Offset(0), last: Offset(0), .. })));
}

/// A disk that fails when told to.
#[derive(Default)]
struct Bad {
    full: AtomicBool,
    unsound: AtomicBool,
    /// Nearly full: what is left is for others.
    reserved: AtomicBool,
    syncs: AtomicU64,
    /// No sync returns as long as this is set.
    held: AtomicBool,
}

impl Disk for Bad {
    fn write(&self, file: &fs::File, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.full.load(SeqCst) {
            OsDisk.write(file, &bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        OsDisk.write(file, bytes, at)
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        if self.reserved.load(SeqCst) { Ok(0) } else { OsDisk.room(dir) }
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        while self.held.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.syncs.fetch_add(1, SeqCst);
        if self.unsound.load(SeqCst) { Err(io::Error::other("the disk is unsound")) } else { OsDisk.sync(file) }
    }
}

fn on(disk: &Arc<Bad>) -> Options {
    Options { disk: disk.clone(), ..Options::default() }
}

#[test]
fn a_full_disk_refuses_and_then_goes_on() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let log = home.open_with(on(&disk)).unwrap();
    append(&log, &["a"]).unwrap();
    let length = fs::metadata(home.last_segment()).unwrap().len();

    disk.full.store(true, SeqCst);
    let error = append(&log, &["b"]).unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(fs::metadata(home.last_segment()).unwrap().len(), length, "what was half written is cut off");
    assert_eq!(log.end(), Offset(1));
    assert_eq!(append(&log, &["a"]).unwrap(), [Appended::Duplicate(Offset(0))], "needs no room");

    disk.full.store(false, SeqCst);
    assert_eq!(append(&log, &["b"]).unwrap(), stored([1]));
    assert_eq!(log.stats().refused, 1);
    drop(log);
    assert_eq!(ids(&home.open().unwrap()), ["a", "b"]);
}

#[test]
fn the_log_is_the_first_to_find_the_disk_full() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let log = home.open_with(on(&disk)).unwrap();
    disk.reserved.store(true, SeqCst);
    let error = append(&log, &["a"]).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("the disk is full"), "{error}");
    disk.reserved.store(false, SeqCst);
    assert_eq!(append(&log, &["a"]).unwrap(), stored([0]));
    assert!(OsDisk.room(home.dir.path()).unwrap() > 0);
}

#[test]
fn a_full_disk_at_a_new_segment_refuses_and_then_goes_on() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let small = Options { segment_bytes: 64, ..on(&disk) };
    let log = home.open_with(small.clone()).unwrap();
    append(&log, &["a"]).unwrap();
    disk.full.store(true, SeqCst);
    append(&log, &["b"]).unwrap_err();
    disk.full.store(false, SeqCst);
    append(&log, &["b"]).unwrap();
    drop(log);
    let log = home.open_with(small).unwrap();
    assert_eq!(ids(&log), ["a", "b"]);
    assert_eq!(fs::read_dir(home.log()).unwrap().count(), 2);
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let log = home.open_with(on(&disk)).unwrap();
    append(&log, &["a"]).unwrap();
    disk.unsound.store(true, SeqCst);
    assert!(matches!(append(&log, &["b"]), Err(AppendError::Stopped { .. })));
    disk.unsound.store(false, SeqCst);
    let syncs = disk.syncs.load(SeqCst);
    let error = append(&log, &["c"]).unwrap_err();
    assert!(matches!(&error, AppendError::Stopped { .. }) && !error.is_retryable(), "{error}");
    assert_eq!(log.end(), Offset(1));
    assert_eq!(ids(&log), ["a"], "what may not be on disk is not read");
    drop(log);
    assert_eq!(disk.syncs.load(SeqCst), syncs, "no sync is tried again");

    // "b" was never acknowledged, but is whole in the file: the next start makes sure of it.
    let log = home.open().unwrap();
    assert_eq!(ids(&log), ["a", "b"]);
    assert_eq!(append(&log, &["b"]).unwrap(), [Appended::Duplicate(Offset(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_come_during_a_sync_share_the_next_one() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let log = home.open_with(on(&disk)).unwrap();
    disk.held.store(true, SeqCst);
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![event(&i.to_string(), "{}"), event("shared", "{}")]).await })
        })
        .collect();
    let queued = || log.size().queued_bytes;
    while queued() < 40 * 1024 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(log.end(), Offset(0), "nothing is published before its sync");
    assert!(tasks.iter().all(|task| !task.is_finished()), "nor acknowledged");
    disk.held.store(false, SeqCst);
    let mut shared = 0;
    for task in tasks {
        let answers = task.await.unwrap().unwrap();
        assert!(matches!(answers[0], Appended::Stored(_)));
        shared += u32::from(matches!(answers[1], Appended::Stored(_)));
    }
    assert_eq!(shared, 1);
    let stats = log.stats();
    assert_eq!((stats.events, stats.duplicates), (41, 39));
    assert!(stats.syncs <= 3, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_one_by_one_shares_syncs_and_so_the_pages_that_they_write() {
    let home = Home::new();
    let log = home.open().unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            // As senders do that do not wait for one another.
            std::thread::sleep(Duration::from_micros(500));
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![event(&i.to_string(), &"x".repeat(1500))]).await })
        })
        .collect();
    for task in tasks {
        assert!(matches!(task.await.unwrap().unwrap()[..], [Appended::Stored(_)]));
    }
    let stats = log.stats();
    assert!(stats.events == 200 && stats.syncs <= 100, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_an_offer_at_once_and_an_append_waits() {
    let (home, disk) = (Home::new(), Arc::new(Bad::default()));
    let log = home.open_with(Options { queue_bytes: 4096, ..on(&disk) }).unwrap();
    disk.held.store(true, SeqCst);
    let waiting: Vec<_> = (0..4)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![event(&i.to_string(), &"x".repeat(1500))]).await })
        })
        .collect();
    while log.size().queued_bytes <= 4096 - 2000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(log.offer(vec![event("late", &"x".repeat(1500))]).await, Err(AppendError::Full));
    disk.held.store(false, SeqCst);
    for task in waiting {
        assert!(matches!(task.await.unwrap().unwrap()[..], [Appended::Stored(_)]));
    }
    assert!(matches!(log.offer(vec![event("late", &"x".repeat(1500))]).await.unwrap()[..], [Appended::Stored(_)]));
    assert_eq!(log.end(), Offset(5));
}
