//! Somebody asks to be forgotten: what tells who they are is nowhere any more, and everything is counted as before.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use super::support::{Till, text};

const SOURCES: [&str; 3] = ["stripe", "klaviyo", "storefront"];

/// Somebody of the sample shop, as Stripe tells of them.
struct Somebody {
    customer: String,
    email: String,
    name: String,
}

/// A shop's events, one of them cut short, and who of them is named most often.
fn shop(till: &Till) -> Somebody {
    till.run(&["--quiet", "generate", "--customers", "120", "--days", "25", "--out", "shop.ndjson"]);
    let all: String = SOURCES.map(|source| fs::read_to_string(file(till, source)).unwrap()).concat();
    let of_customer = |line: &str| -> Option<Somebody> {
        let event: Value = serde_json::from_str(line).ok()?;
        let object = event.pointer("/data/object").filter(|o| o["object"] == "customer")?;
        let text = |field: &str| object[field].as_str().map(str::to_owned);
        text("phone")?;
        Some(Somebody { customer: text("id")?, email: text("email")?, name: text("name")? })
    };
    let named = |of: &Somebody| all.matches(of.email.as_str()).count();
    let somebody = all.lines().filter_map(of_customer).max_by_key(named).unwrap();
    assert!(named(&somebody) > 3, "they are named here and there");
    let Somebody { email, customer, .. } = &somebody;
    let stripe_event = |id: &str, kind: &str, object: Value| {
        json!({"id": id, "object": "event", "type": kind, "created": 1_790_000_000, "livemode": true,
            "api_version": "2025-03-31.basil", "data": {"object": object}})
    };
    let more = [
        // What no table is made of, and names them by their street alone.
        stripe_event(
            "evt_method",
            "payment_method.attached",
            json!({"id": "pm_1", "object": "payment_method",
            "customer": customer, "billing_details": {"address": {"line1": "9 Medlar Row"}}}),
        ),
        // An address that somebody made an id of.
        stripe_event(
            "evt_session",
            "checkout.session.completed",
            json!({"id": "cs_1", "object": "checkout.session",
            "created": 1_790_000_000, "status": "complete", "payment_status": "paid", "client_reference_id": email,
            "customer": customer, "amount_total": 1200, "currency": "eur"}),
        ),
    ];
    let more: String = more.iter().map(|event| format!("{event}\n")).collect();
    add(till, "stripe", &format!("{more}{{\"id\": \"evt_cut\", \"email\": \"{email}\"\n"));
    // Whoever opens the link of a letter, in a browser that nobody knows yet.
    let opened = json!({"type": "page", "messageId": "m_link", "anonymousId": "a_new", "timestamp": "2026-09-22T10:00:00Z",
        "properties": {"path": format!("/hello/{email}"), "url": format!("https://shop.example/?to={}", email.replace('@', "%40"))}});
    add(till, "storefront", &format!("{opened}\n{}\n", identify("m_theirs", email)));
    for source in SOURCES {
        till.run(&["--quiet", "ingest", source, file(till, source).to_str().unwrap()]);
    }
    somebody
}

fn add(till: &Till, source: &str, lines: &str) {
    let all = fs::read_to_string(file(till, source)).unwrap() + lines;
    fs::write(file(till, source), all).unwrap();
}

fn file(till: &Till, source: &str) -> PathBuf {
    till.path(&format!("shop.{source}.ndjson"))
}

/// Somebody says who they are in the browser that is at first theirs.
fn identify(message: &str, email: &str) -> Value {
    json!({"type": "identify", "messageId": message, "anonymousId": "a_theirs", "timestamp": "2026-09-22T10:00:00Z",
        "traits": {"email": email}})
}

/// Rows of what was kept that hold a text.
fn holding(till: &Till, text: &str) -> u64 {
    ["raw.events", "raw.quarantine"]
        .map(|table| till.count(&format!("{table} WHERE strpos(lower(payload), lower('{text}')) > 0")))
        .iter()
        .sum()
}

fn files_in(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_in(&path, found),
            false => drop(found.insert(path)),
        }
    }
}

fn parquet(till: &Till) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    files_in(&till.data().join("lake/raw"), &mut found);
    found.retain(|path| path.extension().is_some_and(|e| e == "parquet"));
    found
}

/// What tells of the person is expected to change, and nothing beside it.
fn without(person: &str, facts: &[String]) -> Vec<String> {
    let of_them =
        |row: &&String| row.contains(person) && ["identities: ", "people: "].iter().any(|t| row.starts_with(t));
    // The last two columns of a customer say what is known of their person.
    let bare = |row: &String| match row.starts_with("customers: ") && row.contains(person) {
        true => row.rsplitn(3, ',').last().unwrap().to_owned(),
        false => row.clone(),
    };
    facts.iter().filter(|row| !row.starts_with("phones: ") && !of_them(row)).map(bare).collect()
}

#[test]
fn who_is_forgotten_is_named_nowhere_and_counted_everywhere() {
    let till = Till::new();
    let Somebody { customer, email, name } = shop(&till);
    let person =
        till.sql(&format!("SELECT person_id, email_hash FROM core.people WHERE email_hash = email_hash('{email}')"));
    let (person, hash) = (person[0]["person_id"].as_str().unwrap(), person[0]["email_hash"].as_str().unwrap());
    let (before, files) = (till.facts(), parquet(&till));
    let of_customer =
        format!("SELECT klaviyo_profile_id, erased_at FROM core.customers WHERE customer_id = '{customer}'");
    let told = till.sql(&of_customer);
    assert!(!told[0]["klaviyo_profile_id"].is_null() && told[0]["erased_at"].is_null(), "{told:?}");
    let kept = holding(&till, &email);
    assert_eq!((holding(&till, "Medlar Row"), till.count("core.checkouts WHERE cart_id LIKE 'email:%'")), (1, 1));
    let exported = till.run(&["--quiet", "export", &email]);
    let of =
        |table: &str| exported.lines().filter(|line| line.starts_with(&format!("{{\"table\":\"{table}\""))).count();
    assert!(of("vault") >= 3 && of("core.people") == 1 && of("raw.events") > 3, "{exported}");
    assert!(exported.contains(&email) && exported.contains("Medlar Row"));

    let last = till.sql("SELECT max(log_offset) AS n FROM raw.events")[0]["n"].as_u64().unwrap();
    let erased = till.json(&["erase", &email]);
    assert_eq!(erased["people"], json!([person]));
    assert!(erased["events"].as_u64().unwrap() >= kept - 1 && erased["quarantined"] == 1, "{erased}, of {kept}");
    assert!(erased["contacts"].as_u64().unwrap() >= 3, "{erased}");
    assert_eq!((holding(&till, &email), holding(&till, &email.replace('@', "%40"))), (0, 0));
    assert_eq!(holding(&till, "Medlar Row"), 0);
    let of_them = format!("raw.events WHERE payload LIKE '%{customer}%' AND payload LIKE '%{name}%'");
    assert_eq!(till.count(&of_them), 0);
    let mut all = BTreeSet::new();
    files_in(&till.data(), &mut all);
    let clear = |path: &&PathBuf| fs::read(path).unwrap().windows(email.len()).any(|w| w == email.as_bytes());
    assert_eq!(all.iter().find(clear), None);
    // What the log packs would not be found so.
    let segments = all.iter().filter(|path| path.extension().is_some_and(|e| e == "seg"));
    let mut firsts = segments.map(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    assert!(firsts.all(|first| first > last), "the log still begins before event {last}");
    assert!(files.difference(&parquet(&till)).next().is_some(), "files that held it are gone");

    let told = till.sql(&format!("SELECT * FROM core.people WHERE person_id = '{person}'"));
    assert!(
        !told[0]["erased_at"].is_null() && told[0]["email_hash"].is_null() && told[0]["country"].is_null(),
        "{told:?}"
    );
    let barred = format!("ops.suppressions WHERE destination_hash = '{hash}' AND reason = 'erased'");
    assert_eq!(till.count(&barred), 1);
    let told = till.sql(&of_customer);
    assert!(told[0]["klaviyo_profile_id"].is_null() && !told[0]["erased_at"].is_null(), "{told:?}");
    let after = till.facts();
    assert!(without(person, &before) == without(person, &after), "all else is as it was");

    // What is made of what is left is the same; what comes again is known; what comes anew tells nothing.
    till.run(&["--quiet", "rebuild"]);
    let rebuilt = till.facts();
    let differ: Vec<_> = after.iter().zip(&rebuilt).filter(|(a, b)| a != b).take(3).collect();
    assert!(after == rebuilt, "the first that differ: {differ:#?}");
    for source in SOURCES {
        let again = till.json(&["ingest", source, file(&till, source).to_str().unwrap()]);
        assert_eq!(again["accepted"], 0, "{source}");
    }
    let event = json!({"id": "evt_later", "object": "event", "type": "customer.updated", "created": 1_900_000_000,
        "livemode": true, "api_version": "2025-03-31.basil", "data": {"object": {"id": customer, "object": "customer",
        "email": email, "name": name, "address": {"country": "GB", "line1": "1 Quince Lane"}}}});
    // Of a type that no table is made of, too.
    let set_up = json!({"id": "evt_set_up", "object": "event", "type": "payment_method.attached", "created": 1_900_000_000,
        "livemode": true, "data": {"object": {"id": "pm_2", "object": "payment_method",
        "billing_details": {"email": email, "address": {"line1": "1 Quince Lane"}}}}});
    let later = till.write("later.ndjson", format!("{event}\n{set_up}\n"));
    assert_eq!(till.json(&["ingest", "stripe", later.to_str().unwrap()])["accepted"], 2);
    assert_eq!((holding(&till, &email), holding(&till, "Quince Lane"), till.count(&of_them)), (0, 0, 0));
    let told = till.sql(&format!("SELECT email_hash, country FROM core.people WHERE person_id = '{person}'"));
    assert_eq!(told, [json!({"email_hash": null, "country": null})]);

    // Their browser is another's by now, who is nobody's but their own.
    let other = till.write("other.ndjson", format!("{}\n", identify("m_other", "bella@example.com")));
    till.run(&["--quiet", "ingest", "storefront", other.to_str().unwrap()]);
    assert_eq!(till.json(&["erase", person])["people"], json!([person]), "once more does no harm");
    till.run(&["--quiet", "rebuild"]);
    assert_eq!(holding(&till, "bella@example.com"), 1);
    let bella =
        till.sql("SELECT person_id, erased_at FROM core.people WHERE email_hash = email_hash('bella@example.com')");
    assert!(bella.len() == 1 && bella[0]["person_id"] != *person && bella[0]["erased_at"].is_null(), "{bella:?}");
    assert_eq!(till.count("ops.suppressions WHERE destination_hash = email_hash('bella@example.com')"), 0);
    let nobody = till.try_run(&["erase", "nobody@example.com"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(text(&nobody.stderr).contains("nobody is known by"), "{}", text(&nobody.stderr));
}

#[test]
fn forgetting_that_is_killed_is_gone_on_with() {
    let till = Till::new();
    let Somebody { email, .. } = shop(&till);
    // Opening and looking takes about so long: some of it comes to an end before, some in the middle.
    let began = Instant::now();
    till.run(&["--quiet", "sql", "SELECT 1"]);
    let opened = began.elapsed();
    for share in [5, 9, 11, 13, 16, 20] {
        let mut command = till.command(&["--quiet", "erase", &email]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(opened * share / 10);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Whatever was begun is done by whoever comes next; the last does it all where nothing was.
    let begun = till.count("raw.events WHERE type = 'person.erased'") > 0;
    assert!(!begun || holding(&till, &email) == 0);
    till.run(&["--quiet", "erase", &email]);
    assert_eq!(holding(&till, &email), 0);
}
