//! What was acknowledged is seen before it is committed, and is right before, after, and when the process is killed between.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use crate::support::{Serving, Till, signature, wait};

const SECRET: &str = "whsec_of_the_tests";
/// Without what activation records of its own messages meanwhile.
const EVENTS: &str = "raw.events WHERE source = 'stripe'";
/// Posts under way at once.
const AT_ONCE: usize = 16;

fn post_all(serving: &Serving, events: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (client, url) = (reqwest::Client::new(), serving.url("/webhooks/stripe"));
    let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    runtime.block_on(async {
        let mut posts = tokio::task::JoinSet::new();
        for body in events {
            let place = room.clone().acquire_owned().await.unwrap();
            let signed = signature(SECRET, body);
            let post = client.post(&url).header("Stripe-Signature", signed).body(body.clone());
            posts.spawn(async move {
                let status = post.send().await.unwrap().status().as_u16();
                drop(place);
                status
            });
        }
        while let Some(status) = posts.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
    });
}

fn committed(till: &Till) -> bool {
    till.sql("SELECT count(*) AS n FROM ops.webhook_deliveries WHERE status = 'durable'")[0]["n"] == 0
}

#[test]
fn facts_are_right_from_memory_and_from_files_and_after_a_kill_between() {
    let keys = Till::new();
    let key = keys.write("key", [3u8; 32]);
    let clean = Till::with_key(&key);
    let made =
        ["--quiet", "generate", "--customers", "300", "--days", "20", "--sources", "stripe", "--out", "s.ndjson"];
    clean.run(&made);
    let file = clean.path("s.ndjson");
    clean.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    let expected = clean.facts();
    let events: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    assert!(events.len() > 500, "there is something to see");

    let till = Till::with_key(&key).set("STRIPE__WEBHOOK_SECRETS", SECRET);
    let all = clean.count(EVENTS);
    let (first, rest) = events.split_at(events.len() / 2);
    let mut serving = Serving::start(&till);
    post_all(&serving, first);
    wait("something is seen before it is committed", Duration::from_secs(5), || {
        let seen = till.count(EVENTS);
        let doubled = till.sql("SELECT log_offset FROM raw.events GROUP BY 1 HAVING count(*) > 1");
        assert!(doubled.is_empty(), "{doubled:?}");
        seen > 0 && !committed(&till)
    });
    post_all(&serving, rest);
    // Killed with what it acknowledged last in memory and in the log alone.
    serving.child.kill().unwrap();
    drop(serving);

    let serving = Serving::start(&till);
    assert_eq!(till.count(EVENTS), all, "whoever asks first sees all of it again");
    assert!(till.facts() == expected, "facts seen soon after the start");
    post_all(&serving, &events[..50]);
    let late: Vec<String> = rest[..50].iter().map(|e| e.replacen("\"evt_", "\"evt_again_", 1)).collect();
    post_all(&serving, &late);
    // Some of a shop's events are delivered twice.
    let id = |event: &String| serde_json::from_str::<serde_json::Value>(event).unwrap()["id"].to_string();
    let more = all + late.iter().map(id).collect::<BTreeSet<_>>().len() as u64;
    wait("events that say what others said are seen", Duration::from_secs(10), || till.count(EVENTS) == more);
    assert!(till.facts() == expected, "from memory");
    wait("all of it is committed", Duration::from_secs(20), || committed(&till));
    assert!(till.facts() == expected, "from files");
    drop(serving);
    assert!(till.facts() == expected, "by another process");
    assert_eq!(till.count(EVENTS), more);
}
