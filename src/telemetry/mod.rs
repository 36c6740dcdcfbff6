//! What the process says of itself: log lines on stderr, and counters that `/metrics` shows.
//!
//! Each thing that is counted has a function here, so that its name and labels are written once. Nothing here holds a
//! secret, an address or a phone number.

use std::io::IsTerminal;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt};

use crate::base::Source;

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics could not be set up: {0}")]
    Metrics(String),
    #[error("TILLSTREAM_LOG is no log filter: {0}; write a level (warn) or targets (tillstream=debug,warn)")]
    Filter(String),
}

/// The counters' way out.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Prometheus text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts into their buckets the times that came since: until then, or until somebody looks, each is kept.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// Starts logging to stderr, at `TILLSTREAM_LOG` or `level`, and counting. Once a process.
pub fn start(level: &str) -> Result<Metrics, TelemetryError> {
    let filter = match std::env::var("TILLSTREAM_LOG") {
        Ok(text) => EnvFilter::try_new(text).map_err(|e| TelemetryError::Filter(e.to_string()))?,
        // Libraries tell of their inner life at info, and librdkafka at error of each broker that it tries to reach.
        Err(_) => EnvFilter::new(format!("error,librdkafka=off,rdkafka=off,tillstream={level}")),
    };
    fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|e| TelemetryError::Metrics(e.to_string()))?;
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        // What writes tables aborts an upload that has failed, and catches this: the failure itself is told as an error.
        if text.contains("object_store") && text.ends_with("Already shut down") {
            return tracing::debug!("{}", text.replace('\n', " "));
        }
        tracing::error!("a fault of the program; please report it: {}", text.replace('\n', " "));
    }));
    // Webhook and sync times lie between 0.1 ms and a few seconds.
    const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .map_err(|e| TelemetryError::Metrics(e.to_string()))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| TelemetryError::Metrics(e.to_string()))?;
    Ok(Metrics(handle))
}

/// A request of a source was refused before anything of it was kept.
pub fn webhook_refused(source: Source, reason: &'static str) {
    counter!("tillstream_webhooks_refused_total", "source" => source.as_str(), "reason" => reason).increment(1);
}

/// What a request of a source brought is durable, and it was answered.
pub fn webhook_accepted(source: Source, seconds: f64) {
    counter!("tillstream_webhooks_accepted_total", "source" => source.as_str()).increment(1);
    histogram!("tillstream_webhook_seconds", "source" => source.as_str()).record(seconds);
}

/// Events reached the log, or were there already.
pub fn events_ingested(source: Source, accepted: u64, duplicates: u64) {
    counter!("tillstream_events_accepted_total", "source" => source.as_str()).increment(accepted);
    counter!("tillstream_events_duplicate_total", "source" => source.as_str()).increment(duplicates);
}

/// A provider's API was asked for what happened since; so many events had come no other way.
pub fn polled(source: Source, brought: u64) {
    counter!("tillstream_polls_total", "source" => source.as_str()).increment(1);
    counter!("tillstream_polled_events_total", "source" => source.as_str()).increment(brought);
}

/// A single object was asked for by its id; `known`: the provider has it.
pub fn asked_for_object(known: bool) {
    let known = if known { "yes" } else { "no" };
    counter!("tillstream_objects_asked_for_total", "known" => known).increment(1);
}

/// The loader committed a batch.
pub fn loaded(events: u64, quarantined: u64, seconds: f64) {
    counter!("tillstream_events_loaded_total").increment(events);
    counter!("tillstream_events_quarantined_total").increment(quarantined);
    histogram!("tillstream_load_seconds").record(seconds);
}

/// Events that are in the log and that readers do not see, and such as they see that no table holds yet.
pub fn load_lag(unseen: u64, uncommitted: u64) {
    gauge!("tillstream_load_lag_events").set(unseen as f64);
    gauge!("tillstream_load_uncommitted_events").set(uncommitted as f64);
}

/// The log's writer put a group of events on disk.
pub fn log_synced(events: u64, seconds: f64) {
    counter!("tillstream_log_events_total").increment(events);
    histogram!("tillstream_log_sync_seconds").record(seconds);
}

/// What waits for the log's writer, and what the log keeps.
pub fn log_size(queued_bytes: u64, kept_bytes: u64, segments: u64) {
    gauge!("tillstream_log_queue_bytes").set(queued_bytes as f64);
    gauge!("tillstream_log_bytes").set(kept_bytes as f64);
    gauge!("tillstream_log_segments").set(segments as f64);
}

/// A table's newest version.
pub fn table_size(table: &str, rows: u64, files: u64, bytes: u64) {
    gauge!("tillstream_table_rows", "table" => table.to_owned()).set(rows as f64);
    gauge!("tillstream_table_files", "table" => table.to_owned()).set(files as f64);
    gauge!("tillstream_table_bytes", "table" => table.to_owned()).set(bytes as f64);
}

/// The state folder on disk.
pub fn state_size(bytes: u64) {
    gauge!("tillstream_state_bytes").set(bytes as f64);
}

/// A round of upkeep was done.
pub fn upkept(files_merged: u64, files_deleted: u64, bytes_written: u64) {
    counter!("tillstream_upkeep_files_merged_total").increment(files_merged);
    counter!("tillstream_upkeep_files_deleted_total").increment(files_deleted);
    counter!("tillstream_upkeep_bytes_written_total").increment(bytes_written);
}

/// A kind of background work failed, and is tried again.
pub fn work_failed(what: &'static str) {
    counter!("tillstream_work_failures_total", "work" => what).increment(1);
}

/// An event of a type that no table is made from: kept raw.
pub fn unhandled_type(events: u64) {
    counter!("tillstream_events_unhandled_type_total").increment(events);
}

/// A message changed its state.
pub fn message(channel: &'static str, state: &'static str) {
    counter!("tillstream_messages_total", "channel" => channel, "state" => state).increment(1);
}

/// Faults of our own that last: rows of `ops.alerts`.
pub fn alerts_open(open: usize) {
    gauge!("tillstream_alerts_open").set(open as f64);
}

/// Of the newest exchange rate, in days; none yet is not told.
pub fn fx_age(days: Option<i64>) {
    if let Some(days) = days {
        gauge!("tillstream_fx_rate_age_days").set(days as f64);
    }
}
