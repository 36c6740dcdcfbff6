//! What Stripe's events become, in shapes that differ from version to version.

use serde_json::{Value, json};

use super::{decode, decoder, event, fixture, fold, names, rows, seconds, stripe_envelope};
use crate::{
    facts::{DecodeError, ObjectKey, Row, Table, rows::Refund},
    tests::facts::only,
};

fn all(events: &[Value]) -> Vec<Row> {
    rows(&fold(events)).into_values().collect()
}

#[test]
fn a_guests_payment_with_failed_authentication_then_success() {
    let rows_by_key = rows(&fold(&fixture("basil_3ds_then_paid.ndjson")));
    let rows: Vec<Row> = rows_by_key.values().cloned().collect();
    let intent = only!(rows, PaymentIntent);
    assert_eq!((intent.status.as_str(), intent.attempts, intent.amount_received), ("succeeded", 2, 4200));
    assert_eq!(intent.first_attempt_at, Some(seconds(1_750_000_010)));
    assert_eq!(intent.succeeded_at, Some(seconds(1_750_000_060)));
    assert_eq!(intent.latest_attempt_id.as_deref(), Some("py_paid"));
    assert_eq!(intent.last_error_code.as_deref(), Some("payment_intent_authentication_failure"));
    assert_eq!((intent.cart_id.as_deref(), intent.order_ref.as_deref()), (Some("cart_7"), Some("2001")));
    assert_eq!((intent.external_ref.as_deref(), intent.country.as_deref()), (Some("2001"), Some("FR")));
    // The intent names nobody: its charge does.
    let email = names().email("ann@example.com").unwrap();
    let person = Some(names().person("email", &email));
    assert_eq!(intent.person_id, person);
    let attempt = |id: &str| {
        let key = ObjectKey { table: Table::PaymentAttempts, livemode: true, id: id.to_owned() };
        match &rows_by_key[&key] {
            Row::PaymentAttempt(row) => (**row).clone(),
            other => panic!("{other:?}"),
        }
    };
    let failed = attempt("pi_3ds:req_auth");
    assert_eq!((failed.outcome.as_str(), failed.category.as_deref()), ("auth_failed", Some("authentication")));
    assert_eq!((failed.three_ds_result.as_deref(), failed.charge_id), (Some("failed"), None));
    assert_eq!(failed.retry_advice.as_deref(), Some("after_on_session_auth"));
    let paid = attempt("py_paid");
    assert_eq!((paid.outcome.as_str(), paid.wallet.as_deref()), ("authorised", Some("apple_pay")));
    assert_eq!(
        (paid.three_ds_result.as_deref(), paid.three_ds_flow.as_deref()),
        (Some("authenticated"), Some("challenge"))
    );
    assert_eq!((paid.risk_score, paid.person_id, paid.email_hash), (Some(17), person, Some(email)));
    assert_eq!(only!(rows, Charge).captured_at, Some(seconds(1_750_000_060)));
    assert_eq!(rows.len(), 4);
}

#[test]
fn an_intents_own_events_are_enough_for_attempts() {
    let intent = |status: &str, charge: Value, error: Value| {
        json!({"object": {"id": "pi_1", "object": "payment_intent", "amount": 500, "currency": "eur", "status": status,
            "created": 1_700_000_000, "amount_received": if status == "succeeded" { 500 } else { 0 },
            "latest_charge": charge, "last_payment_error": error, "receipt_email": "bob@example.com"}})
    };
    let declined = json!({"type": "card_error", "code": "card_declined", "decline_code": "stolen_card", "charge": "ch_1",
        "payment_method": {"type": "card", "card": {"brand": "visa", "country": "BR"}}});
    // A soft decline names no charge, though it made one.
    let soft =
        json!({"type": "card_error", "code": "authentication_required", "decline_code": "authentication_required"});
    let events = [
        event(
            "evt_1",
            "payment_intent.payment_failed",
            1_700_000_010,
            intent("requires_payment_method", json!("ch_1"), declined),
        ),
        event(
            "evt_2",
            "payment_intent.payment_failed",
            1_700_000_020,
            intent("requires_payment_method", json!("ch_2"), soft),
        ),
        event("evt_3", "payment_intent.succeeded", 1_700_000_030, intent("succeeded", json!("ch_3"), Value::Null)),
    ];
    let rows = all(&events);
    let intent = only!(rows, PaymentIntent);
    assert_eq!((intent.attempts, intent.last_decline_code.as_deref()), (3, Some("authentication_required")));
    let mut attempts: Vec<_> = rows
        .iter()
        .filter_map(|r| match r {
            Row::PaymentAttempt(a) => Some((a.attempt_id.as_str(), a.outcome.as_str(), a.category.as_deref())),
            _ => None,
        })
        .collect();
    attempts.sort_unstable();
    assert_eq!(
        attempts,
        [
            ("ch_1", "issuer_declined", Some("fraud")),
            ("ch_2", "issuer_declined", Some("authentication")),
            ("ch_3", "authorised", None)
        ]
    );
    // The charge itself knows better than the intent, whenever it comes.
    let charge = event(
        "evt_4",
        "charge.failed",
        1_700_000_009,
        json!({"object": {"id": "ch_1", "object": "charge",
        "amount": 500, "currency": "eur", "created": 1_700_000_009, "status": "failed", "payment_intent": "pi_1",
        "failure_code": "card_declined", "paid": false,
        "outcome": {"type": "blocked", "reason": "highest_risk_level", "network_status": "not_sent_to_network"}}}),
    );
    let with_charge: Vec<Value> = events.iter().chain([&charge]).cloned().collect();
    let rows = all(&with_charge);
    let blocked = rows.iter().find_map(|r| match r {
        Row::PaymentAttempt(a) if a.attempt_id == "ch_1" => Some(a.clone()),
        _ => None,
    });
    let blocked = blocked.unwrap();
    assert_eq!((blocked.outcome.as_str(), blocked.retry_advice.as_deref()), ("blocked", Some("never")));
    assert_eq!(
        (only!(rows, PaymentIntent).attempts, only!(rows, PaymentIntent).first_attempt_at),
        (3, Some(seconds(1_700_000_009)))
    );
}

fn charge_refunded(id: &str, at: i64, total: i64, refunds: Value) -> Value {
    event(
        id,
        "charge.refunded",
        at,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 1000, "currency": "usd",
        "amount_captured": 1000, "amount_refunded": total, "captured": true, "status": "succeeded", "paid": true,
        "created": 1_700_000_000, "payment_intent": "pi_1", "refunded": total == 1000, "refunds": refunds}}),
    )
}

fn refund(id: &str, amount: i64, created: i64, status: &str) -> Value {
    json!({"id": id, "object": "refund", "amount": amount, "currency": "usd", "charge": "ch_1", "payment_intent": "pi_1",
        "created": created, "status": status, "reason": "requested_by_customer"})
}

fn refunds(events: &[Value]) -> Vec<Refund> {
    let mut found: Vec<Refund> = all(events)
        .into_iter()
        .filter_map(|r| match r {
            Row::Refund(r) => Some(*r),
            _ => None,
        })
        .collect();
    found.sort_by(|a, b| a.refund_id.cmp(&b.refund_id));
    found
}

fn paid_back(events: &[Value]) -> i64 {
    refunds(events).iter().filter(|r| r.status == "succeeded").map(|r| r.amount).sum()
}

#[test]
fn refunds_found_in_a_charge_are_rows_and_a_mere_total_is_one() {
    let listed = json!({"object": "list", "data": [refund("re_2", 300, 1_700_000_200, "succeeded"), refund("re_1", 700, 1_700_000_100, "succeeded")]});
    let rows = refunds(&[charge_refunded("evt_1", 1_700_000_200, 1000, listed)]);
    let shown: Vec<_> = rows.iter().map(|r| (r.refund_id.as_str(), r.amount, r.order_id.as_deref())).collect();
    assert_eq!(shown, [("re_1", 700, Some("pi_1")), ("re_2", 300, Some("pi_1"))]);
    let rows = refunds(&[charge_refunded("evt_1", 1_700_000_200, 1000, Value::Null)]);
    let shown: Vec<_> = rows.iter().map(|r| (r.refund_id.as_str(), r.amount, r.status.as_str())).collect();
    assert_eq!(shown, [("ch_1:refunded", 1000, "succeeded")]);
}

#[test]
fn what_is_refunded_is_counted_once_whichever_events_come() {
    let total = |at, amount| charge_refunded("evt_t", at, amount, Value::Null);
    let first = event(
        "evt_a",
        "refund.created",
        1_700_000_100,
        json!({"object": refund("re_1", 700, 1_700_000_100, "succeeded")}),
    );
    let second = event(
        "evt_b",
        "refund.created",
        1_700_000_200,
        json!({"object": refund("re_2", 300, 1_700_000_200, "succeeded")}),
    );
    let failed =
        event("evt_c", "refund.failed", 1_700_000_300, json!({"object": refund("re_1", 700, 1_700_000_100, "failed")}));
    assert_eq!(paid_back(&[total(1_700_000_200, 1000), first.clone()]), 1000);
    assert_eq!(paid_back(&[total(1_700_000_200, 1000), first.clone(), second.clone()]), 1000);
    // A refund after the total was told adds to it.
    assert_eq!(paid_back(&[total(1_700_000_100, 700), second.clone()]), 1000);
    assert_eq!(paid_back(&[total(1_700_000_100, 700), first.clone(), second.clone()]), 1000);
    // One that failed later is not paid back; the total told before does not bring it back.
    assert_eq!(paid_back(&[total(1_700_000_200, 1000), first.clone(), second.clone(), failed.clone()]), 300);
    assert_eq!(paid_back(&[failed, second, first, total(1_700_000_200, 1000)]), 300);
    // An authorisation released was never paid.
    let mut released = charge_refunded("evt_r", 1_700_000_100, 1000, Value::Null);
    released["data"]["object"]["captured"] = json!(false);
    assert_eq!(paid_back(&[released]), 0);
}

#[test]
fn a_refund_that_fails_stays_failed() {
    let of = |id: &str, at, status| {
        event(id, "charge.refund.updated", at, json!({"object": refund("re_1", 700, 1_700_000_100, status)}))
    };
    let rows = refunds(&[of("evt_2", 1_700_000_300, "failed"), of("evt_1", 1_700_000_400, "succeeded")]);
    let row = rows.iter().find(|r| r.refund_id == "re_1").unwrap();
    assert_eq!((row.status.as_str(), row.order_ambiguous), ("failed", false));
    assert_eq!((row.succeeded_at, row.failed_at), (Some(seconds(1_700_000_400)), Some(seconds(1_700_000_300))));
}

#[test]
fn a_deleted_customer_keeps_what_was_known() {
    let created = event(
        "evt_1",
        "customer.created",
        1_700_000_000,
        json!({"object": {"id": "cus_1", "object": "customer",
        "created": 1_700_000_000, "email": "Ann@Example.com", "phone": "+33612345678", "name": "Ann", "balance": -500,
        "currency": "eur", "preferred_locales": ["fr-FR"], "address": {"country": "FR"}}}),
    );
    let deleted = event(
        "evt_2",
        "customer.deleted",
        1_700_000_900,
        json!({"object": {"id": "cus_1", "object": "customer", "deleted": true}}),
    );
    for events in [[created.clone(), deleted.clone()], [deleted, created.clone()]] {
        let row = only!(all(&events), Customer);
        assert_eq!((row.deleted_at, row.created_at), (Some(seconds(1_700_000_900)), Some(seconds(1_700_000_000))));
        assert_eq!(
            (row.email_hash, row.balance, row.locale.as_deref()),
            (names().email("ann@example.com"), Some(-500), Some("fr-FR"))
        );
    }
    let decoded = decode(&created);
    let kinds: Vec<_> = decoded.contacts.iter().map(|c| (c.kind, c.plaintext.as_str())).collect();
    assert_eq!(kinds, [("email", "ann@example.com"), ("phone", "+33612345678"), ("name", "Ann")]);
    assert!(!format!("{:?}", decoded.contacts).contains("ann"));
    let claim = &decoded.claims[0];
    assert_eq!((claim.identifiers.len(), claim.attributes.country.as_deref()), (2, Some("FR")));
}

#[test]
fn a_session_told_by_its_payment_names_the_payer() {
    let session = event(
        "evt_1",
        "checkout.session.expired",
        1_700_003_600,
        json!({"object": {"id": "cs_1", "object": "checkout.session",
        "created": 1_700_000_000, "expires_at": 1_700_003_600, "status": "expired", "payment_status": "unpaid", "mode": "payment",
        "amount_total": 999, "currency": "eur", "payment_intent": "pi_1", "client_reference_id": "cart_1",
        "customer_details": {"email": "eve@example.com", "address": {"country": "de"}}, "total_details": {"amount_tax": 65}}}),
    );
    let intent = event(
        "evt_2",
        "payment_intent.created",
        1_700_000_000,
        json!({"object": {"id": "pi_1", "object": "payment_intent",
        "amount": 999, "currency": "eur", "status": "requires_payment_method", "created": 1_700_000_000}}),
    );
    let rows = all(&[session, intent]);
    let row = only!(rows, Checkout);
    assert_eq!(
        (row.status.as_deref(), row.expired_at, row.completed_at),
        (Some("expired"), Some(seconds(1_700_003_600)), None)
    );
    assert_eq!(
        (row.cart_id.as_deref(), row.amount_tax, row.country.as_deref()),
        (Some("cart_1"), Some(65), Some("DE"))
    );
    let intent = only!(rows, PaymentIntent);
    assert_eq!((intent.person_id, intent.country, intent.attempts), (row.person_id, row.country, 0));
}

#[test]
fn an_amount_that_is_none_is_named_and_not_guessed() {
    for (bad, shown) in [
        (json!(-1), "-1"),
        (json!(10.5), "10.5"),
        (json!("100"), "\"100\""),
        (json!(9_223_372_036_854_775_808_u64), "9223372036854775808"),
        (json!(true), "true"),
        (json!([1]), "an array"),
    ] {
        let event = event(
            "evt_bad",
            "charge.succeeded",
            1_700_000_000,
            json!({"object": {"id": "ch_1", "object": "charge",
            "amount": bad, "currency": "usd", "status": "succeeded"}}),
        );
        let error = decoder().decode(&stripe_envelope(&event)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("evt_bad") && text.contains("data.object.amount") && text.contains(shown), "{text}");
    }
    let largest = event(
        "evt_ok",
        "charge.succeeded",
        1_700_000_000,
        json!({"object": {"id": "ch_1", "object": "charge",
        "amount": i64::MAX, "currency": "usd", "status": "succeeded"}}),
    );
    assert_eq!(only!(all(&[largest]), Charge).amount, i64::MAX);
}

#[test]
fn what_cannot_be_read_says_so_and_what_is_not_known_is_no_error() {
    let mut half = stripe_envelope(&event("evt_1", "charge.failed", 1, json!({"object": {"id": "ch_1"}})));
    half.payload = half.payload.slice(..half.payload.len() - 4);
    assert!(matches!(decoder().decode(&half), Err(DecodeError::Json { .. })));
    let no_id =
        event("evt_2", "charge.failed", 1, json!({"object": {"object": "charge", "amount": 1, "currency": "usd"}}));
    assert!(matches!(
        decoder().decode(&stripe_envelope(&no_id)),
        Err(DecodeError::Missing { field: "data.object.id", .. })
    ));
    let odd = event("evt_3", "charge.failed", 1, json!({"object": {"id": "ch_1", "amount": 1, "currency": "dollar"}}));
    assert!(matches!(decoder().decode(&stripe_envelope(&odd)), Err(DecodeError::Currency { .. })));
    for kind in ["invoiceitem.created", "invoice.upcoming", "v9.moon.landed", "customer.source.updated"] {
        let decoded = decode(&event("evt_4", kind, 1, json!({"object": {"object": "x", "amount": -5}})));
        assert!(!decoded.handled && decoded.observations.is_empty(), "{kind}");
    }
}

/// Every path below `value`, as JSON pointers.
fn paths(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| paths(v, format!("{at}/{k}"), all)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| paths(v, format!("{at}/{i}"), all)),
        _ => {}
    }
    all.push(at);
}

#[test]
fn a_field_of_another_shape_is_nothing_and_no_error() {
    let refunded =
        charge_refunded("evt_1", 1_700_000_200, 1000, json!({"data": [refund("re_1", 1000, 1, "succeeded")]}));
    let mut whole = refunded.clone();
    whole["data"]["object"]["balance_transaction"] =
        json!({"id": "txn_1", "fee": 30, "net": 970, "currency": "eur", "exchange_rate": 0.9});
    whole["data"]["object"]["source"] =
        json!({"object": "source", "type": "card", "card": {"brand": "Visa"}, "owner": {"email": "a@b.c"}});
    let charge = only!(all(&[whole.clone()]), Charge);
    assert_eq!((charge.fee, charge.net, charge.exchange_rate), (Some(30), Some(970), Some(0.9)));
    let mut events = fixture("basil_3ds_then_paid.ndjson");
    events.push(whole);
    let other_shapes = [
        json!(null),
        json!(7),
        json!(-1.5),
        json!("x"),
        json!(true),
        json!([]),
        json!([1]),
        json!({}),
        json!({"id": "z"}),
    ];
    let strict = ["id", "object", "currency", "fee", "net", "refunds"];
    let mut tried = 0;
    for event in &events {
        let mut all = Vec::new();
        paths(&event["data"]["object"], "/data/object".to_owned(), &mut all);
        for path in all.iter().filter(|p| p.len() > "/data/object".len()) {
            let name = path.rsplit('/').next().unwrap();
            if strict.contains(&name) || name.starts_with("amount") || name.parse::<u8>().is_ok() {
                continue;
            }
            for shape in &other_shapes {
                let mut odd = event.clone();
                *odd.pointer_mut(path).unwrap() = shape.clone();
                if let Err(error) = decoder().decode(&stripe_envelope(&odd)) {
                    panic!("{path} as {shape}: {error}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_checkout_tells_what_was_seen_and_what_came_of_it_later() {
    let session = |id: &str, kind: &str, at: i64, paid: &str| {
        event(
            id,
            &format!("checkout.session.{kind}"),
            at,
            json!({"object": {"id": "cs_1", "object": "checkout.session", "created": 1_700_000_000, "status": "complete",
                "payment_status": paid, "amount_total": 1000, "currency": "usd", "payment_intent": "pi_1",
                "presentment_details": {"presentment_amount": 920, "presentment_currency": "eur"}}}),
        )
    };
    let completed = session("evt_1", "completed", 1_700_000_100, "unpaid");
    let came = session("evt_2", "async_payment_succeeded", 1_700_300_000, "paid");
    let row = only!(all(std::slice::from_ref(&completed)), Checkout);
    assert_eq!((row.async_result, row.presentment_amount), (None, Some(920)));
    for events in [[completed.clone(), came.clone()], [came, completed.clone()]] {
        let row = only!(all(&events), Checkout);
        assert_eq!((row.async_result.as_deref(), row.payment_status.as_deref()), (Some("succeeded"), Some("paid")));
        assert_eq!(row.presentment_currency.map(String::from).as_deref(), Some("eur"));
    }
    // The intent knows the session that it is paid in.
    let intent = event(
        "evt_3",
        "payment_intent.created",
        1_700_000_000,
        json!({"object": {"id": "pi_1", "object": "payment_intent", "amount": 1000, "currency": "usd",
            "status": "requires_payment_method", "created": 1_700_000_000}}),
    );
    assert_eq!(only!(all(&[completed, intent]), PaymentIntent).session_id.as_deref(), Some("cs_1"));
}
