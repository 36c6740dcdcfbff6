//! Stripe's events, of every API version from 2017 on: payments and what becomes of them, customers, checkout sessions,
//! subscriptions and their discounts, invoices, the balance and payouts.
//!
//! The shapes of `docs.stripe.com/api` and of its changelog: charges that intents carried until 2022-11-15, `source`
//! before `payment_method_details`, references that may be ids or whole objects. What a version calls otherwise is
//! read as well; what it does not have is null. Other objects' events are not handled here and stay in `raw.events`.
//!
//! An object that was fetched from the API rather than told by an event is an event of type `<object>.fetched`, at the
//! time by Stripe's clock at which it was so. That is after every event of before, but no moment of the object's life:
//! it marks none, and the row falls back on what the object states of itself ([`super::complete`]).
//!
//! A thin event of one of these objects (`v1.charge.updated`) names it and does not show it: the object is wanted.

mod asked;
mod attempt;
mod balance;
mod charge;
mod checkout;
mod customer;
mod discount;
mod dispute;
mod intent;
mod invoice;
mod parts;
mod payout;
mod prior;
mod refund;
mod risk;
mod subscription;
mod tax;
mod terms;
mod verdict;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    DecodeError, Row,
    decode::Event,
    identity::IdentifierKind,
    json::{Identified, OnlyId, Reference, Text, Whole, object},
    observation::{Mark, Observation, Part, Sight, Step},
    people::Someone,
    table::Table,
    want::Why,
};
use crate::base::{Digest, Micros};

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let handled = match event.kind() {
        kind if kind.starts_with("payment_intent.") => intent::decode(event)?,
        "charge.refund.updated" => refund::decode(event)?,
        kind if kind.starts_with("refund.") => refund::decode(event)?,
        "dispute.fetched" => dispute::decode(event)?,
        kind if kind.starts_with("charge.dispute.") => dispute::decode(event)?,
        kind if kind.starts_with("charge.") => charge::decode(event)?,
        "subscription.fetched" => subscription::decode(event)?,
        kind if kind.starts_with("customer.subscription.") => subscription::decode(event)?,
        kind if kind.starts_with("customer.discount.") => discount::decode(event)?,
        kind if kind.starts_with("coupon.") => discount::decode_coupon(event)?,
        "customer.created" | "customer.updated" | "customer.deleted" | "customer.fetched" => customer::decode(event)?,
        kind if kind.starts_with("checkout.session.") => checkout::decode(event)?,
        kind if kind.starts_with("invoice.") => invoice::decode(event)?,
        kind if kind.starts_with("invoice_payment.") => invoice::decode_payment(event)?,
        kind if kind.starts_with("payout.") => payout::decode(event)?,
        kind if kind.starts_with("balance_transaction.") => balance::decode(event)?,
        kind if kind.starts_with("radar.early_fraud_warning.") => risk::decode_warning(event)?,
        kind if kind.starts_with("review.") => risk::decode_review(event)?,
        kind if kind.starts_with(THIN) => announce(event),
        _ => false,
    };
    event.decoded.handled = handled;
    Ok(())
}

/// How the types of thin events of these objects begin.
const THIN: &str = "v1.";

fn announce(event: &mut Event) -> bool {
    let envelope = event.envelope;
    let table = envelope.object_type.as_deref().and_then(asked::table_of);
    let Some((table, id)) = table.zip(envelope.object_id.as_deref()) else { return false };
    event.want(table, id, Why::NotShown { event_id: envelope.event_id.clone() });
    true
}

/// What of an event is needed beside its envelope.
struct Message<'a, O> {
    request: Reference<'a, OnlyId<'a>>,
    /// Of a fetched balance transaction, the payout that it was listed as a part of.
    payout: Text<'a>,
    object: O,
    /// `data.object` as it stands in the payload, and what of it was otherwise before.
    raw: &'a RawValue,
    previous: Option<&'a RawValue>,
}

object! {
    struct Outer<'a> {
        /// A string before 2017-05-25.
        request: Reference<'a, OnlyId<'a>>,
        payout: Text<'a>,
        data: Data<'a>,
    }
}

object! {
    struct Data<'a> {
        object: Option<&'a RawValue>,
        previous_attributes: Option<&'a RawValue>,
    }
}

impl<'a, O: Deserialize<'a>> Message<'a, O> {
    fn of(event: &Event<'a>) -> Result<Message<'a, O>, DecodeError> {
        let Outer { request, payout, data } = event.read()?;
        let raw = event.required("data.object", data.object)?;
        let object = serde_json::from_str(raw.get()).map_err(|e| event.unreadable(e))?;
        Ok(Message { request, payout, object, raw, previous: data.previous_attributes })
    }
}

impl<O> Message<'_, O> {
    /// Whether the event says that no request was behind it.
    fn is_unasked(&self) -> bool {
        self.request.object().is_some_and(|request| request.id().is_none())
    }

    /// Of the event's own object after the event and, where it says, before it.
    fn digests(&self, event: &Event) -> Result<(Digest, Option<Digest>), DecodeError> {
        prior::digests(self.raw, self.previous).map_err(|e| event.unreadable(e))
    }
}

object! {
    /// The keys of `metadata` that shops use to tie a payment to their own records.
    #[derive(Clone)]
    struct Metadata<'a> {
        cart_id: Text<'a>,
        order_id: Text<'a>,
        order_ref: Text<'a>,
        external_ref: Text<'a>,
        user_id: Text<'a>,
        anonymous_id: Text<'a>,
        ip: Text<'a>,
        ip_address: Text<'a>,
    }
}

impl Metadata<'_> {
    /// What a shop's own records say of who pays.
    fn name_payer(&self, someone: &mut Someone) {
        someone.known_as(IdentifierKind::User, self.user_id.get());
        someone.known_as(IdentifierKind::Anonymous, self.anonymous_id.get());
    }

    fn cart(&self) -> Option<&str> {
        self.cart_id.get()
    }

    fn order(&self) -> Option<&str> {
        self.order_id.get().or(self.order_ref.get())
    }

    /// By what an imported order is known to be this payment.
    fn external(&self) -> Option<&str> {
        self.external_ref.get().or_else(|| self.order())
    }
}

/// Where a sight comes from: the event's own object, or one it carried along.
struct Seen {
    own: bool,
    whole: bool,
    state: Digest,
    prior: Option<Digest>,
}

impl Seen {
    fn own(state: Digest, prior: Option<Digest>) -> Seen {
        Seen { own: true, whole: true, state, prior }
    }

    /// Of an object within another's event. Its state is of use among the sights of one event only.
    fn carried(event: &Event, id: &str) -> Seen {
        Seen { own: false, whole: true, state: event.envelope.digest.with(id), prior: None }
    }

    fn hint(event: &Event, id: &str) -> Seen {
        Seen { own: false, whole: false, state: event.envelope.digest.with(id), prior: None }
    }
}

/// What a decoder of one object type adds to the event's observations.
struct Saw {
    table: Table,
    id: String,
    seen: Seen,
    step: Step,
    marks: Vec<(Mark, Micros)>,
    parts: Vec<Part>,
    row: Row,
}

/// The moments that an event of this kind shows: those of a fetch are not of the object's life.
fn shown(event: &Event, marks: impl Iterator<Item = Mark>) -> Vec<(Mark, Micros)> {
    let told = !event.is_fetched();
    marks.filter(|_| told).map(|mark| (mark, event.at())).collect()
}

/// Things that belong to one row, as the text of a JSON list; nothing where there are none.
fn list_text(things: Vec<serde_json::Value>) -> Option<String> {
    (!things.is_empty()).then(|| serde_json::Value::from(things).to_string())
}

impl Event<'_> {
    /// When the object was first seen, where it does not say itself when it was made.
    fn unborn(&self, created: &Whole) -> Vec<(Mark, Micros)> {
        shown(self, created.0.is_none().then_some(Mark::Seen).into_iter())
    }

    /// Whether this is an object as the API showed it, and no event.
    fn is_fetched(&self) -> bool {
        self.kind().ends_with(".fetched")
    }

    fn saw(&mut self, saw: Saw) {
        let Saw { table, id, seen: Seen { own, whole, state, prior }, step, marks, parts, row } = saw;
        let (event_id, event_digest) = (self.envelope.event_id.clone(), self.envelope.digest);
        let account = self.envelope.account.clone();
        let sight = Sight { at: self.at(), own, whole, step, event_id, event_digest, account, state, prior, row };
        let key = self.key(table, &id);
        self.decoded.observations.push(Observation { key, sight: Some(sight), marks, parts });
    }
}
