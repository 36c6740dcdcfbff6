//! The way of a body from the door to the tables, less the disk: what must hold for any. Programs in `fuzz/` read it too.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;

use crate::{
    base::{Envelope, Logged, Micros, Offset, Pseudonymizer, SharedAddresses, Source, time::DAY},
    facts::{self, Decoder, ObjectState, Stamped, Table, raw, replay},
    sources::{self, ID_LIMIT, REJECTED},
};

pub const NOW: Micros = Micros(1_790_000_000_000_000);

static DECODER: LazyLock<Decoder> =
    LazyLock::new(|| Decoder::new(Pseudonymizer::new(&[7; 32]), Some("US".to_owned()), SharedAddresses::default()));

/// Decodes, folds, and puts into rows.
pub fn take_through(source: Source, body: &Bytes) -> Envelope {
    let envelope = sources::decode_or_keep(source, body, NOW);
    assert!((1..=ID_LIMIT).contains(&envelope.event_id.len()) && envelope.event_type.len() <= ID_LIMIT);
    assert_eq!(envelope.identity().key(), sources::decode_or_keep(source, body, NOW.plus(DAY)).identity().key());
    let logged = Logged { offset: Offset(5), envelope: envelope.clone() };
    let rows = raw::events_batch("m", Offset(5), std::slice::from_ref(&logged)).unwrap();
    if envelope.event_type == REJECTED {
        assert_eq!(rows.num_rows(), 0);
        return envelope;
    }
    assert_eq!(envelope.payload, *body);
    assert_eq!(replay::events(&rows).unwrap(), [logged]);
    // What cannot be a fact says so.
    let Ok(decoded) = DECODER.decode(&envelope) else { return envelope };
    let mut states: BTreeMap<_, ObjectState> = BTreeMap::new();
    for observation in decoded.observations {
        let key = observation.key().clone();
        states.entry(key.clone()).or_insert_with(|| ObjectState::new(key)).admit(observation, Offset(5));
    }
    let kept = states.values().map(|state| ObjectState::from_bytes(&state.to_bytes().unwrap()).unwrap());
    let folded: Vec<_> = kept.filter_map(|state| state.row()).chain(decoded.rows).collect();
    for row in folded {
        let table: Table = row.table();
        let row = Stamped { row, account: None, livemode: envelope.livemode, offset: Offset(5) };
        facts::batch(table, "m", &[row]).unwrap();
    }
    envelope
}
