//! Why a command could not be performed, for the person who gave it.

use std::path::{Path, PathBuf};

use crate::{
    activate::ActivateError,
    base::time::BadTime,
    engine::SqlError,
    lake::LakeError,
    load::LoadError,
    log::AppendError,
    log::LogError,
    net::NetError,
    pipeline::{Problems, RunError},
    sources::{FileError, TopicsError, api::ApiError},
    store::StoreError,
};

#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    #[error("cannot {what} {}: {source}; {}", path.display(), remedy(source))]
    Dir { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "{} is in use by {} and does not answer on its socket: wait until that ends, stop it, or name another \
         directory with --data", dir.display(), process.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"))
    )]
    InUse { dir: PathBuf, process: Option<u32> },
    #[error("{0}")]
    Told(String),
    /// What was named does not exist.
    #[error("{0}")]
    Unknown(String),
    #[error(transparent)]
    Time(#[from] BadTime),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Source(#[from] FileError),
    #[error(transparent)]
    Topics(#[from] TopicsError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Project(#[from] Problems),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Activate(#[from] ActivateError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the work was cut off: {0}")]
    CutOff(String),
}

impl OpsError {
    /// Whether what was asked for does not exist, be it a time or a name: the words are at fault, and nothing was done.
    pub fn is_of_the_words(&self) -> bool {
        use ActivateError::{UnknownSegment, UnknownTrigger};
        matches!(
            self,
            OpsError::Time(_)
                | OpsError::Unknown(_)
                | OpsError::Run(RunError::Unknown(_))
                | OpsError::Activate(UnknownSegment { .. } | UnknownTrigger { .. })
        )
    }

    pub fn dir(what: &'static str, path: &Path, source: std::io::Error) -> OpsError {
        OpsError::Dir { what, path: path.to_owned(), source }
    }
}

impl From<tokio::task::JoinError> for OpsError {
    fn from(error: tokio::task::JoinError) -> OpsError {
        OpsError::CutOff(error.to_string())
    }
}

/// What to do about a failure of the file system.
fn remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied => "run as its owner, or name a directory of yours with --data",
        ErrorKind::ReadOnlyFilesystem => "the disk is mounted read-only: name another directory with --data",
        ErrorKind::StorageFull => "make room on the disk; nothing that was acknowledged is lost",
        ErrorKind::NotFound => "its parent directory does not exist",
        _ => "see that the disk is sound, then try again",
    }
}
