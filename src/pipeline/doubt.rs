//! What is not to be acted on: what reads a table that a check calls wrong, or that is not of the present.
//!
//! A check vouches for the tables that it looked at, as they were: one that has not run since a table was made again, or since
//! its own SQL was changed, has not passed. What stands in the tables of another time, after `run --as-of`, is no reason to
//! write to anybody.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    history::{self, LastCheck, LastRun},
    plan,
    project::Project,
    spec::{Check, Model, Pipeline, Severity},
};
use crate::{
    base::{Micros, time::HOUR},
    engine::{Session, SqlError},
    lake::Lake,
};

/// A run that began further than this from its business time is one of another time.
pub(super) const PRESENT: i64 = HOUR;

/// Why what the segment or model `name` says at the session's business time `as_of` is in doubt, and what to do.
///
/// It is where a mart that it reads was never made, or lost, or is of another time; and where a check of severity `error` did
/// not pass that looks at such a mart, or keeps a model or segment on the way from being made.
pub async fn doubt(
    session: &Session,
    lake: &Lake,
    project: &Project,
    name: &str,
    as_of: Micros,
) -> Result<Option<String>, SqlError> {
    let mut read: BTreeSet<String> = project.graph().upstream(name);
    read.insert(name.to_owned());
    let marts: Vec<(&Pipeline, &Model)> =
        project.models().filter(|(_, m)| m.materialize.is_stored() && read.contains(&m.name)).collect();
    let checks = project.pipelines().iter().flat_map(|p| p.checks.iter().map(move |c| (p, c)));
    let guards: Vec<(&Pipeline, &Check)> =
        checks.filter(|(p, c)| c.severity == Severity::Error && guards(project, p, c, &read)).collect();
    if marts.is_empty() && guards.is_empty() {
        return Ok(None);
    }
    let runs = history::last_runs(session).await?;
    if let Some(told) = marts.into_iter().find_map(|(p, m)| mart(p, m, &runs, lake, as_of)) {
        return Ok(Some(told));
    }
    if guards.is_empty() {
        return Ok(None);
    }
    let words = history::last_checks(session, as_of).await?;
    Ok(guards.into_iter().find_map(|(p, c)| verdict(project, p, c, &words, &runs)))
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

fn mart(
    pipeline: &Pipeline,
    model: &Model,
    runs: &HashMap<String, LastRun>,
    lake: &Lake,
    as_of: Micros,
) -> Option<String> {
    let run = runs.get(&model.name).filter(|run| run.table_commit == history::last_commit(lake, &model.name));
    let told = match run {
        None => "was never made here, or was lost".to_owned(),
        // One that left out what came in since has no place in the log.
        Some(run) if run.log_offset.is_none() => format!("is of the past, as of {}", run.as_of),
        Some(run) if run.as_of != as_of && run.began_at.0.abs_diff(run.as_of.0) > PRESENT as u64 => {
            format!("is as of {}", run.as_of)
        }
        Some(_) => return None,
    };
    Some(format!("{} {told}: `tillstream run {}` makes it as of now", model.name, pipeline.name))
}

fn verdict(
    project: &Project,
    pipeline: &Pipeline,
    check: &Check,
    words: &BTreeMap<(String, String), LastCheck>,
    runs: &HashMap<String, LastRun>,
) -> Option<String> {
    let made = |table: &String| runs.get(table).map(|run| run.finished_at);
    let newest = plan::looked_at(project, pipeline, check).iter().filter_map(made).max();
    let last = words.get(&(pipeline.name.clone(), check.name.clone()));
    let since = last.filter(|last| {
        last.sql_digest.as_deref() == Some(check.sql.digest().as_str())
            && newest.is_none_or(|made| made <= last.checked_at)
    });
    let told = match since {
        Some(last) if last.passed => return None,
        Some(_) => "failed: mend what it found (ops.check_results), or make it a warning, and run the pipeline",
        None => "has not run on it yet: run the pipeline",
    };
    Some(format!("check \"{}\" of {} {told} (`tillstream run {}`)", check.name, pipeline.name, pipeline.name))
}
