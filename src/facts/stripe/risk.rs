//! Warnings of fraud that card networks send early, and payments that wait for a person's look.

use super::{DecodeError, Event, Mark, Message, Saw, Seen, Step, Table, parts::Address, shown};
use crate::facts::{
    json::{Flag, Maybe, OnlyId, Reference, Text, Whole, object},
    rows,
};

object! {
    #[derive(Clone)]
    struct Warning<'a> {
        id: Text<'a>,
        object: Text<'a>,
        actionable: Flag,
        charge: Reference<'a, OnlyId<'a>>,
        created: Whole,
        fraud_type: Text<'a>,
        payment_intent: Reference<'a, OnlyId<'a>>,
    }
}

pub(super) fn decode_warning(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Warning> = Message::of(event)?;
    let warning = &message.object;
    if warning.object.get().is_some_and(|o| o != "radar.early_fraud_warning") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", warning.id.owned())?;
    let row = rows::EarlyFraudWarning {
        early_fraud_warning_id: id.clone(),
        charge_id: warning.charge.id_owned(),
        payment_intent_id: warning.payment_intent.id_owned(),
        created_at: warning.created.seconds(),
        fraud_type: warning.fraud_type.owned(),
        actionable: warning.actionable.is_true(),
        order_ambiguous: false,
    };
    // Once the charge was refunded or disputed there is nothing more to do, ever.
    let settled = u8::from(warning.actionable.0 == Some(false));
    let phase = u8::from(event.kind() != "radar.early_fraud_warning.created");
    let step = Step { settled, phase, rank: phase, ..Step::default() };
    let marks = event.unborn(&warning.created);
    let (table, seen, row) = (Table::EarlyFraudWarnings, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

object! {
    #[derive(Clone)]
    struct Review<'a> {
        id: Text<'a>,
        object: Text<'a>,
        charge: Reference<'a, OnlyId<'a>>,
        closed_reason: Text<'a>,
        created: Whole,
        ip_address: Text<'a>,
        ip_address_location: Maybe<Address<'a>>,
        open: Flag,
        opened_reason: Text<'a>,
        payment_intent: Reference<'a, OnlyId<'a>>,
        reason: Text<'a>,
    }
}

pub(super) fn decode_review(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Review> = Message::of(event)?;
    let review = &message.object;
    if review.object.get().is_some_and(|o| o != "review") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", review.id.owned())?;
    let open = review.open.0.unwrap_or(true) && event.kind() != "review.closed";
    let row = rows::Review {
        review_id: id.clone(),
        charge_id: review.charge.id_owned(),
        payment_intent_id: review.payment_intent.id_owned(),
        created_at: review.created.seconds(),
        open,
        reason: review.reason.owned(),
        opened_reason: review.opened_reason.owned(),
        closed_reason: review.closed_reason.owned(),
        closed_at: None,
        ip_hash: event.ip_hash(review.ip_address.get()),
        ip_country: review.ip_address_location.get().and_then(|l| l.country.owned()),
        order_ambiguous: false,
    };
    let phase = u8::from(event.kind() != "review.opened");
    let step = Step { settled: u8::from(!open), phase, rank: phase, ..Step::default() };
    let mut marks = shown(event, (!open).then_some(Mark::Closed).into_iter());
    marks.extend(event.unborn(&review.created));
    let (table, seen, row) = (Table::Reviews, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}
