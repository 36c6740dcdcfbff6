//! Addresses, phones and names, encrypted, by the hash that stands for them in tables.
//!
//! ```text
//! privacy key ──► file of key-encryption keys ──► a key a person ──► their entries
//!                 (one; two while one is replaced)
//! ```
//!
//! AES-256-GCM throughout; each entry is bound to its kind, hash and person, so one cannot be passed off as another. Whoever
//! is forgotten loses their key. As the store's files and journal may hold it a while longer, all other keys are encrypted
//! anew then, under another key-encryption key, and the file of the one before is overwritten: what is left of the key that
//! went opens for nobody. Only activation and support read the vault. It never holds a value in clear, nor the privacy key.

use std::{
    collections::{HashSet, hash_map::Entry},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use ahash::HashMap;
use aws_lc_rs::{
    aead::{AES_256_GCM, RandomizedNonceKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Batch, Keyspace, Store, StoreError,
    key_file::KeyFile,
    seal::{new_key, open, seal},
};
use crate::base::Lately;

/// Says that the privacy key in use is the one that all this was made with.
const PROOF: &[u8] = b"proof\0of the key";
/// Entries a batch when many are written: its journal record stays a few MB.
const AT_ONCE: usize = 10_000;
const KEY_BYTES: usize = 32;
/// Entries of which it is remembered that they are kept: the same address comes with every order.
const REMEMBERED: usize = 50_000;

/// Clones are the same vault.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Store,
    /// `kind NUL hash NUL person` -> text, under the person's key.
    entries: Keyspace,
    /// Person -> key, under a key-encryption key that is named before it.
    keys: Keyspace,
    /// Held for writing while people are forgotten.
    wrapping: RwLock<KeyFile>,
    /// Entries that were kept lately and are there still: of the name the text, both as digests.
    lately: Mutex<Lately<u128, u128>>,
    path: Arc<Path>,
}

/// A text that the vault keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    pub kind: String,
    pub hash: String,
    pub plaintext: String,
    /// Others have it too.
    pub is_shared: bool,
}

impl Vault {
    /// Fails where the store's entries were made under another key.
    pub fn new(store: &Store, privacy_key: &[u8]) -> Result<Vault, StoreError> {
        let path: Arc<Path> = store.dir().into();
        let wrong = || StoreError::WrongKey { path: path.to_path_buf() };
        let key = derive(privacy_key).map_err(|Unspecified| wrong())?;
        prove(store, &key, &path)?;
        let (entries, keys) = (store.keyspace_of_noise("vault_entries")?, store.keyspace_of_noise("vault_keys")?);
        let is_needed = keys.prefix(b"").next().is_some();
        let wrapping = RwLock::new(KeyFile::open(store.dir(), key, is_needed)?);
        let lately = Mutex::new(Lately::new(REMEMBERED));
        Ok(Vault(Arc::new(Inner { store: store.clone(), entries, keys, wrapping, lately, path })))
    }

    /// The way to keep texts; nobody is forgotten before it is committed or dropped.
    pub fn sealing(&self) -> Sealing<'_> {
        let (wrapping, batch) = (self.0.wrapping(), self.0.store.batch());
        Sealing { vault: &self.0, wrapping, batch, keys: HashMap::default(), kept: Vec::new() }
    }

    /// The text of this kind that `hash` stands for.
    pub fn get(&self, kind: &str, hash: &str) -> Result<Option<String>, StoreError> {
        let wrapping = self.0.wrapping();
        for entry in self.0.entries.prefix(&name(kind, hash, "")) {
            let (name, sealed) = entry?;
            let Some(owner) = owner_of(&name) else { continue };
            // Without a key it is of somebody who is being forgotten.
            if let Some(key) = self.0.key_of(&wrapping, owner)? {
                return self.0.open(&key, &name, &sealed).map(Some);
            }
        }
        Ok(None)
    }

    /// All that is kept of these people. Reads the name of every entry.
    pub fn kept_of(&self, people: &HashSet<String>) -> Result<Vec<Kept>, StoreError> {
        let wrapping = self.0.wrapping();
        let mut kept = Vec::new();
        for entry in self.0.entries.prefix(b"") {
            let (name, sealed) = entry?;
            let Some((kind, hash, owner)) = parts(&name).filter(|(_, _, owner)| people.contains(*owner)) else {
                continue;
            };
            if let Some(key) = self.0.key_of(&wrapping, owner)? {
                let plaintext = self.0.open(&key, &name, &sealed)?;
                let is_shared = self.0.others_have(kind, hash, people)?;
                kept.push(Kept { kind: kind.to_owned(), hash: hash.to_owned(), plaintext, is_shared });
            }
        }
        Ok(kept)
    }

    /// Forgets these people: their entries go, and what may be left of their keys anywhere opens no more. Returns how many
    /// entries went. Blocks whoever keeps texts for as long as it takes to encrypt everybody else's keys anew.
    pub fn forget(&self, people: &HashSet<String>) -> Result<usize, StoreError> {
        let Inner { store, entries, keys, wrapping, .. } = &*self.0;
        let mut wrapping = wrapping.write().unwrap_or_else(PoisonError::into_inner);
        self.0.lately().clear();
        // What was cut off before may have taken in keys since.
        if wrapping.is_changing() {
            self.0.renew(&mut wrapping)?;
        }
        wrapping.begin_another()?;
        let (mut batch, mut gone) = (store.batch(), 0);
        for entry in entries.prefix(b"") {
            let (name, _) = entry?;
            if owner_of(&name).is_some_and(|owner| people.contains(owner)) {
                batch.delete(entries, name);
                gone += 1;
            }
        }
        people.iter().for_each(|person| batch.delete(keys, person.as_bytes()));
        batch.commit()?;
        self.0.renew(&mut wrapping)?;
        Ok(gone)
    }

    /// Keeps what `other` keeps as well.
    pub fn adopt(&self, other: &Vault) -> Result<(), StoreError> {
        let theirs = other.0.wrapping();
        let mut sealing = self.sealing();
        for entry in other.0.entries.prefix(b"") {
            let (name, sealed) = entry?;
            let Some((kind, hash, owner)) = parts(&name) else { continue };
            let Some(key) = other.0.key_of(&theirs, owner)? else { continue };
            sealing.put(kind, hash, owner, &other.0.open(&key, &name, &sealed)?)?;
            if sealing.batch.len() >= AT_ONCE {
                sealing.commit()?;
                sealing = self.sealing();
            }
        }
        sealing.commit()
    }
}

/// Texts on their way into the vault. Dropped without a commit, it changes nothing.
#[must_use = "nothing is kept until it is committed"]
pub struct Sealing<'a> {
    vault: &'a Inner,
    wrapping: RwLockReadGuard<'a, KeyFile>,
    batch: Batch,
    /// Of people whose key was read or made.
    keys: HashMap<String, RandomizedNonceKey>,
    /// What is there once this is committed, as `lately` has it.
    kept: Vec<(u128, u128)>,
}

impl Sealing<'_> {
    /// Keeps `plaintext` as what `hash` stands for, for `owner`. Costs no write where it is kept already.
    pub fn put(&mut self, kind: &str, hash: &str, owner: &str, plaintext: &str) -> Result<(), StoreError> {
        let Sealing { vault, wrapping, batch, keys, kept } = self;
        let name = name(kind, hash, owner);
        let digests = (xxh3_128(&name), xxh3_128(plaintext.as_bytes()));
        if vault.lately().get(&digests.0) == Some(digests.1) {
            return Ok(());
        }
        let key = match keys.entry(owner.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(match vault.key_of(wrapping, owner) {
                Ok(Some(key)) => key,
                // One that cannot be read opens nothing any more.
                Ok(None) | Err(StoreError::Sealed { .. }) => {
                    let mut bytes = [0; KEY_BYTES];
                    rand::fill(&mut bytes).map_err(|Unspecified| vault.damaged())?;
                    let wrapped = wrapping.wrap(owner, &bytes).ok_or_else(|| vault.damaged())?;
                    batch.put(&vault.keys, owner.as_bytes(), wrapped);
                    new_key(&bytes).ok_or_else(|| vault.damaged())?
                }
                Err(other) => return Err(other),
            }),
        };
        let known = vault.entries.get(&name)?;
        if known.is_none_or(|sealed| vault.open(key, &name, &sealed).ok().as_deref() != Some(plaintext)) {
            let sealed = seal(key, &name, plaintext.as_bytes()).ok_or_else(|| vault.damaged())?;
            batch.put(&vault.entries, name, sealed);
        }
        kept.push(digests);
        Ok(())
    }

    /// Survives the death of the process; a power cut after the store's next sync.
    pub fn commit(self) -> Result<(), StoreError> {
        self.batch.commit()?;
        let mut lately = self.vault.lately();
        self.kept.into_iter().for_each(|(name, text)| lately.insert(name, text));
        Ok(())
    }
}

impl Inner {
    fn wrapping(&self) -> RwLockReadGuard<'_, KeyFile> {
        self.wrapping.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lately(&self) -> MutexGuard<'_, Lately<u128, u128>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others_have(&self, kind: &str, hash: &str, people: &HashSet<String>) -> Result<bool, StoreError> {
        for entry in self.entries.prefix(&name(kind, hash, "")) {
            if owner_of(&entry?.0).is_some_and(|owner| !people.contains(owner)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `None` of somebody without one.
    fn key_of(&self, wrapping: &KeyFile, owner: &str) -> Result<Option<RandomizedNonceKey>, StoreError> {
        let Some(wrapped) = self.keys.get(owner.as_bytes())? else { return Ok(None) };
        let key = wrapping.unwrap(owner, &wrapped).and_then(|bytes| new_key(&bytes));
        key.map(Some).ok_or_else(|| self.damaged())
    }

    /// Everybody's keys under the newest key-encryption key, which then is the only one.
    fn renew(&self, wrapping: &mut KeyFile) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        for entry in self.keys.prefix(b"") {
            let (person, wrapped) = entry?;
            let owner = str::from_utf8(&person).map_err(|_| self.damaged())?;
            // One that cannot be read opens nothing, until the file that it was made with is restored.
            let Some(key) = wrapping.unwrap(owner, &wrapped) else { continue };
            let wrapped = wrapping.wrap(owner, &key).ok_or_else(|| self.damaged())?;
            batch.put(&self.keys, person, wrapped);
            if batch.len() >= AT_ONCE {
                std::mem::replace(&mut batch, self.store.batch()).commit()?;
            }
        }
        batch.commit()?;
        // Not by the batch, which syncs nothing where it is empty.
        self.store.sync()?;
        wrapping.end_before()
    }

    fn open(&self, key: &RandomizedNonceKey, name: &[u8], sealed: &[u8]) -> Result<String, StoreError> {
        let text = open(key, name, sealed).ok_or_else(|| self.damaged())?;
        String::from_utf8(text).map_err(|_| self.damaged())
    }

    fn damaged(&self) -> StoreError {
        StoreError::Sealed { path: self.path.to_path_buf() }
    }
}

/// Fails where what the store holds was made under another privacy key. Builds before this one kept their entries beside the
/// proof; they are made again with the state.
fn prove(store: &Store, key: &RandomizedNonceKey, path: &Path) -> Result<(), StoreError> {
    let proofs = store.keyspace("vault")?;
    match proofs.get(PROOF)? {
        Some(proof) if open(key, PROOF, &proof).is_none() => {
            return Err(StoreError::WrongKey { path: path.to_owned() });
        }
        Some(_) if proofs.prefix(b"").nth(1).is_none() => return Ok(()),
        Some(_) => proofs.clear()?,
        None => {}
    }
    let proof = seal(key, PROOF, b"").ok_or_else(|| StoreError::Sealed { path: path.to_owned() })?;
    let mut batch = store.batch();
    batch.put(&proofs, PROOF, proof);
    batch.commit_durable()
}

/// RFC 5869. The hashes in tables are made with the privacy key itself, so the vault's key is another one.
fn derive(privacy_key: &[u8]) -> Result<RandomizedNonceKey, Unspecified> {
    let mut key = [0; KEY_BYTES];
    Salt::new(HKDF_SHA256, b"tillstream")
        .extract(privacy_key)
        .expand(&[b"vault 1"], Length(key.len()))?
        .fill(&mut key)?;
    RandomizedNonceKey::new(&AES_256_GCM, &key)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn name(kind: &str, hash: &str, owner: &str) -> Vec<u8> {
    [kind, hash, owner].join("\0").into_bytes()
}

/// Kind, hash and owner.
fn parts(name: &[u8]) -> Option<(&str, &str, &str)> {
    let (kind, rest) = str::from_utf8(name).ok()?.split_once('\0')?;
    let (hash, owner) = rest.split_once('\0')?;
    Some((kind, hash, owner))
}

fn owner_of(name: &[u8]) -> Option<&str> {
    parts(name).map(|(_, _, owner)| owner)
}
