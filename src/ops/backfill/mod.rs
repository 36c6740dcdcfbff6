//! History from the providers' APIs, and what their webhooks missed.
//!
//! A backfill is a command: a window, as far back as the provider goes unless told otherwise, gone on with at its page
//! when it was cut off. A poll is `serve`'s: from an hour before the end of the last one, so that what became visible
//! late is seen too. Both put pages into the log, which holds each event once, whoever brought it.
//!
//! What must hold: a window counts as seen only when each of its pages is in the log. Consent counts as looked at only
//! when nothing lies between this look and the one before, and what was found is in the tables.

mod job;
mod walk;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::job::{Asked, Backfills};
use self::{
    job::{Errand, Job},
    walk::{Purpose, Walk, Walked},
};
use super::{Ingested, Instance, OpsError};
use crate::{
    base::{
        Micros, Progress, Source,
        progress::Silent,
        time::{HOUR, MINUTE},
    },
    sources::api::{Api, Leg, Window},
    telemetry,
};

/// A poll begins so long before the last one's end.
const OVERLAP: i64 = HOUR;
/// Stripe's newest events are not asked for: their webhooks are on the way, and are not missed.
const ON_THE_WAY: i64 = MINUTE;

/// What became of a backfill, or of a comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backfilled {
    pub source: String,
    /// RFC 3339; `None`: from the beginning.
    pub since: Option<String>,
    pub until: String,
    /// Whether it went on where an earlier one was cut off. The counts are of this run.
    pub resumed: bool,
    pub pages: u64,
    #[serde(flatten)]
    pub counts: Ingested,
    /// Events that were listed and not held; a backfill has taken them, a comparison has not.
    pub missing: u64,
    /// The first of those that a comparison found.
    pub missing_ids: Vec<String>,
}

impl Instance {
    /// Takes the window's events and what else the API lists for it. With `check` it only compares the events that the
    /// API lists with those that are held, and takes nothing.
    pub async fn backfill(
        &self,
        source: Source,
        asked: Asked,
        check: bool,
        progress: &dyn Progress,
    ) -> Result<Backfilled, OpsError> {
        let began = Instant::now();
        let api = self.wanted_api(source).await?;
        let Some(_turn) = self.backfills.turn(source) else {
            return Err(OpsError::Told(format!("another backfill of {source} is under way: wait until it ends")));
        };
        let _taking = self.take_in();
        let (mut job, resumed) = self.job_for(&api, asked, check)?;
        self.load_available().await?;
        let purpose = if check { Purpose::Compare } else { Purpose::Take(Errand::Backfill) };
        let mut walk = Walk { instance: self, api: &api, purpose, progress, stop: None };
        let mut walked = if check { walk.go(&mut job).await? } else { self.load_while(walk.go(&mut job)).await? };
        if !check {
            self.finish_backfill(source, &job)?;
        }
        walked.counts.seconds = began.elapsed().as_secs_f64();
        Ok(report(source, &job, resumed, walked))
    }

    /// Asks for what happened since the last poll. `None` where there is no key to ask with.
    pub async fn poll(&self, source: Source, stop: watch::Receiver<bool>) -> Result<Option<Backfilled>, OpsError> {
        let began = Instant::now();
        let Some(api) = self.backfills.api(source, &self.settings).await? else { return Ok(None) };
        self.load_available().await?;
        let now = Micros::now();
        let unfinished = self.backfills.unfinished(source, Errand::Poll)?.filter(|j| j.suits(&Asked::default(), now));
        let resumed = unfinished.is_some();
        let mut job = match unfinished {
            Some(job) => job,
            None => new_job(&api, Asked::default(), self.since_last(source, now)?, now),
        };
        let purpose = Purpose::Take(Errand::Poll);
        let mut walk = Walk { instance: self, api: &api, purpose, progress: &Silent, stop: Some(stop) };
        let mut walked = walk.go(&mut job).await?;
        self.load_available().await?;
        self.backfills.finish(source, Errand::Poll, Some(job.window.until))?;
        if source == Source::Klaviyo {
            self.activator.consent_was_seen(job.window.until)?;
        }
        telemetry::polled(source, walked.missing);
        walked.counts.seconds = began.elapsed().as_secs_f64();
        Ok(Some(report(source, &job, resumed, walked)))
    }

    /// Whether the API can be asked, and until when it was; `None` where there is no key. For `doctor`.
    pub(super) async fn listened(&self, source: Source) -> Option<Result<Option<Micros>, OpsError>> {
        let api = match self.backfills.api(source, &self.settings).await {
            Ok(api) => api?,
            Err(error) => return Some(Err(error)),
        };
        Some(match api.probe().await {
            Ok(()) => self.backfills.seen(source),
            Err(error) => Err(error.into()),
        })
    }

    async fn wanted_api(&self, source: Source) -> Result<Api, OpsError> {
        if !matches!(source, Source::Stripe | Source::Klaviyo) {
            return Err(OpsError::Told(format!("{source} has no API to read from: only stripe and klaviyo have")));
        }
        self.backfills.api(source, &self.settings).await?.ok_or_else(|| {
            let variable = format!("TILLSTREAM__{}__API_KEY", source.as_str().to_uppercase());
            OpsError::Told(format!("[{source}] api_key is not set: put it into tillstream.toml, or into {variable}"))
        })
    }

    /// The one that was cut off, if it was asked for in the same words; else a new one.
    fn job_for(&self, api: &Api, asked: Asked, check: bool) -> Result<(Job, bool), OpsError> {
        let (source, now) = (api.source(), Micros::now());
        let unfinished = self.backfills.unfinished(source, Errand::Backfill)?;
        if let Some(job) = unfinished.filter(|j| !check && j.suits(&asked, now)) {
            return Ok((job, true));
        }
        let parse = |text: &Option<String>| {
            text.as_deref().map(|t| Micros::parse(t, self.settings.merchant.timezone)).transpose()
        };
        let (since, until) = (parse(&asked.since)?, parse(&asked.until)?);
        let until = until.map_or(now, |u| u.min(now));
        if since.is_some_and(|s| s >= until) {
            return Err(OpsError::Told(format!("--since must be before {until}, which is --until, or now")));
        }
        let mut job = new_job(api, asked, Window { since, until }, now);
        if check {
            job.legs.retain(|leg: &Leg| leg.list.is_of_events());
        }
        if job.legs.is_empty() {
            return Err(OpsError::Told(format!("{source} lists events of the last 30 days only: a later --until")));
        }
        Ok((job, false))
    }

    /// A window that joins what was seen before moves the end of it.
    fn finish_backfill(&self, source: Source, job: &Job) -> Result<(), OpsError> {
        let Window { since, until } = job.window;
        let seen = self.backfills.seen(source)?;
        // Of Stripe's events nothing hangs on what lies before the first window.
        let joins = since.is_none_or(|since| seen.map_or(source == Source::Stripe, |seen| since <= seen));
        let moves = joins && seen.is_none_or(|seen| seen < until);
        self.backfills.finish(source, Errand::Backfill, moves.then_some(until))?;
        if moves && source == Source::Klaviyo {
            self.activator.consent_was_seen(until)?;
        }
        Ok(())
    }

    /// From the last poll's end, or where there was none from when consent was last told of by a file.
    fn since_last(&self, source: Source, now: Micros) -> Result<Window, OpsError> {
        let until = if source == Source::Stripe { now.plus(-ON_THE_WAY) } else { now };
        let told = if source == Source::Klaviyo { self.activator.consent_seen()? } else { None };
        let from = self.backfills.seen(source)?.or(told).unwrap_or(until).min(until);
        Ok(Window { since: Some(from.plus(-OVERLAP)), until })
    }

    /// Loads while pages come, and then the rest.
    async fn load_while(&self, walk: impl Future<Output = Result<Walked, OpsError>>) -> Result<Walked, OpsError> {
        let (from, whole) = (self.log.end(), AtomicBool::new(false));
        let walk = async {
            let walked = walk.await;
            whole.store(true, Ordering::Release);
            walked
        };
        let (walked, loaded) = tokio::join!(walk, self.load_beside(from, &whole));
        let mut walked = walked?;
        walked.counts.quarantined += loaded?.quarantined_facts;
        Ok(walked)
    }
}

/// Both providers' filters know whole seconds.
fn new_job(api: &Api, asked: Asked, window: Window, now: Micros) -> Job {
    let whole = |at: Micros| Micros::from_seconds(at.seconds()).unwrap_or(at);
    let window = Window { since: window.since.map(whole), until: whole(window.until) };
    Job { asked, began: now, window, legs: api.legs(window, now), leg: 0, after: None }
}

fn report(source: Source, job: &Job, resumed: bool, walked: Walked) -> Backfilled {
    let Walked { counts, pages, missing, named } = walked;
    Backfilled {
        source: source.to_string(),
        since: job.window.since.map(|at| at.to_string()),
        until: job.window.until.to_string(),
        resumed,
        pages,
        counts,
        missing,
        missing_ids: named,
    }
}
