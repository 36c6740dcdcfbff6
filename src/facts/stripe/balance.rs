//! Balance transactions. Stripe sends no event of them: they are fetched, or carried whole within what caused them.

use serde_json::json;

use super::{DecodeError, Event, Message, Part, Saw, Seen, Step, Table, list_text};
use crate::facts::{
    json::{Amount, Identified, List, Maybe, OnlyId, Rate, Reference, Text, Whole, object},
    observation::{Fact, Settlement},
    rows::BalanceTransaction,
};

object! {
    #[derive(Clone)]
    pub(super) struct Transaction<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount: Amount,
        available_on: Whole,
        balance_type: Text<'a>,
        created: Whole,
        pub currency: Text<'a>,
        pub exchange_rate: Rate,
        pub fee: Amount,
        fee_details: List<Maybe<FeeDetail<'a>>>,
        pub net: Amount,
        reporting_category: Text<'a>,
        source: Reference<'a, OnlyId<'a>>,
        status: Text<'a>,
        kind: Text<'a> = "type",
    }
}

object! {
    #[derive(Clone)]
    struct FeeDetail<'a> {
        amount: Amount,
        currency: Text<'a>,
        description: Text<'a>,
        kind: Text<'a> = "type",
    }
}

impl Identified for Transaction<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Transaction> = Message::of(event)?;
    let transaction = &message.object;
    if transaction.object.get().is_some_and(|o| o != "balance_transaction") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", transaction.id.get())?;
    if let Some(payout) = message.payout.get() {
        event.add_part(
            Table::BalanceTransactions,
            id,
            Part { id: payout.to_owned(), at: event.at(), fact: Fact::PaidOut },
        );
    }
    record(event, transaction, Seen::own(state, prior))?;
    Ok(true)
}

/// A transaction within the event of what caused it. One that was not told in full says nothing.
pub(super) fn carried(event: &mut Event, transaction: &Transaction) -> Result<(), DecodeError> {
    let whole = !matches!(transaction.amount, Amount::Absent) && transaction.currency.get().is_some();
    match transaction.id.get().filter(|_| whole) {
        Some(id) => record(event, transaction, Seen::carried(event, id)),
        None => Ok(()),
    }
}

fn record(event: &mut Event, transaction: &Transaction, seen: Seen) -> Result<(), DecodeError> {
    let row = transaction.row(event)?;
    // What a charge came to; its refunds and disputes have movements of their own.
    let of_charge = matches!(row.r#type.as_deref(), Some("charge" | "payment"));
    if let Some(charge) = row.source_id.as_deref().filter(|_| of_charge) {
        let BalanceTransaction { fee, net, currency, exchange_rate, .. } = row;
        let fact = Fact::Settlement(Settlement { fee, net, currency, exchange_rate });
        let at = row.created_at.unwrap_or(event.at());
        event.add_part(Table::Charges, charge, Part { id: row.balance_transaction_id.clone(), at, fact });
    }
    let settled = u8::from(row.status.as_deref() == Some("available"));
    let step = Step { settled, phase: 1, ..Step::default() };
    let id = row.balance_transaction_id.clone();
    let marks = event.unborn(&transaction.created);
    event.saw(Saw { table: Table::BalanceTransactions, id, seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(())
}

impl Transaction<'_> {
    /// What moved, in `currency`: negative where money left.
    pub fn amount(&self, event: &Event) -> Result<i64, DecodeError> {
        event.required("balance_transaction.amount", event.signed_amount("balance_transaction.amount", &self.amount)?)
    }

    pub fn fee(&self, event: &Event) -> Result<i64, DecodeError> {
        Ok(event.signed_amount("balance_transaction.fee", &self.fee)?.unwrap_or(0))
    }

    fn row(&self, event: &Event) -> Result<BalanceTransaction, DecodeError> {
        let currency = event.currency("balance_transaction.currency", self.currency.get())?;
        let (amount, fee) = (self.amount(event)?, self.fee(event)?);
        let net = event.signed_amount("balance_transaction.net", &self.net)?;
        let source_id = self.source.id_owned();
        let of_payout = self.kind.get().is_some_and(|k| k.starts_with("payout"));
        Ok(BalanceTransaction {
            balance_transaction_id: event.required("balance_transaction.id", self.id.owned())?,
            payout_id: source_id.clone().filter(|_| of_payout),
            source_id,
            created_at: self.created.seconds(),
            available_on: self.available_on.seconds(),
            status: self.status.owned(),
            r#type: self.kind.owned(),
            reporting_category: self.reporting_category.owned(),
            balance_type: self.balance_type.owned(),
            amount,
            fee,
            net: net.map_or_else(|| event.sum("balance_transaction.net", [amount, fee.saturating_neg()]), Ok)?,
            currency: event.required("balance_transaction.currency", currency)?,
            exchange_rate: self.exchange_rate.0,
            fee_details: self.fee_details(event)?,
            order_ambiguous: false,
        })
    }

    fn fee_details(&self, event: &Event) -> Result<Option<String>, DecodeError> {
        let mut details = Vec::new();
        for detail in self.fee_details.iter().filter_map(Maybe::get) {
            details.push(json!({
                "type": detail.kind.get(),
                "amount": event.signed_amount("balance_transaction.fee_details.amount", &detail.amount)?,
                "currency": detail.currency.get(),
                "description": detail.description.get(),
            }));
        }
        Ok(list_text(details))
    }
}
