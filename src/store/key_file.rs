//! The file of the keys that people's keys are encrypted under.
//!
//! It stands beside the store, since what was once in the store may lie in its files and journal for long. It is replaced
//! whole, and holds one key, or two while one takes the place of the other.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{aead::RandomizedNonceKey, error::Unspecified, rand};

use super::{
    StoreError,
    seal::{new_key, open, seal},
    sync_dir,
};

/// What the file is bound to.
const NAME: &[u8] = b"vault keys";
const ID_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
/// One key in the file: its number and itself.
const RECORD: usize = ID_BYTES + KEY_BYTES;

pub(super) struct KeyFile {
    path: PathBuf,
    /// Derived from the privacy key.
    seal_key: RandomizedNonceKey,
    /// The newest last, never empty. With the bytes that are written to the file.
    keys: Vec<([u8; RECORD], RandomizedNonceKey)>,
}

impl KeyFile {
    /// Of the store in `dir`; made, with a key, where it is missing and nothing `is_needed` of it.
    pub fn open(dir: &Path, seal_key: RandomizedNonceKey, is_needed: bool) -> Result<KeyFile, StoreError> {
        let path = dir.with_file_name("vault.keys");
        let mut file = KeyFile { path, seal_key, keys: Vec::new() };
        match fs::read(&file.path) {
            Ok(sealed) => file.keys = file.read(&sealed).ok_or_else(|| file.damaged())?,
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_needed => {
                return Err(StoreError::NoVaultKeys { path: file.path, state: dir.to_owned() });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => file.begin_another()?,
            Err(e) => return Err(StoreError::io(&file.path, e)),
        }
        Ok(file)
    }

    /// A key as it may lie in the store. `None` where the system gives no random bytes.
    pub fn wrap(&self, owner: &str, key: &[u8]) -> Option<Vec<u8>> {
        let (record, wrapping) = self.keys.last()?;
        Some([&record[..ID_BYTES], &seal(wrapping, owner.as_bytes(), key)?].concat())
    }

    /// `None` where it is under no key of this file, or is not `owner`'s.
    pub fn unwrap(&self, owner: &str, wrapped: &[u8]) -> Option<Vec<u8>> {
        let (id, sealed) = wrapped.split_at_checked(ID_BYTES)?;
        let (_, wrapping) = self.keys.iter().find(|(record, _)| record.starts_with(id))?;
        open(wrapping, owner.as_bytes(), sealed)
    }

    /// Whether one key is taking the place of another.
    pub fn is_changing(&self) -> bool {
        self.keys.len() > 1
    }

    /// From here on keys are wrapped under another one.
    pub fn begin_another(&mut self) -> Result<(), StoreError> {
        let mut record = [0; RECORD];
        rand::fill(&mut record).map_err(|Unspecified| StoreError::NoRandom { path: self.path.clone() })?;
        let key = new_key(&record[ID_BYTES..]).ok_or_else(|| self.damaged())?;
        self.write(self.records().chain([record]))?;
        self.keys.push((record, key));
        Ok(())
    }

    /// Nothing is under the keys before any more: they are nowhere from here on.
    pub fn end_before(&mut self) -> Result<(), StoreError> {
        self.write(self.records().last().into_iter())?;
        self.keys.drain(..self.keys.len().saturating_sub(1));
        Ok(())
    }

    fn records(&self) -> impl Iterator<Item = [u8; RECORD]> {
        self.keys.iter().map(|(record, _)| *record)
    }

    fn read(&self, sealed: &[u8]) -> Option<Vec<([u8; RECORD], RandomizedNonceKey)>> {
        let records = open(&self.seal_key, NAME, sealed)?;
        let (records, rest) = records.as_chunks::<RECORD>();
        let keys: Option<Vec<_>> = records.iter().map(|r| Some((*r, new_key(&r[ID_BYTES..])?))).collect();
        keys.filter(|keys| !keys.is_empty() && rest.is_empty())
    }

    /// The file before is overwritten before it goes, as far as the disk does so.
    fn write(&self, records: impl Iterator<Item = [u8; RECORD]>) -> Result<(), StoreError> {
        let failed = |e| StoreError::io(&self.path, e);
        let records: Vec<u8> = records.flatten().collect();
        let sealed = seal(&self.seal_key, NAME, &records).ok_or_else(|| self.damaged())?;
        let unfinished = self.path.with_extension("keys.new");
        let mut file = create(&unfinished).map_err(failed)?;
        file.write_all(&sealed).and_then(|()| file.sync_all()).map_err(failed)?;
        let before = OpenOptions::new().write(true).open(&self.path);
        fs::rename(&unfinished, &self.path).map_err(failed)?;
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(dir).map_err(failed)?;
        if let Ok(before) = before {
            blank(before).map_err(failed)?;
        }
        Ok(())
    }

    fn damaged(&self) -> StoreError {
        StoreError::Sealed { path: self.path.clone() }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn blank(mut file: File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    file.write_all(&vec![0; length])?;
    file.sync_all()
}
