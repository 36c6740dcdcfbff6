//! What is not to be acted on: what reads a mart that its checks found wrong when they last looked.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{history, project::Project, spec::Severity};
use crate::engine::{Session, SqlError};

/// A check that failed when it last ran.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct FailedCheck {
    pub(super) pipeline: String,
    pub(super) check_name: String,
}

/// Why what the segment or model `name` says is in doubt: a check of severity `error` failed on something that it reads.
/// A table of facts is not in doubt by a check of one pipeline: others read it all the same.
pub async fn doubt(session: &Session, project: &Project, name: &str) -> Result<Option<String>, SqlError> {
    let mut read: BTreeSet<String> = project.graph().upstream(name);
    read.insert(name.to_owned());
    let is_made = |table: &String| table.starts_with("marts.") || table.starts_with("segments.");
    let of_what_is_read: Vec<FailedCheck> = project
        .pipelines()
        .iter()
        .flat_map(|p| p.checks.iter().map(move |c| (p, c)))
        .filter(|(_, c)| c.severity == Severity::Error)
        .filter(|(p, c)| project.graph().check_inputs(p, c).iter().any(|t| is_made(t) && read.contains(t)))
        .map(|(p, c)| FailedCheck { pipeline: p.name.clone(), check_name: c.name.clone() })
        .collect();
    if of_what_is_read.is_empty() {
        return Ok(None);
    }
    let failed = history::failed_checks(session).await?;
    let found = of_what_is_read.into_iter().find(|check| failed.contains(check));
    Ok(found.map(|check| format!("check \"{}\" of {} failed", check.check_name, check.pipeline)))
}
