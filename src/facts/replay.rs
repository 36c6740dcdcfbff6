//! Events out of `raw.events` again, as they once came out of the log.

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, StringViewArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use bytes::Bytes;

use crate::base::{Digest, Envelope, Logged, Micros, Offset, Source};

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("raw.events has no column {0}, or one of another type")]
    Column(&'static str),
    #[error("raw.events, log_offset {offset}: {column} holds {value:?}")]
    Value { offset: i64, column: &'static str, value: String },
}

/// The events of a batch whose columns are those of [`super::raw::events_schema`], in its order.
pub fn events(batch: &RecordBatch) -> Result<Vec<Logged>, ReplayError> {
    let texts = |name| Texts::of(batch, name);
    let (ids, sources, types, versions) = (texts("event_id")?, texts("source")?, texts("type")?, texts("api_version")?);
    let (object_types, object_ids, hints) = (texts("object_type")?, texts("object_id")?, texts("person_hint")?);
    let (accounts, digests, payloads) = (texts("account")?, texts("digest")?, texts("payload")?);
    let column = |name: &'static str| batch.column_by_name(name).ok_or(ReplayError::Column(name));
    let time = |name: &'static str| {
        column(name)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or(ReplayError::Column(name))
    };
    let (occurred, received) = (time("occurred_at")?, time("received_at")?);
    let livemode = column("livemode")?.as_boolean_opt().ok_or(ReplayError::Column("livemode"))?;
    let offsets = column("log_offset")?.as_primitive_opt::<Int64Type>().ok_or(ReplayError::Column("log_offset"))?;
    let event = |i: usize| {
        let offset = offsets.value(i);
        let bad = |column, value: &str| ReplayError::Value { offset, column, value: value.to_owned() };
        let (source, digest) = (sources.text(i), digests.text(i));
        Ok(Logged {
            offset: Offset(u64::try_from(offset).map_err(|_| bad("log_offset", "a negative number"))?),
            envelope: Envelope {
                source: source.parse::<Source>().map_err(|_| bad("source", source))?,
                event_id: ids.text(i).to_owned(),
                event_type: types.text(i).to_owned(),
                api_version: versions.maybe(i),
                account: accounts.maybe(i),
                livemode: livemode.value(i),
                occurred_at: Micros(occurred.value(i)),
                received_at: Micros(received.value(i)),
                object_type: object_types.maybe(i),
                object_id: object_ids.maybe(i),
                person_hint: hints.maybe(i),
                digest: Digest(u64::from_str_radix(digest, 16).map_err(|_| bad("digest", digest))?),
                payload: Bytes::copy_from_slice(payloads.text(i).as_bytes()),
            },
        })
    };
    (0..batch.num_rows()).map(event).collect()
}

/// A column of texts, however the reader holds them.
enum Texts<'a> {
    Plain(&'a StringArray),
    View(&'a StringViewArray),
}

impl<'a> Texts<'a> {
    fn of(batch: &'a RecordBatch, name: &'static str) -> Result<Texts<'a>, ReplayError> {
        let column = batch.column_by_name(name).ok_or(ReplayError::Column(name))?;
        let plain = column.as_string_opt::<i32>().map(Texts::Plain);
        plain.or_else(|| column.as_string_view_opt().map(Texts::View)).ok_or(ReplayError::Column(name))
    }

    fn text(&self, i: usize) -> &'a str {
        match self {
            Texts::Plain(texts) => texts.value(i),
            Texts::View(texts) => texts.value(i),
        }
    }

    fn maybe(&self, i: usize) -> Option<String> {
        let null = match self {
            Texts::Plain(texts) => texts.is_null(i),
            Texts::View(texts) => texts.is_null(i),
        };
        (!null).then(|| self.text(i).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::raw;

    #[test]
    fn what_was_written_is_read_back() {
        let envelope = Envelope {
            source: Source::Klaviyo,
            event_id: "e1".to_owned(),
            event_type: "Opened Email".to_owned(),
            api_version: None,
            account: Some("acct_1".to_owned()),
            livemode: true,
            occurred_at: Micros(-5),
            received_at: Micros(7),
            object_type: Some("event".to_owned()),
            object_id: None,
            person_hint: Some("01H".to_owned()),
            digest: Digest(u64::MAX - 1),
            payload: Bytes::from_static(b"{\"a\":\"\\u00e9\"}"),
        };
        let logged = vec![Logged { offset: Offset(41), envelope }];
        let batch = raw::events_batch("m", &logged).unwrap();
        assert_eq!(events(&batch).unwrap(), logged);
    }
}
