//! Pipelines now, and then who enters which segment and what is sent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Instance, OpsError};
use crate::{
    activate::{Dispatched, Evaluated},
    base::{Micros, Progress, progress::Silent},
    engine::Tables,
    facts::Table,
    lake::{Snapshot, changes_of},
    load::Until,
    pipeline::{self, Report, Runner, When},
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

impl Instance {
    /// Runs `pipelines` (all where empty) and looks at the segments. `as_of` in the merchant's words.
    pub async fn run(
        &self,
        pipelines: &[String],
        as_of: Option<&str>,
        full: bool,
        progress: &dyn Progress,
    ) -> Result<Ran, OpsError> {
        self.load(progress).await?;
        let as_of = as_of.map(|text| Micros::parse(text, self.settings.merchant.timezone)).transpose()?;
        let now = Micros::now();
        if let Some(as_of) = as_of
            && self.happened_since(as_of).await?
        {
            let report = self.run_past(pipelines, as_of, progress).await?;
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
        let (segments, messages) = self.activate(as_of).await?;
        // What activation recorded is part of the tables that the caller sees next.
        self.load(&Silent).await?;
        Ok(Ran { report, segments: Some(segments), messages: Some(messages) })
    }

    /// The models as they would have been at `as_of`, from the events before it alone.
    async fn run_past(&self, pipelines: &[String], as_of: Micros, progress: &dyn Progress) -> Result<Report, OpsError> {
        let refolded = self.refold(Until { before: Some(as_of), offset: None }, progress).await?;
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
        let log_offset = i64::try_from(self.loader.lock().await.next().0).ok().map(|next| next - 1);
        let request = pipeline::Request { pipelines: pipelines.to_vec(), as_of, log_offset, full };
        Ok(runner.run(&self.project, &request, progress).await?)
    }

    /// Looks at every segment, queues what its triggers want, and sends what is due.
    pub(super) async fn activate(&self, as_of: Micros) -> Result<(Evaluated, Dispatched), OpsError> {
        let session = self.session(as_of)?;
        let evaluated = self.activator.evaluate(&session, as_of).await?;
        let dispatched = self.activator.dispatch(&session, as_of).await?;
        Ok((evaluated, dispatched))
    }

    /// Whether any event of a merchant's happened at `as_of` or later.
    async fn happened_since(&self, as_of: Micros) -> Result<bool, OpsError> {
        #[derive(Deserialize)]
        struct Count {
            n: u64,
        }
        let sql = format!(
            "SELECT count(*) AS n FROM raw.events WHERE source <> 'tillstream' AND occurred_at >= TIMESTAMP '{as_of}'"
        );
        let rows: Vec<Count> = self.session(Micros::now())?.rows(&sql).await?;
        Ok(rows.iter().any(|r| r.n > 0))
    }

    /// What the clock or new rows make due: pipelines by their schedules, then segments and messages. For `serve`.
    pub async fn run_due(&self, progress: &dyn Progress) -> Result<(), OpsError> {
        let now = Micros::now();
        let loaded = self.loader.lock().await.next().0;
        let due: Vec<String> = self
            .project
            .pipelines()
            .iter()
            .filter_map(|p| match self.is_due(&p.name, &p.when, now, loaded) {
                Ok(true) => Some(Ok(p.name.clone())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?;
        if !due.is_empty() {
            // A model that fails holds up no message.
            match self.run_models(&self.runner, &due, now, false, progress).await {
                Ok(report) => {
                    report.models.iter().filter_map(|m| m.error.as_ref()).for_each(|e| tracing::error!("{e}"));
                }
                Err(error) => tracing::error!("pipelines could not be run: {error}"),
            }
            let mut batch = self.store.batch();
            for name in &due {
                batch.put(&self.runs, name.as_bytes(), [now.0.to_be_bytes(), loaded.to_be_bytes()].concat());
            }
            batch.commit()?;
        }
        let fresh = self.runs.get(LOOKED)?.is_none_or(|at| at.as_ref() != loaded.to_be_bytes());
        if fresh || self.activator.due(now)?.is_some_and(|due| due <= now) {
            self.activate(now).await?;
            let mut batch = self.store.batch();
            batch.put(&self.runs, LOOKED, loaded.to_be_bytes());
            batch.commit()?;
        }
        Ok(())
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

    /// Every fault of pipelines, SQL, templates and triggers, with file and line.
    pub async fn check(&self) -> Vec<String> {
        let mut faults: Vec<String> = match self.runner.verify(&self.project).await {
            Ok(()) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        };
        match self.session(Micros::now()) {
            Ok(session) => faults.extend(
                crate::activate::check(&self.project, self.activator.templates(), &session)
                    .await
                    .iter()
                    .map(ToString::to_string),
            ),
            Err(error) => faults.push(error.to_string()),
        }
        faults
    }
}

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
