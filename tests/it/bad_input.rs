//! Bad input gets an error that says what, where and what to do; the right exit code; no panic; and nothing is lost.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use crate::support::{Serving, Till, binary, text, wait};

/// That it failed as a user's fault or a machine's should: with this code, these words, and no panic.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not said in: {told}");
    }
}

fn charge(id: &str, amount: serde_json::Value, currency: &str) -> String {
    json!({
        "id": format!("evt_{id}"), "object": "event", "type": "charge.succeeded", "created": 1_782_000_000, "livemode": true,
        "data": {"object": {"id": format!("ch_{id}"), "object": "charge", "created": 1_782_000_000, "amount": amount,
            "currency": currency, "status": "succeeded", "paid": true, "captured": true}}
    })
    .to_string()
}

#[test]
fn a_line_that_is_no_event_is_kept_with_its_reason_and_the_rest_goes_on() {
    let till = Till::new();
    let lines = [
        charge("good", json!(100), "usd"),
        r#"{"id":"evt_cut","type":"charge.succ"#.to_owned(),
        "[1,2]".to_owned(),
        format!(r#"{{"id":"evt_long","type":"x","data":"{}"}}"#, "x".repeat(2 << 20)),
        charge("last", json!(200), "usd"),
    ];
    let file = till.write("events.ndjson", lines.join("\n"));
    let ingested = till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    assert_eq!((ingested["accepted"].as_u64(), ingested["quarantined"].as_u64()), (Some(2), Some(3)));
    let reasons = till.run(&["--quiet", "sql", "--format", "csv", "SELECT reason FROM raw.quarantine ORDER BY 1"]);
    for word in ["line 2", "not a JSON object", "too large: 2097"] {
        assert!(reasons.contains(word), "{word} is not said in: {reasons}");
    }
    assert_eq!(till.count("core.charges"), 2);
}

#[test]
fn an_amount_that_cannot_be_is_no_fact_but_its_event_is_kept() {
    let till = Till::new();
    let lines = [
        charge("negative", json!(-5), "usd"),
        charge("huge", json!(9_223_372_036_854_775_808u64), "usd"),
        charge("half", json!(1.5), "usd"),
        charge("where", json!(100), "dollars"),
        charge("nowhere", json!(100), "zzz"),
        charge("good", json!(100), "usd"),
    ];
    let file = till.write("events.ndjson", lines.join("\n"));
    let ingested = till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    assert_eq!((ingested["accepted"].as_u64(), ingested["quarantined"].as_u64()), (Some(6), Some(5)));
    assert_eq!((till.count("raw.events"), till.count("core.charges")), (6, 1));
    let reasons = till.run(&["--quiet", "sql", "--format", "csv", "SELECT reason FROM raw.quarantine ORDER BY 1"]);
    for word in ["-5", "9223372036854775808", "1.5", "dollars", "zzz", "evt_negative"] {
        assert!(reasons.contains(word), "{word} is not said in: {reasons}");
    }
}

#[test]
fn a_bad_phone_is_no_phone_and_loses_no_customer() {
    let till = Till::new();
    let event = json!({
        "id": "evt_1", "object": "event", "type": "customer.created", "created": 1_782_000_000, "livemode": true,
        "data": {"object": {"id": "cus_1", "object": "customer", "created": 1_782_000_000, "email": "a@example.com",
            "phone": "call me maybe"}}
    });
    let file = till.write("events.ndjson", event.to_string());
    till.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
    assert_eq!((till.count("core.customers"), till.count("raw.quarantine")), (1, 0));
    let people = till.sql("SELECT phone_e164_hash FROM core.people");
    assert_eq!(people[0]["phone_e164_hash"], serde_json::Value::Null);
    let asked = till.try_run(&["--quiet", "sql", "SELECT phone_e164('call me maybe', 'US') AS phone"]);
    assert!(asked.status.success(), "{}", text(&asked.stderr));
}

#[test]
fn a_bomb_is_refused_and_a_cut_archive_named() {
    let till = Till::new();
    let bomb = till.path("bomb.gz");
    let mut packer = GzEncoder::new(fs::File::create(&bomb).unwrap(), Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..300 {
        packer.write_all(&zeros).unwrap();
    }
    packer.finish().unwrap();
    fails(&till.try_run(&["ingest", "stripe", bomb.to_str().unwrap()]), 1, &["bomb.gz", "times its size"]);

    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    for i in 0..2000 {
        writeln!(packer, "{}", charge(&format!("{i}"), json!(100 + i), "usd")).unwrap();
    }
    let whole = packer.finish().unwrap();
    let cut = till.write("cut.gz", &whole[..whole.len() / 2]);
    fails(&till.try_run(&["ingest", "stripe", cut.to_str().unwrap()]), 1, &["cut.gz", "ends in the middle"]);
    assert!(till.count("raw.events") > 100, "what was read before the cut is kept");
}

#[test]
fn a_pipeline_file_names_its_fault_with_file_and_line() {
    let till = Till::new();
    till.write(
        "shop/pipelines/own.toml",
        "name = \"own\"\n\n[[model]]\nname = \"marts.own\"\nsql = \"own.sql\"\nmaterialise = \"table\"\n",
    );
    till.write("shop/sql/own.sql", "-- One row.\nSELECT amout FROM core.charges\n");
    let dir = till.path("shop");
    let till = till.set("PIPELINES__DIR", dir.to_str().unwrap());
    fails(&till.try_run(&["check"]), 1, &["own.toml:6", "materialise", "did you mean \"materialize\""]);

    till.write(
        "shop/pipelines/own.toml",
        "name = \"own\"\n\n[[model]]\nname = \"marts.own\"\nsql = \"own.sql\"\nmaterialize = \"table\"\n",
    );
    fails(&till.try_run(&["check"]), 1, &["own.sql:2", "amout", "did you mean \"amount\""]);

    till.write("shop/sql/own.sql", "-- One row.\nSELECT * FROM marts.other\n");
    till.write("shop/sql/other.sql", "-- One row.\nSELECT * FROM marts.own\n");
    till.write(
        "shop/pipelines/other.toml",
        "name = \"other\"\n\n[[model]]\nname = \"marts.other\"\nsql = \"other.sql\"\nmaterialize = \"table\"\n",
    );
    fails(&till.try_run(&["check"]), 1, &["marts.own", "marts.other"]);
}

#[test]
fn a_query_names_what_it_misspelt() {
    let till = Till::new();
    fs::create_dir(till.data()).unwrap();
    fails(&till.try_run(&["sql", "SELECT amout FROM core.charges"]), 1, &["amout", "did you mean \"amount\""]);
    fails(&till.try_run(&["sql", "SELECT * FROM core.charge"]), 1, &["core.charge", "core.charges"]);
    let file = till.write("q.sql", "SELECT 1,\n  amout\nFROM core.charges");
    fails(&till.try_run(&["sql", "-f", file.to_str().unwrap()]), 1, &["q.sql", "2:", "amout"]);
    for write in [
        "INSERT INTO core.charges VALUES (1)",
        "DROP TABLE core.charges",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET a = 1",
    ] {
        fails(&till.try_run(&["sql", write]), 1, &["read"]);
    }
}

#[test]
fn a_directory_that_is_not_there_is_a_slip_and_is_not_made() {
    let till = Till::new();
    for command in [&["sql", "SELECT 1"][..], &["run"], &["segments", "list"], &["rebuild"], &["quarantine", "list"]] {
        fails(&till.try_run(command), 1, &["there is no data directory", "--data"]);
    }
    fails(&till.try_run(&["doctor"]), 1, &["FAULT", "there is no data directory"]);
    assert!(!till.data().exists());
}

#[test]
fn what_keeps_commands_from_starting_is_a_finding_of_doctor() {
    let till = Till::new();
    fs::create_dir(till.data()).unwrap();
    till.write("shop/pipelines/own.toml", "name = \"own\"\nschedul = \"0 2 * * *\"\n");
    let till = till.set("PIPELINES__DIR", "shop");
    fails(&till.try_run(&["doctor"]), 1, &["FAULT", "own.toml:2", "schedul", "mend this first"]);
    let told = till.try_run(&["--json", "doctor"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["findings"][0]["subject"], &told["findings"][0]["ok"]), (&json!("start"), &json!(false)));
}

#[test]
fn an_answer_goes_through_a_link_and_into_no_directory() {
    let till = Till::new();
    fs::create_dir(till.data()).unwrap();
    let (target, link) = (till.write("real.csv", "old"), till.path("link.csv"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let one = ["--quiet", "sql", "--format", "csv", "SELECT 1 AS n", "-o"];
    till.run(&[&one[..], &["link.csv"]].concat());
    assert_eq!((fs::read_to_string(&target).unwrap().as_str(), link.is_symlink()), ("n\n1\n", true));
    till.run(&[&one[..], &["/dev/null"]].concat());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    fails(&till.try_run(&[&one[..], &["."]].concat()), 1, &["-o .", "directory"]);
}

#[test]
fn json_is_one_object_of_answers_and_of_faults() {
    let till = Till::new();
    fs::create_dir(till.data()).unwrap();
    assert_eq!(till.json(&["sql", "SELECT 1 AS n"]), json!({"rows": [{"n": 1}]}));
    for wrong in [&["--json", "sql", "SELECT nothing"][..], &["--json", "ingets"], &["--json", "run", "nightly"]] {
        let told = till.try_run(wrong);
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        assert!(told["error"].is_string(), "{told}");
    }
}

#[test]
fn a_time_that_sql_cannot_reckon_with_is_set_aside() {
    let till = Till::new();
    let view = |id: &str, at: &str| {
        json!({"type": "page", "messageId": id, "anonymousId": "a", "timestamp": at, "name": "home"}).to_string()
    };
    let lines = [view("now", "2026-06-01T09:30:00Z"), view("never", "9999-12-31T23:59:59Z")];
    let file = till.write("views.ndjson", lines.join("\n"));
    let ingested = till.json(&["ingest", "storefront", file.to_str().unwrap()]);
    assert_eq!((ingested["accepted"].as_u64(), ingested["quarantined"].as_u64()), (Some(1), Some(1)));
    assert_eq!(till.sql("SELECT date_trunc('day', occurred_at) AS day FROM core.page_views").len(), 1);
}

#[test]
fn what_failed_in_a_run_is_a_finding_of_doctor_until_it_is_mended() {
    let till = Till::new();
    till.write(
        "shop/pipelines/own.toml",
        "name = \"own\"\n\n[[model]]\nname = \"marts.own\"\nsql = \"own.sql\"\nmaterialize = \"table\"\n\n\
         [[check]]\nname = \"no ones\"\nsql = \"SELECT n FROM marts.own WHERE n = 1\"\n",
    );
    till.write("shop/sql/own.sql", "-- One row.\nSELECT 1 AS n\n");
    let till = till.set("PIPELINES__DIR", "shop");
    till.run(&["--quiet", "check"]);
    fails(&till.try_run(&["run", "own"]), 1, &["no ones"]);
    fails(&till.try_run(&["doctor"]), 1, &["FAULT", "no ones of own"]);
    till.write("shop/sql/own.sql", "-- One row.\nSELECT 2 AS n\n");
    till.run(&["--quiet", "run", "own"]);
    let told = till.run(&["--quiet", "doctor"]);
    assert!(told.contains("nothing failed in the last run"), "{told}");
}

#[test]
fn settings_and_words_that_are_wrong_are_usage() {
    let till = Till::new();
    till.write("tillstream.toml", "[stripe]\nwebhook_secret = [\"whsec_1\"]\n");
    fails(&till.try_run(&["doctor"]), 2, &["tillstream.toml:2", "webhook_secret", "webhook_secrets"]);
    let till = Till::new();
    fs::create_dir(till.data()).unwrap();
    fails(&till.try_run(&["ingets", "stripe"]), 2, &["ingets"]);
    fails(&till.try_run(&["ingest", "paypal", "x"]), 2, &["paypal", "stripe"]);
    fails(&till.try_run(&["ingest", "stripe", "/no/such/file"]), 1, &["/no/such/file"]);
    fails(&till.try_run(&["run", "nightly"]), 2, &["nightly", "conversion"]);
    fails(&till.try_run(&["run", "--as-of", "yesterday"]), 2, &["--as-of", "yesterday", "2026-01-31"]);
    fails(&till.try_run(&["run", "failure"]), 2, &["failure", "did you mean \"failures\""]);
    fails(&till.try_run(&["triggers", "preview", "nobody"]), 2, &["nobody"]);
    fails(&till.try_run(&["ingest", "stripe", "x.ndjson", "--order-column", "id"]), 2, &["stripe has none"]);
    fails(&till.try_run(&["--json", "sql", "--format", "csv", "SELECT 1"]), 2, &["--json", "csv"]);
    fails(&till.try_run(&["segments", "show", "cart_abandond"]), 2, &["cart_abandond", "cart_abandoned"]);
    fails(&till.try_run(&["rebuild", "core.charge"]), 2, &["core.charge", "core.charges"]);
    // The same by whoever owns the directory.
    let serving = Serving::start(&till);
    fails(&till.try_run(&["run", "nightly"]), 2, &["nightly", "conversion"]);
    fails(&till.try_run(&["rebuild", "core.charge"]), 2, &["core.charge", "core.charges"]);
    drop(serving);
}

#[test]
fn a_directory_in_use_is_named_and_its_owner_is_asked() {
    let till = Till::new();
    till.run(&["--quiet", "check"]);
    // Its lock is held, and nobody listens.
    let lock = fs::File::options().write(true).open(till.data().join("lock")).unwrap();
    lock.lock().unwrap();
    fails(&till.try_run(&["sql", "SELECT 1"]), 1, &["in use", "--data"]);
    drop(lock);
    // A serve that owns it answers for it.
    let serving = Serving::start(&till);
    let file = till.write("events.ndjson", charge("beside", json!(100), "usd"));
    let ingested = till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    assert_eq!(ingested["accepted"].as_u64(), Some(1));
    wait("the charge is in an answer", Duration::from_secs(5), || till.count("core.charges") == 1);
    drop(serving);
    assert_eq!(till.count("core.charges"), 1);
}

/// A file system that cannot be written, if this system lets us mount one.
#[test]
fn a_read_only_disk_is_named() {
    let till = Till::new();
    let disk = till.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        println!("skipped: mounting is not allowed here");
        return;
    }
    let mut command = Command::new(binary());
    let output = command.arg("--data").arg(disk.join("data")).arg("check").output().unwrap();
    Command::new("umount").arg(&disk).status().unwrap();
    fails(&output, 1, &["read-only", "--data"]);
}

#[test]
fn what_is_taken_in_adds_up_and_what_is_of_another_source_is_not() {
    let till = Till::new();
    let orders = "order_id,customer_id,ordered_at,amount,currency\nA,c1,2026-05-02 10:15,10.00,eur\n\
                  B,,2026-05-02 10:15,20.00,eur\nC,c1,2026-05-02 10:15,49.999,eur\n";
    let orders = till.write("orders.csv", orders);
    let done = till.json(&["ingest", "orders", orders.to_str().unwrap()]);
    assert_eq!((&done["accepted"], &done["anonymous"], &done["quarantined"]), (&json!(2), &json!(1), &json!(1)));
    let told = till.sql("SELECT reason FROM raw.quarantine")[0]["reason"].as_str().unwrap().to_owned();
    assert!(told.contains("49.999 is finer than"), "{told}");

    let charge = json!({"id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1_782_000_000,
        "livemode": true, "data": {"object": {"id": "ch_1", "object": "charge", "amount": -5, "currency": "eur"}}});
    let events = till.write("events.ndjson", format!("{charge}\nnothing\n"));
    let strange = till.try_run(&["--json", "ingest", "klaviyo", events.to_str().unwrap()]);
    let again = till.try_run(&["ingest", "klaviyo", events.to_str().unwrap()]);
    assert_eq!((strange.status.code(), again.status.code()), (Some(1), Some(1)));
    let done: serde_json::Value = serde_json::from_slice(&strange.stdout).unwrap();
    assert_eq!((&done["accepted"], &done["quarantined"]), (&json!(0), &json!(2)), "it is Stripe's");
    let done = till.json(&["ingest", "stripe", events.to_str().unwrap()]);
    assert_eq!((&done["accepted"], &done["unfit"], &done["quarantined"]), (&json!(1), &json!(1), &json!(2)));

    let missing = text(&till.try_run(&["ingest", "stripe", "nowhere.ndjson"]).stderr);
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
}

#[test]
fn a_demo_that_could_not_begin_leaves_nothing() {
    let till = Till::new();
    fails(&till.try_run(&["demo", "--orders", "nofile.csv"]), 1, &["nofile.csv"]);
    assert!(!till.data().exists());
}

/// Beside a `serve`, too, which goes by the files of its start.
#[test]
fn check_looks_at_the_files_as_they_are_now() {
    let till = Till::new();
    let file = till.write("shop/pipelines/own.toml", "name = \"own\"\n");
    let dir = till.path("shop");
    let till = till.set("PIPELINES__DIR", dir.to_str().unwrap());
    let _serving = Serving::start(&till);
    till.run(&["--quiet", "check"]);
    std::fs::write(file, "nmae = \"own\"\n").unwrap();
    fails(&till.try_run(&["check"]), 1, &["own.toml:1", "did you mean \"name\""]);
}

#[test]
fn a_directory_of_other_things_is_not_taken_over() {
    let till = Till::new();
    let photo = till.write("data/holiday.jpg", "not ours");
    fails(&till.try_run(&["check"]), 1, &["data holds other things", "--data"]);
    assert_eq!(fs::read_dir(till.data()).unwrap().count(), 1);
    fs::remove_file(photo).unwrap();
    till.run(&["check"]);
}

/// The Parquet files below a directory.
fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.into_iter().partition(|path| path.is_dir());
    let parquet = files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "parquet"));
    parquet.chain(dirs.iter().filter(|dir| !dir.ends_with("_delta_log")).flat_map(|dir| parquet_files(dir))).collect()
}

#[test]
fn a_damaged_file_of_a_table_is_named_and_made_again() {
    let till = Till::new();
    let lines: Vec<String> = (0..5).map(|i| charge(&format!("{i}"), json!(100 + i), "usd")).collect();
    let file = till.write("events.ndjson", lines.join("\n"));
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let damaged = parquet_files(&till.data().join("lake/core/charges")).pop().unwrap();
    let bytes = fs::read(&damaged).unwrap();
    let name = damaged.file_name().unwrap().to_str().unwrap();
    let sum = "SELECT sum(amount) AS amount FROM core.charges";
    let mut within = bytes.clone();
    within[8..24].fill(0xa5);
    for spoil in [&bytes[..bytes.len() / 2], &[0; 4096], &within] {
        fs::write(&damaged, spoil).unwrap();
        fails(&till.try_run(&["sql", "SELECT * FROM core.charges"]), 1, &["cannot be read", "tillstream doctor"]);
        fails(&till.try_run(&["doctor"]), 1, &[name, "core.charges", "tillstream rebuild"]);
    }
    fs::remove_file(&damaged).unwrap();
    fails(&till.try_run(&["sql", sum]), 1, &["cannot be read", "tillstream doctor"]);
    fails(&till.try_run(&["doctor"]), 1, &[name, "core.charges", "tillstream rebuild"]);
    till.run(&["rebuild"]);
    assert_eq!(till.sql(sum)[0]["amount"], 510);
    till.run(&["doctor"]);
}

#[test]
fn a_privacy_key_that_is_missing_is_asked_for_and_not_replaced() {
    let till = Till::new();
    let file = till.write("events.ndjson", charge("one", json!(100), "usd"));
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let key = till.data().join("privacy.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    fails(&till.try_run(&["run"]), 1, &["privacy.key is missing", "backup"]);
    fs::remove_dir_all(till.data().join("state")).unwrap();
    fails(&till.try_run(&["run"]), 1, &["privacy.key is missing", "backup"]);
    assert!(!key.exists());
    fs::write(&key, kept).unwrap();
    till.run(&["run"]);
}
