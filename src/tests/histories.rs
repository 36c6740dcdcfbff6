//! Whatever happens to a directory while events come (any batches, restarts, merges, crashes between two tables of one commit),
//! its tables say in the end what those of a directory say that took all events at once.

use std::{fs, path::Path, time::Duration};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{DataFrame, SessionContext};
use proptest::{prelude::*, sample::Index};

use crate::{
    base::{Envelope, Micros, Offset, Pseudonymizer, SharedAddresses, Source},
    facts::{Decoder, Table, raw},
    lake::{
        Lake, Upkeep, changes_of,
        overlay::{laid_over, newest, scan},
    },
    load::{FoldIn, Folder, Loader, fold_in},
    log::EventLog,
    sources,
    store::{Store, Vault},
    synth::Shop,
    tests::{cases, loading::copy},
};

const KEY: [u8; 32] = [6; 32];

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// So many more events are acknowledged.
    Take(u16),
    /// As `serve` does: seen, and committed when it has waited.
    Follow,
    /// As commands do.
    Load,
    Commit,
    FoldIn,
    Merge,
    Restart,
    /// The process dies within a commit: some tables have it, the others and the state do not.
    Die(Vec<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u16..400).prop_map(Step::Take),
        2 => Just(Step::Follow),
        2 => Just(Step::Load),
        1 => Just(Step::Commit),
        1 => Just(Step::FoldIn),
        1 => Just(Step::Merge),
        1 => Just(Step::Restart),
        3 => prop::collection::vec(any::<bool>(), 1..40).prop_map(Step::Die),
    ]
}

struct Home {
    log: EventLog,
    lake: Lake,
    loader: Loader,
}

impl Home {
    async fn open(dir: &Path) -> Home {
        // A commit that was under way goes on when its loader is gone, and holds the store until it is over.
        let mut store = Store::open(&dir.join("state"));
        for _ in 0..200 {
            if store.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            store = Store::open(&dir.join("state"));
        }
        let store = store.unwrap();
        let lake = Lake::open(&dir.join("lake")).await.unwrap();
        let log = EventLog::open(&dir.join("log"), &store).unwrap();
        let decoder = Decoder::new(Pseudonymizer::new(&KEY), Some("GB".to_owned()), SharedAddresses::default());
        let folder = Folder::open(&store, Vault::new(&store, &KEY).unwrap(), decoder, "m").unwrap();
        let loader = Loader::open(log.clone(), lake.clone(), store, folder).unwrap();
        Home { log, lake, loader }
    }

    async fn load(&mut self) {
        while self.loader.step().await.unwrap().is_some() {}
    }

    /// Every row of every table but its place in the log, which says in which batch its object changed last.
    async fn facts(&self) -> Vec<String> {
        let snapshot = self.lake.snapshot();
        let mut all = Vec::new();
        for table in Table::ALL {
            let changes = snapshot.provider(&changes_of(table.name()));
            let (context, schema) = (SessionContext::new(), table.schema());
            let plan = match (snapshot.provider(table.name()), changes) {
                (None, None) => continue,
                (Some(base), None) => scan("base", base),
                (None, Some(changes)) => newest(changes, table.key(), &schema),
                (Some(base), Some(changes)) => laid_over(base, changes, table.key(), &schema),
            };
            let rows = DataFrame::new(context.state(), plan.unwrap().build().unwrap());
            all.extend(lines(table.name(), rows.drop_columns(&["log_offset"]).unwrap()).await);
        }
        let raw = SessionContext::new().read_table(snapshot.provider(raw::EVENTS).unwrap()).unwrap();
        all.extend(
            lines(raw::EVENTS, raw.select_columns(&["source", "event_id", "log_offset", "payload"]).unwrap()).await,
        );
        all.sort();
        all
    }
}

async fn lines(table: &str, rows: DataFrame) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in rows.collect().await.unwrap() {
        let options = FormatOptions::default().with_null("∅");
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for i in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(i).to_string()).collect();
            lines.push(format!("{table} {}", cells.join("|")));
        }
    }
    lines
}

fn events(seed: u64) -> Vec<Envelope> {
    let shop = Shop { customers: 6, days: 20, seed, ..Shop::default() };
    let read =
        |(source, line): (Source, Vec<u8>)| sources::decode(source, &line.into(), Micros(1_782_777_600_000_000)).ok();
    shop.generate().filter_map(read).collect()
}

/// Every folder that is a table.
fn tables(lake: &Path, found: &mut Vec<String>, below: &str) {
    for entry in fs::read_dir(lake.join(below)).into_iter().flatten() {
        let name = format!("{below}{}", entry.unwrap().file_name().to_string_lossy());
        match lake.join(&name).join("_delta_log").exists() {
            true => found.push(name),
            false => tables(lake, found, &format!("{name}/")),
        }
    }
}

/// Loads and commits, then takes the state and some of the tables back to before.
async fn die(dir: &Path, mut home: Home, keeps: &[bool]) -> Home {
    drop(home);
    let before = dir.join("before");
    fs::create_dir_all(&before).unwrap();
    ["state", "lake"].iter().for_each(|part| copy(&dir.join(part), &before.join(part)));
    home = Home::open(dir).await;
    home.load().await;
    drop(home);
    let mut committed = Vec::new();
    tables(&dir.join("lake"), &mut committed, "");
    committed.sort();
    copy(&before.join("state"), &dir.join("state"));
    for (i, table) in committed.iter().enumerate() {
        // The note of a load is written when all else is.
        if keeps[i % keeps.len()] && table != "ops/loads" {
            continue;
        }
        let (old, new) = (before.join("lake").join(table), dir.join("lake").join(table));
        match old.exists() {
            true => copy(&old, &new),
            false => fs::remove_dir_all(&new).unwrap(),
        }
    }
    Home::open(dir).await
}

async fn live(steps: &[Step], events: &[Envelope], dir: &Path) -> Vec<String> {
    let mut home = Home::open(dir).await;
    let mut waiting = events;
    let upkeep = Upkeep { commits: 3, alike: 2, ..Upkeep::default() };
    for step in steps {
        match step {
            Step::Take(n) => {
                let (some, rest) = waiting.split_at(waiting.len().min(usize::from(*n)));
                home.log.append(some.to_vec()).await.unwrap();
                waiting = rest;
            }
            Step::Follow => drop(home.loader.follow().await.unwrap()),
            Step::Load => drop(home.loader.step().await.unwrap()),
            Step::Commit => home.loader.commit().await.unwrap(),
            Step::FoldIn => fold_in(&home.lake, FoldIn::All).await.unwrap(),
            Step::Merge => drop(home.lake.maintain_with(&upkeep).await.unwrap()),
            Step::Restart => {
                drop(home);
                home = Home::open(dir).await;
            }
            // Dying within the very first commit leaves tables and no state, which is a rebuild.
            Step::Die(_) if home.loader.place().now().committed == Offset(0) => {}
            Step::Die(keeps) => home = die(dir, home, keeps).await,
        }
    }
    home.log.append(waiting.to_vec()).await.unwrap();
    home.load().await;
    home.lake.publish();
    home.facts().await
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_directory_s_history_leaves_no_trace_in_its_tables(
        seed in 0u64..1000,
        steps in prop::collection::vec(step(), 4..14),
        twice in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut events = events(seed);
        let again: Vec<Envelope> = twice.iter().map(|i| i.get(&events).clone()).collect();
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = runtime.block_on(live(&[], &events, one.path()));
        prop_assert!(whole.len() > events.len(), "{} rows of {} events", whole.len(), events.len());
        events.extend(again);
        let found = runtime.block_on(live(&steps, &events, other.path()));
        let differ: Vec<_> = whole.iter().zip(&found).find(|(a, b)| a != b).into_iter().collect();
        prop_assert!(whole == found, "{} rows and {}; the first that differ: {differ:#?}", whole.len(), found.len());
    }
}
