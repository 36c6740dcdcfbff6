//! Answers as bytes: a table for people, CSV, JSON, Arrow and Parquet for programs.
//!
//! Batches are written as they come, so that an answer of any size takes the memory of a few; but for the table, whose
//! columns are as wide as their widest cell. Times with a zone are ISO 8601 in UTC.

pub mod csv;
mod table;

use std::{
    io::{self, Write},
    str::FromStr,
    sync::Arc,
};

use datafusion::arrow::{
    array::RecordBatch,
    compute::cast,
    datatypes::{DataType, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::writer::{JsonArray, LineDelimited, Writer as JsonWriter, WriterBuilder},
};
use futures::{Stream, StreamExt};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{Answer, SqlError};
use crate::base::suggest;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, NULL as `NULL`, and the number of rows.
    Table,
    /// A header; `true` and `false`; NULL as nothing, the empty text as `""`.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
    /// One Parquet file, zstd.
    Parquet,
}

const FORMATS: [(&str, Format); 6] = [
    ("table", Format::Table),
    ("csv", Format::Csv),
    ("json", Format::Json),
    ("ndjson", Format::Ndjson),
    ("arrow", Format::Arrow),
    ("parquet", Format::Parquet),
];

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        FORMATS.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(|| {
            let names = FORMATS.map(|(name, _)| name);
            format!(
                "unknown format \"{text}\"{}: it is one of {}",
                suggest::did_you_mean(text, names),
                names.join(", ")
            )
        })
    }
}

impl Format {
    /// As `--format` and the HTTP route name it.
    pub fn as_str(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| *name)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Table => "text/plain; charset=utf-8",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Why an answer was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Query(#[from] SqlError),
    #[error("writing the answer failed: {0}")]
    Output(String),
    /// A pipe's other end was closed: its reader has seen enough.
    #[error("whoever read the answer has gone")]
    Gone(#[source] io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => WriteError::Gone(error),
            _ => WriteError::Output(error.to_string()),
        }
    }
}

impl From<ArrowError> for WriteError {
    fn from(error: ArrowError) -> WriteError {
        match error {
            ArrowError::IoError(_, error) => error.into(),
            other => WriteError::Output(other.to_string()),
        }
    }
}

impl From<ParquetError> for WriteError {
    fn from(error: ParquetError) -> WriteError {
        match error {
            ParquetError::External(error) => match error.downcast::<io::Error>() {
                Ok(error) => (*error).into(),
                Err(other) => WriteError::Output(other.to_string()),
            },
            other => WriteError::Output(other.to_string()),
        }
    }
}

/// Writes all of an answer; the number of rows.
pub async fn write(answer: Answer, format: Format, mut to: impl Write + Send) -> Result<u64, WriteError> {
    let schema = Arc::clone(answer.schema());
    write_stream(&schema, answer, format, &mut to).await
}

/// Where an answer goes. One type: the writers of six formats are compiled for each.
type To<'a> = &'a mut (dyn Write + Send);

/// Writes batches of one schema; the number of rows.
pub async fn write_stream(
    schema: &SchemaRef,
    mut batches: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
    format: Format,
    to: To<'_>,
) -> Result<u64, WriteError> {
    let mut writer = Writer::new(schema, format, to)?;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(rows)
}

/// Rows of a Parquet row group, which is held in memory until it is full.
const ROW_GROUP: usize = 128 * 1024;

/// The formats' writers under one roof.
enum Writer<'a> {
    Table(table::Writer<To<'a>>),
    Csv(csv::Writer<To<'a>>),
    Json(Box<JsonWriter<To<'a>, JsonArray>>),
    Ndjson(Box<JsonWriter<To<'a>, LineDelimited>>),
    Arrow(Box<StreamWriter<To<'a>>>),
    Parquet(Box<ArrowWriter<To<'a>>>),
}

impl<'a> Writer<'a> {
    fn new(schema: &SchemaRef, format: Format, to: To<'a>) -> Result<Writer<'a>, WriteError> {
        let json = || WriterBuilder::new().with_explicit_nulls(true);
        Ok(match format {
            Format::Table => Writer::Table(table::Writer::new(schema, to)),
            Format::Csv => Writer::Csv(csv::Writer::new(schema, to)?),
            Format::Json => Writer::Json(Box::new(json().build(to))),
            Format::Ndjson => Writer::Ndjson(Box::new(json().build(to))),
            Format::Arrow => Writer::Arrow(Box::new(StreamWriter::try_new(to, schema)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP))
                    .build();
                Writer::Parquet(Box::new(ArrowWriter::try_new(to, Arc::clone(schema), Some(properties))?))
            }
        })
    }

    fn write(&mut self, batch: RecordBatch) -> Result<(), WriteError> {
        match self {
            Writer::Table(writer) => writer.write(in_utc(batch)?)?,
            Writer::Csv(writer) => writer.write(&in_utc(batch)?)?,
            Writer::Json(writer) => writer.write(&in_utc(batch)?)?,
            Writer::Ndjson(writer) => writer.write(&in_utc(batch)?)?,
            Writer::Arrow(writer) => writer.write(&batch)?,
            Writer::Parquet(writer) => writer.write(&batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), WriteError> {
        match self {
            Writer::Table(writer) => writer.finish(),
            Writer::Csv(writer) => writer.finish(),
            Writer::Json(mut writer) => {
                writer.finish()?;
                let to = writer.into_inner();
                to.write_all(b"\n")?;
                Ok(to.flush()?)
            }
            Writer::Ndjson(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner().flush()?)
            }
            Writer::Arrow(mut writer) => Ok(writer.finish()?),
            Writer::Parquet(writer) => writer.close().map(|_| ()).map_err(WriteError::from),
        }
    }
}

/// Times of other zones, as `AT TIME ZONE` gives them, in UTC.
fn in_utc(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let elsewhere = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(zone)) if zone.as_ref() != "UTC");
    if !batch.schema().fields().iter().any(|f| elsewhere(f.data_type())) {
        return Ok(batch);
    }
    let (schema, columns, _) = batch.into_parts();
    let (mut fields, mut utc) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(columns) {
        let kind = match field.data_type() {
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
            other => other.clone(),
        };
        utc.push(cast(&column, &kind)?);
        fields.push(field.as_ref().clone().with_data_type(kind));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), utc)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{BooleanArray, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray},
        datatypes::{Field, TimeUnit},
        ipc::reader::StreamReader,
    };
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn sample() -> RecordBatch {
        let zone = |tz: &str| DataType::Timestamp(TimeUnit::Microsecond, Some(tz.into()));
        let times = TimestampMicrosecondArray::from(vec![Some(1_769_851_800_000_000), Some(500_000), None]);
        let schema = Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
            Field::new("paid", DataType::Boolean, true),
            Field::new("at", zone("UTC"), true),
            Field::new("local", zone("Europe/Paris"), true),
            Field::new("major", DataType::Decimal128(22, 3), true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringArray::from(vec![Some("a, \"b\""), Some(""), None])),
                Arc::new(Int64Array::from(vec![Some(1), Some(-20), None])),
                Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
                Arc::new(times.clone().with_timezone("UTC")),
                Arc::new(times.with_timezone("Europe/Paris")),
                Arc::new(
                    Decimal128Array::from(vec![Some(12_050), Some(-5), None]).with_precision_and_scale(22, 3).unwrap(),
                ),
            ],
        )
        .unwrap()
    }

    async fn bytes(format: Format, batches: Vec<RecordBatch>) -> Vec<u8> {
        let (schema, mut out) = (sample().schema(), Vec::new());
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        assert_eq!(write_stream(&schema, stream, format, &mut out).await.unwrap(), rows as u64);
        out
    }

    async fn text(format: Format, batches: Vec<RecordBatch>) -> String {
        String::from_utf8(bytes(format, batches).await).unwrap()
    }

    #[tokio::test]
    async fn csv_is_as_the_contract_says() {
        let expected = "name,n,paid,at,local,major\n\
            \"a, \"\"b\"\"\",1,true,2026-01-31T09:30:00Z,2026-01-31T09:30:00Z,12.050\n\
            \"\",-20,false,1970-01-01T00:00:00.500Z,1970-01-01T00:00:00.500Z,-0.005\n\
            ,,,,,\n";
        assert_eq!(text(Format::Csv, vec![sample()]).await, expected);
        assert_eq!(text(Format::Csv, vec![]).await, "name,n,paid,at,local,major\n");
    }

    #[tokio::test]
    async fn json_is_one_array_and_ndjson_one_object_a_line() {
        let array: serde_json::Value =
            serde_json::from_str(&text(Format::Json, vec![sample(), sample()]).await).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 6);
        assert_eq!(array[1]["at"], "1970-01-01T00:00:00.500Z");
        assert_eq!(array[2]["n"], serde_json::Value::Null);
        assert!(array[2].as_object().unwrap().contains_key("n"));
        let lines = text(Format::Ndjson, vec![sample()]).await;
        assert_eq!(lines.lines().count(), 3);
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first, array[0]);
        assert_eq!(text(Format::Json, vec![]).await.trim(), "[]");
        assert_eq!(text(Format::Ndjson, vec![]).await, "");
    }

    #[tokio::test]
    async fn arrow_and_parquet_give_the_rows_back() {
        let arrow = bytes(Format::Arrow, vec![sample()]).await;
        let back: Vec<_> = StreamReader::try_new(arrow.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(back, [sample()]);
        let parquet = bytes::Bytes::from(bytes(Format::Parquet, vec![sample()]).await);
        let reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
        let back: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(back[0].columns(), sample().columns());
    }

    #[tokio::test]
    async fn a_table_is_aligned_and_shows_nulls_and_control_characters() {
        let batch = sample().project(&[0, 1, 2]).unwrap();
        let mut out = Vec::new();
        let stream = futures::stream::iter([Ok(batch.clone())]);
        write_stream(&batch.schema(), stream, Format::Table, &mut out).await.unwrap();
        let expected = [
            " name   |    n | paid  ",
            "--------+------+-------",
            " a, \"b\" |    1 | true  ",
            "        |  -20 | false ",
            " NULL   | NULL | NULL  ",
            "(3 rows)\n",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), expected.join("\n"));

        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8, true)]));
        let steers = StringArray::from(vec!["\u{1b}[2J\n"]);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(steers)]).unwrap();
        let mut out = Vec::new();
        write_stream(&schema, futures::stream::iter([Ok(batch)]), Format::Table, &mut out).await.unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\\u{1b}[2J\\n"));
    }

    #[tokio::test]
    async fn a_long_table_is_written_while_it_is_read() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch = |n| RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(n))]).unwrap();
        let batches = [batch(vec![7; 12_000]), batch(vec![1_000_000; 2])];
        let mut out = Vec::new();
        write_stream(&schema, futures::stream::iter(batches.map(Ok)), Format::Table, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], [" n ", "---", " 7 "]);
        assert_eq!(lines[12_001..], [" 7 ", " 1000000 ", " 1000000 ", "(12002 rows)"]);
    }

    #[test]
    fn formats_are_named() {
        assert_eq!("csv".parse(), Ok(Format::Csv));
        assert!("cvs".parse::<Format>().unwrap_err().contains("did you mean \"csv\"?"));
    }
}
