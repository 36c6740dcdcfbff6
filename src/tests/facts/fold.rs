//! No order, repetition, twin or split into batches changes what a set of events comes to.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{decode, fold, fold_at, intents, loaded, rows};
use crate::{
    base::{Micros, Offset},
    facts::{ObjectKey, ObjectState, Row, Table, Want, Why},
    tests::cases,
};

/// A charge's life in a few seconds: paid, settled, captured, refunded in parts, disputed; each step told with what
/// was before.
fn charge_life(waits: &[bool]) -> (Vec<Value>, Value) {
    let object = json!({"id": "ch_1", "object": "charge", "amount": 1000, "amount_captured": 0, "amount_refunded": 0,
        "balance_transaction": null, "captured": false, "created": 1_700_000_000, "currency": "usd", "customer": "cus_1",
        "disputed": false, "metadata": {}, "paid": true, "payment_intent": "pi_1", "refunded": false, "status": "succeeded",
        "billing_details": {"email": "ann@example.com", "address": {"country": "FR"}, "phone": "+33612345678"},
        "outcome": {"type": "authorized", "network_status": "approved_by_network", "risk_level": "normal", "risk_score": 12},
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "country": "FR", "fingerprint": "fp1",
            "three_d_secure": {"result": "authenticated", "authentication_flow": "challenge"}}}});
    let steps = [
        ("charge.captured", json!({"amount_captured": 1000, "captured": true})),
        ("charge.updated", json!({"balance_transaction": "txn_1"})),
        ("charge.refunded", json!({"amount_refunded": 300})),
        ("charge.updated", json!({"metadata": {"note": "sorry"}})),
        ("charge.refunded", json!({"amount_refunded": 1000, "refunded": true})),
        ("charge.updated", json!({"metadata": {"note": null, "done": "yes"}, "disputed": true})),
    ];
    told("charge.succeeded", object, &steps, waits)
}

/// A life that begins with `first`; each step is told with what was before, in the same second unless it waits.
fn told(first: &str, object: Value, steps: &[(&str, Value)], waits: &[bool]) -> (Vec<Value>, Value) {
    let mut now = intents::START;
    let moments: Vec<i64> = (0..steps.len())
        .map(|n| {
            now += i64::from(waits.get(n).copied().unwrap_or(false));
            now
        })
        .collect();
    told_at(first, object, steps, &moments)
}

/// The same with the second of each step; the events, and the object as it is in the end.
pub fn told_at(first: &str, mut object: Value, steps: &[(&str, Value)], moments: &[i64]) -> (Vec<Value>, Value) {
    let event = |n: usize, kind: &str, now: i64, object: &Value, previous: Option<Value>| {
        let mut data = json!({"object": object});
        if let Some(previous) = previous {
            data["previous_attributes"] = previous;
        }
        json!({"id": format!("evt_{:04}", (n * 7919 + 13) % 10_000), "created": now, "livemode": true, "type": kind,
            "api_version": "2024-06-20", "data": data})
    };
    let mut events = vec![event(0, first, intents::START, &object, None)];
    for (n, ((kind, change), now)) in steps.iter().zip(moments).enumerate() {
        let mut previous = json!({});
        for (key, value) in change.as_object().unwrap() {
            if let Value::Object(inner) = value {
                for (k, v) in inner {
                    previous[key][k] = object[key][k].clone();
                    object[key][k] = v.clone();
                }
            } else {
                previous[key] = object[key].clone();
                object[key] = value.clone();
            }
        }
        events.push(event(n + 1, kind, *now, &object, Some(previous)));
    }
    (events, object)
}

/// What can follow a payment or stand behind it, each with a life of its own.
fn other_life(which: u8, waits: &[bool]) -> (Vec<Value>, Value) {
    match which % 5 {
        0 => dispute_life(waits),
        1 => invoice_life(waits),
        2 => subscription_life(waits),
        3 => payout_life(waits),
        _ => told(
            "review.opened",
            json!({"id": "prv_1", "object": "review", "charge": "ch_1", "created": 1_700_000_000, "open": true,
                "reason": "rule", "closed_reason": null}),
            &[("review.closed", json!({"open": false, "reason": "approved", "closed_reason": "approved"}))],
            waits,
        ),
    }
}

fn dispute_life(waits: &[bool]) -> (Vec<Value>, Value) {
    let moved = |id: &str, amount: i64, fee: i64| {
        json!({"id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee,
            "currency": "usd", "created": 1_700_000_000, "type": "adjustment", "source": "dp_1"})
    };
    let (gone, back) = (moved("txn_1", -1000, 1500), moved("txn_2", 1000, 0));
    told(
        "charge.dispute.created",
        json!({"id": "dp_1", "object": "dispute", "amount": 1000, "currency": "usd", "charge": "ch_1",
            "created": 1_700_000_000, "status": "warning_needs_response", "balance_transactions": [],
            "evidence_details": {"due_by": 1_700_600_000, "submission_count": 0}}),
        &[
            ("charge.dispute.updated", json!({"status": "needs_response"})),
            ("charge.dispute.funds_withdrawn", json!({"balance_transactions": [gone]})),
            ("charge.dispute.updated", json!({"evidence_details": {"submission_count": 1}, "status": "under_review"})),
            ("charge.dispute.closed", json!({"status": "lost"})),
            ("charge.dispute.updated", json!({"status": "won"})),
            ("charge.dispute.funds_reinstated", json!({"balance_transactions": [gone, back]})),
        ],
        waits,
    )
}

fn invoice_life(waits: &[bool]) -> (Vec<Value>, Value) {
    told(
        "invoice.created",
        json!({"id": "in_1", "object": "invoice", "amount_due": 1200, "amount_paid": 0, "amount_remaining": 1200,
            "attempt_count": 0, "created": 1_700_000_000, "currency": "usd", "customer": "cus_1", "status": "draft",
            "total": 1200, "total_taxes": [], "payment_intent": null, "status_transitions": {"paid_at": null}}),
        &[
            ("invoice.updated", json!({"total_taxes": [{"amount": 200}]})),
            (
                "invoice.finalized",
                json!({"status": "open", "payment_intent": "pi_1",
                "status_transitions": {"finalized_at": 1_700_000_000}}),
            ),
            ("invoice.payment_failed", json!({"attempt_count": 1})),
            ("invoice.updated", json!({"next_payment_attempt": 1_700_100_000})),
            (
                "invoice.paid",
                json!({"status": "paid", "amount_paid": 1200, "amount_remaining": 0, "attempt_count": 2,
                "status_transitions": {"paid_at": 1_700_000_000}}),
            ),
        ],
        waits,
    )
}

fn subscription_life(waits: &[bool]) -> (Vec<Value>, Value) {
    let items = |quantity: i64| {
        json!({"data": [{"id": "si_1", "quantity": quantity, "price": {"id": "price_1", "currency": "usd",
            "unit_amount": 1000, "recurring": {"interval": "month"}}}]})
    };
    told(
        "customer.subscription.created",
        json!({"id": "sub_1", "object": "subscription", "created": 1_700_000_000, "customer": "cus_1",
            "status": "incomplete", "cancel_at_period_end": false, "items": items(1), "discounts": []}),
        &[
            ("customer.subscription.updated", json!({"status": "active"})),
            ("customer.subscription.updated", json!({"items": items(3)})),
            (
                "customer.subscription.updated",
                json!({"discounts": [{"id": "di_1", "coupon": {"percent_off": 50, "duration": "forever"}}]}),
            ),
            ("customer.subscription.updated", json!({"status": "past_due"})),
            ("customer.subscription.deleted", json!({"status": "canceled", "ended_at": 1_700_000_000})),
        ],
        waits,
    )
}

fn payout_life(waits: &[bool]) -> (Vec<Value>, Value) {
    told(
        "payout.created",
        json!({"id": "po_1", "object": "payout", "amount": 900, "currency": "usd", "created": 1_700_000_000,
            "status": "pending", "balance_transaction": "txn_1", "failure_code": null, "metadata": {}}),
        &[
            ("payout.updated", json!({"status": "in_transit"})),
            ("payout.paid", json!({"status": "paid"})),
            ("payout.updated", json!({"metadata": {"seen": "yes"}})),
            ("payout.failed", json!({"status": "failed", "failure_code": "account_closed"})),
        ],
        waits,
    )
}

fn shuffled(order: &[u16], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..n).collect();
    places.sort_by_key(|&i| {
        (order.get(i % order.len().max(1)).copied().unwrap_or(0), i.wrapping_mul(2_654_435_761) % 97)
    });
    places
}

/// The same data under another event id: Stripe makes such twins.
fn twin(event: &Value, n: usize) -> Value {
    let mut twin = event.clone();
    twin["id"] = json!(format!("evt_twin_{n}"));
    twin["pending_webhooks"] = json!(n);
    twin
}

fn check(events: &[Value], order: &[u16], again: &[u8], splits: u8) -> Result<(), TestCaseError> {
    let numbered: Vec<(Offset, &Value)> = events.iter().enumerate().map(|(i, e)| (Offset(i as u64), e)).collect();
    let straight = fold_at(numbered.iter().copied());
    // Order and repetition: the states are the same, byte for byte.
    let mut mixed: Vec<_> = shuffled(order, events.len()).into_iter().map(|i| numbered[i]).collect();
    for n in again {
        mixed.insert(usize::from(*n) % (mixed.len() + 1), numbered[usize::from(*n) % numbered.len()]);
    }
    let other = fold_at(mixed.iter().copied());
    prop_assert_eq!(&straight, &other);
    for (key, state) in &straight {
        prop_assert_eq!(state.to_bytes().unwrap(), other[key].to_bytes().unwrap());
    }
    // Batches: a state put away and taken out again is the same.
    let mut stored: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for chunk in mixed.chunks(usize::from(splits) % 3 + 1) {
        for (offset, event) in chunk {
            for observation in decode(event).observations {
                let key = observation.key().clone();
                let mut state = match stored.get(&key) {
                    Some(bytes) => ObjectState::from_bytes(bytes).unwrap(),
                    None => ObjectState::new(key.clone()),
                };
                let (before, row) = (state.to_bytes().unwrap(), state.row());
                let changed = state.admit(observation, *offset);
                if !changed {
                    prop_assert_eq!(row, state.row());
                } else {
                    prop_assert_ne!(before, state.to_bytes().unwrap());
                }
                stored.insert(key, state.to_bytes().unwrap());
            }
        }
    }
    for (key, bytes) in &stored {
        prop_assert_eq!(bytes, &straight[key].to_bytes().unwrap());
    }
    // What one object's state says of others is told again whenever it changes: the rows are the same in the end.
    prop_assert_eq!(loaded(events), loaded(mixed.iter().map(|(_, e)| *e)));
    // Twins: the rows are the same.
    let twins: Vec<Value> = again.iter().map(|n| twin(&events[usize::from(*n) % events.len()], 1)).collect();
    let with_twins = fold(mixed.iter().map(|(_, e)| *e).chain(&twins));
    prop_assert_eq!(rows(&straight), rows(&with_twins));
    Ok(())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn intents_are_functions_of_the_set_of_events(
        choices in prop::collection::vec(any::<(u8, u8)>(), 1..8),
        order in prop::collection::vec(any::<u16>(), 1..10),
        again in prop::collection::vec(any::<u8>(), 0..4),
        splits in any::<u8>(),
    ) {
        // A failed authentication without a request is known by what it says, so that its twin is no second attempt.
        let mut events = intents::life(&choices).events;
        for event in &mut events {
            event["request"] = if splits & 1 == 0 { Value::Null } else { event["request"].clone() };
        }
        check(&events, &order, &again, splits)?;
    }

    #[test]
    fn charges_are_functions_of_the_set_of_events(
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
        again in prop::collection::vec(any::<u8>(), 0..4),
        splits in any::<u8>(),
        kept in prop::collection::vec(prop::bool::weighted(0.8), 7),
    ) {
        let (events, _) = charge_life(&waits);
        let some: Vec<Value> = events.iter().zip(kept).filter(|(_, k)| *k).map(|(e, _)| e.clone()).collect();
        check(if some.is_empty() { &events } else { &some }, &order, &again, splits)?;
    }

    #[test]
    fn what_follows_a_payment_is_a_function_of_the_set_of_events(
        which in 0u8..5,
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
        again in prop::collection::vec(any::<u8>(), 0..4),
        splits in any::<u8>(),
        kept in prop::collection::vec(prop::bool::weighted(0.8), 7),
    ) {
        let (events, _) = other_life(which, &waits);
        let some: Vec<Value> = events.iter().zip(kept).filter(|(_, k)| *k).map(|(e, _)| e.clone()).collect();
        check(if some.is_empty() { &events } else { &some }, &order, &again, splits)?;
    }

    #[test]
    fn what_follows_a_payment_ends_where_it_ended(
        which in 0u8..4,
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
    ) {
        let (events, last) = other_life(which, &waits);
        let mixed: Vec<&Value> = shuffled(&order, events.len()).into_iter().map(|i| &events[i]).collect();
        let (status, ambiguous) = rows(&fold(mixed))
            .into_values()
            .find_map(|row| match row {
                Row::Dispute(row) => Some((row.status, row.order_ambiguous)),
                Row::Invoice(row) => Some((row.status, row.order_ambiguous)),
                Row::Subscription(row) => Some((row.status, row.order_ambiguous)),
                Row::Payout(row) => Some((row.status, row.order_ambiguous)),
                _ => None,
            })
            .unwrap();
        prop_assert_eq!((Some(status.as_str()), ambiguous), (last["status"].as_str(), false));
    }

    #[test]
    fn what_each_event_says_was_before_orders_a_whole_second(
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
    ) {
        let (events, last) = charge_life(&waits);
        let mixed: Vec<&Value> = shuffled(&order, events.len()).into_iter().map(|i| &events[i]).collect();
        let rows: Vec<Row> = rows(&fold(mixed)).into_values().collect();
        let charge = crate::tests::facts::only!(rows, Charge);
        prop_assert!(!charge.order_ambiguous);
        prop_assert_eq!(charge.amount_refunded, last["amount_refunded"].as_i64().unwrap());
        prop_assert!(charge.refunded && charge.disputed && charge.captured);
        prop_assert_eq!(charge.balance_transaction_id.as_deref(), Some("txn_1"));
        let total = crate::tests::facts::only!(rows, Refund);
        prop_assert_eq!((total.refund_id.as_str(), total.amount), ("ch_1:refunded", 1000));
    }
}

/// The life of an intent, of a charge or of what can follow it.
fn any_life(which: u8, choices: &[(u8, u8)], waits: &[bool]) -> Vec<Value> {
    match which % 7 {
        0 => intents::life(choices).events,
        1 => charge_life(waits).0,
        other => other_life(other - 2, waits).0,
    }
}

/// What a state is in, where its object has one that is its last.
fn last_status(row: Row) -> Option<String> {
    let (status, last): (String, &[&str]) = match row {
        Row::PaymentIntent(row) => (row.status, &["succeeded", "canceled"]),
        Row::Subscription(row) => (row.status, &["canceled", "incomplete_expired"]),
        Row::Invoice(row) => (row.status, &["paid", "void"]),
        Row::Payout(row) => (row.status, &["failed", "canceled"]),
        _ => return None,
    };
    last.contains(&status.as_str()).then_some(status)
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn what_was_missed_and_listed_later_leads_to_the_same(
        which in 0u8..7,
        choices in prop::collection::vec(any::<(u8, u8)>(), 1..8),
        waits in prop::collection::vec(any::<bool>(), 6),
        missed in prop::collection::vec(any::<bool>(), 10),
    ) {
        let events = any_life(which, &choices, &waits);
        let (late, mut told): (Vec<_>, Vec<_>) = events.iter().cloned().zip(missed).partition(|(_, missed)| *missed);
        // The API lists the newest first, and knows how many webhooks wait for an answer by now.
        told.extend(late.into_iter().rev().map(|(mut event, missed)| {
            event["pending_webhooks"] = json!(7);
            (event, missed)
        }));
        let told: Vec<Value> = told.into_iter().map(|(event, _)| event).collect();
        prop_assert_eq!(rows(&fold(&told)), rows(&fold(&events)));
    }

    #[test]
    fn what_comes_late_takes_back_no_end(
        which in prop::sample::select(vec![0u8, 3, 4, 5]),
        choices in prop::collection::vec(any::<(u8, u8)>(), 1..8),
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
    ) {
        let events = any_life(which, &choices, &waits);
        let mut states: BTreeMap<ObjectKey, ObjectState> = BTreeMap::new();
        let mut ended: BTreeMap<ObjectKey, String> = BTreeMap::new();
        for (n, i) in shuffled(&order, events.len()).into_iter().enumerate() {
            for observation in decode(&events[i]).observations {
                let key = observation.key().clone();
                let state = states.entry(key.clone()).or_insert_with(|| ObjectState::new(key.clone()));
                state.admit(observation, Offset(n as u64));
                let status = state.row().and_then(last_status);
                if let Some(end) = ended.get(&key) {
                    prop_assert_eq!(status.as_ref(), Some(end), "{:#?}", events);
                }
                ended.extend(status.map(|status| (key, status)));
            }
        }
    }

    #[test]
    fn test_mode_is_another_world(
        which in 0u8..7,
        choices in prop::collection::vec(any::<(u8, u8)>(), 1..8),
        waits in prop::collection::vec(any::<bool>(), 6),
        order in prop::collection::vec(any::<u16>(), 1..10),
    ) {
        let live = any_life(which, &choices, &waits);
        let mut test: Vec<Value> = live.iter().take(1 + live.len() / 2).cloned().collect();
        test.iter_mut().for_each(|event| event["livemode"] = json!(false));
        let both: Vec<&Value> = live.iter().chain(&test).collect();
        let mixed = shuffled(&order, both.len()).into_iter().map(|i| (Offset(i as u64), both[i]));
        let mut apart = fold_at(live.iter().enumerate().map(|(i, e)| (Offset(i as u64), e)));
        apart.extend(fold_at(test.iter().enumerate().map(|(i, e)| (Offset((live.len() + i) as u64), e))));
        prop_assert_eq!(fold_at(mixed), apart);
    }
}

fn charge_state(states: &BTreeMap<ObjectKey, ObjectState>) -> ObjectState {
    states.values().find(|state| state.key().table == Table::Charges).unwrap().clone()
}

#[test]
fn a_gap_among_the_links_is_flagged() {
    let (events, _) = charge_life(&[]);
    // Two changes of notes in one second, the change between them never received: nothing says which came last.
    let mut first = events[2].clone();
    let mut second = events[2].clone();
    for (event, n) in [(&mut first, 1), (&mut second, 3)] {
        event["data"]["object"]["metadata"] = json!({"cart_id": format!("n{n}")});
        event["data"]["previous_attributes"] = json!({"metadata": {"cart_id": format!("n{}", n - 1)}});
        event["id"] = json!(format!("evt_{n}"));
    }
    let both = [&first, &second];
    let at = first["created"].as_i64().and_then(Micros::from_seconds).unwrap();
    let state = charge_state(&fold(both));
    let undecided = Want { key: state.key().clone(), since: at, why: Why::Undecided, account: None };
    assert_eq!(state.undecided(), Some(undecided.clone()));
    assert!(!state.meets(&undecided));
    // Told once more what it is, it is known, as of then.
    let mut fetched = events[2].clone();
    (fetched["id"], fetched["type"]) = (json!("fetched:1"), json!("charge.fetched"));
    fetched["created"] = json!(at.seconds() + 9);
    let state = charge_state(&fold([&second, &fetched, &first]));
    assert_eq!(state.undecided(), None);
    let meets = |after: i64, why: Why| {
        state.meets(&Want { key: state.key().clone(), since: at.plus(after), why, account: None })
    };
    let not_shown = |id: &str| Why::NotShown { event_id: id.to_owned() };
    assert_eq!((meets(9_900_000, Why::Undecided), meets(10_000_000, Why::Undecided)), (true, false));
    assert_eq!((meets(8_900_000, not_shown("evt_7")), meets(9_100_000, not_shown("evt_7"))), (true, false));
    assert!(meets(9_100_000, not_shown("fetched:1")), "the event itself");
    let charge = crate::tests::facts::only!(rows(&fold(both)).into_values().collect::<Vec<_>>(), Charge);
    assert!(charge.order_ambiguous);
    // With the one between, it is known.
    let mut between = events[2].clone();
    between["data"]["object"]["metadata"] = json!({"cart_id": "n2"});
    between["data"]["previous_attributes"] = json!({"metadata": {"cart_id": "n1"}});
    between["id"] = json!("evt_9");
    let all = [&second, &between, &first];
    let charge = crate::tests::facts::only!(rows(&fold(all)).into_values().collect::<Vec<_>>(), Charge);
    assert_eq!((charge.order_ambiguous, charge.cart_id.as_deref()), (false, Some("n3")));
}

#[test]
fn a_state_of_another_format_is_refused_with_what_to_do() {
    let error = ObjectState::from_bytes(&[200, 1, 2]).unwrap_err().to_string();
    assert!(error.contains("format 200") && error.contains("rebuild"), "{error}");
    assert!(ObjectState::from_bytes(&[]).is_err());
}
