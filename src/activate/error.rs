//! What can go wrong in activation, and whether to try again.

use super::template::TemplateError;
use crate::{
    base::Micros,
    engine::SqlError,
    lake::LakeError,
    load::LoadError,
    log::{AppendError, LogError},
    store::StoreError,
};

#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log takes no more: nothing is sent until it does.
    #[error("nothing is sent while the log cannot record it: {0}")]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{file}: {source}")]
    Segment { file: String, source: SqlError },
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("segment {segment} yields no column \"person_id\": every row of a segment names a person")]
    NoPerson { segment: String },
    #[error("segment {segment} is left as it is: {reason}")]
    InDoubt { segment: String, reason: String },
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("{what} cannot be encoded: {source}")]
    Encoding { what: &'static str, source: serde_json::Error },
    #[error(
        "{what} cannot be read ({source}): stop, move the state folder away and start again; it is made anew from the log"
    )]
    Damaged { what: &'static str, source: serde_json::Error },
    #[error("a record for the log cannot be packed or unpacked: {0}")]
    Packing(postcard::Error),
    #[error("{what}: {source}")]
    Rows { what: String, source: datafusion::arrow::error::ArrowError },
    #[error("the segments were evaluated as of {last} already; {asked} is before that, and they do not go back")]
    GoesBack { last: Micros, asked: Micros },
    #[error("no trigger \"{name}\"{hint}")]
    UnknownTrigger { name: String, hint: String },
    #[error("no segment \"{name}\"{hint}")]
    UnknownSegment { name: String, hint: String },
    #[error("the work was stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

impl ActivateError {
    /// Is the fault a segment's own, so that others can go on?
    pub fn is_of_the_segment(&self) -> bool {
        matches!(self, ActivateError::Segment { .. } | ActivateError::NoPerson { .. } | ActivateError::InDoubt { .. })
    }
}
