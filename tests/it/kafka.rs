//! The log kept by Kafka, and Kafka as a source, on librdkafka's mock of a cluster: whatever brokers and processes do, the
//! tables are those of a clean directory.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use serde_json::json;

use crate::{
    crash::{Provider, SECRET, nothing_lost_nothing_doubled, sending, shop},
    support::{Serving, Till, free_port, signature, wait},
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const LOG: &str = "tillstream.events";
const PARTITIONS: i32 = 4;
const LONG: Duration = Duration::from_secs(90);

/// With the log's topic and these; the mock makes none on demand.
fn cluster(brokers: i32, topics: &[&str]) -> Cluster {
    let cluster = MockCluster::new(brokers).unwrap();
    for topic in [LOG].iter().chain(topics) {
        cluster.create_topic(topic, PARTITIONS, brokers).unwrap();
    }
    cluster
}

/// A shop whose log the cluster keeps.
fn logging(till: Till, cluster: &Cluster) -> Till {
    till.set("LOG__KIND", "kafka")
        .set("LOG__BROKERS", &cluster.bootstrap_servers())
        .set("STRIPE__WEBHOOK_SECRETS", SECRET)
}

/// Posts every event until it is acknowledged, as Stripe does, in turn to each address.
fn post_all(addresses: &[String], events: &[&str], sent: &AtomicUsize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(12)).build().unwrap();
        loop {
            let index = sent.fetch_add(1, Ordering::Relaxed);
            let Some(event) = events.get(index) else { return };
            for attempt in 0.. {
                assert!(attempt < 600, "it is never taken");
                let url = format!("http://{}/webhooks/stripe", addresses[(index + attempt) % addresses.len()]);
                let request = client.post(url).header("Stripe-Signature", signature(SECRET, event));
                match request.body((*event).to_owned()).send().await.map(|a| a.status().as_u16()) {
                    Ok(200) => break,
                    Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Ok(other) => panic!("answered {other}"),
                }
            }
        }
    });
}

/// Posts in the background while `meanwhile` does what it does, which is told how many were sent.
fn post_while(addresses: &[String], events: &[&str], meanwhile: impl FnOnce(&dyn Fn() -> usize)) {
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| post_all(addresses, events, &sent));
        }
        meanwhile(&|| sent.load(Ordering::Relaxed));
    });
}

fn signal(serving: &Serving, name: &str) {
    let id = serving.child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

fn stripe_events(till: &Till) -> u64 {
    till.count("raw.events WHERE source = 'stripe'")
}

fn produce(cluster: &Cluster, topic: &str, records: impl IntoIterator<Item = (String, String)>) {
    let mut client = ClientConfig::new();
    let producer: BaseProducer = client.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for (key, value) in records {
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn added(number: usize) -> (String, String) {
    let message = json!({"type": "track", "event": "Product Added", "messageId": format!("m{number}"),
        "anonymousId": format!("an{}", number % 7), "timestamp": "2026-07-01T10:00:00Z",
        "properties": {"cart_id": format!("c{}", number % 7), "product_id": "p1", "quantity": 1, "price": 5, "currency": "EUR"}});
    (format!("c{}", number % 7), message.to_string())
}

#[test]
fn brokers_stop_start_and_change_leaders_and_the_tables_are_as_if_they_had_not() {
    let (_shop, key, file) = shop(150);
    let text = fs::read_to_string(&file).unwrap();
    let events: Vec<&str> = text.lines().collect();
    let clean = Till::with_key(&key);
    clean.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);

    let cluster = cluster(3, &[]);
    let till = logging(Till::with_key(&key), &cluster);
    let serving = Serving::start(&till);
    post_while(std::slice::from_ref(&serving.address), &events, |sent| {
        for quarter in 1..4 {
            wait("events flow", LONG, || sent() > events.len() * quarter / 4);
            match quarter {
                1 => (0..PARTITIONS).for_each(|p| cluster.partition_leader(LOG, p, Some(1 + (p + 1) % 3)).unwrap()),
                2 => cluster.broker_down(1).unwrap(),
                _ => (1..4).for_each(|b| cluster.broker_down(b).unwrap()),
            }
            thread::sleep(Duration::from_millis(1500));
            (1..4).for_each(|b| cluster.broker_up(b).unwrap());
        }
    });
    let expected = stripe_events(&clean);
    wait("all events are loaded", LONG, || stripe_events(&till) >= expected);
    assert_eq!(stripe_events(&till), expected);
    assert!(clean.facts() == till.facts(), "other rows than without brokers");
}

#[test]
fn two_directories_follow_one_log_through_a_kill_and_a_pause_and_text_nobody_twice() {
    let (_shop, key, file) = shop(150);
    let text = fs::read_to_string(&file).unwrap();
    let events: Vec<&str> = text.lines().collect();
    let clean = Till::with_key(&key);
    clean.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    let expected = clean.facts();

    let cluster = cluster(3, &[]);
    let provider = Provider::start();
    let tills = [(); 2].map(|()| sending(logging(Till::with_key(&key), &cluster), &provider));
    let ports = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let (mut killed, zombie) = (Serving::start_at(&tills[0], &ports[0]), Serving::start_at(&tills[1], &ports[1]));
    post_while(&ports, &events, |sent| {
        wait("events flow", LONG, || sent() > events.len() / 4);
        signal(&killed, "-KILL");
        killed.child.wait().unwrap();
        wait("events flow to the other", LONG, || sent() > events.len() / 2);
        killed = Serving::start_at(&tills[0], &ports[0]);
        signal(&zombie, "-STOP");
        thread::sleep(Duration::from_secs(15));
        signal(&zombie, "-CONT");
    });
    // Each event once more, to the other.
    post_while(&[ports[1].clone(), ports[0].clone()], &events, |_| {});
    for till in &tills {
        wait("both hold all events", LONG, || stripe_events(till) >= stripe_events(&clean));
    }
    wait("texts go out", LONG, || !provider.taken().is_empty());
    thread::sleep(Duration::from_secs(5));
    for till in &tills {
        assert_eq!(stripe_events(till), stripe_events(&clean));
        nothing_lost_nothing_doubled(till, &expected, &provider);
    }
}

#[test]
fn a_group_that_rebalances_and_a_member_that_comes_back_too_late_take_each_record_once() {
    let cluster = cluster(1, &["shop.events"]);
    let member = || {
        logging(Till::new(), &cluster)
            .set("KAFKA__BROKERS", &cluster.bootstrap_servers())
            .set("KAFKA__TOPICS", "shop.events")
            .set("KAFKA__PROPERTIES", "session.timeout.ms=3000,heartbeat.interval.ms=500")
    };
    let tills = [member(), member()];
    let first = Serving::start(&tills[0]);
    produce(&cluster, "shop.events", (0..500).map(added));
    wait("the first member takes all", LONG, || tills[0].count("core.cart_events") == 500);

    let second = Serving::start(&tills[1]);
    produce(&cluster, "shop.events", (500..1000).map(added));
    signal(&first, "-STOP");
    produce(&cluster, "shop.events", (1000..1500).map(added));
    wait("the second takes over", LONG, || tills[1].count("core.cart_events") == 1500);
    signal(&first, "-CONT");
    produce(&cluster, "shop.events", (1400..2000).map(added));
    for till in &tills {
        wait("both logs hold all", LONG, || till.count("core.cart_events") >= 2000);
    }
    drop(second);
    produce(&cluster, "shop.events", (2000..2100).map(added));
    wait("the first is alone again", LONG, || tills[0].count("core.cart_events") == 2100);
    let ids = tills[0].sql("SELECT event_id FROM raw.events WHERE source = 'storefront'");
    let ids: BTreeSet<String> = ids.iter().map(|row| row["event_id"].to_string()).collect();
    assert_eq!((ids.len(), tills[0].count("raw.events")), (2100, 2100));
}

#[test]
fn a_merchants_topic_comes_into_an_embedded_log_and_what_is_no_event_says_where_it_stood() {
    let cluster = cluster(1, &["shop.events", "payments"]);
    let till = Till::new()
        .set("KAFKA__BROKERS", &cluster.bootstrap_servers())
        .set("KAFKA__TOPICS", "shop.events,payments=stripe");
    produce(&cluster, "shop.events", (0..20).map(added));
    produce(&cluster, "shop.events", [("k".to_owned(), "{\"type\": ".to_owned())]);
    let customer = json!({"id": "evt_1", "object": "event", "type": "customer.created", "created": 1_782_000_000,
        "livemode": true, "data": {"object": {"id": "cus_1", "object": "customer", "created": 1_782_000_000}}});
    produce(&cluster, "payments", [("k".to_owned(), format!("\0\0\0\0\u{7}{customer}"))]);
    let serving = Serving::start(&till);
    wait("all is taken", LONG, || {
        (till.count("core.cart_events"), till.count("core.customers"), till.count("raw.quarantine")) == (20, 1, 1)
    });
    let reason = till.sql("SELECT reason FROM raw.quarantine")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("topic shop.events, partition ") && reason.contains("not JSON"), "{reason}");
    // What was committed is not read again.
    drop(serving);
    let serving = Serving::start(&till);
    produce(&cluster, "shop.events", [added(20)]);
    wait("the next is taken", LONG, || till.count("core.cart_events") == 21);
    assert!(
        serving
            .get("/metrics", Some(&serving.token))
            .1
            .contains("tillstream_events_duplicate_total{source=\"storefront\"} 0")
    );
}

#[test]
fn a_directory_follows_on_from_where_its_tables_are_and_ingests_as_without_brokers() {
    let (_shop, key, file) = shop(150);
    let file = file.to_str().unwrap();
    let clean = Till::with_key(&key);
    let once = clean.json(&["ingest", "stripe", file]);
    let twice = clean.json(&["ingest", "stripe", file]);
    let cluster = cluster(1, &[]);
    let till = logging(Till::with_key(&key), &cluster);
    for expected in [once, twice] {
        let done = till.json(&["ingest", "stripe", file]);
        for count in ["read", "accepted", "duplicates", "quarantined"] {
            assert_eq!(done[count], expected[count], "{count}");
        }
    }
    // A `serve` may queue messages, whose records are events too.
    let taken_in = "raw.events WHERE source <> 'tillstream'";
    let (expected, events) = (clean.facts(), clean.count(taken_in));
    let holds_all = |till: &Till| {
        let _serving = Serving::start(till);
        wait("it holds all events", LONG, || till.count(taken_in) >= events);
        assert_eq!(till.count(taken_in), events);
        assert!(till.facts() == expected);
    };
    holds_all(&till);
    // A directory that is made later has all of it from the brokers, and so has one that lost its state.
    let later = logging(Till::with_key(&key), &cluster);
    holds_all(&later);
    fs::remove_dir_all(later.data().join("state")).unwrap();
    holds_all(&later);
}

#[test]
fn without_brokers_nothing_is_acknowledged_and_what_is_here_is_read() {
    let cluster = cluster(1, &[]);
    cluster.broker_down(1).unwrap();
    let till = logging(Till::new(), &cluster);
    let serving = Serving::start(&till);
    let event = json!({"id": "evt_1", "object": "event", "type": "customer.created", "created": 1_782_000_000,
        "livemode": true, "data": {"object": {"id": "cus_1", "object": "customer", "created": 1_782_000_000}}});
    let event = event.to_string();
    assert_eq!(serving.post("/webhooks/stripe", &event, &signature(SECRET, &event)), 503);
    assert_eq!(serving.get("/readyz", None).0, 503);
    assert_eq!(till.count("raw.events"), 0);
    cluster.broker_up(1).unwrap();
    wait("it is ready", LONG, || serving.get("/readyz", None).0 == 200);
    assert_eq!(serving.post("/webhooks/stripe", &event, &signature(SECRET, &event)), 200);
    wait("the event is loaded", LONG, || till.count("core.customers") == 1);
}
