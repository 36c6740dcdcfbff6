//! The state folder is lost and the tables are not: what it held is made again, and nothing is folded over nothing.

use std::{fs, process::Stdio, thread, time::Duration};

use crate::{
    log::EventLog,
    store::Store,
    tests::support::{Till, text},
};

const SOURCES: [&str; 3] = ["stripe", "klaviyo", "storefront"];

/// A shop's files in two parts each, the first with a line that is no event.
fn shop(till: &Till, customers: u32) -> Vec<(&'static str, [String; 2])> {
    till.run(&["--quiet", "generate", "--customers", &customers.to_string(), "--days", "25", "--out", "shop.ndjson"]);
    SOURCES
        .into_iter()
        .map(|source| {
            let all = fs::read_to_string(till.path(&format!("shop.{source}.ndjson"))).unwrap();
            let lines: Vec<&str> = all.lines().collect();
            let (first, rest) = lines.split_at(lines.len() * 2 / 3);
            let first = till.write(&format!("{source}.1.ndjson"), format!("{{\"id\": \"cut\n{}\n", first.join("\n")));
            let rest = till.write(&format!("{source}.2.ndjson"), rest.join("\n") + "\n");
            (source, [first, rest].map(|p| p.to_str().unwrap().to_owned()))
        })
        .collect()
}

fn ingest(till: &Till, files: &[(&'static str, [String; 2])], part: usize) -> u64 {
    let taken = |(source, parts): &(&'static str, [String; 2])| {
        till.json(&["ingest", source, &parts[part]])["accepted"].as_u64().unwrap()
    };
    files.iter().map(taken).sum()
}

/// As the loader trims when a few hundred MB have gone by.
fn trim(till: &Till) -> u64 {
    let store = Store::open(&till.data().join("state")).unwrap();
    let log = EventLog::open(&till.data().join("log"), &store).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begins = runtime.block_on(log.begin_segment()).unwrap();
    log.trim(begins).unwrap();
    log.start().0
}

#[test]
fn tables_stay_duplicates_are_known_and_new_events_fold_right() {
    let keys = Till::new();
    let key = keys.write("key", [5u8; 32]);
    let clean = Till::with_key(&key);
    // Enough that at any hour some lapsed champion has a phone: who they are turns with the days since each last purchase.
    let files = shop(&clean, 300);
    ingest(&clean, &files, 0);
    let halfway = clean.facts();
    assert!(halfway.len() > 1000, "there is something to lose");
    ingest(&clean, &files, 1);
    let whole = clean.facts();
    assert!(whole != halfway);

    let till = Till::with_key(&key);
    let (trimmed, kept) = files.split_at(2);
    ingest(&till, trimmed, 0);
    assert!(trim(&till) > 0, "some events are in raw.events alone");
    assert!(ingest(&till, kept, 0) > 0, "and some in the log");
    till.run(&["--quiet", "run", "customers"]);
    let (raw, set_aside) = (till.count("raw.events"), till.count("raw.quarantine"));
    // Whom it is to, and where.
    let addresses = || -> Vec<String> {
        let preview = till.run(&["--quiet", "triggers", "preview", "win_back"]);
        preview.lines().filter_map(|line| Some(line.split_once(" by ")?.0.to_owned())).collect()
    };
    let known = addresses();
    assert!(known.iter().any(|to| to.contains('…')), "somebody can be reached: {known:?}");

    fs::remove_dir_all(till.data().join("state")).unwrap();
    assert!(till.facts() == halfway, "the tables are what they were");
    assert_eq!((till.count("raw.events"), till.count("raw.quarantine")), (raw, set_aside));
    assert_eq!(addresses(), known, "addresses are known again");
    assert_eq!(ingest(&till, &files, 0), 0, "what was trimmed is known as a duplicate");
    assert_eq!(till.count("raw.quarantine"), set_aside);

    // Lost again, and killed while it is made again.
    fs::remove_dir_all(till.data().join("state")).unwrap();
    for after in [40, 120, 250, 400] {
        let mut command = till.command(&["--quiet", "sql", "SELECT 1"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ingest(&till, &files, 1);
    let found = till.facts();
    let differ: Vec<_> = whole.iter().zip(&found).filter(|(a, b)| a != b).take(3).collect();
    assert!(whole == found, "{} rows and {}; the first that differ: {differ:#?}", whole.len(), found.len());
    let of_sources = "raw.events WHERE source <> 'tillstream'";
    assert_eq!(till.count(of_sources), clean.count(of_sources));
}

fn newest_commit_goes(till: &Till, table: &str) {
    let log = fs::read_dir(till.data().join("lake").join(table).join("_delta_log")).unwrap();
    let commits = log.map(|entry| entry.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
    fs::remove_file(commits.max().unwrap()).unwrap();
}

#[test]
fn a_log_whose_end_is_lost_lets_nothing_in_twice() {
    let till = Till::new();
    let files = shop(&till, 150);
    ingest(&till, &files, 0);
    let (events, facts) = (till.count("raw.events"), till.facts());
    let segments = fs::read_dir(till.data().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|p| p.extension().is_some_and(|e| e == "seg")).max().unwrap();
    let file = fs::File::options().write(true).open(&last).unwrap();
    file.set_len(file.metadata().unwrap().len() - 30_000).unwrap();
    let told = text(&till.try_run(&["sql", "SELECT 1"]).stderr);
    assert!(told.contains("the tables hold all of it"), "{told}");
    assert_eq!(ingest(&till, &files, 0), 0);
    assert_eq!(till.count("raw.events"), events);
    assert!(ingest(&till, &files, 1) > 0 && till.facts() != facts);
}

#[test]
fn a_lost_table_is_made_again_and_raw_events_from_the_log_as_long_as_it_has_them() {
    let till = Till::new();
    let files = shop(&till, 150);
    ingest(&till, &files, 0);
    ingest(&till, &files, 1);
    let (whole, events) = (till.facts(), till.count("raw.events"));
    let lose = |table: &str| fs::remove_dir_all(till.data().join("lake").join(table)).unwrap();
    for lost in [&["core/charges"][..], &["core/page_views", "core/payment_intents"], &["raw/events"]] {
        lost.iter().copied().for_each(lose);
        let told = text(&till.try_run(&["sql", "SELECT 1"]).stderr);
        assert!(told.contains("lost their folder") && told.contains(&lost[0].replace('/', ".")), "{told}");
        assert_eq!(till.count("raw.events"), events);
        assert!(till.facts() == whole);
    }
    for table in ["core/refunds", "raw/events"] {
        newest_commit_goes(&till, table);
        assert_eq!(till.count("raw.events"), events);
        assert!(till.facts() == whole);
    }
    assert_eq!(ingest(&till, &files, 0), 0);

    assert!(trim(&till) > 0);
    lose("raw/events");
    let output = till.try_run(&["sql", "SELECT 1"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("raw.events was lost") && told.contains("backup"), "{told}");
}

#[test]
fn a_lost_log_is_named_and_nothing_is_loaded_over_the_tables() {
    let till = Till::new();
    let files = shop(&till, 150);
    ingest(&till, &files[..1], 0);
    for lost in ["state", "log"] {
        fs::remove_dir_all(till.data().join(lost)).unwrap();
    }
    let output = till.try_run(&["ingest", "stripe", &files[0].1[1]]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the log folder was lost") && told.contains("from a backup"), "{told}");
}
