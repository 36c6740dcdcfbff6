//! Visits: a page, some products, something in a cart, and now and then the way to the till.
//!
//! A cart outlives its visit and is taken up again within three days. Somebody signs in, or leaves an address, at the till
//! at the latest: until then a browser is nobody.

use super::{
    catalog::PRODUCTS,
    crowd::{Cart, DEVICES, reached},
    people::Person,
    storefront_json::{Body, Place, cart_properties, product_properties, traits},
    world::{Task, World},
};
use crate::base::{
    Source,
    time::{DAY, HOUR, MINUTE, SECOND},
};

/// One visit to the shop's page.
pub(super) struct Visit {
    pub person: Person,
    pub device: u8,
    pub signed_in: bool,
    step: Step,
    /// Products still to be looked at.
    looks: i64,
    search: &'static str,
    referrer: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Home,
    Category,
    Product,
    Cart,
    Till,
}

/// Where visits come from: referrer, query.
const ORIGINS: &[(&str, &str, u32)] = &[
    ("", "", 40),
    ("https://www.google.com/", "", 28),
    ("https://www.google.com/", "?utm_source=google&utm_medium=cpc&utm_campaign=beans", 12),
    ("https://www.instagram.com/", "?utm_source=instagram&utm_medium=social&utm_campaign=summer", 12),
    ("", "?utm_source=klaviyo&utm_medium=email&utm_campaign=weekly", 8),
];

impl World {
    pub fn arrive(&mut self, index: u32, at: i64) {
        let person = self.person(index);
        if self.crowd[index as usize].gone || person.lapses.is_some_and(|l| l.0 < at) {
            return;
        }
        self.plan_next_visit(&person, at);
        self.begin_visit(person, at);
    }

    fn plan_next_visit(&mut self, person: &Person, at: i64) {
        let wait = self.dice.wait(7.0 / person.visits_a_week) * DAY as f64;
        let next = at + 4 * HOUR + wait as i64;
        // To the evening of where they are: two thirds of visits fall between 17 and 23 o'clock.
        let midnight = next - next % DAY - (person.country.hours_ahead * HOUR as f64) as i64;
        let hour = if self.dice.chance(0.66) { self.dice.between(17.0, 23.0) } else { self.dice.between(7.0, 24.0) };
        let local = midnight + (hour * HOUR as f64) as i64;
        self.plan(if local > at + 4 * HOUR { local } else { next }, Task::Arrive(person.index));
    }

    /// A visit, for whatever reason, by a person who may be on any of their devices.
    pub fn begin_visit(&mut self, person: Person, at: i64) {
        let device = if self.dice.chance(0.75) { 0 } else { self.dice.whole(0, i64::from(DEVICES) - 1) as u8 };
        let (referrer, search, _) = *self.dice.weighted(ORIGINS, |o| o.2);
        let member = &mut self.crowd[person.index as usize];
        if member.cart.as_ref().is_some_and(|c| at - c.touched > 3 * DAY) {
            member.cart = None;
        }
        let known = member.known_devices & (1 << device) != 0;
        let signed_in = known && person.user.is_some() && self.dice.chance(0.7);
        let resumes = self.crowd[person.index as usize].cart.is_some() && self.dice.chance(0.6);
        let visit = Visit {
            person,
            device,
            signed_in,
            step: if resumes { Step::Cart } else { Step::Home },
            looks: self.dice.wait(1.9) as i64 + i64::from(self.dice.chance(0.55)),
            search,
            referrer,
        };
        self.browse(Box::new(visit), at);
    }

    pub fn browse(&mut self, mut visit: Box<Visit>, at: i64) {
        let next = match visit.step {
            Step::Home => {
                self.page(&visit, at, "Home", "/");
                self.maybe_newsletter(&visit, at + 20 * SECOND);
                (visit.looks > 0).then_some(if self.dice.chance(0.5) { Step::Category } else { Step::Product })
            }
            Step::Category => {
                let category = self.dice.weighted(PRODUCTS, |p| p.appeal).category;
                self.page(&visit, at, "Category", &format!("/c/{category}"));
                self.dice.chance(0.9).then_some(Step::Product)
            }
            Step::Product => self.look(&mut visit, at),
            Step::Cart => self.look_into_cart(&visit, at),
            Step::Till => {
                self.till(&mut visit, at);
                return;
            }
        };
        match next {
            Some(step) => {
                visit.step = step;
                visit.referrer = "";
                let pause = self.dice.between(61.0, 200.0);
                self.plan(at + (pause * SECOND as f64) as i64, Task::Browse(visit));
            }
            None => self.depart(&visit.person, at),
        }
    }

    fn page(&mut self, visit: &Visit, at: i64, name: &'static str, path: &str) {
        if self.shop.has(Source::Storefront) {
            self.shop(visit, at, &visit.place(path, name), &Body::Page(name), reached::PAGE);
        }
    }

    fn track(&mut self, visit: &Visit, at: i64, path: &str, event: (&'static str, String), so_far: u8) {
        self.shop(visit, at, &visit.place(path, "Corner Roastery"), &Body::Track(event.0, event.1), so_far);
    }

    fn look(&mut self, visit: &mut Visit, at: i64) -> Option<Step> {
        let choice = self.dice.weighted(PRODUCTS, |p| p.appeal);
        let number = PRODUCTS.iter().position(|p| p.id == choice.id).unwrap_or_default() as u8;
        let (currency, path) = (visit.person.country.currency, format!("/p/{}", choice.id));
        self.page(visit, at, "Product", &path);
        let viewed = product_properties(None, choice, None, currency);
        self.track(visit, at + 300_000, &path, ("Product Viewed", viewed), reached::PRODUCT);
        visit.looks -= 1;
        let appetite = visit.person.appetite;
        if self.dice.chance(0.3 * appetite.min(2.0)) {
            let quantity = 1 + (self.dice.wait(0.35 * appetite) as i64).min(4) as u8;
            let added_at = at + (self.dice.between(5.0, 50.0) * SECOND as f64) as i64;
            let id = self.put_into_cart(&visit.person, number, quantity, added_at);
            let added = product_properties(Some(&id), choice, Some(quantity), currency);
            self.track(visit, added_at, &path, ("Product Added", added), reached::CART);
            return Some(if self.dice.chance(0.7) { Step::Cart } else { Step::Product });
        }
        (visit.looks > 0).then_some(if self.dice.chance(0.25) { Step::Category } else { Step::Product })
    }

    fn put_into_cart(&mut self, person: &Person, product: u8, quantity: u8, at: i64) -> String {
        let fresh = self.dice.hex("cart_", 16);
        let cart = self.crowd[person.index as usize]
            .cart
            .get_or_insert_with(|| Box::new(Cart { id: fresh, ..Cart::default() }));
        let line = cart.lines.entry(product).or_default();
        *line = line.saturating_add(quantity).min(9);
        cart.touched = at;
        let id = cart.id.clone();
        self.truth.cart_touched(&id, at);
        id
    }

    fn look_into_cart(&mut self, visit: &Visit, at: i64) -> Option<Step> {
        let person = &visit.person;
        let cart = self.crowd[person.index as usize].cart.clone()?;
        let currency = person.country.currency;
        self.page(visit, at, "Cart", "/cart");
        let viewed = cart_properties(&cart.id, None, cart.value(currency), currency);
        self.track(visit, at + 200_000, "/cart", ("Cart Viewed", viewed), 0);
        let mut last = at + 200_000;
        // The last thing in a cart is never taken out again: an empty cart would be nobody's loss.
        if let Some((&number, &quantity)) = cart.lines.last_key_value().filter(|_| cart.lines.len() > 1)
            && self.dice.chance(0.15)
        {
            last = at + (self.dice.between(4.0, 25.0) * SECOND as f64) as i64;
            let removed = product_properties(Some(&cart.id), &PRODUCTS[usize::from(number)], Some(quantity), currency);
            self.track(visit, last, "/cart", ("Product Removed", removed), 0);
            if let Some(cart) = &mut self.crowd[person.index as usize].cart {
                cart.lines.remove(&number);
            }
        }
        self.touch_cart(person.index, last);
        let goes_on = person.resolve.sqrt();
        self.dice.chance(goes_on).then_some(Step::Till)
    }

    pub fn touch_cart(&mut self, person: u32, at: i64) {
        if let Some(cart) = &mut self.crowd[person as usize].cart {
            cart.touched = at;
            self.truth.cart_touched(&cart.id, at);
        }
    }

    fn till(&mut self, visit: &mut Visit, at: i64) {
        let (index, currency) = (visit.person.index, visit.person.country.currency);
        let Some(cart) = self.crowd[index as usize].cart.clone() else { return };
        self.page(visit, at, "Checkout", "/checkout");
        let started = cart_properties(&cart.id, None, cart.value(currency), currency);
        self.track(visit, at + 400_000, "/checkout", ("Checkout Started", started), reached::CHECKOUT);
        self.touch_cart(index, at + 400_000);
        let told = at + (self.dice.between(8.0, 45.0) * SECOND as f64) as i64;
        self.introduce(visit, told);
        self.begin_purchase(visit, &cart, told + 5 * SECOND);
        self.depart(&visit.person, at);
    }

    /// Somebody signs in, or types an address.
    fn introduce(&mut self, visit: &mut Visit, at: i64) {
        visit.signed_in = visit.person.user.is_some();
        let (visit, person) = (&*visit, &visit.person);
        let index = person.index as usize;
        let member = &self.crowd[index];
        if member.customer_since.is_some() && !member.moved_address && self.dice.chance(0.02) {
            self.move_address(person, at - SECOND);
        }
        let email = person.email(self.crowd[index].moved_address);
        let place = visit.place("/checkout", "Checkout");
        self.shop(visit, at, &place, &Body::Identify(traits(person, &email, true)), reached::PHONE);
        self.crowd[index].known_devices |= 1 << visit.device;
        self.open_profile(person, at + 2 * SECOND);
    }

    /// The box that asks for an address before anybody asked for coffee.
    fn maybe_newsletter(&mut self, visit: &Visit, at: i64) {
        let person = &visit.person;
        let member = &self.crowd[person.index as usize];
        if !visit.signed_in && member.profile_since.is_none() && person.takes_email && self.dice.chance(0.12) {
            let email = person.email(member.moved_address);
            let place = visit.place("/", "Newsletter");
            self.shop(visit, at, &place, &Body::Identify(traits(person, &email, false)), 0);
            self.crowd[person.index as usize].known_devices |= 1 << visit.device;
            self.open_profile(person, at + SECOND);
        }
    }

    /// Who leaves a cart behind, and can be written to, is reminded of it.
    fn depart(&mut self, person: &Person, at: i64) {
        let member = &mut self.crowd[person.index as usize];
        let Some(cart) = member.cart.as_mut().filter(|c| !c.reminded && member.profile_since.is_some()) else { return };
        cart.reminded = true;
        let id = cart.id.clone();
        self.plan(at + HOUR + 5 * MINUTE, Task::Remind(person.index, id));
    }
}

impl Visit {
    pub fn place(&self, path: &str, title: &'static str) -> Place {
        let landing = self.referrer.is_empty() && self.step != Step::Home;
        let search = if landing { String::new() } else { self.search.to_owned() };
        Place { path: path.to_owned(), title, search, referrer: self.referrer }
    }

    /// Back from the bank's page, or Stripe's: the shop thanks for the order.
    pub fn after_payment(person: Person, device: u8) -> Visit {
        Visit { signed_in: person.user.is_some(), person, device, step: Step::Till, looks: 0, search: "", referrer: "" }
    }
}

impl Cart {
    pub fn value(&self, currency: &str) -> i64 {
        self.lines
            .iter()
            .map(|(&product, &count)| PRODUCTS[usize::from(product)].price(currency) * i64::from(count))
            .sum()
    }
}
