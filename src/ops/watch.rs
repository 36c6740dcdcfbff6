//! How the directory is doing: gauges that `/metrics` shows, and what `doctor` says of the same things.

use super::{Instance, doctor::Finding};
use crate::telemetry;

/// More files in one table than this, and every query feels them: upkeep merges them long before.
const FILES: usize = 2000;
/// A sync that takes this long on average holds every webhook up as long.
const SLOW_SYNC_MS: f64 = 100.0;

impl Instance {
    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let place = self.place.now();
        let unseen = self.log.end().0.saturating_sub(place.next.0);
        telemetry::load_lag(unseen, place.next.0.saturating_sub(place.committed.0));
        let size = self.log.size();
        telemetry::log_size(size.queued_bytes, size.kept_bytes, size.segments);
        match self.store.bytes() {
            Ok(bytes) => telemetry::state_size(bytes),
            Err(error) => tracing::warn!("the size of the state folder is not known: {error}"),
        }
        let snapshot = self.lake.snapshot();
        for table in snapshot.tables() {
            let (rows, files) = (snapshot.rows(&table).unwrap_or(0), snapshot.files(&table).unwrap_or(0));
            telemetry::table_size(&table, rows, files as u64, snapshot.bytes(&table).unwrap_or(0));
        }
    }

    pub(super) fn log_finding(&self) -> Finding {
        if let Some(why) = self.log.stopped() {
            return Finding::new("log", false, why.to_string(), "see the disk, then start again");
        }
        let (stats, size) = (self.log.stats(), self.log.size());
        let sync_ms = stats.sync_micros as f64 / 1000.0 / stats.syncs.max(1) as f64;
        let found = format!(
            "{} events and {} duplicates since the start, {sync_ms:.1} ms a sync; {:.1} MB kept, {} bytes wait",
            stats.events,
            stats.duplicates,
            size.kept_bytes as f64 / 1e6,
            size.queued_bytes
        );
        Finding::new(
            "log",
            sync_ms <= SLOW_SYNC_MS,
            found,
            "its disk is slow or busy: move the data directory to another",
        )
    }

    pub(super) fn tables_finding(&self) -> Finding {
        let snapshot = self.lake.snapshot();
        let tables: Vec<(String, usize, u64)> = snapshot
            .tables()
            .into_iter()
            .map(|t| (snapshot.files(&t).unwrap_or(0), snapshot.bytes(&t).unwrap_or(0), t))
            .map(|(files, bytes, table)| (table, files, bytes))
            .collect();
        let (files, bytes) = tables.iter().fold((0, 0), |(f, b), t| (f + t.1, b + t.2));
        let found = format!("{} tables of {files} files, {:.1} MB", tables.len(), bytes as f64 / 1e6);
        match tables.into_iter().max_by_key(|t| t.1).filter(|t| t.1 > FILES) {
            None => Finding::new("tables", true, found, ""),
            Some((table, files, _)) => Finding::new(
                "tables",
                false,
                format!("{found}; {table} alone has {files} files"),
                "upkeep does not keep up: see its errors in the log of serve, and whether the disk is busy",
            ),
        }
    }
}
