//! The rows of a file of orders, CSV or Parquet, every cell as text.
//!
//! Text is the common tongue: a float's shortest text is the decimal that was meant, and a timestamp's says whether it
//! has a zone. Only the columns that the plan names are read.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::cast,
    csv::reader::{Format, ReaderBuilder},
    datatypes::{DataType, Field, Schema},
};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::sources::content::{Content, PARQUET};

/// A header is a line or two; what has none in so many bytes is no CSV.
const HEADER_LIMIT: u64 = 256 * 1024;

/// Parquet is read from its end, so what comes as a stream is held in memory, and no more of it than this.
const PARQUET_IN_MEMORY: u64 = 512 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;

/// A table whose columns are known and whose rows are still to be read.
pub(super) struct Table {
    pub columns: Vec<String>,
    /// The number of the first row, as a person sees it: a CSV's header is row 1.
    pub first_row: u64,
    rows: Rows,
}

enum Rows {
    Csv { reader: Box<dyn Read + Send>, format: Format },
    ParquetFile(ParquetRecordBatchReaderBuilder<File>),
    ParquetBytes(ParquetRecordBatchReaderBuilder<Bytes>),
}

impl Table {
    /// `path`, where the content is a file's: Parquet is read from there.
    pub fn open(content: Content, path: Option<&Path>) -> Result<Table, String> {
        if content.magic != PARQUET {
            return csv(content);
        }
        let (columns, rows) = match path.filter(|p| !content.packed && p.is_file()) {
            Some(path) => {
                let file = File::open(path).map_err(|e| e.to_string())?;
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
                (names(builder.schema()), Rows::ParquetFile(builder))
            }
            None => {
                let mut all = Vec::new();
                content.reader.take(PARQUET_IN_MEMORY + 1).read_to_end(&mut all).map_err(|e| e.to_string())?;
                if all.len() as u64 > PARQUET_IN_MEMORY {
                    return Err(format!("a Parquet stream over {PARQUET_IN_MEMORY} bytes is not taken: give a file"));
                }
                let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(all)).map_err(|e| e.to_string())?;
                (names(builder.schema()), Rows::ParquetBytes(builder))
            }
        };
        Ok(Table { columns, first_row: 1, rows })
    }

    /// The rows, of these columns only; `wanted` ascends.
    pub fn rows(self, wanted: &[usize]) -> Result<Batches, String> {
        fn parquet<T: parquet::file::reader::ChunkReader + 'static>(
            builder: ParquetRecordBatchReaderBuilder<T>,
            wanted: &[usize],
        ) -> Result<Batches, String> {
            let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
            let reader = builder.with_projection(mask).build().map_err(|e| e.to_string())?;
            Ok(Box::new(reader.map(|b| b.map_err(|e| e.to_string()))))
        }
        match self.rows {
            Rows::ParquetFile(builder) => parquet(builder, wanted),
            Rows::ParquetBytes(builder) => parquet(builder, wanted),
            Rows::Csv { reader, format } => {
                let fields: Vec<_> = self.columns.iter().map(|c| Field::new(c, DataType::Utf8, true)).collect();
                let reader = ReaderBuilder::new(Arc::new(Schema::new(fields)))
                    .with_format(format)
                    .with_projection(wanted.to_vec())
                    .build(reader)
                    .map_err(|e| e.to_string())?;
                Ok(Box::new(reader.map(|b| b.map_err(|e| e.to_string()))))
            }
        }
    }
}

/// The columns of a batch as text.
pub(super) struct Texts {
    columns: Vec<StringArray>,
}

impl Texts {
    pub fn of(batch: &RecordBatch) -> Result<Texts, String> {
        let text = |column: &ArrayRef| cast(column, &DataType::Utf8).map(|a| a.as_string::<i32>().clone());
        let columns = batch.columns().iter().map(text).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        Ok(Texts { columns })
    }

    /// The cell, trimmed; `None` where it is empty.
    pub fn cell(&self, column: usize, row: usize) -> Option<&str> {
        let column = self.columns.get(column)?;
        let text = if column.is_null(row) { "" } else { column.value(row).trim() };
        Some(text).filter(|t| !t.is_empty())
    }
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|f| f.name().clone()).collect()
}

fn csv(content: Content) -> Result<Table, String> {
    let mut reader = content.reader;
    let mut head = Vec::new();
    (&mut reader).take(HEADER_LIMIT).read_until(b'\n', &mut head).map_err(|e| e.to_string())?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16: save it as CSV in UTF-8".to_owned());
    }
    if head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let most = |separator: &u8| head.iter().filter(|b| *b == separator).count();
    let delimiter = [b';', b'\t', b','].into_iter().max_by_key(most).unwrap_or(b',');
    let format = Format::default().with_header(true).with_delimiter(delimiter).with_truncated_rows(true);
    let (schema, _) = format.infer_schema(&head[..], Some(0)).map_err(|e| format!("its header: {e}"))?;
    let columns = names(&schema);
    if columns.iter().all(|c| c.trim().is_empty()) {
        return Err("it is empty: a header with the columns' names is wanted".to_owned());
    }
    let reader = Box::new(Readable::new(io::Cursor::new(head).chain(reader)));
    Ok(Table { columns, first_row: 2, rows: Rows::Csv { reader, format } })
}

/// Text that is read to its end: bytes that are not UTF-8 are taken for Latin-1, which older shops' exports are. One
/// accent in a product's name must not keep a year of orders out.
struct Readable<R> {
    inner: R,
    /// The beginning of a character whose end has not been read.
    cut: Vec<u8>,
    ready: io::Cursor<Vec<u8>>,
}

impl<R: BufRead> Readable<R> {
    fn new(inner: R) -> Readable<R> {
        Readable { inner, cut: Vec::new(), ready: io::Cursor::default() }
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.cut);
        let block = self.inner.fill_buf()?;
        let (used, ended) = (block.len(), block.is_empty());
        bytes.extend_from_slice(block);
        self.inner.consume(used);
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let last = chunks.peek().is_none();
            if last && !ended && chunk.invalid().len() < 4 {
                self.cut = chunk.invalid().to_vec();
            } else {
                text.extend(chunk.invalid().iter().map(|b| char::from(*b)));
            }
        }
        self.ready = io::Cursor::new(text.into_bytes());
        Ok(())
    }
}

impl<R: BufRead> Read for Readable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.ready.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let waiting = self.cut.len();
            self.refill()?;
            // Nothing came and nothing waits any more: the end.
            if self.ready.get_ref().is_empty() && self.cut.is_empty() && waiting == 0 {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.len().min(1).min(buffer.len());
            buffer[..read].copy_from_slice(&self.0[..read]);
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    fn read(bytes: &[u8]) -> String {
        let mut text = String::new();
        Readable::new(io::BufReader::with_capacity(1, Drip(bytes))).read_to_string(&mut text).unwrap();
        let mut at_once = String::new();
        Readable::new(bytes).read_to_string(&mut at_once).unwrap();
        assert_eq!(text, at_once);
        text
    }

    #[test]
    fn any_bytes_are_text() {
        assert_eq!(read("£5, 日本, 🙂".as_bytes()), "£5, 日本, 🙂");
        assert_eq!(read(b"\xa35 caf\xe9"), "£5 café", "Latin-1");
        assert_eq!(read(b"cut \xe6\x97"), "cut \u{e6}\u{97}");
        assert_eq!(read(b""), "");
    }
}
