//! Events as Stripe sent them between 2017 and 2023. The files are not part of the product: set `TILLSTREAM_REFERENCE`.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::{decode, decoder, rows, stripe_envelope};
use crate::{
    base::Offset,
    facts::{ObjectState, Row, Stamped, Table, batch},
    tests::support,
};

pub fn reference(file: &str) -> Option<String> {
    support::reference(&format!("stripe/{file}")).map(|path| fs::read_to_string(path).unwrap())
}

#[test]
fn no_event_of_any_version_is_refused_and_known_types_give_rows() {
    let Some(text) = reference("events_sample.ndjson") else { return };
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    assert_eq!(events.len(), 172);
    let known = |t: &str| {
        // What is to come is nothing yet.
        if t == "invoice.upcoming" {
            return false;
        }
        ["payment_intent.", "charge.", "refund.", "checkout.session.", "customer.subscription.", "invoice_payment."]
            .iter()
            .chain(&["invoice.", "payout.", "radar.early_fraud_warning.", "review.", "coupon."])
            .any(|p| t.starts_with(p))
            || ["customer.created", "customer.updated", "customer.deleted"].contains(&t)
    };
    let mut handled = 0;
    let mut tables: BTreeMap<Table, usize> = BTreeMap::new();
    for event in &events {
        let kind = event["type"].as_str().unwrap();
        let decoded = decoder().decode(&stripe_envelope(event)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(decoded.handled, known(kind), "{kind}");
        handled += usize::from(decoded.handled);
        let mut own = Vec::new();
        for observation in decoded.observations {
            let key = observation.key().clone();
            let mut state = ObjectState::new(key.clone());
            assert!(state.admit(observation, Offset(1)));
            let Some(row) = state.row() else { continue };
            assert_eq!(row.table(), key.table);
            let made =
                batch(key.table, "m1", &[Stamped { row, account: None, livemode: key.livemode, offset: Offset(1) }])
                    .unwrap();
            assert_eq!(made.schema(), key.table.schema());
            *tables.entry(key.table).or_default() += 1;
            own.push(key.id);
        }
        // An invoice's payment is named after the pair, and an old dispute after its charge.
        let object = &event["data"]["object"];
        let id = match object["id"].as_str() {
            Some(id) if !kind.starts_with("invoice_payment.") => id.to_owned(),
            Some(_) => "in_103Q0w2eZvKYlo2C5PYwf6Wf:pi_103Q0w2eZvKYlo2C364X582Z".to_owned(),
            None => format!("{}:dispute", object["charge"].as_str().unwrap_or_default()),
        };
        assert_eq!(own.contains(&id), known(kind), "{kind} {own:?}");
    }
    assert_eq!(handled, 79);
    println!("{tables:?}");
    for table in [Table::PaymentIntents, Table::PaymentAttempts, Table::Charges, Table::Refunds] {
        assert!(tables.get(&table).is_some_and(|n| *n >= 4), "{table:?}");
    }
}

#[test]
fn objects_of_the_newest_version_give_rows() {
    let Some(text) = reference("objects_2026-07-29.json") else { return };
    let objects: Value = serde_json::from_str(&text).unwrap();
    let kinds = [
        ("payment_intent", "payment_intent.created"),
        ("charge", "charge.succeeded"),
        ("refund", "refund.created"),
        ("customer", "customer.created"),
        ("checkout.session", "checkout.session.completed"),
        ("dispute", "charge.dispute.created"),
        ("invoice", "invoice.created"),
        ("subscription", "customer.subscription.created"),
        ("payout", "payout.created"),
        ("balance_transaction", "balance_transaction.fetched"),
        ("radar.early_fraud_warning", "radar.early_fraud_warning.created"),
        ("review", "review.opened"),
    ];
    for (object, kind) in kinds {
        let event = json!({"id": "evt_1", "object": "event", "api_version": "2026-07-29.dahlia", "created": 1_785_000_000,
            "livemode": false, "type": kind, "data": {"object": objects[object]}});
        let states = super::fold([&event]);
        let id = objects[object]["id"].as_str().unwrap();
        assert!(rows(&states).keys().any(|key| key.id == id), "{object}");
        assert!(decode(&event).handled);
    }
}

#[test]
fn old_cards_read_as_new_ones() {
    let Some(text) = reference("events_sample.ndjson") else { return };
    let old = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone())
        .find(|e| e["type"] == "charge.updated" && e["api_version"].is_null())
        .unwrap();
    let rows: Vec<Row> = rows(&super::fold([&old])).into_values().collect();
    let attempt = crate::tests::facts::only!(rows, PaymentAttempt);
    assert_eq!(attempt.outcome, "authorised");
    assert_eq!(attempt.card_brand.as_deref(), Some("visa"));
    assert_eq!(attempt.payment_method_type.as_deref(), Some("card"));
    assert_eq!(attempt.card_fingerprint.as_deref(), Some("wXWJT135mEK107G8"));
    let charge = crate::tests::facts::only!(rows, Charge);
    assert_eq!((charge.status.as_str(), charge.amount_captured), ("succeeded", 1000));
}
