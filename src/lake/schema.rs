//! Which columns a table can store, how schemas grow, and how rows are brought into a table's shape.
//!
//! Every stored column may hold nulls, so that a column can be added without touching old files. A time is stored in
//! microseconds of UTC, a text as plain UTF-8. A value that does not fit its column is an error, never a silent null.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::error::{LakeError, Result};

/// `schema` as a table stores it.
pub(super) fn stored(table: &str, schema: &Schema) -> Result<SchemaRef> {
    if schema.fields().is_empty() {
        return Err(LakeError::schema(table, "a table needs at least one column"));
    }
    let mut seen = HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        check_name(table, field.name())?;
        if !seen.insert(field.name().to_lowercase()) {
            return Err(LakeError::schema(
                table,
                format!("two columns are named {:?}: rename one with AS", field.name()),
            ));
        }
        stored_field(field).map(Arc::new).ok_or_else(|| {
            let detail = format!("column {:?} is {}, which cannot be stored: CAST it", field.name(), field.data_type());
            LakeError::schema(table, detail)
        })
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// Delta without column mapping, and the engines that read it, do not accept these in names.
fn check_name(table: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
        let detail =
            format!("{name:?} cannot be a column's name (no spaces, commas, brackets or =): give it one with AS");
        return Err(LakeError::schema(table, detail));
    }
    Ok(())
}

fn stored_field(field: &Field) -> Option<Field> {
    Some(Field::new(field.name(), stored_type(field.data_type())?, true))
}

fn stored_type(data_type: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match data_type {
        T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 => data_type.clone(),
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 | T::UInt64 => T::Int64,
        T::Float16 => T::Float32,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => T::Utf8,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Date32 | T::Date64 => T::Date32,
        T::Timestamp(_, _) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Decimal128(precision, scale) if *scale >= 0 => T::Decimal128(*precision, *scale),
        T::Dictionary(_, value) => stored_type(value)?,
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) | T::FixedSizeList(item, _) => {
            T::List(Arc::new(Field::new("element", stored_type(item.data_type())?, true)))
        }
        T::Struct(fields) => T::Struct(fields.iter().map(|f| stored_field(f)).collect::<Option<Vec<_>>>()?.into()),
        _ => return None,
    })
}

/// `old` with the columns that only `rows` has added at its end; `None` when there are none. Both are stored schemas.
pub(super) fn grown(table: &str, old: &SchemaRef, rows: &SchemaRef) -> Result<Option<SchemaRef>> {
    let known: HashMap<String, &FieldRef> = old.fields().iter().map(|f| (f.name().to_lowercase(), f)).collect();
    let mut added = Vec::new();
    for field in rows.fields() {
        match known.get(&field.name().to_lowercase()) {
            None => added.push(field.clone()),
            Some(known) if known.name() != field.name() => {
                let detail = format!("column {:?} differs from {:?} only in case", field.name(), known.name());
                return Err(LakeError::schema(table, detail));
            }
            Some(known) if !holds(known.data_type(), field.data_type()) => {
                let detail = format!(
                    "column {:?} is {} in the table and {} in the new rows: CAST it, or rebuild the table",
                    field.name(),
                    known.data_type(),
                    field.data_type()
                );
                return Err(LakeError::schema(table, detail));
            }
            Some(_) => {}
        }
    }
    if added.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Schema::new(old.fields().iter().cloned().chain(added).collect::<Vec<_>>()))))
}

/// Whether every value of `from` is one of `to`.
fn holds(to: &DataType, from: &DataType) -> bool {
    use DataType as T;
    to == from
        || matches!(
            (to, from),
            (T::Int16 | T::Int32 | T::Int64, T::Int8)
                | (T::Int32 | T::Int64, T::Int16)
                | (T::Int64, T::Int32)
                | (T::Float64, T::Float32 | T::Int8 | T::Int16 | T::Int32)
        )
}

/// `batch` with exactly the columns of `schema`: cast where the type differs, nulls where a column is missing.
pub(super) fn conform(table: &str, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let given = batch.schema();
    if let Some(extra) = given.fields().iter().find(|f| schema.column_with_name(f.name()).is_none()) {
        return Err(LakeError::schema(
            table,
            format!("the rows have a column {:?} that was not declared", extra.name()),
        ));
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => cast_with_options(column, field.data_type(), &strict)
            .map_err(|e| LakeError::schema(table, format!("column {:?}: {e}", field.name()))),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| LakeError::schema(table, e.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int32Array, StringViewArray, TimestampNanosecondArray, UInt64Array};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>()))
    }

    #[test]
    fn query_results_are_brought_into_stored_types_without_losing_values() {
        let given = schema(&[
            ("n", DataType::UInt64),
            ("s", DataType::Utf8View),
            ("t", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ]);
        let batch = RecordBatch::try_new(
            given.clone(),
            vec![
                Arc::new(UInt64Array::from(vec![7])),
                Arc::new(StringViewArray::from(vec!["x"])),
                Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_123_456_789])),
            ],
        )
        .unwrap();
        let stored = stored("marts.t", &given).unwrap();
        let batch = conform("marts.t", &batch, &stored).unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "x");
        assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_000_123_456);
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_and_not_a_null() {
        let given = schema(&[("n", DataType::UInt64)]);
        let batch = RecordBatch::try_new(given.clone(), vec![Arc::new(UInt64Array::from(vec![u64::MAX]))]).unwrap();
        let error = conform("marts.t", &batch, &stored("marts.t", &given).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("marts.t: column \"n\""), "{error}");
    }

    #[test]
    fn schemas_grow_by_columns_and_refuse_other_types() {
        let old = stored("t.t", &schema(&[("a", DataType::Int64), ("b", DataType::Utf8)])).unwrap();
        let wider = stored("t.t", &schema(&[("b", DataType::Utf8View), ("c", DataType::Boolean)])).unwrap();
        let grown_schema = grown("t.t", &old, &wider).unwrap().unwrap();
        let names: Vec<_> = grown_schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(grown("t.t", &old, &stored("t.t", &schema(&[("a", DataType::Int32)])).unwrap()).unwrap().is_none());
        let error = grown("t.t", &old, &stored("t.t", &schema(&[("a", DataType::Utf8)])).unwrap()).unwrap_err();
        assert!(error.to_string().contains("\"a\" is Int64 in the table and Utf8 in the new rows"), "{error}");

        let batch =
            RecordBatch::try_new(schema(&[("a", DataType::Int32)]), vec![Arc::new(Int32Array::from(vec![1, 2]))])
                .unwrap();
        let batch = conform("t.t", &batch, &grown_schema).unwrap();
        assert_eq!((batch.num_columns(), batch.column(2).null_count()), (3, 2));
    }

    #[test]
    fn names_that_no_engine_can_address_are_refused_with_advice() {
        let error = stored("marts.t", &schema(&[("count(*)", DataType::Int64)])).unwrap_err();
        assert!(error.to_string().contains("give it one with AS"), "{error}");
        let error = stored("marts.t", &schema(&[("A", DataType::Int64), ("a", DataType::Int64)])).unwrap_err();
        assert!(error.to_string().contains("two columns"), "{error}");
    }
}
