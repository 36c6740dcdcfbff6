//! One batch of events, folded: which rows it makes and how the state behind them changes. Touches no table.
//!
//! Reads state from the store and writes none; the same events over the same state always give the same answer, so a
//! batch that was cut off by a crash is simply folded again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    LoadError,
    people::{self, People},
};
use crate::{
    base::{Logged, Offset},
    facts::{Contact, DecodeError, Decoded, Decoder, ObjectKey, ObjectState, Stamped, Table, raw::Quarantined},
    store::{Batch, Keyspace, Store, StoreError, Vault},
};

/// Entries a batch when state is copied: its journal record stays a few MB.
const ADOPTED_AT_ONCE: usize = 10_000;

/// What folding needs: how to read a payload, and where state lies.
pub struct Folder {
    decoder: Decoder,
    merchant_id: Arc<str>,
    objects: Keyspace,
    pub(super) people: Keyspace,
    vault: Vault,
}

/// A row, and the offset of the first event that its object's state holds: it tells a new object from a known one.
/// `None` where that is not known.
#[derive(Debug, Clone)]
pub struct Change {
    pub row: Stamped,
    pub first: Option<Offset>,
}

/// What a batch makes.
#[derive(Default)]
pub struct Folded {
    pub rows: BTreeMap<Table, Vec<Change>>,
    /// Input that is no event, and events that could not become facts; the latter are in `raw.events` too.
    pub quarantined: Vec<Quarantined>,
    pub rejected: u64,
    pub unhandled: u64,
    objects: HashMap<ObjectKey, ObjectState>,
    people: People,
    contacts: Vec<Contact>,
}

impl Folder {
    pub fn open(store: &Store, vault: Vault, decoder: Decoder, merchant_id: &str) -> Result<Folder, StoreError> {
        Ok(Folder {
            decoder,
            merchant_id: merchant_id.into(),
            objects: store.keyspace("objects")?,
            people: store.keyspace("people")?,
            vault,
        })
    }

    pub fn merchant_id(&self) -> &str {
        &self.merchant_id
    }

    pub fn fold(&self, events: &[Logged]) -> Result<Folded, LoadError> {
        let mut folded = Folded::default();
        let mut touched: BTreeSet<ObjectKey> = BTreeSet::new();
        for (event, decoded) in events.iter().zip(self.decode(events)) {
            if let Some(rejected) = Quarantined::rejected(event) {
                folded.rejected += 1;
                folded.quarantined.push(rejected);
                continue;
            }
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    folded.quarantined.push(Quarantined::undecodable(event, &error));
                    continue;
                }
            };
            folded.unhandled += u64::from(!decoded.handled);
            self.admit(event, decoded, &mut folded, &mut touched)?;
        }
        folded.objects.retain(|key, _| touched.contains(key));
        let mut rows: Vec<Change> = folded.objects.values().filter_map(changed_row).collect();
        // Which identifiers are new is not asked: they gather in the changes and are folded in from there.
        rows.extend(folded.people.rows().map(|row| Change { row, first: None }));
        for change in rows {
            folded.rows.entry(change.row.row.table()).or_default().push(change);
        }
        for changes in folded.rows.values_mut() {
            changes.sort_by_key(|c| c.row.offset);
        }
        Ok(folded)
    }

    /// Takes over all state of `other`, another store's, in place of its own.
    pub fn adopt(&self, store: &Store, other: &Folder) -> Result<(), StoreError> {
        for (mine, theirs) in [(&self.objects, &other.objects), (&self.people, &other.people)] {
            mine.clear()?;
            let mut batch = store.batch();
            for entry in theirs.prefix(b"") {
                let (key, value) = entry?;
                batch.put(mine, key, value);
                if batch.len() >= ADOPTED_AT_ONCE {
                    std::mem::replace(&mut batch, store.batch()).commit()?;
                }
            }
            batch.commit()?;
        }
        store.sync()
    }

    fn admit(
        &self,
        event: &Logged,
        decoded: Decoded,
        folded: &mut Folded,
        touched: &mut BTreeSet<ObjectKey>,
    ) -> Result<(), LoadError> {
        let livemode = event.envelope.livemode;
        for observation in decoded.observations {
            let key = observation.key().clone();
            let state = match folded.objects.entry(key.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(match self.objects.get(&key.to_bytes())? {
                    Some(bytes) => ObjectState::from_bytes(bytes.as_ref())?,
                    None => ObjectState::new(key.clone()),
                }),
            };
            if state.admit(observation, event.offset) {
                touched.insert(key);
            }
        }
        for row in decoded.rows {
            let stamped = Stamped { row, livemode, offset: event.offset };
            folded
                .rows
                .entry(stamped.row.table())
                .or_default()
                .push(Change { row: stamped, first: Some(event.offset) });
        }
        for claim in &decoded.claims {
            folded.people.admit(&self.people, claim, event.offset)?;
        }
        folded.contacts.extend(decoded.contacts);
        Ok(())
    }

    /// Decodes on two threads: it is half of the loader's work and needs nothing but the event.
    fn decode(&self, events: &[Logged]) -> Vec<Result<Decoded, DecodeError>> {
        let one = |events: &[Logged]| -> Vec<_> { events.iter().map(|e| self.decoder.decode(&e.envelope)).collect() };
        let (left, right) = events.split_at(events.len() / 2);
        std::thread::scope(|threads| {
            let ahead = threads.spawn(|| one(right));
            let mut all = one(left);
            match ahead.join() {
                Ok(rest) => all.extend(rest),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            all
        })
    }
}

impl Folded {
    /// Puts the state that this batch leads to, and the addresses that it named, into `batch`.
    pub fn store_changes(&self, folder: &Folder, batch: &mut Batch) -> Result<(), LoadError> {
        for (key, state) in &self.objects {
            batch.put(&folder.objects, key.to_bytes(), state.to_bytes()?);
        }
        self.people.store_changes(&folder.people, batch)?;
        for contact in &self.contacts {
            folder.vault.put(batch, contact.kind, &contact.hash, &contact.plaintext)?;
        }
        Ok(())
    }
}

fn changed_row(state: &ObjectState) -> Option<Change> {
    stamped(state).map(|row| Change { row, first: state.first_offset() })
}

fn stamped(state: &ObjectState) -> Option<Stamped> {
    let (row, offset) = (state.row()?, state.last_offset()?);
    Some(Stamped { row, livemode: state.key().livemode, offset })
}

/// Every row of the folded tables, a table after the other, from all state that the store holds.
pub fn all_rows(folder: &Folder) -> impl Iterator<Item = Result<Stamped, LoadError>> + use<> {
    let objects = folder.objects.prefix(b"").filter_map(|entry| {
        let read = || -> Result<Option<Stamped>, LoadError> {
            let (_, bytes) = entry?;
            Ok(stamped(&ObjectState::from_bytes(bytes.as_ref())?))
        };
        read().transpose()
    });
    let people = people::all_rows(&folder.people).flat_map(|rows| match rows {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    objects.chain(people)
}
