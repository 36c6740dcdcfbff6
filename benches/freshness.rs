//! How soon an acknowledged webhook is in an answer, under load: a `serve` of its own, signed Stripe webhooks at a given
//! rate, and queries that look for one of them at a time.
//!
//! `cargo bench --bench freshness -- [--rate N] [--seconds S] [--connections C] [--preload CUSTOMERS] [--dir DIR]` (default:
//! 1,000 a second for 30 seconds over 64 connections). With a preload there are sixty days of a shop of so many customers
//! before, and one event in 25 tells of a refund of what was paid then. Waits are counted from when an event was due, so that
//! a server that stalls is not spared the events that it held up. Every ten seconds a line; at the end the percentiles. Exits
//! 1 where the targets are missed: acknowledged within 25 ms and seen within 1 s at the 99th percentile.

mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tillstream::{base::Micros, config::Secret, sources};
use tokio::{sync::watch, task::JoinSet, time};

use self::support::{Bodies, SECRET, Server, at, refunds::Refunds};

const ACK_P99: Duration = Duration::from_millis(25);
const SEEN_P99: Duration = Duration::from_secs(1);
/// The sample shop whose events are told again and again, each time of other objects. Of few days, as what is posted is of
/// today.
const CUSTOMERS: u32 = 12_000;
const DAYS: u32 = 2;
/// With a preload: one event in so many is of a refund.
const REFUNDED: usize = 25;
const REPORT: Duration = Duration::from_secs(10);
/// Between two looks for an event.
const LOOK: Duration = Duration::from_millis(10);
/// From then on an event is looked for among all.
const PATIENCE: Duration = Duration::from_secs(2);

struct Given {
    rate: u64,
    seconds: u64,
    connections: usize,
    preload: Option<u32>,
    dir: Option<PathBuf>,
}

impl Given {
    fn read() -> Result<Given> {
        let mut given = Given { rate: 1000, seconds: 30, connections: 64, preload: None, dir: None };
        let mut words = env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| anyhow!("{word} wants a value"))?;
            match word.as_str() {
                "--rate" => given.rate = value.parse()?,
                "--seconds" => given.seconds = value.parse()?,
                "--connections" => given.connections = value.parse()?,
                "--preload" => given.preload = Some(value.parse()?),
                "--dir" => given.dir = Some(value.into()),
                _ => bail!("{word} is none of --rate, --seconds, --connections, --preload, --dir"),
            }
        }
        ensure!(given.rate > 0 && given.connections > 0, "nothing would be sent");
        Ok(given)
    }
}

/// The server under load.
struct Loaded {
    server: Server,
    data: PathBuf,
    token: String,
}

impl Loaded {
    fn start(dir: &Path) -> Result<Loaded> {
        let (server, data) = (Server::ours(dir)?, dir.join("data"));
        let token = fs::read_to_string(data.join("admin.token"))?.trim().to_owned();
        Ok(Loaded { server, data, token })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn resident_mb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    }

    /// Bytes that the process has written so far.
    fn written(&self) -> Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.server.child.id()))?;
        let line = io.lines().find_map(|l| l.strip_prefix("write_bytes:")).context("no write_bytes")?;
        Ok(line.trim().parse()?)
    }
}

/// Waits, one after the other as they came.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Waits {
    fn add(&self, wait: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
    }

    fn since(&self, first: usize) -> Vec<Duration> {
        let mut some = self.0.lock().unwrap_or_else(PoisonError::into_inner)[first..].to_vec();
        some.sort();
        some
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[derive(Default)]
struct Measured {
    acked: Waits,
    seen: Waits,
    refused: Waits,
    bytes: std::sync::atomic::AtomicU64,
}

/// Id of an event that was acknowledged, and when.
type Acked = Option<(String, Instant)>;

/// What is sent.
struct Load {
    bodies: Bodies,
    refunds: Option<Refunds>,
}

impl Load {
    fn body(&self, n: usize) -> Result<String> {
        match &self.refunds {
            Some(refunds) if n.is_multiple_of(REFUNDED) => refunds.body(n / REFUNDED),
            _ => Ok(self.bodies.body(n)),
        }
    }
}

async fn send(
    given: &Given,
    server: &Loaded,
    load: Arc<Load>,
    measured: Arc<Measured>,
    newest: watch::Sender<Acked>,
) -> Result<()> {
    // Connections are let go of before the server closes them as idle, which might meet a request on its way.
    let client = reqwest::Client::builder().pool_max_idle_per_host(given.connections);
    let client = client.pool_idle_timeout(Duration::from_secs(5)).build()?;
    let url = server.url("/webhooks/stripe");
    let (began, rate, total) = (Instant::now(), given.rate, given.rate * given.seconds);
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..given.connections {
        let (client, url, load, measured) = (client.clone(), url.clone(), load.clone(), measured.clone());
        let (next, newest, secret) = (next.clone(), newest.clone(), Secret::new(SECRET));
        senders.spawn(async move {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= total {
                    return anyhow::Ok(());
                }
                let body = load.body(n as usize)?;
                let due = began + Duration::from_secs_f64(n as f64 / rate as f64);
                time::sleep_until(due.into()).await;
                let id = id_of(&body)?.to_owned();
                measured.bytes.fetch_add(body.len() as u64, std::sync::atomic::Ordering::Relaxed);
                let signed = sources::sign(&secret, body.as_bytes(), Micros::now());
                let answer = client.post(&url).header("Stripe-Signature", signed).body(body).send().await?;
                if answer.status().is_success() {
                    measured.acked.add(due.elapsed());
                    newest.send_replace(Some((id, Instant::now())));
                } else {
                    measured.refused.add(due.elapsed());
                }
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

fn id_of(body: &str) -> Result<&str> {
    let from = body.find("\"evt_").context("an event without an id")? + 1;
    let length = body[from..].find('"').context("an id without an end")?;
    Ok(&body[from..from + length])
}

/// Looks for the event that was acknowledged last until it is seen, then for the next.
async fn look(server: &Loaded, measured: Arc<Measured>, mut newest: watch::Receiver<Acked>) -> Result<()> {
    let client = reqwest::Client::new();
    let url = server.url("/v1/sql");
    let mut last = -1;
    while newest.changed().await.is_ok() {
        let Some((id, acked)) = newest.borrow_and_update().clone() else { continue };
        loop {
            // What was acknowledged last is among the newest, or comes: several connections are not in order. Unless its answer
            // was long on the way, on our side of it.
            let from = if acked.elapsed() < PATIENCE { last - 2000 } else { -1 };
            let query = format!(
                "SELECT count(*) FILTER (WHERE event_id = '{id}') AS found, coalesce(max(log_offset), {last}) AS last \
                 FROM raw.events WHERE log_offset > {from}"
            );
            let asked = client.post(&url).bearer_auth(&server.token).json(&serde_json::json!({ "query": query }));
            let answer = asked.send().await?;
            ensure!(answer.status().is_success(), "a query failed: {}", answer.text().await?);
            let rows: serde_json::Value = answer.json().await?;
            let number = |name: &str| rows[0][name].as_i64().context("an answer without its number");
            last = number("last")?;
            if number("found")? > 0 {
                measured.seen.add(acked.elapsed());
                break;
            }
            ensure!(acked.elapsed() < Duration::from_secs(60), "{id} was not seen within a minute");
            time::sleep(LOOK).await;
        }
    }
    Ok(())
}

fn files(dir: &Path, ending: &str) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let count = |path: PathBuf| match path.is_dir() {
        true => files(&path, ending),
        false => usize::from(path.to_string_lossy().ends_with(ending)),
    };
    entries.flatten().map(|e| count(e.path())).sum()
}

/// Files that the tables are made of by now.
async fn active_files(server: &Loaded) -> Result<u64> {
    let url = server.url("/metrics");
    let metrics = reqwest::Client::new().get(url).bearer_auth(&server.token).send().await?.text().await?;
    let of_tables = metrics.lines().filter(|l| l.starts_with("tillstream_table_files{"));
    Ok(of_tables.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

async fn report(server: &Loaded, measured: &Measured, began: Instant) -> Result<()> {
    let (mut acked, mut seen) = (0, 0);
    loop {
        time::sleep(REPORT).await;
        let (acks, looks) = (measured.acked.since(acked), measured.seen.since(seen));
        (acked, seen) = (acked + acks.len(), seen + looks.len());
        println!(
            "{:>5.0} s  {:>6.0} events/s  ack p99 {:>7.1?}  seen p99 {:>7.1?} of {:>4}  {:>5} MB  {:>5} files, {:>6} on disk",
            began.elapsed().as_secs_f64(),
            acks.len() as f64 / REPORT.as_secs_f64(),
            at(&acks, 0.99),
            at(&looks, 0.99),
            looks.len(),
            server.resident_mb()?,
            active_files(server).await?,
            files(&server.data.join("lake"), ".parquet"),
        );
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let given = Given::read()?;
    let dir = match &given.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let refunds = given.preload.map(|customers| Refunds::preload(dir.path(), customers)).transpose()?;
    let load = Arc::new(Load { bodies: Bodies::of(CUSTOMERS, DAYS, |_| true), refunds });
    let server = Loaded::start(dir.path())?;
    let measured = Arc::new(Measured::default());
    let (newest, looked_for) = watch::channel(None);
    let (began, before) = (Instant::now(), server.written()?);
    tokio::select! {
        sent = async {
            tokio::try_join!(
                send(&given, &server, load, measured.clone(), newest),
                look(&server, measured.clone(), looked_for),
            )
        } => drop(sent?),
        told = report(&server, &measured, began) => told?,
    }
    let (acks, looks) = (measured.acked.since(0), measured.seen.since(0));
    let bytes = measured.bytes.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "{} events acknowledged, {} refused: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        acks.len(),
        measured.refused.len(),
        at(&acks, 0.5),
        at(&acks, 0.99),
        at(&acks, 1.0)
    );
    println!(
        "{} of them looked for: seen after p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        looks.len(),
        at(&looks, 0.5),
        at(&looks, 0.99),
        at(&looks, 1.0)
    );
    println!("{:.2} bytes written a byte taken in", (server.written()? - before) as f64 / bytes.max(1) as f64);
    let met = at(&acks, 0.99) <= ACK_P99 && at(&looks, 0.99) <= SEEN_P99;
    println!("{}", if met { "both targets are met" } else { "a target is missed" });
    Ok(ExitCode::from(u8::from(!met)))
}
