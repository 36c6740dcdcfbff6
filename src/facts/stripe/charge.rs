//! Charges: their own rows, the attempts they are, and what they tell of their intent and their refunds.

use super::{
    DecodeError, Event, Mark, Message, Metadata, Part, Saw, Seen, Step, Table, attempt,
    balance::{self, Transaction},
    parts::{Billing, Card, MethodDetails, Outcome},
    refund::{self, Refund},
};
use crate::{
    base::{Currency, Micros, PersonId, time::MINUTE},
    facts::{
        identity::IdentifierKind,
        json::{Amount, Flag, Identified, List, Maybe, OnlyId, Reference, Text, Whole, object},
        observation::Fact,
        rows,
    },
};

object! {
    #[derive(Clone)]
    pub(super) struct Charge<'a> {
        pub id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        amount_captured: Amount,
        amount_refunded: Amount,
        balance_transaction: Reference<'a, Transaction<'a>>,
        pub billing_details: Maybe<Billing<'a>>,
        captured: Flag,
        /// The card itself, before there was `source`.
        pub card: Maybe<Card<'a>>,
        pub created: Whole,
        currency: Text<'a>,
        customer: Reference<'a, OnlyId<'a>>,
        dispute: Reference<'a, OnlyId<'a>>,
        disputed: Flag,
        pub failure_code: Text<'a>,
        pub invoice: Reference<'a, OnlyId<'a>>,
        pub metadata: Maybe<Metadata<'a>>,
        pub outcome: Maybe<Outcome<'a>>,
        paid: Flag,
        pub payment_intent: Reference<'a, OnlyId<'a>>,
        pub payment_method_details: Maybe<MethodDetails<'a>>,
        receipt_email: Text<'a>,
        refunded: Flag,
        refunds: List<Maybe<Refund<'a>>>,
        shipping: Maybe<Billing<'a>>,
        pub source: Maybe<Card<'a>>,
        status: Text<'a>,
    }
}

impl Identified for Charge<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

/// What a charge's two rows share.
pub(super) struct Payment {
    pub amount: i64,
    pub currency: Currency,
    pub customer_id: Option<String>,
    pub person: Option<(u8, PersonId)>,
    pub email_hash: Option<String>,
    pub phone_hash: Option<String>,
    pub billing_country: Option<String>,
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Charge> = Message::of(event)?;
    let charge = &message.object;
    if charge.object.get().is_some_and(|o| o != "charge") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", charge.id.get())?;
    let (phase, rank) = match event.kind() {
        "charge.pending" => (0, 0),
        "charge.succeeded" | "charge.failed" => (0, 1),
        "charge.captured" => (1, 2),
        "charge.updated" => (1, 3),
        "charge.refunded" => (1, 4),
        _ => (1, 5),
    };
    let automatic = phase == 0 && charge.is_of_now(event) && message.is_unasked();
    record(event, charge, Seen::own(state, prior), phase, rank, automatic)?;
    // A refund that the charge only counts is no row of its own.
    let listed = refund::carried(event, charge)?;
    let total = event.amount("data.object.amount_refunded", &charge.amount_refunded)?.unwrap_or(0);
    if total > listed && charge.is_captured() {
        refund::counted(event, charge, id, total, Seen::own(state, prior))?;
    }
    Ok(true)
}

/// A charge within an intent's event. One that was not told in full says nothing.
pub(super) fn carried(event: &mut Event, charge: &Charge) -> Result<(), DecodeError> {
    let Some(id) = charge.id.get().filter(|_| !matches!(charge.amount, Amount::Absent)) else { return Ok(()) };
    record(event, charge, Seen::carried(event, id), 1, 0, false)?;
    refund::carried(event, charge)?;
    Ok(())
}

/// `automatic`: the event tells of a try that nobody asked for.
fn record(
    event: &mut Event,
    charge: &Charge,
    seen: Seen,
    phase: u8,
    rank: u8,
    automatic: bool,
) -> Result<(), DecodeError> {
    let id = event.required("data.object.id", charge.id.get())?;
    let payment = charge.payment(event)?;
    let settled = u8::from(charge.status() != "pending");
    // A total falls when a refund fails, but each refund raises it.
    let refunded = event.amount("data.object.amount_refunded", &charge.amount_refunded)?;
    let raised = refunded.filter(|_| event.kind() == "charge.refunded");
    let progress = [Some(i64::from(charge.captured.is_true())), raised, None];
    let step = Step { settled, phase, rank, progress, ..Step::default() };
    let attempt = attempt::of_charge(event, charge, &payment, id);
    if let Some(intent) = charge.payment_intent.id() {
        let at = charge.created.seconds().unwrap_or(event.at());
        let country = payment.billing_country.clone().or(attempt.card_country.clone());
        let (failure, person) = (attempt::failure(&attempt), payment.person.clone());
        let fact = Fact::Attempt { whole: true, failure, country, person };
        event.add_part(Table::PaymentIntents, intent, Part { id: id.to_owned(), at, fact });
    }
    if let Some(transaction) = charge.balance_transaction.object() {
        balance::carried(event, transaction)?;
    }
    let row = charge.row(event, payment, id)?;
    // Any other event may come long after: that of a refund does not tell when what it pays back was taken.
    let tells = matches!(event.kind(), "charge.succeeded" | "charge.captured" | "payment_intent.succeeded");
    let captured = (charge.is_captured() && tells).then_some((Mark::Captured, event.at()));
    let unborn = charge.created.0.is_none().then_some((Mark::Seen, event.at()));
    let marks = captured.into_iter().chain(unborn).collect();
    let again = Seen { ..seen };
    event.saw(Saw { table: Table::Charges, id: id.to_owned(), seen, step, marks, parts: Vec::new(), row: row.into() });
    let automatic = automatic.then_some((Mark::Automatic, event.at()));
    let marks = unborn.into_iter().chain(automatic).collect();
    let (table, id, row) = (Table::PaymentAttempts, id.to_owned(), attempt.into());
    event.saw(Saw { table, id, seen: again, step, marks, parts: Vec::new(), row });
    Ok(())
}

impl Charge<'_> {
    /// `succeeded`, `pending` or `failed`; by other fields where a version has no status, or writes `paid`.
    pub fn status(&self) -> &str {
        match self.status.get() {
            Some("paid") => "succeeded",
            Some(status) => status,
            None if self.paid.is_true() => "succeeded",
            None if self.paid.0 == Some(false) || self.failure_code.get().is_some() => "failed",
            None => "pending",
        }
    }

    /// Whether the event tells of the try itself, and not of an answer that came days later.
    fn is_of_now(&self, event: &Event) -> bool {
        self.created.seconds().is_some_and(|created| event.at().0 - created.0 < MINUTE)
    }

    pub fn is_captured(&self) -> bool {
        self.captured.is_true() && self.status() == "succeeded"
    }

    pub fn refunds(&self) -> impl Iterator<Item = &Refund<'_>> {
        self.refunds.iter().filter_map(Maybe::get)
    }

    /// Amount, currency and payer. What it tells of the payer is kept with the event.
    fn payment(&self, event: &mut Event) -> Result<Payment, DecodeError> {
        let amount = event.required("data.object.amount", event.amount("data.object.amount", &self.amount)?)?;
        let currency = event.currency("data.object.currency", self.currency.get())?;
        let currency = event.required("data.object.currency", currency)?;
        let mut someone = event.someone();
        let owner = self.source.get().and_then(Card::owner);
        let billing = self.billing_details.get().or(owner);
        let shipping = self.shipping.get();
        let billing_country = someone.lives_in(billing.and_then(Billing::country));
        if billing_country.is_none() {
            someone.lives_in(shipping.and_then(Billing::country));
        }
        let email = billing.and_then(|b| b.email.get()).or(self.receipt_email.get());
        let phone = billing.and_then(|b| b.phone.get()).or(shipping.and_then(|s| s.phone.get()));
        let email_hash = someone.email(email);
        let phone_hash = someone.phone(phone, billing_country.as_deref());
        someone.known_as(IdentifierKind::Customer, self.customer.id());
        if self.status() == "succeeded" {
            someone.pays_in(currency);
        }
        if let Some(metadata) = self.metadata.get() {
            metadata.name_payer(&mut someone);
        }
        someone.named(billing.and_then(|b| b.name.get()).or(shipping.and_then(|s| s.name.get())));
        let person = someone.ranked();
        event.keep(someone);
        let customer_id = self.customer.id_owned();
        Ok(Payment { amount, currency, customer_id, person, email_hash, phone_hash, billing_country })
    }

    fn row(&self, event: &Event, payment: Payment, id: &str) -> Result<rows::Charge, DecodeError> {
        let captured = if self.is_captured() { payment.amount } else { 0 };
        let settled = self.balance_transaction.object();
        let metadata = self.metadata.get();
        Ok(rows::Charge {
            charge_id: id.to_owned(),
            created_at: self.created.seconds(),
            captured_at: None,
            status: self.status().to_owned(),
            amount: payment.amount,
            amount_captured: event.amount("data.object.amount_captured", &self.amount_captured)?.unwrap_or(captured),
            amount_refunded: event.amount("data.object.amount_refunded", &self.amount_refunded)?.unwrap_or(0),
            currency: payment.currency,
            fee: settled.map_or(Ok(None), |b| event.signed_amount("balance_transaction.fee", &b.fee))?,
            net: settled.map_or(Ok(None), |b| event.signed_amount("balance_transaction.net", &b.net))?,
            settlement_currency: event
                .currency("balance_transaction.currency", settled.and_then(|b| b.currency.get()))?,
            exchange_rate: settled.and_then(|b| b.exchange_rate.0),
            balance_transaction_id: self.balance_transaction.id_owned(),
            captured: self.is_captured(),
            refunded: self.refunded.is_true(),
            // Versions without the flag name the dispute alone.
            disputed: self.disputed.0.unwrap_or(!matches!(self.dispute, Reference::Nothing)),
            failure_code: self.failure_code.owned(),
            payment_intent_id: self.payment_intent.id_owned(),
            invoice_id: self.invoice.id_owned(),
            customer_id: payment.customer_id,
            person_id: payment.person.map(|(_, person)| person),
            email_hash: payment.email_hash,
            billing_country: payment.billing_country,
            cart_id: event.reference(metadata.and_then(Metadata::cart)),
            order_ref: event.reference(metadata.and_then(Metadata::order)),
            external_ref: event.reference(metadata.and_then(Metadata::external)),
            order_ambiguous: false,
        })
    }

    /// What an id of the intent or the charge says a refund pays back.
    pub fn order(&self) -> Option<String> {
        self.payment_intent.id_owned().or(self.id.owned())
    }

    pub fn created_at(&self) -> Option<Micros> {
        self.created.seconds()
    }

    pub fn currency_text(&self) -> Option<&str> {
        self.currency.get()
    }
}
