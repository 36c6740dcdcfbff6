//! One history, rendered as the API's versions of different years would tell it, gives the same facts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{event, fixture, fold, loaded, rows};
use crate::{
    facts::{ObjectKey, Row, Table},
    tests::facts::only,
};

fn rendered(name: &str) -> BTreeMap<ObjectKey, Row> {
    loaded(&fixture(name))
}

#[test]
fn acacia_and_basil_tell_one_history() {
    let (acacia, basil) = (rendered("club_acacia.ndjson"), rendered("club_basil.ndjson"));
    assert_eq!(acacia.keys().collect::<Vec<_>>(), basil.keys().collect::<Vec<_>>());
    for (key, row) in &acacia {
        assert_eq!(row, &basil[key], "{key:?}");
    }
    // What the two versions put elsewhere is there.
    let of = |table| acacia.iter().filter(move |(key, _)| key.table == table).map(|(_, row)| row);
    for row in of(Table::Charges).chain(of(Table::PaymentAttempts)).chain(of(Table::PaymentIntents)) {
        let invoice = match row {
            Row::Charge(row) => &row.invoice_id,
            Row::PaymentAttempt(row) => &row.invoice_id,
            Row::PaymentIntent(row) => &row.invoice_id,
            other => panic!("{other:?}"),
        };
        assert!(invoice.is_some(), "{row:?}");
    }
    let all: Vec<Row> = acacia.into_values().collect();
    let subscription = only!(all, Subscription);
    assert_eq!((subscription.mrr_micros, subscription.current_period_end.is_some()), (0, true));
    let paid = all.iter().filter(|row| matches!(row, Row::InvoicePayment(p) if p.amount_paid == Some(2856))).count();
    assert_eq!(paid, 2);
}

#[test]
fn an_account_that_was_upgraded_half_way_through_tells_it_too() {
    let (acacia, basil) = (fixture("club_acacia.ndjson"), fixture("club_basil.ndjson"));
    let whole = rendered("club_basil.ndjson");
    let is_first = |event: &&Value| event["created"].as_i64() < Some(1_741_000_000);
    let first: Vec<&Value> = acacia.iter().filter(is_first).collect();
    let second: Vec<&Value> = basil.iter().filter(|event| !is_first(event)).collect();
    assert!(!first.is_empty() && !second.is_empty());
    assert_eq!(loaded(first.into_iter().chain(second)), whole);
}

#[test]
fn no_order_of_a_history_changes_what_it_comes_to() {
    let events = fixture("club_basil.ndjson");
    let straight = rendered("club_basil.ndjson");
    for turn in 1..events.len() {
        let mut turned: Vec<&Value> = events.iter().collect();
        turned.rotate_left(turn);
        assert_eq!(loaded(turned.iter().copied()), straight, "{turn}");
        turned.reverse();
        assert_eq!(loaded(turned), straight, "{turn} backwards");
    }
}

/// The same subscription as the years told it.
#[test]
fn a_subscription_of_2017_is_one_of_today() {
    let of = |fields: Value| {
        let mut object = json!({"id": "sub_1", "object": "subscription", "created": 1_500_000_000, "customer": "cus_1",
            "status": "active", "cancel_at_period_end": false});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let event = event("evt_1", "customer.subscription.updated", 1_500_000_100, json!({"object": object}));
        let found: Vec<Row> = rows(&fold([&event])).into_values().collect();
        only!(found, Subscription)
    };
    let plan = json!({"id": "plan_1", "amount": 900, "currency": "usd", "interval": "year", "interval_count": 1});
    let old = of(json!({"billing": "charge_automatically", "current_period_start": 1_500_000_000,
        "current_period_end": 1_531_536_000, "items": {"data": [{"id": "si_1", "plan": plan, "quantity": 4}]},
        "discount": {"coupon": {"id": "TEN", "percent_off": 10, "duration": "forever"}}}));
    let new = of(json!({"collection_method": "charge_automatically", "currency": "usd",
        "items": {"data": [{"id": "si_1", "quantity": 4, "current_period_start": 1_500_000_000,
            "current_period_end": 1_531_536_000, "price": {"id": "plan_1", "currency": "usd", "unit_amount": 900,
                "recurring": {"interval": "year", "interval_count": 1, "usage_type": "licensed"}}}]},
        "discounts": [{"source": {"coupon": {"id": "TEN", "percent_off": 10, "duration": "forever"}}}]}));
    assert_eq!(old, new);
    assert_eq!(old.mrr_micros, 2_700_000);
}
