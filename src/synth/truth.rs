//! The truth: what any right pipeline must find, counted by the simulator as it acts and never read off the events.
//!
//! What counts, and how (the SQL of each total stands in `questions`):
//!
//! - **event**: a distinct event; a second delivery is none, a twin under another id is one.
//! - **attempt**: a charge, or a failed authentication, which makes no charge. A challenge that nobody answered is no attempt.
//! - **outcome**: the charge's `outcome.type`; `authorised` and `pending` by its status; `auth_failed` without a charge.
//! - **technical**: it failed, and the code is `processing_error` or `issuer_not_available`, or 3D Secure broke down.
//! - **rates**, over live attempts that are not `invalid` (A): raw = authorised / A; network = authorised / (A less failed
//!   authentications and blocks); technical = (A less technical) / A; by intent = intents succeeded or to be captured /
//!   intents with an attempt; deduplicated = groups whose last attempt was authorised / groups, a group being attempts of one
//!   customer (else one card, else the attempt itself) for one amount with no day between one and the next. Bank debits,
//!   whose answer comes after days, are left out of the groups.
//! - **identity**: an identifier of a person that an event has shown, by its kind. References to orders are left out.
//! - **person**: identifiers linked by events, directly or in a chain; a browser on which nobody signed in is one.
//! - **order**: a live intent that succeeded, or a live captured charge that has no intent.
//! - **abandoned cart**: something was added, nothing ordered, and its last event is 30 minutes to 48 hours before the end.
//! - **recoverable payment**: a live intent that waits for a payment method, whose last attempt failed for a reason that the
//!   customer can mend (money or limit, card data, authentication), and of whose person no intent has succeeded since that
//!   attempt was made.
//! - **recovered invoice**: paid after a try to collect it had failed.
//! - **monthly recurring revenue**: of subscriptions that are active or past due, in millionths of a major unit; new where
//!   it begins, churn where it ends.
//! - **off session**: taken by Stripe itself, for an invoice; not so where the bank asked the buyer, or where they paid within a
//!   session that is over.
//! - **session** (of the shop's page): what one person did with no half hour between one thing and the next; an order alone is
//!   none.
//! - **interval** of a subscription: a span of whole seconds in which neither its status nor its being canceled changed.
//! - **shared phone**: shown with several people.
//! - **unmerged**: identifiers less people less merges, which is nought: of a person's identifiers all but one are merged.
//! - **settled rate**: of a day on which something was converted, what a payment of it was converted at.
//! - **part of a payout**: what Stripe lists as paid out by it, but for payouts that came back.
//! - **profile**: at Klaviyo, with what it agreed to by now.
//! - **consent**: the latest statement for a person and channel.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    balance::{Movement, Payout},
    catalog::MEMBERS_COUPON,
    charge_json::withdrawal,
    delivery::Posted,
    sale::{Charge, Dispute, Failure, Intent, Method, Purchase, Span, Status, Subscription, ThreeDs, Verdict},
    visits::Visits,
};
use crate::base::{
    Currency, Source,
    time::{HOUR, MINUTE},
};

/// A value of a total's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'static str),
}

type Key = [Cell; 4];
pub(super) type Tally = BTreeMap<Key, [i64; 3]>;

#[derive(Default)]
pub(super) struct Truth {
    tallies: BTreeMap<&'static str, Tally>,
    /// Carts that were not ordered, with their last event.
    carts: BTreeMap<String, i64>,
    recoverable: BTreeMap<(u32, String), ()>,
    last_paid: BTreeMap<u32, i64>,
    groups: BTreeMap<(String, i64, &'static str), Group>,
    /// Days, since 1970, on which something paid in a currency was converted.
    rated: BTreeSet<(&'static str, i64)>,
    pub(super) visits: Visits,
    pub lines: u64,
    pub duplicates: u64,
}

/// Attempts to pay one amount.
struct Group {
    last: i64,
    authorised: bool,
}

const DAY_SECONDS: i64 = 86_400;

/// An amount of minor units in millionths of a major one.
fn micros(minor: i64, currency: &str) -> i64 {
    let places = Currency::parse(currency).map_or(2, |c| u32::from(c.exponent()));
    minor * 10i64.pow(6 - places)
}

impl From<bool> for Cell {
    fn from(yes: bool) -> Cell {
        Cell::Bool(yes)
    }
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Cell {
        Cell::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

impl Truth {
    pub fn tally(&self, name: &str) -> Tally {
        let mut tally = self.tallies.get(name).cloned().unwrap_or_default();
        tally.retain(|_, values| values[0] != 0);
        tally
    }

    fn add(&mut self, name: &'static str, keys: &[Cell], values: [i64; 3]) {
        let mut key = [Cell::Null; 4];
        for (place, cell) in key.iter_mut().zip(keys) {
            *place = *cell;
        }
        let sums = self.tallies.entry(name).or_default().entry(key).or_default();
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }

    pub(super) fn count(&mut self, name: &'static str, keys: &[Cell], by: i64) {
        self.add(name, keys, [by, 0, 0]);
    }

    pub fn event(&mut self, source: Source, kind: &'static str, posted: Posted) {
        self.lines += posted.events + posted.duplicates;
        self.duplicates += posted.duplicates;
        self.count("events", &[source.as_str().into(), kind.into()], posted.events as i64);
        if source == Source::Klaviyo && kind != "profile.updated" {
            self.count("metrics", &[kind.into()], posted.events as i64);
        }
        self.count("events_by_source", &[source.as_str().into()], posted.events as i64);
    }

    // The shop's page.

    /// `at`, in microseconds, on one of a person's devices.
    pub fn shop_event(&mut self, kind: &'static str, (person, device): (u32, u8), at: i64) {
        if kind != "identify" {
            self.visits.did(person, device, at, kind == "Order Completed");
        }
        let cart = match kind {
            "page" => return self.count("page_views", &[], 1),
            "Product Viewed" => return self.count("product_views", &[], 1),
            "Product Added" => "added",
            "Product Removed" => "removed",
            "Cart Viewed" => "viewed",
            "Checkout Started" => "checkout_started",
            "Order Completed" => "ordered",
            _ => return,
        };
        self.count("cart_events", &[cart.into()], 1);
    }

    pub fn cart_touched(&mut self, id: &str, at: i64) {
        let last = self.carts.entry(id.to_owned()).or_insert(at);
        *last = at.max(*last);
    }

    pub fn cart_ordered(&mut self, id: &str) {
        self.carts.remove(id);
    }

    /// Carts that are abandoned at `end`, by id.
    pub fn abandoned_carts(&self, end: i64) -> Vec<&str> {
        let due = end - 48 * HOUR + 1..=end - 30 * MINUTE;
        self.carts.iter().filter(|(_, at)| due.contains(at)).map(|(id, _)| id.as_str()).collect()
    }

    // Klaviyo.

    pub fn message(&mut self, sms: bool, metric: &'static str) {
        let kind = match metric {
            "Received Email" | "Received SMS" => "delivered",
            "Opened Email" => "opened",
            "Clicked Email" => "clicked",
            "Bounced Email" => "bounced",
            "Sent SMS" => "inbound",
            "Failed to Deliver SMS" => "failed",
            _ => "unsubscribed",
        };
        self.count("message_events", &[if sms { "sms" } else { "email" }.into(), kind.into()], 1);
    }

    // Stripe.

    pub fn customer_made(&mut self, live: bool) {
        self.count("customers", &[live.into()], 1);
    }

    pub fn customer_gone(&mut self, live: bool) {
        self.add("customers", &[live.into()], [0, 1, 0]);
    }

    pub fn session_over(&mut self, live: bool, status: &'static str, payment: &'static str) {
        self.count("checkouts", &[live.into(), status.into(), payment.into()], 1);
    }

    /// A session says by now that the intent is paid in it, or was to be: its buyer made the attempts.
    pub fn paid_within_session(&mut self, of: &Purchase) {
        if let Some(intent) = &of.intent {
            self.count("off_session", &[of.live.into(), false.into()], i64::from(intent.attempts - intent.challenged));
        }
    }

    pub fn session_paid(&mut self, live: bool) {
        self.session_over(live, "complete", "paid");
        self.count("checkouts", &[live.into(), "complete".into(), "unpaid".into()], -1);
    }

    pub fn intent_opened(&mut self, of: &Purchase) {
        if let Some(intent) = &of.intent {
            self.tally_intent(of, intent, 1);
            self.count("attempts_per_intent", &[of.live.into(), Cell::Int(0)], 1);
        }
    }

    /// To be told before it moves.
    pub fn intent_moves(&mut self, of: &Purchase, status: Status, received: i64) {
        let Some(intent) = &of.intent else { return };
        self.tally_intent(of, intent, -1);
        self.tally_intent(of, &Intent { status, received, latest_charge: None, error: None, ..intent.clone() }, 1);
        if status != Status::RequiresPaymentMethod {
            self.recoverable.remove(&(of.person, intent.id.clone()));
        }
    }

    fn tally_intent(&mut self, of: &Purchase, intent: &Intent, by: i64) {
        let status = intent.status.as_str().into();
        self.add("intents", &[of.live.into(), of.currency.into(), status], [by, by * of.amount, by * intent.received]);
        if of.live && intent.status == Status::Succeeded {
            self.add("orders", &[of.currency.into()], [by, by * intent.received, 0]);
        }
        if of.live && matches!(intent.status, Status::Succeeded | Status::RequiresCapture) {
            self.count("intents_won", &[], by);
        }
    }

    /// A charge was tried, after so many attempts of its intent.
    pub fn charge_made(&mut self, charge: &Charge, attempts: Option<u32>) {
        self.tally_charge(charge, 1);
        if let Some(before) = attempts {
            self.one_more_attempt(charge.live, before);
        }
        let fingerprint = if let Method::Card { card, .. } = &charge.method { Some(&card.fingerprint) } else { None };
        let who = charge.customer.as_ref().or(fingerprint).unwrap_or(&charge.id).clone();
        let counts =
            charge.live && !matches!(charge.method, Method::Debit { .. }) && charge.verdict != Verdict::Invalid;
        if counts {
            let authorised = charge.verdict == Verdict::Authorised;
            self.group(who, charge.amount, charge.currency, charge.created, authorised);
        }
        self.consider_recovery(charge);
    }

    /// It came out otherwise, or was captured, or disputed.
    pub fn charge_changes(&mut self, before: &Charge, after: &Charge) {
        self.tally_charge(before, -1);
        self.tally_charge(after, 1);
    }

    /// Days after it was tried; something else may have been paid between.
    pub fn failed_late(&mut self, charge: &Charge) {
        if self.last_paid.get(&charge.person).is_none_or(|paid| *paid <= charge.created) {
            self.consider_recovery(charge);
        }
    }

    fn tally_charge(&mut self, charge: &Charge, by: i64) {
        let (live, outcome, method) = (charge.live.into(), charge.outcome(), charge.method.kind());
        self.add(
            "charges",
            &[live, charge.currency.into(), charge.status().into()],
            [by, by * charge.amount, by * charge.amount_captured()],
        );
        if charge.live && charge.intent.is_none() && charge.captured {
            self.add("orders", &[charge.currency.into()], [by, by * charge.amount, 0]);
        }
        self.count("charges_disputed", &[live], by * i64::from(charge.disputed));
        self.count("attempts", &[live, outcome.into()], by);
        self.count("technical", &[live], by * i64::from(charge.is_technical()));
        let is_tried = charge.verdict != Verdict::Invalid;
        self.count("technical_of_tried", &[live], by * i64::from(charge.is_technical() && is_tried));
        self.count("risk_levels", &[live, charge.risk_level().into()], by);
        if let Some(decline) = charge.decline() {
            self.count("declines", &[live, decline.category(method).into(), decline.code.into()], by);
        }
        if let Some(three_ds) = charge.three_ds {
            self.count("three_ds", &[live, three_ds.result.into(), three_ds.flow.into()], by);
        }
        let challenged = charge.three_ds == Some(ThreeDs::CHALLENGED);
        if challenged || charge.invoice.is_some() {
            self.count("off_session", &[live, (!challenged).into()], by);
        }
        if charge.verdict == Verdict::Authorised {
            let wallet = if let Method::Card { wallet, .. } = charge.method { wallet } else { None };
            self.count("methods", &[live, method.into(), wallet.into()], by);
        }
    }

    /// An attempt that never came to a charge. `at`, in seconds.
    pub fn authentication_failed(&mut self, of: &Purchase, failure: &Failure, at: i64) {
        let Some(intent) = &of.intent else { return };
        self.one_more_attempt(of.live, intent.attempts);
        self.count("attempts", &[of.live.into(), "auth_failed".into()], 1);
        let attempt = format!("{}:{}", intent.id, failure.method_id);
        let fingerprint = if let Method::Card { card, .. } = &failure.method { Some(&card.fingerprint) } else { None };
        let who = of.customer.as_ref().or(fingerprint).unwrap_or(&attempt).clone();
        if of.live {
            self.group(who, of.amount, of.currency, at, false);
            self.recoverable.insert((of.person, intent.id.clone()), ());
        }
    }

    fn one_more_attempt(&mut self, live: bool, before: u32) {
        let before = i64::from(before);
        self.count("attempts_per_intent", &[live.into(), Cell::Int(before)], -1);
        self.count("attempts_per_intent", &[live.into(), Cell::Int(before + 1)], 1);
        self.count("attempt_numbers", &[live.into(), Cell::Int(before + 1)], 1);
    }

    fn group(&mut self, who: String, amount: i64, currency: &'static str, at: i64, authorised: bool) {
        let before = self.groups.insert((who, amount, currency), Group { last: at, authorised });
        let continues = before.filter(|g| at - g.last <= DAY_SECONDS);
        let won_before = continues.as_ref().is_some_and(|g| g.authorised);
        let won = i64::from(authorised) - i64::from(won_before);
        self.add("groups", &[], [i64::from(continues.is_none()), won, 0]);
    }

    fn consider_recovery(&mut self, charge: &Charge) {
        let Some(intent) = charge.intent.as_ref().filter(|_| charge.live) else { return };
        let key = (charge.person, intent.clone());
        let category = charge.decline().map(|d| d.category(charge.method.kind()));
        let mendable = ["funds_or_limit", "card_data", "authentication", "lpm_limit", "lpm_account"];
        if category.is_some_and(|c| mendable.contains(&c)) {
            self.recoverable.insert(key, ());
        } else {
            self.recoverable.remove(&key);
        }
    }

    /// An intent of theirs succeeded. `at`, in seconds.
    pub fn paid(&mut self, person: u32, at: i64) {
        self.last_paid.insert(person, at);
        let theirs = (person, String::new())..(person + 1, String::new());
        let ids: Vec<_> = self.recoverable.range(theirs).map(|(key, ())| key.clone()).collect();
        for id in ids {
            self.recoverable.remove(&id);
        }
    }

    pub fn recoverable(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.recoverable.keys().map(|(_, id)| id.as_str()).collect();
        ids.sort_unstable();
        ids
    }

    /// The newest refund of a charge.
    pub fn refund_made(&mut self, charge: &Charge) {
        let Some(refund) = charge.refunds.last() else { return };
        let keys = [charge.live.into(), charge.currency.into(), refund.status.into()];
        self.add("refunds", &keys, [1, refund.amount, 0]);
    }

    /// The newest refund has left the state `from` for the one it is in.
    pub fn refund_moves(&mut self, charge: &Charge, from: &'static str) {
        let Some(refund) = charge.refunds.last() else { return };
        let keys = [charge.live.into(), charge.currency.into(), from.into()];
        self.add("refunds", &keys, [-1, -refund.amount, 0]);
        self.refund_made(charge);
    }

    // What becomes of payments: a row moves from one status to the next.

    pub fn moved(&mut self, movement: &Movement) {
        let keys = [movement.live.into(), movement.currency.into(), movement.kind.into()];
        self.add("balance_transactions", &keys, [1, movement.amount, movement.fee]);
        if movement.fee != 0 {
            self.add("fee_details", &[movement.live.into(), movement.currency.into()], [1, movement.fee, 0]);
        }
    }

    pub fn settled(&mut self, charge: &Charge, as_movement: &Movement) {
        let (fee, net) = (as_movement.fee, as_movement.net());
        self.add("charges_settled", &[charge.live.into(), charge.currency.into()], [1, fee, net]);
        let day = charge.created.div_euclid(DAY_SECONDS);
        if let Some(rate) = as_movement.rate.filter(|_| charge.live && self.rated.insert((charge.currency, day))) {
            self.add("settled_rates", &[as_movement.currency.into(), charge.currency.into()], [1, rate, 0]);
        }
    }

    pub fn paid_out(&mut self, movement: &Movement) {
        if !movement.kind.starts_with("payout") {
            let keys = [movement.currency.into(), movement.kind.into()];
            self.add("payout_parts", &keys, [1, movement.amount, movement.fee]);
        }
    }

    pub fn payout(&mut self, payout: &Payout, before: Option<&'static str>) {
        for (status, by) in before.map(|b| (b, -1)).into_iter().chain([(payout.status, 1)]) {
            self.add("payouts", &[payout.currency.into(), status.into()], [by, by * payout.amount, 0]);
        }
    }

    pub fn dispute(&mut self, charge: &Charge, dispute: &Dispute, before: Option<&'static str>) {
        let taken = if dispute.withdrawn { -withdrawal(charge, dispute).amount } else { 0 };
        let left = if dispute.reinstated.is_some() { 0 } else { taken };
        for (status, by, kept) in before.map(|b| (b, -1, taken)).into_iter().chain([(dispute.status, 1, left)]) {
            let keys = [charge.live.into(), charge.currency.into(), status.into()];
            self.add("disputes", &keys, [by, by * charge.amount, by * kept]);
        }
    }

    pub fn warned(&mut self, actionable: bool, by: i64) {
        self.count("early_fraud_warnings", &[actionable.into()], by);
    }

    pub fn reviewed(&mut self, live: bool, open: bool, by: i64) {
        self.count("reviews", &[live.into(), open.into()], by);
    }

    /// The subscription as it stands now. `second`, since 1970: what lasted for none is no span of time.
    pub fn subscription(&mut self, subscription: &mut Subscription, currency: &'static str, second: i64) {
        let span = Span { second, status: subscription.status, cancels: subscription.cancels };
        let [before, last] = &mut subscription.spans;
        let differs = |a: &Option<Span>, b: &Option<Span>| {
            let what = |span: &Option<Span>| span.map(|s| (s.status, s.cancels));
            what(a) != what(b)
        };
        match last.filter(|last| last.second == second) {
            Some(short) if differs(before, last) => {
                self.count("subscription_intervals", &[short.status.into()], -1);
            }
            Some(_) => {}
            None => *before = *last,
        }
        *last = Some(span);
        if differs(before, last) {
            self.count("subscription_intervals", &[span.status.into()], 1);
        }
        let before = subscription.counted.replace(subscription.status);
        if before == Some(subscription.status) {
            return;
        }
        let list = micros(subscription.list, currency);
        let off = subscription.discount.as_ref().map_or(0, |_| list * MEMBERS_COUPON.1 / 100);
        let monthly = list - off;
        let brings = |status| if matches!(status, "active" | "past_due") { monthly } else { 0 };
        for (status, by) in before.map(|b| (b, -1)).into_iter().chain([(subscription.status, 1)]) {
            self.add("subscriptions", &[currency.into(), status.into()], [by, by * brings(status), 0]);
        }
        let kind = match (before.map_or(0, brings), brings(subscription.status)) {
            (0, 1..) => "new",
            (1.., 0) => "churn",
            _ => return,
        };
        self.add("mrr_movements", &[currency.into(), kind.into()], [1, monthly, 0]);
    }

    /// The subscription's invoice as it stands now.
    pub fn invoice(&mut self, subscription: &mut Subscription, currency: &'static str) {
        let (amount, tax) = (subscription.amount, subscription.tax());
        let Some(invoice) = &mut subscription.invoice else { return };
        let status = invoice.status();
        let before = invoice.counted.replace(status);
        if before == Some(status) {
            return;
        }
        if let (None, Some(tax)) = (before, tax) {
            self.add("invoice_taxes", &[currency.into()], [1, tax, amount - tax]);
        }
        for (status, by) in before.map(|b| (b, -1)).into_iter().chain([(status, 1)]) {
            let paid = if status == "paid" { amount } else { 0 };
            self.add("invoices", &[currency.into(), status.into()], [by, by * amount, by * paid]);
        }
        if status == "paid" {
            self.add("invoice_payments", &[currency.into()], [1, amount, 0]);
            self.count("invoices_recovered", &[currency.into()], i64::from(invoice.attempts > 1));
        }
    }

    /// Drops what nothing more can change: memory follows the shop's state, not its history.
    pub fn forget_what_is_settled(&mut self, now: i64) {
        self.carts.retain(|_, at| *at > now - 72 * HOUR);
        let seconds = now / 1_000_000;
        self.groups.retain(|_, group| group.last > seconds - 2 * DAY_SECONDS);
        self.visits.forget_what_is_settled(now);
    }
}
