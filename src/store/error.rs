//! What can go wrong with state on disk, and what to do about it.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the state folder {} is in use by another process: stop that process, or run this command beside it as its \
         client, with the same --data", path.display()
    )]
    InUse { path: PathBuf },
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the state in {} was written in a format that this program does not read: use the version that wrote it",
        path.display()
    )]
    Format { path: PathBuf },
    #[error(
        "the state in {} cannot be read ({source}): stop, move the folder away and start again; what it holds is \
         made anew from the log and the tables", path.display()
    )]
    Damaged { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error(
        "an earlier write to the state in {} failed, so no more are taken: see that its disk has room and is sound, \
         then start again; nothing acknowledged is lost", path.display()
    )]
    Stopped { path: PathBuf },
    #[error("{name:?} cannot name a keyspace: 1 to 255 bytes")]
    Name { name: String },
    #[error("a key of {bytes} bytes cannot be stored in {}: 1 to 65,535 bytes", path.display())]
    Key { path: PathBuf, bytes: usize },
    #[error(
        "the personal data in {} was encrypted under another privacy key: put back the key file it was made with \
         (privacy.key in the data directory, or [privacy] key_file)", path.display()
    )]
    WrongKey { path: PathBuf },
    #[error(
        "an entry of the vault in {} is damaged, or vault.keys is not the file that it was made with: restore the state \
         folder and vault.keys from one backup, or run `tillstream rebuild`, which makes the vault again", path.display()
    )]
    Sealed { path: PathBuf },
    #[error(
        "{} is missing, and {} holds what was encrypted under it: restore both from one backup, or move the state folder away and \
         start again: what it holds is made anew from the log and the tables", path.display(), state.display()
    )]
    NoVaultKeys { path: PathBuf, state: PathBuf },
    #[error(
        "{} holds {bytes} bytes where a privacy key has 32: restore the file from a backup; another key would make \
         every person in the tables a stranger", path.display()
    )]
    BadKeyFile { path: PathBuf, bytes: usize },
    #[error("the system gave no random bytes to make {} from: start again", path.display())]
    NoRandom { path: PathBuf },
}

impl StoreError {
    pub(super) fn io(path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { path: path.to_owned(), source }
    }

    pub(super) fn of(path: &Path, error: fjall::Error) -> StoreError {
        let path = path.to_owned();
        match error {
            fjall::Error::Locked => StoreError::InUse { path },
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                StoreError::Io { path, source }
            }
            fjall::Error::InvalidVersion(_) => StoreError::Format { path },
            fjall::Error::Poisoned => StoreError::Stopped { path },
            other => StoreError::Damaged { path, source: Box::new(other) },
        }
    }
}

/// What to do about an error of the file system, as the end of a sentence; empty where the error says it itself.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full; make room or move the data directory, then try again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": the disk is mounted read-only; choose a data directory on a writable one with --data"
        }
        io::ErrorKind::PermissionDenied => {
            ": this user may not write there; change the owner, or choose another directory with --data"
        }
        _ => "",
    }
}
