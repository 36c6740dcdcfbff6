//! Addresses, phones and names, encrypted, by the hash that stands for them in tables.
//!
//! AES-256-GCM under a key derived from the privacy key; each entry is bound to its kind and hash, so one cannot be
//! passed off as another. Only activation and support read it. It never holds a value in clear, nor the privacy key.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

use super::{Batch, Keyspace, Store, StoreError};

/// What an entry begins with. Another cipher would be another number.
const FORMAT: u8 = 1;
/// Says that the key in use is the one that the entries were made with.
const PROOF: (&str, &str) = ("proof", "of the key");

/// Entries a batch when another vault's are taken over: its journal record stays a few MB.
const ADOPTED_AT_ONCE: usize = 10_000;

/// Clones are the same vault.
#[derive(Clone)]
pub struct Vault {
    entries: Keyspace,
    key: Arc<RandomizedNonceKey>,
    path: Arc<std::path::Path>,
}

impl Vault {
    /// Fails where the store's entries were made under another key.
    pub fn new(store: &Store, privacy_key: &[u8]) -> Result<Vault, StoreError> {
        let path: Arc<std::path::Path> = store.dir().into();
        let key = derive(privacy_key).map_err(|Unspecified| StoreError::WrongKey { path: path.to_path_buf() })?;
        let vault = Vault { entries: store.keyspace("vault")?, key: Arc::new(key), path };
        vault.prove(store)?;
        Ok(vault)
    }

    /// Keeps `plaintext` as what `hash` stands for. Costs no write where it is kept already.
    pub fn put(&self, batch: &mut Batch, kind: &str, hash: &str, plaintext: &str) -> Result<(), StoreError> {
        if self.get(kind, hash)?.as_deref() != Some(plaintext) {
            let name = name(kind, hash);
            let sealed = self.seal(&name, plaintext)?;
            batch.put(&self.entries, name, sealed);
        }
        Ok(())
    }

    pub fn get(&self, kind: &str, hash: &str) -> Result<Option<String>, StoreError> {
        let name = name(kind, hash);
        self.entries.get(&name)?.map(|sealed| self.open(&name, &sealed)).transpose()
    }

    /// Keeps what `other` keeps as well, a vault of the same key.
    pub fn adopt(&self, store: &Store, other: &Vault) -> Result<(), StoreError> {
        let mut batch = store.batch();
        for entry in other.entries.prefix(b"") {
            let (name, sealed) = entry?;
            batch.put(&self.entries, name, sealed);
            if batch.len() >= ADOPTED_AT_ONCE {
                std::mem::replace(&mut batch, store.batch()).commit()?;
            }
        }
        batch.commit()
    }

    fn prove(&self, store: &Store) -> Result<(), StoreError> {
        match self.get(PROOF.0, PROOF.1) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let mut batch = store.batch();
                self.put(&mut batch, PROOF.0, PROOF.1, "")?;
                batch.commit_durable()
            }
            Err(StoreError::Sealed { path }) => Err(StoreError::WrongKey { path }),
            Err(other) => Err(other),
        }
    }

    fn seal(&self, name: &[u8], plaintext: &str) -> Result<Vec<u8>, StoreError> {
        let mut text = plaintext.as_bytes().to_vec();
        let nonce =
            self.key.seal_in_place_append_tag(Aad::from(name), &mut text).map_err(|Unspecified| self.damaged())?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    fn open(&self, name: &[u8], sealed: &[u8]) -> Result<String, StoreError> {
        let rest = sealed.strip_prefix(&[FORMAT]).ok_or_else(|| self.damaged())?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(|| self.damaged())?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|Unspecified| self.damaged())?;
        let mut text = text.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(name), &mut text).map_err(|Unspecified| self.damaged())?;
        String::from_utf8(plain.to_vec()).map_err(|_| self.damaged())
    }

    fn damaged(&self) -> StoreError {
        StoreError::Sealed { path: self.path.to_path_buf() }
    }
}

/// RFC 5869. The hashes in tables are made with the privacy key itself, so the vault's key is another one.
fn derive(privacy_key: &[u8]) -> Result<RandomizedNonceKey, Unspecified> {
    let mut key = [0; 32];
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

fn name(kind: &str, hash: &str) -> Vec<u8> {
    [kind.as_bytes(), b"\0", hash.as_bytes()].concat()
}
