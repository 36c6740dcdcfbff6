//! How one event stands in a segment file.
//!
//! ```text
//! magic 4 | body length 4 | offset 8 | place in its group 4 | crc32 of the sixteen bytes before and the body 4 | body
//! ```
//!
//! Numbers are little-endian. The body is what routing needs (postcard) and then the payload as received. The place
//! in the group tells which events were written, and so synced, together: everything before the group was on disk when
//! the group was written. A record with an empty body is a *mark*: it holds no event and says that all before it are
//! on disk; the writer leaves one when it closes.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::base::{Digest, Envelope, Micros, Source, Via};

pub(super) const HEADER: usize = 24;
/// Of one body. A length beyond it is damage, and is not waited for.
pub(super) const MAX_BODY: usize = 64 << 20;
/// Two of its bytes occur in no UTF-8 text, so no payload can be taken for a record.
pub(super) const MAGIC: [u8; 4] = [0xf5, b'T', b'S', 0xf6];

/// A record's header, proven by its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub offset: u64,
    /// How many records of its group stand before it.
    pub place: u32,
    pub body: usize,
}

impl Header {
    pub fn is_mark(&self) -> bool {
        self.body == 0
    }

    /// Everything below was on disk before this record was written.
    pub fn group_start(&self) -> u64 {
        self.offset.saturating_sub(u64::from(self.place))
    }
}

/// What the bytes at some place are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Record(Header),
    /// A record could begin here, but only so many bytes could tell.
    Needs(usize),
    Bad(&'static str),
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Parsed::Needs(HEADER);
    };
    if header[..4] != MAGIC {
        return Parsed::Bad("no record begins there");
    }
    let body = word(header, 4) as usize;
    if body > MAX_BODY {
        return Parsed::Bad("its length cannot be true");
    }
    let Some(body_bytes) = rest.get(..body) else {
        return Parsed::Needs(HEADER + body);
    };
    if checksum(&header[4..20], body_bytes) != word(header, 20) {
        return Parsed::Bad("its checksum is wrong");
    }
    Parsed::Record(Header { offset: number(header, 8), place: word(header, 16), body })
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn write(out: &mut Vec<u8>, offset: u64, place: u32, body: &[u8]) {
    let start = out.len();
    out.reserve(HEADER + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&place.to_le_bytes());
    let crc = checksum(&out[start + 4..], body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// An envelope without its payload. The order of the fields, and of the variants of `Source` and `Via`, is the format.
#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    source: Source,
    event_id: &'a str,
    event_type: &'a str,
    #[serde(borrow)]
    api_version: Option<&'a str>,
    #[serde(borrow)]
    account: Option<&'a str>,
    livemode: bool,
    occurred_at: Micros,
    received_at: Micros,
    #[serde(borrow)]
    object_type: Option<&'a str>,
    #[serde(borrow)]
    object_id: Option<&'a str>,
    #[serde(borrow)]
    person_hint: Option<&'a str>,
    digest: Digest,
    via: Via,
}

/// Appends the body of `envelope` to `out`.
pub(super) fn encode(envelope: &Envelope, out: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
    let meta = Meta {
        source: envelope.source,
        event_id: &envelope.event_id,
        event_type: &envelope.event_type,
        api_version: envelope.api_version.as_deref(),
        account: envelope.account.as_deref(),
        livemode: envelope.livemode,
        occurred_at: envelope.occurred_at,
        received_at: envelope.received_at,
        object_type: envelope.object_type.as_deref(),
        object_id: envelope.object_id.as_deref(),
        person_hint: envelope.person_hint.as_deref(),
        digest: envelope.digest,
        via: envelope.via,
    };
    let mut out = postcard::serialize_with_flavor(&meta, Onto(out))?;
    out.extend_from_slice(&envelope.payload);
    Ok(out)
}

/// What is serialized goes behind what is there. Postcard's own flavor for that goes byte by byte.
struct Onto(Vec<u8>);

impl Flavor for Onto {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> Result<(), postcard::Error> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> Result<Vec<u8>, postcard::Error> {
        Ok(self.0)
    }
}

/// The envelope in a body; its payload shares the body's memory.
pub(super) fn decode(body: &Bytes) -> Result<Envelope, postcard::Error> {
    let (meta, payload) = postcard::take_from_bytes::<Meta>(body)?;
    let own = |text: Option<&str>| text.map(str::to_owned);
    Ok(Envelope {
        source: meta.source,
        event_id: meta.event_id.to_owned(),
        event_type: meta.event_type.to_owned(),
        api_version: own(meta.api_version),
        account: own(meta.account),
        livemode: meta.livemode,
        occurred_at: meta.occurred_at,
        received_at: meta.received_at,
        via: meta.via,
        object_type: own(meta.object_type),
        object_id: own(meta.object_id),
        person_hint: own(meta.person_hint),
        digest: meta.digest,
        payload: body.slice(body.len() - payload.len()..),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let text = || prop::option::of(".{0,20}");
        (
            (0..Source::ALL.len(), ".{0,40}", ".{0,40}", text(), text(), any::<bool>()),
            (
                any::<i64>(),
                any::<i64>(),
                text(),
                text(),
                text(),
                any::<u64>(),
                prop::collection::vec(any::<u8>(), 0..300),
            ),
        )
            .prop_map(|((source, event_id, event_type, api_version, account, livemode), rest)| {
                let (occurred_at, received_at, object_type, object_id, person_hint, digest, payload) = rest;
                Envelope {
                    source: Source::ALL[source],
                    event_id,
                    event_type,
                    api_version,
                    account,
                    livemode,
                    occurred_at: Micros(occurred_at),
                    received_at: Micros(received_at),
                    via: if livemode { Via::Webhook } else { Via::File },
                    object_type,
                    object_id,
                    person_hint,
                    digest: Digest(digest),
                    payload: payload.into(),
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(envelope in envelopes(), offset: u64, place: u32) {
            let body = encode(&envelope, Vec::new()).unwrap();
            let mut bytes = b"before".to_vec();
            write(&mut bytes, offset, place, &body);
            let record = &bytes[6..];
            prop_assert_eq!(parse(record), Parsed::Record(Header { offset, place, body: body.len() }));
            prop_assert_eq!(decode(&Bytes::copy_from_slice(&record[HEADER..])).unwrap(), envelope);
            for cut in 0..record.len() {
                prop_assert!(matches!(parse(&record[..cut]), Parsed::Needs(n) if n > cut));
            }
        }

        #[test]
        fn one_wrong_bit_is_seen(envelope in envelopes(), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            write(&mut bytes, 7, 0, &encode(&envelope, Vec::new()).unwrap());
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(parse(&bytes), Parsed::Record(_)));
        }
    }
}
