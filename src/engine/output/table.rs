//! A table for people: aligned, numbers to the right, NULL as `NULL`, the number of rows below.
//!
//! Holds all rows until it knows how wide a column is. Control characters are written as escapes: what a stranger put
//! into an event must not steer the reader's terminal.

use std::io::{BufWriter, Write};

use datafusion::arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};

use super::WriteError;

pub(super) struct Writer<W: Write> {
    to: BufWriter<W>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl<W: Write> Writer<W> {
    pub fn new(schema: &SchemaRef, to: W) -> Writer<W> {
        Writer { to: BufWriter::new(to), schema: SchemaRef::clone(schema), batches: Vec::new() }
    }

    pub fn write(&mut self, batch: RecordBatch) -> Result<(), WriteError> {
        self.batches.push(batch);
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), WriteError> {
        let heads: Vec<String> = self.schema.fields().iter().map(|f| shown(f.name())).collect();
        let mut rows = Vec::new();
        for batch in &self.batches {
            cells(batch, &mut rows)?;
        }
        let mut widths: Vec<usize> = heads.iter().map(|h| h.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let right: Vec<bool> = self.schema.fields().iter().map(|f| is_number(f.data_type())).collect();
        line(&mut self.to, &heads, &widths, &right)?;
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
        writeln!(self.to, "{}", rule.join("+"))?;
        for row in &rows {
            line(&mut self.to, row, &widths, &right)?;
        }
        writeln!(self.to, "({} row{})", rows.len(), if rows.len() == 1 { "" } else { "s" })?;
        Ok(self.to.flush()?)
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
        if *right {
            write!(to, "{bar} {cell:>width$} ")?;
        } else {
            write!(to, "{bar} {cell:<width$} ")?;
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
