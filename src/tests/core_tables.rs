//! The core as a reader sees it: tables of facts with their changes, people and orders.

use std::sync::Arc;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    base::Offset,
    engine::{Limits, SessionOptions},
    facts::{
        self, Row, Stamped, Table,
        rows::{self, Record},
    },
    tests::{
        cases,
        engine::{Memory, csv, engine, options},
        tables::row,
    },
};

/// One stored row, of the columns that matter; `livemode` is true unless said.
fn stamped<R: Record + DeserializeOwned + Into<Row>>(offset: u64, mut columns: Value) -> Stamped {
    let livemode = columns.as_object_mut().unwrap().remove("livemode").is_none_or(|l| l == true);
    Stamped { row: row::<R>(columns).into(), livemode, offset: Offset(offset) }
}

trait WithRows {
    fn with_rows(self, name: &str, table: Table, rows: Vec<Stamped>) -> Self;
}

impl WithRows for Memory {
    fn with_rows(self, name: &str, table: Table, rows: Vec<Stamped>) -> Memory {
        self.with(name, facts::batch(table, "shop", &rows).unwrap())
    }
}

async fn answers(tables: Memory, queries: &[(&str, &str)]) {
    let (engine, _dir) = engine();
    let options = SessionOptions { tables: Arc::new(tables), ..options(Limits::default()) };
    let session = engine.session(options).unwrap();
    for (sql, expected) in queries {
        let answer = csv(&session, sql).await;
        assert_eq!(answer.lines().skip(1).collect::<Vec<_>>().join(" "), *expected, "{sql}");
    }
}

fn identity(kind: &str, person: &str, first: i64, last: i64, attributes: Value) -> Stamped {
    let mut columns = json!({
        "identity_id": format!("{kind}:{person}"), "kind": kind, "value_hash": person, "person_id": person,
        "first_seen_at": first, "last_seen_at": last,
    });
    columns.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    stamped::<rows::Identity>(1, columns)
}

fn merge(old: &str, new: &str) -> Stamped {
    stamped::<rows::PersonMerge>(1, json!({"old": old, "new": new, "merged_at": 0}))
}

#[tokio::test]
async fn a_person_is_what_linked_identifiers_say_of_them() {
    let identities = vec![
        identity(
            "email",
            "per_a",
            20,
            30,
            json!({"email_hash": "late", "country": "FR", "locale": "fr", "currency": "eur"}),
        ),
        identity("customer", "per_b", 10, 40, json!({"email_hash": "early", "country": "GB"})),
        identity("anonymous", "per_c", 5, 50, json!({"timezone": "Europe/Paris"})),
        identity("anonymous", "per_d", 5, 50, json!({"phone_e164_hash": "phone"})),
        identity("anonymous", "per_a", 1, 2, json!({"country": "US", "livemode": false})),
    ];
    let tables = Memory::default()
        .with_rows("core.identities", Table::Identities, identities)
        .with_rows("core.person_merges", Table::PersonMerges, vec![merge("per_b", "per_a")])
        .with_rows("core.person_merges_changes", Table::PersonMerges, vec![merge("per_c", "per_a")]);
    answers(
        tables,
        &[
            (
                "SELECT person_id, email_hash, country, locale, timezone, first_seen_at, last_seen_at FROM core.people
          WHERE person_id = 'per_a' AND livemode",
                "per_a,early,GB,fr,Europe/Paris,1970-01-01T00:00:00.000005Z,1970-01-01T00:00:00.000050Z",
            ),
            (
                "SELECT person_id, country, currency, livemode FROM core.people ORDER BY 1, 4",
                "per_a,US,usd,false per_a,GB,eur,true per_d,,,true",
            ),
            ("SELECT phone_e164_hash FROM core.people WHERE person_id = 'per_d'", "phone"),
            ("SELECT count(DISTINCT person_id) FROM core.identities WHERE livemode", "2"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_session_ends_with_half_an_hour_of_nothing() {
    const MINUTE: i64 = 60_000_000;
    let page = |id: &str, person: Option<&str>, minute: i64, path: &str| {
        stamped::<rows::PageView>(
            1,
            json!({"event_id": id, "person_id": person, "occurred_at": minute * MINUTE, "path": path,
                "referrer_host": (path == "/b").then_some("search.example"), "source": "storefront"}),
        )
    };
    let cart = |id: &str, person: &str, minute: i64, kind: &str| {
        stamped::<rows::CartEvent>(
            1,
            json!({"event_id": id, "person_id": person, "occurred_at": minute * MINUTE, "kind": kind, "source": "storefront"}),
        )
    };
    let product = stamped::<rows::ProductView>(
        1,
        json!({"event_id": "e2", "person_id": "per_b", "occurred_at": 30 * MINUTE, "source": "storefront"}),
    );
    let pages = vec![
        page("e1", Some("per_a"), 0, "/a"),
        page("e4", Some("per_a"), 90, "/b"),
        page("e5", Some("per_c"), 0, "/c"),
        page("e6", None, 0, "/d"),
    ];
    let carts = vec![
        cart("e3", "per_a", 60, "added"),
        cart("e7", "per_a", 121, "checkout_started"),
        cart("e8", "per_a", 122, "ordered"),
        cart("e9", "per_c", 500, "ordered"),
    ];
    let tables = Memory::default()
        .with_rows("core.page_views", Table::PageViews, pages)
        .with_rows("core.product_views", Table::ProductViews, vec![product])
        .with_rows("core.cart_events", Table::CartEvents, carts)
        .with_rows("core.person_merges", Table::PersonMerges, vec![merge("per_b", "per_a")]);
    answers(
        tables,
        &[
            (
                "SELECT session_id, person_id, date_part('epoch', ended_at - started_at) / 60 AS minutes, page_views,
                    product_views, cart_additions, checkout_started, ordered, landing_path, referrer_host
                FROM core.sessions ORDER BY 1",
                // Half an hour is not too long, a minute more is.
                "e1,per_a,90.0,2,1,1,false,false,/a,search.example e5,per_c,0.0,1,0,0,false,false,/c, \
                 e7,per_a,1.0,0,0,0,true,true,,",
            ),
            ("SELECT count(*) FROM core.sessions WHERE person_id = 'per_a'", "2"),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_order_is_counted_once_however_it_is_known() {
    let intent = |id: &str, status: &str, reference: Option<&str>| {
        stamped::<rows::PaymentIntent>(
            1,
            json!({
                "payment_intent_id": id, "created_at": 1, "succeeded_at": 2, "status": status, "amount": 900,
                "amount_received": if status == "succeeded" { 900 } else { 0 }, "amount_capturable": 0, "currency": "eur",
                "person_id": "per_a", "attempts": 1, "external_ref": reference, "order_ambiguous": false,
            }),
        )
    };
    let charge = |id: &str, intent: Option<&str>, captured: bool| {
        stamped::<rows::Charge>(
            1,
            json!({
                "charge_id": id, "created_at": 3, "status": "succeeded", "amount": 70, "amount_captured": 50,
                "amount_refunded": 0, "currency": "eur", "captured": captured, "refunded": false, "disputed": false,
                "payment_intent_id": intent, "order_ambiguous": false,
            }),
        )
    };
    let imported = |id: &str, reference: Option<&str>| {
        stamped::<rows::ImportedOrder>(
            1,
            json!({
                "order_id": id, "external_ref": reference, "ordered_at": 4, "amount": 10, "currency": "gbp", "lines": 1,
                "quantity": 1, "source": "orders", "order_ambiguous": false,
            }),
        )
    };
    let tables = Memory::default()
        .with_rows(
            "core.payment_intents",
            Table::PaymentIntents,
            vec![
                intent("pi_1", "succeeded", Some("536365")),
                intent("pi_2", "succeeded", None),
                intent("pi_3", "requires_payment_method", Some("536367")),
            ],
        )
        .with_rows(
            "core.payment_intents_changes",
            Table::PaymentIntents,
            vec![intent("pi_4", "canceled", None), Stamped { offset: Offset(9), ..intent("pi_2", "canceled", None) }],
        )
        .with_rows(
            "core.charges",
            Table::Charges,
            vec![charge("ch_1", Some("pi_1"), true), charge("ch_2", None, true), charge("ch_3", None, false)],
        )
        .with_rows(
            "core.imported_orders",
            Table::ImportedOrders,
            vec![
                imported("536365", Some("536365")),
                imported("536366", Some("536366")),
                imported("536367", Some("536367")),
                imported("unreferenced", None),
            ],
        )
        .with_rows("core.person_merges", Table::PersonMerges, vec![merge("per_a", "per_b")]);
    answers(
        tables,
        &[
            (
                "SELECT order_id, amount, source FROM core.orders ORDER BY 1",
                "536366,10,orders 536367,10,orders ch_2,50,stripe pi_1,900,stripe unreferenced,10,orders",
            ),
            (
                "SELECT order_id, person_id, external_ref FROM core.orders WHERE person_id IS NOT NULL",
                "pi_1,per_b,536365",
            ),
            (
                "SELECT status, count(*) FROM core.payment_intents GROUP BY 1 ORDER BY 1",
                "canceled,2 requires_payment_method,1 succeeded,1",
            ),
        ],
    )
    .await;
}

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
    ];
    let discounts = vec![
        discount("di_third", "THIRD", Value::Null),
        discount("di_off", "OFF3", json!(3 * DAY * 1_000_000)),
        discount("di_once", "ONCE", Value::Null),
        discount("di_lost", "NOBODY_KNOWS", Value::Null),
    ];
    let states = vec![
        discounted(DAY, &[], &["di_third"]),
        discounted(2 * DAY, &["di_third"], &["di_off", "di_once"]),
        discounted(4 * DAY, &["di_third"], &["di_off"]),
        discounted(5 * DAY, &[], &["di_third", "di_lost"]),
        discounted(6 * DAY, &["di_9"], &[]),
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
                "6670000,true 3670000,true 6670000,true 6670000,false 10000000,false",
            ),
            (
                "SELECT mrr_micros, mrr_is_known FROM core.subscription_intervals ORDER BY valid_from",
                "6670000,true 3670000,true 6670000,true 6670000,false 10000000,false",
            ),
            (
                "SELECT kind, amount_micros FROM core.mrr_movements ORDER BY date",
                "new,6670000 contraction,3000000 expansion,3000000 expansion,3330000",
            ),
            (
                "SELECT subscription_state_id FROM core.subscription_states WHERE at > to_timestamp(500000)",
                "sub_1:518400",
            ),
        ],
    )
    .await;
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

#[tokio::test]
async fn lists_within_rows_are_tables() {
    let taxes = json!([
        {"line": "il_1", "jurisdiction": "DE", "rate": "19", "taxable_amount": 1000, "tax": 190, "behavior": "exclusive"},
        {"line": null, "jurisdiction": "FR", "rate": null, "taxable_amount": null, "tax": -5, "behavior": "inclusive"},
    ]);
    let invoice = |id: &str, taxes: Option<String>| {
        stamped::<rows::Invoice>(
            1,
            json!({"invoice_id": id, "status": "open", "currency": "eur", "taxes": taxes, "order_ambiguous": false}),
        )
    };
    let fees = json!([{"type": "stripe_fee", "amount": 56, "currency": "eur"}, {"type": "tax", "amount": 4, "currency": "eur"}]);
    let transaction = stamped::<rows::BalanceTransaction>(
        1,
        json!({"balance_transaction_id": "txn_1", "amount": 900, "fee": 60, "net": 840, "currency": "eur",
            "fee_details": fees.to_string(), "order_ambiguous": false}),
    );
    let tables = Memory::default()
        .with_rows(
            "core.invoices",
            Table::Invoices,
            vec![invoice("in_1", Some(taxes.to_string())), invoice("in_2", None)],
        )
        .with_rows("core.balance_transactions", Table::BalanceTransactions, vec![transaction]);
    answers(
        tables,
        &[
            (
                "SELECT invoice_id, line, jurisdiction, rate, taxable_amount, tax, behavior, currency
                 FROM core.invoice_taxes ORDER BY tax DESC",
                "in_1,il_1,DE,19,1000,190,exclusive,eur in_1,,FR,,,-5,inclusive,eur",
            ),
            (
                "SELECT balance_transaction_id, type, amount, currency FROM core.fee_details ORDER BY amount DESC",
                "txn_1,stripe_fee,56,eur txn_1,tax,4,eur",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn tables_are_empty_before_anything_was_written() {
    let queries: Vec<String> = Table::ALL.iter().map(|t| format!("SELECT count(*) FROM {}", t.name())).collect();
    let queries: Vec<(&str, &str)> = queries.iter().map(|q| (q.as_str(), "0")).collect();
    answers(Memory::default(), &queries).await;
    answers(Memory::default(), &[("SELECT count(*) FROM core.people", "0"), ("SELECT * FROM core.orders", "")]).await;
    for view in [
        "subscriptions",
        "subscription_states",
        "invoice_taxes",
        "fee_details",
        "sessions",
        "subscription_intervals",
        "mrr_movements",
    ] {
        answers(Memory::default(), &[(&format!("SELECT count(*) FROM core.{view}"), "0")]).await;
    }
    answers(Memory::default(), &[("SELECT count(*) FROM raw.events", "0"), ("SELECT * FROM raw.quarantine", "")]).await;
}

#[tokio::test]
async fn a_superseded_refund_is_not_seen() {
    let refund = |id: &str, status: &str| {
        stamped::<rows::Refund>(
            1,
            json!({
                "refund_id": id, "amount": 5, "currency": "eur", "status": status, "source": "stripe", "order_ambiguous": false,
            }),
        )
    };
    let tables = Memory::default()
        .with_rows(
            "core.refunds",
            Table::Refunds,
            vec![refund("re_1", "succeeded"), refund("ch_1:refunded", "succeeded")],
        )
        .with_rows("core.refunds_changes", Table::Refunds, vec![refund("ch_1:refunded", "superseded")]);
    answers(tables, &[("SELECT refund_id FROM core.refunds", "re_1"), ("SELECT sum(amount) FROM core.refunds", "5")])
        .await;
}
