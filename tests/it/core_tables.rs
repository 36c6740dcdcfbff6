//! The core as a reader sees it: tables of facts with their changes, people and orders.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tillstream::{
    base::Offset,
    engine::{Limits, SessionOptions},
    facts::{self, Row, Stamped, Table, rows},
};

use crate::engine::{Memory, csv, engine, options};

/// One stored row, of the columns that matter; `livemode` is true unless said.
fn stamped<R: DeserializeOwned + Into<Row>>(offset: u64, mut columns: Value) -> Stamped {
    let livemode = columns.as_object_mut().unwrap().remove("livemode").is_none_or(|l| l == true);
    let row: R = serde_json::from_value(columns).unwrap();
    Stamped { row: row.into(), livemode, offset: Offset(offset) }
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
        identity("email", "per_a", 20, 30, json!({"email_hash": "late", "country": "FR", "locale": "fr"})),
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
                "SELECT person_id, country, livemode FROM core.people ORDER BY 1, 3",
                "per_a,US,false per_a,GB,true per_d,,true",
            ),
            ("SELECT phone_e164_hash FROM core.people WHERE person_id = 'per_d'", "phone"),
            ("SELECT count(DISTINCT person_id) FROM core.identities WHERE livemode", "2"),
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
async fn tables_are_empty_before_anything_was_written() {
    let queries: Vec<String> = Table::ALL.iter().map(|t| format!("SELECT count(*) FROM {}", t.name())).collect();
    let queries: Vec<(&str, &str)> = queries.iter().map(|q| (q.as_str(), "0")).collect();
    answers(Memory::default(), &queries).await;
    answers(Memory::default(), &[("SELECT count(*) FROM core.people", "0"), ("SELECT * FROM core.orders", "")]).await;
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
