//! What can go wrong with the tables, said for the person who reads it: what, where, what to do.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub type Result<T, E = LakeError> = std::result::Result<T, E>;

type Source = Box<dyn Error + Send + Sync + 'static>;

#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("{0:?} is no table name: write schema.table, both of a-z, 0-9 and _, starting with a letter")]
    BadName(String),

    #[error("{table}: {detail}")]
    Schema { table: String, detail: String },

    /// The rows to be stored could not be had: the query that makes them failed.
    #[error("{table}: its new rows could not be computed: {source}")]
    Rows { table: String, source: Source },

    #[error("{table}: cannot {doing} {}: {source}{hint}", path.display())]
    Storage { table: String, doing: &'static str, path: PathBuf, source: Source, hint: &'static str },

    #[error(
        "{table} in {} is damaged: {detail}. Restore the directory from a backup, or move it away and rebuild the table",
        path.display()
    )]
    Corrupt { table: String, path: PathBuf, detail: String },

    #[error("{table} in {} uses {what}, which other software wrote and this version cannot read", path.display())]
    Unsupported { table: String, path: PathBuf, what: String },

    #[error("{table}: another writer committed first {attempts} times in a row: stop the other process and try again")]
    Contended { table: String, attempts: u32 },

    /// A directory entry may or may not be on the disk: whether the last commit would survive a power cut is unknown.
    #[error("the disk failed to keep what was written ({0}): nothing more is written until a restart; check the disk")]
    Broken(String),
}

impl LakeError {
    pub(super) fn storage(table: &str, doing: &'static str, path: &Path, source: impl Into<Source>) -> LakeError {
        let source = source.into();
        let hint = hint(source.as_ref());
        LakeError::Storage { table: table.to_owned(), doing, path: path.to_owned(), source, hint }
    }

    pub(super) fn schema(table: &str, detail: impl Into<String>) -> LakeError {
        LakeError::Schema { table: table.to_owned(), detail: detail.into() }
    }

    /// Whether the same call may succeed later without anyone doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            LakeError::Contended { .. } => true,
            LakeError::Storage { source, .. } => {
                !io_kind(source.as_ref()).is_some_and(|kind| needs_a_person(kind) || kind == ErrorKind::NotFound)
            }
            _ => false,
        }
    }
}

fn needs_a_person(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

/// The kind of the operating system's error at the bottom of `error`, if there is one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // An io::Error that wraps another error hides the kind that matters.
            return match io.get_ref() {
                Some(inner) => io_kind(inner).or(Some(io.kind())),
                None => Some(io.kind()),
            };
        }
        next = error.source();
    }
    None
}

fn hint(error: &(dyn Error + 'static)) -> &'static str {
    match io_kind(error) {
        Some(ErrorKind::PermissionDenied) => {
            ". Give the user that runs this the right to write there, or choose another directory with --data"
        }
        Some(ErrorKind::ReadOnlyFilesystem) => {
            ". The disk is mounted read-only: mount it writable, or choose another directory with --data"
        }
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            ". Free some space; nothing was lost, writing goes on"
        }
        Some(ErrorKind::NotADirectory) => ". A file stands where a directory belongs: move it away",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_error_says_what_to_do() {
        let wrapped = io::Error::other(io::Error::from(ErrorKind::ReadOnlyFilesystem));
        let error = LakeError::storage("core.orders", "write", Path::new("/data/lake"), wrapped);
        let text = error.to_string();
        assert!(text.starts_with("core.orders: cannot write /data/lake: "), "{text}");
        assert!(text.ends_with("mount it writable, or choose another directory with --data"), "{text}");
        assert!(!error.is_retryable());

        let passing = LakeError::storage("core.orders", "write", Path::new("x"), io::Error::from(ErrorKind::TimedOut));
        assert!(passing.is_retryable());
    }
}
