//! Named maps from bytes to bytes, in the order of their keys, and the batches that change them.
//!
//! Iterators see one moment: a batch committed meanwhile is not in them, not even in part.

use std::{path::Path, sync::Arc};

use fjall::{Database, OwnedWriteBatch, PersistMode, Readable};

use super::StoreError;

/// Bytes of a key or a value. Dereferences to `[u8]`; cheap to clone.
pub use fjall::Slice;

/// A key and its value.
pub type Entry = (Slice, Slice);

/// The engine's own limit.
const MAX_KEY: usize = u16::MAX as usize;

/// Clones are the same keyspace.
#[derive(Clone)]
pub struct Keyspace {
    db: Database,
    inner: fjall::Keyspace,
    dir: Arc<Path>,
}

impl Keyspace {
    pub(super) fn new(db: Database, inner: fjall::Keyspace, dir: Arc<Path>) -> Keyspace {
        Keyspace { db, inner, dir }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        self.inner.get(key).map_err(|e| self.failed(e))
    }

    pub fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.inner.contains_key(key).map_err(|e| self.failed(e))
    }

    /// Every entry whose key begins with `prefix`; with an empty one, every entry.
    pub fn prefix(&self, prefix: &[u8]) -> impl DoubleEndedIterator<Item = Result<Entry, StoreError>> + use<> {
        self.entries(self.db.snapshot().prefix(&self.inner, prefix))
    }

    /// Removes every entry, at once and whatever their number; in no batch.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.inner.clear().map_err(|e| self.failed(e))
    }

    fn entries(&self, entries: fjall::Iter) -> impl DoubleEndedIterator<Item = Result<Entry, StoreError>> + use<> {
        let dir = self.dir.clone();
        entries.map(move |entry| entry.into_inner().map_err(|e| StoreError::of(&dir, e)))
    }

    fn failed(&self, error: fjall::Error) -> StoreError {
        StoreError::of(&self.dir, error)
    }
}

/// Changes that become visible and survive together. Dropped without a commit, it changes nothing.
#[must_use = "a batch changes nothing until it is committed"]
pub struct Batch {
    inner: OwnedWriteBatch,
    dir: Arc<Path>,
    /// The length of the first key that cannot be stored; told at the commit, so that `put` needs no result.
    bad_key: Option<usize>,
}

impl Batch {
    pub(super) fn new(inner: OwnedWriteBatch, dir: Arc<Path>) -> Batch {
        Batch { inner, dir, bad_key: None }
    }

    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Slice>, value: impl Into<Slice>) {
        if let Some(key) = self.sound(key.into()) {
            self.inner.insert(&keyspace.inner, key, value);
        }
    }

    pub fn delete(&mut self, keyspace: &Keyspace, key: impl Into<Slice>) {
        if let Some(key) = self.sound(key.into()) {
            self.inner.remove(&keyspace.inner, key);
        }
    }

    pub fn len(&self) -> usize {
        self.inner.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// All or nothing. Survives the death of the process; a power cut only after the next [`super::Store::sync`] or
    /// durable commit.
    pub fn commit(self) -> Result<(), StoreError> {
        self.commit_as(PersistMode::Buffer)
    }

    /// All or nothing, and on disk when this returns, with every batch committed before.
    pub fn commit_durable(self) -> Result<(), StoreError> {
        self.commit_as(PersistMode::SyncData)
    }

    fn commit_as(self, mode: PersistMode) -> Result<(), StoreError> {
        let dir = self.dir;
        if let Some(bytes) = self.bad_key {
            return Err(StoreError::Key { path: dir.to_path_buf(), bytes });
        }
        self.inner.durability(Some(mode)).commit().map_err(|e| StoreError::of(&dir, e))
    }

    fn sound(&mut self, key: Slice) -> Option<Slice> {
        if key.is_empty() || key.len() > MAX_KEY {
            self.bad_key.get_or_insert(key.len());
            return None;
        }
        Some(key)
    }
}
