//! Strangers at the door: many who say nothing, one who sends too much. Others are served meanwhile.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Serving, Till, post, signature};

const SECRET: &str = "whsec_of_the_tests";
const KEY: &str = "wk_of_the_tests";
const IDLE: usize = 10_000;

fn till() -> Till {
    Till::new().set("STRIPE__WEBHOOK_SECRETS", SECRET).set("STOREFRONT__WRITE_KEYS", KEY)
}

fn customer(id: usize) -> String {
    json!({
        "id": format!("evt_{id}"), "object": "event", "type": "customer.created", "created": 1_782_000_000,
        "livemode": true, "data": {"object": {"id": format!("cus_{id}"), "object": "customer", "created": 1_782_000_000}}
    })
    .to_string()
}

/// Posts an event of Stripe's; the answer's status and how long it took.
fn deliver(serving: &Serving, id: usize) -> (u16, Duration) {
    let (body, began) = (customer(id), Instant::now());
    (post(serving, &body, &signature(SECRET, &body)), began.elapsed())
}

/// Bytes of memory that a process has.
fn memory(serving: &Serving) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", serving.child.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Whether the other side has not hung up.
fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// One who connects and says nothing, or half a word.
fn silent(serving: &Serving, i: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&serving.address).unwrap();
    if i.is_multiple_of(2) {
        stream.write_all(b"POST /webhooks/stripe HTTP/1.1\r\nHost: till\r\nContent-Le").unwrap();
    }
    stream
}

#[test]
fn ten_thousand_who_say_nothing_hold_up_nobody() {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    if files < IDLE as u64 + 1_000 {
        println!("skipped: {files} files may be open here");
        return;
    }
    let till = till();
    let serving = Serving::start(&till);
    assert_eq!(deliver(&serving, 0).0, 200);
    let before = memory(&serving);
    let began = Instant::now();
    let silent: Vec<TcpStream> = thread::scope(|scope| {
        let some: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..IDLE / 8).map(|i| silent(&serving, i)).collect::<Vec<_>>())).collect();
        some.into_iter().flat_map(|some| some.join().unwrap()).collect()
    });
    let opened = began.elapsed();
    let slowest = (1..=50).map(|id| deliver(&serving, id)).inspect(|(status, _)| assert_eq!(*status, 200));
    let slowest = slowest.map(|(_, took)| took).max().unwrap();
    let each = memory(&serving).saturating_sub(before) / IDLE as u64;
    // Each is hung up on after some seconds: a slow machine has hung up on the first before the last is opened.
    let held = silent.iter().filter(|stream| is_open(stream)).count();
    println!(
        "{IDLE} connections in {opened:?}, {each} bytes each; beside {held} that were held the slowest of 50 webhooks \
         took {slowest:?}"
    );
    if opened < Duration::from_secs(12) {
        assert!(held > IDLE / 2, "{held} are held after {:?}", began.elapsed());
    } else {
        println!("skipped: this machine opens connections too slowly to hold all of them");
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(each < 32 << 10, "{each} bytes a connection");
    drop(silent);
}

#[test]
fn a_source_that_floods_holds_up_no_other() {
    let till = till();
    let serving = Serving::start(&till);
    let (over, taken, turned_away) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let page = |sender: usize, call: usize| {
        let pages: Vec<_> = (0..2_000)
            .map(|i| {
                json!({"type": "page", "anonymousId": "an1", "messageId": format!("{sender}-{call}-{i}"),
                "properties": {"path": "/".to_owned() + &"x".repeat(300)}})
            })
            .collect();
        json!({"writeKey": KEY, "batch": pages}).to_string()
    };
    thread::scope(|scope| {
        for sender in 0..24 {
            let (serving, over, taken, turned_away, page) = (&serving, &over, &taken, &turned_away, &page);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = reqwest::Client::new();
                for call in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let request = client.post(serving.url("/v1/batch")).body(page(sender, call % 4));
                    // Whose body does not come in time is cut off.
                    match runtime.block_on(request.send()).map(|answer| answer.status().as_u16()) {
                        Ok(200) => taken.fetch_add(1, Ordering::Relaxed),
                        Ok(503) | Err(_) => turned_away.fetch_add(1, Ordering::Relaxed),
                        Ok(status) => panic!("{status}"),
                    };
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        let mut waits: Vec<Duration> = Vec::new();
        let mut refused = 0;
        for id in 0..60 {
            let (status, took) = deliver(&serving, id);
            refused += usize::from(status != 200);
            waits.push(took);
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        waits.sort();
        println!(
            "beside {} batches of 2,000 pages ({} turned away), of 60 webhooks {refused} were refused; median {:?}, \
             slowest {:?}",
            taken.load(Ordering::Relaxed),
            turned_away.load(Ordering::Relaxed),
            waits[30],
            waits[59]
        );
        assert!(taken.load(Ordering::Relaxed) > 0, "there is a flood");
        assert_eq!(refused, 0, "Stripe's are taken");
        assert!(waits[59] < Duration::from_secs(5), "{:?}", waits[59]);
    });
}

#[test]
fn bodies_that_never_end_take_no_other_sources_room() {
    let till = till();
    let serving = Serving::start(&till);
    assert_eq!(deliver(&serving, 0).0, 200);
    let most = vec![b' '; 1_000_000];
    // Whoever finds no room is answered, and hangs up on: that is no failure here.
    let held: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = TcpStream::connect(&serving.address).unwrap();
            stream.write_all(b"POST /v1/batch HTTP/1.1\r\nHost: till\r\nContent-Length: 1000001\r\n\r\n").unwrap();
            drop(stream.write_all(&most));
            stream
        })
        .collect();
    for id in 1..=20 {
        assert_eq!(deliver(&serving, id).0, 200);
    }
    drop(held);
}
