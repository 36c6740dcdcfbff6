//! Which days of an incremental model must be computed anew, and the query that does it.
//!
//! Touched are, in every core table that the model reads (itself or through views): rows that are newer than the log
//! offset of the model's last run, by the day of the table's time column (for a folded object the day it began: a
//! refund or a late success touches the day of the payment); and rows of people who were merged since, by the same
//! column. All days from the first touched one on, the last day that was covered included, less the model's lookback,
//! are replaced. Untouched days are carried over; the table is replaced in one commit.
//!
//! What cannot be known this way is computed whole: the first run, a changed query, a business time before the last
//! one, an unknown log offset, and a model that reads another stored model or a view of the core (`core.orders`,
//! `core.people`), whose rows carry no offset.

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use chrono::{DateTime, Days, NaiveDate};
use chrono_tz::Tz;

use super::{
    history::LastRun,
    project::Project,
    runner::RunError,
    spec::{Materialize, Model},
};
use crate::{base::Micros, engine::Session, facts::Table};

/// What decides on the days.
pub(super) struct Since<'a> {
    pub(super) last: &'a LastRun,
    pub(super) as_of: Micros,
    pub(super) zone: Tz,
}

/// The first day to compute anew. `None`: all.
pub(super) async fn first_day(
    project: &Project,
    session: &Session,
    model: &Model,
    since: Since<'_>,
) -> Result<Option<NaiveDate>, RunError> {
    let Materialize::ByDay { lookback_days } = model.materialize else { return Ok(None) };
    let (Some(offset), true) = (since.last.log_offset, since.last.as_of <= since.as_of) else { return Ok(None) };
    let Some(tables) = core_tables(project, model) else { return Ok(None) };
    let mut first = local_day(since.last.as_of, since.zone);
    for table in tables {
        if let Some(touched) = first_touched(session, table, offset).await? {
            first = first.min(local_day(touched, since.zone));
        }
    }
    Ok(first.and_then(|day| day.checked_sub_days(Days::new(lookback_days.into()))))
}

/// The model's query over the days from `first` on, and its table's rows of the days before. The model's text begins on
/// the third line.
pub(super) fn query(model: &Model, first: NaiveDate) -> String {
    format!(
        "SELECT * FROM {} WHERE day < DATE '{first}' UNION ALL\nSELECT * FROM (\n{}\n) AS fresh WHERE day >= DATE '{first}'",
        model.name,
        bare(&model.sql.text)
    )
}

/// A query's text without the semicolon at its end, so that it can stand within another.
pub(super) fn bare(text: &str) -> &str {
    text.trim_end().trim_end_matches(';')
}

/// The tables of facts that the model reads, where it reads nothing else that changes.
fn core_tables(project: &Project, model: &Model) -> Option<Vec<Table>> {
    let mut tables = Vec::new();
    for name in project.graph().upstream(&model.name) {
        let is_view = project.models().any(|(_, m)| m.name == name && m.materialize == Materialize::View)
            || project.segments().any(|s| s.table() == name);
        if is_view || name.starts_with("ref.") {
            continue;
        }
        tables.push(Table::ALL.into_iter().find(|t| t.name() == name)?);
    }
    Some(tables)
}

async fn first_touched(session: &Session, table: Table, offset: i64) -> Result<Option<Micros>, RunError> {
    let (name, time, merges) = (table.name(), table.time_column(), Table::PersonMerges.name());
    let mut sql = format!("SELECT min({time}) AS at FROM {name} WHERE log_offset > {offset}");
    if table.schema().column_with_name("person_id").is_some() {
        sql = format!(
            "{sql} UNION ALL SELECT min({time}) AS at FROM {name} \
             WHERE person_id IN (SELECT new FROM {merges} WHERE log_offset > {offset})"
        );
    }
    let batches = session.query(&sql).await?.collect().await?;
    let times = batches.iter().flat_map(|b| b.column(0).as_primitive::<TimestampMicrosecondType>().iter().flatten());
    Ok(times.min().map(Micros))
}

fn local_day(at: Micros, zone: Tz) -> Option<NaiveDate> {
    DateTime::from_timestamp_micros(at.0).map(|t| t.with_timezone(&zone).date_naive())
}
