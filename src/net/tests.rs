//! Against servers on loopback that fail in each way that a provider can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::*;
use crate::config::Secret;

/// What the server does with one connection after it has read the request.
#[derive(Clone)]
enum Act {
    Answer(&'static str),
    /// Close without a word.
    Close,
    /// Keep the connection and say nothing.
    Hang,
}

const OK: Act = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
const FAILED: Act = Act::Answer("HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
const BUSY: Act = Act::Answer("HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
}

/// Acts in turn; the last act is repeated.
async fn server(acts: Vec<Act>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (acts, seen) = (acts.clone(), seen.clone());
            tokio::spawn(async move {
                read_request(&mut stream).await;
                let n = seen.fetch_add(1, Ordering::SeqCst);
                match &acts[n.min(acts.len() - 1)] {
                    Act::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    Act::Close => {}
                    Act::Hang => std::future::pending::<()>().await,
                }
            });
        }
    });
    Server { url, requests }
}

/// The head and as much body as content-length says.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    loop {
        let mut byte = [0; 4096];
        let read = stream.read(&mut byte).await.unwrap();
        text.extend_from_slice(&byte[..read]);
        let seen = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = seen.split_once("\r\n\r\n") else {
            assert!(read > 0, "half a request");
            continue;
        };
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        if body.len() >= length || read == 0 {
            return seen;
        }
    }
}

fn client() -> Client {
    let retry = Retry { tries: 4, first_wait: Duration::from_millis(1), longest_wait: Duration::from_secs(2) };
    Client::new(Options { timeout: Duration::from_millis(300), retry, ..Options::default() }).unwrap()
}

fn once(url: &str) -> Request {
    Request::post(url, Delivery::AtMostOnce).form(&[("To", "+1 415"), ("Body", "Hello")])
}

fn idempotent(url: &str) -> Request {
    Request::post(url, Delivery::Idempotent).body("text/plain", "Hello")
}

#[tokio::test]
async fn an_idempotent_request_outlives_failures() {
    let server = server(vec![FAILED, Act::Close, Act::Hang, OK]).await;
    let outcome = client().send(&idempotent(&server.url)).await.unwrap();
    assert!(matches!(&outcome, Outcome::Sent(r) if r.is_success() && &r.body[..] == b"hi"), "{outcome:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_sent_twice() {
    for act in [FAILED, Act::Close, Act::Hang, Act::Answer("HTTP/1.1 201 Made\r\ncontent-length: 9\r\n\r\nhalf")] {
        let server = server(vec![act, OK]).await;
        let outcome = client().send(&once(&server.url)).await.unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn what_was_certainly_not_processed_is_sent_again() {
    let server = server(vec![BUSY, OK]).await;
    let start = Instant::now();
    let outcome = client().send(&once(&server.url)).await.unwrap();
    assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
}

#[tokio::test]
async fn a_longer_wait_than_ours_is_the_callers_to_know() {
    const LATER: Act = Act::Answer("HTTP/1.1 429 No\r\nretry-after: 900\r\ncontent-length: 0\r\n\r\n");
    let server = server(vec![LATER]).await;
    let outcome = client().send(&once(&server.url)).await.unwrap();
    let Outcome::Refused { retry_after, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(900)));
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_has_done_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = client().send(&once(&format!("http://{gone}/x"))).await.unwrap();
    let Outcome::Refused { why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("refused") && !why.contains("/x"), "{why}");
}

#[tokio::test]
async fn a_page_that_is_not_json_is_asked_for_again() {
    const HALF: Act = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{\"data\":[");
    const WHOLE: Act = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    let server = server(vec![HALF, WHOLE]).await;
    let outcome = client().send(&Request::get(&server.url).wants_json()).await.unwrap();
    assert!(matches!(&outcome, Outcome::Sent(r) if &r.body[..] == b"{}"), "{outcome:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn once_in_doubt_always_in_doubt() {
    // The first try may have been processed; that the later ones were not does not make it undone.
    let server = server(vec![Act::Close, BUSY]).await;
    let outcome = client().send(&idempotent(&server.url)).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_no_is_an_answer_and_a_redirect_is_not_followed() {
    const MOVED: Act = Act::Answer("HTTP/1.1 307 Go\r\nlocation: /y\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    const BAD: Act = Act::Answer("HTTP/1.1 400 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    for (act, status) in [(MOVED, 307), (BAD, 400)] {
        let server = server(vec![act]).await;
        let outcome = client().send(&idempotent(&server.url)).await.unwrap();
        assert!(matches!(&outcome, Outcome::Sent(r) if r.status == status), "{outcome:?}");
        assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn the_pace_is_kept() {
    let server = server(vec![OK]).await;
    let limits = vec![Limit { prefix: server.url.clone(), requests: 2, per: Duration::from_millis(200) }];
    let client = Client::new(Options { limits, ..Options::default() }).unwrap();
    let start = Instant::now();
    let requests: Vec<_> = (0..6).map(|_| idempotent(&server.url)).collect();
    for outcome in futures::future::join_all(requests.iter().map(|r| client.send(r))).await {
        assert!(matches!(outcome.unwrap(), Outcome::Sent(_)));
    }
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_request_says_what_it_was_given() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/m", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let text = read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        text
    });
    let request = once(&url).basic_auth("AC1", &Secret::new("token")).header("x-a", "b");
    client().send(&request).await.unwrap();
    let text = seen.await.unwrap();
    assert!(text.starts_with("POST /m HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("authorization: Basic QUMxOnRva2Vu\r\n") && text.contains("x-a: b\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nTo=%2B1+415&Body=Hello"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_without_secrets() {
    let error = client().send(&Request::get("ftp://a/b")).await.unwrap_err();
    assert!(error.to_string().contains("http(s)"), "{error}");
    let error =
        client().send(&Request::get("http://a/b").header("authorization", "Bearer s3cret\n")).await.unwrap_err();
    assert!(error.to_string().contains("authorization") && !error.to_string().contains("s3cret"), "{error}");
}

/// Answers one request on a Unix socket, in pieces, and returns what it read.
async fn answer(listener: UnixListener, pieces: Vec<Vec<u8>>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    let mut buffer = vec![0; 65536];
    while !seen.ends_with(b"\r\n0\r\n\r\n") && !seen.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        seen.extend_from_slice(&buffer[..read]);
    }
    for piece in pieces {
        write_piece(&mut stream, &piece).await;
    }
    String::from_utf8(seen).unwrap()
}

async fn write_piece(stream: &mut (impl AsyncWrite + Unpin), piece: &[u8]) {
    stream.write_all(piece).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn an_answer_arrives_while_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tillstream.sock");
    let pieces = vec![
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        b"3\r\none\r\n".to_vec(),
        b"3\r\ntwo\r\n".to_vec(),
        b"0\r\n\r\n".to_vec(),
    ];
    let seen = tokio::spawn(answer(UnixListener::bind(&socket).unwrap(), pieces));
    let client = LocalClient::new(&socket).unwrap();
    let mut answer = client.get("/v1/sql", &[("query", "SELECT 1 & 2")]).await.unwrap();
    assert!(answer.is_success());
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "one");
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "two");
    assert_eq!(answer.chunk().await.unwrap(), None);
    assert!(seen.await.unwrap().starts_with("GET /v1/sql?query=SELECT+1+%26+2 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tillstream.sock");
    let pieces = vec![b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n".to_vec()];
    tokio::spawn(answer(UnixListener::bind(&socket).unwrap(), pieces));
    let answer = LocalClient::new(&socket).unwrap().get("/v1/sql", &[]).await.unwrap();
    assert!(matches!(answer.bytes().await, Err(LocalError::Lost(_))));
}

#[tokio::test]
async fn a_directory_without_a_process_is_told_from_one_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tillstream.sock");
    let absent = LocalClient::new(&socket).unwrap().get("/healthz", &[]).await;
    assert!(matches!(absent, Err(LocalError::NotRunning(_))));
    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stale = LocalClient::new(&socket).unwrap().get("/healthz", &[]).await;
    assert!(matches!(stale, Err(LocalError::NotRunning(_))));
}
