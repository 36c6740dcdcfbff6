//! Which identities the log holds, or ever held: exact, on disk, in the order in which the log has them; and which names
//! ([`Envelope::name`]), so that an event that its source delivers once more in another rendering is known.
//!
//! Written after the log's sync, with how far it goes in the same batch: so what it lacks is always a tail of the log,
//! which is added at the next start. It is never ahead of the log; where it seems to be, the log has lost something.

use aws_lc_rs::digest::{SHA256, digest};

use serde::{Deserialize, Serialize};

use super::error::LogError;
use crate::{
    base::{Envelope, Offset},
    store::{Keyspace, Store, StoreError},
};

/// What tells an event from every other: the SHA-256 of its identity, cut to the longest key that the store compares
/// without following a pointer. 160 bits, so that two events never share one: the chance in a log of 10^12 events is
/// 10^-24.
pub(super) type Key = [u8; 20];

/// The keys of one event.
pub(super) struct Keys {
    identity: Key,
    name: Option<Key>,
    /// It is sought by its name alone.
    by_name: bool,
}

impl Keys {
    pub fn of(envelope: &Envelope) -> Keys {
        let name = envelope.name().map(|name| key_of(&name));
        Keys { identity: key_of(&envelope.identity()), name, by_name: envelope.is_first_hand() }
    }

    /// The log holds the event if it has this.
    pub fn sought(&self) -> Key {
        self.name.filter(|_| self.by_name).unwrap_or(self.identity)
    }

    /// Under each of them it is found from now on.
    pub fn all(&self) -> impl Iterator<Item = Key> + use<> {
        [Some(self.identity), self.name].into_iter().flatten()
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
/// Entries removed in one batch.
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
        Ok(Index { store: store.clone(), identities: store.keyspace("log.identities")? })
    }

    pub fn find(&self, key: &Key) -> Result<Option<Offset>, StoreError> {
        Ok(self.identities.get(key)?.and_then(|value| offset(&value)).map(Offset))
    }

    pub fn covered(&self) -> Result<Option<Covered>, StoreError> {
        let value = self.identities.get(COVERED)?;
        Ok(value.and_then(|v| {
            let (end, segment) = v.split_at_checked(8)?;
            Some(Covered { end: offset(end)?, segment: offset(segment)? })
        }))
    }

    /// Adds the identities of the log's next events. Survives the process at once, a power cut after a sync.
    pub fn add(&self, events: impl Iterator<Item = (Key, u64)>, covered: Covered) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        // Neighbours in the store's tree one after the other.
        let mut events: Vec<_> = events.collect();
        events.sort_unstable();
        for (key, offset) in events {
            batch.put(&self.identities, key, offset.to_be_bytes());
        }
        let value = [covered.end.to_be_bytes(), covered.segment.to_be_bytes()].concat();
        batch.put(&self.identities, COVERED, value);
        batch.commit()
    }

    /// Adds identities and names of events that the log no longer holds and the index lost.
    pub fn restore(&self, identities: &[(Vec<u8>, Offset)]) -> Result<(), StoreError> {
        for some in identities.chunks(BATCH) {
            let mut batch = self.store.batch();
            for (identity, offset) in some {
                batch.put(&self.identities, key_of(identity), offset.0.to_be_bytes());
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
            if key.len() == size_of::<Key>() && offset(&value).is_some_and(|o| o >= end) {
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

fn offset(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_found_and_forgotten_from_an_offset_on() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&Store::open(&dir.path().join("state")).unwrap()).unwrap();
        assert_eq!(index.covered().unwrap(), None);
        let covered = Covered { end: 3, segment: 0 };
        let key = |n| [n; 20];
        index.add((0..3).map(|n| (key(n), u64::from(n))), covered).unwrap();
        assert_eq!(index.covered().unwrap(), Some(covered));
        let found = || (0..4).map(|n| index.find(&key(n)).unwrap()).collect::<Vec<_>>();
        assert_eq!(found(), [Some(Offset(0)), Some(Offset(1)), Some(Offset(2)), None]);

        index.forget_from(1).unwrap();
        assert_eq!(found(), [Some(Offset(0)), None, None, None]);
        assert_eq!(index.covered().unwrap(), Some(covered));
    }
}
