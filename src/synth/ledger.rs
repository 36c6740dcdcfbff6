//! The books of a purchase: what is counted for the truth, and what Stripe tells of intents, charges and sessions.
//!
//! Counted first, told after; both from the simulator's own records.

use super::{
    account_json, charge_json,
    crowd::{Node, reached},
    people::Person,
    sale::{Charge, Failure, Purchase, Status, ThreeDs, Verdict},
    stripe_json,
    world::{Say, World},
};

impl World {
    /// Counts an attempt and hangs its charge on the intent.
    pub fn tried(&mut self, purchase: &mut Purchase, charge: &Charge) {
        self.truth.charge_made(charge, purchase.intent.as_ref().map(|i| i.attempts));
        if let Some(intent) = &mut purchase.intent {
            intent.attempts += 1;
            intent.challenged += u32::from(charge.three_ds == Some(ThreeDs::CHALLENGED));
            intent.latest_charge = Some(Box::new(charge.clone()));
            intent.error = None;
        }
    }

    pub fn fail(&mut self, purchase: &mut Purchase, failure: Failure) {
        if let Some(intent) = &mut purchase.intent {
            intent.attempts += u32::from(failure.charge.is_none());
            intent.error = Some(failure);
        }
        self.set_status(purchase, Status::RequiresPaymentMethod, 0);
    }

    pub fn set_status(&mut self, purchase: &mut Purchase, status: Status, received: i64) {
        self.truth.intent_moves(purchase, status, received);
        if let Some(intent) = &mut purchase.intent {
            intent.status = status;
            intent.received = received;
        }
    }

    pub fn complete_session(&mut self, purchase: &Purchase, person: &Person, at: i64, paid: bool) {
        if purchase.session.is_some() {
            self.truth.session_over(purchase.live, "complete", if paid { "paid" } else { "unpaid" });
            self.truth.paid_within_session(purchase);
            self.tell_session(purchase, person, at, "checkout.session.completed", true, paid);
        }
    }

    pub fn tell_intent(&mut self, purchase: &Purchase, person: &Person, at: i64, kind: &'static str, so_far: u8) {
        let email = self.crowd[purchase.person as usize].email_node();
        let nodes = [if purchase.customer.is_some() { Node::Customer } else { email }];
        let automatic = purchase.invoice.is_some() || kind == "payment_intent.canceled";
        let say = Say::new(at, kind, purchase.live, purchase.person, &nodes)
            .reached(so_far | if purchase.invoice.is_none() { reached::PHONE } else { 0 });
        let say = if automatic { say.unasked() } else { say };
        self.stripe(&say, &|out, version| stripe_json::intent(person, purchase, out, version));
    }

    pub fn tell_charge(&mut self, charge: &Charge, person: &Person, at: i64, kind: &'static str, so_far: u8) {
        let nodes = [self.crowd[charge.person as usize].email_node(), Node::Customer];
        let nodes = &nodes[..1 + usize::from(charge.customer.is_some())];
        let say =
            Say::new(at, kind, charge.live, charge.person, nodes).reached(so_far | reached::ATTEMPT | reached::PHONE);
        let say = if charge.invoice.is_some() { say.unasked() } else { say };
        self.stripe(&say, &|out, version| charge_json::charge(person, charge, out, version));
    }

    pub fn tell_session(
        &mut self,
        purchase: &Purchase,
        person: &Person,
        at: i64,
        kind: &'static str,
        complete: bool,
        paid: bool,
    ) {
        let told = complete || purchase.intent.is_some();
        let mut nodes = Vec::with_capacity(2);
        nodes.extend(told.then(|| self.crowd[person.index as usize].email_node()));
        nodes.extend(purchase.customer.is_some().then_some(Node::Customer));
        let say = Say::new(at, kind, purchase.live, purchase.person, &nodes).unasked();
        let say = say.reached(if told { reached::PHONE } else { 0 });
        self.stripe(&say, &|out, _| account_json::session(person, purchase, paid, complete, out));
    }
}

/// What the intent keeps of a charge that failed.
pub(super) fn failure_of(charge: &Charge) -> Failure {
    let (code, decline, message) = match charge.verdict {
        Verdict::Declined(decline) => (decline.failure, Some(decline.code), decline.message),
        _ => (
            "card_declined",
            Some("fraudulent").filter(|_| charge.verdict != Verdict::Invalid),
            "Your card was declined.",
        ),
    };
    Failure {
        code,
        decline,
        advice: charge.decline().and_then(|d| d.advice),
        message,
        charge: Some(charge.id.clone()),
        method: charge.method.clone(),
        method_id: charge.method_id.clone(),
    }
}
