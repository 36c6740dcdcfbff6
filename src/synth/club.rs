//! The coffee club: subscriptions, their monthly invoices, and what is tried again when a card does not pay.
//!
//! An invoice has one intent. Retries come after two, four and seven days; then the subscription ends.

use super::{
    account_json,
    catalog::{MEMBERS_COUPON, PLANS, price},
    crowd::Node,
    declines,
    people::Person,
    sale::{Discount, Invoice, Method, Order, Purchase, Status, Subscription, Verdict},
    stripe_json::Version,
    world::{Say, Task, World},
};
use crate::base::time::{DAY, HOUR, SECOND};

const MONTH: i64 = 30 * 86_400;
const RETRY_AFTER_DAYS: [i64; 3] = [2, 4, 7];
/// Of a hundred renewals, how many fail at first. Cards that wait in a file fail more often than those in a hand.
const RENEWAL_FAILS: f64 = 0.11;
const RETRY_FAILS: f64 = 0.55;
/// One in so many members comes with a coupon.
const WITH_COUPON: u32 = 4;

impl World {
    /// A new member: the first month is paid on the spot.
    pub fn join(&mut self, index: u32, at: i64) {
        let person = self.person(index);
        let member = &mut self.crowd[index as usize];
        let (Some(_), false, false) = (member.customer_since, member.joined_club, member.gone) else { return };
        member.joined_club = true;
        let plan = self.dice.pick(PLANS);
        let created = at / SECOND;
        let (id, list) = (self.dice.made("sub_1", created), price(plan.2, person.country.currency));
        let offered = self.start.0 / SECOND;
        let discount = index.is_multiple_of(WITH_COUPON).then(|| Discount { id: id.replace("sub_", "di_"), offered });
        let off = if discount.is_some() { (list * MEMBERS_COUPON.1 + 50) / 100 } else { 0 };
        let mut subscription = Box::new(Subscription {
            id,
            item: self.dice.id("si_", 14),
            person: index,
            plan: (plan.0, plan.1),
            list,
            amount: list - off,
            discount,
            created,
            period: (created, created + MONTH),
            cycle: 0,
            status: "incomplete",
            cancels: false,
            canceled_at: None,
            ended_at: None,
            cancel_reason: None,
            feedback: None,
            method_id: None,
            invoice: None,
            purchase: None,
            counted: None,
            spans: [None; 2],
            taxed: person.country.strong_authentication,
        });
        self.new_invoice(&mut subscription, created);
        self.tell_subscription(&mut subscription, &person, at, "customer.subscription.created", None);
        self.tell_discount(&subscription, &person, at + 10_000);
        self.finalize(&mut subscription, &person, at + 50_000);
        self.charge_invoice(&mut subscription, &person, Verdict::Authorised, at + 100_000);
        subscription.status = "active";
        let previous = r#"{"default_payment_method":null,"status":"incomplete"}"#;
        self.tell_subscription(
            &mut subscription,
            &person,
            at + 500_000,
            "customer.subscription.updated",
            Some(previous),
        );
        self.plan_month(subscription);
    }

    /// What members may be offered, from the shop's first day on.
    pub fn offer(&mut self, at: i64) {
        let say = Say::new(at, "coupon.created", true, 0, &[]);
        self.stripe(&say, &|out, _| account_json::coupon(at / SECOND, out));
    }

    fn tell_discount(&mut self, subscription: &Subscription, person: &Person, at: i64) {
        let Some(discount) = &subscription.discount else { return };
        let say = Say::new(at, "customer.discount.created", true, person.index, &[]);
        self.stripe(&say, &|out, version| account_json::discount(person, subscription, discount, version, out));
    }

    /// A month ahead: the next invoice, or a change of mind before it.
    fn plan_month(&mut self, subscription: Box<Subscription>) {
        let end = subscription.period.1 * SECOND;
        if self.dice.chance(0.07) {
            let early = self.dice.between(2.0, 25.0) * DAY as f64;
            self.plan(end - early as i64, Task::Leave(subscription));
        } else {
            self.plan(end, Task::Renew(subscription));
        }
    }

    /// Cancels to the end of the period; at that end, ends.
    pub fn leave(&mut self, mut subscription: Box<Subscription>, at: i64) {
        let person = self.person(subscription.person);
        if subscription.cancels {
            self.end(&mut subscription, &person, at);
            return;
        }
        subscription.cancels = true;
        subscription.canceled_at = Some(at);
        subscription.cancel_reason = Some("cancellation_requested");
        subscription.feedback = Some(*self.dice.pick(&["too_expensive", "unused", "switched_service", "other"]));
        let previous = r#"{"cancel_at":null,"cancel_at_period_end":false,"canceled_at":null,"cancellation_details":{"feedback":null,"reason":null}}"#;
        self.tell_subscription(&mut subscription, &person, at, "customer.subscription.updated", Some(previous));
        self.plan(subscription.period.1 * SECOND, Task::Leave(subscription));
    }

    fn end(&mut self, subscription: &mut Subscription, person: &Person, at: i64) {
        subscription.status = "canceled";
        subscription.ended_at = Some(at);
        self.tell_subscription(subscription, person, at, "customer.subscription.deleted", None);
    }

    /// A new period: its invoice is a draft for an hour.
    pub fn renew(&mut self, mut subscription: Box<Subscription>, at: i64) {
        let person = self.person(subscription.person);
        let previous = self.before_renewal(&subscription, &person, at);
        subscription.cycle += 1;
        subscription.period = (subscription.period.1, subscription.period.1 + MONTH);
        self.new_invoice(&mut subscription, at / SECOND);
        self.tell_subscription(&mut subscription, &person, at, "customer.subscription.updated", Some(&previous));
        self.tell_invoice(&mut subscription, &person, at + 60_000, "invoice.created");
        self.plan(at + HOUR, Task::Collect(subscription));
    }

    /// An array that changed is told whole, as it was.
    fn before_renewal(&self, subscription: &Subscription, person: &Person, at: i64) -> String {
        let mut text = Vec::new();
        account_json::subscription(person, subscription, &mut text, self.version(at));
        let before: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let mut previous = serde_json::json!({
            "items": {"data": before["items"]["data"]},
            "latest_invoice": before["latest_invoice"],
        });
        if self.version(at) == Version::Old {
            for key in ["current_period_end", "current_period_start"] {
                previous[key] = before[key].clone();
            }
        }
        previous.to_string()
    }

    /// Tries to collect an invoice.
    pub fn collect(&mut self, mut subscription: Box<Subscription>, at: i64) {
        let person = self.person(subscription.person);
        let tries = subscription.invoice.as_ref().map_or(0, |i| i.attempts);
        if tries == 0 {
            self.finalize(&mut subscription, &person, at);
        }
        let fails = self.dice.chance(if tries == 0 { RENEWAL_FAILS } else { RETRY_FAILS });
        let verdict = if fails {
            Verdict::Declined(declines::of_card(&mut self.dice, true, person.country.strong_authentication))
        } else {
            Verdict::Authorised
        };
        let retry_in = usize::try_from(tries).ok().and_then(|t| RETRY_AFTER_DAYS.get(t)).copied();
        if let Some(invoice) = &mut subscription.invoice {
            invoice.next_attempt = retry_in.filter(|_| fails).map(|days| at / SECOND + days * 86_400);
        }
        self.charge_invoice(&mut subscription, &person, verdict, at + 100_000);
        match (fails, retry_in) {
            (false, _) => {
                self.become_status(&mut subscription, &person, "active", at + 600_000);
                self.plan_month(subscription);
            }
            (true, Some(days)) => {
                self.become_status(&mut subscription, &person, "past_due", at + 600_000);
                self.plan(at + days * DAY, Task::Collect(subscription));
            }
            (true, None) => {
                subscription.canceled_at = Some(at);
                subscription.cancel_reason = Some("payment_failed");
                self.end(&mut subscription, &person, at + 600_000);
            }
        }
    }

    fn become_status(&mut self, subscription: &mut Subscription, person: &Person, status: &'static str, at: i64) {
        if subscription.status != status {
            let previous = format!(r#"{{"status":"{}"}}"#, subscription.status);
            subscription.status = status;
            self.tell_subscription(subscription, person, at, "customer.subscription.updated", Some(&previous));
        }
    }

    fn new_invoice(&mut self, subscription: &mut Subscription, created: i64) {
        let id = self.dice.made("in_1", created);
        subscription.purchase = None;
        subscription.invoice = Some(Invoice {
            id,
            created,
            finalized_at: None,
            paid_at: None,
            attempts: 0,
            next_attempt: None,
            intent: None,
            counted: None,
        });
    }

    /// The invoice is due, and has an intent from now on.
    fn finalize(&mut self, subscription: &mut Subscription, person: &Person, at: i64) {
        let member = &self.crowd[person.index as usize];
        let mut purchase = Box::new(Purchase {
            person: person.index,
            live: true,
            amount: subscription.amount,
            currency: person.country.currency,
            order: Order::default(),
            customer: Some(person.customer.clone()),
            session: None,
            invoice: subscription.invoice.as_ref().map(|i| i.id.clone()),
            intent: None,
            captures_later: false,
            email: person.email(member.moved_address),
            device: None,
            tries: 0,
            card: member.card,
        });
        self.open_intent(&mut purchase, person, at);
        let intent = purchase.intent.as_ref().map(|i| i.id.clone());
        subscription.purchase = Some(purchase);
        if let Some(invoice) = &mut subscription.invoice {
            invoice.intent = intent;
            invoice.finalized_at = Some(at / SECOND);
        }
        if subscription.cycle == 0 {
            self.tell_invoice(subscription, person, at, "invoice.created");
        }
        self.tell_invoice(subscription, person, at + 20_000, "invoice.finalized");
    }

    fn charge_invoice(&mut self, subscription: &mut Subscription, person: &Person, verdict: Verdict, at: i64) {
        let Some(mut purchase) = subscription.purchase.take() else { return };
        purchase.tries += 1;
        let method = Method::Card { card: person.card(purchase.card), wallet: None };
        let charge = self.new_charge(&purchase, person, method, verdict, None, at);
        self.tried(&mut purchase, &charge);
        if let Some(invoice) = &mut subscription.invoice {
            invoice.attempts += 1;
        }
        if verdict != Verdict::Authorised {
            self.fail(&mut purchase, super::ledger::failure_of(&charge));
            self.tell_charge(&charge, person, at, "charge.failed", 0);
            self.tell_intent(&purchase, person, at + 80_000, "payment_intent.payment_failed", 0);
            self.tell_invoice(subscription, person, at + 160_000, "invoice.payment_failed");
            subscription.purchase = Some(purchase);
            return;
        }
        let amount = purchase.amount;
        self.set_status(&mut purchase, Status::Succeeded, amount);
        self.tell_charge(&charge, person, at, "charge.succeeded", super::crowd::reached::PAID);
        self.tell_intent(&purchase, person, at + 80_000, "payment_intent.succeeded", 0);
        subscription.method_id.get_or_insert_with(|| charge.method_id.clone());
        if let Some(invoice) = &mut subscription.invoice {
            invoice.paid_at = Some(at / SECOND);
        }
        self.paid(&purchase, person, at);
        self.tell_paid(subscription, &purchase, person, at + 160_000);
        self.plan_booking(charge, at);
    }

    fn tell_paid(&mut self, subscription: &mut Subscription, purchase: &Purchase, person: &Person, at: i64) {
        if let (Some(intent), Version::New) = (&purchase.intent, self.version(at)) {
            let say = Say::new(at, "invoice_payment.paid", true, person.index, &[]).unasked();
            self.stripe(&say, &|out, _| {
                account_json::invoice_payment(subscription, purchase.currency, &intent.id, out)
            });
        }
        self.tell_invoice(subscription, person, at + 20_000, "invoice.paid");
        self.tell_invoice(subscription, person, at + 30_000, "invoice.payment_succeeded");
    }

    fn tell_invoice(&mut self, subscription: &mut Subscription, person: &Person, at: i64, kind: &'static str) {
        self.truth.invoice(subscription, person.country.currency);
        let subscription = &*subscription;
        let member = &self.crowd[person.index as usize];
        let (email, nodes) = (person.email(member.moved_address), [Node::Customer]);
        let say = Say::new(at, kind, true, person.index, &nodes).unasked();
        self.stripe(&say, &|out, version| account_json::invoice(person, &email, subscription, out, version));
    }

    fn tell_subscription(
        &mut self,
        subscription: &mut Subscription,
        person: &Person,
        at: i64,
        kind: &'static str,
        previous: Option<&str>,
    ) {
        self.truth.subscription(subscription, person.country.currency, at / SECOND);
        let subscription = &*subscription;
        let say = Say { previous, ..Say::new(at, kind, true, person.index, &[Node::Customer]) };
        let say = if kind.ends_with("created") { say } else { say.unasked() };
        self.stripe(&say, &|out, version| account_json::subscription(person, subscription, out, version));
    }
}
