//! Past orders, imported from a file: one invoice an event.

use super::{
    DecodeError,
    decode::Event,
    identity::IdentifierKind,
    json::{Amount, List, Maybe, Text, Whole, object},
    observation::{Mark, Step},
    rows::{ImportedOrder, Refund},
    table::Table,
};
use crate::base::{Currency, PersonId};

object! {
    struct Order<'a> {
        order_ref: Text<'a>,
        external_ref: Text<'a>,
        customer_ref: Text<'a>,
        email: Text<'a>,
        phone: Text<'a>,
        country: Text<'a>,
        currency: Text<'a>,
        amount: Amount,
        lines: List<Maybe<Line>>,
        refund_id: Text<'a>,
        order_id: Text<'a>,
        reason: Text<'a>,
    }
}

object! {
    struct Line {
        quantity: Whole,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let is_refund = match event.kind() {
        "order.imported" => false,
        "order.refunded" => true,
        // Without a customer: kept raw, and known.
        "order.anonymous" => {
            event.decoded.handled = true;
            return Ok(());
        }
        _ => return Ok(()),
    };
    let order: Order = event.read()?;
    let amount = event.required("amount", event.amount("amount", &order.amount)?)?;
    let currency = event.required("currency", event.currency("currency", order.currency.get())?)?;
    let person = who(event, &order, currency);
    if is_refund {
        refunded(event, &order, amount, currency, person)?;
    } else {
        imported(event, &order, amount, currency, person)?;
    }
    event.decoded.handled = true;
    Ok(())
}

fn who(event: &mut Event, order: &Order, currency: Currency) -> Option<PersonId> {
    let mut someone = event.someone();
    let country = someone.lives_in(order.country.get());
    someone.email(order.email.get());
    someone.phone(order.phone.get(), country.as_deref());
    someone.known_as(IdentifierKind::OrderRef, order.customer_ref.get());
    someone.pays_in(currency);
    let person = someone.person();
    event.keep(someone);
    person
}

fn imported(
    event: &mut Event,
    order: &Order,
    amount: i64,
    currency: Currency,
    person_id: Option<PersonId>,
) -> Result<(), DecodeError> {
    let id = event.required("order_ref", order.order_ref.get())?;
    let lines = || order.lines.iter().filter_map(Maybe::get);
    let row = ImportedOrder {
        order_id: id.to_owned(),
        external_ref: event.reference(order.external_ref.get().or(order.order_ref.get())),
        customer_ref: event.reference(order.customer_ref.get()),
        person_id,
        ordered_at: event.at(),
        amount,
        currency,
        country: order.country.owned(),
        lines: i64::try_from(lines().count()).unwrap_or(i64::MAX),
        quantity: lines().filter_map(|l| l.quantity.0).fold(0, i64::saturating_add),
        source: "orders".to_owned(),
        order_ambiguous: false,
    };
    event.tell(Table::ImportedOrders, id, Step::default(), row.into(), Vec::new());
    Ok(())
}

fn refunded(
    event: &mut Event,
    order: &Order,
    amount: i64,
    currency: Currency,
    person_id: Option<PersonId>,
) -> Result<(), DecodeError> {
    let id = event.required("refund_id", order.refund_id.get().or(order.order_ref.get()))?;
    let row = Refund {
        refund_id: id.to_owned(),
        order_id: order.order_id.owned(),
        charge_id: None,
        payment_intent_id: None,
        amount,
        currency,
        status: "succeeded".to_owned(),
        reason: order.reason.owned(),
        failure_reason: None,
        created_at: Some(event.at()),
        succeeded_at: None,
        failed_at: None,
        balance_transaction_id: None,
        customer_ref: event.reference(order.customer_ref.get()),
        person_id,
        order_ref: event.reference(order.order_ref.get()),
        source: "orders".to_owned(),
        order_ambiguous: false,
    };
    let marks = vec![(Mark::Succeeded, event.at())];
    event.tell(Table::Refunds, id, Step::default(), row.into(), marks);
    Ok(())
}
