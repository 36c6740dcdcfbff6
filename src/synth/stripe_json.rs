//! Stripe's events and payment intents as its webhooks send them, in the account's old API version and in its new one.
//!
//! Shapes follow `docs.stripe.com/api` (objects of 2026-07-29); in 2022-08-01 an intent still carries its charges, and a
//! charge its refunds and its invoice. All of it is synthetic.

use super::{
    charge_json,
    letter::{Again, Letter},
    people::Person,
    sale::{Failure, Intent, Method, Order, Purchase, Status},
    shape::{Shape, Slot},
};

/// Under which the account's events are written; it was upgraded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Old,
    New,
}

impl Version {
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Old => "2022-08-01",
            Version::New => "2026-07-29.dahlia",
        }
    }
}

/// A shape by the name of its file.
macro_rules! shape {
    ($name:ident, $file:literal) => {
        static $name: std::sync::LazyLock<crate::synth::shape::Shape> =
            std::sync::LazyLock::new(|| crate::synth::shape::Shape::parse(include_str!($file)));
    };
}
pub(super) use shape;

shape!(ADDRESS, "shapes/address.json");
shape!(BILLING, "shapes/billing_details.json");
shape!(SHIPPING, "shapes/shipping.json");
shape!(INTENT, "shapes/payment_intent.json");
shape!(INTENT_OLD, "shapes/payment_intent_2022.json");
shape!(ERROR, "shapes/payment_error.json");
shape!(ERROR_CARD, "shapes/error_card.json");
shape!(NEXT_ACTION, "shapes/next_action.json");

/// Writes an object in a version.
pub(super) type Object<'a> = dyn Fn(&mut Vec<u8>, Version) + 'a;

/// What surrounds an object in an event.
pub(super) struct Event<'a> {
    pub id: String,
    pub version: Version,
    /// Seconds since 1970.
    pub created: i64,
    pub kind: &'a str,
    pub live: bool,
    /// The API request behind it and that one's idempotency key, where a request was.
    pub request: Option<(String, String)>,
    /// What an `updated` event says of before.
    pub previous: Option<&'a str>,
    /// Of what was listed as a part of it.
    pub payout: Option<&'a str>,
}

impl Event<'_> {
    pub fn letter(&self, object: &Object) -> Letter {
        let mut line = Vec::with_capacity(4_096);
        let text = |line: &mut Vec<u8>, text: &str| line.extend_from_slice(text.as_bytes());
        text(&mut line, r#"{"id":"#);
        let id = line.len() + 1..line.len() + 1 + self.id.len();
        Slot::from(&self.id).write(&mut line);
        text(&mut line, r#","object":"event","api_version":"#);
        Slot::from(self.version.as_str()).write(&mut line);
        text(&mut line, r#","created":"#);
        Slot::from(self.created).write(&mut line);
        text(&mut line, r#","data":{"object":"#);
        object(&mut line, self.version);
        if let Some(previous) = self.previous {
            text(&mut line, r#","previous_attributes":"#);
            text(&mut line, previous);
        }
        text(&mut line, r#"},"livemode":"#);
        Slot::from(self.live).write(&mut line);
        text(&mut line, r#","pending_webhooks":"#);
        let pending = line.len();
        text(&mut line, r#"1,"request":{"id":"#);
        Slot::from(self.request.as_ref().map(|r| &r.0)).write(&mut line);
        text(&mut line, r#","idempotency_key":"#);
        Slot::from(self.request.as_ref().map(|r| &r.1)).write(&mut line);
        text(&mut line, r#"},"type":"#);
        Slot::from(self.kind).write(&mut line);
        if let Some(payout) = self.payout {
            text(&mut line, r#","payout":"#);
            Slot::from(payout).write(&mut line);
        }
        line.push(b'}');
        Letter { line, id: Some(id), again: Again::Pending(pending) }
    }
}

pub(super) fn address(person: &Person, out: &mut Vec<u8>) {
    let (city, postal_code, state) = *person.town;
    ADDRESS.fill(
        &[
            ("city", city.into()),
            ("country", person.country.code.into()),
            ("line1", (&person.street).into()),
            ("postal_code", postal_code.into()),
            ("state", (!state.is_empty()).then_some(state).into()),
        ],
        out,
    );
}

pub(super) fn shipping(person: &Person, out: &mut Vec<u8>) {
    contact(person, "", &SHIPPING, out);
}

pub(super) fn billing(person: &Person, email: &str, out: &mut Vec<u8>) {
    contact(person, email, &BILLING, out);
}

fn contact(person: &Person, email: &str, shape: &Shape, out: &mut Vec<u8>) {
    shape.fill(
        &[
            ("address", Slot::Write(&|out| address(person, out))),
            ("email", email.into()),
            ("name", (&person.name).into()),
            ("phone", person.phone.as_ref().into()),
        ],
        out,
    );
}

/// What the shop wrote on the payment, to find its own records again.
pub(super) fn metadata(order: &Order, out: &mut Vec<u8>) {
    let pairs = [
        ("\"cart_id\":", order.cart.as_ref()),
        ("\"order_id\":", order.order.as_ref()),
        ("\"ip\":", order.ip.as_ref()),
    ];
    out.push(b'{');
    let mut comma = false;
    for (key, value) in pairs {
        let Some(value) = value else { continue };
        out.extend_from_slice(if comma { b"," } else { b"" });
        out.extend_from_slice(key.as_bytes());
        Slot::from(value).write(out);
        comma = true;
    }
    out.push(b'}');
}

/// The intent of a purchase. An address is told where there is no customer to look it up at.
pub(super) fn intent(person: &Person, of: &Purchase, out: &mut Vec<u8>, version: Version) {
    let Some(intent) = &of.intent else { return Slot::Null.write(out) };
    let shape: &Shape = if version == Version::Old { &INTENT_OLD } else { &INTENT };
    let charge = intent.latest_charge.as_deref();
    let capturable = if intent.status == Status::RequiresCapture { of.amount } else { 0 };
    let method = charge.filter(|_| intent.status != Status::RequiresPaymentMethod);
    let off_session = of.invoice.is_some();
    let automatic = r#"{"allow_redirects":"always","enabled":true}"#;
    let write_charge =
        |out: &mut Vec<u8>| charge.into_iter().for_each(|c| charge_json::charge(person, c, out, version));
    let write_error =
        |out: &mut Vec<u8>| intent.error.iter().for_each(|e| error(person, of, intent.created, e, out, version));
    let write_shipping = |out: &mut Vec<u8>| shipping(person, out);
    let write_action = |out: &mut Vec<u8>| next_action(intent, out);
    shape.fill(
        &[
            ("id", (&intent.id).into()),
            ("amount", of.amount.into()),
            ("amount_capturable", capturable.into()),
            ("amount_received", intent.received.into()),
            ("automatic", if off_session { Slot::Null } else { Slot::Json(automatic) }),
            ("canceled_at", intent.canceled_at.into()),
            ("cancellation_reason", intent.cancellation.into()),
            ("capture_method", if of.captures_later { "manual" } else { "automatic_async" }.into()),
            ("charge", Slot::Write(&write_charge)),
            ("charges", i64::from(charge.is_some()).into()),
            ("secret", intent.id.get(6..).into()),
            ("created", intent.created.into()),
            ("currency", of.currency.into()),
            ("customer", of.customer.as_ref().into()),
            ("description", of.description().into()),
            ("invoice", of.invoice.as_ref().into()),
            ("error", if intent.error.is_some() { Slot::Write(&write_error) } else { Slot::Null }),
            ("latest_charge", charge.map(|c| &c.id).into()),
            ("livemode", of.live.into()),
            ("metadata", Slot::Write(&|out| metadata(&of.order, out))),
            (
                "next_action",
                if intent.status == Status::RequiresAction { Slot::Write(&write_action) } else { Slot::Null },
            ),
            ("payment_method", method.map(|c| &c.method_id).into()),
            ("payment_method_types", Slot::Json(method_types(charge.map(|c| &c.method)))),
            ("processing", Slot::Null),
            ("receipt_email", of.customer.is_none().then_some(&of.email).into()),
            ("setup_future_usage", of.customer.is_some().then_some("off_session").into()),
            ("shipping", if off_session { Slot::Null } else { Slot::Write(&write_shipping) }),
            ("status", intent.status.as_str().into()),
        ],
        out,
    );
}

pub(super) fn method_types(method: Option<&Method>) -> &'static str {
    match method {
        Some(Method::Debit { .. }) => r#"["card","sepa_debit"]"#,
        Some(Method::PayPal) => r#"["card","link","paypal"]"#,
        _ => r#"["card","link"]"#,
    }
}

fn next_action(intent: &Intent, out: &mut Vec<u8>) {
    let source = intent.id.replace("pi_", "payatt_");
    NEXT_ACTION.fill(&[("transaction", (&intent.id).into()), ("source", (&source).into())], out);
}

/// `last_payment_error`. A failed authentication names no charge, for there is none; nor does, in the new version, a bank
/// that wants its customer present, though there is one.
fn error(person: &Person, of: &Purchase, created: i64, failure: &Failure, out: &mut Vec<u8>, version: Version) {
    let Failure { code, decline, advice, message, charge, method, method_id } = failure;
    let named = |key: &str, value: Option<&str>| value.map(|v| format!("\"{key}\":\"{v}\",")).unwrap_or_default();
    let charge =
        named("charge", charge.as_deref().filter(|_| version == Version::Old || *code != "authentication_required"));
    let unauthenticated = *code == "payment_intent_authentication_failure";
    let write_details = |out: &mut Vec<u8>| error_details(method, out);
    ERROR.fill(
        &[
            ("advice_code", (*advice).into()),
            ("charge", Slot::Json(&charge)),
            ("code", (*code).into()),
            ("decline_code", Slot::Json(&named("decline_code", *decline))),
            ("doc", if unauthenticated { "payment-intent-authentication-failure" } else { "card-declined" }.into()),
            ("message", (*message).into()),
            ("payment_method", method_id.into()),
            ("billing_details", Slot::Write(&|out| billing(person, &of.email, out))),
            ("details", Slot::Write(&write_details)),
            ("created", created.into()),
            ("customer", of.customer.as_ref().into()),
            ("livemode", of.live.into()),
            ("kind", method.kind().into()),
            ("error_type", if unauthenticated { "invalid_request_error" } else { "card_error" }.into()),
        ],
        out,
    );
}

fn error_details(method: &Method, out: &mut Vec<u8>) {
    match method {
        Method::Card { card, wallet } => ERROR_CARD.fill(
            &[
                ("brand", card.brand.into()),
                ("country", card.country.into()),
                ("exp_month", card.month.into()),
                ("exp_year", card.year.into()),
                ("fingerprint", (&card.fingerprint).into()),
                ("funding", card.funding.into()),
                ("last4", (&card.last4).into()),
                ("wallet", Slot::Write(&|out| charge_json::wallet(*wallet, out))),
            ],
            out,
        ),
        Method::PayPal => Slot::Json(r#""paypal":{"country":null,"payer_email":null,"payer_id":null}"#).write(out),
        Method::Debit { .. } => Slot::Json(r#""sepa_debit":{"bank_code":"37040044","branch_code":""}"#).write(out),
    }
}
