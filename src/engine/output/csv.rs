//! CSV as RFC 4180 has it, with what that leaves open: NULL is nothing, the empty text is `""`.

use std::io::{BufWriter, Write};

use datafusion::arrow::{
    array::{Array, RecordBatch},
    datatypes::Schema,
    util::display::{ArrayFormatter, FormatOptions},
};

use super::WriteError;

pub(super) struct Writer<W: Write> {
    to: BufWriter<W>,
}

impl<W: Write> Writer<W> {
    pub fn new(schema: &Schema, to: W) -> Result<Writer<W>, WriteError> {
        let mut to = BufWriter::new(to);
        for (i, field) in schema.fields().iter().enumerate() {
            separate(&mut to, i)?;
            cell(&mut to, field.name())?;
        }
        to.write_all(b"\n")?;
        Ok(Writer { to })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let options = FormatOptions::new().with_display_error(false);
        let columns = batch
            .columns()
            .iter()
            .map(|c| Ok((c, ArrayFormatter::try_new(c.as_ref(), &options)?)))
            .collect::<Result<Vec<_>, WriteError>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (i, (column, formatter)) in columns.iter().enumerate() {
                separate(&mut self.to, i)?;
                if column.is_valid(row) {
                    text.clear();
                    formatter.value(row).write(&mut text)?;
                    cell(&mut self.to, &text)?;
                }
            }
            self.to.write_all(b"\n")?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), WriteError> {
        Ok(self.to.flush()?)
    }
}

fn separate(to: &mut impl Write, column: usize) -> std::io::Result<()> {
    if column > 0 { to.write_all(b",") } else { Ok(()) }
}

/// One cell, in quotes where it must be.
pub fn cell(to: &mut impl Write, text: &str) -> std::io::Result<()> {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        write!(to, "\"{}\"", text.replace('"', "\"\""))
    } else {
        to.write_all(text.as_bytes())
    }
}
