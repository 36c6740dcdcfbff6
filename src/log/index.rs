//! Which events the log holds, or ever held: exact, on disk, in the order in which the log has them. An event that has a name
//! ([`Identity::name`]) stands under that, so that its source may deliver it once more in another rendering, with the digest of
//! what it says, so that a file's is told from that; every other, and what a file says otherwise, under its identity.
//!
//! Written after the log's sync, with how far it goes in the same batch: so what it lacks is always a tail of the log,
//! which is added at the next start. It is never ahead of the log; where it seems to be, the log has lost something.

use ahash::HashMap;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::error::LogError;
use crate::{
    base::{Digest, Envelope, Identity, Offset},
    store::{Keyspace, Store, StoreError},
};

/// What tells an event from every other: the SHA-256 of its identity, cut to the longest key that the store compares
/// without following a pointer. 160 bits, so that two events never share one: the chance in a log of 10^12 events is
/// 10^-24.
pub(super) type Key = [u8; 20];

/// What one event may be found by.
pub(super) struct Keys {
    identity: Key,
    /// And the digest of what it says.
    name: Option<(Key, Digest)>,
    /// It is the event of its name, whatever it says.
    by_name: bool,
}

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub offset: Offset,
    /// Under a name: the digest of what the event says.
    pub says: Option<Digest>,
}

/// Where an event is, or is to be.
pub(super) enum Place {
    Taken(Offset),
    Free(Key, Option<Digest>),
}

impl Keys {
    pub fn of(envelope: &Envelope) -> Keys {
        Keys::from(&envelope.identity(), envelope.is_first_hand())
    }

    fn from(identity: &Identity<'_>, by_name: bool) -> Keys {
        let name = identity.name().map(|name| (key_of(&name), identity.digest));
        Keys { identity: key_of(&identity.key()), name, by_name }
    }

    /// `entry`: what stands under a key.
    pub fn place<E>(&self, entry: impl Fn(&Key) -> Result<Option<Entry>, E>) -> Result<Place, E> {
        let named = self.name.map(|(name, says)| Ok((name, says, entry(&name)?))).transpose()?;
        if let Some((_, says, Some(there))) = named
            && (self.by_name || there.says == Some(says))
        {
            return Ok(there.taken());
        }
        // Also where no entry stands under the name: the one that did may be forgotten, and it was of another rendering.
        Ok(match (entry(&self.identity)?, named) {
            (Some(there), _) => there.taken(),
            (None, Some((name, says, None))) => Place::Free(name, Some(says)),
            (None, _) => Place::Free(self.identity, None),
        })
    }
}

impl Entry {
    fn taken(self) -> Place {
        Place::Taken(self.offset)
    }

    fn read(value: &[u8]) -> Option<Entry> {
        let (offset, says) = value.split_first_chunk()?;
        let says = if says.is_empty() { None } else { Some(Digest(number(says)?)) };
        Some(Entry { offset: Offset(u64::from_be_bytes(*offset)), says })
    }

    fn written(self) -> Vec<u8> {
        let mut value = self.offset.0.to_be_bytes().to_vec();
        value.extend(self.says.iter().flat_map(|says| says.0.to_be_bytes()));
        value
    }
}

fn key_of(identity: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&digest(&SHA256, identity).as_ref()[..20]);
    key
}

/// Under it stands how far the index goes. It has another length than every other key.
const COVERED: &[u8] = &[0xff];
/// Before a segment's first offset: what its file was when it was last read to its end and found sound.
const PROVEN: u8 = 0xfe;
/// Entries removed, or events restored, in one batch.
const BATCH: usize = 10_000;

#[derive(Clone)]
pub(super) struct Index {
    store: Store,
    identities: Keyspace,
}

/// How far the index goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    /// It has every identity of the log below this.
    pub end: u64,
    /// The first offset of the segment that was written to then.
    pub segment: u64,
}

/// What a sealed segment's file was when it was read to its end: it need not be read again at every start as long as
/// it is that file still. Damage that leaves no trace in these is found when the events are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    pub length: u64,
    pub inode: u64,
    /// When the file was last changed, in seconds and nanoseconds: the system's own account, which no program sets.
    pub changed: (i64, i64),
    /// One past its last offset.
    pub end: u64,
}

impl Index {
    pub fn open(store: &Store) -> Result<Index, StoreError> {
        Ok(Index { store: store.clone(), identities: store.keyspace_of_noise("log.identities")? })
    }

    pub fn find(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.identities.get(key)?.and_then(|value| Entry::read(&value)))
    }

    pub fn covered(&self) -> Result<Option<Covered>, StoreError> {
        let value = self.identities.get(COVERED)?;
        Ok(value.and_then(|v| {
            let (end, segment) = v.split_at_checked(8)?;
            Some(Covered { end: number(end)?, segment: number(segment)? })
        }))
    }

    /// Adds the entries of the log's next events. Survives the process at once, a power cut after a sync.
    pub fn add(&self, entries: impl Iterator<Item = (Key, Entry)>, covered: Covered) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        // Neighbours in the store's tree one after the other.
        let mut entries: Vec<_> = entries.collect();
        entries.sort_unstable();
        for (key, entry) in entries {
            batch.put(&self.identities, key, entry.written());
        }
        let value = [covered.end.to_be_bytes(), covered.segment.to_be_bytes()].concat();
        batch.put(&self.identities, COVERED, value);
        batch.commit()
    }

    /// The entries of events that the log has or had, as far as they are not there yet.
    pub fn missing(&self, events: impl Iterator<Item = (Keys, Offset)>) -> Result<HashMap<Key, Entry>, StoreError> {
        let mut missing = HashMap::default();
        for (keys, offset) in events {
            let place = keys.place(|key| match missing.get(key) {
                Some(entry) => Ok(Some(*entry)),
                None => self.find(key),
            });
            if let Place::Free(key, says) = place? {
                missing.insert(key, Entry { offset, says });
            }
        }
        Ok(missing)
    }

    /// Adds events that the log no longer holds and the index lost.
    pub fn restore(&self, events: &[(Identity<'_>, Offset)]) -> Result<(), StoreError> {
        for some in events.chunks(BATCH) {
            let mut batch = self.store.batch();
            for (key, entry) in self.missing(some.iter().map(|(identity, at)| (Keys::from(identity, false), *at)))? {
                batch.put(&self.identities, key, entry.written());
            }
            batch.commit()?;
        }
        Ok(())
    }

    pub fn proven(&self, segment: u64) -> Result<Option<Proof>, StoreError> {
        let value = self.identities.get(&proof_key(segment))?;
        Ok(value.and_then(|v| postcard::from_bytes(&v).ok()))
    }

    pub fn prove(&self, segment: u64, proof: &Proof) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        // What cannot be encoded is not kept, and the segment is read again.
        if let Ok(value) = postcard::to_stdvec(proof) {
            batch.put(&self.identities, proof_key(segment), value);
        }
        batch.commit()
    }

    /// Below what offset the identities would survive a power cut.
    pub fn sync(&self) -> Result<Offset, LogError> {
        let covered = self.covered()?;
        self.store.sync()?;
        Ok(Offset(covered.map_or(0, |c| c.end)))
    }

    /// Forgets the identities of events that the log has lost, so that they are stored when they come again.
    pub fn forget_from(&self, end: u64) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        for entry in self.identities.prefix(b"") {
            let (key, value) = entry?;
            if key.len() == size_of::<Key>() && Entry::read(&value).is_some_and(|entry| entry.offset.0 >= end) {
                batch.delete(&self.identities, key);
            }
            if batch.len() >= BATCH {
                std::mem::replace(&mut batch, self.store.batch()).commit()?;
            }
        }
        batch.commit_durable()
    }
}

fn proof_key(segment: u64) -> [u8; 9] {
    let mut key = [PROVEN; 9];
    key[1..].copy_from_slice(&segment.to_be_bytes());
    key
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Source;

    fn opened() -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&Store::open(&dir.path().join("state")).unwrap()).unwrap();
        (dir, index)
    }

    /// One of Stripe's events, as a file or as Stripe itself tells of it.
    fn event(says: u64) -> Identity<'static> {
        Identity { source: Source::Stripe, event_id: "evt_1", event_type: "t", digest: Digest(says) }
    }

    fn found(index: &Index, says: u64, by_name: bool) -> Option<u64> {
        match Keys::from(&event(says), by_name).place(|key| index.find(key)).unwrap() {
            Place::Taken(offset) => Some(offset.0),
            Place::Free(..) => None,
        }
    }

    #[test]
    fn entries_are_found_and_forgotten_from_an_offset_on() {
        let (_dir, index) = opened();
        assert_eq!(index.covered().unwrap(), None);
        let covered = Covered { end: 3, segment: 0 };
        let key = |n| [n; 20];
        let entry = |n: u8| Entry { offset: Offset(n.into()), says: (n > 0).then_some(Digest(7)) };
        index.add((0..3).map(|n| (key(n), entry(n))), covered).unwrap();
        assert_eq!(index.covered().unwrap(), Some(covered));
        let found = || (0..4).map(|n| index.find(&key(n)).unwrap()).collect::<Vec<_>>();
        assert_eq!(found(), [Some(entry(0)), Some(entry(1)), Some(entry(2)), None]);

        index.forget_from(1).unwrap();
        assert_eq!(found(), [Some(entry(0)), None, None, None]);
        assert_eq!(index.covered().unwrap(), Some(covered));
    }

    #[test]
    fn an_event_is_known_by_its_name_to_its_source_and_by_what_it_says_to_files() {
        let (_dir, index) = opened();
        let all = |by_name| [1, 2, 3].map(|says| found(&index, says, by_name));
        assert_eq!((all(true), all(false)), ([None; 3], [None; 3]));
        index.restore(&[(event(1), Offset(5)), (event(1), Offset(6)), (event(2), Offset(7))]).unwrap();
        assert_eq!((all(true), all(false)), ([Some(5); 3], [Some(5), Some(7), None]));
        // What came later is lost, and what came first is known all the same.
        index.forget_from(7).unwrap();
        assert_eq!((all(true), all(false)), ([Some(5); 3], [Some(5), None, None]));
        index.forget_from(0).unwrap();
        assert_eq!((all(true), all(false)), ([None; 3], [None; 3]));
    }

    #[test]
    fn what_stands_under_its_identity_is_known_when_what_had_its_name_is_forgotten() {
        let (_dir, index) = opened();
        // The log's own before what the tables tell of the time before it, as when the state was lost.
        index.restore(&[(event(2), Offset(100))]).unwrap();
        index.restore(&[(event(1), Offset(5))]).unwrap();
        index.forget_from(90).unwrap();
        assert_eq!([1, 2].map(|says| found(&index, says, false)), [Some(5), None]);
        assert_eq!(found(&index, 1, true), Some(5));
    }
}
