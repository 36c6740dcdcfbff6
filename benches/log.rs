//! How fast the log is: appends a second with one, 16 and 64 appenders, beside bare synced writes; then 200,000 events
//! of 2 KB in bulk, the same again as duplicates, read back, and the log opened again.
//!
//! `cargo bench --bench log [DIR]`: DIR is on the disk to be measured (default: the system's folder for temporary
//! files). Needs 1 GB there.

use std::{
    env,
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use tillstream::{
    base::{Digest, Envelope, Micros, Offset, Source, Via},
    log::{Appended, EventLog},
    store::Store,
};

const PAYLOAD: usize = 2048;
const BULK: usize = 200_000;
const FOR: Duration = Duration::from_secs(3);

fn event(id: String) -> Envelope {
    let payload = text(&id);
    Envelope {
        source: Source::Stripe,
        event_id: id,
        event_type: "payment_intent.succeeded".to_owned(),
        api_version: Some("2025-01-27.acacia".to_owned()),
        account: None,
        livemode: true,
        occurred_at: Micros(1_700_000_000_000_000),
        received_at: Micros(1_700_000_001_000_000),
        via: Via::File,
        object_type: Some("payment_intent".to_owned()),
        object_id: Some("pi_3MtwBwLkdIwHu7ix28a3tqPa".to_owned()),
        person_hint: Some("cus_NffrFeUfNV2Hib".to_owned()),
        digest: Digest(7),
        payload,
    }
}

/// As an event says it: names that all have, and half of it of its own.
fn text(id: &str) -> Bytes {
    let mut text = format!("{{\"id\":\"{id}\"");
    let mut noise = crc32fast::hash(id.as_bytes());
    for field in 0.. {
        if text.len() >= PAYLOAD - 40 {
            break;
        }
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += &format!(",\"field_of_it_{field:02}\":\"{noise:08x}{:04x}\"", noise >> 7 & 0xffff);
    }
    text += &format!(",\"pad\":\"{}\"}}", "x".repeat(PAYLOAD.saturating_sub(text.len() + 10)));
    text.into()
}

/// As Stripe's: no order in it that an index could use.
fn id(n: usize) -> String {
    format!("evt_{:016x}{n:08x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn bare(dir: &Path) -> Result<()> {
    let mut file = File::create(dir.join("bare"))?;
    let (start, mut writes) = (Instant::now(), 0);
    while start.elapsed() < FOR {
        file.write_all(&[b'x'; PAYLOAD])?;
        file.sync_data()?;
        writes += 1;
    }
    println!("bare write and fdatasync of {PAYLOAD} B: {:.0}/s", f64::from(writes) / start.elapsed().as_secs_f64());
    Ok(())
}

async fn appenders(log: &EventLog, many: usize) -> Result<()> {
    let (start, before) = (Instant::now(), log.stats());
    let tasks: Vec<_> = (0..many)
        .map(|who| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while start.elapsed() < FOR {
                    let at = Instant::now();
                    log.append(vec![event(format!("{many}-{who}-{}", waits.len()))]).await?;
                    waits.push(at.elapsed());
                }
                anyhow::Ok(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.append(&mut task.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{many:>3} appenders: {:>7.0} appends/s, {:>6.0} syncs/s, p50 {:.2} ms, p99 {:.2} ms",
        waits.len() as f64 / seconds,
        (log.stats().syncs - before.syncs) as f64 / seconds,
        at(0.5),
        at(0.99),
    );
    Ok(())
}

async fn bulk(log: &EventLog, stored: bool) -> Result<()> {
    let (start, before) = (Instant::now(), log.stats());
    // As a loader of files does it: the next batch is made while the last one is written.
    let (mut running, mut right) = (None, 0);
    for first in (0..BULK).step_by(1000) {
        let batch: Vec<_> = (first..first + 1000).map(|n| event(id(n))).collect();
        let log = log.clone();
        let next = tokio::spawn(async move { log.append(batch).await });
        if let Some(last) = running.replace(next) {
            right += count(last.await??, stored);
        }
    }
    if let Some(last) = running {
        right += count(last.await??, stored);
    }
    ensure!(right == BULK, "{right} answers of {BULK}");
    let (seconds, after) = (start.elapsed().as_secs_f64(), log.stats());
    println!(
        "{BULK} events of {PAYLOAD} B, {}: {seconds:.2} s, {:.0}/s, {:.0} MB/s, {} syncs, {:.2} B written a payload B",
        if stored { "new" } else { "all duplicates" },
        BULK as f64 / seconds,
        (BULK * PAYLOAD) as f64 / seconds / 1e6,
        after.syncs - before.syncs,
        (after.bytes - before.bytes) as f64 / (BULK * PAYLOAD) as f64,
    );
    Ok(())
}

fn count(answers: Vec<Appended>, stored: bool) -> usize {
    answers.iter().filter(|a| matches!(a, Appended::Stored(_)) == stored).count()
}

fn read_back(log: &EventLog) -> Result<()> {
    let (start, mut next, mut bytes) = (Instant::now(), log.start(), 0);
    while next < log.end() {
        for event in log.read(next, 4 << 20)? {
            next = Offset(event.offset.0 + 1);
            bytes += event.envelope.payload.len();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("read back: {:.0} events/s, {:.0} MB/s", next.0 as f64 / seconds, bytes as f64 / seconds / 1e6);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = match env::args().skip(1).find(|a| !a.starts_with('-')) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let (log_dir, state) = (dir.path().join("log"), dir.path().join("state"));
    bare(dir.path())?;
    let store = Store::open(&state)?;
    let log = EventLog::open(&log_dir, &store)?;
    for many in [1, 16, 64] {
        appenders(&log, many).await?;
    }
    bulk(&log, true).await?;
    bulk(&log, false).await?;
    read_back(&log)?;
    println!("state on disk: {:.1} MB", store.bytes()? as f64 / 1e6);
    drop((log, store));
    let start = Instant::now();
    let log = EventLog::open(&log_dir, &Store::open(&state)?)?;
    println!("opened again with {} events: {:.2} s", log.end(), start.elapsed().as_secs_f64());
    Ok(())
}
