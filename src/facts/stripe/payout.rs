//! Payouts. One that was paid can still come back from the bank: then it has failed, and stays so.

use super::{
    DecodeError, Event, Mark, Message, Part, Saw, Seen, Step, Table,
    balance::{self, Transaction},
    shown,
};
use crate::facts::{
    json::{Amount, Flag, OnlyId, Reference, Text, Whole, object},
    observation::Fact,
    rows,
    want::{LISTED, Why},
};

object! {
    #[derive(Clone)]
    struct Payout<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        arrival_date: Whole,
        automatic: Flag,
        balance_transaction: Reference<'a, Transaction<'a>>,
        created: Whole,
        currency: Text<'a>,
        destination: Reference<'a, OnlyId<'a>>,
        failure_balance_transaction: Reference<'a, Transaction<'a>>,
        failure_code: Text<'a>,
        method: Text<'a>,
        reconciliation_status: Text<'a>,
        source_type: Text<'a>,
        status: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Payout> = Message::of(event)?;
    let payout = &message.object;
    if payout.object.get().is_some_and(|o| o != "payout") {
        return Ok(false);
    }
    let id = event.required("data.object.id", payout.id.owned())?;
    if event.kind() == LISTED {
        event.add_part(Table::Payouts, &id, Part { id: LISTED.to_owned(), at: event.at(), fact: Fact::Listed });
        return Ok(true);
    }
    let (state, prior) = message.digests(event)?;
    for transaction in [&payout.balance_transaction, &payout.failure_balance_transaction] {
        transaction.object().map_or(Ok(()), |t| balance::carried(event, t))?;
    }
    // Our key does not see what is in another account.
    if payout.is_reconciled() && event.envelope.account.is_none() {
        event.want(Table::Payouts, &id, Why::PaidOut);
    }
    let row = payout.row(event, &id)?;
    let (settled, ended) = match payout.status() {
        "failed" => (2, Some(Mark::Failed)),
        "canceled" => (2, Some(Mark::Canceled)),
        // The test mode shows it as paid from the start: only the event says when.
        "paid" => (1, Some(Mark::Succeeded).filter(|_| event.kind() == "payout.paid")),
        _ => (0, None),
    };
    let (phase, rank) = match event.kind() {
        "payout.created" => (0, 0),
        "payout.paid" => (1, 2),
        "payout.failed" | "payout.canceled" => (1, 3),
        _ => (1, 1),
    };
    let sent = i64::from(payout.status() != "pending");
    let step = Step { settled, phase, rank, progress: [Some(sent), None, None], ..Step::default() };
    let mut marks = shown(event, ended.into_iter());
    marks.extend(event.unborn(&payout.created));
    let (table, seen, row) = (Table::Payouts, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

impl Payout<'_> {
    fn status(&self) -> &str {
        self.status.get().unwrap_or("unknown")
    }

    /// Whether it is known what it pays out. Of one that the merchant asked for it never is.
    fn is_reconciled(&self) -> bool {
        let reconciled = match self.reconciliation_status.get() {
            Some(status) => status == "completed",
            // Of a version from before payouts said so.
            None => self.status() == "paid",
        };
        self.automatic.is_true() && reconciled
    }

    fn row(&self, event: &Event, id: &str) -> Result<rows::Payout, DecodeError> {
        let amount = event.signed_amount("data.object.amount", &self.amount)?;
        let currency = event.currency("data.object.currency", self.currency.get())?;
        Ok(rows::Payout {
            payout_id: id.to_owned(),
            created_at: self.created.seconds(),
            status: self.status().to_owned(),
            amount: event.required("data.object.amount", amount)?,
            currency: event.required("data.object.currency", currency)?,
            arrives_at: self.arrival_date.seconds(),
            automatic: self.automatic.0,
            method: self.method.owned(),
            source_type: self.source_type.owned(),
            destination_id: self.destination.id_owned(),
            balance_transaction_id: self.balance_transaction.id_owned(),
            paid_at: None,
            failed_at: None,
            canceled_at: None,
            failure_code: self.failure_code.owned(),
            failure_balance_transaction_id: self.failure_balance_transaction.id_owned(),
            reconciliation_status: self.reconciliation_status.owned(),
            order_ambiguous: false,
        })
    }
}
