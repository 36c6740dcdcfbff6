//! How the directory is doing: the gauges that `/metrics` shows.
//!
//! What must hold: looking waits for no work that is under way and opens no file of a table, so that it may be done often.

use super::Instance;
use crate::telemetry;

impl Instance {
    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let (unseen, uncommitted) = self.lag();
        telemetry::load_lag(unseen, uncommitted);
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

    /// How many events readers do not see yet, and how many of those that they see no table holds.
    pub(super) fn lag(&self) -> (u64, u64) {
        let place = self.place.now();
        let unseen = self.log.end().0.saturating_sub(place.next.0);
        (unseen, place.next.0.saturating_sub(place.committed.0))
    }
}
