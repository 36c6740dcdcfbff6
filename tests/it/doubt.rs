//! Who a doubtful mart names is written to when the mart is in order, and not before.

use serde_json::json;

use crate::support::Till;

const GREETING: &str = r#"
name = "greeting"
description = "A word to those who agreed"

[[model]]
name = "marts.agreed"
sql = "agreed.sql"

[[check]]
name = "two at least"
sql = "SELECT count(*) AS people FROM marts.agreed HAVING count(*) < 2"

[[segment]]
name = "agreed"
sql = "segments/agreed.sql"

[[trigger]]
name = "greeting"
segment = "agreed"
on = "enter"
channel = "email"
template = "greeting"
purpose = "transactional"
"#;

/// Takes in what Klaviyo knows of somebody who agreed to mail.
fn agrees(till: &Till, name: &str) {
    let at = "2026-06-01T10:00:00Z";
    let agreed = json!({"can_receive_email_marketing": true, "consent": "SUBSCRIBED", "last_updated": at});
    let profile = json!({"type": "profile", "id": name, "attributes": {"email": format!("{name}@example.com"),
        "updated": at, "subscriptions": {"email": {"marketing": agreed}}}});
    let file = till.write(&format!("{name}.ndjson"), profile.to_string());
    till.json(&["ingest", "klaviyo", file.to_str().unwrap()]);
}

/// A shop whose segment is all of a mart.
fn shop(greeting: &str) -> Till {
    let till = Till::new();
    till.write("shop/pipelines/greeting.toml", greeting);
    till.write(
        "shop/sql/agreed.sql",
        "-- One row a person.\nSELECT DISTINCT person_id FROM core.consents WHERE state = 'subscribed'",
    );
    till.write("shop/sql/segments/agreed.sql", "-- One row a person.\nSELECT person_id FROM marts.agreed");
    till.write("shop/templates/greeting.email.j2", "Subject: Hello\nThis is {{ merchant }}.\n");
    let dir = till.path("shop");
    till.set("PIPELINES__DIR", dir.to_str().unwrap())
}

/// That a look at the segments, as `serve` does it again and again, writes to nobody, and why.
#[track_caller]
fn is_held(till: &Till, why: &str) {
    let looked = till.try_run(&["triggers", "run", "greeting"]);
    let told = String::from_utf8_lossy(&looked.stderr);
    assert!(told.contains("segment agreed is left as it is") && told.contains(why), "{told}");
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (0, 0));
}

#[test]
fn a_segment_over_a_mart_that_a_check_finds_wrong_waits() {
    let till = shop(GREETING);
    agrees(&till, "ann");
    is_held(&till, "marts.agreed was never made here");
    let failed = till.try_run(&["--json", "run"]);
    assert_eq!(failed.status.code(), Some(1));
    let report = String::from_utf8_lossy(&failed.stdout);
    let told = "segment agreed is left as it is: check \\\"two at least\\\" of greeting failed";
    assert!(report.contains(told), "{report}");
    is_held(&till, "failed");

    // Another name, or a record that was lost, makes no check pass.
    till.write("shop/pipelines/greeting.toml", GREETING.replace("two at least", "a pair"));
    is_held(&till, "check \"a pair\" of greeting has not run on it yet");
    till.write("shop/pipelines/greeting.toml", GREETING);
    std::fs::remove_dir_all(till.data().join("lake/ops/check_results")).unwrap();
    is_held(&till, "has not run on it yet");

    agrees(&till, "bob");
    till.run(&["run"]);
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (2, 2));
}

#[test]
fn a_check_of_facts_holds_the_segments_behind_the_models_that_it_keeps_from_being_made() {
    let of_facts = "SELECT count(*) AS people FROM core.consents HAVING count(*) < 2";
    let greeting = GREETING.replace("SELECT count(*) AS people FROM marts.agreed HAVING count(*) < 2", of_facts);
    assert_ne!(greeting, GREETING);
    let till = shop(&greeting);
    agrees(&till, "ann");
    // The mart is there, made when the check was another.
    till.write("shop/pipelines/greeting.toml", greeting.replace("< 2", "< 1").replace("\"enter\"", "\"exit\""));
    till.run(&["run"]);
    till.write("shop/pipelines/greeting.toml", &greeting);
    assert_eq!(till.try_run(&["run"]).status.code(), Some(1));
    let looked = till.try_run(&["triggers", "run", "greeting"]);
    let told = String::from_utf8_lossy(&looked.stderr);
    assert!(told.contains("check \"two at least\" of greeting failed"), "{told}");
    assert_eq!(till.count("ops.messages"), 0);
}

#[test]
fn what_was_made_of_the_past_is_not_acted_on() {
    let till = shop(GREETING);
    agrees(&till, "ann");
    agrees(&till, "bob");
    till.run(&["run", "--as-of", "2026-06-20"]);
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (2, 2), "as of a time, and recorded as of it");
    let looked = till.try_run(&["triggers", "run", "greeting"]);
    let told = String::from_utf8_lossy(&looked.stderr);
    assert!(told.contains("marts.agreed is as of 2026-06-20T00:00:00Z"), "{told}");
    // Before that, nobody had agreed: nobody has left either.
    till.try_run(&["run", "--as-of", "2026-05-01"]);
    till.try_run(&["triggers", "run", "greeting"]);
    assert_eq!(till.count("segments.memberships WHERE exited_at IS NULL"), 2);
    till.run(&["run"]);
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (2, 2));
}
