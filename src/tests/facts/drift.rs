//! One history, rendered as the API's versions of different years would tell it, gives the same facts.

use std::collections::BTreeMap;

use arrow::util::display::array_value_to_string;
use serde_json::{Value, json};

use super::{event, fixture, fold, loaded, rows};
use crate::{
    base::{Offset, Source},
    facts::{self, ObjectKey, Row, Stamped, Table},
    synth::Shop,
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
    assert_eq!((subscription.mrr_micros, subscription.current_period_end.is_some()), (Some(0), true));
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
    assert_eq!(old.mrr_micros, Some(2_700_000));
}

/// What a shop's life comes to, told by an account of which so many eighths were of the old version: of each object its
/// columns by name, but for those that the old version cannot tell.
fn life(seed: u64, old_eighths: u32) -> BTreeMap<String, BTreeMap<String, String>> {
    let shop = Shop { customers: 60, days: 45, seed, sources: vec![Source::Stripe], old_eighths, ..Shop::default() };
    let events: Vec<Value> = shop.generate().map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect();
    let columns = |(key, row): (ObjectKey, Row)| {
        let stamped = Stamped { row, account: None, livemode: key.livemode, offset: Offset(0) };
        let batch = facts::batch(key.table, "m", &[stamped]).unwrap();
        let text = |i: usize| array_value_to_string(batch.column(i), 0).unwrap();
        let mut columns: BTreeMap<String, String> =
            batch.schema().fields().iter().enumerate().map(|(i, f)| (f.name().clone(), text(i))).collect();
        let mut id = key.id.clone();
        match key.table {
            // What stands for refunds that are not known yet is done with.
            Table::Refunds if columns["status"] == "superseded" => return None,
            // Told with the charge, they have its time; when the invoice's payment was made the invoice does not say.
            Table::Refunds => drop(columns.remove("succeeded_at")),
            Table::InvoicePayments => drop(columns.remove("created_at")),
            // The new version names discounts: what they take off stands in rows of their own, and readers get it from there.
            Table::Subscriptions | Table::SubscriptionStates => {
                columns.remove("discounts");
                columns.remove("mrr_micros");
            }
            // One that made no charge is named after its request, which is another for each way to tell it.
            Table::PaymentAttempts if id.contains(':') => {
                id = format!("{} {}", id.split(':').next().unwrap(), columns["created_at"]);
                columns.remove("attempt_id");
            }
            _ => {}
        }
        Some((format!("{:?} {} {id}", key.table, key.livemode), columns))
    };
    loaded(&events).into_iter().filter_map(columns).collect()
}

#[test]
fn a_shop_tells_its_life_in_any_version() {
    for seed in 1..=3 {
        let new = life(seed, 0);
        assert!(new.len() > 300, "{} objects", new.len());
        for eighths in [8, 5] {
            let old = life(seed, eighths);
            let differ: Vec<_> = new.iter().filter(|(key, row)| old.get(*key) != Some(row)).collect();
            assert!(differ.is_empty(), "seed {seed}, {eighths} eighths: {differ:#?}");
            assert_eq!(old.len(), new.len(), "seed {seed}, {eighths} eighths");
        }
    }
}
