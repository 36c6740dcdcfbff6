//! One invoice, gathered from its rows, and the envelope that it becomes.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{
    decimal::Decimal,
    gather::{Names, Row},
};
use crate::{
    base::{Currency, Digest, Envelope, Micros, Source, Via},
    sources::{opaque, rejected::Rejected},
};

/// What a fault lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Time,
    Customer,
    Quantity,
    Price,
    Amount,
    Currency,
}

pub(super) struct Line {
    pub sku: Option<String>,
    pub quantity: Option<Decimal>,
    pub price: Option<Decimal>,
}

impl Line {
    pub fn says_something(&self) -> bool {
        self.sku.is_some() || self.quantity.is_some() || self.price.is_some()
    }

    /// What it adds to the amount of a sale, or of a cancellation; `None` where it does not count.
    fn counted(&self, refund: bool) -> Option<(Decimal, Decimal)> {
        let quantity = if refund { self.quantity?.negated() } else { self.quantity? };
        let price = self.price?;
        (quantity.is_positive() && price.is_positive()).then_some((quantity, price))
    }
}

/// See the module.
pub(super) struct Invoice {
    pub rows: u64,
    /// The first thing that was wrong: with it the whole invoice is rejected.
    pub fault: Option<Rejected>,
    /// Rows that could not be read, as they were.
    pub bad_rows: Vec<String>,
    order: String,
    first_row: u64,
    refund: bool,
    /// The amount is the sum of the lines.
    summed: bool,
    at: Option<Micros>,
    customer: Option<String>,
    country: Option<String>,
    currency: Option<Currency>,
    total: Option<Decimal>,
    unpaid: bool,
    lines: Vec<Line>,
}

impl Invoice {
    pub fn new(order: &str, first_row: u64, refund: bool, summed: bool) -> Invoice {
        Invoice {
            rows: 0,
            fault: None,
            bad_rows: Vec::new(),
            order: order.to_owned(),
            first_row,
            refund,
            summed,
            at: None,
            customer: None,
            country: None,
            currency: None,
            total: None,
            unpaid: false,
            lines: Vec::new(),
        }
    }

    /// Takes a row in. An error: it contradicts an earlier one.
    pub fn add(&mut self, row: Row) -> Result<(), (Part, String)> {
        self.rows += 1;
        // An invoice's time is its last line's.
        self.at = self.at.max(row.at);
        self.unpaid |= row.unpaid;
        self.lines.extend(row.line);
        if self.country.is_none() {
            self.country = row.country;
        }
        agree(&mut self.customer, row.customer).map_err(|_| contradiction(Part::Customer, row.number))?;
        agree(&mut self.currency, row.currency).map_err(|_| contradiction(Part::Currency, row.number))?;
        agree(&mut self.total, row.total).map_err(|_| contradiction(Part::Amount, row.number))
    }

    pub fn envelope(self, names: &Names, received_at: Micros) -> Envelope {
        match self.judged(names) {
            Ok((event_type, at, payload)) => self.accepted(event_type, at, &payload, received_at),
            Err(why) => {
                // All of its rows, so that nothing of the order is lost.
                let text = serde_json::to_string(&Kept {
                    order_ref: &self.order,
                    customer_ref: self.customer.as_deref(),
                    lines: self.lines.iter().map(|l| self.line(l)).collect(),
                    unread: &self.bad_rows,
                });
                why.envelope(Source::Orders, text.unwrap_or_default().as_bytes(), received_at)
            }
        }
    }

    /// What kind of order this is, when it was, and its payload.
    fn judged(&self, names: &Names) -> Result<(&'static str, Micros, Payload<'_>), Rejected> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let missing = |part| names.fault(self.first_row, part, "it is empty in all rows of the order".to_owned());
        let at = self.at.ok_or_else(|| missing(Part::Time))?;
        let currency = self.currency.ok_or_else(|| missing(Part::Currency))?;
        let counted = self.lines.iter().filter(|l| l.counted(self.refund).is_some()).count();
        let amount = if self.summed { self.sum() } else { Some(self.total.ok_or_else(|| missing(Part::Amount))?) };
        if let Some(amount) = amount.filter(|a| !self.summed && a.is_finer_than(currency.exponent())) {
            let decimals = currency.exponent();
            let why = format!("{amount} is finer than {currency}, whose minor unit has {decimals} decimals");
            return Err(names.fault(self.first_row, Part::Amount, why));
        }
        let amount = amount.and_then(|a| a.minor(currency.exponent())).ok_or_else(|| {
            names.fault(self.first_row, Part::Amount, "the order's amount is too large for any currency".to_owned())
        })?;
        let event_type = match () {
            () if self.unpaid => "order.unpaid",
            () if self.customer.is_none() => super::ANONYMOUS,
            () if self.summed && counted == 0 => "order.empty",
            () if self.refund => "order.refunded",
            () => "order.imported",
        };
        let (email, customer_ref) = match self.customer.as_deref() {
            Some(address) if address.contains('@') => (Some(address), None),
            customer => (None, customer),
        };
        let payload = Payload {
            order_ref: &self.order,
            refund_id: self.refund.then_some(self.order.as_str()),
            customer_ref,
            email,
            ordered_at: at.to_string(),
            country: self.country.as_deref(),
            currency,
            amount,
            lines: self.lines.iter().map(|l| self.line(l)).collect(),
        };
        Ok((event_type, at, payload))
    }

    fn accepted(&self, event_type: &str, at: Micros, payload: &Payload<'_>, received_at: Micros) -> Envelope {
        // Texts and numbers only: it always serialises, and is then JSON.
        let payload = serde_json::to_string(payload).unwrap_or_default();
        Envelope {
            source: Source::Orders,
            event_id: self.order.clone(),
            event_type: event_type.to_owned(),
            api_version: None,
            account: None,
            livemode: true,
            occurred_at: at,
            received_at,
            via: Via::File,
            object_type: Some("order".to_owned()),
            object_id: Some(self.order.clone()),
            person_hint: self.customer.as_deref().and_then(opaque),
            digest: Digest::of_json(&payload).unwrap_or_default().with(event_type),
            payload: Bytes::from(payload),
        }
    }

    fn sum(&self) -> Option<Decimal> {
        let counted = self.lines.iter().filter_map(|l| l.counted(self.refund));
        let mut sum = Decimal::ZERO;
        for (quantity, price) in counted {
            sum = sum.plus(quantity.times(price)?)?;
        }
        Some(sum)
    }

    fn line<'a>(&self, line: &'a Line) -> PayloadLine<'a> {
        let counted = (self.summed && line.counted(self.refund).is_none()).then_some(false);
        PayloadLine { sku: line.sku.as_deref(), quantity: line.quantity.map(Quantity), unit_price: line.price, counted }
    }
}

fn agree<T: PartialEq>(known: &mut Option<T>, new: Option<T>) -> Result<(), ()> {
    match (known.as_ref(), new) {
        (_, None) => Ok(()),
        (None, new) => {
            *known = new;
            Ok(())
        }
        (Some(known), Some(new)) => {
            if *known == new {
                Ok(())
            } else {
                Err(())
            }
        }
    }
}

fn contradiction(part: Part, row: u64) -> (Part, String) {
    let what = match part {
        Part::Amount => "another total: where each row has its own, name the quantity and price columns instead",
        _ => "another one",
    };
    (part, format!("rows of this order before row {row} have {what}"))
}

#[derive(Serialize)]
struct Payload<'a> {
    order_ref: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<&'a str>,
    customer_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    ordered_at: String,
    country: Option<&'a str>,
    currency: Currency,
    /// In minor units.
    amount: i64,
    lines: Vec<PayloadLine<'a>>,
}

#[derive(Serialize)]
struct PayloadLine<'a> {
    sku: Option<&'a str>,
    quantity: Option<Quantity>,
    unit_price: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<bool>,
}

/// What is left of a rejected invoice.
#[derive(Serialize)]
struct Kept<'a> {
    order_ref: &'a str,
    customer_ref: Option<&'a str>,
    lines: Vec<PayloadLine<'a>>,
    unread: &'a [String],
}

/// A JSON number where it is whole, else exact text.
struct Quantity(Decimal);

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.whole() {
            Some(whole) => serializer.serialize_i64(whole),
            None => self.0.serialize(serializer),
        }
    }
}
