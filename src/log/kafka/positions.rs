//! How far each partition was read, in the store.
//!
//! Written behind what the embedded log has on disk. A power cut may take the last of it back, and a lost store all of it:
//! then a stretch is read again, and found to be duplicates.

use std::collections::BTreeMap;

use crate::store::{Keyspace, Store, StoreError};

pub(super) struct Positions {
    store: Store,
    kept: Keyspace,
    topic: String,
}

impl Positions {
    pub fn open(store: &Store, topic: &str) -> Result<Positions, StoreError> {
        Ok(Positions { store: store.clone(), kept: store.keyspace("log.partitions")?, topic: topic.to_owned() })
    }

    /// The first offset of a partition that was not read yet; `None` where nothing was.
    pub fn get(&self, partition: i32) -> Result<Option<i64>, StoreError> {
        let value = self.kept.get(&self.key(partition))?;
        Ok(value.and_then(|v| Some(i64::from_be_bytes(v.as_ref().try_into().ok()?))))
    }

    pub fn set(&self, next: &BTreeMap<i32, i64>) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        for (partition, next) in next {
            batch.put(&self.kept, self.key(*partition), next.to_be_bytes());
        }
        batch.commit()
    }

    /// No topic's name has a slash.
    fn key(&self, partition: i32) -> Vec<u8> {
        format!("{}/{partition}", self.topic).into_bytes()
    }
}
