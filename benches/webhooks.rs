//! Webhooks a second, each answered only when it is durable: ours beside what bounds it and beside a peer, in one run.
//!
//! `cargo bench --bench webhooks -- [--peer HOST:PORT/PATH] [--events N] [--connections 16,64,256] [--dir DIR]`
//!
//! Each connection sends an event, waits for its answer, and sends the next. Two servers bound what is possible with C
//! connections: one that verifies the signature and discards the body (the processor's bound, with this load generator
//! on the same cores), and C / the time of one write and sync (the disk's). The peer takes the same requests, signed with
//! the same secret. `bench/webhooks` starts a peer and calls this.

mod support;

use std::{
    env, fs,
    io::Write as _,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use tillstream::{
    base::Micros,
    config::Secret,
    sources::{self, Verifier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use self::support::{Bodies, SECRET, Server, at};

/// What a peer that knows fewer types takes too.
const TYPES: [&str; 3] = ["\"customer.", "\"charge.", "\"payment_intent."];
/// Synced writes that give the time of one.
const SYNCS: u32 = 200;
/// Of a webhook, for the bare writes.
const PAYLOAD: usize = 2048;

struct Given {
    peer: Option<String>,
    events: usize,
    connections: Vec<usize>,
    dir: Option<PathBuf>,
}

impl Given {
    fn read() -> Result<Given> {
        let mut given = Given { peer: None, events: 40_000, connections: vec![16, 64, 256, 1024], dir: None };
        let mut words = env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| anyhow!("{word} wants a value"))?;
            match word.as_str() {
                "--peer" => given.peer = Some(value),
                "--events" => given.events = value.parse()?,
                "--connections" => given.connections = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--dir" => given.dir = Some(value.into()),
                _ => bail!("{word} is none of --peer, --events, --connections, --dir"),
            }
        }
        ensure!(given.events > 0 && !given.connections.contains(&0), "nothing would be sent");
        Ok(given)
    }
}

/// This program again, as a server that verifies and discards.
fn discarding() -> Result<Server> {
    let program = env::current_exe()?;
    Server::start(|address| {
        let mut command = Command::new(program);
        command.env("DISCARD", address);
        command
    })
}

async fn discard(address: &str) -> Result<()> {
    async fn handle(State(verifier): State<Verifier>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let signature = headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
        match verifier.verify(signature, &body, Micros::now()) {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::BAD_REQUEST,
        }
    }
    let verifier = Verifier::new(&[Secret::new(SECRET)], 300);
    let routes = Router::new().route("/webhooks/stripe", post(handle)).with_state(verifier);
    Ok(axum::serve(tokio::net::TcpListener::bind(address).await?, routes).await?)
}

/// Bodies of events, all different.
fn bodies(count: usize) -> Vec<String> {
    let known = |line: &str| TYPES.iter().any(|t| line.contains(&format!("\"type\":{t}")));
    let bodies = Bodies::of(3_000, 60, known);
    (0..count).map(|n| bodies.body(n)).collect()
}

fn request(host: &str, path: &str, body: &str) -> Vec<u8> {
    let signature = sources::sign(&Secret::new(SECRET), body.as_bytes(), Micros::now());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nstripe-signature: {signature}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

struct Measured {
    rate: f64,
    p50: Duration,
    p99: Duration,
}

/// Sends all bodies over `connections`; every one must be answered 200.
async fn load(to: &str, connections: usize, bodies: &[String]) -> Result<Measured> {
    let (host, path) = to.split_once('/').context("HOST:PORT/PATH")?;
    let address = host.to_socket_addrs()?.next().context("no such host")?;
    let path = format!("/{path}");
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(bodies.iter().map(|body| request(host, &path, body)).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let waits = Arc::new(Mutex::new(Vec::with_capacity(requests.len())));
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(address).await?);
    }
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for stream in streams {
        let (requests, next, waits) = (requests.clone(), next.clone(), waits.clone());
        senders.spawn(async move {
            let own = send(stream, &requests, &next).await?;
            waits.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            anyhow::Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    let rate = requests.len() as f64 / began.elapsed().as_secs_f64();
    let mut waits = std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner));
    waits.sort_unstable();
    Ok(Measured { rate, p50: at(&waits, 0.5), p99: at(&waits, 0.99) })
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send(mut stream: TcpStream, requests: &[Vec<u8>], next: &AtomicUsize) -> Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let began = Instant::now();
        stream.write_all(request).await?;
        answer.clear();
        while !is_whole(&answer)? {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the server closed a connection");
        }
        waits.push(began.elapsed());
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "answered {}", String::from_utf8_lossy(&answer));
    }
    Ok(waits)
}

/// Whether an answer is there with all of its body.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Ok(0), |l| l.trim().parse())?;
    Ok(answer.len() >= end + 4 + length)
}

/// One write of an event's size and its sync, on the disk in question.
fn sync_time(dir: &Path) -> Result<Duration> {
    let mut file = fs::File::create(dir.join("bare"))?;
    let began = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[b'x'; PAYLOAD])?;
        file.sync_data()?;
    }
    Ok(began.elapsed() / SYNCS)
}

fn show(name: &str, connections: usize, measured: &Measured) {
    let Measured { rate, p50, p99 } = measured;
    println!("{connections:>5} connections  {name:<22}{rate:>8.0}/s   p50 {p50:>9.2?}   p99 {p99:>9.2?}");
}

#[tokio::main]
async fn main() -> Result<()> {
    if let Ok(address) = env::var("DISCARD") {
        return discard(&address).await;
    }
    let given = Given::read()?;
    let own = tempfile::tempdir()?;
    let dir = given.dir.as_deref().unwrap_or(own.path());
    let sync = sync_time(dir)?;
    println!("a write of {PAYLOAD} B and its sync take {sync:.2?} on this disk; {} events a row", given.events);
    for connections in given.connections {
        let bodies = bodies(given.events);
        let bound = {
            let server = discarding()?;
            load(&format!("{}/webhooks/stripe", server.address), connections, &bodies).await?
        };
        show("verify and discard", connections, &bound);
        let data = tempfile::tempdir_in(dir)?;
        let ours = {
            let server = Server::ours(data.path())?;
            load(&format!("{}/webhooks/stripe", server.address), connections, &bodies).await?
        };
        show("tillstream", connections, &ours);
        let limit = bound.rate.min(connections as f64 / sync.as_secs_f64());
        println!("{:>37} of the limit of {limit:.0}/s", format!("{:.0}%", 100.0 * ours.rate / limit));
        if let Some(peer) = &given.peer {
            // A tenth of the events is enough to know its rate, and spares the reader its time.
            let theirs = load(peer, connections, &bodies[..bodies.len() / 10]).await?;
            show("the peer", connections, &theirs);
            println!("{:>37} times the peer's rate", format!("{:.1}", ours.rate / theirs.rate));
        }
    }
    Ok(())
}
