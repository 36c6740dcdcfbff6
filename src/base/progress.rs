//! How long work tells how far it is. The terminal draws bars from it, a log gets lines, a test gets nothing.

/// Told by whoever works; shown by whoever asked.
pub trait Progress: Send + Sync {
    /// A stage begins. `total` in `unit`s, where it is known.
    fn begin(&self, stage: &str, total: Option<u64>, unit: &str);
    /// So many units of the stage are done, in all.
    fn at(&self, done: u64);
    /// The stage is over; `summary` says what came of it.
    fn end(&self, summary: &str);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total: Option<u64>, _unit: &str) {}
    fn at(&self, _done: u64) {}
    fn end(&self, _summary: &str) {}
}
