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

#[test]
fn a_segment_over_a_mart_that_a_check_finds_wrong_waits() {
    let till = Till::new();
    till.write("shop/pipelines/greeting.toml", GREETING);
    till.write(
        "shop/sql/agreed.sql",
        "-- One row a person.\nSELECT DISTINCT person_id FROM core.consents WHERE state = 'subscribed'",
    );
    till.write("shop/sql/segments/agreed.sql", "-- One row a person.\nSELECT person_id FROM marts.agreed");
    till.write("shop/templates/greeting.email.j2", "Subject: Hello\nThis is {{ merchant }}.\n");
    let dir = till.path("shop");
    let till = till.set("PIPELINES__DIR", dir.to_str().unwrap());

    agrees(&till, "ann");
    let failed = till.try_run(&["--json", "run"]);
    assert_eq!(failed.status.code(), Some(1));
    let report = String::from_utf8_lossy(&failed.stdout);
    assert!(
        report.contains("segment agreed is not acted on: check \\\"two at least\\\" of greeting failed"),
        "{report}"
    );
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (0, 0));
    // Nor later, by whoever does not run the pipeline first.
    till.try_run(&["triggers", "run", "greeting"]);
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (0, 0));

    agrees(&till, "bob");
    till.run(&["run"]);
    assert_eq!((till.entered("agreed"), till.count("ops.messages")), (2, 2));
}
