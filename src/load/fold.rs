//! Events, folded: which rows they make and how the state behind them changes. Touches no table.
//!
//! Folding reads state from the store, and writes to it only the addresses that events name ([`Folder::keep_contacts`]).
//! Several runs of events may be folded one after the other before the state that they lead to is stored
//! ([`Folded::store`]). The same events over the same state always give the same answer, and over a part of the state that
//! they lead to the whole of it, so what was cut off by a crash is simply folded again.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::Entry},
    sync::Arc,
};

use ahash::{HashMap, HashSet};
use bytes::Bytes;

use super::{
    LoadError,
    forgotten::Forgotten,
    people::{self, People},
    wanted::Wanted,
};
use crate::{
    base::{Logged, Offset},
    facts::{
        Contact, DecodeError, Decoded, Decoder, ObjectKey, ObjectState, Stamped, Table, Want,
        raw::{self, Quarantined},
    },
    store::{Batch, Keyspace, Store, StoreError, Vault},
};

/// The keyspace of the states of objects.
pub(super) const OBJECTS: &str = "objects";

/// Entries a batch when state is copied: its journal record stays a few MB.
const ADOPTED_AT_ONCE: usize = 10_000;
/// Objects a batch: the store takes one batch at a time, and others have some too.
const STORED_AT_ONCE: usize = 2_000;

/// What folding needs: how to read a payload, and where state lies.
pub struct Folder {
    pub(super) decoder: Decoder,
    merchant_id: Arc<str>,
    objects: Keyspace,
    pub(super) people: Keyspace,
    /// Offsets of events that no fact could be made of when they were loaded, and that nothing has mended since.
    undecodable: Keyspace,
    wanted: Wanted,
    vault: Vault,
    pub(super) forgotten: Forgotten,
    store: Store,
}

/// A row, and the offset of the first event that its object's state holds: it tells a new object from a known one.
/// `None` where that is not known.
#[derive(Debug, Clone)]
pub struct Change {
    pub row: Stamped,
    pub first: Option<Offset>,
}

/// Rows by the table that they belong to, in the order of their offsets.
pub type Changes = BTreeMap<Table, Vec<Change>>;

/// State that events led to and that is not stored yet.
#[derive(Default)]
pub struct Folded {
    objects: HashMap<ObjectKey, ObjectState>,
    pub(super) people: People,
    /// Whether the event at an offset is undecodable, where that changed.
    undecodable: BTreeMap<Offset, bool>,
    /// What single events left open.
    wanted: BTreeSet<Want>,
    /// State before this that is on its way to the store.
    pub(super) below: Option<Arc<Folded>>,
}

/// What one run of events brought.
#[derive(Default)]
pub struct Run {
    /// Rows of tables that are only appended to.
    pub appended: Changes,
    /// Input that is no event, and events that could not become facts; the latter are in `raw.events` too.
    pub quarantined: Vec<Quarantined>,
    pub rejected: u64,
    pub unhandled: u64,
    contacts: Vec<Contact>,
    /// What stays of payloads that came of people who had asked to be forgotten before.
    redacted: HashMap<Offset, Bytes>,
    /// Objects whose state changed.
    touched: HashSet<ObjectKey>,
}

impl Run {
    /// The events as they may be kept.
    pub fn redact(&self, events: &mut [Logged]) {
        for event in events.iter_mut().filter(|_| !self.redacted.is_empty()) {
            if let Some(payload) = self.redacted.get(&event.offset) {
                event.envelope.payload = payload.clone();
            }
        }
    }
}

impl Folder {
    pub fn open(store: &Store, vault: Vault, decoder: Decoder, merchant_id: &str) -> Result<Folder, StoreError> {
        Ok(Folder {
            decoder,
            merchant_id: merchant_id.into(),
            objects: store.keyspace(OBJECTS)?,
            people: store.keyspace(people::PEOPLE)?,
            undecodable: store.keyspace("undecodable")?,
            wanted: Wanted::open(store)?,
            vault,
            forgotten: Forgotten::open(store)?,
            store: store.clone(),
        })
    }

    pub fn merchant_id(&self) -> &str {
        &self.merchant_id
    }

    /// Folds `events` into `folded`. `again`: the events that retries among them ([`raw::retried`]) name, as far as they
    /// are kept.
    pub fn fold(&self, folded: &mut Folded, events: &[Logged], again: &[Logged]) -> Result<Run, LoadError> {
        let mut run = Run::default();
        let decoded = self.decode(events);
        let mut untouched = self.read_ahead(folded, &decoded)?;
        for (event, decoded) in events.iter().zip(decoded) {
            if let Some(rejected) = Quarantined::rejected(event) {
                run.rejected += 1;
                run.quarantined.push(rejected);
                continue;
            }
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    folded.undecodable.insert(event.offset, true);
                    run.quarantined.push(Quarantined::undecodable(event, &error));
                    continue;
                }
            };
            run.unhandled += u64::from(!decoded.handled);
            if let Some(payload) = self.admit((event, event.offset), decoded, folded, &mut run, &mut untouched)? {
                run.redacted.insert(event.offset, payload);
            }
            if let Some(retried) = raw::retried(&event.envelope) {
                self.admit_again(event.offset, retried, again, folded, &mut run, &mut untouched)?;
            }
        }
        for key in untouched.difference(&run.touched) {
            folded.objects.remove(key);
        }
        sort(&mut run.appended);
        Ok(run)
    }

    /// Keeps the addresses that `run` named: before its rows are seen, as whoever sees a person may want to reach them.
    pub fn keep_contacts(&self, run: &Run) -> Result<(), LoadError> {
        // The events of a run name a person again and again; the last word holds.
        let latest: HashMap<_, _> = run.contacts.iter().map(|c| ((&c.owner, c.kind, &c.hash), &c.plaintext)).collect();
        // Somebody's texts one after the other, and neighbours in the store's tree.
        let mut latest: Vec<_> = latest.into_iter().collect();
        latest.sort_unstable();
        let mut sealing = self.vault.sealing();
        for ((owner, kind, hash), plaintext) in latest {
            // A phone that came with nothing else is its own.
            let owner = owner.as_ref().map_or(hash.as_str(), |owner| owner.0.as_str());
            sealing.put(kind, hash, owner, plaintext)?;
        }
        Ok(sealing.commit()?)
    }

    /// Takes over all state of `other`, another store's, in place of its own, and keeps the addresses that it knows.
    pub fn adopt(&self, other: &Folder) -> Result<(), StoreError> {
        let all = [
            (&self.objects, &other.objects),
            (&self.people, &other.people),
            (&self.undecodable, &other.undecodable),
            (self.wanted.entries(), other.wanted.entries()),
            (self.forgotten.entries(), other.forgotten.entries()),
        ];
        for (mine, theirs) in all {
            mine.clear()?;
            let mut batch = self.store.batch();
            for entry in theirs.prefix(b"") {
                let (key, value) = entry?;
                batch.put(mine, key, value);
                if batch.len() >= ADOPTED_AT_ONCE {
                    std::mem::replace(&mut batch, self.store.batch()).commit()?;
                }
            }
            batch.commit()?;
        }
        self.vault.adopt(&other.vault)?;
        self.forgotten.replaced();
        self.store.sync()
    }

    /// Whether the same events could not be read here and there.
    pub fn is_baffled_by_the_same(&self, other: &Folder) -> Result<bool, StoreError> {
        let keys = |folder: &Folder| folder.undecodable.prefix(b"").map(|entry| entry.map(|(key, _)| key));
        let (mut mine, mut theirs) = (keys(self), keys(other));
        loop {
            match (mine.next().transpose()?, theirs.next().transpose()?) {
                (None, None) => return Ok(true),
                (a, b) if a != b => return Ok(false),
                _ => {}
            }
        }
    }

    /// Returns the payload as it may be kept, where it speaks of somebody who asked to be forgotten before `stood`, where the
    /// event came first.
    fn admit(
        &self,
        (event, stood): (&Logged, Offset),
        mut decoded: Decoded,
        folded: &mut Folded,
        run: &mut Run,
        untouched: &mut HashSet<ObjectKey>,
    ) -> Result<Option<Bytes>, LoadError> {
        let livemode = event.envelope.livemode;
        let theirs = self.admit_claims(event, stood, &decoded, folded)?;
        let redacted = if theirs { self.redact(event, &mut decoded)? } else { None };
        let mut observations = decoded.observations;
        while let Some(observation) = observations.pop() {
            let key = observation.key().clone();
            let state = match folded.objects.entry(key.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    untouched.insert(key.clone());
                    entry.insert(self.known(folded.below.as_deref(), &key)?)
                }
            };
            if state.admit(observation, event.offset) {
                observations.extend(state.echoes());
                run.touched.insert(key);
            }
        }
        for row in decoded.rows {
            let account = event.envelope.account.clone();
            let row = Stamped { row, account, livemode, offset: event.offset };
            run.appended.entry(row.row.table()).or_default().push(Change { row, first: Some(event.offset) });
        }
        folded.wanted.extend(decoded.wanted);
        run.contacts.extend(decoded.contacts);
        Ok(redacted)
    }

    /// The state of all objects that the events speak of, in the order of the store: it finds neighbours faster than the
    /// same keys in the order of the events. Returns those that were not in `folded`.
    fn read_ahead(
        &self,
        folded: &mut Folded,
        decoded: &[Result<Decoded, DecodeError>],
    ) -> Result<HashSet<ObjectKey>, LoadError> {
        let named = decoded.iter().flatten().flat_map(|d| &d.observations).map(|o| o.key());
        let unread: HashSet<&ObjectKey> = named.filter(|key| !folded.objects.contains_key(key)).collect();
        let mut unread: Vec<ObjectKey> = unread.into_iter().cloned().collect();
        unread.sort_unstable();
        for key in &unread {
            let state = self.known(folded.below.as_deref(), key)?;
            folded.objects.insert(key.clone(), state);
        }
        Ok(unread.into_iter().collect())
    }

    /// An object's state before it is folded on: on its way to the store, or there, or none yet.
    fn known(&self, below: Option<&Folded>, key: &ObjectKey) -> Result<ObjectState, LoadError> {
        if let Some(state) = below.and_then(|below| below.objects.get(key)) {
            return Ok(state.clone());
        }
        Ok(match self.objects.get(&key.to_bytes())? {
            Some(bytes) => ObjectState::from_bytes(bytes.as_ref())?,
            None => ObjectState::new(key.clone()),
        })
    }

    /// Admits at `offset` the event at `retried`, if nothing could be made of it until now: an event whose facts are in
    /// the tables, by an earlier retry or by a rebuild, does not bring them again.
    fn admit_again(
        &self,
        offset: Offset,
        retried: Offset,
        again: &[Logged],
        folded: &mut Folded,
        run: &mut Run,
        untouched: &mut HashSet<ObjectKey>,
    ) -> Result<(), LoadError> {
        let below = || folded.below.as_ref().and_then(|b| b.undecodable.get(&retried));
        let open = match folded.undecodable.get(&retried).or_else(below) {
            Some(open) => *open,
            None => self.undecodable.contains(&retried.0.to_be_bytes())?,
        };
        let Some(event) = again.iter().find(|e| e.offset == retried).filter(|_| open) else { return Ok(()) };
        if let Ok(decoded) = self.decoder.decode(&event.envelope) {
            folded.undecodable.insert(retried, false);
            let event = Logged { offset, envelope: event.envelope.clone() };
            self.admit((&event, retried), decoded, folded, run, untouched)?;
        }
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
    /// What it lacks is read from `below` before the store.
    pub fn over(&mut self, below: Option<Arc<Folded>>) {
        self.below = below;
    }

    /// The newest row of every object and person that the events changed.
    pub fn rows(&self) -> Changes {
        by_table(self.objects.values().filter_map(changed_row).chain(self.people.rows()))
    }

    /// Those of them that `run`, the last one folded, changed.
    pub fn rows_of(&mut self, run: &Run) -> Changes {
        let people = self.people.fresh_rows();
        let objects = run.touched.iter().filter_map(|key| self.objects.get(key)).filter_map(changed_row);
        by_table(objects.chain(people))
    }

    /// Stores the state and puts what is to go with the loader's position into `batch`. To be called when the tables hold
    /// the rows: a state that is ahead of the position takes in the same events again, and is the same.
    ///
    /// Objects go before, in batches, with `gently` each synced before the next: the disk then never has so much to write at
    /// once that others wait for it.
    pub fn store(&self, folder: &Folder, gently: bool, batch: &mut Batch) -> Result<(), LoadError> {
        let mut objects = self.in_order().into_iter().peekable();
        while objects.peek().is_some() {
            let mut some = folder.store.batch();
            for (key, state) in objects.by_ref().take(STORED_AT_ONCE) {
                some.put(&folder.objects, key, state.to_bytes()?);
                state.undecided().iter().for_each(|want| folder.wanted.add(want, &mut some));
            }
            some.commit()?;
            if gently {
                folder.store.sync()?;
            }
        }
        self.wanted.iter().for_each(|want| folder.wanted.add(want, batch));
        // That an event is mended must not be known before what it says is.
        for (offset, undecodable) in &self.undecodable {
            match undecodable {
                true => batch.put(&folder.undecodable, offset.0.to_be_bytes(), []),
                false => batch.delete(&folder.undecodable, offset.0.to_be_bytes()),
            }
        }
        self.people.store_changes(&folder.people, batch)
    }

    /// The objects, neighbours in the store's tree one after the other, the last first. An object's echoes are told only when
    /// it changes ([`ObjectState::echoes`]), so those that hear them must not be stored after it: who tells is an intent, and
    /// intents are the first table.
    fn in_order(&self) -> Vec<(Vec<u8>, &ObjectState)> {
        let mut objects: Vec<_> = self.objects.iter().map(|(key, state)| (key.to_bytes(), state)).collect();
        objects.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        objects
    }
}

fn by_table(rows: impl Iterator<Item = Change>) -> Changes {
    let mut all = Changes::new();
    for change in rows {
        all.entry(change.row.row.table()).or_default().push(change);
    }
    sort(&mut all);
    all
}

fn sort(changes: &mut Changes) {
    for changes in changes.values_mut() {
        changes.sort_by_key(|c| c.row.offset);
    }
}

fn changed_row(state: &ObjectState) -> Option<Change> {
    stamped(state).map(|row| Change { row, first: state.first_offset() })
}

fn stamped(state: &ObjectState) -> Option<Stamped> {
    let (row, offset) = (state.row()?, state.last_offset()?);
    let account = state.account().map(str::to_owned);
    Some(Stamped { row, account, livemode: state.key().livemode, offset })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Micros, Pseudonymizer, SharedAddresses, Source},
        tests::facts::envelope,
    };

    fn event(offset: u64, kind: &str, object: &str) -> Logged {
        let payload = format!(r#"{{"id":"evt_{offset}","type":"{kind}","data":{{"object":{object}}}}}"#);
        let at = Micros::from_seconds(1_700_000_000 + offset as i64).unwrap();
        let envelope = envelope(Source::Stripe, &format!("evt_{offset}"), kind, at, &payload);
        Logged { offset: Offset(offset), envelope }
    }

    /// An intent whose charge hears from it alone which invoice it is of.
    fn paid() -> [Logged; 3] {
        let made = r#""created":1700000000,"amount":1200,"currency":"eur","status":"succeeded""#;
        [
            event(
                0,
                "charge.succeeded",
                &format!(r#"{{"id":"ch_1","object":"charge","payment_intent":"pi_1",{made}}}"#),
            ),
            event(
                1,
                "payment_intent.succeeded",
                &format!(r#"{{"id":"pi_1","object":"payment_intent","latest_charge":"ch_1",{made}}}"#),
            ),
            event(
                2,
                "invoice_payment.paid",
                r#"{"id":"inpay_1","object":"invoice_payment","amount_paid":1200,"created":1700000000,"currency":"eur",
                    "invoice":"in_1","payment":{"payment_intent":"pi_1","type":"payment_intent"},"status":"paid"}"#,
            ),
        ]
    }

    struct Home {
        store: Store,
        folder: Folder,
        _dir: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Home {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("state")).unwrap();
            let vault = Vault::new(&store, &[7; 32]).unwrap();
            let decoder = Decoder::new(Pseudonymizer::new(&[7; 32]), None, SharedAddresses::default());
            Home { folder: Folder::open(&store, vault, decoder, "m").unwrap(), store, _dir: dir }
        }

        fn folded(&self) -> Folded {
            let mut folded = Folded::default();
            self.folder.fold(&mut folded, &paid(), &[]).unwrap();
            folded
        }

        /// All that is stored once the events were folded to their end.
        fn at_the_end(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
            let mut batch = self.store.batch();
            self.folded().store(&self.folder, false, &mut batch).unwrap();
            batch.commit().unwrap();
            let entries = self.folder.objects.prefix(b"").chain(self.folder.people.prefix(b""));
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
        }
    }

    #[test]
    fn state_that_was_stored_in_part_is_whole_when_the_events_are_folded_again() {
        let whole = Home::new().at_the_end();
        let invoice_of = |state: &[(Vec<u8>, Vec<u8>)]| {
            let charge =
                state.iter().find(|(key, _)| key.ends_with(b"ch_1") && key[0] == Table::Charges as u8).unwrap();
            let row = ObjectState::from_bytes(&charge.1).unwrap().row();
            matches!(row, Some(crate::facts::Row::Charge(charge)) if charge.invoice_id.as_deref() == Some("in_1"))
        };
        assert!(invoice_of(&whole), "the charge heard it");
        let objects = Home::new().folded().in_order().len();
        assert!(objects > 2);
        for cut in 0..=objects {
            let home = Home::new();
            let folded = home.folded();
            let mut batch = home.store.batch();
            for (key, state) in folded.in_order().into_iter().take(cut) {
                batch.put(&home.folder.objects, key, state.to_bytes().unwrap());
            }
            batch.commit().unwrap();
            assert_eq!(home.at_the_end(), whole, "the first {cut} of {objects} were stored");
        }
    }
}
