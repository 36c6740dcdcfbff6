//! The shop's balance with Stripe: what each payment came to, and what is paid out of it each week.
//!
//! Stripe sends no event of a balance transaction: they are told as `backfill` keeps what it fetches, and once more when a payout
//! is reconciled and they are listed as what it is made of. Everything is settled in the currency that it was paid in, but for
//! Swedish crowns: the shop has no account for them, and Stripe converts. No chance is used, so that the rest of the shop is as
//! it would be without.

use std::collections::BTreeMap;

use super::{
    sale::{Charge, Method},
    shape::Slot,
    stripe_json::shape,
    world::{Say, Task, World},
};
use crate::base::time::{DAY, MINUTE, SECOND};

shape!(TRANSACTION, "shapes/balance_transaction.json");
shape!(PAYOUT, "shapes/payout.json");

const WEEK: i64 = 7 * DAY;
/// One payout in so many comes back from the bank.
const RETURNED: u64 = 20;

/// The currency that is converted, and into which.
const CONVERTED: (&str, &str) = ("sek", "eur");

/// What is on the balance, by currency, and how many payouts were made of it.
#[derive(Debug, Default)]
pub(super) struct Balance {
    pending: BTreeMap<&'static str, Vec<Movement>>,
    payouts: u64,
}

/// A balance transaction.
#[derive(Debug, Clone)]
pub(super) struct Movement {
    pub id: String,
    /// `charge`, `payment`, `refund`, `adjustment`, `payout`, …
    pub kind: &'static str,
    pub category: &'static str,
    /// What caused it.
    pub source: String,
    pub amount: i64,
    pub fee: i64,
    pub currency: &'static str,
    /// Where it was converted: thousandths that one of `currency` was worth.
    pub rate: Option<i64>,
    pub live: bool,
    /// Seconds since 1970.
    pub created: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Payout {
    id: String,
    /// Of the movement out, and of the one back.
    transactions: [String; 2],
    number: u64,
    parts: Vec<Movement>,
    pub amount: i64,
    pub currency: &'static str,
    created: i64,
    pub status: &'static str,
    reconciled: bool,
}

/// What a payment came to, at `at`, in microseconds.
pub(super) fn settlement(charge: &Charge, id: &str, at: i64) -> Movement {
    let movement = Movement {
        id: id.to_owned(),
        kind: if matches!(charge.method, Method::Card { .. }) { "charge" } else { "payment" },
        category: "charge",
        source: charge.id.clone(),
        amount: charge.amount,
        fee: 0,
        currency: charge.currency,
        rate: None,
        live: charge.live,
        created: at / SECOND,
    };
    let movement = movement.converted(charge.created);
    // What Stripe keeps of it.
    Movement { fee: movement.amount * 29 / 1_000 + 30, ..movement }
}

impl Movement {
    pub fn net(&self) -> i64 {
        self.amount - self.fee
    }

    /// Into what the shop has an account for, at the rate of the day of `second`.
    pub fn converted(self, second: i64) -> Movement {
        if self.currency != CONVERTED.0 {
            return self;
        }
        let thousandths = 11_000 + second.div_euclid(86_400) * 37 % 900;
        let amount = (self.amount * 1_000 + self.amount.signum() * thousandths / 2) / thousandths;
        Movement { amount, currency: CONVERTED.1, rate: Some(thousandths), ..self }
    }

    /// As a JSON object.
    pub fn write(&self, out: &mut Vec<u8>) {
        let details = format!(
            r#"{{"amount":{},"application":null,"currency":"{}","description":"Stripe processing fees","type":"stripe_fee"}}"#,
            self.fee, self.currency
        );
        let rate = self.rate.map(|thousandths| (1_000.0 / thousandths as f64).to_string());
        TRANSACTION.fill(
            &[
                ("id", (&self.id).into()),
                ("amount", self.amount.into()),
                ("created", self.created.into()),
                ("currency", self.currency.into()),
                ("exchange_rate", Slot::Json(rate.as_deref().unwrap_or("null"))),
                ("fee", self.fee.into()),
                ("fee_details", Slot::Json(if self.fee == 0 { "" } else { &details })),
                ("net", self.net().into()),
                ("category", self.category.into()),
                ("source", (&self.source).into()),
                ("kind", self.kind.into()),
            ],
            out,
        );
    }
}

impl World {
    /// Money comes or goes, and is told of.
    pub fn moves(&mut self, movement: Movement, person: u32, at: i64) {
        self.tell_movement(&movement, None, person, at);
        self.moves_quietly(movement);
    }

    /// It is told within what caused it.
    pub fn moves_quietly(&mut self, movement: Movement) {
        self.truth.moved(&movement);
        if movement.live {
            self.balance.pending.entry(movement.currency).or_default().push(movement);
        }
    }

    fn tell_movement(&mut self, movement: &Movement, payout: Option<&str>, person: u32, at: i64) {
        let say = Say::new(at, "balance_transaction.fetched", movement.live, person, &[]).unasked();
        self.stripe(&Say { payout, ..say }, &|out, _| movement.write(out));
    }

    /// Mondays at 00:30 UTC; 1970 began on a Thursday.
    pub fn plan_payouts(&mut self) {
        let mut at = self.start.0.div_euclid(WEEK) * WEEK + 4 * DAY + 30 * MINUTE;
        while at < self.shop.end.0 {
            if at > self.start.0 {
                self.plan(at, Task::PayOut);
            }
            at += WEEK;
        }
    }

    pub fn pay_out(&mut self, at: i64) {
        for (currency, parts) in std::mem::take(&mut self.balance.pending) {
            let amount: i64 = parts.iter().map(Movement::net).sum();
            if amount <= 0 {
                self.balance.pending.insert(currency, parts);
                continue;
            }
            self.balance.payouts += 1;
            let number = self.balance.payouts;
            let payout = Box::new(Payout {
                id: format!("po_1{number:023}"),
                transactions: [format!("txn_po1{number:020}"), format!("txn_pof1{number:019}")],
                number,
                parts,
                amount,
                currency,
                created: at / SECOND,
                status: "pending",
                reconciled: false,
            });
            self.truth.payout(&payout, None);
            let gone = payout.movement("payout", at);
            self.truth.moved(&gone);
            self.tell_movement(&gone, None, 0, at);
            self.tell_payout(&payout, at, "payout.created");
            self.plan(at + 2 * DAY, Task::PayoutEnds(payout));
        }
    }

    /// It arrives; and one in a while comes back the day after.
    pub fn payout_ends(&mut self, mut payout: Box<Payout>, at: i64) {
        let before = payout.status;
        payout.status = if before == "pending" { "paid" } else { "failed" };
        self.truth.payout(&payout, Some(before));
        if payout.status == "failed" {
            self.moves(payout.movement("payout_failure", at), 0, at);
            self.tell_payout(&payout, at, "payout.failed");
            return;
        }
        self.tell_payout(&payout, at, "payout.paid");
        self.reconcile(&mut payout, at + 10 * SECOND);
        if payout.number % RETURNED == 7 {
            self.plan(at + DAY, Task::PayoutEnds(payout));
        }
    }

    /// Stripe knows what it is made of, and lists it.
    fn reconcile(&mut self, payout: &mut Payout, at: i64) {
        payout.reconciled = true;
        self.tell_payout(payout, at, "payout.reconciliation_completed");
        for movement in std::mem::take(&mut payout.parts) {
            self.truth.paid_out(&movement);
            self.tell_movement(&movement, Some(&payout.id), 0, at + 10 * SECOND);
        }
        self.tell_payout(payout, at + 20 * SECOND, "payout.listed");
    }

    fn tell_payout(&mut self, payout: &Payout, at: i64, kind: &'static str) {
        let say = Say::new(at, kind, true, 0, &[]).unasked();
        self.stripe(&say, &|out, _| payout.write(out));
    }
}

impl Payout {
    fn movement(&self, kind: &'static str, at: i64) -> Movement {
        let [gone, back] = &self.transactions;
        let (id, amount) = if kind == "payout" { (gone, -self.amount) } else { (back, self.amount) };
        Movement {
            id: id.clone(),
            kind,
            category: kind,
            source: self.id.clone(),
            amount,
            fee: 0,
            currency: self.currency,
            rate: None,
            live: true,
            created: at / SECOND,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let failed = self.status == "failed";
        PAYOUT.fill(
            &[
                ("id", (&self.id).into()),
                ("amount", self.amount.into()),
                ("arrival_date", (self.created + 2 * 86_400).into()),
                ("balance_transaction", (&self.transactions[0]).into()),
                ("created", self.created.into()),
                ("currency", self.currency.into()),
                ("failure_balance_transaction", failed.then_some(&self.transactions[1]).into()),
                ("failure_code", failed.then_some("account_closed").into()),
                ("reconciliation_status", if self.reconciled { "completed" } else { "in_progress" }.into()),
                ("status", self.status.into()),
            ],
            out,
        );
    }
}
