//! Where pipelines run: sessions over the tables with a project's views, and runs, which stand in a queue.
//!
//! Decides what a run computes (see `plan`) and whether a model is stale; the computing itself is `work`.

use std::{collections::HashMap, sync::Arc, time::Instant};

use chrono_tz::Tz;
use rand::Rng;
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    history::{self, LastRun, Run},
    incremental, plan,
    project::{Project, UnknownPipeline},
    report::Report,
    spec::{Materialize, Model, Pipeline},
    work::Work,
};
use crate::{
    base::{Currency, Micros, Pseudonymizer, fx::CurrentRates, progress::Progress},
    engine::{Conversion, Engine, Limits, Session, SessionOptions, SqlError, Tables, View},
    lake::{Lake, LakeError},
};

/// Where pipelines run. One a process: clones share the queue.
#[derive(Clone)]
pub struct Runner {
    engine: Engine,
    pub(super) lake: Lake,
    pub(super) settings: Settings,
    /// What queries read instead of the lake's newest snapshot.
    over: Option<Arc<dyn Tables>>,
    queue: Arc<Mutex<()>>,
}

/// What sessions of models need to know of the merchant.
#[derive(Clone)]
pub struct Settings {
    pub zone: Tz,
    pub names: Pseudonymizer,
    pub default_region: Option<String>,
    pub rates: CurrentRates,
    pub reporting_currency: Option<Currency>,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Request {
    /// Names; all pipelines where empty.
    pub pipelines: Vec<String>,
    /// Business time: what happened after it is not seen.
    pub as_of: Micros,
    /// The loader's position, read before the run: the rows of all records up to it are in the tables. Without it
    /// incremental models are computed whole.
    pub log_offset: Option<i64>,
    /// Compute incremental models whole, and other pipelines' models even where they are fresh.
    pub full: bool,
}

/// What stops a whole run; a model's own failure does not.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Unknown(#[from] UnknownPipeline),
    #[error("the tables could not be read: {0}")]
    Read(#[from] SqlError),
    #[error("the tables could not be written: {0}")]
    Write(#[from] LakeError),
    #[error("what ran could not be recorded: {0}")]
    Record(String),
}

impl Runner {
    pub fn new(engine: Engine, lake: Lake, settings: Settings) -> Runner {
        Runner { engine, lake, settings, over: None, queue: Arc::default() }
    }

    /// The same, reading `tables`; what it computes goes to the lake all the same.
    pub fn over(self, tables: Arc<dyn Tables>) -> Runner {
        Runner { over: Some(tables), ..self }
    }

    /// A session over the published tables, with the project's views and segments, at a business time.
    pub fn session(&self, project: &Project, as_of: Micros, limits: Limits) -> Result<Session, SqlError> {
        let snapshot = self.lake.snapshot();
        let views = views(project, |table| snapshot.rows(table).is_some());
        self.session_with(views, as_of, limits)
    }

    pub(super) fn session_with(&self, views: Vec<View>, as_of: Micros, limits: Limits) -> Result<Session, SqlError> {
        let Settings { zone, names, default_region, rates, reporting_currency } = self.settings.clone();
        let tables = self.over.clone().unwrap_or_else(|| self.lake.snapshot());
        self.engine.session(SessionOptions {
            tables,
            views: Arc::new(views),
            as_of,
            zone,
            names,
            default_region,
            money: Conversion { rates: rates.get(), reporting: reporting_currency },
            limits,
        })
    }

    /// Runs what `request` asks for, and what that needs.
    pub async fn run(&self, project: &Project, request: &Request, progress: &dyn Progress) -> Result<Report, RunError> {
        let _turn = self.queue.lock().await;
        let chosen = chosen(project, &request.pipelines)?;
        let began = Instant::now();
        let last_runs = history::last_runs(&self.session(project, request.as_of, Limits::default())?).await?;
        // Tables of the past are true to no offset of the log: what follows must not build on what they say.
        let log_offset = request.log_offset.filter(|_| self.over.is_none());
        let run = Run { id: run_id(), as_of: request.as_of, log_offset };
        let steps = plan::steps(project, &chosen, |m| request.full || self.is_stale(project, m, &last_runs, request));
        let mut work = Work::new(self, project, request, last_runs, progress);
        let ended = work.steps(steps).await;
        // What was done stays done, whatever stopped the run.
        let recorded = history::record(&self.lake, &run, &work.models, &work.checks).await;
        self.lake.publish();
        ended.and(recorded)?;
        let (models, checks) = work.outcomes();
        let seconds = began.elapsed().as_secs_f64();
        Ok(Report { run_id: run.id, as_of: request.as_of.to_string(), seconds, models, checks })
    }

    /// Whether a model of a pipeline nobody asked for must be computed all the same: when its table is not what its last
    /// run made, when rows came after that, or when it is of another day.
    fn is_stale(
        &self,
        project: &Project,
        model: &Model,
        last_runs: &HashMap<String, LastRun>,
        request: &Request,
    ) -> bool {
        let Some(last) = last_runs.get(&model.name).filter(|last| self.is_intact(project, model, last)) else {
            return true;
        };
        let midnight = |at: Micros| at.midnight(self.settings.zone);
        last.log_offset.is_none()
            || last.log_offset < request.log_offset
            || midnight(last.as_of) != midnight(request.as_of)
    }

    /// Whether a model's table is what `last` made of the SQL as it is now.
    pub(super) fn is_intact(&self, project: &Project, model: &Model, last: &LastRun) -> bool {
        last.sql_digest == sql_digest(project, model)
            && last.table_commit == history::last_commit(&self.lake, &model.name)
            && (last.table_commit.is_some() || !model.materialize.is_stored())
    }
}

/// The project's views: segments, models that are views, and for what was never written an empty stand-in with its
/// columns, so that what reads it can be planned.
pub fn views(project: &Project, is_stored: impl Fn(&str) -> bool) -> Vec<View> {
    let segments = project.segments().map(|s| View { name: s.table(), sql: s.sql.text.clone() });
    let models = project.models().filter_map(|(_, m)| match m.materialize {
        Materialize::View => Some(View { name: m.name.clone(), sql: m.sql.text.clone() }),
        _ if is_stored(&m.name) => None,
        _ => {
            let sql = format!("SELECT * FROM (\n{}\n) AS never_run WHERE false", incremental::bare(&m.sql.text));
            Some(View { name: m.name.clone(), sql })
        }
    });
    segments.chain(models).chain(history::stand_ins(&is_stored)).collect()
}

fn chosen<'a>(project: &'a Project, names: &[String]) -> Result<Vec<&'a Pipeline>, UnknownPipeline> {
    match names {
        [] => Ok(project.pipelines().iter().collect()),
        names => names.iter().map(|n| project.pipeline(n)).collect(),
    }
}

/// Sorts by time.
fn run_id() -> String {
    let now = Micros::now();
    let time: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    format!("run_{time}_{:06x}", rand::rng().random_range(0..0x100_0000))
}

/// Of the SQL that makes a model: its own, and that of the views it reads.
pub(super) fn sql_digest(project: &Project, model: &Model) -> String {
    let mut text = format!("{:?}\0{}", model.materialize, model.sql.text);
    for name in project.graph().upstream(&model.name) {
        let view = project.models().find(|(_, m)| m.name == name && m.materialize == Materialize::View);
        let segment = project.segments().find(|s| s.table() == name);
        for sql in view.map(|(_, m)| &m.sql).into_iter().chain(segment.map(|s| &s.sql)) {
            text.push('\0');
            text.push_str(&sql.text);
        }
    }
    format!("{:016x}", xxh3_64(text.as_bytes()))
}
