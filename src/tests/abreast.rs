//! Nobody is written to on less than all that was taken in.

use std::{
    io::Read,
    sync::{Arc, mpsc},
    time::Duration,
};

use serde_json::json;

use crate::{
    base::{Micros, Source, progress::Silent, time::MINUTE},
    config::Settings,
    ops::{DirLock, Instance, Taken},
    sources::{self, orders::OrdersMapping},
    tests::support::Till,
};

async fn open(till: &Till) -> Arc<Instance> {
    let Taken::Ours(lock) = DirLock::take(&till.data()).unwrap() else { panic!("another has it") };
    Arc::new(Instance::open(&till.data(), Settings::default(), lock).await.unwrap())
}

/// What Ann did so many minutes ago.
fn ann(event: &str, minutes: i64) -> String {
    json!({"type": "track", "messageId": event, "anonymousId": "a-1", "userId": "u-1", "event": event,
        "context": {"traits": {"email": "ann@example.com"}},
        "properties": {"cart_id": "c1", "order_id": "o1", "product_id": "17", "quantity": 1, "price": "12.99",
            "total": 12.99, "currency": "EUR"},
        "timestamp": Micros::now().plus(-minutes * MINUTE).to_string()})
    .to_string()
}

async fn post(instance: &Instance, event: &str) {
    let envelope = sources::decode(Source::Storefront, &event.to_owned().into(), Micros::now()).unwrap();
    instance.log().append(vec![envelope]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_nothing_has_loaded_yet_is_known_when_messages_are_due() {
    for ordered in [false, true] {
        let till = Till::new();
        let instance = open(&till).await;
        post(&instance, &ann("Product Added", 60)).await;
        instance.load_available().await.unwrap();
        if ordered {
            post(&instance, &ann("Order Completed", 1)).await;
        }
        instance.run_due(&Silent).await.unwrap();
        drop(instance);
        assert_eq!(till.entered("cart_abandoned"), u64::from(!ordered), "ordered: {ordered}");
    }
}

/// A file that comes as it is written.
struct Coming {
    lines: mpsc::Receiver<String>,
    here: std::io::Cursor<Vec<u8>>,
}

impl Read for Coming {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if let read @ 1.. = self.here.read(into)? {
            return Ok(read);
        }
        let Ok(line) = self.lines.recv() else { return Ok(0) };
        self.here = std::io::Cursor::new((line + "\n").into_bytes());
        self.here.read(into)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_taken_in_to_its_end_before_anybody_is_written_to() {
    let till = Till::new();
    let instance = open(&till).await;
    let (lines, coming) = mpsc::channel();
    let file = Box::new(Coming { lines: coming, here: std::io::Cursor::default() });
    let taken = tokio::spawn({
        let instance = instance.clone();
        async move { instance.ingest_stream(Source::Storefront, file, OrdersMapping::default(), &Silent).await.unwrap() }
    });
    lines.send(ann("Product Added", 60)).unwrap();
    // As many as are read at once, so that the first of them are in the log before the last line is written.
    for i in 0..4_096 {
        lines.send(json!({"type": "page", "messageId": format!("p{i}"), "anonymousId": "a-2"}).to_string()).unwrap();
    }
    while instance.log().end().0 < 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    instance.run_due(&Silent).await.unwrap();
    lines.send(ann("Order Completed", 1)).unwrap();
    drop(lines);
    assert_eq!(taken.await.unwrap().accepted, 4_098);
    let unseen = || instance.segments().unwrap().into_iter().filter(|s| s.looked_at.is_none()).count();
    assert!(unseen() > 0, "nobody looks while a file is taken in");
    // The pipelines that ran meanwhile are followed by a rest.
    let began = std::time::Instant::now();
    while unseen() > 0 {
        assert!(began.elapsed() < Duration::from_secs(90), "a rest is a minute at most");
        instance.run_due(&Silent).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(instance);
    assert_eq!(till.entered("cart_abandoned"), 0);
}
