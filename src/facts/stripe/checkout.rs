//! Checkout sessions. There is no event of their creation: it is known from `created` when they end.

use super::{DecodeError, Event, Mark, Message, Metadata, Part, Saw, Seen, Step, Table, parts::Billing, shown};
use crate::facts::{
    identity::IdentifierKind,
    json::{Amount, Maybe, OnlyId, Reference, Text, Whole, object},
    observation::Fact,
    rows,
};

object! {
    #[derive(Clone)]
    struct Session<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount_subtotal: Amount,
        amount_total: Amount,
        client_reference_id: Text<'a>,
        /// `shipping` before basil, then `shipping_details` at the top.
        collected_information: Maybe<Collected<'a>>,
        created: Whole,
        currency: Text<'a>,
        customer: Reference<'a, OnlyId<'a>>,
        customer_details: Maybe<Billing<'a>>,
        customer_email: Text<'a>,
        expires_at: Whole,
        invoice: Reference<'a, OnlyId<'a>>,
        locale: Text<'a>,
        metadata: Maybe<Metadata<'a>>,
        mode: Text<'a>,
        payment_intent: Reference<'a, OnlyId<'a>>,
        payment_status: Text<'a>,
        presentment_details: Maybe<Presentment<'a>>,
        recovered_from: Text<'a>,
        shipping: Maybe<Billing<'a>>,
        shipping_details: Maybe<Billing<'a>>,
        status: Text<'a>,
        subscription: Reference<'a, OnlyId<'a>>,
        total_details: Maybe<Totals>,
    }
}

object! {
    #[derive(Clone)]
    struct Collected<'a> {
        shipping_details: Maybe<Billing<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct Presentment<'a> {
        presentment_amount: Amount,
        presentment_currency: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    struct Totals {
        amount_discount: Amount,
        amount_shipping: Amount,
        amount_tax: Amount,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Session> = Message::of(event)?;
    let session = &message.object;
    if session.object.get().is_some_and(|o| o != "checkout.session") {
        return Ok(false);
    }
    let id = event.required("data.object.id", session.id.get())?;
    let row = session.row(event, id)?;
    let ended = match row.status.as_deref() {
        Some("complete") => Some(Mark::Completed),
        Some("expired") => Some(Mark::Expired),
        _ => None,
    };
    let unborn = session.created.0.is_none().then_some(Mark::Seen);
    let later = match event.kind() {
        "checkout.session.async_payment_succeeded" => Some(Mark::PaidLater),
        "checkout.session.async_payment_failed" => Some(Mark::FailedLater),
        _ => None,
    };
    let marks = shown(event, ended.into_iter().chain(unborn).chain(later));
    let paid = matches!(session.payment_status.get(), Some("paid" | "no_payment_required"));
    let rank = match event.kind() {
        "checkout.session.completed" => 1,
        "checkout.session.async_payment_failed" => 2,
        "checkout.session.async_payment_succeeded" => 3,
        "checkout.session.expired" => 4,
        _ => 0,
    };
    // What was completed and not yet paid is paid, or not, only after.
    let phase = u8::from(rank == 2 || rank == 3) + 1;
    let progress = [Some(i64::from(paid)), None, None];
    let step = Step { settled: u8::from(ended.is_some()), phase, progress, rank, ..Step::default() };
    let seen = Seen::own(event.envelope.digest, None);
    let (table, id, row) = (Table::Checkouts, id.to_owned(), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

impl Session<'_> {
    /// Versions before 2022 have no status, but no events of open sessions either.
    fn status(&self, event: &Event) -> Option<String> {
        self.status.owned().or_else(|| {
            let ended = match event.kind() {
                "checkout.session.completed"
                | "checkout.session.async_payment_succeeded"
                | "checkout.session.async_payment_failed" => "complete",
                "checkout.session.expired" => "expired",
                _ => return None,
            };
            Some(ended.to_owned())
        })
    }

    fn row(&self, event: &mut Event, id: &str) -> Result<rows::Checkout, DecodeError> {
        let mut someone = event.someone();
        let details = self.customer_details.get();
        let collected = self.collected_information.get().and_then(|c| c.shipping_details.get());
        let shipping = collected.or(self.shipping_details.get()).or(self.shipping.get());
        let country = details.and_then(Billing::country).or(shipping.and_then(Billing::country));
        let country = someone.lives_in(country);
        let email_hash = someone.email(details.and_then(|d| d.email.get()).or(self.customer_email.get()));
        let phone_hash = someone.phone(details.and_then(|d| d.phone.get()), country.as_deref());
        someone.speaks(self.locale.get().filter(|l| *l != "auto"));
        someone.known_as(IdentifierKind::Customer, self.customer.id());
        let metadata = self.metadata.get();
        if let Some(metadata) = metadata {
            metadata.name_payer(&mut someone);
        }
        someone.named(details.and_then(|d| d.name.get()).or(shipping.and_then(|s| s.name.get())));
        let (person_id, person) = (someone.person(), someone.ranked());
        event.keep(someone);
        if let Some(intent) = self.payment_intent.id() {
            let fact = Fact::Payer { country: country.clone(), person };
            event.add_part(Table::PaymentIntents, intent, Part { id: id.to_owned(), at: event.at(), fact });
        }
        let seen = self.presentment_details.get();
        let seen_amount = seen.map(|s| event.amount("data.object.presentment_amount", &s.presentment_amount));
        let seen_currency = seen.and_then(|s| s.presentment_currency.get());
        let totals = self.total_details.get().cloned().unwrap_or_default();
        Ok(rows::Checkout {
            session_id: id.to_owned(),
            created_at: self.created.seconds(),
            expires_at: self.expires_at.seconds(),
            status: self.status(event),
            payment_status: self.payment_status.owned(),
            mode: self.mode.owned(),
            amount_subtotal: event.amount("data.object.amount_subtotal", &self.amount_subtotal)?,
            amount_total: event.amount("data.object.amount_total", &self.amount_total)?,
            amount_tax: event.amount("data.object.total_details.amount_tax", &totals.amount_tax)?,
            amount_discount: event.amount("data.object.total_details.amount_discount", &totals.amount_discount)?,
            amount_shipping: event.amount("data.object.total_details.amount_shipping", &totals.amount_shipping)?,
            currency: event.currency("data.object.currency", self.currency.get())?,
            presentment_amount: seen_amount.transpose()?.flatten(),
            presentment_currency: event.currency("data.object.presentment_currency", seen_currency)?,
            customer_id: self.customer.id_owned(),
            person_id,
            email_hash,
            phone_hash,
            country,
            payment_intent_id: self.payment_intent.id_owned(),
            subscription_id: self.subscription.id_owned(),
            invoice_id: self.invoice.id_owned(),
            recovered_from: self.recovered_from.owned(),
            cart_id: event.reference(metadata.and_then(Metadata::cart).or(self.client_reference_id.get())),
            order_ref: event.reference(metadata.and_then(Metadata::order)),
            external_ref: event.reference(metadata.and_then(Metadata::external)),
            completed_at: None,
            expired_at: None,
            async_result: None,
            order_ambiguous: false,
        })
    }
}
