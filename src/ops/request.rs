//! What the owner of a directory can be asked to do, as values: performed here or sent over the socket, the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Instance, OpsError,
    backfill::{Asked, Backfilled},
    doctor::Finding,
    erase::Erased,
    export::Held,
    ingest::Ingested,
    quarantine::{Listed, Retried, WithPayload},
    run::{BusinessTime, Ran},
};
use crate::{
    activate::{Dispatched, MemberRow, Preview, SegmentSummary, TriggerSummary},
    base::{Progress, Source},
    sources::orders::OrdersMapping,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    Ingest { source: Source, files: Vec<PathBuf>, mapping: OrdersMapping },
    Backfill { source: Source, since: Option<String>, until: Option<String>, check: bool },
    Run { pipelines: Vec<String>, as_of: Option<String>, known_at: Option<String>, full: bool },
    Segments,
    Members { segment: String },
    Triggers,
    Preview { trigger: String },
    Send { trigger: String },
    Rebuild { tables: Vec<String> },
    Erase { person: String },
    Export { person: String },
    Quarantine,
    QuarantineShow { id: u64 },
    QuarantineRetry { ids: Vec<u64> },
    Check,
    Doctor,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Ingested(Ingested),
    Backfilled(Backfilled),
    Ran(Ran),
    Segments(Vec<SegmentSummary>),
    Members(Vec<MemberRow>),
    Triggers(Vec<TriggerSummary>),
    Preview(Vec<Preview>),
    Sent(Dispatched),
    Rebuilt { rows: u64 },
    Erased(Erased),
    Exported(Vec<Held>),
    Quarantine(Listed),
    SetAside(Box<WithPayload>),
    Retried(Retried),
    Checked(Vec<String>),
    Doctor(Vec<Finding>),
}

impl Instance {
    pub async fn perform(&self, request: Request, progress: &dyn Progress) -> Result<Reply, OpsError> {
        Ok(match request {
            Request::Ingest { source, files, mapping } => {
                Reply::Ingested(self.ingest_files(source, files, mapping, progress).await?)
            }
            Request::Backfill { source, since, until, check } => {
                let asked = Asked { since, until };
                Reply::Backfilled(self.backfill(source, asked, check, progress).await?)
            }
            Request::Run { pipelines, as_of, known_at, full } => {
                let time = BusinessTime { as_of, known_at };
                Reply::Ran(self.run(&pipelines, &time, full, progress).await?)
            }
            Request::Segments => Reply::Segments(self.segments()?),
            Request::Members { segment } => Reply::Members(self.members(&segment)?),
            Request::Triggers => Reply::Triggers(self.triggers()?),
            Request::Preview { trigger } => Reply::Preview(self.preview(&trigger).await?),
            Request::Send { trigger } => Reply::Sent(self.send(&trigger).await?),
            Request::Rebuild { tables } => Reply::Rebuilt { rows: self.rebuild(&tables, progress).await? },
            Request::Erase { person } => Reply::Erased(self.erase(&person, progress).await?),
            Request::Export { person } => Reply::Exported(self.export(&person).await?),
            Request::Quarantine => Reply::Quarantine(self.quarantine().await?),
            Request::QuarantineShow { id } => Reply::SetAside(Box::new(self.set_aside(id).await?)),
            Request::QuarantineRetry { ids } => Reply::Retried(self.retry(&ids, progress).await?),
            Request::Check => Reply::Checked(self.check().await),
            Request::Doctor => Reply::Doctor(self.doctor().await),
        })
    }
}

/// A line of the answer that a request gets over the socket: how far it is, and at last what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    Begin {
        stage: String,
        total: Option<u64>,
        unit: String,
    },
    At {
        done: u64,
    },
    End {
        summary: String,
    },
    Reply(Box<Reply>),
    /// `of_the_words`: what was asked for does not exist, so that the command ends as one that is wrong in itself.
    Failed {
        message: String,
        of_the_words: bool,
    },
}
