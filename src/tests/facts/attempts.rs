//! What Stripe's events tell of tries to pay: how, by whom, in which order, and of which account.

use arrow::array::AsArray;
use serde_json::{Value, json};

use super::{decode, event, fold, in_any_order, rows, seconds};
use crate::{
    base::Offset,
    facts::{ObjectState, Row, Stamped, Table, batch, rows::PaymentAttempt},
    tests::facts::only,
};

fn all(events: &[Value]) -> Vec<Row> {
    rows(&fold(events)).into_values().collect()
}

/// An attempt by this method, told at once by a charge that this request made.
fn attempt_by(details: Value, request: Value) -> PaymentAttempt {
    let mut event = event(
        "evt_1",
        "charge.succeeded",
        1_700_000_001,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 500, "currency": "eur", "status": "succeeded",
            "created": 1_700_000_000, "captured": true, "payment_method_details": details}}),
    );
    event["request"] = request;
    only!(all(&[event]), PaymentAttempt)
}

#[test]
fn every_way_to_pay_is_told() {
    let asked = json!({"id": "req_1"});
    for wallet in ["apple_pay", "google_pay", "link", "samsung_pay", "a_wallet_of_next_year"] {
        let card = json!({"type": "card", "card": {"brand": "visa", "wallet": {"type": wallet, wallet: {}}}});
        let row = attempt_by(card, asked.clone());
        assert_eq!((row.payment_method_type.as_deref(), row.wallet.as_deref()), (Some("card"), Some(wallet)));
    }
    for method in ["paypal", "link", "klarna", "ideal", "sepa_debit", "alipay", "a_method_of_next_year"] {
        let row = attempt_by(
            json!({"type": method, method: {"country": "NL", "payer_email": "ann@example.com"}}),
            asked.clone(),
        );
        assert_eq!((row.payment_method_type.as_deref(), row.wallet, row.card_brand), (Some(method), None, None));
    }
    let card = json!({"type": "card", "card": {"brand": "mastercard", "country": "DE", "funding": "prepaid", "iin": "530012",
        "last4": "0042", "fingerprint": "fp1", "checks": {"cvc_check": "fail", "address_postal_code_check": "pass",
            "address_line1_check": "unchecked"}, "three_d_secure": {"result": "exempted", "result_reason": null,
            "authentication_flow": null, "electronic_commerce_indicator": "07", "exemption_indicator": "low_risk"}}});
    let row = attempt_by(card, asked);
    assert_eq!((row.card_bin.as_deref(), row.card_last4.as_deref()), (Some("530012"), Some("0042")));
    assert_eq!((row.card_funding.as_deref(), row.card_fingerprint.as_deref()), (Some("prepaid"), Some("fp1")));
    assert_eq!((row.cvc_check.as_deref(), row.postal_code_check.as_deref()), (Some("fail"), Some("pass")));
    assert_eq!((row.address_check.as_deref(), row.three_ds_eci.as_deref()), (Some("unchecked"), Some("07")));
    assert_eq!(
        (row.three_ds_result.as_deref(), row.three_ds_exemption.as_deref()),
        (Some("exempted"), Some("low_risk"))
    );
}

/// Two declined cards, told out of their order, a challenge that failed between them, and the charge that paid.
#[test]
fn attempts_are_numbered_in_the_order_of_their_times() {
    let charge = |id: &str, created: i64, status: &str| {
        let object = json!({"id": id, "object": "charge", "amount": 500, "currency": "eur", "status": status, "paid": status == "succeeded",
            "payment_intent": "pi_1", "created": created});
        event(&format!("evt_{id}"), &format!("charge.{status}"), created, json!({"object": object}))
    };
    let mut challenge = event(
        "evt_3ds",
        "payment_intent.payment_failed",
        1_700_000_200,
        json!({"object": {"id": "pi_1", "object": "payment_intent", "amount": 500, "currency": "eur", "created": 1_700_000_000,
            "status": "requires_payment_method",
            "last_payment_error": {"type": "invalid_request_error", "code": "payment_intent_authentication_failure"}}}),
    );
    challenge["request"] = json!({"id": "req_1"});
    let events = [
        charge("ch_b", 1_700_000_300, "failed"),
        challenge,
        charge("ch_a", 1_700_000_100, "failed"),
        charge("ch_c", 1_700_000_400, "succeeded"),
    ];
    let numbers = |rows: &[Row]| -> Vec<(String, Option<i64>)> {
        let attempts = rows.iter().filter_map(|row| match row {
            Row::PaymentAttempt(row) => Some((row.attempt_id.clone(), row.attempt_no)),
            _ => None,
        });
        let mut attempts: Vec<_> = attempts.collect();
        attempts.sort();
        attempts
    };
    let named =
        |ids: [&str; 4], nos: [i64; 4]| ids.map(str::to_owned).into_iter().zip(nos.map(Some)).collect::<Vec<_>>();
    assert_eq!(numbers(&in_any_order(&events)), named(["ch_a", "ch_b", "ch_c", "pi_1:req_1"], [1, 3, 4, 2]));
    assert_eq!(numbers(&all(&events[..1])), [("ch_b".to_owned(), Some(1))], "an only one is the first");
    // The intent itself, fetched long after, names the charge that paid it, and not when that was.
    let fetched = event(
        "fetched:pi_1",
        "payment_intent.fetched",
        1_700_900_000,
        json!({"object": {"id": "pi_1", "object": "payment_intent", "amount": 500, "currency": "eur", "created": 1_700_000_000,
            "status": "succeeded", "latest_charge": "ch_c"}}),
    );
    let with_fetched = [events[0].clone(), fetched, events[2].clone(), events[3].clone()];
    let rows = in_any_order(&with_fetched);
    assert_eq!(
        numbers(&rows),
        [("ch_a".to_owned(), Some(1)), ("ch_b".to_owned(), Some(2)), ("ch_c".to_owned(), Some(3))]
    );
    assert_eq!(only!(rows, PaymentIntent).latest_attempt_id.as_deref(), Some("ch_c"));
    let fetched_alone = only!(in_any_order(&with_fetched[1..2]), PaymentIntent);
    assert_eq!(fetched_alone.first_attempt_at, Some(seconds(1_700_000_000)), "no earlier than the intent");
    assert_eq!(fetched_alone.succeeded_at, Some(seconds(1_700_000_000)));
    // Of one second, with ids in the other order: what failed was before what paid.
    let of_one_second =
        [charge("ch_z", 1_700_000_100, "failed"), charge("ch_m", 1_700_000_100, "succeeded"), events[0].clone()];
    let rows = in_any_order(&of_one_second[..2]);
    assert_eq!(numbers(&rows), [("ch_m".to_owned(), Some(2)), ("ch_z".to_owned(), Some(1))]);
    let later = in_any_order(&of_one_second);
    assert_eq!(numbers(&later)[0], ("ch_b".to_owned(), Some(3)));
    let mut alone = charge("ch_d", 1_700_000_100, "failed");
    alone["data"]["object"]["payment_intent"] = Value::Null;
    assert_eq!(numbers(&all(&[alone])), [("ch_d".to_owned(), None)], "of no intent");
}

/// One more attempt changes none of the thousand that a card tester made before.
#[test]
fn an_intent_tells_attempts_what_they_have_not_heard() {
    let mut intent: Option<ObjectState> = None;
    let told = [100, 200, 300, 250].map(|second| {
        let charge = json!({"id": format!("ch_{second}"), "object": "charge", "amount": 500, "currency": "eur",
            "status": "failed", "payment_intent": "pi_1", "created": 1_700_000_000 + second});
        let failed = event("evt", "charge.failed", 1_700_000_000 + second, json!({"object": charge}));
        let observations = decode(&failed).observations;
        let of_intent = observations.into_iter().find(|o| o.key().table == Table::PaymentIntents).unwrap();
        let intent = intent.get_or_insert_with(|| ObjectState::new(of_intent.key().clone()));
        let echoes = intent.admit_and_tell(of_intent, Offset(second as u64)).unwrap();
        echoes.iter().map(|echo| echo.key().id.clone()).collect::<Vec<_>>()
    });
    let [first, second, third, between] = told.map(|ids| ids.join(" "));
    assert_eq!((first.as_str(), second.as_str()), ("", "ch_100 ch_200"), "an only one is the first");
    assert_eq!((third.as_str(), between.as_str()), ("ch_300", "ch_250 ch_300"));
}

#[test]
fn a_row_names_the_connected_account_of_its_events() {
    let mut told = event(
        "evt_1",
        "charge.succeeded",
        1_700_000_100,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 500, "currency": "eur", "status": "succeeded", "paid": true}}),
    );
    let account = |told: &Value| {
        let state = fold([told]).into_values().find(|state| state.key().table == Table::Charges).unwrap();
        let row = Stamped {
            row: state.row().unwrap(),
            account: state.account().map(str::to_owned),
            livemode: true,
            offset: Offset(0),
        };
        let batch = batch(Table::Charges, "m", &[row]).unwrap();
        let column = batch.column_by_name("source_account").unwrap().as_string::<i32>().clone();
        column.iter().next().flatten().map(str::to_owned)
    };
    assert_eq!(account(&told), None);
    told["account"] = json!("acct_7");
    assert_eq!(account(&told).as_deref(), Some("acct_7"));
}

#[test]
fn who_pays_within_a_session_is_there() {
    let charge = event(
        "evt_1",
        "charge.succeeded",
        1_700_000_100,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 500, "currency": "eur", "status": "succeeded", "paid": true,
            "payment_intent": "pi_1", "created": 1_700_000_100}}),
    );
    let session = event(
        "evt_2",
        "checkout.session.completed",
        1_700_000_101,
        json!({"object": {"id": "cs_1", "object": "checkout.session", "payment_intent": "pi_1", "amount_total": 500,
            "currency": "eur", "status": "complete", "payment_status": "paid", "created": 1_700_000_000}}),
    );
    assert_eq!(only!(all(std::slice::from_ref(&charge)), PaymentAttempt).is_off_session, None);
    assert_eq!(only!(in_any_order(&[charge, session]), PaymentAttempt).is_off_session, Some(false));
}

#[test]
fn whether_the_customer_was_there_is_told_where_it_is_known() {
    let card = || json!({"type": "card", "card": {"brand": "visa"}});
    let nobody = json!({"id": null, "idempotency_key": null});
    assert_eq!(attempt_by(card(), nobody.clone()).is_off_session, Some(true));
    // A request may be the browser's or the shop's own; events of before 2017 do not say.
    assert_eq!(attempt_by(card(), json!({"id": "req_1"})).is_off_session, None);
    assert_eq!(attempt_by(card(), Value::Null).is_off_session, None);
    let challenged = json!({"type": "card", "card": {"three_d_secure": {"authentication_flow": "challenge", "result": "authenticated"}}});
    assert_eq!(attempt_by(challenged, nobody).is_off_session, Some(false));
    // An answer that comes after days, or another event of the charge, says nothing of the try.
    let told = |kind: &str, at: i64| {
        let mut event = event(
            "evt_1",
            kind,
            at,
            json!({"object": {"id": "py_1", "object": "charge", "amount": 500, "currency": "eur", "status": "succeeded",
                "created": 1_700_000_000, "payment_method_details": {"type": "sepa_debit"}}}),
        );
        event["request"] = json!({"id": null});
        only!(all(&[event]), PaymentAttempt).is_off_session
    };
    assert_eq!((told("charge.succeeded", 1_700_400_000), told("charge.updated", 1_700_000_001)), (None, None));
}
