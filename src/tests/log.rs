//! The log's promises, as its users meet them: what was acknowledged stays, once, through anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    base::{Digest, Envelope, Logged, Micros, Offset, Source, Via},
    log::{Appended, EventLog, LogError, Options},
    store::Store,
};

/// Names the data directory to a child process that appends until it is killed.
const CHILD: &str = "TILLSTREAM_TEST_LOG_CHILD";

fn event(id: &str, bytes: usize) -> Envelope {
    Envelope {
        source: Source::Stripe,
        event_id: id.to_owned(),
        event_type: "payment_intent.succeeded".to_owned(),
        api_version: None,
        account: Some("acct_1".to_owned()),
        livemode: false,
        occurred_at: Micros(1_700_000_000_000_000),
        received_at: Micros::now(),
        via: Via::File,
        object_type: Some("payment_intent".to_owned()),
        object_id: Some(format!("pi_{id}")),
        person_hint: Some("cus_1".to_owned()),
        digest: Digest(id.len() as u64),
        payload: Bytes::from(format!("{{\"id\":\"{id}\",\"pad\":\"{}\"}}", "é".repeat(bytes / 2))),
    }
}

fn events(ids: std::ops::Range<usize>) -> Vec<Envelope> {
    ids.map(|i| event(&format!("evt_{i}"), 200)).collect()
}

fn open(data: &Path, options: Options) -> Result<EventLog, LogError> {
    EventLog::open_with(&data.join("log"), &Store::open(&data.join("state")).unwrap(), options)
}

/// Segments of a few events.
fn small() -> Options {
    Options { segment_bytes: 500, ..Options::default() }
}

fn all(log: &EventLog, max_bytes: usize) -> Vec<Logged> {
    let mut found: Vec<Logged> = Vec::new();
    loop {
        let from = found.last().map_or(log.start(), |e| e.offset.next());
        let mut more = log.read(from, max_bytes).unwrap();
        if more.is_empty() {
            return found;
        }
        found.append(&mut more);
    }
}

/// Trims until it is `enough` in bytes, as the loader does round by round: nothing goes before the index's own thread has it.
/// Returns the bytes freed.
pub fn trim_until(log: &EventLog, before: Offset, enough: impl Fn(u64) -> bool) -> u64 {
    let (began, mut freed) = (Instant::now(), 0);
    loop {
        freed += log.trim(before).unwrap();
        if enough(freed) {
            return freed;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{freed} bytes are freed, the log begins at {}",
            log.start()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    files(data, "seg")
}

fn files(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(data.join("log")).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn events_come_back_as_they_went_in_over_many_segments() {
    let data = tempfile::tempdir().unwrap();
    let sent = events(0..300);
    {
        let log = open(data.path(), small()).unwrap();
        for part in sent.chunks(7) {
            log.append(part.to_vec()).await.unwrap();
        }
    }
    let log = open(data.path(), small()).unwrap();
    assert!(segments(data.path()).len() > 10);
    assert_eq!((log.start(), log.end()), (Offset(0), Offset(300)));
    for max_bytes in [0, 1000, 5000, usize::MAX] {
        let found = all(&log, max_bytes);
        assert!(found.iter().map(|e| e.offset.0).eq(0..300));
        assert!(found.iter().map(|e| &e.envelope).eq(&sent));
    }
    let page = log.read(Offset(100), 1000).unwrap();
    assert_eq!(page[0].offset, Offset(100));
    let payload: usize = page.iter().map(|e| e.envelope.payload.len()).sum();
    assert!(page.len() > 1 && payload <= 1000, "{payload}");
    assert!(log.read(Offset(300), 1000).unwrap().is_empty());
}

#[tokio::test]
async fn duplicates_are_found_in_a_group_across_groups_and_after_a_start() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), Options::default()).unwrap();
    let (a, b) = (event("a", 10), event("b", 10));
    let stored = |o| Appended::Stored(Offset(o));
    let duplicate = |o| Appended::Duplicate(Offset(o));
    let answers = log.append(vec![a.clone(), b.clone(), a.clone()]).await.unwrap();
    assert_eq!(answers, [stored(0), stored(1), duplicate(0)]);
    let retried = Envelope { received_at: Micros(1), payload: Bytes::from_static(b"{ }"), ..b.clone() };
    assert_eq!(log.append(vec![retried]).await.unwrap(), [duplicate(1)]);
    let other = Envelope { digest: Digest(99), ..a.clone() };
    assert_eq!(log.append(vec![other]).await.unwrap(), [stored(2)], "one id, another event: both stay");
    let elsewhere = Envelope { source: Source::Klaviyo, ..a.clone() };
    assert_eq!(log.offer(vec![elsewhere, b.clone()]).await.unwrap(), [stored(3), duplicate(1)]);
    assert_eq!(log.append(vec![]).await.unwrap(), []);
    let syncs = log.stats().syncs;
    log.append(vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!(log.stats().syncs, syncs, "duplicates alone cost no sync");
    drop(log);

    let log = open(data.path(), Options::default()).unwrap();
    assert_eq!(log.append(vec![b, a]).await.unwrap(), [duplicate(1), duplicate(0)]);
    assert_eq!(log.end(), Offset(4));
}

#[tokio::test]
async fn an_event_that_its_source_delivers_in_another_rendering_is_known_and_files_tell_by_what_it_says() {
    let stored = |o| Appended::Stored(Offset(o));
    let duplicate = |o| Appended::Duplicate(Offset(o));
    let told = |id: &str, digest: u64, via: Via| Envelope { digest: Digest(digest), ..event(id, 10) }.by(via);
    for (first, second) in [(Via::Webhook, Via::Api), (Via::Api, Via::Webhook), (Via::File, Via::Api)] {
        let data = tempfile::tempdir().unwrap();
        let log = open(data.path(), Options::default()).unwrap();
        let both = vec![told("a", 1, first), told("a", 2, second), told("b", 1, first)];
        assert_eq!(log.append(both).await.unwrap(), [stored(0), duplicate(0), stored(1)], "{first:?} {second:?}");
        assert_eq!(log.offer(vec![told("b", 2, second)]).await.unwrap(), [duplicate(1)]);
        assert_eq!(log.append(vec![told("b", 1, Via::File)]).await.unwrap(), [duplicate(1)]);
        assert_eq!(log.append(vec![told("a", 2, Via::File)]).await.unwrap(), [stored(2)], "an export reuses ids");
        let announced = Envelope { event_type: "v1.payment_intent.succeeded".to_owned(), ..told("b", 3, second) };
        assert_eq!(log.append(vec![announced]).await.unwrap(), [stored(3)], "a thin event takes nothing's place");
        let profile = |digest| Envelope { source: Source::Klaviyo, ..told("p", digest, Via::Api) };
        let answers = log.append(vec![profile(1), profile(2)]).await.unwrap();
        assert_eq!(answers, [stored(4), stored(5)], "an object's id is not an event's");
        drop(log);
        fs::remove_dir_all(data.path().join("state")).unwrap();
        let log = open(data.path(), Options::default()).unwrap();
        assert_eq!(log.append(vec![told("b", 9, second)]).await.unwrap(), [duplicate(1)], "known from the log");
        assert_eq!(log.append(vec![told("a", 2, Via::File)]).await.unwrap(), [duplicate(2)], "and by what it says");
    }
}

#[tokio::test]
async fn the_index_is_made_again_when_its_folder_is_gone() {
    let data = tempfile::tempdir().unwrap();
    open(data.path(), small()).unwrap().append(events(0..50)).await.unwrap();
    fs::remove_dir_all(data.path().join("state")).unwrap();
    let log = open(data.path(), small()).unwrap();
    let answers = log.append(events(0..51)).await.unwrap();
    let expected = (0..50).map(|o| Appended::Duplicate(Offset(o))).chain([Appended::Stored(Offset(50))]);
    assert!(answers.into_iter().eq(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appenders_and_readers_agree_on_one_order() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), Options { segment_bytes: 2_000, ..Options::default() }).unwrap();
    let appenders: Vec<_> = (0..16)
        .map(|who| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut stored = Vec::new();
                for i in 0..40 {
                    // Every event is sent by two appenders.
                    let id = format!("{}-{i}", who / 2);
                    match log.append(vec![event(&id, 100)]).await.unwrap()[..] {
                        [Appended::Stored(offset)] => stored.push((offset, id)),
                        [Appended::Duplicate(_)] => {}
                        ref other => panic!("{other:?}"),
                    }
                }
                stored
            })
        })
        .collect();
    let follower = {
        let (log, mut watch) = (log.clone(), log.watch());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 320 {
                watch.changed().await.unwrap();
                let end = *watch.borrow_and_update();
                while seen.len() < end.0 as usize {
                    let page = log.read(Offset(seen.len() as u64), 3000).unwrap();
                    seen.extend(page.into_iter().map(|e| (e.offset, e.envelope.event_id)));
                }
            }
            seen
        })
    };
    let mut stored = Vec::new();
    for appender in appenders {
        stored.append(&mut appender.await.unwrap());
    }
    stored.sort();
    assert!(stored.iter().map(|(offset, _)| offset.0).eq(0..320));
    let seen = tokio::time::timeout(Duration::from_secs(30), follower).await.unwrap().unwrap();
    assert_eq!(seen, stored);
    let stats = log.stats();
    assert_eq!((stats.events, stats.duplicates), (320, 320));
    assert!(stats.syncs < 320, "groups form: {stats:?}");
}

#[tokio::test]
async fn trimming_frees_whole_segments_and_keeps_knowing_their_events() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), small()).unwrap();
    for part in events(0..100).chunks(5) {
        log.append(part.to_vec()).await.unwrap();
    }
    let all_segments = segments(data.path());
    assert_eq!(log.trim(Offset(3)).unwrap(), 0, "the first segment is still needed");
    let freed = trim_until(&log, Offset(50), |freed| freed > 0);
    let left = segments(data.path());
    assert!(freed > 0 && left.len() < all_segments.len());
    let start = log.start();
    assert!(start > Offset(0) && start <= Offset(50), "{start}");
    assert!(matches!(log.read(Offset(0), 1), Err(LogError::Trimmed { start: s, .. }) if s == start));
    assert_eq!(log.read(start, 1).unwrap()[0].offset, start);
    trim_until(&log, Offset(u64::MAX), |_| segments(data.path()).len() == 1);
    drop(log);

    let log = open(data.path(), small()).unwrap();
    assert_eq!(log.end(), Offset(100));
    let answers = log.append(events(0..101)).await.unwrap();
    assert_eq!(answers[0], Appended::Duplicate(Offset(0)));
    assert_eq!(answers[100], Appended::Stored(Offset(100)));
}

#[tokio::test]
async fn a_new_segment_lets_go_of_all_before_it_at_once() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), Options::default()).unwrap();
    assert_eq!(log.begin_segment().await.unwrap(), Offset(0), "the first has nothing yet");
    log.append(events(0..10)).await.unwrap();
    // Others append beside it.
    let (begins, appended) = tokio::join!(log.begin_segment(), log.append(events(10..20)));
    let begins = begins.unwrap();
    assert!(appended.is_ok() && (begins == Offset(10) || begins == Offset(20)), "{begins}");
    log.append(events(20..30)).await.unwrap();
    let began = Instant::now();
    while log.start() < begins && began.elapsed() < Duration::from_secs(30) {
        log.remove(begins).unwrap();
    }
    assert_eq!((log.start(), segments(data.path()).len(), files(data.path(), "old").len()), (begins, 1, 0));
    assert_eq!(all(&log, 3000).len() as u64, 30 - begins.0);
}

#[tokio::test]
async fn what_is_trimmed_is_given_back_by_and_by_and_at_the_latest_at_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), Options { segment_bytes: 10_000_000, ..small() }).unwrap();
    for i in 0..30 {
        log.append(vec![event(&i.to_string(), 1_000_000)]).await.unwrap();
    }
    trim_until(&log, Offset(u64::MAX), |freed| freed > 20_000_000);
    let began = Instant::now();
    while !files(data.path(), "old").is_empty() && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(files(data.path(), "old").is_empty());
    drop(log);

    fs::write(data.path().join("log/00000000000000000000.old"), "cut short").unwrap();
    let log = open(data.path(), small()).unwrap();
    assert_eq!((files(data.path(), "old").len(), log.end()), (0, Offset(30)));
}

#[tokio::test]
async fn one_append_may_be_larger_than_the_queue_and_a_segment() {
    let data = tempfile::tempdir().unwrap();
    let log = open(data.path(), Options { queue_bytes: 100_000, ..small() }).unwrap();
    let sent: Vec<_> = (0..40).map(|i| event(&i.to_string(), 200_000)).collect();
    let answers = log.append(sent.clone()).await.unwrap();
    assert!(answers.into_iter().eq((0..40).map(|o| Appended::Stored(Offset(o)))));
    assert!(all(&log, 1 << 20).into_iter().map(|e| e.envelope).eq(sent));
}

/// Not a test of its own: appends until it is killed, telling on its output what was acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(data) = env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = open(Path::new(&data), Options { segment_bytes: 4_000, ..Options::default() }).unwrap();
        let first = log.end().0;
        let tasks: Vec<_> = (0..8)
            .map(|who| {
                let log = log.clone();
                tokio::spawn(async move {
                    for i in 0.. {
                        let id = format!("{first}-{who}-{i}");
                        if let [Appended::Stored(offset)] = log.append(vec![event(&id, 300)]).await.unwrap()[..] {
                            let line = format!("ACK {offset} {id}\n");
                            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn acknowledged_events_survive_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<u64, String> = HashMap::new();
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["tests::log::child_appends_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = acknowledged.len() + 40 + 57 * round;
        let mut note = |line: String| {
            let mut words = line.split_whitespace().skip_while(|w| *w != "ACK").skip(1);
            if let (Some(offset), Some(id)) = (words.next(), words.next()) {
                acknowledged.insert(offset.parse().unwrap(), id.to_owned());
            }
            acknowledged.len()
        };
        while note(lines.next().expect("the child appends until it is killed").unwrap()) < wanted {}
        child.kill().unwrap();
        child.wait().unwrap();
        // What it wrote before it died was acknowledged too. The last line may be cut.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        rest.into_iter().take(whole).for_each(|line| {
            note(line);
        });

        let log = open(data.path(), Options::default()).unwrap();
        let found: HashMap<u64, String> =
            all(&log, 1 << 20).into_iter().map(|e| (e.offset.0, e.envelope.event_id)).collect();
        for (offset, id) in &acknowledged {
            assert_eq!(found.get(offset), Some(id), "round {round}");
        }
        let ids: std::collections::HashSet<_> = found.values().collect();
        assert_eq!(ids.len(), found.len(), "nothing is stored twice");
        assert_eq!(found.len() as u64, log.end().0, "no offset is skipped");
    }
    assert!(segments(data.path()).len() > 3, "kills met new segments too");
}
