//! Files into the log, and from there into the tables.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{Instance, OpsError};
use crate::{
    base::{Envelope, Micros, Offset, Progress, Source},
    load::{FoldIn, Loaded, fold_in, note_versions},
    log::Appended,
    sources::{
        self, Batch, Batches, FileError, REJECTED,
        orders::{ANONYMOUS, OrdersMapping},
    },
    telemetry,
};

/// What became of the input of one `ingest`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ingested {
    /// Events (lines), or rows of orders.
    pub read: u64,
    /// Events that are new; of orders, invoices.
    pub accepted: u64,
    pub duplicates: u64,
    /// New input that is no event, and events that state what cannot be: see `raw.quarantine`.
    pub quarantined: u64,
    /// Those of `quarantined` that are events, and kept in `raw.events`: of all that was loaded meanwhile.
    pub unfit: u64,
    /// New orders that name no customer: kept in `raw.events`, and rows of no other table.
    pub anonymous: u64,
    /// Lines that are no event, whether they are set aside now or were when they came first.
    pub refused: u64,
    /// Of text, unpacked.
    pub bytes: u64,
    pub seconds: f64,
}

/// Batches read ahead of the log: enough to hide a sync, few enough that memory stays flat.
const READ_AHEAD: usize = 4;
/// Batches appended together: one sync for some thousand events.
const GROUP: usize = 8;
/// Loading beside an ingest waits for this many events, so that each commit is worth its cost.
const WORTH_LOADING: u64 = 20_000;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Instance {
    pub async fn ingest_files(
        &self,
        source: Source,
        files: Vec<PathBuf>,
        mapping: OrdersMapping,
        progress: &dyn Progress,
    ) -> Result<Ingested, OpsError> {
        let _taking = self.take_in();
        let mut total = Ingested::default();
        for file in files {
            let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
            let options = self.read_options(mapping.clone());
            let opened = spawn_blocking(move || sources::open(source, &file, &options)).await??;
            let done = self.ingest(source, &name, opened, progress).await?;
            total.add(&done);
        }
        Ok(total)
    }

    /// The same from a stream, as an upload.
    pub async fn ingest_stream(
        &self,
        source: Source,
        stream: Box<dyn Read + Send>,
        mapping: OrdersMapping,
        progress: &dyn Progress,
    ) -> Result<Ingested, OpsError> {
        let _taking = self.take_in();
        let options = self.read_options(mapping);
        let opened = spawn_blocking(move || sources::from_reader(source, "the upload", stream, &options)).await??;
        self.ingest(source, "the upload", opened, progress).await
    }

    fn read_options(&self, orders: OrdersMapping) -> sources::Options {
        let zone = self.settings.merchant.timezone;
        sources::Options { received_at: Micros::now(), threads: self.settings.engine.threads, zone, orders }
    }

    async fn ingest(
        &self,
        source: Source,
        name: &str,
        batches: Batches,
        progress: &dyn Progress,
    ) -> Result<Ingested, OpsError> {
        let began = Instant::now();
        let meter = batches.meter.clone();
        progress.begin(&format!("Reading {name}"), meter.total, "bytes");
        let (ahead, read) = mpsc::channel::<Result<Batch, FileError>>(READ_AHEAD);
        let reading = spawn_blocking(move || {
            for batch in batches {
                if ahead.blocking_send(batch).is_err() {
                    break;
                }
            }
        });
        let whole = AtomicBool::new(false);
        let from = self.log.end();
        let append = async {
            let appended = self.append_all(source, read, &|| progress.at(meter.read())).await;
            whole.store(true, Ordering::Release);
            appended
        };
        let (appended, loaded) = tokio::join!(append, self.load_beside(from, &whole));
        reading.await?;
        let (mut done, newest) = appended?;
        done.unfit = loaded?.quarantined_facts;
        done.quarantined += done.unfit;
        if source == Source::Klaviyo {
            // Consent is as fresh as the newest profile that was told.
            if newest > Micros::default() {
                self.activator.consent_was_seen(newest.min(Micros::now()))?;
            }
        }
        done.seconds = began.elapsed().as_secs_f64();
        progress.end(&format!("{} read, {} new, {} duplicates", done.read, done.accepted, done.duplicates));
        Ok(done)
    }

    /// Also the time of the newest profile. Owns the receiver: whoever reads ahead must not wait for us once we failed.
    async fn append_all(
        &self,
        source: Source,
        mut read: mpsc::Receiver<Result<Batch, FileError>>,
        tell: &(dyn Fn() + Sync),
    ) -> Result<(Ingested, Micros), OpsError> {
        let mut done = Ingested::default();
        let mut newest = Micros::default();
        let mut waiting: Vec<Result<Batch, FileError>> = Vec::new();
        while read.recv_many(&mut waiting, GROUP).await > 0 {
            let mut events: Vec<Envelope> = Vec::new();
            let mut failed = None;
            for batch in waiting.drain(..) {
                match batch {
                    Ok(batch) => {
                        done.read += batch.read;
                        done.bytes += batch.bytes;
                        events.extend(batch.envelopes);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            let profiles = events.iter().filter(|e| e.object_type.as_deref() == Some("profile"));
            newest = profiles.map(|e| e.occurred_at).fold(newest, Micros::max);
            self.take(source, events, &mut done).await?;
            tell();
            // What was read before the fault is kept; the fault itself is the user's to hear.
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok((done, newest))
    }

    /// Puts events into the log and counts what became of them.
    pub(super) async fn take(
        &self,
        source: Source,
        events: Vec<Envelope>,
        done: &mut Ingested,
    ) -> Result<(), OpsError> {
        let is = |kind: &str| -> Vec<bool> { events.iter().map(|e| e.event_type == kind).collect() };
        let kinds = is(REJECTED).into_iter().zip(is(ANONYMOUS));
        let outcomes = self.log.append(events).await?;
        let (mut accepted, mut duplicates) = (0, 0);
        for (outcome, (rejected, anonymous)) in outcomes.iter().zip(kinds) {
            done.refused += u64::from(rejected);
            match outcome {
                Appended::Duplicate(_) => duplicates += 1,
                Appended::Stored(_) if rejected => done.quarantined += 1,
                Appended::Stored(_) | Appended::Delivered => {
                    accepted += 1;
                    done.anonymous += u64::from(anonymous);
                }
            }
        }
        telemetry::events_ingested(source, accepted, duplicates);
        done.accepted += accepted;
        done.duplicates += duplicates;
        Ok(())
    }

    /// Loads while events are still read, and then the rest.
    pub(super) async fn load_beside(&self, from: Offset, whole: &AtomicBool) -> Result<Loaded, OpsError> {
        let mut total = Loaded::default();
        loop {
            let last = whole.load(Ordering::Acquire);
            let mut loader = self.loader.lock().await;
            let waiting = self.log.end().0.saturating_sub(loader.next().0.max(from.0));
            if waiting >= WORTH_LOADING || last {
                while let Some(loaded) = loader.step().await? {
                    total += loaded;
                }
            }
            drop(loader);
            if last {
                fold_in(&self.lake, FoldIn::Worthwhile).await?;
                note_versions(&self.lake, &self.store)?;
                return Ok(total);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Ingested {
    /// Whether there was input, and nothing could be made of any of it.
    pub fn is_all_refused(&self) -> bool {
        let no_events_now = self.quarantined - self.unfit;
        self.refused > 0 && self.accepted + self.duplicates == self.refused - no_events_now
    }

    fn add(&mut self, other: &Ingested) {
        self.read += other.read;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
        self.unfit += other.unfit;
        self.anonymous += other.anonymous;
        self.refused += other.refused;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
    }
}
