//! Computing models: each from one snapshot, its table replaced in one commit, its checks behind it.
//!
//! A model that fails, or that a check of severity `error` finds wrong, stops what reads it and nothing else. A check
//! looks at what readers see: a wrong table is visible, and marked as wrong in `ops.check_results`; what is built on it
//! is not built.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use chrono::NaiveDate;
use datafusion::error::DataFusionError;
use futures::StreamExt;

use super::{
    history::{self, CheckRecord, LastRun, ModelRecord},
    incremental::{self, Since},
    plan::{self, Step},
    problem::Problem,
    project::Project,
    report::{CheckOutcome, ModelOutcome, Status},
    runner::{Request, RunError, Runner, sql_digest},
    spec::{Check, Materialize, Model, Pipeline},
    sql::Sql,
    verify,
};
use crate::{
    base::{Micros, progress::Progress},
    engine::{Answer, Limits, Session, SqlError},
    lake::LakeError,
};

/// What must not be read, and why.
#[derive(Default)]
pub(super) struct Stopped {
    tables: BTreeMap<String, String>,
    /// Tables that no model makes, by the pipeline whose check found them wrong.
    sources: BTreeMap<(String, String), String>,
}

impl Stopped {
    fn reason<'a>(&self, pipeline: &Pipeline, mut tables: impl Iterator<Item = &'a String>) -> Option<String> {
        tables.find_map(|t| {
            let source = || self.sources.get(&(pipeline.name.clone(), t.clone()));
            self.tables.get(t).or_else(source).cloned()
        })
    }
}

/// A run under way.
pub(super) struct Work<'a> {
    runner: &'a Runner,
    project: &'a Project,
    request: &'a Request,
    last_runs: HashMap<String, LastRun>,
    progress: &'a dyn Progress,
    stopped: Stopped,
    pub(super) models: Vec<ModelRecord>,
    pub(super) checks: Vec<CheckRecord>,
}

/// What computing a model came to.
struct Made {
    rows: Option<u64>,
    from_day: Option<NaiveDate>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        project: &'a Project,
        request: &'a Request,
        last_runs: HashMap<String, LastRun>,
        progress: &'a dyn Progress,
    ) -> Work<'a> {
        let (stopped, models, checks) = (Stopped::default(), Vec::new(), Vec::new());
        Work { runner, project, request, last_runs, progress, stopped, models, checks }
    }

    pub(super) async fn steps(&mut self, steps: Vec<Step<'_>>) -> Result<(), RunError> {
        for step in steps {
            match step {
                Step::Model(pipeline, model) => self.model(pipeline, model).await?,
                Step::Check(pipeline, check) => self.check(pipeline, check).await,
            }
        }
        Ok(())
    }

    pub(super) fn outcomes(self) -> (Vec<ModelOutcome>, Vec<CheckOutcome>) {
        (self.models.into_iter().map(|r| r.outcome).collect(), self.checks.into_iter().map(|r| r.outcome).collect())
    }

    async fn model(&mut self, pipeline: &Pipeline, model: &Model) -> Result<(), RunError> {
        let (started_at, began) = (Micros::now(), Instant::now());
        self.progress.begin(&model.name, None, "rows");
        let upstream = self.project.graph().upstream(&model.name);
        let mut outcome = ModelOutcome {
            pipeline: pipeline.name.clone(),
            model: model.name.clone(),
            status: Status::Succeeded,
            rows: None,
            from_day: None,
            seconds: 0.0,
            error: None,
        };
        if let Some(reason) = self.stopped.reason(pipeline, upstream.iter()) {
            (outcome.status, outcome.error) = (Status::Skipped, Some(reason));
        } else {
            match self.make(model).await {
                Ok(made) => (outcome.rows, outcome.from_day) = (made.rows, made.from_day),
                Err(Failure::Model(problem)) => {
                    (outcome.status, outcome.error) = (Status::Failed, Some(problem.to_string()));
                }
                Err(Failure::Run(error)) => return Err(error),
            }
        }
        if outcome.status != Status::Succeeded {
            self.stopped.tables.insert(model.name.clone(), format!("{} {}", model.name, outcome.status.as_str()));
        }
        outcome.seconds = began.elapsed().as_secs_f64();
        self.progress.end(&outcome.summary());
        self.models.push(ModelRecord {
            outcome,
            started_at,
            finished_at: Micros::now(),
            sql_digest: sql_digest(self.project, model),
            table_commit: history::last_commit(&self.runner.lake, &model.name),
        });
        Ok(())
    }

    async fn make(&self, model: &Model) -> Result<Made, Failure> {
        let session = self.session()?;
        // Planned by itself first: so a mistake is told by its place in the file.
        let columns = session.validate(&model.sql.text).await.map_err(|e| self.failure(&model.sql, &e))?;
        verify::has_day(model, &columns).map_err(Failure::Model)?;
        if model.materialize == Materialize::View {
            return Ok(Made { rows: None, from_day: None });
        }
        let from_day = self.first_day(&session, model).await?;
        let sql = match from_day {
            Some(first) => incremental::query(model, first),
            None => model.sql.text.clone(),
        };
        let answer = session.query(&sql).await.map_err(|e| self.failure(&model.sql, &e))?;
        let rows = self.replace(model, answer).await?;
        self.runner.lake.publish();
        Ok(Made { rows: Some(rows), from_day })
    }

    async fn first_day(&self, session: &Session, model: &Model) -> Result<Option<NaiveDate>, Failure> {
        match self.last_runs.get(&model.name) {
            Some(last) if !self.request.full && self.runner.is_intact(self.project, model, last) => {
                let since = Since { last, as_of: self.request.as_of, zone: self.runner.settings.zone };
                Ok(incremental::first_day(self.project, session, model, since).await?)
            }
            _ => Ok(None),
        }
    }

    async fn replace(&self, model: &Model, answer: Answer) -> Result<u64, Failure> {
        let schema = Arc::clone(answer.schema());
        let at = history::next_commit(&self.runner.lake, &model.name);
        match self.runner.lake.replace(&model.name, schema, answer.into_stream(), Some(at)).await {
            Ok(rows) => Ok(rows),
            // The query failed, not the disk.
            Err(LakeError::Rows { source, .. }) => match sql_error(source.as_ref()) {
                Some(error) => Err(self.failure(&model.sql, error)),
                None => Err(Failure::Model(Problem::new(&model.sql.file, None, source.to_string()))),
            },
            Err(LakeError::Schema { detail, .. }) => Err(Failure::Model(Problem::new(&model.sql.file, None, detail))),
            Err(other) => Err(Failure::Run(other.into())),
        }
    }

    async fn check(&mut self, pipeline: &Pipeline, check: &Check) {
        let mut outcome = CheckOutcome {
            pipeline: pipeline.name.clone(),
            check: check.name.clone(),
            severity: check.severity,
            status: Status::Succeeded,
            failures: None,
            error: None,
        };
        let looked_at = plan::looked_at(self.project, pipeline, check);
        if let Some(reason) = self.stopped.reason(pipeline, looked_at.iter()) {
            (outcome.status, outcome.error) = (Status::Skipped, Some(reason));
        } else {
            match self.count(check).await {
                Ok(0) => outcome.failures = Some(0),
                Ok(rows) => {
                    let plural = if rows == 1 { "" } else { "s" };
                    outcome.status = Status::Failed;
                    outcome.failures = Some(rows);
                    outcome.error = Some(format!("{}:{}: {rows} row{plural} found", check.sql.file, check.line));
                }
                Err(problem) => (outcome.status, outcome.error) = (Status::Failed, Some(problem.to_string())),
            }
        }
        if outcome.stops() {
            self.stop_behind(pipeline, check);
        }
        self.checks.push(CheckRecord { outcome, checked_at: Micros::now(), sql_digest: check.sql.digest() });
    }

    /// How many rows a check returns.
    async fn count(&self, check: &Check) -> Result<u64, Problem> {
        let problem = |e: &SqlError| verify::problem(self.project, &check.sql, e);
        let session = self.session().map_err(|e| problem(&e))?;
        let mut answer = session.query(&check.sql.text).await.map_err(|e| problem(&e))?;
        let mut rows = 0;
        while let Some(batch) = answer.next().await {
            rows += batch.map_err(|e| problem(&e))?.num_rows() as u64;
        }
        Ok(rows)
    }

    /// What the check read must not be read. A table that no model makes is only closed to the check's own pipeline.
    fn stop_behind(&mut self, pipeline: &Pipeline, check: &Check) {
        let reason = format!("check \"{}\" of {} failed", check.name, pipeline.name);
        for table in self.project.graph().check_inputs(pipeline, check) {
            if table.starts_with("marts.") || table.starts_with("segments.") {
                self.stopped.tables.entry(table.clone()).or_insert_with(|| reason.clone());
            } else {
                self.stopped.sources.insert((pipeline.name.clone(), table.clone()), reason.clone());
            }
        }
    }

    fn session(&self) -> Result<Session, SqlError> {
        self.runner.session(self.project, self.request.as_of, Limits::default())
    }

    fn failure(&self, sql: &Sql, error: &SqlError) -> Failure {
        Failure::Model(verify::problem(self.project, sql, error))
    }
}

/// Why a model was not made.
enum Failure {
    Model(Problem),
    Run(RunError),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        Failure::Run(error)
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        Failure::Run(error.into())
    }
}

/// The engine's own error among the sources of one of the lake.
fn sql_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a SqlError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<SqlError>() {
            return Some(ours);
        }
        if let Some(DataFusionError::External(inner)) = error.downcast_ref::<DataFusionError>() {
            return sql_error(inner.as_ref());
        }
        next = error.source();
    }
    None
}
