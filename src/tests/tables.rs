//! Tables as text, for tests that a person can check by hand.
//!
//! A line of column names, then a line a row, cells parted by spaces; `-` is NULL. Times are `01T10:00` of January
//! 2026, UTC, unless they have a year. Every table has `merchant_id`, `livemode` (true) and `log_offset` (1) where the
//! text does not say otherwise.

use std::{collections::BTreeMap, sync::Arc};

use chrono_tz::Tz;
use datafusion::arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    base::Micros,
    facts::{Table, rows::Record},
};

/// A line a row.
pub fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("-").with_timestamp_tz_format(Some("%dT%H:%M"));
    let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let cell = |row: usize, column: usize| match batch.column(column).data_type() {
        DataType::Float64 => rounded(batch.column(column), row),
        _ => columns[column].value(row).to_string().replace(' ', "_"),
    };
    (0..batch.num_rows()).map(|row| (0..columns.len()).map(|c| cell(row, c)).collect::<Vec<_>>().join(" ")).collect()
}

fn rounded(column: &ArrayRef, row: usize) -> String {
    let numbers = column.as_any().downcast_ref::<Float64Array>().unwrap();
    if numbers.is_null(row) { "-".to_owned() } else { format!("{:.3}", numbers.value(row)) }
}

fn types_of(table: &str) -> BTreeMap<String, DataType> {
    let facts = Table::ALL.into_iter().find(|t| t.name() == table);
    match facts {
        Some(facts) => facts.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect(),
        None => ["recency_days", "frequency", "monetary", "r", "f", "m"]
            .into_iter()
            .map(|c| (c.to_owned(), DataType::Int64))
            .chain([(
                "as_of".to_owned(),
                Table::PageViews.schema().field_with_name("occurred_at").unwrap().data_type().clone(),
            )])
            .collect(),
    }
}

/// The rows of `table` that `text` holds.
pub fn batch(table: &str, text: &str) -> RecordBatch {
    let types = types_of(table);
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let cells: Vec<Vec<&str>> = lines.map(|l| l.split_whitespace().collect()).collect();
    for row in &cells {
        assert_eq!(row.len(), names.len(), "{row:?}");
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let of = types.get(*name).cloned().unwrap_or(DataType::Utf8);
        columns.push(column(&of, cells.iter().map(|row| (row[i] != "-").then_some(row[i]))));
        fields.push(Field::new(*name, of, true));
    }
    for (name, value) in [("merchant_id", "shop"), ("livemode", "true"), ("log_offset", "1")] {
        if !names.contains(&name) {
            let of = types.get(name).cloned().unwrap_or(DataType::Utf8);
            columns.push(column(&of, cells.iter().map(|_| Some(value))));
            fields.push(Field::new(name, of, true));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn column<'a>(of: &DataType, cells: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    match of {
        DataType::Int64 => Arc::new(cells.map(|c| c.map(|c| c.parse::<i64>().unwrap())).collect::<Int64Array>()),
        DataType::Boolean => Arc::new(cells.map(|c| c.map(|c| c == "true")).collect::<BooleanArray>()),
        DataType::Timestamp(..) => {
            let times: TimestampMicrosecondArray = cells.map(|c| c.map(|c| time(c).0)).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        _ => Arc::new(cells.collect::<StringArray>()),
    }
}

pub fn time(text: &str) -> Micros {
    let text = if text.contains('-') { text.to_owned() } else { format!("2026-01-{text}") };
    Micros::parse(&text, Tz::UTC).unwrap()
}

/// Compares lines, however many spaces part their cells.
#[track_caller]
pub fn same(found: &[String], wanted: &str) {
    let wanted: Vec<String> =
        wanted.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|l| !l.is_empty()).collect();
    assert_eq!(found, wanted, "\nfound:\n{}\nwanted:\n{}", found.join("\n"), wanted.join("\n"));
}

/// A row of a table of facts, of the columns that matter; the others are null.
pub fn row<R: Record + DeserializeOwned>(mut columns: Value) -> R {
    let named = columns.as_object_mut().unwrap();
    let values: Vec<Value> = R::COLUMNS.iter().map(|name| named.remove(*name).unwrap_or_default()).collect();
    assert!(named.is_empty(), "no such columns: {named:?}");
    serde_json::from_value(values.into()).unwrap()
}
