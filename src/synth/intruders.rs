//! Who is in the books and is no customer: thieves who test stolen numbers for two hours, and the shop's own developers,
//! whose payments are not live.
//!
//! Both are people beyond the customers, so that they share nothing with them.

use super::{
    declines,
    people::Person,
    sale::{Method, Order, Purchase, Verdict},
    world::{Task, World},
};
use crate::base::time::{DAY, HOUR, SECOND};

impl World {
    /// The burst: guests without a face, small amounts, a new number each second or two.
    pub fn plan_attack(&mut self) {
        let span = self.shop.end.0 - self.start.0;
        let begins = self.start.0 + span * 3 / 5;
        let ip = Some("198.19.66.6".to_owned());
        for index in self.shop.attackers() {
            let at = begins + (self.dice.unit() * (2 * HOUR) as f64) as i64;
            let person = self.person(index);
            let purchase = Purchase {
                person: index,
                live: true,
                amount: self.dice.whole(100, 250),
                currency: "usd",
                order: Order { cart: None, order: None, ip: ip.clone() },
                customer: None,
                session: None,
                invoice: None,
                intent: None,
                captures_later: false,
                email: person.email(false),
                device: None,
                tries: 0,
                card: 0,
            };
            self.plan(at, Task::Attack(Box::new(purchase)));
        }
    }

    pub fn attack(&mut self, mut purchase: Box<Purchase>, at: i64) {
        let person = self.person(purchase.person);
        if purchase.intent.is_none() {
            self.open_intent(&mut purchase, &person, at);
        }
        purchase.tries += 1;
        purchase.card += 1;
        let method = Method::Card { card: person.card(purchase.card), wallet: None };
        let verdict = match self.dice.unit() {
            u if u < 0.55 => Verdict::Declined(declines::of_tested_card(&mut self.dice)),
            u if u < 0.96 => Verdict::Blocked("highest_risk_level"),
            _ => Verdict::Authorised,
        };
        if verdict == Verdict::Authorised {
            return self.authorise_with(purchase, &person, method, at);
        }
        let charge = self.new_charge(&purchase, &person, method, verdict, None, at);
        let next = (purchase.tries < 6 && self.dice.chance(0.8)).then(|| self.seconds(1.2, 9.0));
        self.refused_quietly(&mut purchase, &charge, &person, at);
        if let Some(next) = next {
            self.plan(at + next, Task::Attack(purchase));
        }
    }

    /// Test payments, some a day.
    pub fn plan_experiments(&mut self) {
        let developers = self.shop.developers();
        let days = i64::from(self.shop.days);
        let count = (i64::from(self.shop.customers) / 60).max(3);
        for n in 0..count {
            let index = developers.start + (n as u32) % (developers.end - developers.start).max(1);
            let at = self.start.0 + (self.dice.unit() * (days * DAY) as f64) as i64;
            self.plan(at, Task::Experiment(index));
        }
    }

    pub fn experiment(&mut self, index: u32, at: i64) {
        let person = self.person(index);
        let customer = self.ensure_customer(&person, false, at);
        let mut purchase = Box::new(Purchase {
            person: index,
            live: false,
            amount: 2_000,
            currency: person.country.currency,
            order: Order::default(),
            customer,
            session: None,
            invoice: None,
            intent: None,
            captures_later: false,
            email: person.email(false),
            device: None,
            tries: 1,
            card: 0,
        });
        self.open_intent(&mut purchase, &person, at + SECOND);
        let method = Method::Card { card: test_card(&person), wallet: None };
        if self.dice.chance(0.8) {
            self.authorise_with(purchase, &person, method, at + 2 * SECOND);
        } else {
            let verdict = Verdict::Declined(declines::of_tested_card(&mut self.dice));
            let charge = self.new_charge(&purchase, &person, method, verdict, None, at + 2 * SECOND);
            self.refused_quietly(&mut purchase, &charge, &person, at + 2 * SECOND);
        }
    }
}

fn test_card(person: &Person) -> super::people::Card {
    super::people::Card { brand: "visa", last4: "4242".to_owned(), ..person.card(0) }
}
