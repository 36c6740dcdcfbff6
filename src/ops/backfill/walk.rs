//! Through an API's lists, page by page, into the log.
//!
//! The log finds what it holds, in whatever rendering it came. A comparison asks `raw.events`, by id.

use std::collections::HashSet;

use serde::Deserialize;
use tokio::sync::watch;

use super::job::{Errand, Job};
use crate::{
    base::{Envelope, Micros, Progress, time::HOUR},
    ops::{Ingested, Instance, OpsError},
    sources::{
        REJECTED,
        api::{Api, ApiError, Leg, List, Page},
    },
};

/// Ids that a report of what is missing names.
const NAMED: usize = 20;
/// A list whose place was forgotten is walked from its beginning, where all is known, so often in one walk.
const BEGUN_ANEW: u32 = 3;

/// What to do with what is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Take(Errand),
    /// Only to see whether it is held.
    Compare,
}

/// What a walk came to.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub counts: Ingested,
    pub pages: u64,
    pub missing: u64,
    /// The first of the missing.
    pub named: Vec<String>,
}

pub(super) struct Walk<'a> {
    pub instance: &'a Instance,
    pub api: &'a Api,
    pub purpose: Purpose,
    pub progress: &'a dyn Progress,
    pub stop: Option<watch::Receiver<bool>>,
}

impl Walk<'_> {
    /// From where the job is to its end.
    pub async fn go(&mut self, job: &mut Job) -> Result<Walked, OpsError> {
        let mut walked = Walked::default();
        while let Some(leg) = job.legs.get(job.leg).copied() {
            let before = (walked.counts.read, walked.pages);
            self.progress.begin(leg.list.name(), hours(&leg), "hours");
            self.leg(&leg, job, &mut walked).await?;
            self.progress.end(&format!("{} in {} pages", walked.counts.read - before.0, walked.pages - before.1));
            job.leg += 1;
            job.after = None;
            self.keep(job)?;
        }
        Ok(walked)
    }

    async fn leg(&mut self, leg: &Leg, job: &mut Job, walked: &mut Walked) -> Result<(), OpsError> {
        let mut anew = 0;
        loop {
            let page = match self.page(leg, job.after.as_deref()).await {
                // Not in a comparison, which would count twice.
                Err(OpsError::Api(ApiError::Expired { .. }))
                    if self.purpose != Purpose::Compare && job.after.is_some() && anew < BEGUN_ANEW =>
                {
                    anew += 1;
                    job.after = None;
                    continue;
                }
                page => page?,
            };
            walked.pages += 1;
            let (next, reached) = (page.next, page.reached);
            self.page_in(leg.list, page.envelopes, walked).await?;
            self.tell(leg, reached);
            job.after = next;
            if job.after.is_none() {
                return Ok(());
            }
            self.keep(job)?;
        }
    }

    /// A page, unless it is time to stop: what was asked for can be asked for again.
    async fn page(&mut self, leg: &Leg, after: Option<&str>) -> Result<Page, OpsError> {
        let page = self.api.page(leg, after);
        let Some(stop) = &mut self.stop else { return Ok(page.await?) };
        tokio::select! {
            page = page => Ok(page?),
            _ = stop.wait_for(|s| *s) => Err(OpsError::CutOff("it is time to stop".to_owned())),
        }
    }

    async fn page_in(&self, list: List, mut items: Vec<Envelope>, walked: &mut Walked) -> Result<(), OpsError> {
        walked.counts.read += items.len() as u64;
        walked.counts.bytes += items.iter().map(|e| e.payload.len() as u64).sum::<u64>();
        let source = self.api.source();
        if self.purpose == Purpose::Compare {
            let held = self.instance.held(&items).await?;
            let all = items.len();
            items.retain(|e| !held.contains(&e.event_id));
            walked.counts.duplicates += (all - items.len()) as u64;
            // What is no event was set aside, if it came, and is in no table by its id.
            items.retain(|e| e.event_type != REJECTED);
            walked.missing += items.len() as u64;
            let room = NAMED.saturating_sub(walked.named.len());
            walked.named.extend(items.into_iter().map(|e| e.event_id).take(room));
            return Ok(());
        }
        let before = walked.counts.accepted;
        self.instance.take(source, items, &mut walked.counts).await?;
        if list.is_of_events() {
            walked.missing += walked.counts.accepted - before;
        }
        Ok(())
    }

    fn keep(&self, job: &Job) -> Result<(), OpsError> {
        match self.purpose {
            Purpose::Take(errand) => self.instance.backfills.keep(self.api.source(), errand, job),
            Purpose::Compare => Ok(()),
        }
    }

    /// How much of the window lies behind the walk: Stripe's lists go back in time, Klaviyo's forward.
    fn tell(&self, leg: &Leg, reached: Option<Micros>) {
        let (Some(reached), Some(since)) = (reached, leg.window.since) else { return };
        let behind = match self.api {
            Api::Stripe(_) => leg.window.until.0 - reached.0,
            Api::Klaviyo(_) => reached.0 - since.0,
        };
        self.progress.at(u64::try_from(behind / HOUR).unwrap_or(0));
    }
}

/// The window's length, where it has a beginning.
fn hours(leg: &Leg) -> Option<u64> {
    let since = leg.window.since?;
    u64::try_from(leg.window.until.0.saturating_sub(since.0) / HOUR).ok().map(|h| h.max(1))
}

impl Instance {
    /// Which of these events `raw.events` has, by their ids.
    async fn held(&self, events: &[Envelope]) -> Result<HashSet<String>, OpsError> {
        #[derive(Deserialize)]
        struct Row {
            event_id: String,
        }
        let events: Vec<&Envelope> = events.iter().filter(|e| e.event_type != REJECTED).collect();
        let times = || events.iter().map(|e| e.occurred_at);
        let (Some(first), Some(last), Some(any)) = (times().min(), times().max(), events.first()) else {
            return Ok(HashSet::new());
        };
        let ids: Vec<String> = events.iter().map(|e| format!("'{}'", e.event_id.replace('\'', "''"))).collect();
        // The time is there so that only the files of these days are read.
        let sql = format!(
            "SELECT event_id FROM raw.events WHERE source = '{}' AND occurred_at >= TIMESTAMP '{first}' \
             AND occurred_at <= TIMESTAMP '{last}' AND event_id IN ({})",
            any.source,
            ids.join(", ")
        );
        let rows: Vec<Row> = self.session(Micros::now())?.rows(&sql).await?;
        Ok(rows.into_iter().map(|r| r.event_id).collect())
    }
}
