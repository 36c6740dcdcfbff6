//! Refunds: from their own events, from the charges that list them, and from what a charge counts without listing it.

use super::{
    DecodeError, Event, Mark, Message, Metadata, Part, Saw, Seen, Step, Table,
    balance::{self, Transaction},
    charge::Charge,
    shown,
};
use crate::facts::{
    identity::IdentifierKind,
    json::{Amount, Maybe, OnlyId, Reference, Text, Whole, object},
    observation::Fact,
    rows,
};

object! {
    #[derive(Clone)]
    pub(super) struct Refund<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        balance_transaction: Reference<'a, Transaction<'a>>,
        charge: Reference<'a, OnlyId<'a>>,
        created: Whole,
        currency: Text<'a>,
        customer: Reference<'a, OnlyId<'a>>,
        failure_reason: Text<'a>,
        metadata: Maybe<Metadata<'a>>,
        payment_intent: Reference<'a, OnlyId<'a>>,
        reason: Text<'a>,
        status: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Refund> = Message::of(event)?;
    let refund = &message.object;
    if refund.object.get().is_some_and(|o| o != "refund") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    record(event, refund, None, Seen::own(state, prior))?;
    Ok(true)
}

/// The refunds that a charge lists. What they come to.
pub(super) fn carried(event: &mut Event, charge: &Charge) -> Result<i64, DecodeError> {
    let mut sum = 0i64;
    for refund in charge.refunds() {
        let Some(id) = refund.id.get() else { continue };
        let amount = record(event, refund, Some(charge), Seen::carried(event, id))?;
        if !refund.has_failed() {
            sum = sum.saturating_add(amount);
        }
    }
    Ok(sum)
}

/// The row for what a charge says was refunded in all. The refunds known beside it are taken off when the row is made.
pub(super) fn counted(
    event: &mut Event,
    charge: &Charge,
    charge_id: &str,
    total: i64,
    seen: Seen,
) -> Result<(), DecodeError> {
    let currency = event.currency("data.object.currency", charge.currency_text())?;
    let id = total_id(charge_id);
    let row = rows::Refund {
        refund_id: id.clone(),
        order_id: charge.order(),
        charge_id: Some(charge_id.to_owned()),
        payment_intent_id: charge.payment_intent.id_owned(),
        amount: total,
        currency: event.required("data.object.currency", currency)?,
        status: "succeeded".to_owned(),
        reason: None,
        failure_reason: None,
        created_at: None,
        succeeded_at: None,
        failed_at: None,
        balance_transaction_id: None,
        customer_ref: None,
        person_id: None,
        order_ref: None,
        source: event.envelope.source.as_str().to_owned(),
        order_ambiguous: false,
    };
    let marks = vec![(Mark::Seen, event.at()), (Mark::Succeeded, event.at())];
    let step = Step { phase: 1, ..Step::default() };
    event.saw(Saw { table: Table::Refunds, id, seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(())
}

fn total_id(charge_id: &str) -> String {
    format!("{charge_id}:refunded")
}

fn record(event: &mut Event, refund: &Refund, of: Option<&Charge>, seen: Seen) -> Result<i64, DecodeError> {
    let id = event.required("data.object.id", refund.id.get())?;
    let amount = event.required("refund.amount", event.amount("refund.amount", &refund.amount)?)?;
    let currency = refund.currency.get().or(of.and_then(Charge::currency_text));
    let currency = event.required("refund.currency", event.currency("refund.currency", currency)?)?;
    let charge_id = refund.charge.id_owned().or_else(|| of.and_then(|c| c.id.owned()));
    let payment_intent_id = refund.payment_intent.id_owned().or_else(|| of.and_then(|c| c.payment_intent.id_owned()));
    if let Some(charge_id) = &charge_id {
        let failed_at = refund.has_failed().then_some(event.at());
        // Scrubbed exports tell of refunds before they were made: who tells of one has it.
        let at = refund.created.seconds().map_or(event.at(), |created| created.min(event.at()));
        let part = Part { id: id.to_owned(), at, fact: Fact::Refund { amount, failed_at } };
        event.add_part(Table::Charges, charge_id, part.clone());
        event.add_part(Table::Refunds, &total_id(charge_id), part);
    }
    if let Some(transaction) = refund.balance_transaction.object() {
        balance::carried(event, transaction)?;
    }
    let mut someone = event.someone();
    someone.known_as(IdentifierKind::Customer, refund.customer.id());
    let row = rows::Refund {
        refund_id: id.to_owned(),
        order_id: payment_intent_id.clone().or(charge_id.clone()),
        charge_id,
        payment_intent_id,
        amount,
        currency,
        status: refund.status().to_owned(),
        reason: refund.reason.owned(),
        failure_reason: refund.failure_reason.owned(),
        created_at: refund.created.seconds(),
        succeeded_at: None,
        failed_at: None,
        balance_transaction_id: refund.balance_transaction.id_owned(),
        customer_ref: None,
        person_id: someone.person(),
        order_ref: event.reference(refund.metadata.get().and_then(Metadata::order)),
        source: event.envelope.source.as_str().to_owned(),
        order_ambiguous: false,
    };
    let (marks, step) = (refund.marks(event), refund.step(event));
    event.saw(Saw { table: Table::Refunds, id: id.to_owned(), seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(amount)
}

impl Refund<'_> {
    /// The oldest versions have none: what is there was paid back.
    fn status(&self) -> &str {
        self.status.get().unwrap_or("succeeded")
    }

    fn has_failed(&self) -> bool {
        matches!(self.status(), "failed" | "canceled")
    }

    fn marks(&self, event: &Event) -> Vec<(Mark, crate::base::Micros)> {
        let ended = match self.status() {
            "succeeded" => Some(Mark::Succeeded),
            "failed" | "canceled" => Some(Mark::Failed),
            _ => None,
        };
        let unborn = self.created.0.is_none().then_some(Mark::Seen);
        shown(event, ended.into_iter().chain(unborn))
    }

    fn step(&self, event: &Event) -> Step {
        let settled = match self.status() {
            "failed" | "canceled" => 2,
            "succeeded" => 1,
            _ => 0,
        };
        let (phase, rank) = match event.kind() {
            "refund.created" => (0, 0),
            "refund.failed" => (1, 2),
            _ => (1, 1),
        };
        Step { settled, phase, rank, ..Step::default() }
    }
}
