//! How a Rust value becomes a column: its Arrow type, whether it may be null, and the array of many.
//!
//! A row's struct is the one list of its columns; the schema and the arrays are read off it, so they cannot disagree.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Date32Type, Field, TimeUnit},
};
use chrono::NaiveDate;

use crate::base::{Currency, Micros, PersonId};

/// A value that a column can hold.
pub trait Cell {
    fn data_type() -> DataType;
    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a;
}

/// The type of a row's field: a cell, or an optional one.
pub trait Column: Sized {
    fn field(name: &str) -> Field;
    fn array(values: &[&Self]) -> ArrayRef;

    /// The column of `rows` that `of` tells. Its type names no column, so that columns of one type share its code.
    fn of_rows<R>(rows: &[&R], of: fn(&R) -> &Self) -> ArrayRef {
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            values.push(of(row));
        }
        Self::array(&values)
    }
}

pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl<C: Cell> Column for C {
    fn field(name: &str) -> Field {
        Field::new(name, C::data_type(), false)
    }

    fn array(values: &[&C]) -> ArrayRef {
        <C as Cell>::array(values.iter().map(|v| Some(*v)))
    }
}

impl<C: Cell> Column for Option<C> {
    fn field(name: &str) -> Field {
        Field::new(name, C::data_type(), true)
    }

    fn array(values: &[&Option<C>]) -> ArrayRef {
        <C as Cell>::array(values.iter().map(|v| v.as_ref()))
    }
}

impl Cell for String {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a String>>) -> ArrayRef {
        Arc::new(StringArray::from_iter(values))
    }
}

impl Cell for PersonId {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a PersonId>>) -> ArrayRef {
        Arc::new(StringArray::from_iter(values.map(|v| v.map(|p| p.0.as_str()))))
    }
}

impl Cell for Currency {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Currency>>) -> ArrayRef {
        Arc::new(StringArray::from_iter(values.map(|v| v.map(Currency::as_str))))
    }
}

impl Cell for i64 {
    fn data_type() -> DataType {
        DataType::Int64
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a i64>>) -> ArrayRef {
        Arc::new(Int64Array::from_iter(values.map(Option::<&i64>::copied)))
    }
}

impl Cell for f64 {
    fn data_type() -> DataType {
        DataType::Float64
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a f64>>) -> ArrayRef {
        Arc::new(Float64Array::from_iter(values.map(Option::<&f64>::copied)))
    }
}

impl Cell for bool {
    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a bool>>) -> ArrayRef {
        Arc::new(BooleanArray::from_iter(values.map(Option::<&bool>::copied)))
    }
}

/// Days since 1970-01-01.
impl Cell for NaiveDate {
    fn data_type() -> DataType {
        DataType::Date32
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a NaiveDate>>) -> ArrayRef {
        Arc::new(Date32Array::from_iter(values.map(|v| v.map(|day| Date32Type::from_naive_date(*day)))))
    }
}

impl Cell for Micros {
    fn data_type() -> DataType {
        timestamp()
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Micros>>) -> ArrayRef {
        let times = TimestampMicrosecondArray::from_iter(values.map(|v| v.map(|t| t.0)));
        Arc::new(times.with_timezone("UTC"))
    }
}
