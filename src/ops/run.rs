//! Pipelines now, and then who enters which segment and what is sent.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{Instance, OpsError};
use crate::{
    activate::{self, Dispatched, Evaluated, Templates},
    base::{Micros, Offset, Progress, progress::Silent, suggest},
    engine::{Session, Tables},
    facts::Table,
    lake::{Snapshot, changes_of},
    load::Until,
    pipeline::{self, Project, Report, Runner, When},
};

/// What a run did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ran {
    #[serde(flatten)]
    pub report: Report,
    /// `None` where the run was of another time: nobody is written to about that.
    pub segments: Option<Evaluated>,
    pub messages: Option<Dispatched>,
}

impl Ran {
    /// Nothing failed: no model, no check that matters, no segment, no provider.
    pub fn succeeded(&self) -> bool {
        let looked = self.segments.iter().flat_map(|e| &e.segments).all(|s| s.error.is_none());
        self.report.succeeded() && looked && self.messages.iter().all(|m| m.faults.is_empty())
    }
}

/// Which time a run is of, in the merchant's words; now where neither is given.
#[derive(Debug, Clone, Default)]
pub struct BusinessTime {
    /// What happened after it is not seen.
    pub as_of: Option<String>,
    /// The id of an earlier run: what the log got after that is not seen either.
    pub known_at: Option<String>,
}

impl Instance {
    /// Runs `pipelines` (all where empty) and looks at the segments; and at what is wrong, whatever came of it.
    pub async fn run(
        &self,
        pipelines: &[String],
        time: &BusinessTime,
        full: bool,
        progress: &dyn Progress,
    ) -> Result<Ran, OpsError> {
        let ran = self.run_of(pipelines, time, full, progress).await;
        if let Err(error) = self.look_for_faults().await {
            tracing::error!("faults of this run are in no table: {error}");
        }
        // What was recorded meanwhile is part of the tables that the caller sees next.
        let loaded = self.load(&Silent).await;
        let ran = ran?;
        loaded.map(|_| ran)
    }

    async fn run_of(
        &self,
        pipelines: &[String],
        time: &BusinessTime,
        full: bool,
        progress: &dyn Progress,
    ) -> Result<Ran, OpsError> {
        if let Err(error) = self.refresh_rates().await {
            tracing::error!("{error}; those from before are used");
        }
        self.load(progress).await?;
        let as_of =
            time.as_of.as_deref().map(|text| Micros::parse(text, self.settings.merchant.timezone)).transpose()?;
        if let Some(run) = &time.known_at {
            let (then, until) = self.known_at(run).await?;
            let as_of = as_of.unwrap_or(then);
            let until = Until { before: Some(as_of), ..until };
            let report = self.run_past(pipelines, as_of, until, progress).await?;
            return Ok(Ran { report, segments: None, messages: None });
        }
        let now = Micros::now();
        if let Some(as_of) = as_of
            && self.happened_since(as_of).await?
        {
            let until = Until { before: Some(as_of), offset: None };
            let report = self.run_past(pipelines, as_of, until, progress).await?;
            return Ok(Ran { report, segments: None, messages: None });
        }
        let another_time = as_of.is_some();
        let as_of = as_of.unwrap_or(now);
        let report = self.run_models(&self.runner, pipelines, as_of, full, progress).await?;
        // At a business time that is not now nothing may leave, and memberships never go back in time.
        let looked = self.activator.segments()?.into_iter().filter_map(|s| s.looked_at).max();
        if another_time && (self.settings.activate.send || as_of > now || looked > Some(as_of)) {
            return Ok(Ran { report, segments: None, messages: None });
        }
        let (segments, messages) = self.activate(another_time.then_some(as_of)).await?;
        Ok(Ran { report, segments: Some(segments), messages: Some(messages) })
    }

    /// The business time of an earlier run, and the events that it had.
    async fn known_at(&self, run: &str) -> Result<(Micros, Until), OpsError> {
        #[derive(Deserialize)]
        struct Known {
            run_id: String,
            as_of: i64,
            log_offset: Option<i64>,
        }
        let sql = "SELECT run_id, max(CAST(arrow_cast(as_of, 'Timestamp(Microsecond, None)') AS BIGINT)) AS as_of, \
                   max(log_offset) AS log_offset FROM ops.pipeline_runs GROUP BY run_id ORDER BY max(started_at) DESC";
        let runs: Vec<Known> = self.session(Micros::now())?.rows(sql).await?;
        let known = runs.iter().find(|known| known.run_id == run).ok_or_else(|| {
            let hint = suggest::did_you_mean(run, runs.iter().map(|known| known.run_id.as_str()));
            OpsError::Unknown(format!(
                "there was no run {run}{hint}; which there were: SELECT * FROM ops.pipeline_runs"
            ))
        })?;
        let last = known.log_offset.and_then(|last| u64::try_from(last).ok()).ok_or_else(|| {
            let why = "it was of a past time itself, or nothing had come in";
            OpsError::Told(format!("run {run} recorded no position of the log ({why}): name another"))
        })?;
        Ok((Micros(known.as_of), Until { before: None, offset: Some(Offset(last).next()) }))
    }

    /// The models as they would have been at `as_of`, from the events that count then alone.
    async fn run_past(
        &self,
        pipelines: &[String],
        as_of: Micros,
        until: Until,
        progress: &dyn Progress,
    ) -> Result<Report, OpsError> {
        let refolded = self.refold(until, progress).await?;
        let past = Past { facts: refolded.lake.snapshot(), lake: self.lake.clone() };
        let runner = self.runner.clone().over(Arc::new(past));
        self.run_models(&runner, pipelines, as_of, true, progress).await
    }

    async fn run_models(
        &self,
        runner: &Runner,
        pipelines: &[String],
        as_of: Micros,
        full: bool,
        progress: &dyn Progress,
    ) -> Result<Report, OpsError> {
        let log_offset = i64::try_from(self.loader.lock().await.seen().0).ok().map(|seen| seen - 1);
        let request = pipeline::Request { pipelines: pipelines.to_vec(), as_of, log_offset, full };
        Ok(runner.run(&self.project, &request, progress).await?)
    }

    /// Looks at every segment, queues what its triggers want, and sends what is due; at a business time, or now.
    pub(super) async fn activate(&self, as_of: Option<Micros>) -> Result<(Evaluated, Dispatched), OpsError> {
        let (session, at) = self.abreast(as_of.unwrap_or_else(Micros::now)).await?;
        let began = Instant::now();
        let evaluated = self.activator.evaluate(&session, at).await?;
        self.pace.worked(began, Instant::now());
        // A look takes time, in which people pay and unsubscribe.
        Ok((evaluated, self.send_due(as_of).await?))
    }

    /// Sends what is due; at a business time, or now.
    async fn send_due(&self, as_of: Option<Micros>) -> Result<Dispatched, OpsError> {
        // Sending takes time too.
        let mut dispatched = Dispatched::default();
        for _ in 0..LOOKS {
            let (session, at) = self.abreast(as_of.unwrap_or_else(Micros::now)).await?;
            let few = self.activator.dispatch(&session, at).await?;
            let go_on = few.more && !few.messages.is_empty();
            dispatched.join(few);
            if !go_on {
                break;
            }
        }
        Ok(dispatched)
    }

    /// A reader of all that the log holds by now: nobody is written to on less. An error while loading holds it up.
    async fn abreast(&self, at: Micros) -> Result<(Session, Micros), OpsError> {
        self.log.catch_up().await?;
        self.loader.lock().await.show_all().await?;
        Ok((self.session(at)?, at))
    }

    /// Whether any event of a merchant's happened at `as_of` or later.
    async fn happened_since(&self, as_of: Micros) -> Result<bool, OpsError> {
        let since = format!("raw.events WHERE source <> 'tillstream' AND occurred_at >= TIMESTAMP '{as_of}'");
        Ok(self.count(&since).await? > 0)
    }

    /// What the clock or new rows make due: pipelines by their schedules, then segments and messages. For `serve`.
    pub async fn run_due(&self, progress: &dyn Progress) -> Result<(), OpsError> {
        let now = Micros::now();
        let loaded = self.loader.lock().await.seen().0;
        let rests = self.pace.rests(Instant::now());
        let due: Vec<String> = self
            .project
            .pipelines()
            .iter()
            .filter(|p| !rests || !matches!(p.when, When::Commit))
            .filter_map(|p| match self.is_due(&p.name, &p.when, now, loaded) {
                Ok(true) => Some(Ok(p.name.clone())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?;
        if !due.is_empty() {
            let began = Instant::now();
            // A model that fails holds up no message.
            match self.run_models(&self.runner, &due, now, false, progress).await {
                Ok(report) => {
                    report.models.iter().filter_map(|m| m.error.as_ref()).for_each(|e| tracing::error!("{e}"));
                }
                Err(error) => tracing::error!("pipelines could not be run: {error}"),
            }
            self.pace.worked(began, Instant::now());
            let mut batch = self.store.batch();
            for name in &due {
                batch.put(&self.runs, name.as_bytes(), [now.0.to_be_bytes(), loaded.to_be_bytes()].concat());
            }
            batch.commit()?;
        }
        // A cart at the beginning of a file may be paid at its end.
        if self.taking.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        if !due.is_empty() || !rests && self.has_cause_to_look(now, loaded)? {
            self.activate(None).await?;
            let mut batch = self.store.batch();
            batch.put(&self.runs, LOOKED, loaded.to_be_bytes());
            batch.commit()?;
        } else if self.activator.sends_at()?.is_some_and(|due| due <= now) {
            self.send_due(None).await?;
        }
        Ok(())
    }

    /// Whether there are rows that no segment was looked at with, or somebody's time has come.
    fn has_cause_to_look(&self, now: Micros, loaded: u64) -> Result<bool, OpsError> {
        let is_fresh = self.runs.get(LOOKED)?.is_none_or(|at| at.as_ref() != loaded.to_be_bytes());
        Ok(is_fresh || self.activator.due(now)?.is_some_and(|due| due <= now))
    }

    /// A pipeline that never ran here is due; a missed time is made up for once.
    fn is_due(&self, name: &str, when: &When, now: Micros, loaded: u64) -> Result<bool, OpsError> {
        let last = self.runs.get(name.as_bytes())?;
        let Some((at, seen)) = last.as_ref().and_then(|bytes| read_mark(bytes.as_ref())) else {
            return Ok(!matches!(when, When::Asked));
        };
        Ok(match when {
            When::Asked => false,
            When::Commit => loaded > seen,
            When::Cron(_) | When::Every(_) => when.next_after(at).is_some_and(|next| next <= now),
        })
    }

    /// Every fault of pipelines, SQL, templates and triggers, with file and line: of the files as they are on disk now, and
    /// not as they were when this was opened.
    pub async fn check(&self) -> Vec<String> {
        let dir = self.settings.pipelines.dir.as_deref();
        let (project, templates) = match (Project::load(dir), Templates::beside(dir)) {
            (Ok(project), Ok(templates)) => (project, templates),
            (project, templates) => {
                let problems = project.err().into_iter().flat_map(|problems| problems.0);
                return problems.map(|p| p.to_string()).chain(templates.err().map(|e| e.to_string())).collect();
            }
        };
        let mut faults: Vec<String> = match self.runner.verify(&project).await {
            Ok(()) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        };
        match self.runner.session(&project, Micros::now(), self.limits()) {
            Ok(session) => {
                let of_messages = activate::check(&project, &templates, &session).await;
                faults.extend(of_messages.iter().map(ToString::to_string));
            }
            Err(error) => faults.push(error.to_string()),
        }
        faults
    }
}

/// Looks at the facts in one activation, each for a few messages: others' work waits meanwhile, and so does a stop.
const LOOKS: usize = 10;

/// In `runs`: up to which offset the segments were looked at.
const LOOKED: &[u8] = b"\0segments";

fn read_mark(bytes: &[u8]) -> Option<(Micros, u64)> {
    let (at, seen) = bytes.split_first_chunk::<8>()?;
    Some((Micros(i64::from_be_bytes(*at)), u64::from_be_bytes(seen.try_into().ok()?)))
}

/// The facts of another time, and beside them what is not folded from events: the marts that are made from them, and
/// `raw.events` itself, whose rows say when they happened.
struct Past {
    facts: Arc<Snapshot>,
    lake: crate::lake::Lake,
}

impl Past {
    fn side(&self, table: &str) -> Arc<Snapshot> {
        let folded = Table::ALL.iter().any(|t| t.name() == table || changes_of(t.name()) == table);
        if folded { self.facts.clone() } else { self.lake.snapshot() }
    }
}

impl Tables for Past {
    fn names(&self) -> Vec<String> {
        let all = self.facts.tables().into_iter().chain(self.lake.snapshot().tables());
        all.filter(|name| self.side(name).tables().contains(name)).collect()
    }

    fn provider(&self, table: &str) -> Option<Arc<dyn datafusion::catalog::TableProvider>> {
        self.side(table).provider(table)
    }

    fn is_empty(&self, table: &str) -> bool {
        self.side(table).rows(table).unwrap_or(0) == 0
    }
}
