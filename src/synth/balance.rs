//! The shop's balance with Stripe: what each payment came to, and what is paid out of it each week.
//!
//! Stripe sends no event of a balance transaction: they are told as `backfill` keeps what it fetches. Everything is
//! settled in the currency that it was paid in. No chance is used, so that the rest of the shop is as it would be without.

use std::collections::BTreeMap;

use super::{
    sale::Charge,
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

/// What is on the balance, by currency, and how many payouts were made of it.
#[derive(Debug, Default)]
pub(super) struct Balance {
    pending: BTreeMap<&'static str, i64>,
    payouts: u64,
}

/// A balance transaction.
pub(super) struct Movement<'a> {
    pub id: &'a str,
    /// `charge`, `payment`, `refund`, `adjustment`, `payout`, …
    pub kind: &'static str,
    pub category: &'static str,
    /// What caused it.
    pub source: &'a str,
    pub amount: i64,
    pub fee: i64,
    pub currency: &'static str,
    pub live: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Payout {
    id: String,
    /// Of the movement out, and of the one back.
    transactions: [String; 2],
    number: u64,
    pub amount: i64,
    pub currency: &'static str,
    created: i64,
    pub status: &'static str,
}

/// What Stripe keeps of a payment.
pub(super) fn fee(charge: &Charge) -> i64 {
    charge.amount * 29 / 1_000 + 30
}

impl Movement<'_> {
    /// As a JSON object, of the second `created`.
    pub fn write(&self, created: i64, out: &mut Vec<u8>) {
        let details = format!(
            r#"{{"amount":{},"application":null,"currency":"{}","description":"Stripe processing fees","type":"stripe_fee"}}"#,
            self.fee, self.currency
        );
        TRANSACTION.fill(
            &[
                ("id", self.id.into()),
                ("amount", self.amount.into()),
                ("created", created.into()),
                ("currency", self.currency.into()),
                ("fee", self.fee.into()),
                ("fee_details", Slot::Json(if self.fee == 0 { "" } else { &details })),
                ("net", (self.amount - self.fee).into()),
                ("category", self.category.into()),
                ("source", self.source.into()),
                ("kind", self.kind.into()),
            ],
            out,
        );
    }
}

impl World {
    /// Money comes or goes, and is told of.
    pub fn moves(&mut self, movement: &Movement, person: u32, at: i64) {
        self.moves_quietly(movement);
        let say = Say::new(at, "balance_transaction.fetched", movement.live, person, &[]).unasked();
        self.stripe(&say, &|out, _| movement.write(at / SECOND, out));
    }

    /// It is told within what caused it.
    pub fn moves_quietly(&mut self, movement: &Movement) {
        self.truth.moved(movement);
        if movement.live {
            *self.balance.pending.entry(movement.currency).or_default() += movement.amount - movement.fee;
        }
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
        for (currency, amount) in self.balance.pending.clone().into_iter().filter(|(_, amount)| *amount > 0) {
            self.balance.payouts += 1;
            let number = self.balance.payouts;
            let payout = Box::new(Payout {
                id: format!("po_1{number:023}"),
                transactions: [format!("txn_po1{number:020}"), format!("txn_pof1{number:019}")],
                number,
                amount,
                currency,
                created: at / SECOND,
                status: "pending",
            });
            self.truth.payout(&payout, None);
            self.moves(&payout.movement("payout"), 0, at);
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
            self.moves(&payout.movement("payout_failure"), 0, at);
            self.tell_payout(&payout, at, "payout.failed");
            return;
        }
        self.tell_payout(&payout, at, "payout.paid");
        if payout.number % RETURNED == 7 {
            self.plan(at + DAY, Task::PayoutEnds(payout));
        }
    }

    fn tell_payout(&mut self, payout: &Payout, at: i64, kind: &'static str) {
        let say = Say::new(at, kind, true, 0, &[]).unasked();
        self.stripe(&say, &|out, _| payout.write(out));
    }
}

impl Payout {
    fn movement(&self, kind: &'static str) -> Movement<'_> {
        let [gone, back] = &self.transactions;
        let (id, amount) = if kind == "payout" { (gone, -self.amount) } else { (back, self.amount) };
        Movement { id, kind, category: kind, source: &self.id, amount, fee: 0, currency: self.currency, live: true }
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
                ("status", self.status.into()),
            ],
            out,
        );
    }
}
