//! `ops.loads`: the loader's commits, a row each. With `load_offset` of `raw.events` they say when an event could be read.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};

use super::rows::column::timestamp;
use crate::base::{Micros, Offset};

pub const LOADS: &str = "ops.loads";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("first_offset", DataType::Int64, false),
        Field::new("last_offset", DataType::Int64, false),
        Field::new("events", DataType::Int64, false),
        Field::new("read_at", timestamp(), false),
        Field::new("committed_at", timestamp(), false),
        Field::new("merchant_id", DataType::Utf8, false),
    ]))
});

pub fn loads_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// One commit of the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub first: Offset,
    pub last: Offset,
    pub events: u64,
    /// When its last event was read from the log, where it was durable.
    pub read_at: Micros,
    /// When all of its tables were committed.
    pub committed_at: Micros,
}

/// The row as a batch of `loads_schema()`.
pub fn loads_batch(merchant_id: &str, load: &Load) -> Result<RecordBatch, ArrowError> {
    let number = |n: u64| -> Result<ArrayRef, ArrowError> {
        let n = i64::try_from(n).map_err(|_| ArrowError::CastError(format!("{n} does not fit {LOADS}")))?;
        Ok(Arc::new(Int64Array::from(vec![n])))
    };
    let time = |at: Micros| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![at.0]).with_timezone("UTC")) };
    let columns = vec![
        number(load.first.0)?,
        number(load.last.0)?,
        number(load.events)?,
        time(load.read_at),
        time(load.committed_at),
        Arc::new(StringArray::from(vec![merchant_id])) as ArrayRef,
    ];
    RecordBatch::try_new(loads_schema(), columns)
}
