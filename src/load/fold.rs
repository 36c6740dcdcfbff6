//! Events, folded: which rows they make and how the state behind them changes. Touches no table.
//!
//! Folding reads state from the store, and writes to it only the addresses that events name ([`Folder::keep_contacts`]).
//! Several runs of events may be folded one after the other before the state that they lead to is stored
//! ([`Folded::store`]). The same events over the same state always give the same answer, and over a part of the state that
//! they lead to the whole of it, so what was cut off by a crash is simply folded again.

use std::{
    collections::hash_map::Entry,
    sync::{Arc, OnceLock},
};

use ahash::{HashMap, HashSet};
use bytes::Bytes;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use super::{
    LoadError,
    folded::{Change, Changes, Folded, sort},
    forgotten::Forgotten,
    people,
    wanted::Wanted,
};
use crate::{
    base::{Logged, Offset},
    facts::{
        Contact, DecodeError, Decoded, Decoder, ObjectKey, ObjectState, Stamped,
        raw::{self, Quarantined},
    },
    store::{Keyspace, Store, StoreError, Vault},
};

/// The keyspace of the states of objects.
pub(super) const OBJECTS: &str = "objects";

/// Threads that decode, at most: each of them is a core that nobody else has meanwhile.
const DECODERS: usize = 4;

/// Entries a batch when state is copied: its journal record stays a few MB.
const ADOPTED_AT_ONCE: usize = 10_000;

/// What folding needs: how to read a payload, and where state lies.
pub struct Folder {
    pub(super) decoder: Decoder,
    /// None where they could not be started.
    decoders: OnceLock<Option<ThreadPool>>,
    merchant_id: Arc<str>,
    pub(super) objects: Keyspace,
    pub(super) people: Keyspace,
    /// Offsets of events that no fact could be made of when they were loaded, and that nothing has mended since.
    pub(super) undecodable: Keyspace,
    pub(super) wanted: Wanted,
    vault: Vault,
    pub(super) forgotten: Forgotten,
    pub(super) store: Store,
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
    pub(super) touched: HashSet<ObjectKey>,
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
            decoders: OnceLock::new(),
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
            if let Some(echoes) = state.admit_and_tell(observation, event.offset) {
                observations.extend(echoes);
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

    /// Decodes on several threads: it is half of the loader's work and needs nothing but the event. They stay the same, since what
    /// reads phones keeps some megabytes for each thread that ever asked. They are started by whoever is the first to load and have
    /// the priority of that for good: in `serve` that of loading, which goes on behind, unless a command came before any event.
    fn decode(&self, events: &[Logged]) -> Vec<Result<Decoded, DecodeError>> {
        let one = |event: &Logged| self.decoder.decode(&event.envelope);
        match self.decoders.get_or_init(decoders) {
            Some(threads) => threads.install(|| events.par_iter().map(one).collect()),
            None => events.iter().map(one).collect(),
        }
    }
}

fn decoders() -> Option<ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = ThreadPoolBuilder::new().num_threads(cores.min(DECODERS)).thread_name(|n| format!("decode-{n}"));
    threads.build().inspect_err(|e| tracing::warn!("events are decoded on one thread: {e}")).ok()
}
