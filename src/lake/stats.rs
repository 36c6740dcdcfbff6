//! What the Delta log says about a file's columns, as DataFusion's statistics.
//!
//! A bound taken from here always bounds, so pruning may trust all of them. It is marked exact only where it is a value of
//! the column: times are kept to the millisecond, long texts are cut, floats leave NaN out; their bounds are inexact.

use std::collections::HashMap;

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use chrono::{DateTime, NaiveDate};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Recorded {
    num_records: Option<u64>,
    min_values: HashMap<String, Value>,
    max_values: HashMap<String, Value>,
    null_count: HashMap<String, Value>,
}

/// The number of rows, and statistics with one entry for each of `columns`; `None` when the log does not say how many
/// rows there are.
pub(super) fn parse<'a>(
    json: Option<&str>,
    size: u64,
    columns: impl IntoIterator<Item = &'a FieldRef>,
) -> Option<(u64, Statistics)> {
    let recorded: Recorded = serde_json::from_str(json?).ok()?;
    let rows = recorded.num_records?;
    let column_statistics = columns.into_iter().map(|field| column(&recorded, field)).collect();
    let statistics = Statistics {
        num_rows: Precision::Exact(usize::try_from(rows).ok()?),
        total_byte_size: usize::try_from(size).map_or(Precision::Absent, Precision::Inexact),
        column_statistics,
    };
    Some((rows, statistics))
}

fn column(recorded: &Recorded, field: &FieldRef) -> ColumnStatistics {
    let bound = |values: &HashMap<String, Value>, slack| {
        values.get(field.name()).and_then(|v| scalar(v, field.data_type(), slack)).unwrap_or(Precision::Absent)
    };
    let nulls = recorded.null_count.get(field.name()).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    ColumnStatistics::new_unknown()
        .with_min_value(bound(&recorded.min_values, 0))
        // The log cuts microseconds off: the true maximum is up to 999 of them later.
        .with_max_value(bound(&recorded.max_values, 999))
        .with_null_count(nulls.map_or(Precision::Absent, Precision::Exact))
}

fn scalar(value: &Value, data_type: &DataType, slack: i64) -> Option<Precision<ScalarValue>> {
    use Precision::{Exact, Inexact};
    Some(match data_type {
        DataType::Boolean => Exact(value.as_bool()?.into()),
        DataType::Int8 => Exact(i8::try_from(value.as_i64()?).ok()?.into()),
        DataType::Int16 => Exact(i16::try_from(value.as_i64()?).ok()?.into()),
        DataType::Int32 => Exact(i32::try_from(value.as_i64()?).ok()?.into()),
        DataType::Int64 => Exact(value.as_i64()?.into()),
        DataType::Float64 => Inexact(value.as_f64()?.into()),
        DataType::Date32 => Exact(ScalarValue::Date32(Some(days(value.as_str()?)?))),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let at = DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_micros();
            Inexact(ScalarValue::TimestampMicrosecond(Some(at.checked_add(slack)?), zone.clone()))
        }
        DataType::Utf8 => Inexact(ScalarValue::Utf8(Some(value.as_str()?.to_owned()))),
        DataType::Utf8View => Inexact(ScalarValue::Utf8View(Some(value.as_str()?.to_owned()))),
        _ => return None,
    })
}

fn days(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_cut_time_still_bounds() {
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns: Vec<FieldRef> = vec![
            Arc::new(Field::new("at", at, true)),
            Arc::new(Field::new("n", DataType::Int64, true)),
            Arc::new(Field::new("new", DataType::Utf8, true)),
        ];
        let json = r#"{"numRecords":3,"minValues":{"at":"2026-01-31T09:30:00.123Z","n":1},
            "maxValues":{"at":"2026-01-31T09:30:00.123Z","n":9},"nullCount":{"at":0,"n":1}}"#;
        let (rows, statistics) = parse(Some(json), 10, &columns).unwrap();
        assert_eq!(rows, 3);
        let micros = |p: &Precision<ScalarValue>| match p {
            Precision::Inexact(ScalarValue::TimestampMicrosecond(Some(t), _)) => t % 1_000_000,
            other => panic!("{other:?}"),
        };
        let [at, n, new] = &statistics.column_statistics[..] else { panic!("three columns") };
        assert_eq!((micros(&at.min_value), micros(&at.max_value)), (123_000, 123_999));
        assert_eq!((&n.max_value, &n.null_count), (&Precision::Exact(9_i64.into()), &Precision::Exact(1)));
        assert_eq!(new.min_value, Precision::Absent);
        assert_eq!(days("1970-01-02"), Some(1));
    }
}
