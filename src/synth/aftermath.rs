//! After the yes: orders, captures, settlements, refunds and disputes.
//!
//! A refund that was paid out can still fail; a dispute can be an inquiry that moves no money. Totals are of refunds and
//! charges as they stand, never of events.

use super::{
    balance::{self, Movement},
    browsing::Visit,
    charge_json,
    crowd::reached,
    declines,
    people::Person,
    sale::{Charge, Dispute, Method, Purchase, Refund, Status, Verdict},
    storefront_json::{Body, cart_properties},
    stripe_json::Version,
    world::{Say, Task, World},
};
use crate::base::time::{DAY, SECOND};

/// Payments of this risk and more are looked at by a person.
const REVIEWED_FROM: i64 = 65;

impl World {
    /// The shop thanks, and the cart is empty.
    pub fn ordered(&mut self, purchase: &Purchase, person: &Person, at: i64) {
        let (Some(cart), Some(device)) = (&purchase.order.cart, purchase.device) else { return };
        let visit = Visit::after_payment(self.person(purchase.person), device);
        let at = at + 2 * SECOND;
        let place = visit.place("/thanks", "Thank you");
        self.shop(&visit, at, &place, &Body::Page("Thank you"), reached::PAGE);
        let order = cart_properties(cart, purchase.order.order.as_deref(), purchase.amount, purchase.currency);
        self.shop(&visit, at + 250_000, &place, &Body::Track("Order Completed", order), 0);
        self.truth.cart_ordered(cart);
        let member = &mut self.crowd[person.index as usize];
        member.cart = None;
        let may_join = purchase.customer.is_some() && !member.joined_club;
        let by_card = matches!(self.method(purchase, person), Method::Card { .. });
        if may_join && by_card && self.dice.chance(0.06) {
            let wait = self.seconds(120.0, 900.0);
            self.plan(at + wait, Task::Join(person.index));
        }
        if purchase.customer.is_some() && self.dice.chance(0.006) {
            let days = self.dice.between(8.0, 40.0);
            self.plan(at + (days * DAY as f64) as i64, Task::CloseAccount(person.index));
        }
    }

    /// Money came in: whatever this person owed before is mended.
    pub fn paid(&mut self, purchase: &Purchase, person: &Person, at: i64) {
        self.truth.paid(purchase.person, at / SECOND);
        if let (Some(_), Some(charge)) =
            (&purchase.customer, purchase.intent.as_ref().and_then(|i| i.latest_charge.as_ref()))
        {
            let method = charge.method_id.clone();
            self.keep_method(person, purchase.live, method, at + 3 * SECOND);
        }
    }

    pub fn capture(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        let Some(mut charge) = purchase.intent.as_ref().and_then(|i| i.latest_charge.clone()) else { return };
        let before = charge.clone();
        charge.captured = true;
        self.truth.charge_changes(&before, &charge);
        self.tell_charge(&charge, &person, at, "charge.captured", 0);
        if let Some(intent) = &mut purchase.intent {
            intent.latest_charge = Some(charge.clone());
        }
        let amount = purchase.amount;
        self.set_status(&mut purchase, Status::Succeeded, amount);
        self.tell_intent(&purchase, &person, at + 100_000, "payment_intent.succeeded", 0);
        self.paid(&purchase, &person, at);
        self.plan_booking(charge, at);
    }

    /// A bank debit's answer.
    pub fn settle(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        let Some(mut charge) = purchase.intent.as_ref().and_then(|i| i.latest_charge.clone()) else { return };
        let before = charge.clone();
        let comes = self.dice.chance(0.93);
        charge.verdict = if comes {
            Verdict::Authorised
        } else {
            Verdict::Declined(declines::of_provider(&mut self.dice, "sepa_debit"))
        };
        charge.captured = comes;
        self.truth.charge_changes(&before, &charge);
        if let Some(intent) = &mut purchase.intent {
            intent.latest_charge = Some(charge.clone());
        }
        if !comes {
            self.fail(&mut purchase, super::ledger::failure_of(&charge));
            self.truth.failed_late(&charge);
            self.tell_charge(&charge, &person, at, "charge.failed", 0);
            self.tell_intent(&purchase, &person, at + 90_000, "payment_intent.payment_failed", 0);
            self.settle_session(&purchase, &person, at, "checkout.session.async_payment_failed", false);
            return;
        }
        let amount = purchase.amount;
        self.set_status(&mut purchase, Status::Succeeded, amount);
        self.tell_charge(&charge, &person, at, "charge.succeeded", reached::PAID);
        self.tell_intent(&purchase, &person, at + 90_000, "payment_intent.succeeded", 0);
        self.paid(&purchase, &person, at);
        self.settle_session(&purchase, &person, at, "checkout.session.async_payment_succeeded", true);
        self.plan_booking(charge, at);
    }

    fn settle_session(&mut self, purchase: &Purchase, person: &Person, at: i64, kind: &'static str, paid: bool) {
        if purchase.session.is_some() {
            if paid {
                self.truth.session_paid(purchase.live);
            }
            self.tell_session(purchase, person, at + 300_000, kind, true, paid);
        }
    }

    pub fn plan_booking(&mut self, charge: Box<Charge>, at: i64) {
        let wait = self.seconds(62.0, 75.0);
        self.plan(at + wait, Task::Book(charge));
    }

    /// The balance transaction arrives a minute after the charge; then the charge meets its fate.
    pub fn book(&mut self, mut charge: Box<Charge>, at: i64) {
        let person = self.person(charge.person);
        charge.balance = Some(self.dice.made("txn_3", at / SECOND));
        self.update_charge(&charge, &person, at, r#"{"balance_transaction":null}"#);
        self.settled(&charge, at + 200_000);
        if charge.risk >= REVIEWED_FROM {
            self.open_review(&charge, at + 400_000);
        }
        let risky = if charge.risk > 60 { 0.06 } else { 0.006 };
        if charge.live && matches!(charge.method, Method::Card { .. }) && self.dice.chance(risky) {
            let days = self.dice.between(4.0, 40.0);
            self.plan(at + (days * DAY as f64) as i64, Task::Dispute(Box::new((*charge, None))));
        } else if self.dice.chance(0.06) {
            let days = 0.2 + self.dice.wait(7.0);
            self.plan(at + (days * DAY as f64) as i64, Task::Refund(charge));
        }
    }

    /// What a payment came to.
    fn settled(&mut self, charge: &Charge, at: i64) {
        let Some(id) = &charge.balance else { return };
        let movement = balance::settlement(charge, id, at);
        self.truth.settled(charge, &movement);
        self.moves(movement, charge.person, at);
    }

    /// The newest refund goes out, or comes back because it failed.
    fn refund_moves(&mut self, charge: &Charge, at: i64) {
        let Some(refund) = charge.refunds.last() else { return };
        let failed = format!("{}f", refund.balance);
        let (id, kind, amount) = match refund.status {
            "failed" => (failed, "refund_failure", refund.amount),
            _ => (refund.balance.clone(), "refund", -refund.amount),
        };
        let Charge { currency, live, .. } = *charge;
        let (source, created) = (refund.id.clone(), at / SECOND);
        let movement =
            Movement { id, kind, category: kind, source, amount, fee: 0, currency, rate: None, live, created };
        let movement = movement.converted(refund.created);
        self.moves(movement, charge.person, at);
    }

    fn update_charge(&mut self, charge: &Charge, person: &Person, at: i64, previous: &str) {
        let nodes = [self.crowd[charge.person as usize].email_node()];
        let say = Say::new(at, "charge.updated", charge.live, charge.person, &nodes).unasked().before(previous);
        self.stripe(&say, &|out, version| charge_json::charge(person, charge, out, version));
    }

    pub fn refund(&mut self, mut charge: Box<Charge>, at: i64) {
        let person = self.person(charge.person);
        let left = charge.amount - charge.refunded;
        let part = (left as f64 * self.dice.between(0.15, 0.7)) as i64;
        // Minor units that cannot be paid out (kwd's third) stay.
        let part = part - part % if charge.currency == "kwd" { 10 } else { 1 };
        let amount = if part > 0 && self.dice.chance(0.36) { part } else { left };
        let waits = !matches!(charge.method, Method::Card { .. });
        let reasons =
            [(Some("requested_by_customer"), 62), (None, 24), (Some("duplicate"), 9), (Some("fraudulent"), 5)];
        let before = (charge.refunded, charge.refunds.clone());
        charge.refunds.push(Refund {
            id: self.dice.made("re_3", at / SECOND),
            amount,
            created: at / SECOND,
            status: if waits { "pending" } else { "succeeded" },
            reason: self.dice.weighted(&reasons, |r| r.1).0,
            failure: None,
            balance: self.dice.made("txn_3", at / SECOND),
            settled: false,
        });
        charge.refunded += amount;
        self.truth.refund_made(&charge);
        if self.version(at) == Version::New {
            self.tell_refund(&charge, at, "refund.created", None);
        }
        self.tell_refunded(&charge, &person, &before, at + 150_000);
        self.refund_moves(&charge, at + 300_000);
        let days = self.dice.between(1.0, 3.0);
        self.plan(at + (days * DAY as f64) as i64, Task::RefundSettles(charge));
    }

    fn tell_refunded(&mut self, charge: &Charge, person: &Person, before: &(i64, Vec<Refund>), at: i64) {
        let mut previous = format!(r#"{{"amount_refunded":{}"#, before.0);
        if charge.refunded == charge.amount {
            previous.push_str(r#","refunded":false"#);
        }
        if self.version(at) == Version::Old {
            let mut earlier = Vec::new();
            charge_json::refunds(charge, &before.1, &mut earlier);
            let earlier = String::from_utf8(earlier).unwrap_or_default();
            previous.push_str(&format!(r#","refunds":{{"data":[{earlier}],"total_count":{}}}"#, before.1.len()));
        }
        previous.push('}');
        let nodes = [self.crowd[charge.person as usize].email_node()];
        let say = Say::new(at, "charge.refunded", charge.live, charge.person, &nodes).before(&previous);
        self.stripe(&say, &|out, version| charge_json::charge(person, charge, out, version));
    }

    /// The newest refund of a charge.
    fn tell_refund(&mut self, charge: &Charge, at: i64, kind: &'static str, previous: Option<&str>) {
        let Some(refund) = charge.refunds.last() else { return };
        let say = Say { previous, ..Say::new(at, kind, charge.live, charge.person, &[]) };
        let say = if kind == "refund.created" { say } else { say.unasked() };
        self.stripe(&say, &|out, _| charge_json::refund(charge, refund, out));
    }

    pub fn refund_settles(&mut self, mut charge: Box<Charge>, at: i64) {
        let card = matches!(charge.method, Method::Card { .. });
        let kind = if self.version(at) == Version::New { "refund.updated" } else { "charge.refund.updated" };
        let mut was_pending = false;
        if let Some(refund) = charge.refunds.last_mut() {
            was_pending = refund.status == "pending";
            refund.status = "succeeded";
            refund.settled = true;
        }
        if was_pending {
            self.truth.refund_moves(&charge, "pending");
        }
        let status = if was_pending { r#""status":"pending""# } else { "" };
        let details =
            if card { r#""destination_details":{"card":{"reference":null,"reference_status":"pending"}}"# } else { "" };
        let comma = if was_pending && card { "," } else { "" };
        self.tell_refund(&charge, at, kind, Some(&format!("{{{details}{comma}{status}}}")));
        match self.dice.unit() {
            u if u < 0.035 => {
                let days = self.dice.between(3.0, 9.0);
                self.plan(at + (days * DAY as f64) as i64, Task::RefundFails(charge));
            }
            u if u < 0.12 && charge.refunded < charge.amount => {
                let days = self.dice.between(1.0, 6.0);
                self.plan(at + (days * DAY as f64) as i64, Task::Refund(charge));
            }
            _ => {}
        }
    }

    pub fn refund_fails(&mut self, mut charge: Box<Charge>, at: i64) {
        let reasons = ["expired_or_canceled_card", "lost_or_stolen_card", "declined", "unknown"];
        let reason = *self.dice.pick(&reasons);
        if let Some(refund) = charge.refunds.last_mut() {
            refund.status = "failed";
            refund.failure = Some(reason);
            charge.refunded -= refund.amount;
        }
        self.truth.refund_moves(&charge, "succeeded");
        self.tell_refund(&charge, at, "refund.failed", None);
        let previous = r#"{"failure_balance_transaction":null,"failure_reason":null,"status":"succeeded"}"#;
        self.tell_refund(&charge, at + 40_000, "charge.refund.updated", Some(previous));
        self.refund_moves(&charge, at + 300_000);
    }

    /// A step of a dispute: opened, answered, decided.
    pub fn dispute(&mut self, (mut charge, dispute): (Charge, Option<Dispute>), at: i64) {
        let person = self.person(charge.person);
        let mut dispute = match dispute {
            Some(dispute) => dispute,
            None => {
                let inquiry = self.dice.chance(0.15);
                let before = charge.clone();
                charge.disputed = !inquiry;
                self.truth.charge_changes(&before, &charge);
                let opened = self.new_dispute(inquiry, at);
                self.truth.dispute(&charge, &opened, None);
                if opened.reason == "fraudulent" && !inquiry {
                    self.warn(&charge, at);
                }
                if !inquiry {
                    self.moves_quietly(charge_json::withdrawal(&charge, &opened));
                }
                self.tell_dispute(&charge, &person, &opened, at, "charge.dispute.created", None);
                if !inquiry {
                    self.tell_dispute(&charge, &person, &opened, at + 60_000, "charge.dispute.funds_withdrawn", None);
                    self.update_charge(&charge, &person, at + 90_000, r#"{"disputed":false}"#);
                }
                let days = self.dice.between(1.0, 6.0);
                self.plan(at + (days * DAY as f64) as i64, Task::Dispute(Box::new((charge, Some(opened)))));
                return;
            }
        };
        if dispute.status.ends_with("needs_response") {
            let previous = format!(
                r#"{{"evidence_details":{{"has_evidence":false,"submission_count":0}},"status":"{}"}}"#,
                dispute.status
            );
            let before = dispute.status;
            dispute.status =
                if dispute.status.starts_with("warning") { "warning_under_review" } else { "under_review" };
            dispute.answered = true;
            self.truth.dispute(&charge, &dispute, Some(before));
            self.tell_dispute(&charge, &person, &dispute, at, "charge.dispute.updated", Some(&previous));
            let days = self.dice.between(8.0, 35.0);
            self.plan(at + (days * DAY as f64) as i64, Task::Dispute(Box::new((charge, Some(dispute)))));
            return;
        }
        let won = self.dice.chance(0.38);
        let before = dispute.status;
        dispute.status = match (dispute.status.starts_with("warning"), won) {
            (true, _) => "warning_closed",
            (_, true) => "won",
            _ => "lost",
        };
        if dispute.status == "won" {
            dispute.reinstated = Some(format!("{}r", dispute.balance));
        }
        if let Some(back) = charge_json::reinstatement(&charge, &dispute) {
            self.moves_quietly(back);
        }
        self.truth.dispute(&charge, &dispute, Some(before));
        self.tell_dispute(&charge, &person, &dispute, at, "charge.dispute.closed", None);
        if dispute.status == "won" {
            self.tell_dispute(&charge, &person, &dispute, at + 50_000, "charge.dispute.funds_reinstated", None);
        }
    }

    fn new_dispute(&mut self, inquiry: bool, at: i64) -> Dispute {
        let reasons = [
            ("fraudulent", 55),
            ("product_not_received", 18),
            ("unrecognized", 10),
            ("duplicate", 6),
            ("subscription_canceled", 6),
            ("product_unacceptable", 5),
        ];
        Dispute {
            id: self.dice.made("du_1", at / SECOND),
            created: at / SECOND,
            reason: self.dice.weighted(&reasons, |r| r.1).0,
            status: if inquiry { "warning_needs_response" } else { "needs_response" },
            balance: self.dice.made("txn_1", at / SECOND),
            reinstated: None,
            withdrawn: !inquiry,
            answered: false,
        }
    }

    fn tell_dispute(
        &mut self,
        charge: &Charge,
        person: &Person,
        dispute: &Dispute,
        at: i64,
        kind: &'static str,
        previous: Option<&str>,
    ) {
        let say = Say { previous, ..Say::new(at, kind, charge.live, charge.person, &[]).unasked() };
        self.stripe(&say, &|out, _| charge_json::dispute(person, charge, dispute, out));
    }
}
