//! Disputes and inquiries, with the movements of the balance that they list.
//!
//! A dispute may be told of as lost before it is told of as created, and be won after it was lost. So its status ranks: an
//! inquiry, then what wants an answer, what is looked at, what is decided; and what is won stays won.

use super::{
    DecodeError, Event, Mark, Message, Part, Saw, Seen, Step, Table,
    balance::{self, Transaction},
    shown,
};
use crate::{
    base::Micros,
    facts::{
        json::{Amount, Flag, List, Maybe, OnlyId, Reference, Text, Whole, object},
        observation::Fact,
        rows,
    },
};

object! {
    #[derive(Clone)]
    struct Dispute<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        balance_transactions: List<Maybe<Transaction<'a>>>,
        charge: Reference<'a, OnlyId<'a>>,
        created: Whole,
        currency: Text<'a>,
        evidence_details: Maybe<EvidenceDetails>,
        /// `evidence_details.due_by` before 2014-12-08.
        evidence_due_by: Whole,
        is_charge_refundable: Flag,
        network_reason_code: Text<'a>,
        payment_intent: Reference<'a, OnlyId<'a>>,
        payment_method_details: Maybe<MethodDetails<'a>>,
        reason: Text<'a>,
        status: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    struct EvidenceDetails {
        due_by: Whole,
        submission_count: Whole,
    }
}

object! {
    #[derive(Clone)]
    struct MethodDetails<'a> {
        card: Maybe<Card<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct Card<'a> {
        brand: Text<'a>,
        network_reason_code: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Dispute> = Message::of(event)?;
    let dispute = &message.object;
    if dispute.object.get().is_some_and(|o| o != "dispute") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", dispute.id())?;
    for transaction in dispute.transactions() {
        balance::carried(event, transaction)?;
    }
    let row = dispute.row(event, &id)?;
    if let Some(charge) = dispute.charge.id()
        && !row.is_inquiry
    {
        let part = Part { id: id.clone(), at: event.at(), fact: Fact::Disputed };
        event.add_part(Table::Charges, charge, part);
    }
    let (marks, step) = (dispute.marks(event), dispute.step(event));
    let (table, seen, row) = (Table::Disputes, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

impl<'a> Dispute<'a> {
    /// In the oldest versions it has none: a charge then had one dispute at most.
    fn id(&self) -> Option<String> {
        self.id.owned().or_else(|| Some(format!("{}:dispute", self.charge.id()?)))
    }

    fn status(&self) -> &str {
        self.status.get().unwrap_or("unknown")
    }

    fn transactions(&self) -> impl Iterator<Item = &Transaction<'a>> {
        self.balance_transactions.iter().filter_map(Maybe::get)
    }

    fn marks(&self, event: &Event) -> Vec<(Mark, Micros)> {
        let closed = matches!(self.status(), "won" | "lost" | "prevented" | "warning_closed" | "charge_refunded");
        let moved = match event.kind() {
            "charge.dispute.funds_withdrawn" => Some(Mark::Withdrawn),
            "charge.dispute.funds_reinstated" => Some(Mark::Reinstated),
            _ => None,
        };
        let closed = closed.then_some(Mark::Closed);
        let mut marks = shown(event, closed.into_iter().chain(moved));
        marks.extend(event.unborn(&self.created));
        marks
    }

    fn step(&self, event: &Event) -> Step {
        let settled = match self.status() {
            "warning_needs_response" => 0,
            "warning_under_review" => 1,
            "warning_closed" => 2,
            "needs_response" => 3,
            "won" => 6,
            "lost" | "prevented" | "charge_refunded" => 5,
            // `under_review`, and whatever else comes to be between an answer and a decision.
            _ => 4,
        };
        let (phase, rank) = match event.kind() {
            "charge.dispute.created" => (0, 0),
            "charge.dispute.funds_withdrawn" => (1, 2),
            "charge.dispute.closed" => (1, 3),
            "charge.dispute.funds_reinstated" => (1, 4),
            _ => (1, 1),
        };
        let moved = self.balance_transactions.get().map(|t| t.len() as i64);
        let submitted = self.evidence_details.get().and_then(|d| d.submission_count.0);
        Step { settled, phase, rank, progress: [moved, submitted, None], ..Step::default() }
    }

    fn row(&self, event: &Event, id: &str) -> Result<rows::Dispute, DecodeError> {
        let amount = event.required("data.object.amount", event.amount("data.object.amount", &self.amount)?)?;
        let currency = event.currency("data.object.currency", self.currency.get())?;
        let card = self.payment_method_details.get().and_then(|d| d.card.get());
        let details = self.evidence_details.get();
        let mut moved = Moved::default();
        for transaction in self.transactions() {
            moved.add(event, transaction)?;
        }
        let told = self.balance_transactions.get().is_some();
        let settlement_currency = self.transactions().find_map(|t| t.currency.get());
        Ok(rows::Dispute {
            dispute_id: id.to_owned(),
            charge_id: self.charge.id_owned(),
            payment_intent_id: self.payment_intent.id_owned(),
            created_at: self.created.seconds(),
            status: self.status().to_owned(),
            amount,
            currency: event.required("data.object.currency", currency)?,
            reason: self.reason.owned(),
            network_reason_code: card
                .and_then(|c| c.network_reason_code.owned())
                .or_else(|| self.network_reason_code.owned()),
            card_brand: card.and_then(|c| c.brand.owned()),
            is_inquiry: self.status().starts_with("warning_"),
            is_charge_refundable: self.is_charge_refundable.0,
            evidence_submissions: details.and_then(|d| d.submission_count.0),
            due_by: details.and_then(|d| d.due_by.seconds()).or(self.evidence_due_by.seconds()),
            closed_at: None,
            withdrawn_at: None,
            reinstated_at: None,
            withdrawn: told.then_some(moved.withdrawn),
            reinstated: told.then_some(moved.reinstated),
            fee: told.then_some(moved.fee),
            settlement_currency: event.currency("balance_transaction.currency", settlement_currency)?,
            order_ambiguous: false,
        })
    }
}

/// What a dispute's balance transactions come to.
#[derive(Default)]
struct Moved {
    withdrawn: i64,
    reinstated: i64,
    fee: i64,
}

impl Moved {
    fn add(&mut self, event: &Event, transaction: &Transaction) -> Result<(), DecodeError> {
        let amount = transaction.amount(event)?;
        let (field, side) = if amount < 0 {
            ("balance_transactions.withdrawn", &mut self.withdrawn)
        } else {
            ("balance_transactions.reinstated", &mut self.reinstated)
        };
        *side = event.sum(field, [*side, amount.saturating_abs()])?;
        self.fee = event.sum("balance_transactions.fee", [self.fee, transaction.fee(event)?])?;
        Ok(())
    }
}
