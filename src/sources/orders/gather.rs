//! From rows to invoices: each cell is read once, and what cannot be read is laid to its invoice's charge.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use chrono_tz::Tz;

use super::{
    decimal::Decimal,
    invoice::{Invoice, Line, Part},
    mapping::{Amount, CurrencyFrom, Plan, plain},
    table::{Table, Texts},
    times::Times,
};
use crate::{
    base::{Currency, Envelope, Micros, Source},
    sources::{ID_LIMIT, content::FileError, rejected::Rejected},
};

/// One thing that the file holds.
pub(super) enum Item {
    Invoice(Box<Invoice>),
    /// A row that belongs to no invoice.
    Stray {
        why: Rejected,
        cells: String,
    },
}

impl Item {
    pub fn rows(&self) -> u64 {
        match self {
            Item::Invoice(invoice) => invoice.rows,
            Item::Stray { .. } => 1,
        }
    }

    pub fn envelope(self, names: &Names, received_at: Micros) -> Envelope {
        match self {
            Item::Invoice(invoice) => invoice.envelope(names, received_at),
            Item::Stray { why, cells } => why.envelope(Source::Orders, cells.as_bytes(), received_at),
        }
    }
}

/// Columns by what they hold, for messages.
pub(super) struct Names {
    pub order: String,
    pub time: String,
    pub customer: String,
    pub quantity: String,
    pub price: String,
    pub amount: String,
    pub currency: String,
}

impl Names {
    pub fn of(plan: &Plan, columns: &[String]) -> Names {
        let name = |column: Option<usize>| column.and_then(|c| columns.get(c)).cloned().unwrap_or_default();
        let (amount, lines) = match plan.amount {
            Amount::Lines { quantity, price } => (None, Some((quantity, price))),
            Amount::Total { amount, lines } => (Some(amount), lines),
        };
        let currency = match plan.currency {
            CurrencyFrom::Column(column) => Some(column),
            CurrencyFrom::Fixed(_) => None,
        };
        Names {
            order: name(Some(plan.order)),
            time: name(Some(plan.time)),
            customer: name(plan.customer),
            quantity: name(lines.map(|l| l.0)),
            price: name(lines.map(|l| l.1)),
            // Where amounts are summed, a sum that does not fit is the prices' fault.
            amount: name(amount.or(lines.map(|l| l.1))),
            currency: name(currency),
        }
    }

    fn part(&self, part: Part) -> &str {
        match part {
            Part::Time => &self.time,
            Part::Customer => &self.customer,
            Part::Quantity => &self.quantity,
            Part::Price => &self.price,
            Part::Amount => &self.amount,
            Part::Currency => &self.currency,
        }
    }

    pub fn fault(&self, row: u64, part: Part, why: String) -> Rejected {
        Rejected::BadCell { row, column: self.part(part).to_owned(), why }
    }
}

/// What one row says about its invoice.
pub(super) struct Row {
    pub number: u64,
    pub at: Option<Micros>,
    pub customer: Option<String>,
    pub country: Option<String>,
    pub currency: Option<Currency>,
    pub total: Option<Decimal>,
    pub line: Option<Line>,
    pub unpaid: bool,
}

/// Reading all rows into invoices, in the order of their first rows.
pub(super) struct Gathering {
    file: PathBuf,
    table: Option<Table>,
    /// By places in a batch.
    plan: Plan,
    /// Of the columns that are read.
    columns: Vec<String>,
    names: Arc<Names>,
    times: Times,
    items: Vec<Item>,
    by_order: HashMap<String, usize>,
}

impl Gathering {
    pub fn new(file: PathBuf, table: Table, plan: Plan, names: Arc<Names>, zone: Tz) -> Gathering {
        Gathering {
            file,
            columns: plan.columns().into_iter().filter_map(|c| table.columns.get(c).cloned()).collect(),
            names,
            times: Times::new(zone, plan.rules.month_first),
            table: Some(table),
            plan,
            items: Vec::new(),
            by_order: HashMap::new(),
        }
    }

    pub fn all(&mut self) -> Result<Vec<Item>, FileError> {
        let file = self.file.clone();
        let failed = |why: String| FileError::NotOrders { file: file.clone(), why };
        let Some(table) = self.table.take() else { return Ok(Vec::new()) };
        let mut number = table.first_row;
        let batches = table.rows(&self.plan.columns()).map_err(failed)?;
        self.plan = self.plan.clone().projected();
        for batch in batches {
            let batch = batch.map_err(|why| failed(format!(
                    "after row {}: {why}. Nothing of the file was taken: mend that row (text that holds a separator stands in \
                     quotes) and take the file again",
                    number.saturating_sub(1)
                )))?;
            let texts = Texts::of(&batch).map_err(failed)?;
            for row in 0..batch.num_rows() {
                self.add(&texts, row, number);
                number += 1;
            }
        }
        Ok(std::mem::take(&mut self.items))
    }

    fn add(&mut self, texts: &Texts, row: usize, number: u64) {
        let stray = |gathering: &mut Gathering, why: &str| {
            let column = gathering.names.order.clone();
            let why = Rejected::BadCell { row: number, column, why: why.to_owned() };
            gathering.items.push(Item::Stray { why, cells: gathering.cells(texts, row) });
        };
        let order = match texts.cell(self.plan.order, row).map(number_as_text) {
            Some(order) if order.len() > ID_LIMIT => return stray(self, "an order's number has at most 255 bytes"),
            Some(order) => order,
            // A line with nothing but separators, as spreadsheets leave at the end.
            None if (0..self.columns.len()).all(|c| texts.cell(c, row).is_none()) => return,
            None => return stray(self, "it names no order"),
        };
        let index = match self.by_order.get(order) {
            Some(index) => *index,
            None => {
                let refund = self.plan.rules.c_is_refund && is_cancellation(order);
                let summed = matches!(self.plan.amount, Amount::Lines { .. });
                self.items.push(Item::Invoice(Box::new(Invoice::new(order, number, refund, summed))));
                self.by_order.insert(order.to_owned(), self.items.len() - 1);
                self.items.len() - 1
            }
        };
        let read = self.read(texts, row, number);
        let cells = if read.is_err() { self.cells(texts, row) } else { String::new() };
        let Some(Item::Invoice(invoice)) = self.items.get_mut(index) else { return };
        let fault = match read {
            Ok(row) => invoice.add(row),
            Err(fault) => {
                invoice.rows += 1;
                invoice.bad_rows.push(cells);
                Err(fault)
            }
        };
        if let Err((part, why)) = fault {
            let fault = self.names.fault(number, part, why);
            invoice.fault.get_or_insert(fault);
        }
    }

    /// The cells of a row. An error names the part that cannot be read.
    fn read(&mut self, texts: &Texts, row: usize, number: u64) -> Result<Row, (Part, String)> {
        let plan = &self.plan;
        let cell = |column: Option<usize>| column.and_then(|c| texts.cell(c, row));
        let owned = |column| cell(column).map(str::to_owned);
        let at =
            cell(Some(plan.time)).map(|text| self.times.read(text)).transpose().map_err(|why| (Part::Time, why))?;
        let currency = match plan.currency {
            CurrencyFrom::Fixed(currency) => Some(currency),
            CurrencyFrom::Column(column) => {
                cell(Some(column)).map(Currency::parse).transpose().map_err(|e| (Part::Currency, e.to_string()))?
            }
        };
        let number_in = |part, column| cell(Some(column)).map(|text| decimal(part, text)).transpose();
        let (total, line) = match plan.amount {
            Amount::Lines { quantity, price } => {
                let quantity = number_in(Part::Quantity, quantity)?.ok_or_else(|| empty(Part::Quantity))?;
                let price = number_in(Part::Price, price)?.ok_or_else(|| empty(Part::Price))?;
                (None, Some(Line { sku: owned(plan.sku), quantity: Some(quantity), price: Some(price) }))
            }
            Amount::Total { amount, lines } => {
                let (quantity, price) = match lines {
                    Some((quantity, price)) => (number_in(Part::Quantity, quantity)?, number_in(Part::Price, price)?),
                    None => (None, None),
                };
                let line = Line { sku: owned(plan.sku), quantity, price };
                (number_in(Part::Amount, amount)?, Some(line).filter(Line::says_something))
            }
        };
        if total.is_some_and(Decimal::is_negative) {
            return Err((Part::Amount, "it is negative, and an order's amount is not".to_owned()));
        }
        let status = cell(plan.status).map(plain);
        Ok(Row {
            number,
            at,
            customer: cell(plan.customer)
                .map(number_as_text)
                .filter(|c| Some(*c) != plan.rules.guest)
                .map(str::to_owned),
            country: owned(plan.country),
            currency,
            total,
            line,
            unpaid: status.is_some_and(|s| plan.rules.unpaid.contains(&s.as_str())),
        })
    }

    /// The row as a JSON object of its columns.
    fn cells(&self, texts: &Texts, row: usize) -> String {
        let cell = |(place, name): (usize, &String)| (name.clone(), texts.cell(place, row).into());
        let cells: serde_json::Map<_, serde_json::Value> = self.columns.iter().enumerate().map(cell).collect();
        serde_json::Value::Object(cells).to_string()
    }
}

fn decimal(part: Part, text: &str) -> Result<Decimal, (Part, String)> {
    Decimal::parse(text).ok_or_else(|| (part, format!("\"{text}\" is no number: write 1234.50")))
}

fn empty(part: Part) -> (Part, String) {
    (part, "it is empty".to_owned())
}

/// A number that a table's tool made a float of because the column has gaps: `17850.0` is 17850.
fn number_as_text(text: &str) -> &str {
    match text.strip_suffix(".0") {
        Some(whole) if !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit()) => whole,
        _ => text,
    }
}

fn is_cancellation(order: &str) -> bool {
    order.strip_prefix(['C', 'c']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
