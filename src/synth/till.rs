//! The till: where a purchase begins, and what a buyer does when it does not go through.
//!
//! Half of them pay on Stripe's own page, which makes an intent only when somebody tries; the shop's own page makes one
//! at once, so that a buyer who leaves without trying leaves an intent behind.

use super::{
    browsing::Visit,
    crowd::{Cart, reached},
    declines::Decline,
    people::Person,
    sale::{Intent, Method, Order, Purchase, Session, Status, Verdict},
    world::{Task, World},
};
use crate::base::time::{HOUR, SECOND};

/// For so many eighths of the shop's time guests paid at a till that knew no intents.
const FIRST_TILL: u32 = 1;

impl World {
    /// From the till to the first try.
    pub fn begin_purchase(&mut self, visit: &Visit, cart: &Cart, at: i64) {
        let person = &visit.person;
        self.orders += 1;
        let customer = self.ensure_customer(person, true, at);
        let on_stripes_page = self.dice.chance(0.42);
        let order = Order {
            cart: Some(cart.id.clone()),
            order: Some(format!("R{:08}", self.orders)),
            ip: (!on_stripes_page).then(|| person.ip.clone()),
        };
        let currency = person.country.currency;
        let member = &self.crowd[person.index as usize];
        let mut purchase = Box::new(Purchase {
            person: person.index,
            live: true,
            amount: cart.value(currency),
            currency,
            order,
            customer,
            session: None,
            invoice: None,
            intent: None,
            captures_later: !on_stripes_page && self.dice.chance(0.05),
            email: person.email(member.moved_address),
            device: Some(visit.device),
            tries: 0,
            card: member.card,
        });
        if purchase.customer.is_none() && self.is_within(FIRST_TILL, at) && self.dice.chance(0.25) {
            return self.charge_directly(purchase, person, at + 2 * SECOND);
        }
        if on_stripes_page {
            let created = at / SECOND;
            let id = self.dice.id("cs_live_a1", 56);
            purchase.session = Some(Session { id, created, expires: created + 86_400 });
        } else {
            self.open_intent(&mut purchase, person, at);
        }
        if self.dice.chance(0.82) {
            let wait = self.dice.between(15.0, 150.0);
            self.plan(at + (wait * SECOND as f64) as i64, Task::Pay(purchase));
        } else {
            self.walk_away(purchase, at);
        }
    }

    /// As the shop's first till did it for guests: a charge without an intent, and no second try.
    fn charge_directly(&mut self, mut purchase: Box<Purchase>, person: &Person, at: i64) {
        purchase.captures_later = false;
        let method = Method::Card { card: person.card(purchase.card), wallet: None };
        let verdict = self.verdict(&purchase, person, &method, None);
        let charge = self.new_charge(&purchase, person, method, verdict, None, at);
        self.tried(&mut purchase, &charge);
        if verdict == Verdict::Authorised {
            self.tell_charge(&charge, person, at, "charge.succeeded", reached::PAID);
            self.ordered(&purchase, person, at);
            self.plan_booking(charge, at);
        } else {
            self.tell_charge(&charge, person, at, "charge.failed", 0);
        }
    }

    pub fn open_intent(&mut self, purchase: &mut Purchase, person: &Person, at: i64) {
        purchase.intent = Some(Intent {
            id: self.dice.made("pi_3", at / SECOND),
            created: at / SECOND,
            status: Status::RequiresPaymentMethod,
            received: 0,
            attempts: 0,
            challenged: 0,
            latest_charge: None,
            error: None,
            canceled_at: None,
            cancellation: None,
        });
        self.truth.intent_opened(purchase);
        self.tell_intent(purchase, person, at, "payment_intent.created", 0);
    }

    pub fn still_wanted(&self, purchase: &Purchase) -> bool {
        let member = &self.crowd[purchase.person as usize];
        !member.gone
            && (purchase.order.cart.is_none() || member.cart.as_ref().map(|c| &c.id) == purchase.order.cart.as_ref())
    }

    pub fn after_failure(&mut self, mut purchase: Box<Purchase>, decline: Option<&'static Decline>, at: i64) {
        let persists = decline.map_or(0.55, |d| f64::from(d.persists) / 100.0);
        if !purchase.live || purchase.device.is_none() {
            return;
        }
        let mends_card = !matches!(
            decline.map(|d| d.code),
            Some("incorrect_cvc" | "incorrect_zip" | "processing_error" | "issuer_not_available")
        );
        if mends_card && self.dice.chance(0.6) {
            purchase.card = purchase.card.saturating_add(1);
            self.crowd[purchase.person as usize].card = purchase.card;
        }
        let tired = 0.85f64.powi(i32::try_from(purchase.tries).unwrap_or(9));
        if self.dice.chance(persists * tired) {
            let pause = self.seconds(12.0, 150.0);
            self.plan(at + pause, Task::Pay(purchase));
        } else if self.dice.chance(0.12) {
            // Later the same day, from the link in an e-mail.
            let pause = self.dice.between(0.5, 18.0) * HOUR as f64;
            self.plan(at + pause as i64, Task::Pay(purchase));
        } else {
            self.walk_away(purchase, at);
        }
    }

    /// The buyer is gone. Stripe's page closes itself a day later; the shop cancels half of its own.
    pub fn walk_away(&mut self, purchase: Box<Purchase>, at: i64) {
        let closes = match &purchase.session {
            Some(session) => Some((session.expires + 1) * SECOND),
            None => self.dice.chance(0.45).then_some(at + 25 * HOUR),
        };
        if let Some(closes) = closes {
            self.plan(closes, Task::GiveUp(purchase));
        }
    }

    pub fn give_up(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        let by_session = purchase.session.is_some();
        if let Some(intent) = &mut purchase.intent {
            intent.canceled_at = Some(at / SECOND);
            intent.cancellation = Some(if by_session { "automatic" } else { "abandoned" });
            self.set_status(&mut purchase, Status::Canceled, 0);
            self.tell_intent(&purchase, &person, at, "payment_intent.canceled", 0);
        }
        if by_session {
            self.truth.session_over(purchase.live, "expired", "unpaid");
            self.truth.paid_within_session(&purchase);
            self.tell_session(&purchase, &person, at + 50_000, "checkout.session.expired", false, false);
        }
    }
}
