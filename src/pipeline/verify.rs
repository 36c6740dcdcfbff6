//! `check`: every query of a project planned against the tables, without running any.
//!
//! Each model stands as a view for it, so that what reads a mart is planned against the mart's columns as they will be,
//! whether or not it was ever computed.

use arrow::datatypes::{DataType, FieldRef};

use super::{
    graph::Node,
    incremental::bare,
    problem::{Problem, Problems},
    project::Project,
    runner::Runner,
    spec::{Materialize, Model},
    sql::Sql,
};
use crate::{
    base::Micros,
    engine::{Limits, Session, SqlError, View},
};

/// The columns that a segment must have: whom, and what the membership is about.
const SEGMENT_COLUMNS: [&str; 2] = ["person_id", "occurrence"];

impl Runner {
    /// Plans every model, segment and check. All problems are told, each with its file and line.
    pub async fn verify(&self, project: &Project) -> Result<(), Problems> {
        let session = match self.session_with(as_views(project), Micros::now(), Limits::default()) {
            Ok(session) => session,
            Err(e) => return Err(Problems(vec![Problem::new("pipelines", None, e.to_string())])),
        };
        let mut problems = Vec::new();
        for node in project.graph().order() {
            problems.extend(node_problem(project, &session, *node).await);
        }
        for check in project.pipelines().iter().flat_map(|p| &p.checks) {
            problems.extend(columns(project, &session, &check.sql).await.err().flatten());
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

fn as_views(project: &Project) -> Vec<View> {
    let models = project.models().map(|(_, m)| View { name: m.name.clone(), sql: bare(&m.sql.text).to_owned() });
    let segments = project.segments().map(|s| View { name: s.table(), sql: bare(&s.sql.text).to_owned() });
    models.chain(segments).collect()
}

async fn node_problem(project: &Project, session: &Session, node: Node) -> Option<Problem> {
    match node {
        Node::Model { pipeline, model } => {
            let model = project.pipelines().get(pipeline)?.models.get(model)?;
            match columns(project, session, &model.sql).await {
                Ok(columns) => has_day(model, &columns).err(),
                Err(problem) => problem,
            }
        }
        Node::Segment { pipeline, segment } => {
            let segment = project.pipelines().get(pipeline)?.segments.get(segment)?;
            match columns(project, session, &segment.sql).await {
                Ok(columns) => {
                    SEGMENT_COLUMNS.iter().find(|wanted| !columns.iter().any(|c| c.name() == *wanted)).map(|wanted| {
                        Problem::new(&segment.sql.file, None, format!("a segment has a column \"{wanted}\""))
                    })
                }
                Err(problem) => problem,
            }
        }
    }
}

/// The columns of a query. `Err(None)` where the fault is in a view that it reads, which is told at that view.
async fn columns(project: &Project, session: &Session, sql: &Sql) -> Result<Vec<FieldRef>, Option<Problem>> {
    session.validate(&sql.text).await.map_err(|e| {
        let elsewhere = e.view.as_deref().is_some_and(|v| sql_of(project, v).is_some());
        (!elsewhere).then(|| problem(project, sql, &e))
    })
}

/// An error of the engine, told by the place in the file that the SQL came from.
pub(super) fn problem(project: &Project, sql: &Sql, error: &SqlError) -> Problem {
    let sql = error.view.as_deref().and_then(|view| sql_of(project, view)).unwrap_or(sql);
    let line = error.place.and_then(|p| usize::try_from(p.line).ok()).map(|line| sql.file_line(line));
    Problem::new(&sql.file, line, error.message.clone())
}

/// The SQL of a model or a segment.
fn sql_of<'a>(project: &'a Project, name: &str) -> Option<&'a Sql> {
    let model = project.models().find(|(_, m)| m.name == name).map(|(_, m)| &m.sql);
    model.or_else(|| project.segments().find(|s| s.table() == name).map(|s| &s.sql))
}

/// An incremental model has the day that it is incremental by.
pub(super) fn has_day(model: &Model, columns: &[FieldRef]) -> Result<(), Problem> {
    let has = columns.iter().any(|c| c.name() == "day" && *c.data_type() == DataType::Date32);
    if has || !matches!(model.materialize, Materialize::ByDay { .. }) {
        return Ok(());
    }
    let message = "incremental = \"day\" wants a column \"day\" of type DATE, as local_date(created_at) AS day";
    Err(Problem::new(&model.sql.file, None, message))
}
