//! Paying: the attempts of an intent and what comes of each.
//!
//! Of one intent, no two events between its first and its last share a second: what happened to it is never a matter of
//! opinion. Events of one attempt (its charge, its intent, its session) do share one, as Stripe's do.

use super::{
    crowd::reached,
    declines::{self, Decline},
    ledger::failure_of,
    people::{Habit, Person},
    sale::{Charge, Failure, Method, Purchase, Status, ThreeDs, Verdict},
    world::{Task, World},
};
use crate::base::time::{DAY, HOUR, SECOND};

/// What is paid must be worth the trouble: below this, no bank asks for more than the card.
const CHALLENGED_FROM: i64 = 1_500;

impl World {
    /// One try. Nothing is tried for a cart that was bought meanwhile.
    pub fn pay(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        if !self.still_wanted(&purchase) {
            return;
        }
        if purchase.intent.is_none() {
            self.open_intent(&mut purchase, &person, at);
        }
        purchase.tries += 1;
        let method = self.method(&purchase, &person);
        match (&method, person.country.strong_authentication) {
            (Method::PayPal, _) => self.send_to_bank(purchase, &person, at),
            (Method::Card { .. }, true) if purchase.amount > CHALLENGED_FROM && self.dice.chance(0.42) => {
                self.send_to_bank(purchase, &person, at);
            }
            (Method::Card { .. }, strong) => {
                let three_ds = self.quiet_authentication(strong);
                self.attempt(purchase, &person, method, three_ds, at);
            }
            (Method::Debit { .. }, _) => self.attempt(purchase, &person, method, None, at),
        }
    }

    fn quiet_authentication(&mut self, strong: bool) -> Option<ThreeDs> {
        let likely = if strong { [55, 12, 25, 1, 7] } else { [3, 1, 1, 0, 95] };
        let ways = [
            Some(ThreeDs::FRICTIONLESS),
            Some(ThreeDs::ATTEMPTED),
            Some(ThreeDs::EXEMPTED),
            Some(ThreeDs::BROKEN),
            None,
        ];
        let ways: Vec<_> = ways.into_iter().zip(likely).collect();
        self.dice.weighted(&ways, |w| w.1).0
    }

    pub fn method(&mut self, purchase: &Purchase, person: &Person) -> Method {
        let card = |wallet| Method::Card { card: person.card(purchase.card), wallet };
        match person.pays {
            _ if purchase.tries > 2 || purchase.invoice.is_some() => card(None),
            Habit::Card => card(None),
            Habit::ApplePay => card(Some("apple_pay")),
            Habit::GooglePay => card(Some("google_pay")),
            Habit::Link => card(Some("link")),
            Habit::PayPal => Method::PayPal,
            Habit::Debit if purchase.live => Method::Debit { last4: person.card(200).last4 },
            Habit::Debit => card(None),
        }
    }

    /// The buyer is asked by their bank, or by PayPal, and may not come back.
    fn send_to_bank(&mut self, mut purchase: Box<Purchase>, person: &Person, at: i64) {
        self.set_status(&mut purchase, Status::RequiresAction, 0);
        self.tell_intent(&purchase, person, at, "payment_intent.requires_action", 0);
        if self.dice.chance(0.93) {
            let wait = self.dice.between(6.0, 95.0);
            self.plan(at + (wait * SECOND as f64) as i64, Task::Authenticated(purchase));
        } else {
            self.walk_away(purchase, at);
        }
    }

    pub fn authenticated(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        let method = self.method(&purchase, &person);
        if self.dice.chance(0.9) {
            let three_ds = matches!(method, Method::Card { .. }).then_some(ThreeDs::CHALLENGED);
            self.attempt(purchase, &person, method, three_ds, at);
            return;
        }
        let failure = Failure {
            code: "payment_intent_authentication_failure",
            decline: None,
            advice: None,
            message: "We are unable to authenticate your payment method. Please choose a different payment method and try again.",
            charge: None,
            method_id: self.dice.made("pm_1", at / SECOND),
            method,
        };
        self.truth.authentication_failed(&purchase, &failure, at / SECOND);
        self.fail(&mut purchase, failure);
        self.tell_intent(&purchase, &person, at, "payment_intent.payment_failed", reached::ATTEMPT);
        self.after_failure(purchase, None, at);
    }

    /// Asks for the money.
    fn attempt(
        &mut self,
        purchase: Box<Purchase>,
        person: &Person,
        method: Method,
        three_ds: Option<ThreeDs>,
        at: i64,
    ) {
        let verdict = self.verdict(&purchase, person, &method, three_ds);
        let charge = self.new_charge(&purchase, person, method, verdict, three_ds, at);
        match verdict {
            Verdict::Authorised => self.authorised(purchase, charge, person, at),
            Verdict::Pending => self.pending(purchase, charge, person, at),
            _ => self.refused(purchase, charge, person, at),
        }
    }

    pub fn verdict(
        &mut self,
        purchase: &Purchase,
        person: &Person,
        method: &Method,
        three_ds: Option<ThreeDs>,
    ) -> Verdict {
        let strong = person.country.strong_authentication;
        let again = purchase.tries > 1;
        match method {
            Method::Debit { .. } => Verdict::Pending,
            Method::PayPal if self.dice.chance(0.07) => {
                Verdict::Declined(declines::of_provider(&mut self.dice, "paypal"))
            }
            Method::PayPal => Verdict::Authorised,
            Method::Card { .. } => {
                let refusal = match three_ds {
                    Some(ThreeDs::BROKEN) => 1.0,
                    Some(ThreeDs::CHALLENGED) => 0.07,
                    _ => 0.115,
                };
                match self.dice.unit() {
                    u if u < 0.014 && purchase.live => {
                        Verdict::Blocked(if u < 0.009 { "highest_risk_level" } else { "rule" })
                    }
                    u if u < 0.0155 && purchase.live => Verdict::Invalid,
                    u if u < refusal + if again { 0.16 } else { 0.0155 } => {
                        Verdict::Declined(declines::of_card(&mut self.dice, false, strong))
                    }
                    _ => Verdict::Authorised,
                }
            }
        }
    }

    pub fn new_charge(
        &mut self,
        purchase: &Purchase,
        person: &Person,
        method: Method,
        verdict: Verdict,
        three_ds: Option<ThreeDs>,
        at: i64,
    ) -> Box<Charge> {
        let usual = (self.dice.wait(14.0) as i64).min(64);
        let risk = match verdict {
            Verdict::Blocked("highest_risk_level") => self.dice.whole(75, 99),
            Verdict::Blocked(_)
            | Verdict::Declined(Decline { code: "fraudulent" | "stolen_card" | "lost_card", .. }) => {
                self.dice.whole(40, 88)
            }
            _ if self.dice.chance(0.02) => self.dice.whole(65, 74),
            _ => usual,
        };
        Box::new(Charge {
            id: self.dice.made(if matches!(method, Method::Card { .. }) { "ch_3" } else { "py_3" }, at / SECOND),
            person: person.index,
            live: purchase.live,
            amount: purchase.amount,
            currency: purchase.currency,
            created: at / SECOND,
            intent: purchase.intent.as_ref().map(|i| i.id.clone()),
            customer: purchase.customer.clone(),
            invoice: purchase.invoice.clone(),
            order: purchase.order.clone(),
            email: purchase.email.clone(),
            method,
            method_id: self.dice.made("pm_1", at / SECOND),
            verdict,
            risk,
            three_ds,
            captured: verdict == Verdict::Authorised && !purchase.captures_later,
            refunded: 0,
            disputed: false,
            balance: None,
            refunds: Vec::new(),
        })
    }

    fn authorised(&mut self, mut purchase: Box<Purchase>, charge: Box<Charge>, person: &Person, at: i64) {
        self.tried(&mut purchase, &charge);
        self.tell_charge(&charge, person, at, "charge.succeeded", reached::PAID);
        if purchase.captures_later {
            self.set_status(&mut purchase, Status::RequiresCapture, 0);
            self.tell_intent(&purchase, person, at + 100_000, "payment_intent.amount_capturable_updated", 0);
            self.ordered(&purchase, person, at);
            let ships = self.dice.between(18.0, 50.0) * HOUR as f64;
            self.plan(at + ships as i64, Task::Capture(purchase));
            return;
        }
        let amount = purchase.amount;
        self.set_status(&mut purchase, Status::Succeeded, amount);
        self.tell_intent(&purchase, person, at + 120_000, "payment_intent.succeeded", 0);
        self.paid(&purchase, person, at);
        self.complete_session(&purchase, person, at + 400_000, true);
        self.ordered(&purchase, person, at);
        self.plan_booking(charge, at);
    }

    /// A bank debit: the order stands, the money comes or does not come days later.
    fn pending(&mut self, mut purchase: Box<Purchase>, charge: Box<Charge>, person: &Person, at: i64) {
        self.tried(&mut purchase, &charge);
        self.set_status(&mut purchase, Status::Processing, 0);
        self.tell_charge(&charge, person, at, "charge.pending", 0);
        self.tell_intent(&purchase, person, at + 150_000, "payment_intent.processing", 0);
        self.complete_session(&purchase, person, at + 300_000, false);
        self.ordered(&purchase, person, at);
        let days = self.dice.between(2.0, 5.0);
        self.plan(at + (days * DAY as f64) as i64, Task::Settle(purchase));
    }

    fn refused(&mut self, mut purchase: Box<Purchase>, charge: Box<Charge>, person: &Person, at: i64) {
        let decline = charge.decline();
        self.refused_quietly(&mut purchase, &charge, person, at);
        self.after_failure(purchase, decline, at);
    }

    /// A no, whatever the buyer does next.
    pub fn refused_quietly(&mut self, purchase: &mut Purchase, charge: &Charge, person: &Person, at: i64) {
        self.tried(purchase, charge);
        self.fail(purchase, failure_of(charge));
        self.tell_charge(charge, person, at, "charge.failed", 0);
        self.tell_intent(purchase, person, at + 110_000, "payment_intent.payment_failed", 0);
    }

    /// A yes, without asking.
    pub fn authorise_with(&mut self, purchase: Box<Purchase>, person: &Person, method: Method, at: i64) {
        let charge = self.new_charge(&purchase, person, method, Verdict::Authorised, None, at);
        self.authorised(purchase, charge, person, at);
    }
}
