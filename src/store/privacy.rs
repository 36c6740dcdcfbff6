//! The key under which addresses, phones and names are hashed and encrypted.
//!
//! Made once and never replaced: under another key every person in the tables would be a stranger.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aws_lc_rs::rand;

use super::{StoreError, sync_dir};

const KEY_BYTES: usize = 32;

/// The key in `path`, made there (mode 0600, synced) if there is no such file.
pub fn privacy_key(path: &Path) -> Result<[u8; KEY_BYTES], StoreError> {
    match read(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path)?;
            read(path)
        }
        known => known,
    }
}

fn read(path: &Path) -> Result<[u8; KEY_BYTES], StoreError> {
    let bytes = fs::read(path).map_err(|e| StoreError::io(path, e))?;
    bytes.as_slice().try_into().map_err(|_| StoreError::BadKeyFile { path: path.to_owned(), bytes: bytes.len() })
}

/// Written under another name and then linked: whoever sees the file sees 32 bytes, and of two makers one wins.
fn make(path: &Path) -> Result<(), StoreError> {
    let failed = |e| StoreError::io(path, e);
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| StoreError::NoRandom { path: path.to_owned() })?;
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = create(&unfinished).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    match fs::hard_link(&unfinished, path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    fs::remove_file(&unfinished).map_err(failed)?;
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(dir).map_err(failed)
}

fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
