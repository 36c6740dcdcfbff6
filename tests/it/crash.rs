//! Killed at any moment, and started again: nothing acknowledged is lost, nothing is doubled, nobody is written to twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Serving, Till, signature};

/// How many times the program is killed; `TILLSTREAM_KILLS` makes it more.
fn kills() -> u32 {
    std::env::var("TILLSTREAM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// A provider that takes every message, slowly enough to be killed in the middle, and remembers to whom.
pub struct Provider {
    address: String,
    taken: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Provider {
    pub fn start() -> Provider {
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

    pub fn taken(&self) -> BTreeMap<String, u32> {
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

pub fn sending(till: Till, provider: &Provider) -> Till {
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

/// A privacy key, and the Stripe events of a shop whose last day is today.
pub fn shop(customers: u32) -> (Till, PathBuf, PathBuf) {
    let shop = Till::new();
    let key = shop.write("key", [9u8; 32]);
    let customers = customers.to_string();
    let args = ["--customers", &customers, "--days", "12", "--sources", "stripe", "--out", "raw.ndjson"];
    shop.run(&[&["--quiet", "generate"], &args[..]].concat());
    let events = shift_to_now(&fs::read_to_string(shop.path("raw.ndjson")).unwrap());
    let file = shop.write("stripe.ndjson", events);
    (shop, key, file)
}

/// A fixed walk of numbers from 0 to 1, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 31)
    }
}

/// The tables are those of a clean directory, no event is there twice, and nobody got a message twice.
pub fn nothing_lost_nothing_doubled(till: &Till, expected: &[String], provider: &Provider) {
    let found = till.facts();
    let differ: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).take(3).collect();
    assert!(expected == found, "{} rows and {}; the first that differ: {differ:#?}", expected.len(), found.len());
    let doubled = till.sql("SELECT event_id, digest, count(*) AS n FROM raw.events GROUP BY 1, 2 HAVING count(*) > 1");
    assert!(doubled.is_empty(), "{doubled:?}");
    let taken = provider.taken();
    let outbox =
        till.sql("SELECT channel, provider, state, reason, count(*) AS n FROM ops.messages GROUP BY 1, 2, 3, 4");
    assert!(!taken.is_empty(), "no message was sent: {outbox:?}");
    for (message, times) in &taken {
        assert_eq!(*times, 1, "{message:?} went {times} times");
    }
}

#[test]
fn killed_anywhere_and_started_again_it_is_as_if_nothing_had_happened() {
    let (_shop, key, file) = shop(150);
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
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..kills() {
        let (command, takes): (&[&str], _) = if round < kills() / 2 {
            (&["--quiet", "ingest", "stripe", file], ingest_time)
        } else {
            (&["--quiet", "run"], run_time)
        };
        if round == kills() / 2 {
            till.run(&["--quiet", "ingest", "stripe", file]);
        }
        let after = takes.mul_f64(dice.next() * 1.2);
        let mut child = till.command(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    till.run(&["--quiet", "ingest", "stripe", file]);
    till.run(&["--quiet", "run"]);
    till.run(&["--quiet", "run"]);

    nothing_lost_nothing_doubled(&till, &expected, &provider);
    assert_eq!(
        till.count("raw.events"),
        clean.count("raw.events") + till.count("raw.events WHERE source = 'tillstream'")
            - clean.count("raw.events WHERE source = 'tillstream'")
    );
    // What went is known to have gone, or to be unknown; nothing is believed to have gone that did not.
    let states = till
        .sql("SELECT state, count(*) AS n FROM ops.messages WHERE channel = 'sms' AND provider = 'twilio' GROUP BY 1");
    let of = |wanted: &[&str]| -> u64 {
        states.iter().filter(|s| wanted.contains(&s["state"].as_str().unwrap())).map(|s| s["n"].as_u64().unwrap()).sum()
    };
    let went = provider.taken().len() as u64;
    assert!(of(&["sent", "delivered"]) <= went, "{states:?}, and {went} went");
    assert!(of(&["sent", "delivered", "unknown"]) >= went, "{states:?}, and {went} went");
}

pub const SECRET: &str = "whsec_of_the_tests";

/// A sender's events, and what became of them: what was not acknowledged is sent again, and now and then what was.
struct Load<'a> {
    events: Vec<&'a str>,
    acknowledged: Mutex<BTreeSet<usize>>,
}

/// Between two posts of one sender: a shop's events do not come all at once, and a kill is to fall between them.
const PACE: Duration = Duration::from_millis(10);

impl Load<'_> {
    /// Posts new events before `end`, among old ones, until the server is gone.
    fn post_until_it_dies(&self, address: &str, next: &AtomicUsize, end: usize, seed: u64) {
        let mut dice = Dice(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::new();
            let url = format!("http://{address}/webhooks/stripe");
            loop {
                let newest = next.load(Ordering::Relaxed);
                let index = if newest < end && (newest == 0 || dice.next() < 0.4) {
                    next.fetch_add(1, Ordering::Relaxed)
                } else {
                    (newest as f64 * dice.next()) as usize
                };
                let event = self.events[index.min(self.events.len() - 1)];
                let request = client.post(&url).header("Stripe-Signature", signature(SECRET, event));
                match request.body(event.to_owned()).send().await {
                    Ok(answer) => {
                        assert_eq!(answer.status().as_u16(), 200);
                        self.acknowledged.lock().unwrap().insert(index.min(self.events.len() - 1));
                    }
                    Err(_) => return,
                }
                tokio::time::sleep(PACE).await;
            }
        });
    }

    fn first_unacknowledged(&self) -> usize {
        let acknowledged = self.acknowledged.lock().unwrap();
        (0..).find(|i| !acknowledged.contains(i)).unwrap()
    }
}

#[test]
fn a_server_killed_under_load_keeps_what_it_acknowledged_and_texts_nobody_twice() {
    let began = Instant::now();
    let rounds = kills() / 2;
    let (_shop, key, file) = shop(150 * rounds.div_ceil(10));
    let text = fs::read_to_string(&file).unwrap();
    let load = Load { events: text.lines().collect(), acknowledged: Mutex::default() };
    let clean = Till::with_key(&key);
    clean.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    let expected = clean.facts();

    let provider = Provider::start();
    let till = sending(Till::with_key(&key), &provider).set("STRIPE__WEBHOOK_SECRETS", SECRET);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for round in 0..rounds {
        let end = load.events.len() * (round + 1) as usize / rounds as usize;
        let next = AtomicUsize::new(load.first_unacknowledged());
        let mut serving = Serving::start(&till);
        thread::scope(|scope| {
            for sender in 0..4 {
                let (load, address, next) = (&load, &serving.address, &next);
                scope.spawn(move || load.post_until_it_dies(address, next, end, u64::from(round * 4 + sender)));
            }
            // In every fourth round at about the time of a commit to the tables, else anywhere.
            let (least, more) = if round % 4 == 3 { (4_600, 1_400.0) } else { (100, 2_700.0) };
            thread::sleep(Duration::from_millis(least + (dice.next() * more) as u64));
            // By its id: the posting threads hold the server's address.
            Command::new("kill").args(["-9", &serving.child.id().to_string()]).status().unwrap();
        });
        serving.child.wait().unwrap();
    }
    let acknowledged = load.acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > rounds as usize, "{} events were acknowledged", acknowledged.len());
    let held: BTreeSet<String> = till
        .sql("SELECT event_id FROM raw.events WHERE source = 'stripe'")
        .iter()
        .map(|row| row["event_id"].as_str().unwrap().to_owned())
        .collect();
    for index in &acknowledged {
        let event: serde_json::Value = serde_json::from_str(load.events[*index]).unwrap();
        assert!(held.contains(event["id"].as_str().unwrap()), "{} was acknowledged", event["id"]);
    }
    let commits = till.count("ops.loads");
    till.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    till.run(&["--quiet", "run"]);
    nothing_lost_nothing_doubled(&till, &expected, &provider);
    println!(
        "{rounds} kills in {:.0} s: {} of {} events acknowledged before the last, {commits} commits, {} messages, {} rows \
         as in a clean run",
        began.elapsed().as_secs_f64(),
        acknowledged.len(),
        load.events.len(),
        provider.taken().len(),
        expected.len()
    );
}
