//! Customers at Stripe: made at the first till, told more in the same second, changed now and then, closed by a few.
//!
//! What an `updated` event says of before, laid over the object, is the object of the event before it.

use super::{
    account_json::{self, CustomerState},
    crowd::{Node, reached},
    people::Person,
    world::{Say, World},
};
use crate::base::time::SECOND;

impl World {
    /// The customer of an account holder; a guest has none.
    pub fn ensure_customer(&mut self, person: &Person, live: bool, at: i64) -> Option<String> {
        person.user.as_ref()?;
        let member = &mut self.crowd[person.index as usize];
        if member.customer_since.is_none() {
            member.customer_since = Some(at / SECOND);
            self.truth.customer_made(live);
            self.tell_customer(person, live, at, "customer.created", false, None);
            let previous = r#"{"address":null,"phone":null,"shipping":null}"#;
            self.tell_customer(person, live, at + 30_000, "customer.updated", true, Some(previous));
        }
        Some(person.customer.clone())
    }

    /// The first method that worked becomes the one that is kept.
    pub fn keep_method(&mut self, person: &Person, live: bool, method: String, at: i64) {
        let member = &mut self.crowd[person.index as usize];
        if member.default_method.is_none() && !member.gone {
            member.default_method = Some(method);
            let previous = r#"{"invoice_settings":{"default_payment_method":null}}"#;
            self.tell_customer(person, live, at, "customer.updated", true, Some(previous));
        }
    }

    /// A new address, told to Stripe and to Klaviyo.
    pub fn move_address(&mut self, person: &Person, at: i64) {
        let previous = format!(r#"{{"email":"{}"}}"#, person.email(false));
        self.crowd[person.index as usize].moved_address = true;
        self.tell_customer(person, true, at, "customer.updated", true, Some(&previous));
        if self.crowd[person.index as usize].profile_since.is_some() {
            self.profile(person, at + SECOND);
        }
    }

    pub fn close_account(&mut self, index: u32, at: i64) {
        let person = self.person(index);
        let member = &mut self.crowd[index as usize];
        if member.gone || member.joined_club {
            return;
        }
        member.gone = true;
        self.truth.customer_gone(true);
        self.tell_customer(&person, true, at, "customer.deleted", true, None);
    }

    fn tell_customer(
        &mut self,
        person: &Person,
        live: bool,
        at: i64,
        kind: &'static str,
        addressed: bool,
        previous: Option<&str>,
    ) {
        let member = &self.crowd[person.index as usize];
        let email = person.email(member.moved_address);
        let (created, method) = (member.customer_since.unwrap_or(at / SECOND), member.default_method.clone());
        let nodes = [Node::Customer, member.email_node(), Node::User];
        let say = Say { previous, ..Say::new(at, kind, live, person.index, &nodes) };
        let say = say.reached(if addressed { reached::PHONE } else { 0 });
        let state = CustomerState { email: &email, created, live, addressed, method: method.as_deref() };
        self.stripe(&say, &|out, _| account_json::customer(person, &state, out));
    }
}
