//! Events out of `raw.events` again, as they once came out of the log.

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, StringViewArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use bytes::Bytes;

use super::raw;
use crate::base::{Digest, Envelope, Identity, Logged, Micros, Offset, Source, Via};

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
    // A build that did not note it wrote none.
    let ways = texts("via").ok();
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
                via: ways.as_ref().and_then(|ways| Via::parse(ways.maybe(i)?.as_str())).unwrap_or(Via::File),
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

/// What tells an event from every other, and where it stood.
pub type Identified<'a> = (Identity<'a>, Offset);

/// The columns of `raw.events` that say it.
pub const IDENTITY: [&str; 5] = ["source", "event_id", "type", "digest", "log_offset"];

/// The identities of a batch with the columns [`IDENTITY`].
pub fn identities(batch: &RecordBatch) -> Result<Vec<Identified<'_>>, ReplayError> {
    let (types, digests) = (Texts::of(batch, "type")?, Texts::of(batch, "digest")?);
    let digest = |i| u64::from_str_radix(digests.text(i), 16).ok().map(Digest);
    identities_of(batch, |i, _| Some((types.text(i), digest(i)?)))
}

/// Those of rejected input, of a batch of `raw.quarantine` with `source`, `event_id` and `log_offset`. Events that only
/// failed to become facts are in `raw.events` too, and are left out.
pub fn rejected_identities(batch: &RecordBatch) -> Result<Vec<Identified<'_>>, ReplayError> {
    identities_of(batch, |_, id| Some((raw::REJECTED, raw::rejected_digest(id)?)))
}

/// `says`: the type and the digest of the event in a row that has this id.
fn identities_of<'a>(
    batch: &'a RecordBatch,
    says: impl Fn(usize, &str) -> Option<(&'a str, Digest)>,
) -> Result<Vec<Identified<'a>>, ReplayError> {
    let (sources, ids) = (Texts::of(batch, "source")?, Texts::of(batch, "event_id")?);
    let offsets = batch.column_by_name("log_offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
    let offsets = offsets.ok_or(ReplayError::Column("log_offset"))?;
    let mut all = Vec::with_capacity(batch.num_rows());
    for i in 0..batch.num_rows() {
        let event_id = ids.text(i);
        let Some((event_type, digest)) = says(i, event_id) else { continue };
        let bad =
            |column, value: &str| ReplayError::Value { offset: offsets.value(i), column, value: value.to_owned() };
        let source = sources.text(i).parse::<Source>().map_err(|_| bad("source", sources.text(i)))?;
        let offset = Offset(u64::try_from(offsets.value(i)).map_err(|_| bad("log_offset", "a negative number"))?);
        all.push((Identity { source, event_id, event_type, digest }, offset));
    }
    Ok(all)
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
            via: Via::Api,
            object_type: Some("event".to_owned()),
            object_id: None,
            person_hint: Some("01H".to_owned()),
            digest: Digest(u64::MAX - 1),
            payload: Bytes::from_static(b"{\"a\":\"\\u00e9\"}"),
        };
        let logged = vec![Logged { offset: Offset(41), envelope }];
        let batch = raw::events_batch("m", Offset(40), &logged).unwrap();
        assert_eq!(events(&batch).unwrap(), logged);
    }
}
