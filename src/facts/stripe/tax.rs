//! The taxes of an invoice: `total_tax_amounts` and a line's `tax_amounts` before 2025-03-31, `total_taxes` and `taxes`
//! since.

use serde_json::{Value, json};

use super::{DecodeError, Event, list_text};
use crate::facts::json::{Amount, Flag, Identified, List, Maybe, Rate, Reference, Text, object};

object! {
    /// A tax on a line or on all of an invoice, in either shape.
    #[derive(Clone)]
    pub(super) struct Tax<'a> {
        amount: Amount,
        inclusive: Flag,
        tax_behavior: Text<'a>,
        tax_rate: Reference<'a, TaxRate<'a>>,
        tax_rate_details: Maybe<RateDetails<'a>>,
        taxability_reason: Text<'a>,
        taxable_amount: Amount,
    }
}

object! {
    #[derive(Clone)]
    struct RateDetails<'a> {
        tax_rate: Reference<'a, TaxRate<'a>>,
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct TaxRate<'a> {
        id: Text<'a>,
        jurisdiction: Text<'a>,
        percentage: Rate,
    }
}

impl Identified for TaxRate<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

object! {
    /// The lines of an invoice, of which an event holds the first few.
    #[derive(Clone)]
    pub(super) struct Lines<'a> {
        data: List<Maybe<Line<'a>>>,
        has_more: Flag,
    }
}

object! {
    #[derive(Clone)]
    struct Line<'a> {
        id: Text<'a>,
        tax_amounts: List<Maybe<Tax<'a>>>,
        tax_rates: List<Maybe<TaxRate<'a>>>,
        taxes: List<Maybe<Tax<'a>>>,
    }
}

pub(super) fn total(event: &Event, taxes: &[Maybe<Tax>]) -> Result<i64, DecodeError> {
    let mut sum = 0;
    for tax in taxes.iter().filter_map(Maybe::get) {
        sum = event.sum("data.object.total_taxes", [sum, tax.amount(event)?])?;
    }
    Ok(sum)
}

/// The taxes line by line; those of the whole where the lines are not all there, or have none.
pub(super) fn text(
    event: &Event,
    lines: Option<&Lines>,
    whole: &[Maybe<Tax>],
    rates: &List<Maybe<TaxRate>>,
) -> Result<Option<String>, DecodeError> {
    let mut taxes = Vec::new();
    for line in lines.filter(|l| !l.has_more.is_true()).iter().flat_map(|l| l.data.iter()).filter_map(Maybe::get) {
        let own = line.taxes.get().or(line.tax_amounts.get()).unwrap_or_default();
        for tax in own.iter().filter_map(Maybe::get) {
            let rates = || line.tax_rates.iter().chain(rates.iter()).filter_map(Maybe::get);
            taxes.push(tax.json(event, line.id.get(), rates)?);
        }
    }
    if taxes.is_empty() {
        for tax in whole.iter().filter_map(Maybe::get) {
            taxes.push(tax.json(event, None, || rates.iter().filter_map(Maybe::get))?);
        }
    }
    Ok(list_text(taxes))
}

impl<'a> Tax<'a> {
    fn amount(&self, event: &Event) -> Result<i64, DecodeError> {
        Ok(event.signed_amount("data.object.total_taxes.amount", &self.amount)?.unwrap_or(0))
    }

    fn rate(&self) -> &Reference<'a, TaxRate<'a>> {
        self.tax_rate_details.get().map_or(&self.tax_rate, |d| &d.tax_rate)
    }

    /// `known`: the rates that the invoice shows in full.
    fn json<'b, 'c: 'b, R: Iterator<Item = &'b TaxRate<'c>>>(
        &self,
        event: &Event,
        line: Option<&str>,
        known: impl Fn() -> R,
    ) -> Result<Value, DecodeError> {
        let id = self.rate().id();
        let named = |of: fn(&TaxRate) -> Option<String>| {
            let own = self.rate().object().and_then(of);
            own.or_else(|| known().find(|r| id.is_some() && r.id() == id).and_then(of))
        };
        let behavior = self.inclusive.0.map(|inclusive| if inclusive { "inclusive" } else { "exclusive" });
        Ok(json!({
            "line": line,
            "tax_rate_id": id,
            "jurisdiction": named(|r| r.jurisdiction.owned()),
            "rate": named(|r| r.percentage.0.map(|p| p.to_string())),
            "taxable_amount": event.signed_amount("data.object.total_taxes.taxable_amount", &self.taxable_amount)?,
            "tax": self.amount(event)?,
            "behavior": self.tax_behavior.get().or(behavior),
            "taxability_reason": self.taxability_reason.get(),
        }))
    }
}
