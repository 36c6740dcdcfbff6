//! What is not to be acted on: what reads a table that a check calls wrong, or that is not of the present.
//!
//! A check that has not run yet has not passed. What stands in the tables of the past, after `run --as-of`, is no reason to
//! write to anybody.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    history,
    project::Project,
    spec::{Check, Model, Pipeline, Severity},
};
use crate::{
    base::{Micros, time::HOUR},
    engine::{Session, SqlError},
    lake::Lake,
};

/// A run whose business time is longer ago than this is one of the past. A run that takes its time is not.
pub(super) const PAST: i64 = HOUR;

/// A check by its pipeline's name and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct CheckName {
    pub(super) pipeline: String,
    pub(super) check_name: String,
}

/// Why what the segment or model `name` says at the session's business time `as_of` is in doubt, and what to do.
///
/// It is where a check of severity `error` on a mart that it reads did not pass, or one that keeps a model or segment on the
/// way from being made; where a mart was never made, or lost; and where one is of another time.
pub async fn doubt(
    session: &Session,
    lake: &Lake,
    project: &Project,
    name: &str,
    as_of: Micros,
) -> Result<Option<String>, SqlError> {
    let mut read: BTreeSet<String> = project.graph().upstream(name);
    read.insert(name.to_owned());
    match by_marts(session, lake, project, &read, as_of).await? {
        None => by_checks(session, project, &read, as_of).await,
        found => Ok(found),
    }
}

async fn by_checks(
    session: &Session,
    project: &Project,
    read: &BTreeSet<String>,
    as_of: Micros,
) -> Result<Option<String>, SqlError> {
    let checks = project.pipelines().iter().flat_map(|p| p.checks.iter().map(move |c| (p, c)));
    let guards: Vec<(&Pipeline, &Check)> =
        checks.filter(|(p, c)| c.severity == Severity::Error && guards(project, p, c, read)).collect();
    if guards.is_empty() {
        return Ok(None);
    }
    let words: BTreeMap<CheckName, bool> = history::checked(session, as_of).await?;
    let found = guards.into_iter().find_map(|(p, c)| {
        let (check, pipeline) = (c.name.clone(), p.name.clone());
        let told = match words.get(&CheckName { pipeline: pipeline.clone(), check_name: check.clone() }) {
            Some(true) => return None,
            Some(false) => "failed: mend what it found (ops.check_results), or make it a warning, and run the pipeline",
            None => "has not run yet: run the pipeline",
        };
        Some(format!("check \"{check}\" of {pipeline} {told} (`tillstream run {pipeline}`)"))
    });
    Ok(found)
}

/// Whether a check is about what is read: a mart or a segment among it, or a table of facts from which a model or segment
/// of its own pipeline among it is made.
fn guards(project: &Project, pipeline: &Pipeline, check: &Check, read: &BTreeSet<String>) -> bool {
    let own = pipeline.models.iter().map(|m| m.name.clone()).chain(pipeline.segments.iter().map(|s| s.table()));
    let own: Vec<String> = own.filter(|name| read.contains(name)).collect();
    let is_made = |table: &str| table.starts_with("marts.") || table.starts_with("segments.");
    project.graph().check_inputs(pipeline, check).iter().any(|table| {
        if is_made(table) {
            read.contains(table)
        } else {
            own.iter().any(|name| project.graph().upstream(name).contains(table))
        }
    })
}

async fn by_marts(
    session: &Session,
    lake: &Lake,
    project: &Project,
    read: &BTreeSet<String>,
    as_of: Micros,
) -> Result<Option<String>, SqlError> {
    let is_read = |m: &Model| m.materialize.is_stored() && read.contains(&m.name);
    let marts: Vec<(&Pipeline, &Model)> = project.models().filter(|(_, m)| is_read(m)).collect();
    if marts.is_empty() {
        return Ok(None);
    }
    let runs = history::last_runs(session).await?;
    let found = marts.into_iter().find_map(|(pipeline, model)| {
        let is_its_own = |run: &&history::LastRun| run.table_commit == history::last_commit(lake, &model.name);
        let told = match runs.get(&model.name).filter(is_its_own) {
            None => "was never made here, or was lost".to_owned(),
            Some(run) if run.as_of != as_of && run.started_at.0 - run.as_of.0 > PAST => {
                format!("is as of {}, as its last run was", run.as_of)
            }
            Some(_) => return None,
        };
        Some(format!("{} {told}: `tillstream run {}` makes it as of now", model.name, pipeline.name))
    });
    Ok(found)
}
