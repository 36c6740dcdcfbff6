//! Where a walk through an API's lists is, and how far in time a provider was listened to: durable, in the store.
//!
//! What must hold: a job's place is stored after what lies before it is in the log, so that a crash repeats a page and
//! never leaves one out.

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::{
    base::{Micros, Source, time::DAY},
    config::Settings,
    ops::OpsError,
    sources::api::{Api, KlaviyoApi, Leg, StripeApi, Window},
    store::{Keyspace, Store},
};

/// A job that was cut off longer ago is begun anew: events at the far end of its window have expired since, and the
/// objects that stand for them are another window's.
const GOOD_FOR: i64 = DAY;

/// What a person asked for, in their words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub since: Option<String>,
    pub until: Option<String>,
}

/// A walk that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub asked: Asked,
    pub began: Micros,
    pub window: Window,
    pub legs: Vec<Leg>,
    /// The leg under way, and where its next page starts.
    pub leg: usize,
    pub after: Option<String>,
}

/// Which of the two walks through one provider's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// A command's.
    Backfill,
    /// `serve`'s own.
    Poll,
}

/// The APIs, and the store's part that remembers them.
pub struct Backfills {
    store: Store,
    kept: Keyspace,
    stripe: Provider,
    klaviyo: Provider,
}

#[derive(Default)]
struct Provider {
    /// Set up when it is first asked: most commands ask no provider.
    api: OnceCell<Option<Api>>,
    /// Held while a command walks through its lists.
    turn: Mutex<()>,
}

impl Job {
    /// Whether a command that asks for this may go on with it.
    pub fn suits(&self, asked: &Asked, now: Micros) -> bool {
        self.asked == *asked && now.0.saturating_sub(self.began.0) < GOOD_FOR
    }
}

impl Backfills {
    pub fn open(store: &Store) -> Result<Backfills, OpsError> {
        let kept = store.keyspace("backfill")?;
        Ok(Backfills { store: store.clone(), kept, stripe: Provider::default(), klaviyo: Provider::default() })
    }

    /// The API of a source; `None` where there is no key for it, or it has none.
    pub(in crate::ops) async fn api(&self, source: Source, settings: &Settings) -> Result<Option<Api>, OpsError> {
        let Some(provider) = self.provider(source) else { return Ok(None) };
        let set_up = || async {
            Ok::<_, OpsError>(match source {
                Source::Stripe => StripeApi::new(&settings.stripe)?.map(Api::Stripe),
                _ => KlaviyoApi::new(&settings.klaviyo)?.map(Api::Klaviyo),
            })
        };
        Ok(provider.api.get_or_try_init(set_up).await?.clone())
    }

    /// The right to a command's walk; `None` while another has it.
    pub(super) fn turn(&self, source: Source) -> Option<MutexGuard<'_, ()>> {
        self.provider(source)?.turn.try_lock().ok()
    }

    /// The job that was cut off. One that cannot be read is of another build, and is begun anew.
    pub(super) fn unfinished(&self, source: Source, errand: Errand) -> Result<Option<Job>, OpsError> {
        let bytes = self.kept.get(&job_key(source, errand))?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    pub(super) fn keep(&self, source: Source, errand: Errand, job: &Job) -> Result<(), OpsError> {
        let bytes = serde_json::to_vec(job).map_err(|e| OpsError::CutOff(e.to_string()))?;
        let mut batch = self.store.batch();
        batch.put(&self.kept, job_key(source, errand), bytes);
        Ok(batch.commit_durable()?)
    }

    /// The job is done; everything before `seen` was listened to, where that is said.
    pub(super) fn finish(&self, source: Source, errand: Errand, seen: Option<Micros>) -> Result<(), OpsError> {
        let mut batch = self.store.batch();
        batch.delete(&self.kept, job_key(source, errand));
        if let Some(seen) = seen {
            batch.put(&self.kept, seen_key(source), seen.0.to_be_bytes());
        }
        Ok(batch.commit_durable()?)
    }

    /// Everything of the source that happened before this was asked for.
    pub(super) fn seen(&self, source: Source) -> Result<Option<Micros>, OpsError> {
        let bytes = self.kept.get(&seen_key(source))?;
        Ok(bytes.and_then(|b| Some(Micros(i64::from_be_bytes((*b).try_into().ok()?)))))
    }

    fn provider(&self, source: Source) -> Option<&Provider> {
        match source {
            Source::Stripe => Some(&self.stripe),
            Source::Klaviyo => Some(&self.klaviyo),
            _ => None,
        }
    }
}

fn job_key(source: Source, errand: Errand) -> Vec<u8> {
    let errand = if errand == Errand::Poll { "poll" } else { "backfill" };
    format!("{source}.{errand}").into_bytes()
}

fn seen_key(source: Source) -> Vec<u8> {
    format!("{source}.seen").into_bytes()
}
