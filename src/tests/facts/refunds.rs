//! What was paid back of a charge: counted from its refunds, whatever the charge's own events say and when.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{event, fold, intents::START, only, rows};
use crate::{facts::Row, tests::cases};

const AMOUNT: i64 = 1000;

/// A refund: how much of what is left, in tenths, whether it fails after all, and whether a charge's event tells of that, at
/// once.
type Choice = (i64, bool, bool);

struct Life {
    events: Vec<Value>,
    refunded: i64,
}

/// A charge that is paid and refunded in parts. A refund that fails is told by its own event, and at times by the charge's.
fn life(choices: &[Choice]) -> Life {
    let mut now = START;
    let mut events = vec![event("evt_paid", "charge.succeeded", now, json!({"object": charge(0)}))];
    let mut refunded = 0;
    for (n, (tenths, fails, told)) in choices.iter().enumerate() {
        let amount = (AMOUNT - refunded) * tenths / 10;
        now += 60;
        let refund = |status: &str| {
            json!({"object": {"id": format!("re_{n}"), "object": "refund", "amount": amount, "currency": "usd",
                "charge": "ch_1", "payment_intent": "pi_1", "created": START + 60 * (n as i64 + 1), "status": status}})
        };
        refunded += amount;
        events.push(event(&format!("evt_made_{n}"), "refund.created", now, refund("succeeded")));
        events.push(event(&format!("evt_told_{n}"), "charge.refunded", now, json!({"object": charge(refunded)})));
        if *fails {
            // In the same second, at times.
            now += i64::from(!*told);
            refunded -= amount;
            events.push(event(&format!("evt_failed_{n}"), "refund.failed", now, refund("failed")));
            if *told {
                events.push(event(
                    &format!("evt_back_{n}"),
                    "charge.updated",
                    now,
                    json!({"object": charge(refunded)}),
                ));
            }
        }
    }
    Life { events, refunded }
}

fn charge(refunded: i64) -> Value {
    json!({"id": "ch_1", "object": "charge", "amount": AMOUNT, "amount_captured": AMOUNT, "amount_refunded": refunded,
        "captured": true, "created": START, "currency": "usd", "paid": true, "payment_intent": "pi_1",
        "refunded": refunded == AMOUNT, "status": "succeeded"})
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn refunds_are_their_sum_and_never_more_than_was_taken(
        choices in prop::collection::vec((1i64..=10, any::<bool>(), any::<bool>()), 0..6),
        lost in prop::collection::vec(any::<bool>(), 24),
        order in prop::collection::vec(any::<u32>(), 24),
    ) {
        let Life { events, refunded } = life(&choices);
        // Of the charge's events any but the first may be lost: the refunds' own tell it all.
        let is_kept = |(n, event): &(usize, &Value)| {
            *n == 0 || event["type"].as_str().unwrap().starts_with("refund.") || !lost[*n]
        };
        let mut kept: Vec<(usize, &Value)> = events.iter().enumerate().filter(is_kept).collect();
        kept.sort_by_key(|(n, _)| order[*n]);
        let rows: Vec<Row> = rows(&fold(kept.iter().map(|(_, event)| *event))).into_values().collect();
        let charge = only!(rows, Charge);
        let paid_back: i64 = rows.iter().map(|row| match row {
            Row::Refund(refund) if refund.status == "succeeded" => refund.amount,
            _ => 0,
        }).sum();
        prop_assert_eq!((charge.amount_refunded, paid_back), (refunded, refunded));
        prop_assert!(charge.amount_refunded <= charge.amount_captured);
        prop_assert_eq!(charge.refunded, refunded == AMOUNT);
    }
}

#[test]
fn a_charge_is_disputed_when_its_dispute_says_so() {
    let dispute = |status: &str| {
        let object = json!({"id": "dp_1", "object": "dispute", "amount": AMOUNT, "currency": "usd", "charge": "ch_1",
            "created": START + 60, "status": status, "reason": "fraudulent"});
        event(&format!("evt_{status}"), "charge.dispute.created", START + 60, json!({"object": object}))
    };
    let disputed = |told: &[Value]| {
        let paid = event("evt_paid", "charge.succeeded", START, json!({"object": charge(0)}));
        let rows: Vec<Row> = rows(&fold(told.iter().chain([&paid]))).into_values().collect();
        only!(rows, Charge).disputed
    };
    assert!(!disputed(&[]));
    assert!(!disputed(&[dispute("warning_needs_response")]), "an inquiry is no dispute yet");
    assert!(disputed(&[dispute("warning_needs_response"), dispute("needs_response")]));
}
