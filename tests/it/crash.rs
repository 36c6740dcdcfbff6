//! Killed at any moment, and started again: nothing acknowledged is lost, nothing is doubled, nobody is written to twice.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::Till;

/// How many times the program is killed; `TILLSTREAM_KILLS` makes it more.
fn kills() -> u32 {
    std::env::var("TILLSTREAM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// A provider that takes every message, slowly enough to be killed in the middle, and remembers to whom.
struct Provider {
    address: String,
    taken: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Provider {
    fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let record = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let record = record.clone();
                thread::spawn(move || answer(stream.unwrap(), &record));
            }
        });
        Provider { address, taken }
    }

    fn taken(&self) -> BTreeMap<String, u32> {
        self.taken.lock().unwrap().clone()
    }
}

/// Twilio's Messages API: a POST is a text message, a GET asks which there were. Connections may break off: that is the test.
fn answer(stream: TcpStream, taken: &Mutex<BTreeMap<String, u32>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some((start, body)) = request(&mut reader) {
        let answer = if start.starts_with("POST") {
            let fields: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
            *taken.lock().unwrap().entry(format!("{} {}", fields["To"], fields["Body"])).or_default() += 1;
            thread::sleep(Duration::from_millis(20));
            r#"{"sid":"SM1","status":"queued"}"#.to_owned()
        } else {
            let asked = url::Url::parse(&format!("http://x{}", start.split(' ').nth(1).unwrap())).unwrap();
            let to = asked.query_pairs().find(|(k, _)| k == "To").unwrap().1.into_owned();
            let now = chrono::Utc::now().to_rfc2822();
            let of_to = |text: &str| text.strip_prefix(&format!("{to} ")).map(str::to_owned);
            let messages: Vec<_> = taken
                .lock()
                .unwrap()
                .keys()
                .filter_map(|k| of_to(k))
                .map(|body| {
                    json!({"sid": format!("SM{to}"), "body": body, "status": "delivered", "date_created": now,
                    "direction": "outbound-api"})
                })
                .collect();
            json!({ "messages": messages }).to_string()
        };
        let head = format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all((head + &answer).as_bytes()).is_err() {
            return;
        }
    }
}

/// The request line and the body of the next request; `None` when the connection ends.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut start = String::new();
    let mut length = 0;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if start.is_empty() {
            start.clone_from(&line);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((start, body))
}

/// Texts to whoever can mend a payment.
const TEXTS: &str = r#"
name = "texts"
description = "A text to whoever can mend a payment"

[[trigger]]
name = "payment_text"
segment = "payment_recoverable"
on = "enter"
channel = "sms"
template = "payment_retry"
purpose = "transactional"
"#;

fn sending(till: Till, provider: &Provider) -> Till {
    till.write("shop/pipelines/texts.toml", TEXTS);
    let dir = till.path("shop");
    till.set("PIPELINES__DIR", dir.to_str().unwrap())
        .set("ACTIVATE__SEND", "true")
        .set("ACTIVATE__SMS", "twilio")
        .set("TWILIO__ACCOUNT_SID", "AC_of_the_tests")
        .set("TWILIO__AUTH_TOKEN", "token_of_the_tests")
        .set("TWILIO__FROM", "+14155550100")
        .set("TWILIO__API_BASE", &format!("http://{}", provider.address))
}

/// A recoverable payment is of the last seven days: the sample shop's time is moved to end now.
fn shift_to_now(text: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let end = 1_782_777_600;
    let shift = now - end;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        move_times(&mut event, shift);
        out.push_str(&event.to_string());
        out.push('\n');
    }
    out
}

/// Moves every Unix time of the sample shop's years in a document.
fn move_times(value: &mut serde_json::Value, shift: i64) {
    match value {
        serde_json::Value::Number(n) => {
            if let Some(t) = n.as_i64().filter(|t| (1_740_000_000..1_800_000_000).contains(t)) {
                *value = (t + shift).into();
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|v| move_times(v, shift)),
        serde_json::Value::Object(entries) => entries.iter_mut().for_each(|(_, v)| move_times(v, shift)),
        _ => {}
    }
}

#[test]
fn killed_anywhere_and_started_again_it_is_as_if_nothing_had_happened() {
    let keys = Till::new();
    let key = keys.write("key", [9u8; 32]);
    let shop = Till::new();
    shop.run(&[
        "--quiet",
        "generate",
        "--customers",
        "150",
        "--days",
        "12",
        "--sources",
        "stripe",
        "--out",
        "raw.ndjson",
    ]);
    let events = shift_to_now(&fs::read_to_string(shop.path("raw.ndjson")).unwrap());
    let file = shop.write("stripe.ndjson", &events);
    let file = file.to_str().unwrap();

    let clean = Till::with_key(&key);
    let began = Instant::now();
    clean.run(&["--quiet", "ingest", "stripe", file]);
    let ingest_time = began.elapsed();
    let began = Instant::now();
    clean.run(&["--quiet", "run"]);
    let run_time = began.elapsed();
    let expected = clean.facts();
    assert!(expected.len() > 500, "there is something to lose");

    let provider = Provider::start();
    let till = sending(Till::with_key(&key), &provider);
    // A fixed walk over the time that each command takes, so that a failure can be had again.
    let mut dice = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..kills() {
        let (command, takes): (&[&str], _) = if round < kills() / 2 {
            (&["--quiet", "ingest", "stripe", file], ingest_time)
        } else {
            (&["--quiet", "run"], run_time)
        };
        if round == kills() / 2 {
            till.run(&["--quiet", "ingest", "stripe", file]);
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = takes.mul_f64((dice >> 33) as f64 / f64::from(1u32 << 31) * 1.2);
        let mut child = till.command(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    till.run(&["--quiet", "ingest", "stripe", file]);
    till.run(&["--quiet", "run"]);
    till.run(&["--quiet", "run"]);

    let found = till.facts();
    let differ: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).take(3).collect();
    assert!(expected == found, "{} rows and {}; the first that differ: {differ:#?}", expected.len(), found.len());
    assert_eq!(
        till.count("raw.events"),
        clean.count("raw.events") + till.count("raw.events WHERE source = 'tillstream'")
            - clean.count("raw.events WHERE source = 'tillstream'")
    );
    let doubled = till.sql("SELECT event_id, digest, count(*) AS n FROM raw.events GROUP BY 1, 2 HAVING count(*) > 1");
    assert!(doubled.is_empty(), "{doubled:?}");

    let taken = provider.taken();
    assert!(!taken.is_empty(), "messages were sent");
    for (message, times) in &taken {
        assert_eq!(*times, 1, "{message:?} went {times} times");
    }
    // What went is known to have gone, or to be unknown; nothing is believed to have gone that did not.
    let states = till
        .sql("SELECT state, count(*) AS n FROM ops.messages WHERE channel = 'sms' AND provider = 'twilio' GROUP BY 1");
    let of = |wanted: &[&str]| -> u64 {
        states.iter().filter(|s| wanted.contains(&s["state"].as_str().unwrap())).map(|s| s["n"].as_u64().unwrap()).sum()
    };
    let went = taken.len() as u64;
    assert!(of(&["sent", "delivered"]) <= went, "{states:?}, and {went} went");
    assert!(of(&["sent", "delivered", "unknown"]) >= went, "{states:?}, and {went} went");
}
