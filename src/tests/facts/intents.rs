//! A payment intent's life as Stripe tells it, with many events in one second: the fold finds its end, or says that it
//! cannot.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{fold, rows, seconds};
use crate::{
    facts::{ObjectKey, Row, Table, rows::PaymentIntent},
    tests::cases,
};

/// What became of an intent, by one who was there.
#[derive(Debug, Clone)]
pub struct Life {
    pub events: Vec<Value>,
    /// Of each event the moment, in seconds and parts of them, of which it tells the whole ones.
    pub moments: Vec<f64>,
    pub status: &'static str,
    pub attempts: i64,
    pub succeeded_at: Option<i64>,
}

/// Where the intent stands while it is told.
struct Teller {
    now: f64,
    moments: Vec<f64>,
    intent: &'static str,
    status: &'static str,
    latest_charge: Option<String>,
    error: Value,
    received: i64,
    capturable: i64,
    events: Vec<Value>,
    attempts: i64,
    succeeded_at: Option<i64>,
}

pub const START: i64 = 1_700_000_000;

/// A life from a list of choices: what happens next, and whether in the same second (most often) or later.
pub fn life(choices: &[(u8, u8)]) -> Life {
    let mut now = START;
    // 60% of steps fall into the same second.
    let wait = |wait: u8| if wait % 10 < 6 { 0 } else { 1 + i64::from(wait % 7) };
    let steps = choices.iter().map(|(what, waits)| {
        now += wait(*waits);
        (*what, now as f64)
    });
    life_of(START as f64, steps)
}

/// A life from when it begins, what happens and when, in seconds and parts of them.
pub fn life_of(began: f64, steps: impl IntoIterator<Item = (u8, f64)>) -> Life {
    let mut t = Teller {
        now: began,
        moments: Vec::new(),
        intent: "pi_1",
        status: "requires_payment_method",
        latest_charge: None,
        error: Value::Null,
        received: 0,
        capturable: 0,
        events: Vec::new(),
        attempts: 0,
        succeeded_at: None,
    };
    t.tell("payment_intent.created");
    for (what, now) in steps {
        t.now = now;
        match (t.status, what % 8) {
            ("requires_payment_method", 0 | 1) => t.act(),
            ("requires_payment_method", 2) => t.process(),
            ("requires_payment_method" | "processing", 3) => t.decline(),
            ("requires_payment_method", 4) | ("requires_action", 4 | 5) => t.authorise(),
            ("requires_payment_method" | "requires_action" | "processing", 5 | 6) => t.succeed(),
            ("requires_action", 0 | 1) => t.fail_authentication(),
            ("requires_action", 2) => t.process(),
            ("requires_action", 3) => t.decline(),
            ("requires_capture", 0..=4) => t.succeed(),
            ("requires_payment_method" | "requires_action" | "requires_capture", 7) => t.cancel(),
            _ => {}
        }
    }
    Life { events: t.events, moments: t.moments, status: t.status, attempts: t.attempts, succeeded_at: t.succeeded_at }
}

impl Teller {
    fn act(&mut self) {
        self.status = "requires_action";
        self.error = Value::Null;
        self.tell("payment_intent.requires_action");
    }

    fn process(&mut self) {
        self.charge();
        self.status = "processing";
        self.error = Value::Null;
        self.tell("payment_intent.processing");
    }

    fn decline(&mut self) {
        if self.status != "processing" {
            self.charge();
        }
        self.status = "requires_payment_method";
        self.error = json!({"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds",
            "charge": self.latest_charge});
        self.tell("payment_intent.payment_failed");
    }

    fn fail_authentication(&mut self) {
        self.attempts += 1;
        self.status = "requires_payment_method";
        self.error = json!({"type": "invalid_request_error", "code": "payment_intent_authentication_failure"});
        self.tell("payment_intent.payment_failed");
    }

    fn authorise(&mut self) {
        self.charge();
        self.status = "requires_capture";
        self.capturable = 1000;
        self.error = Value::Null;
        self.tell("payment_intent.amount_capturable_updated");
    }

    fn succeed(&mut self) {
        if self.status == "requires_payment_method" || self.status == "requires_action" {
            self.charge();
        }
        self.status = "succeeded";
        self.error = Value::Null;
        self.received = 1000;
        self.capturable = 0;
        self.succeeded_at = Some(self.now as i64);
        self.tell("payment_intent.succeeded");
    }

    fn cancel(&mut self) {
        self.status = "canceled";
        self.capturable = 0;
        self.tell("payment_intent.canceled");
    }

    fn charge(&mut self) {
        self.attempts += 1;
        self.latest_charge = Some(format!("ch_{}", self.attempts));
    }

    fn tell(&mut self, kind: &str) {
        let n = self.events.len();
        self.moments.push(self.now);
        let canceled_at = (self.status == "canceled").then_some(self.now as i64);
        self.events.push(json!({
            // Ids say nothing on the order.
            "id": format!("evt_{:04}", (n * 7919 + 13) % 10_000), "object": "event", "api_version": "2025-03-31.basil",
            "created": self.now as i64, "livemode": true, "type": kind, "request": {"id": format!("req_{n}")},
            "data": {"object": {
                "id": self.intent, "object": "payment_intent", "amount": 1000, "currency": "usd", "created": START,
                "amount_received": self.received, "amount_capturable": self.capturable, "status": self.status,
                "customer": "cus_1", "latest_charge": self.latest_charge, "last_payment_error": self.error,
                "canceled_at": canceled_at, "capture_method": "automatic", "payment_method_types": ["card"],
                "metadata": {"cart_id": "cart_9", "order_id": "1001"},
            }},
        }));
    }
}

pub fn row_of(events: &[Value]) -> PaymentIntent {
    let states = fold(events);
    let key = ObjectKey { table: Table::PaymentIntents, livemode: true, id: "pi_1".to_owned() };
    match rows(&states).remove(&key) {
        Some(Row::PaymentIntent(row)) => *row,
        other => panic!("{other:?}"),
    }
}

fn check(life: &Life) -> bool {
    let row = row_of(&life.events);
    if !row.order_ambiguous {
        assert_eq!(row.status, life.status, "{:#?}", life.events);
    }
    // Totals and moments hold whatever the order.
    assert_eq!(row.attempts, life.attempts, "{:#?}", life.events);
    assert_eq!(row.succeeded_at, life.succeeded_at.map(seconds));
    assert_eq!(row.created_at, Some(seconds(START)));
    if life.succeeded_at.is_some() {
        assert!(!row.order_ambiguous && row.status == "succeeded" && row.amount_received == 1000);
    }
    row.order_ambiguous
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn the_end_is_found_or_flagged(choices in prop::collection::vec(any::<(u8, u8)>(), 0..9)) {
        check(&life(&choices));
    }
}

#[test]
fn few_ends_need_a_second_look() {
    // Every life of up to four steps, told in one second or in two.
    let mut total = 0;
    let mut ambiguous = 0;
    for n in 0..8u32.pow(4) {
        let what = |i: u32| (n / 8u32.pow(i) % 8) as u8;
        for waits in [0u8, 5] {
            let wait = |i: u8| if waits >> i & 1 == 1 { 9 } else { 0 };
            let choices: Vec<_> = (0..4).map(|i| (what(i), wait(i as u8))).collect();
            total += 1;
            ambiguous += usize::from(check(&life(&choices)));
        }
    }
    println!("{ambiguous} of {total} lives are ambiguous");
    assert!(ambiguous * 10 < total, "{ambiguous} of {total}");
}
