//! What holds for every source of events, and for files of them.

use std::{
    io::{Cursor, Read, Write},
    path::Path,
};

use chrono_tz::Tz;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::*;

const NOW: Micros = Micros(1_800_000_000_000_000);

fn options(threads: usize) -> Options {
    Options { received_at: NOW, threads, zone: Tz::UTC, orders: orders::OrdersMapping::default() }
}

fn batches(content: impl Read + Send + 'static, threads: usize) -> Batches {
    from_reader(Source::Stripe, "events.ndjson", Box::new(content), &options(threads)).unwrap()
}

fn read(content: &[u8]) -> Result<Vec<Envelope>, FileError> {
    let mut all = Vec::new();
    for batch in batches(Cursor::new(content.to_vec()), 2) {
        all.extend(batch?.envelopes);
    }
    Ok(all)
}

fn reason(envelope: &Envelope) -> String {
    assert_eq!(envelope.event_type, REJECTED);
    let kept: Value = serde_json::from_slice(&envelope.payload).unwrap();
    kept["reason"].as_str().unwrap().to_owned()
}

fn event(n: usize) -> String {
    format!(
        r#"{{"id":"evt_{n}","object":"event","type":"charge.succeeded","created":{n},"data":{{"object":{{"id":"ch_{n}"}}}}}}"#
    )
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lines_come_in_the_files_order_whatever_its_wrapping() {
    let lines: String = (0..5000).map(|n| event(n) + "\n").collect();
    let half = lines.len() / 2;
    let members = [gzip(&lines.as_bytes()[..half]), gzip(&lines.as_bytes()[half..])].concat();
    let frames = [
        zstd::encode_all(&lines.as_bytes()[..half], 1).unwrap(),
        zstd::encode_all(&lines.as_bytes()[half..], 1).unwrap(),
    ]
    .concat();
    for (name, content) in [("plain", lines.clone().into_bytes()), ("gzip", members), ("zstd", frames)] {
        for threads in [1, 2, 3] {
            let mut expected = 0;
            let mut bytes = 0;
            for batch in batches(Cursor::new(content.clone()), threads) {
                let batch = batch.unwrap();
                assert_eq!((batch.read, batch.rejected), (batch.envelopes.len() as u64, 0));
                bytes += batch.bytes;
                for envelope in batch.envelopes {
                    assert_eq!(envelope.event_id, format!("evt_{expected}"), "{name}, {threads} threads");
                    expected += 1;
                }
            }
            assert_eq!((expected, bytes), (5000, lines.len() as u64 - 5000));
        }
    }
}

#[test]
fn marks_blank_lines_and_line_ends_do_not_matter() {
    let content = format!("\u{feff}{}\r\n\r\n  \n{}", event(1), event(2));
    let events = read(content.as_bytes()).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].payload, event(1).as_bytes());
    assert_eq!(events[1].payload, event(2).as_bytes(), "the last line needs no end");
    assert!(read(b"").unwrap().is_empty());
    assert!(read(b"\n \r\n").unwrap().is_empty());
}

#[test]
fn bad_lines_are_kept_with_the_reason_and_reading_goes_on() {
    let bad: [&[u8]; 5] =
        [b"{\"id\":\"evt\",", b"[1]", b"{\"type\":\"t\"}", b"{\"id\":\"e\",\"type\":\"\xff\"}", b"{\"_source\":1}"];
    let content = [bad.join(&b'\n'), event(1).into_bytes()].join(&b'\n');
    let events = read(&content).unwrap();
    let reasons: Vec<_> = events[..5].iter().map(reason).collect();
    assert_eq!(
        reasons,
        [
            "not JSON: line 1, column 12: EOF while parsing a value",
            "not a JSON object",
            "it has no \"id\"",
            "not UTF-8: byte 18 belongs to no character",
            "it has no \"type\"",
        ]
    );
    let kept: Value = serde_json::from_slice(&events[3].payload).unwrap();
    assert_eq!(kept["text"], "{\"id\":\"e\",\"type\":\"\u{fffd}\"}");
    assert_eq!(events[5].event_id, "evt_1");
    assert!(
        reason(&read(b"\n\n{\"id\"").unwrap()[0]).contains("line 3, column 5"),
        "lines count from the file's start"
    );
}

#[test]
fn what_is_rejected_twice_is_one_event() {
    let identity = |content: &[u8]| read(content).unwrap()[0].identity().key();
    assert_eq!(identity(b"oops"), identity(b"\n\noops\r\n"));
    assert_ne!(identity(b"oops"), identity(b"ooops"));
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let long = |bytes: usize| format!("{{\"id\":\"{}\"}}", "x".repeat(bytes - 9));
    let content =
        format!("{}\n{}\n{}\n{}\r\n{}", event(1), long(3 << 20), event(2), long(EVENT_LIMIT), long(EVENT_LIMIT + 1));
    let events = read(content.as_bytes()).unwrap();
    assert_eq!(events.len(), 5);
    assert_eq!(reason(&events[1]), format!("too large: {} bytes, of which the first 65536 are kept", (3 << 20) + 1));
    let kept: Value = serde_json::from_slice(&events[1].payload).unwrap();
    assert_eq!(kept["text"].as_str().unwrap().len(), EXCERPT);
    assert_eq!(events[2].event_id, "evt_2");
    assert_eq!(reason(&events[3]), "it has no \"type\"", "exactly the limit is read");
    assert!(reason(&events[4]).starts_with("too large"));
    let other = format!("{}y", long(3 << 20));
    assert_ne!(
        events[1].identity().key(),
        read(other.as_bytes()).unwrap()[0].identity().key(),
        "all of the line tells, not its start"
    );
    let webhook = decode(Source::Stripe, &Bytes::from(long(EVENT_LIMIT + 1)), NOW);
    assert!(matches!(webhook, Err(Rejected::TooLarge { .. })));
}

#[test]
fn a_cut_archive_gives_what_it_holds_and_then_an_error() {
    let lines: String = (0..20_000).map(|n| event(n) + "\n").collect();
    for packed in [gzip(lines.as_bytes()), zstd::encode_all(lines.as_bytes(), 1).unwrap()] {
        let cut = packed[..packed.len() * 2 / 3].to_vec();
        let (mut good, mut error) = (0, None);
        for batch in batches(Cursor::new(cut), 2) {
            match batch {
                Ok(batch) => good += batch.envelopes.len(),
                Err(e) => error = Some(e),
            }
        }
        let error = error.unwrap();
        assert!(matches!(error, FileError::CutOff { .. }), "{error}");
        assert!(good > 1000, "{good}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("events.ndjson: after line {good}, byte ")), "{good}: {text}");
    }
}

#[test]
fn a_bomb_is_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let block = vec![b'\n'; 1 << 20];
    for _ in 0..80 {
        encoder.write_all(&block).unwrap();
    }
    let error = read(&encoder.finish().unwrap()).unwrap_err();
    assert!(matches!(error, FileError::Bomb { .. }), "{error}");
    assert!(error.to_string().contains("more than 200 times its size"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = open(Source::Stripe, Path::new("/nowhere/events.ndjson"), &options(1)).err().unwrap();
    assert!(error.to_string().starts_with("/nowhere/events.ndjson: "), "{error}");
    let error = from_reader(Source::Tillstream, "x", Box::new(std::io::empty()), &options(1)).err().unwrap();
    assert!(matches!(error, FileError::NotASource(_)));
}

#[test]
fn the_meter_shows_how_far_reading_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson.gz");
    std::fs::write(&path, gzip(event(1).as_bytes())).unwrap();
    let batches = open(Source::Stripe, &path, &options(1)).unwrap();
    let meter = batches.meter.clone();
    assert_eq!(batches.filter_map(Result::ok).map(|b| b.envelopes.len()).sum::<usize>(), 1);
    assert_eq!(Some(meter.read()), meter.total);
}

/// Real events of many API versions: none is rejected, and none is taken for another.
#[test]
fn every_event_of_the_sample_is_an_envelope_of_its_own() {
    let root = std::env::var("TILLSTREAM_REFERENCE").unwrap_or_else(|_| "../shared/reference".to_owned());
    let path = Path::new(&root).join("stripe/events_sample.ndjson");
    let Ok(sample) = std::fs::read_to_string(&path) else {
        assert!(std::env::var("CI").is_err() || !Path::new("../shared").exists(), "no {}", path.display());
        println!("skipped: no reference data ({})", path.display());
        return;
    };
    let lines: Vec<Value> = sample.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let events: String = lines.iter().map(|l| format!("{}\n", l["event"])).collect();
    let envelopes = read(events.as_bytes()).unwrap();
    assert_eq!(envelopes.len(), 172);
    for (envelope, line) in envelopes.iter().zip(&lines) {
        let event = &line["event"];
        assert_eq!(envelope.event_type, event["type"].as_str().unwrap());
        assert_eq!(envelope.occurred_at.seconds(), event["created"].as_i64().unwrap());
        assert_eq!(envelope.object_id.as_deref(), event["data"]["object"]["id"].as_str());
    }
    let wrapped = read(sample.as_bytes()).unwrap();
    assert!(wrapped.iter().all(|e| e.event_type == REJECTED), "lines that wrap an event are no events");
}
