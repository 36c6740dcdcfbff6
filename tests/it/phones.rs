//! What a checkout asks of a phone, and the phones that several people have.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Serving, Till, wait};

const ASKED: &str = "/v1/phones/validate";

fn customer(n: u64, id: &str, kind: &str, phone: &str) -> Value {
    json!({"id": format!("evt_{n}"), "object": "event", "type": format!("customer.{kind}"), "created": 1_769_000_000 + n,
        "livemode": true, "api_version": "2025-03-31.basil", "data": {"object": {"id": id, "object": "customer",
        "created": 1_769_000_000, "email": format!("{id}@example.com"), "phone": phone, "address": {"country": "GB"}}}})
}

/// Two people with one phone, and one who had it before another.
fn shop(till: Till) -> Till {
    let events = [
        customer(1, "cus_ann", "created", "+442079460958"),
        customer(2, "cus_bob", "created", "020 7946 0958"),
        customer(3, "cus_cid", "created", "+442079460958"),
        customer(4, "cus_cid", "updated", "+33612345678"),
    ];
    take(&till, &events);
    till
}

fn take(till: &Till, events: &[Value]) {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    // One by one, so that state that is stored changes.
    for (i, line) in lines.iter().enumerate() {
        let file = till.write(&format!("{i}.ndjson"), format!("{line}\n"));
        till.run(&["ingest", "stripe", file.to_str().unwrap()]);
    }
}

#[test]
fn a_checkout_is_told_what_a_phone_is_and_how_many_have_it() {
    let till = shop(Till::new()).set("SERVER__CHECKOUT_TOKENS", "for_the_checkout").set("SERVER__CHECKOUT_RATE", "2");
    let serving = Serving::start(&till);
    // Two a second are answered.
    let ask_until = |token: &str, body: Value, wanted: u16| -> String {
        let mut last = None;
        wait("an answer", Duration::from_secs(30), || {
            let (status, text) = serving.ask(ASKED, token, &body);
            last = Some((status, text));
            last.as_ref().is_some_and(|(status, _)| *status == wanted)
        });
        last.unwrap().1
    };
    let ask = |body: Value| -> Value { serde_json::from_str(&ask_until("for_the_checkout", body, 200)).unwrap() };
    let known = json!({"valid": true, "e164": "+442079460958", "region": "GB", "type": "fixed_line", "carrier": null,
        "time_zones": ["Europe/London"], "reason": null, "message": null, "people": 2});
    assert_eq!(ask(json!({"phone": "020 7946 0958", "region": "gb"})), known);
    let of_one = ask(json!({"phone": "+33 6 12 34 56 78"}));
    assert_eq!((&of_one["people"], &of_one["type"], &of_one["carrier"]), (&json!(1), &json!("mobile"), &json!("SFR")));
    let none = ask(json!({"phone": "+1 555"}));
    assert_eq!((&none["valid"], &none["reason"], &none["people"]), (&json!(false), &json!("invalid"), &json!(null)));
    assert!(none["message"].as_str().unwrap().contains("numbering plan"), "{none}");
    assert_eq!(ask(json!({"phone": "020 7946 0958"}))["reason"], "no_region");

    // Who may ask, what, and how often.
    let (status, told) = serving.ask(ASKED, "guessed", &json!({"phone": "+442079460958"}));
    assert!(status == 401 && told.contains("[server] checkout_tokens"), "{status} {told}");
    ask_until(&serving.token, json!({"phone": "+442079460958", "region": ""}), 200);
    let told = ask_until("for_the_checkout", json!({"number": "+442079460958"}), 400);
    assert!(told.contains("\"phone\""), "{told}");
    assert_eq!(serving.ask("/v1/sql", "for_the_checkout", &json!({"query": "SELECT 1"})).0, 401, "and nothing else");
    let told = ask_until("for_the_checkout", json!({"phone": "5"}), 429);
    assert!(told.contains("checkout_rate"), "{told}");
}

#[test]
fn a_phone_of_several_people_is_reported_and_makes_nobody_one() {
    let till = shop(Till::new());
    till.run(&["run", "customers"]);
    let shared =
        till.sql("SELECT people, phone_e164_hash = phone_hash('+442079460958') AS same FROM marts.shared_phones");
    assert_eq!(shared, [json!({"people": 2, "same": true})]);
    assert_eq!(till.count("core.people"), 3);
    let phones = "SELECT type, region, carrier, time_zones, people FROM core.phones ORDER BY region";
    let phone = |kind: &str, region: &str, carrier: Option<&str>, zone: &str, people: u8| json!({"type": kind, "region": region, "carrier": carrier, "time_zones": zone, "people": people});
    let london = phone("fixed_line", "GB", None, r#"["Europe/London"]"#, 2);
    assert_eq!(till.sql(phones), [phone("mobile", "FR", Some("SFR"), r#"["Europe/Paris"]"#, 1), london]);
    let why =
        "SELECT phone_problem('+1 555') AS a, phone_problem('020 7946 0958', 'GB') AS b, phone_problem('x', 'GB') AS c";
    assert_eq!(till.sql(why), [json!({"a": "invalid", "b": null, "c": "not_a_number"})]);
}

#[test]
fn a_phone_that_is_none_keeps_its_reason_until_a_valid_one_comes() {
    let till = Till::new();
    take(
        &till,
        &[
            customer(1, "cus_ann", "created", "+442079460958"),
            customer(2, "cus_ann", "updated", "+44 20 7946"),
            customer(3, "cus_bob", "created", "call me"),
            customer(4, "cus_cid", "created", "12"),
            customer(5, "cus_cid", "updated", "020 7946 0000"),
        ],
    );
    let asked = "SELECT p.phone_problem, p.phone_e164_hash = phone_hash('+442079460958') AS londons FROM core.people p
        JOIN core.customers c ON c.person_id = p.person_id ORDER BY c.customer_id";
    let row = |problem: Option<&str>, londons: Option<bool>| json!({"phone_problem": problem, "londons": londons});
    let wanted = [row(Some("invalid"), Some(true)), row(Some("not_a_number"), None), row(None, Some(false))];
    assert_eq!(till.sql(asked), wanted);
}
