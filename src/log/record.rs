//! How one event stands in its block: what routing needs (postcard), and then the payload as received.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::base::{Digest, Envelope, Micros, Source, Via};

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
        fn what_is_read_is_what_was_written(envelope in envelopes()) {
            let body = encode(&envelope, b"before".to_vec()).unwrap();
            prop_assert_eq!(decode(&Bytes::from(body).slice(6..)).unwrap(), envelope);
        }
    }
}
