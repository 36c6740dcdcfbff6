//! The core as a reader sees it: tables of facts with their changes, people and orders.

use std::sync::Arc;

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
        engine::{Memory, csv, engine, options},
        tables::row,
    },
};

/// One stored row, of the columns that matter; `livemode` is true unless said.
pub(super) fn stamped<R: Record + DeserializeOwned + Into<Row>>(offset: u64, mut columns: Value) -> Stamped {
    let livemode = columns.as_object_mut().unwrap().remove("livemode").is_none_or(|l| l == true);
    Stamped { row: row::<R>(columns).into(), account: None, livemode, offset: Offset(offset) }
}

pub(super) trait WithRows {
    fn with_rows(self, name: &str, table: Table, rows: Vec<Stamped>) -> Self;
}

impl WithRows for Memory {
    fn with_rows(self, name: &str, table: Table, rows: Vec<Stamped>) -> Memory {
        self.with(name, facts::batch(table, "shop", &rows).unwrap())
    }
}

pub(super) async fn answers(tables: Memory, queries: &[(&str, &str)]) {
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
async fn a_metric_is_counted_under_its_name_also_where_an_event_says_only_its_id() {
    let event = |n: i64, metric: Option<&str>, id: Option<&str>, person: &str| {
        let columns = json!({"event_id": format!("e{n}"), "metric": metric, "metric_id": id, "person_id": person,
            "occurred_at": n, "source": "klaviyo"});
        stamped::<rows::MetricEvent>(1, columns)
    };
    let events = vec![
        event(1, Some("Placed Order"), Some("P"), "per_a"),
        event(2, None, Some("P"), "per_b"),
        event(3, Some("Placed Order"), None, "per_b"),
        event(4, None, Some("Q"), "per_a"),
        event(5, Some("Zeta"), Some("R"), "per_a"),
        event(6, Some("Alpha"), Some("R"), "per_a"),
        event(7, None, Some("R"), "per_a"),
    ];
    answers(
        Memory::default().with_rows("core.metric_events", Table::MetricEvents, events),
        &[(
            "SELECT metric, metric_id, events, people FROM core.metrics ORDER BY metric_id, metric",
            "Placed Order,P,2,2 ,Q,1,1 Alpha,R,3,1 Placed Order,,1,1",
        )],
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

#[tokio::test]
async fn a_customer_has_the_profile_of_their_person_and_whoever_does_not_ask_pays_nothing_for_it() {
    let customer = |id: &str, person: Value, live: bool| {
        let columns = json!({"customer_id": id, "person_id": person, "order_ambiguous": false, "livemode": live});
        stamped::<rows::Customer>(1, columns)
    };
    let profile = |id: &str, person: &str, at: i64| {
        let columns = json!({"profile_id": id, "person_id": person, "updated_at": at, "order_ambiguous": false});
        stamped::<rows::Profile>(1, columns)
    };
    let tables = Memory::default()
        .with_rows(
            "core.customers",
            Table::Customers,
            vec![
                customer("cus_1", json!("per_1"), true),
                customer("cus_2", json!("per_2"), true),
                customer("cus_3", Value::Null, true),
                customer("cus_4", json!("per_1"), false),
            ],
        )
        .with_rows(
            "core.profiles",
            Table::Profiles,
            vec![profile("P1", "per_1", 1), profile("P0", "per_old", 2), profile("P2", "per_1", 3)],
        )
        .with_rows(
            "core.identities",
            Table::Identities,
            vec![identity("email", "per_2", 1, 2, json!({"erased_at": 7}))],
        )
        .with_rows("core.person_merges", Table::PersonMerges, vec![merge("per_old", "per_2")]);
    let (engine, _dir) = engine();
    let options = SessionOptions { tables: Arc::new(tables), ..options(Limits::default()) };
    let session = engine.session(options).unwrap();
    let sql =
        "SELECT customer_id, klaviyo_profile_id, CAST(erased_at AS BIGINT) AS erased FROM core.customers ORDER BY 1";
    assert_eq!(
        csv(&session, sql).await,
        "customer_id,klaviyo_profile_id,erased\ncus_1,P2,\ncus_2,,7\ncus_3,,\ncus_4,,\n"
    );
    for sql in
        ["SELECT count(*) FROM core.customers", "SELECT customer_id FROM core.customers WHERE person_id = 'per_1'"]
    {
        let plan = csv(&session, &format!("EXPLAIN {sql}")).await;
        assert!(!plan.contains("Left Join"), "{plan}");
    }
    let plan = csv(&session, "EXPLAIN SELECT klaviyo_profile_id FROM core.customers").await;
    assert!(plan.contains("Left Join"), "{plan}");
}
