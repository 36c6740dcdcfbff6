//! Customers, checkout sessions, subscriptions and their invoices, as Stripe's webhooks send them.
//!
//! An intent and its invoice name each other only in the old version; in the new one `invoice_payment` joins them.

use super::{
    catalog,
    people::Person,
    sale::{Discount, Purchase, Subscription},
    shape::Slot,
    stripe_json::{Version, address, metadata, method_types, shape, shipping},
};

shape!(CUSTOMER, "shapes/customer.json");
shape!(SESSION, "shapes/checkout_session.json");
shape!(COUPON, "shapes/coupon.json");
shape!(DISCOUNT, "shapes/discount.json");
shape!(SUBSCRIPTION, "shapes/subscription.json");
shape!(INVOICE, "shapes/invoice.json");
shape!(INVOICE_PAYMENT, "shapes/invoice_payment.json");

/// How much a customer has told by now.
pub(super) struct CustomerState<'a> {
    pub email: &'a str,
    pub created: i64,
    pub live: bool,
    pub addressed: bool,
    pub method: Option<&'a str>,
}

pub(super) fn customer(person: &Person, state: &CustomerState, out: &mut Vec<u8>) {
    let user = person.user.as_ref().map(|u| format!(r#"{{"user_id":"{u}"}}"#));
    let write_address = |out: &mut Vec<u8>| address(person, out);
    let write_shipping = |out: &mut Vec<u8>| shipping(person, out);
    CUSTOMER.fill(
        &[
            ("id", (&person.customer).into()),
            ("address", if state.addressed { Slot::Write(&write_address) } else { Slot::Null }),
            ("created", state.created.into()),
            ("email", state.email.into()),
            ("invoice_prefix", person.customer[4..12].to_ascii_uppercase().as_str().into()),
            ("default_payment_method", state.method.into()),
            ("livemode", state.live.into()),
            ("metadata", Slot::Json(user.as_deref().unwrap_or("{}"))),
            ("name", (&person.name).into()),
            ("phone", person.phone.as_ref().filter(|_| state.addressed).into()),
            ("locale", person.country.locale.into()),
            ("shipping", if state.addressed { Slot::Write(&write_shipping) } else { Slot::Null }),
        ],
        out,
    );
}

/// A session that is over: `complete` or `expired`.
pub(super) fn session(person: &Person, of: &Purchase, paid: bool, complete: bool, out: &mut Vec<u8>) {
    let Some(one) = &of.session else { return Slot::Null.write(out) };
    let details = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"address":"#);
        address(person, out);
        for (key, value) in
            [("email", Some(&*of.email)), ("name", Some(&*person.name)), ("phone", person.phone.as_deref())]
        {
            out.extend_from_slice(format!(",\"{key}\":").as_bytes());
            Slot::from(value).write(out);
        }
        out.extend_from_slice(br#","business_name":null,"individual_name":null,"tax_exempt":"none","tax_ids":[]}"#);
    };
    let collected = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"business_name":null,"individual_name":null,"shipping_details":{"address":"#);
        address(person, out);
        out.extend_from_slice(br#","name":"#);
        Slot::from(&person.name).write(out);
        out.extend_from_slice(b"}}");
    };
    let method = of.intent.as_ref().and_then(|i| i.latest_charge.as_deref()).map(|c| &c.method);
    let told = complete || of.intent.is_some();
    SESSION.fill(
        &[
            ("id", (&one.id).into()),
            ("amount", of.amount.into()),
            ("client_reference_id", of.order.cart.as_ref().into()),
            ("collected", if told { Slot::Write(&collected) } else { Slot::Null }),
            ("created", one.created.into()),
            ("currency", of.currency.into()),
            ("customer", of.customer.as_ref().into()),
            ("customer_details", if told { Slot::Write(&details) } else { Slot::Null }),
            ("expires_at", one.expires.into()),
            ("livemode", of.live.into()),
            ("locale", person.country.locale.into()),
            ("metadata", Slot::Write(&|out| metadata(&of.order, out))),
            ("payment_intent", of.intent.as_ref().map(|i| &i.id).into()),
            ("payment_method_types", Slot::Json(method_types(method))),
            ("payment_status", if paid { "paid" } else { "unpaid" }.into()),
            ("status", if complete { "complete" } else { "expired" }.into()),
        ],
        out,
    );
}

pub(super) fn subscription(person: &Person, of: &Subscription, out: &mut Vec<u8>, version: Version) {
    let (amount, price) = (of.list.to_string(), of.price());
    let seconds = |micros: Option<i64>| micros.map(|m| m / 1_000_000);
    SUBSCRIPTION.fill(
        &[
            ("id", (&of.id).into()),
            ("created", of.created.into()),
            ("cancel_at", of.cancels.then_some(of.period.1).into()),
            ("cancel_at_period_end", of.cancels.into()),
            ("canceled_at", seconds(of.canceled_at).into()),
            ("feedback", of.feedback.into()),
            ("cancel_reason", of.cancel_reason.into()),
            ("currency", person.country.currency.into()),
            ("customer", (&person.customer).into()),
            ("payment_method", of.method_id.as_ref().into()),
            ("discounts", Slot::Write(&|out| discounts(person, of, version, out))),
            ("ended_at", seconds(of.ended_at).into()),
            ("item", (&of.item).into()),
            ("period_end", of.period.1.into()),
            ("period_start", of.period.0.into()),
            ("old_periods", Slot::Json(&old_periods(of, version))),
            ("price", (&price).into()),
            ("amount", of.list.into()),
            ("amount_text", (&amount).into()),
            ("product", of.plan.0.into()),
            ("latest_invoice", of.invoice.as_ref().map(|i| &i.id).into()),
            ("status", of.status.into()),
        ],
        out,
    );
}

/// Before 2024 a subscription showed its one discount whole; since 2025-03-31 it names all by their ids.
fn discounts(person: &Person, of: &Subscription, version: Version, out: &mut Vec<u8>) {
    match (version, &of.discount) {
        (Version::New, _) => out.extend_from_slice(format!(r#""discounts":{}"#, discount_ids(of)).as_bytes()),
        (Version::Old, Some(one)) => {
            out.extend_from_slice(br#""discount":"#);
            discount(person, of, one, version, out);
        }
        (Version::Old, None) => out.extend_from_slice(br#""discount":null"#),
    }
}

fn discount_ids(of: &Subscription) -> String {
    of.discount.as_ref().map_or("[]".to_owned(), |one| format!(r#"["{}"]"#, one.id))
}

pub(super) fn discount(person: &Person, of: &Subscription, one: &Discount, version: Version, out: &mut Vec<u8>) {
    let coupon = |out: &mut Vec<u8>| match version {
        Version::New => out.extend_from_slice(
            format!(r#""source":{{"coupon":"{}","type":"coupon"}}"#, catalog::MEMBERS_COUPON.0).as_bytes(),
        ),
        Version::Old => {
            out.extend_from_slice(br#""coupon":"#);
            self::coupon(one.offered, out);
        }
    };
    DISCOUNT.fill(
        &[
            ("id", (&one.id).into()),
            ("coupon", Slot::Write(&coupon)),
            ("customer", (&person.customer).into()),
            ("start", of.created.into()),
            ("subscription", (&of.id).into()),
        ],
        out,
    );
}

/// The members' coupon.
pub(super) fn coupon(created: i64, out: &mut Vec<u8>) {
    let (id, percent) = catalog::MEMBERS_COUPON;
    COUPON.fill(&[("id", id.into()), ("created", created.into()), ("percent_off", percent.into())], out);
}

/// Before 2025-03-31 the period stood on the subscription itself.
fn old_periods(of: &Subscription, version: Version) -> String {
    match version {
        Version::Old => format!(r#""current_period_end":{},"current_period_start":{},"#, of.period.1, of.period.0),
        Version::New => String::new(),
    }
}

/// The subscription's current invoice.
pub(super) fn invoice(person: &Person, email: &str, of: &Subscription, out: &mut Vec<u8>, version: Version) {
    let Some(one) = &of.invoice else { return Slot::Null.write(out) };
    let (amount, price) = (of.list.to_string(), of.price());
    let off = of.discount.as_ref().map(|d| format!(r#"[{{"amount":{},"discount":"{}"}}]"#, of.list - of.amount, d.id));
    let (off, discounts) = (off.as_deref().unwrap_or("[]"), discount_ids(of));
    let number = format!("{}-{:04}", person.customer[4..12].to_ascii_uppercase(), of.cycle + 1);
    let (paid, finalized) = (one.paid_at.is_some(), one.finalized_at.is_some());
    let parent = match version {
        Version::New => format!(
            r#""parent":{{"quote_details":null,"subscription_details":{{"metadata":{{}},"subscription":"{}"}},"type":"subscription_details"}}"#,
            of.id
        ),
        Version::Old => format!(
            r#""charge":null,"paid":{paid},"payment_intent":{},"subscription":"{}""#,
            one.intent.as_ref().map_or("null".to_owned(), |i| format!("\"{i}\"")),
            of.id
        ),
    };
    let [taxes, line_taxes] = taxes(of, version);
    let untaxed = of.tax().unwrap_or(0);
    INVOICE.fill(
        &[
            ("id", (&one.id).into()),
            ("amount", of.amount.into()),
            ("amount_paid", if paid { of.amount } else { 0 }.into()),
            ("amount_remaining", if paid { 0 } else { of.amount }.into()),
            ("attempt_count", one.attempts.into()),
            ("attempted", (one.attempts > 0).into()),
            ("auto_advance", (!paid).into()),
            ("billing_reason", if of.cycle == 0 { "subscription_create" } else { "subscription_cycle" }.into()),
            ("created", one.created.into()),
            ("currency", person.country.currency.into()),
            ("customer", (&person.customer).into()),
            ("address", Slot::Write(&|out| address(person, out))),
            ("email", email.into()),
            ("name", (&person.name).into()),
            ("phone", person.phone.as_ref().into()),
            ("discounts", Slot::Json(&discounts)),
            ("finalized_at", one.finalized_at.into()),
            ("list_amount", of.list.into()),
            ("discount_amounts", Slot::Json(off)),
            ("line", one.id.replace("in_", "il_").as_str().into()),
            ("plan", of.plan.1.into()),
            ("subscription", (&of.id).into()),
            ("item", (&of.item).into()),
            ("period_end", of.period.1.into()),
            ("period_start", of.period.0.into()),
            ("price", (&price).into()),
            ("product", of.plan.0.into()),
            ("amount_text", (&amount).into()),
            ("line_taxes", Slot::Json(&line_taxes)),
            ("next_payment_attempt", one.next_attempt.into()),
            ("number", finalized.then_some(&number).into()),
            ("parent", Slot::Json(&parent)),
            ("status", one.status().into()),
            ("paid_at", one.paid_at.into()),
            ("untaxed", (of.amount - untaxed).into()),
            ("taxes", Slot::Json(&taxes)),
        ],
        out,
    );
}

/// Of an invoice and of its line: since 2025-03-31 a tax names its rate within details of its own.
fn taxes(of: &Subscription, version: Version) -> [String; 2] {
    let (rate, _) = catalog::TAX;
    let one = |tax: i64| {
        let common =
            format!(r#""amount":{tax},"taxability_reason":"standard_rated","taxable_amount":{}"#, of.amount - tax);
        match version {
            Version::Old => format!(r#"{{{common},"inclusive":true,"tax_rate":"{rate}"}}"#),
            Version::New => format!(
                r#"{{{common},"tax_behavior":"inclusive","tax_rate_details":{{"tax_rate":"{rate}"}},"type":"tax_rate_details"}}"#
            ),
        }
    };
    let all = of.tax().map(one).unwrap_or_default();
    let [whole, line] = match version {
        Version::Old => ["total_tax_amounts", "tax_amounts"],
        Version::New => ["total_taxes", "taxes"],
    };
    [whole, line].map(|key| format!(r#""{key}":[{all}]"#))
}

pub(super) fn invoice_payment(of: &Subscription, currency: &str, intent: &str, out: &mut Vec<u8>) {
    let Some(one) = &of.invoice else { return Slot::Null.write(out) };
    INVOICE_PAYMENT.fill(
        &[
            ("id", one.id.replace("in_", "inpay_").as_str().into()),
            ("amount", of.amount.into()),
            ("created", one.created.into()),
            ("currency", currency.into()),
            ("invoice", (&one.id).into()),
            ("payment_intent", intent.into()),
            ("paid_at", one.paid_at.into()),
        ],
        out,
    );
}
