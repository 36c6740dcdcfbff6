//! Tables and state that a crash left apart, and a rebuild beside upkeep: the rows come out as if nothing had happened.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use datafusion::prelude::{DataFrame, SessionContext};
use serde_json::json;

use crate::{
    base::{Envelope, Micros, Offset, Pseudonymizer, SharedAddresses, Source, progress::Silent},
    facts::{Decoder, Table},
    lake::{Lake, Snapshot, changes_of, overlay},
    load::{Folder, Loader, Until, refold},
    log::EventLog,
    sources,
    store::{Store, Vault},
    tests::support::Till,
};

const KEY: [u8; 32] = [4; 32];
const CHARGES: &str = "core.charges";

struct Rooms {
    log: EventLog,
    lake: Lake,
    loader: Loader,
}

fn decoder() -> Decoder {
    Decoder::new(Pseudonymizer::new(&KEY), None, SharedAddresses::default())
}

async fn open(dir: &Path) -> Rooms {
    let store = Store::open(&dir.join("state")).unwrap();
    let log = EventLog::open(&dir.join("log"), &store).unwrap();
    let lake = Lake::open(&dir.join("lake")).await.unwrap();
    let folder = Folder::open(&store, Vault::new(&store, &KEY).unwrap(), decoder(), "m").unwrap();
    let loader = Loader::open(log.clone(), lake.clone(), store, folder).unwrap();
    Rooms { log, lake, loader }
}

async fn load_all(loader: &mut Loader) {
    while loader.step().await.unwrap().is_some() {}
}

fn event(id: &str, kind: &str, second: i64, object: serde_json::Value) -> Envelope {
    let event = json!({"id": id, "object": "event", "type": kind, "created": 1_782_000_000 + second, "livemode": true,
        "data": {"object": object}});
    sources::decode(Source::Stripe, &event.to_string().into(), Micros(1_782_100_000_000_000)).unwrap()
}

fn charge(id: &str, refunded: i64) -> Envelope {
    let kind = if refunded > 0 { "charge.refunded" } else { "charge.succeeded" };
    let object = json!({"id": id, "object": "charge", "created": 1_782_000_000, "amount": 500, "amount_captured": 500,
        "amount_refunded": refunded, "refunded": refunded == 500, "currency": "usd", "status": "succeeded", "paid": true,
        "captured": true});
    event(&format!("evt_{id}_{refunded}"), kind, refunded, object)
}

/// More than is shown at once.
fn many_customers() -> impl Iterator<Item = Envelope> {
    let customer = |i| json!({"id": format!("cus_{i}"), "object": "customer", "description": "x".repeat(2_000)});
    (0..3_000).map(move |i| event(&format!("evt_cus_{i}"), "customer.created", 1, customer(i)))
}

/// Copies a folder to another place, or back from it.
pub fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// What was refunded of each charge, by every row that says something of it.
async fn refunded(snapshot: &Snapshot, table: &str) -> Vec<(String, i64)> {
    let Some(provider) = snapshot.provider(table) else { return Vec::new() };
    rows_of(SessionContext::new().read_table(provider).unwrap()).await
}

async fn rows_of(rows: DataFrame) -> Vec<(String, i64)> {
    let batches: Vec<RecordBatch> =
        rows.select_columns(&["charge_id", "amount_refunded"]).unwrap().collect().await.unwrap();
    let of = |batch: &RecordBatch| {
        let amounts = batch.column(1).as_primitive::<Int64Type>().clone();
        let ids = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        let ids = ids.as_string::<i32>().clone();
        (0..batch.num_rows()).map(move |i| (ids.value(i).to_owned(), amounts.value(i))).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = batches.iter().flat_map(of).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_commit_that_was_cut_off_no_older_row_is_laid_over_a_newer_one() {
    let home = tempfile::tempdir().unwrap();
    let (state, before) = (home.path().join("state"), home.path().join("state.before"));
    let Rooms { log, mut loader, .. } = open(home.path()).await;
    log.append(vec![charge("ch_0", 0)]).await.unwrap();
    load_all(&mut loader).await;
    drop((log, loader));
    copy(&state, &before);
    let Rooms { log, mut loader, .. } = open(home.path()).await;
    let sold = [charge("ch_1", 0)].into_iter().chain(many_customers()).chain([charge("ch_1", 500)]);
    log.append(sold.collect()).await.unwrap();
    load_all(&mut loader).await;
    drop((log, loader));

    // The base has all of it; the state, and what has changed, are of before.
    copy(&before, &state);
    let Rooms { lake, mut loader, .. } = open(home.path()).await;
    loader.follow().await.unwrap();
    loader.commit().await.unwrap();
    let newest = ("ch_1".to_owned(), 500);
    assert_eq!(refunded(&lake.snapshot(), CHARGES).await, [("ch_0".to_owned(), 0), newest.clone()]);
    let changes = refunded(&lake.snapshot(), &changes_of(CHARGES)).await;
    assert!(changes.iter().all(|change| *change == newest), "{changes:?}");
    while loader.follow().await.unwrap().is_some() {}
    loader.commit().await.unwrap();
    assert_eq!(lake.snapshot().rows("core.customers").unwrap(), 3_000);
}

/// Else whoever asks would be told for ever that it is still being loaded.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_lost_of_the_log_is_not_waited_for_and_is_loaded_when_it_comes_again() {
    let home = tempfile::tempdir().unwrap();
    let Rooms { log, mut loader, .. } = open(home.path()).await;
    log.append(vec![charge("ch_0", 0)]).await.unwrap();
    load_all(&mut loader).await;
    log.append(vec![charge("ch_1", 0)]).await.unwrap();
    drop((log, loader));
    let segments = fs::read_dir(home.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|e| e == "seg")).max().unwrap();
    let file = fs::File::options().write(true).open(last).unwrap();
    // The mark that the log ends with, and the end of the event before it.
    file.set_len(file.metadata().unwrap().len() - 40).unwrap();

    let Rooms { log, lake, mut loader } = open(home.path()).await;
    assert_eq!(
        (log.end(), loader.place().now().next, loader.place().now().committed),
        (Offset(2), Offset(2), Offset(2))
    );
    assert!(loader.follow().await.unwrap().is_none());
    log.append(vec![charge("ch_1", 0)]).await.unwrap();
    load_all(&mut loader).await;
    assert_eq!((log.end(), loader.place().now().next), (Offset(3), Offset(3)));
    assert_eq!(refunded(&lake.snapshot(), CHARGES).await, [("ch_0".to_owned(), 0), ("ch_1".to_owned(), 0)]);
}

/// What is folded far behind the log is not shown; the commit that shows it must not wait for more to come.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_shown_is_committed_as_soon_as_the_loader_has_caught_up() {
    let home = tempfile::tempdir().unwrap();
    let Rooms { log, lake, mut loader } = open(home.path()).await;
    log.append(vec![charge("ch_0", 0)]).await.unwrap();
    assert!(loader.step().await.unwrap().is_some());
    lake.publish();
    assert!(refunded(&lake.snapshot(), CHARGES).await.is_empty(), "it waits for more to be committed with");
    log.append(vec![charge("ch_1", 0)]).await.unwrap();
    assert!(loader.follow().await.unwrap().is_some());
    let began = Instant::now();
    while refunded(&lake.snapshot(), CHARGES).await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(3), "a commit that is only due is one after five seconds");
        tokio::time::sleep(Duration::from_millis(20)).await;
        loader.follow().await.unwrap();
    }
    let changes = refunded(&lake.snapshot(), &changes_of(CHARGES)).await;
    assert_eq!(changes, [("ch_1".to_owned(), 0)], "what came since is seen before it is committed");
}

/// Rows are seen from memory until a table has them, whichever of two tables comes first.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_beside_commits_sees_each_object_once() {
    let home = tempfile::tempdir().unwrap();
    let Rooms { log, lake, mut loader } = open(home.path()).await;
    log.append(vec![charge("ch_0", 0)]).await.unwrap();
    load_all(&mut loader).await;
    let (over, told) = tokio::sync::watch::channel(0u64);
    let reading = tokio::spawn(async move {
        let (mut looks, mut most) = (0u64, 0);
        while told.has_changed().is_ok() {
            let least = *told.borrow();
            let seen = charges(&lake.snapshot()).await;
            let ids: BTreeSet<&String> = seen.iter().map(|(id, _)| id).collect();
            assert_eq!(ids.len(), seen.len(), "{seen:?}");
            let sum = seen.iter().map(|(_, refunded)| *refunded as u64).sum::<u64>();
            assert!(sum >= least.max(most), "{sum} of {least} that was shown, after {most}");
            (looks, most) = (looks + 1, sum);
        }
        (looks, most)
    });
    let mut shown = 0;
    for round in 0..40 {
        // One is new and stays so, and one has changed; what was new in one round changes in the next.
        for refunded in [1, 2] {
            log.append(vec![charge(&format!("ch_{round}"), refunded), charge(&format!("ch_{}", round + 1), 0)])
                .await
                .unwrap();
            while loader.follow().await.unwrap().is_some() {}
            shown += 1;
            over.send(shown).unwrap();
        }
        loader.commit().await.unwrap();
    }
    drop(over);
    let (looks, most) = reading.await.unwrap();
    assert!(looks > 20 && most >= 70, "{looks} looks, {most} refunded");
}

/// Charges as whoever asks sees them: the changes laid over the base.
async fn charges(snapshot: &Snapshot) -> Vec<(String, i64)> {
    let (base, changes) = (snapshot.provider(CHARGES).unwrap(), snapshot.provider(&changes_of(CHARGES)));
    let plan = match changes {
        Some(changes) => overlay::laid_over(base, changes, "charge_id", &Table::Charges.schema()).unwrap(),
        None => overlay::scan("base", base).unwrap(),
    };
    rows_of(SessionContext::new().execute_logical_plan(plan.build().unwrap()).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_waits_for_upkeep_to_be_over() {
    let home = tempfile::tempdir().unwrap();
    let Rooms { log, lake, mut loader } = open(home.path()).await;
    log.append(vec![charge("ch_0", 0)]).await.unwrap();
    load_all(&mut loader).await;
    let scratch = home.path().join("scratch");
    let facts = (decoder(), "m");
    let refolded = refold(&lake.snapshot(), Until::default(), &scratch, &KEY, facts, &Silent).await.unwrap();
    let upkeep = lake.still().await;
    let rebuilt = tokio::spawn(async move { loader.rebuild(refolded, &[]).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!rebuilt.is_finished(), "files that upkeep has read are replaced under its hands");
    drop(upkeep);
    assert!(rebuilt.await.unwrap() > 0);
    lake.maintain().await.unwrap();
}

#[test]
fn tables_that_came_further_than_raw_events_and_the_state_are_made_again_whole() {
    let keys = Till::new();
    let key = keys.write("key", KEY);
    let clean = Till::with_key(&key);
    clean.run(&["--quiet", "generate", "--customers", "120", "--days", "15", "--out", "s.ndjson"]);
    let sources = ["stripe", "klaviyo", "storefront"];
    let parts = sources.map(|source| {
        let all = fs::read_to_string(clean.path(&format!("s.{source}.ndjson"))).unwrap();
        let lines: Vec<&str> = all.lines().collect();
        let (first, rest) = lines.split_at(lines.len() / 2);
        [first, rest].map(|lines| lines.join("\n"))
    });
    let ingest = |till: &Till, part: usize| {
        for (source, parts) in sources.iter().zip(&parts) {
            let file = till.write(&format!("{source}.{part}.ndjson"), &parts[part]);
            till.run(&["--quiet", "ingest", source, file.to_str().unwrap()]);
        }
    };
    ingest(&clean, 0);
    ingest(&clean, 1);
    let whole = clean.facts();

    for (behind, command) in
        [(&["state"][..], "sql"), (&["state", "lake/raw"], "sql"), (&["state", "lake/raw"], "rebuild")]
    {
        let till = Till::with_key(&key);
        ingest(&till, 0);
        let kept = |name: &str| till.path(&name.replace('/', "-"));
        for name in behind {
            copy(&till.data().join(name), &kept(name));
        }
        ingest(&till, 1);
        for name in behind {
            copy(&kept(name), &till.data().join(name));
        }
        till.run(if command == "sql" { &["--quiet", "sql", "SELECT 1"] } else { &["--quiet", "rebuild"] });
        assert!(till.facts() == whole, "{behind:?} behind, then {command}");
        assert_eq!(till.count("raw.events"), clean.count("raw.events"), "{behind:?} behind, then {command}");
    }
}
