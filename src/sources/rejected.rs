//! Input that no source can decode: kept with the reason, never dropped, and the same again when it comes again.

use bytes::Bytes;
use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::base::{Digest, Envelope, Micros, Source, Via};

/// The event type of rejected input, whatever its source: it goes to raw.quarantine.
pub const REJECTED: &str = "tillstream.rejected";

/// Why. The text says what was wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("not UTF-8: byte {at} belongs to no character")]
    NotUtf8 { at: usize },
    #[error("not JSON: line {line}, column {column}: {why}")]
    NotJson { line: usize, column: usize, why: String },
    #[error("not a JSON object")]
    NotAnObject,
    #[error("it has no \"{field}\"")]
    Missing { field: &'static str },
    #[error("its \"{field}\" {why}")]
    BadField { field: &'static str, why: &'static str },
    #[error("{0} is no source of events one by one")]
    NotASource(Source),
    #[error("too large: {bytes} bytes, of which the first {kept} are kept")]
    TooLarge { bytes: u64, kept: usize },
    #[error("topic {topic}, partition {partition}, record {offset}: {why}")]
    Record { topic: String, partition: i32, offset: i64, why: Box<Rejected> },
    #[error("row {row}, column {column}: {why}")]
    BadCell { row: u64, column: String, why: String },
}

impl Rejected {
    /// From the parser's error, which puts the place at the end of its text.
    pub(super) fn from_json(error: &serde_json::Error) -> Rejected {
        if error.is_data() {
            return Rejected::NotAnObject;
        }
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let place = format!(" at line {line} column {column}");
        Rejected::NotJson { line, column, why: text.strip_suffix(&place).unwrap_or(&text).to_owned() }
    }

    /// With the line counted from the beginning of a file in which the document starts at line `first`.
    pub(super) fn in_line(self, first: u64) -> Rejected {
        match self {
            Rejected::NotJson { line, column, why } => {
                let before = usize::try_from(first).unwrap_or(usize::MAX).saturating_sub(1);
                Rejected::NotJson { line: line.max(1).saturating_add(before), column, why }
            }
            other => other,
        }
    }

    /// The envelope that keeps `body`.
    pub fn envelope(&self, source: Source, body: &[u8], received_at: Micros) -> Envelope {
        self.envelope_of(source, body, Print::of(body), received_at)
    }

    /// The same where only the beginning of the input is at hand, and the fingerprint of all of it.
    pub(super) fn envelope_of(&self, source: Source, text: &[u8], print: Print, received_at: Micros) -> Envelope {
        #[derive(Serialize)]
        struct Kept<'a> {
            reason: String,
            text: &'a str,
        }
        let text = String::from_utf8_lossy(text);
        let kept = Kept { reason: self.to_string(), text: &text };
        // Two texts always serialise.
        let payload = serde_json::to_vec(&kept).unwrap_or_default();
        Envelope {
            source,
            event_id: print.id(),
            event_type: REJECTED.to_owned(),
            api_version: None,
            account: None,
            livemode: false,
            occurred_at: received_at,
            received_at,
            via: Via::File,
            object_type: None,
            object_id: None,
            person_hint: None,
            digest: Digest(print.0 as u64),
            payload: Bytes::from(payload),
        }
    }
}

/// Whether `text` is all of the rejected input with this id, to the byte: of what is too large only the beginning was kept,
/// and bytes that are no characters were not.
pub fn is_whole(event_id: &str, text: &[u8]) -> bool {
    Print::of(text).id() == event_id
}

/// A fingerprint of rejected bytes: what is rejected twice is kept once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print(u128);

impl Print {
    pub fn of(bytes: &[u8]) -> Print {
        Print(xxh3_128(bytes))
    }

    pub fn of_parts(hasher: &Xxh3) -> Print {
        Print(hasher.digest128())
    }

    fn id(self) -> String {
        format!("{:032x}", self.0)
    }
}
