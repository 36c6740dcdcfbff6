//! Disputes, payouts, the balance, warnings and reviews: the rows that one would write by hand.

use serde_json::{Value, json};

use super::{decode, event, fold, in_any_order, rows, seconds};
use crate::{
    facts::{Row, rows},
    tests::facts::only,
};

fn all(events: &[Value]) -> Vec<Row> {
    rows(&fold(events)).into_values().collect()
}

fn moved(id: &str, amount: i64, fee: i64) -> Value {
    json!({"id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee, "currency": "eur",
        "created": 1_700_000_100, "available_on": 1_700_600_000, "status": "available", "type": "adjustment",
        "reporting_category": if amount < 0 { "dispute" } else { "dispute_reversal" }, "source": "dp_1",
        "exchange_rate": 0.9, "fee_details": [{"type": "stripe_fee", "amount": fee, "currency": "eur"}]})
}

fn dispute(id: &str, kind: &str, at: i64, status: &str, movements: &[Value]) -> Value {
    let object = json!({"id": "dp_1", "object": "dispute", "amount": 5000, "currency": "usd", "charge": "ch_1",
        "payment_intent": "pi_1", "created": 1_700_000_100, "status": status, "reason": "fraudulent",
        "is_charge_refundable": false, "balance_transactions": movements,
        "evidence_details": {"due_by": 1_700_700_000, "submission_count": 0},
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "network_reason_code": "10.4"}}});
    event(id, &format!("charge.dispute.{kind}"), at, json!({"object": object}))
}

fn life_of_a_dispute() -> Vec<Value> {
    let (gone, back) = (moved("txn_1", -4500, 1500), moved("txn_2", 4500, 0));
    vec![
        dispute("evt_1", "created", 1_700_000_100, "needs_response", &[]),
        dispute("evt_2", "funds_withdrawn", 1_700_000_100, "needs_response", std::slice::from_ref(&gone)),
        dispute("evt_3", "updated", 1_700_100_000, "under_review", std::slice::from_ref(&gone)),
        dispute("evt_4", "closed", 1_701_000_000, "won", std::slice::from_ref(&gone)),
        dispute("evt_5", "funds_reinstated", 1_701_000_000, "won", &[gone, back]),
    ]
}

#[test]
fn a_dispute_is_what_it_took_and_gave_back() {
    let found = in_any_order(&life_of_a_dispute());
    let row = only!(found, Dispute);
    assert_eq!((row.status.as_str(), row.is_inquiry, row.order_ambiguous), ("won", false, false));
    assert_eq!((row.withdrawn, row.reinstated, row.fee), (Some(4500), Some(4500), Some(1500)));
    assert_eq!(row.settlement_currency.map(String::from).as_deref(), Some("eur"));
    assert_eq!((row.withdrawn_at, row.reinstated_at), (Some(seconds(1_700_000_100)), Some(seconds(1_701_000_000))));
    assert_eq!((row.closed_at, row.due_by), (Some(seconds(1_701_000_000)), Some(seconds(1_700_700_000))));
    assert_eq!((row.network_reason_code.as_deref(), row.card_brand.as_deref()), (Some("10.4"), Some("visa")));
    // The movements that it lists are rows of the balance.
    let moves: Vec<_> = found
        .iter()
        .filter_map(|row| match row {
            Row::BalanceTransaction(row) => Some((row.balance_transaction_id.as_str(), row.amount, row.net)),
            _ => None,
        })
        .collect();
    assert_eq!(moves, [("txn_1", -4500, -6000), ("txn_2", 4500, 4500)]);
}

#[test]
fn what_is_decided_stays_decided_but_what_is_lost_can_be_won() {
    let of = |id: &str, kind: &str, at: i64, status: &str| dispute(id, kind, at, status, &[]);
    let status = |events: &[Value]| only!(in_any_order(events), Dispute).status;
    // It was lost from the start, and that was told after it was told as closed.
    let lost = of("evt_1", "created", 1_700_000_100, "lost");
    let closed = of("evt_2", "closed", 1_700_000_090, "lost");
    assert_eq!(status(&[lost.clone(), closed.clone()]), "lost");
    assert_eq!(only!(all(&[lost.clone(), closed]), Dispute).closed_at, Some(seconds(1_700_000_090)));
    let late = of("evt_3", "updated", 1_700_000_200, "under_review");
    assert_eq!(status(&[lost.clone(), late.clone()]), "lost");
    let won = of("evt_4", "closed", 1_709_000_000, "won");
    assert_eq!(status(&[lost.clone(), late, won.clone()]), "won");
    let lost_again = of("evt_5", "updated", 1_709_000_100, "lost");
    assert_eq!(status(&[won, lost_again]), "won");
    // An inquiry that was closed can still become a dispute.
    let inquiry = of("evt_6", "closed", 1_700_000_300, "warning_closed");
    assert!(only!(all(std::slice::from_ref(&inquiry)), Dispute).is_inquiry);
    assert_eq!(status(&[inquiry, of("evt_7", "updated", 1_700_000_400, "needs_response")]), "needs_response");
}

#[test]
fn a_dispute_of_the_years_without_ids_is_its_charges() {
    let object = json!({"charge": "ch_1", "amount": 1000, "created": 1_381_080_226, "status": "under_review",
        "currency": "usd", "object": "dispute", "reason": "general", "evidence_due_by": 1_382_745_599});
    let row =
        only!(all(&[event("evt_1", "charge.dispute.updated", 1_381_080_300, json!({"object": object}))]), Dispute);
    assert_eq!((row.dispute_id.as_str(), row.due_by), ("ch_1:dispute", Some(seconds(1_382_745_599))));
    // Nothing is said of money, which is not to say that none moved.
    assert_eq!((row.withdrawn, row.fee, row.settlement_currency), (None, None, None));
}

fn payout(id: &str, kind: &str, at: i64, status: &str) -> Value {
    let failed = status == "failed";
    let object = json!({"id": "po_1", "object": "payout", "amount": 9000, "currency": "usd", "created": 1_700_000_000,
        "arrival_date": 1_700_172_800, "automatic": true, "status": status, "method": "standard", "destination": "ba_1",
        "balance_transaction": "txn_po", "failure_code": if failed { json!("account_closed") } else { Value::Null },
        "failure_balance_transaction": if failed { json!("txn_pof") } else { Value::Null }});
    event(id, kind, at, json!({"object": object}))
}

#[test]
fn a_payout_that_came_back_has_failed_though_it_was_paid() {
    let events = [
        payout("evt_1", "payout.created", 1_700_000_000, "pending"),
        payout("evt_2", "payout.paid", 1_700_172_800, "paid"),
        payout("evt_3", "payout.failed", 1_700_400_000, "failed"),
        payout("evt_4", "payout.updated", 1_700_500_000, "paid"),
    ];
    let row = only!(in_any_order(&events), Payout);
    assert_eq!(
        (row.status.as_str(), row.amount, row.failure_code.as_deref()),
        ("failed", 9000, Some("account_closed"))
    );
    assert_eq!((row.paid_at, row.failed_at), (Some(seconds(1_700_172_800)), Some(seconds(1_700_400_000))));
    assert_eq!(row.failure_balance_transaction_id.as_deref(), Some("txn_pof"));
}

fn settled(source: &str, kind: &str, amount: i64, fee: i64) -> Value {
    let object = json!({"id": format!("txn_{source}"), "object": "balance_transaction", "amount": amount, "fee": fee,
        "net": amount - fee, "currency": "eur", "created": 1_700_000_000, "available_on": 1_700_600_000,
        "status": "pending", "type": kind, "reporting_category": kind, "source": source, "exchange_rate": 0.9,
        "fee_details": [{"type": "stripe_fee", "amount": fee, "currency": "eur", "description": "Stripe fees"}]});
    event(&format!("fetched:{source}"), "balance_transaction.fetched", 1_700_100_000, json!({"object": object}))
}

#[test]
fn a_charge_knows_what_it_came_to_once_its_transaction_is_known() {
    let charge = event(
        "evt_1",
        "charge.succeeded",
        1_700_000_000,
        json!({"object": {"id": "ch_1", "object": "charge", "amount": 1000, "currency": "usd", "captured": true,
            "status": "succeeded", "created": 1_700_000_000, "balance_transaction": null}}),
    );
    let found = in_any_order(&[settled("ch_1", "charge", 900, 56), charge]);
    let row = only!(found, Charge);
    assert_eq!((row.fee, row.net, row.exchange_rate), (Some(56), Some(844), Some(0.9)));
    assert_eq!(row.balance_transaction_id.as_deref(), Some("txn_ch_1"));
    assert_eq!(row.settlement_currency.map(String::from).as_deref(), Some("eur"));
    let movement = only!(found, BalanceTransaction);
    assert_eq!((movement.source_id.as_deref(), movement.payout_id), (Some("ch_1"), None));
    assert_eq!(
        movement.fee_details.as_deref(),
        Some(r#"[{"amount":56,"currency":"eur","description":"Stripe fees","type":"stripe_fee"}]"#)
    );
}

#[test]
fn a_movement_is_of_the_payout_that_it_was_listed_with() {
    let mut listed = settled("ch_1", "charge", 900, 56);
    (listed["id"], listed["payout"]) = (json!("fetched:ch_1:po_1"), json!("po_1"));
    let found = in_any_order(&[settled("ch_1", "charge", 900, 56), listed]);
    assert_eq!(only!(found, BalanceTransaction).payout_id.as_deref(), Some("po_1"));
}

#[test]
fn what_a_payout_pays_out_is_wanted_once_it_is_reconciled() {
    let wanted = |status: &str, reconciliation: Value, automatic: bool| {
        let mut event = payout("evt_1", "payout.updated", 1_700_172_800, status);
        event["data"]["object"]["reconciliation_status"] = reconciliation;
        event["data"]["object"]["automatic"] = json!(automatic);
        let wanted = decode(&event).wanted;
        wanted.first().and_then(|want| want.asked_for().map(|(what, id)| format!("{what} {id}")))
    };
    let list = Some("payout.balance_transactions po_1".to_owned());
    assert_eq!(wanted("paid", json!("completed"), true), list);
    assert_eq!(wanted("paid", Value::Null, true), list, "of a version that does not say");
    assert_eq!(wanted("paid", json!("in_progress"), true), None);
    assert_eq!(wanted("in_transit", Value::Null, true), None);
    assert_eq!(wanted("paid", json!("completed"), false), None, "Stripe does not know");
    // Once the list was read to its end, no later event of the payout's makes it wanted.
    let made = payout("evt_1", "payout.paid", 1_700_172_800, "paid");
    let listed =
        event("listed:po_1", "payout.listed", 1_700_172_900, json!({"object": {"id": "po_1", "object": "payout"}}));
    let want = decode(&payout("evt_2", "payout.updated", 1_700_400_000, "paid")).wanted.remove(0);
    let is_met =
        |events: &[Value]| fold(events).into_values().any(|state| *state.key() == want.key && state.meets(&want));
    assert_eq!((is_met(std::slice::from_ref(&made)), is_met(&[listed, made])), (false, true));
}

#[test]
fn only_a_payouts_own_movement_names_a_payout() {
    let found = all(&[settled("po_1", "payout", -9000, 0)]);
    assert_eq!(only!(found, BalanceTransaction).payout_id.as_deref(), Some("po_1"));
    // It is no charge's: none gets a fee of it.
    assert_eq!(found.len(), 1);
}

#[test]
fn a_movement_that_is_no_amount_is_refused_with_its_field() {
    let mut wrong = settled("ch_1", "charge", 900, 56);
    wrong["data"]["object"]["fee"] = json!(0.5);
    let error = super::decoder().decode(&super::stripe_envelope(&wrong)).unwrap_err().to_string();
    assert!(error.contains("balance_transaction.fee is 0.5"), "{error}");
    // Sums that cannot be held are refused, not wrapped.
    let much = [moved("txn_1", -i64::MAX, 0), moved("txn_2", -i64::MAX, 0)];
    let wrong = dispute("evt_1", "updated", 1_700_000_100, "needs_response", &much);
    let error = super::decoder().decode(&super::stripe_envelope(&wrong)).unwrap_err().to_string();
    assert!(error.contains("withdrawn"), "{error}");
}

#[test]
fn a_warning_is_acted_on_once() {
    let of = |id: &str, kind: &str, at: i64, actionable: bool| {
        let object = json!({"id": "issfr_1", "object": "radar.early_fraud_warning", "actionable": actionable,
            "charge": "ch_1", "payment_intent": "pi_1", "created": 1_700_000_000, "fraud_type": "misc"});
        event(id, &format!("radar.early_fraud_warning.{kind}"), at, json!({"object": object}))
    };
    let row = only!(
        in_any_order(&[of("evt_1", "created", 1_700_000_000, true), of("evt_2", "updated", 1_700_000_000, false)]),
        EarlyFraudWarning
    );
    let wanted = rows::EarlyFraudWarning {
        early_fraud_warning_id: "issfr_1".to_owned(),
        charge_id: Some("ch_1".to_owned()),
        payment_intent_id: Some("pi_1".to_owned()),
        created_at: Some(seconds(1_700_000_000)),
        fraud_type: Some("misc".to_owned()),
        actionable: false,
        order_ambiguous: false,
    };
    assert_eq!(row, wanted);
}

#[test]
fn a_review_that_was_closed_stays_closed() {
    let of = |id: &str, kind: &str, at: i64, open: bool| {
        let object = json!({"id": "prv_1", "object": "review", "charge": "ch_1", "created": 1_700_000_000, "open": open,
            "opened_reason": "rule", "reason": if open { "rule" } else { "approved" },
            "closed_reason": if open { Value::Null } else { json!("approved") }, "ip_address": "192.0.2.1",
            "ip_address_location": {"country": "FR", "city": "Paris"}});
        event(id, kind, at, json!({"object": object}))
    };
    let closed = of("evt_2", "review.closed", 1_700_003_600, false);
    let row = only!(in_any_order(&[of("evt_1", "review.opened", 1_700_000_000, true), closed]), Review);
    assert_eq!(
        (row.open, row.closed_at, row.reason.as_deref()),
        (false, Some(seconds(1_700_003_600)), Some("approved"))
    );
    assert_eq!((row.ip_country.as_deref(), row.ip_hash), (Some("FR"), Some(super::names().hash("ip", "192.0.2.1"))));
}
