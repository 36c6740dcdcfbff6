//! A table for people: aligned, numbers to the right, NULL as `NULL`, the number of rows below.
//!
//! Columns are as wide as the first rows want them: what comes later may stick out, and memory stays bounded. Control
//! characters are written as escapes: what a stranger put into an event must not steer the reader's terminal.

use std::io::{BufWriter, Write};

use datafusion::arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};

use super::WriteError;

/// Rows that are held to see how wide their columns are.
const MEASURED: usize = 10_000;

pub(super) struct Writer<W: Write> {
    to: BufWriter<W>,
    schema: SchemaRef,
    /// Rows that wait until the widths are known.
    waiting: Vec<Vec<String>>,
    /// Empty until they are.
    widths: Vec<usize>,
    right: Vec<bool>,
    rows: usize,
}

impl<W: Write> Writer<W> {
    pub fn new(schema: &SchemaRef, to: W) -> Writer<W> {
        let right = schema.fields().iter().map(|f| is_number(f.data_type())).collect();
        let (schema, to) = (SchemaRef::clone(schema), BufWriter::new(to));
        Writer { to, schema, waiting: Vec::new(), widths: Vec::new(), right, rows: 0 }
    }

    pub fn write(&mut self, batch: RecordBatch) -> Result<(), WriteError> {
        self.rows += batch.num_rows();
        cells(&batch, &mut self.waiting)?;
        if !self.widths.is_empty() || self.waiting.len() >= MEASURED {
            self.pour()?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), WriteError> {
        self.pour()?;
        writeln!(self.to, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" })?;
        Ok(self.to.flush()?)
    }

    /// Writes what waits, after the head if that is still to come.
    fn pour(&mut self) -> Result<(), WriteError> {
        if self.widths.is_empty() {
            self.head()?;
        }
        for row in self.waiting.drain(..) {
            line(&mut self.to, &row, &self.widths, &self.right)?;
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), WriteError> {
        let heads: Vec<String> = self.schema.fields().iter().map(|f| shown(f.name())).collect();
        self.widths = heads.iter().map(|h| h.chars().count()).collect();
        for row in &self.waiting {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        line(&mut self.to, &heads, &self.widths, &self.right)?;
        let rule: Vec<String> = self.widths.iter().map(|w| "-".repeat(w + 2)).collect();
        Ok(writeln!(self.to, "{}", rule.join("+"))?)
    }
}

fn cells(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), WriteError> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch
        .columns()
        .iter()
        .map(|c| Ok((c, ArrayFormatter::try_new(c.as_ref(), &options)?)))
        .collect::<Result<Vec<_>, WriteError>>()?;
    for row in 0..batch.num_rows() {
        let cell = |(column, formatter): &(&std::sync::Arc<dyn Array>, ArrayFormatter)| {
            if column.is_null(row) { "NULL".to_owned() } else { shown(&formatter.value(row).to_string()) }
        };
        rows.push(columns.iter().map(cell).collect());
    }
    Ok(())
}

fn line(to: &mut impl Write, cells: &[String], widths: &[usize], right: &[bool]) -> std::io::Result<()> {
    for (i, ((cell, width), right)) in cells.iter().zip(widths).zip(right).enumerate() {
        let bar = if i > 0 { "|" } else { "" };
        // The standard library pads to 65,535 at most.
        let blank = " ".repeat(width.saturating_sub(cell.chars().count()));
        if *right {
            write!(to, "{bar} {blank}{cell} ")?;
        } else {
            write!(to, "{bar} {cell}{blank} ")?;
        }
    }
    writeln!(to)
}

fn shown(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

fn is_number(kind: &DataType) -> bool {
    kind.is_numeric()
}
