//! What subscriptions bring, as a reader sees it: intervals, movements, and discounts that events only name.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    core_tables::{WithRows, answers, stamped},
    facts::loaded,
};
use crate::{
    base::{Offset, Source},
    engine::{Limits, SessionOptions},
    facts::{Row, Stamped, Table, rows},
    synth::Shop,
    tests::{
        cases,
        engine::{Memory, csv, engine, options},
    },
};

/// What a subscription was at a moment, in seconds.
fn state(subscription: &str, customer: &str, at: i64, status: &str, mrr: i64) -> Stamped {
    stamped::<rows::SubscriptionState>(
        1,
        json!({
            "subscription_state_id": format!("{subscription}:{at}"), "subscription_id": subscription,
            "at": at * 1_000_000, "created_at": 0, "status": status, "customer_id": customer, "currency": "usd",
            "mrr_micros": mrr, "items": "[]", "cancel_at_period_end": false, "order_ambiguous": false,
        }),
    )
}

const DAY: i64 = 86_400;

/// A month's price of 10.00 less what the discounts take off.
fn discounted(at: i64, of_item: &[&str], of_all: &[&str]) -> Stamped {
    let named = |ids: &[&str]| json!(ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>());
    let items = json!([{"id": "si_1", "quantity": 1, "interval": "month", "interval_count": 1, "unit_amount": 1000,
        "discounts": named(of_item)}]);
    let mut state = state("sub_1", "cus_1", at, "active", 0);
    if let Row::SubscriptionState(row) = &mut state.row {
        row.mrr_micros = None;
        row.items = items.to_string();
        row.discounts = Some(named(of_all).to_string());
    }
    state
}

/// The same at a price of which events say no more than its name.
fn in_tiers(mut state: Stamped) -> Stamped {
    if let Row::SubscriptionState(row) = &mut state.row {
        row.items = row.items.replace("\"unit_amount\":1000", "\"price_id\":\"price_tiered\"");
    }
    state
}

#[tokio::test]
async fn discounts_that_are_only_named_lower_what_every_moment_brought() {
    let coupon = |id: &str, fields: Value| {
        let mut row = json!({"coupon_id": id, "order_ambiguous": false});
        row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        stamped::<rows::Coupon>(1, row)
    };
    let discount = |id: &str, coupon: &str, ends_at: Value| {
        stamped::<rows::Discount>(
            1,
            json!({"discount_id": id, "coupon_id": coupon, "ends_at": ends_at, "order_ambiguous": false}),
        )
    };
    let coupons = vec![
        coupon("THIRD", json!({"percent_off": 33.3, "duration": "forever"})),
        coupon("OFF3", json!({"amount_off": 300, "currency": "usd", "duration": "repeating"})),
        coupon("ONCE", json!({"percent_off": 100.0, "duration": "once"})),
        coupon("YEN", json!({"amount_off": 300, "currency": "jpy", "duration": "forever"})),
        coupon("EMPTY", json!({"duration": "forever"})),
    ];
    let discounts = vec![
        discount("di_third", "THIRD", Value::Null),
        discount("di_off", "OFF3", json!(3 * DAY * 1_000_000)),
        discount("di_once", "ONCE", Value::Null),
        discount("di_lost", "NOBODY_KNOWS", Value::Null),
        discount("di_yen", "YEN", Value::Null),
        discount("di_empty", "EMPTY", Value::Null),
    ];
    let states = vec![
        discounted(DAY, &[], &["di_third"]),
        discounted(2 * DAY, &["di_third"], &["di_off", "di_once"]),
        discounted(4 * DAY, &["di_third"], &["di_off"]),
        discounted(5 * DAY, &[], &["di_third", "di_lost"]),
        discounted(6 * DAY, &["di_9"], &[]),
        discounted(7 * DAY, &["di_yen"], &["di_empty"]),
        in_tiers(discounted(8 * DAY, &["di_third"], &[])),
        in_tiers(discounted(9 * DAY, &[], &[])),
    ];
    let tables = Memory::default()
        .with_rows("core.subscription_states", Table::SubscriptionStates, states)
        .with_rows("core.coupons", Table::Coupons, coupons)
        .with_rows("core.discounts", Table::Discounts, discounts);
    answers(
        tables,
        &[
            (
                "SELECT mrr_micros, mrr_is_known FROM core.subscription_states ORDER BY at",
                "6670000,true 3670000,true 6670000,true 6670000,false 10000000,false 10000000,false 0,false 0,false",
            ),
            (
                "SELECT mrr_micros, mrr_is_known FROM core.subscription_intervals ORDER BY valid_from",
                "6670000,true 3670000,true 6670000,true 6670000,false 10000000,false 10000000,false 0,false 0,false",
            ),
            (
                "SELECT kind, amount_micros, mrr_is_known FROM core.mrr_movements ORDER BY date",
                "new,6670000,true contraction,3000000,true expansion,3000000,true expansion,3330000,false churn,10000000,false",
            ),
            (
                "SELECT subscription_state_id FROM core.subscription_states WHERE at > to_timestamp(600000)
                 AND at < to_timestamp(650000)",
                "sub_1:604800",
            ),
        ],
    )
    .await;
}

/// What a shop's subscriptions brought at every moment, told by an account of which so many eighths were of the old version.
async fn brought(old_eighths: u32) -> String {
    let shop =
        Shop { customers: 1_000, days: 60, seed: 3, sources: vec![Source::Stripe], old_eighths, ..Shop::default() };
    let events: Vec<Value> = shop.generate().map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect();
    let mut rows: BTreeMap<Table, Vec<Stamped>> = BTreeMap::new();
    for (key, row) in loaded(&events) {
        let stamped = Stamped { row, account: None, livemode: key.livemode, offset: Offset(0) };
        rows.entry(key.table).or_default().push(stamped);
    }
    let mut tables = Memory::default();
    for table in [Table::SubscriptionStates, Table::Subscriptions, Table::Coupons, Table::Discounts] {
        tables = tables.with_rows(table.name(), table, rows.remove(&table).unwrap());
    }
    let (engine, _dir) = engine();
    let session = engine.session(SessionOptions { tables: Arc::new(tables), ..options(Limits::default()) }).unwrap();
    csv(
        &session,
        "SELECT subscription_state_id AS id, mrr_micros, mrr_is_known, CASE WHEN mrr_micros > 0 THEN discounts END AS off
         FROM core.subscription_states
         UNION ALL
         SELECT subscription_id AS id, mrr_micros, mrr_is_known, CASE WHEN mrr_micros > 0 THEN discounts END AS off
         FROM core.subscriptions
         ORDER BY id",
    )
    .await
}

#[tokio::test]
async fn a_discount_lowers_the_same_in_any_version() {
    let new = brought(0).await;
    let discounted = new.lines().filter(|line| line.contains("CLUB15")).count();
    let all = new.lines().count();
    assert!(discounted > 10 && all > discounted + 10 && !new.contains("false"), "{discounted} of {all}: {new}");
    for eighths in [8, 5] {
        assert_eq!(brought(eighths).await, new, "{eighths} eighths");
    }
}

#[tokio::test]
async fn intervals_begin_where_something_changed_and_end_with_the_subscription() {
    let states = vec![
        state("sub_1", "cus_1", 60, "active", 10),
        // Told again, with nothing new.
        state("sub_1", "cus_1", 2 * DAY, "active", 10),
        state("sub_1", "cus_1", 3 * DAY, "active", 25),
        state("sub_1", "cus_1", 4 * DAY, "canceled", 0),
        state("sub_1", "cus_1", 5 * DAY, "active", 25),
    ];
    let tables = Memory::default().with_rows("core.subscription_states", Table::SubscriptionStates, states);
    answers(
        tables,
        &[(
            "SELECT status, mrr_micros, valid_from, valid_to FROM core.subscription_intervals ORDER BY valid_from",
            "active,10,1970-01-01T00:00:00Z,1970-01-04T00:00:00Z active,25,1970-01-04T00:00:00Z,1970-01-05T00:00:00Z \
             canceled,0,1970-01-05T00:00:00Z,",
        )],
    )
    .await;
}

#[tokio::test]
async fn movements_have_the_name_of_what_changed() {
    let states = vec![
        state("sub_1", "cus_1", DAY, "active", 10),
        state("sub_1", "cus_1", 2 * DAY, "active", 25),
        // A second subscription is an expansion of the customer; within the day it came and went.
        state("sub_2", "cus_1", 3 * DAY + 5, "active", 7),
        state("sub_2", "cus_1", 3 * DAY + 9, "canceled", 0),
        state("sub_1", "cus_1", 4 * DAY, "active", 5),
        state("sub_1", "cus_1", 5 * DAY, "unpaid", 0),
        state("sub_1", "cus_1", 9 * DAY, "active", 5),
    ];
    let states = states.into_iter().map(|mut one| {
        if let Row::SubscriptionState(row) = &mut one.row {
            row.created_at = None;
        }
        one
    });
    let tables = Memory::default().with_rows("core.subscription_states", Table::SubscriptionStates, states.collect());
    answers(
        tables,
        &[(
            "SELECT date, kind, amount_micros, mrr_after_micros FROM core.mrr_movements ORDER BY date",
            "1970-01-02,new,10,10 1970-01-03,expansion,15,25 1970-01-05,contraction,20,5 1970-01-06,churn,5,0 \
             1970-01-10,reactivation,5,5",
        )],
    )
    .await;
}

proptest! {
    #![proptest_config(cases(24))]

    /// At any day's end: what all bring is what came in by movements less what went.
    #[test]
    fn movements_add_up_to_what_subscriptions_bring_on_every_day(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(movements_add_up(seed));
    }
}

async fn movements_add_up(seed: u64) {
    let mut dice = seed;
    let mut roll = |n: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % n
    };
    let mut states = Vec::new();
    let mut brings: Vec<Vec<(i64, i64)>> = Vec::new();
    for n in 0..40 {
        let (customer, mut at, mut told) = (format!("cus_{}", n % 17), 0i64, Vec::new());
        for _ in 0..=roll(6) {
            at += 1 + roll(3 * DAY as u64) as i64;
            let mrr = [0, 1, 333_333, 10_000_000][roll(4) as usize];
            states.push(state(&format!("sub_{n}"), &customer, at, if mrr == 0 { "unpaid" } else { "active" }, mrr));
            told.push((if told.is_empty() { 0 } else { at }, mrr));
        }
        brings.push(told);
    }
    let by_states = |day: i64| -> i64 {
        let at = |told: &Vec<(i64, i64)>| told.iter().rev().find(|(at, _)| *at < day * DAY).map_or(0, |(_, mrr)| *mrr);
        brings.iter().map(at).sum()
    };
    let (engine, _dir) = engine();
    let tables = Memory::default().with_rows("core.subscription_states", Table::SubscriptionStates, states);
    let session = engine.session(SessionOptions { tables: Arc::new(tables), ..options(Limits::default()) }).unwrap();
    let moved = csv(
        &session,
        "SELECT CAST(date_part('epoch', date) AS BIGINT) AS day, sum(CASE WHEN kind IN ('contraction', 'churn')
             THEN -amount_micros ELSE amount_micros END) AS moved
         FROM core.mrr_movements GROUP BY date ORDER BY date",
    )
    .await;
    let moved: Vec<(i64, i64)> = moved
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').unwrap())
        .map(|(day, moved)| (day.parse::<i64>().unwrap() / DAY, moved.parse().unwrap()))
        .collect();
    assert!(moved.len() > 5);
    for day in 0..20 {
        let sum: i64 = moved.iter().filter(|(moved_on, _)| *moved_on < day).map(|(_, moved)| moved).sum();
        assert_eq!(sum, by_states(day), "at the end of the days before {day}");
    }
}
