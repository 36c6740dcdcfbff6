//! Payment intents.

use super::{
    DecodeError, Event, Mark, Message, Metadata, Saw, Seen, Step, Table,
    attempt::{self, PaymentError},
    charge::{self, Charge},
    parts::Billing,
    shown,
};
use crate::facts::{
    identity::IdentifierKind,
    json::{Amount, List, Maybe, OnlyId, Reference, Text, Whole, object},
    observation::Status,
    people::Someone,
    rows::PaymentIntent,
};

object! {
    #[derive(Clone)]
    pub(super) struct Intent<'a> {
        pub id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        amount_received: Amount,
        amount_capturable: Amount,
        canceled_at: Whole,
        cancellation_reason: Text<'a>,
        capture_method: Text<'a>,
        /// Carried along before 2022-11-15.
        charges: List<Maybe<Charge<'a>>>,
        pub created: Whole,
        currency: Text<'a>,
        pub customer: Reference<'a, OnlyId<'a>>,
        pub invoice: Reference<'a, OnlyId<'a>>,
        pub last_payment_error: Maybe<PaymentError<'a>>,
        pub latest_charge: Reference<'a, Charge<'a>>,
        metadata: Maybe<Metadata<'a>>,
        payment_method_types: List<Text<'a>>,
        pub receipt_email: Text<'a>,
        shipping: Maybe<Billing<'a>>,
        pub status: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Intent> = Message::of(event)?;
    let intent = &message.object;
    if intent.object.get().is_some_and(|o| o != "payment_intent") {
        return Ok(false);
    }
    let id = event.required("data.object.id", intent.id.get())?;
    let row = intent.row(event, id)?;
    attempt::of_intent(event, &message, row.amount, row.currency)?;
    for charge in intent.charges() {
        charge::carried(event, charge)?;
    }
    let marks = intent.marks(event);
    let step = intent.step(event, row.amount_received);
    // An intent's events never say what it was before, so what the event says as a whole is digest enough.
    let seen = Seen::own(event.envelope.digest, None);
    let (table, id, row) = (Table::PaymentIntents, id.to_owned(), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

impl<'a> Intent<'a> {
    /// Where there is only one way to pay it.
    pub fn only_method(&self) -> Option<String> {
        match self.payment_method_types.get() {
            Some([only]) => only.owned(),
            _ => None,
        }
    }

    /// What the intent itself says of who pays.
    pub fn name_payer(&self, someone: &mut Someone) {
        someone.known_as(IdentifierKind::Customer, self.customer.id());
        if let Some(metadata) = self.metadata.get() {
            metadata.name_payer(someone);
        }
    }

    fn charges(&self) -> impl Iterator<Item = &Charge<'a>> {
        self.charges.iter().filter_map(Maybe::get).chain(self.latest_charge.object())
    }

    fn marks(&self, event: &Event) -> Vec<(Mark, crate::base::Micros)> {
        let ended = match self.status.get() {
            Some("succeeded") => Some(Mark::Succeeded),
            Some("canceled") => Some(Mark::Canceled),
            _ => None,
        };
        let unborn = self.created.0.is_none().then_some(Mark::Seen);
        shown(event, ended.into_iter().chain(unborn))
    }

    fn step(&self, event: &Event, received: i64) -> Step {
        let (status, rank) = match self.status.get() {
            Some("requires_payment_method") => (Status::RequiresMethod, 1),
            Some("requires_confirmation") => (Status::RequiresInput, 2),
            Some("requires_action") => (Status::RequiresInput, 3),
            Some("processing") => (Status::Processing, 4),
            Some("requires_capture") => (Status::RequiresCapture, 5),
            Some("canceled") => (Status::Canceled, 6),
            Some("succeeded") => (Status::Succeeded, 7),
            _ => (Status::Other, 1),
        };
        let created = event.kind() == "payment_intent.created";
        let listed = self.charges.get().map(|c| c.len() as i64);
        let charged = listed.is_some_and(|n| n > 0) || self.latest_charge.id().is_some();
        Step {
            settled: u8::from(matches!(status, Status::Succeeded | Status::Canceled)),
            phase: u8::from(!created),
            status,
            progress: [Some(i64::from(charged)), listed, Some(received)],
            rank: if created { 0 } else { rank },
            ..Step::default()
        }
    }

    fn row(&self, event: &mut Event, id: &str) -> Result<PaymentIntent, DecodeError> {
        let amount = event.required("data.object.amount", event.amount("data.object.amount", &self.amount)?)?;
        let currency = event.currency("data.object.currency", self.currency.get())?;
        let status = self.status.owned().unwrap_or_else(|| "unknown".to_owned());
        let received = event.amount("data.object.amount_received", &self.amount_received)?;
        let mut someone = event.someone();
        let shipping = self.shipping.get();
        let country = someone.lives_in(shipping.and_then(Billing::country));
        let email_hash = someone.email(self.receipt_email.get());
        someone.phone(shipping.and_then(|s| s.phone.get()), country.as_deref());
        self.name_payer(&mut someone);
        someone.named(shipping.and_then(|s| s.name.get()));
        let person_id = someone.person();
        event.keep(someone);
        let metadata = self.metadata.get();
        Ok(PaymentIntent {
            payment_intent_id: id.to_owned(),
            created_at: self.created.seconds(),
            amount,
            amount_received: received.unwrap_or(if status == "succeeded" { amount } else { 0 }),
            amount_capturable: event.amount("data.object.amount_capturable", &self.amount_capturable)?.unwrap_or(0),
            status,
            currency: event.required("data.object.currency", currency)?,
            capture_method: self.capture_method.owned(),
            customer_id: self.customer.id_owned(),
            person_id,
            email_hash,
            country,
            invoice_id: self.invoice.id_owned(),
            session_id: None,
            payment_method_type: self.only_method(),
            latest_charge_id: self.latest_charge(),
            latest_attempt_id: None,
            attempts: 0,
            first_attempt_at: None,
            succeeded_at: None,
            canceled_at: self.canceled_at.seconds(),
            cancellation_reason: self.cancellation_reason.owned(),
            last_error_code: None,
            last_decline_code: None,
            cart_id: event.reference(metadata.and_then(Metadata::cart)),
            order_ref: event.reference(metadata.and_then(Metadata::order)),
            external_ref: event.reference(metadata.and_then(Metadata::external)),
            order_ambiguous: false,
        })
    }

    /// Of the charges carried along, the newest; Stripe lists them newest first.
    fn latest_charge(&self) -> Option<String> {
        let newest = || self.charges.iter().filter_map(Maybe::get).find_map(|c| c.id.owned());
        self.latest_charge.id_owned().or_else(newest)
    }
}
