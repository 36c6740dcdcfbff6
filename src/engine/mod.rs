//! SQL over the lake: one catalog, read only, fenced in time, memory and rows.
//!
//! A [`Session`] is one reader's view: a snapshot of the tables, the views by their SQL, a business time and a zone.
//! Everything that a session answers comes from that one snapshot. Queries run on the engine's own threads, so that
//! none can hold up what else the process does; an [`Answer`] dropped is a query stopped. Nothing here writes to the
//! lake, reads a file that the snapshot does not hold, or lets a user's SQL do either.

mod answer;
mod catalog;
mod depth;
mod dialect;
mod error;
mod expansion;
mod fence;
mod functions;
mod json;
mod nesting;
mod operators;
pub mod output;
mod overlay;
mod reference;
mod rows;
mod session;
mod views;

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use datafusion::{
    execution::{
        SessionStateBuilder,
        context::SessionState,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::SessionConfig,
};
use tokio::runtime::Runtime;

pub use self::{
    answer::Answer,
    catalog::{Tables, View},
    error::{Kind, Place, SqlError},
    fence::MAX_LENGTH,
    functions::Conversion,
    session::{Limits, Session, SessionOptions},
};

/// The catalog's name, as in `tillstream.core.orders`.
pub const CATALOG: &str = "tillstream";
/// Where a table named without a schema is looked for.
pub const DEFAULT_SCHEMA: &str = "core";
/// The schemas, in the order in which data flows through them.
pub const SCHEMAS: [&str; 6] = ["raw", "core", "marts", "segments", "ops", "ref"];

/// Planning recurses over expressions with frames of kilobytes in a debug build; only touched pages cost memory.
const STACK: usize = 32 << 20;

/// What the engine may use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads, and partitions of a query.
    pub threads: usize,
    /// Bytes that all queries together may hold; past it they spill, and what cannot spill fails.
    pub memory: usize,
    /// Bytes of spilled data.
    pub spill: u64,
    /// Where to spill; made if absent.
    pub spill_dir: PathBuf,
    /// Evaluate filters while Parquet is decoded.
    pub pushdown_filters: bool,
}

impl Settings {
    /// The defaults, spilling to `spill_dir`: the machine's threads and 1 GiB.
    pub fn new(spill_dir: impl Into<PathBuf>) -> Settings {
        Settings {
            threads: std::thread::available_parallelism().map_or(2, NonZeroUsize::get),
            memory: 1 << 30,
            spill: 20 << 30,
            spill_dir: spill_dir.into(),
            pushdown_filters: true,
        }
    }
}

/// Runs queries; cheap to clone. The threads end with the last clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    /// Functions and settings that all sessions share; its catalog is empty.
    base: SessionState,
    /// How the tables of facts are stored.
    facts: Arc<Vec<overlay::Shape>>,
    memory: usize,
}

impl Engine {
    pub fn new(settings: Settings) -> Result<Engine, SqlError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .thread_name("engine")
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .map_err(|e| SqlError::internal(format!("starting the engine's threads failed: {e}")))?;
        let failed =
            |e| SqlError::internal(format!("starting the engine failed: {}", error::explain(&e, Default::default)));
        let base = base_state(&settings).map_err(failed)?;
        let facts = overlay::shapes().map_err(failed)?;
        Ok(Engine { inner: Arc::new(Inner { runtime: Some(runtime), base, facts, memory: settings.memory }) })
    }

    /// A reader of one snapshot.
    pub fn session(&self, options: SessionOptions) -> Result<Session, SqlError> {
        Session::new(self.clone(), options, Arc::clone(&self.inner.facts))
    }

    /// Bytes that queries hold now.
    pub fn memory_in_use(&self) -> usize {
        self.inner.base.runtime_env().memory_pool.reserved()
    }

    fn runtime(&self) -> Result<&Runtime, SqlError> {
        self.inner.runtime.as_ref().ok_or_else(|| SqlError::internal("the engine is shutting down"))
    }
}

impl Drop for Inner {
    /// The last clone may go on a thread of another runtime, where waiting for ours to end would panic.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn base_state(settings: &Settings) -> datafusion::error::Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1));
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // Of a list of structs the planner and its plan may disagree on what in it can be null, and no answer hangs on that.
    options.execution.skip_physical_aggregate_schema_check = true;
    options.execution.parquet.pushdown_filters = settings.pushdown_filters;
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime_env(settings)?))
        .with_physical_optimizer_rule(Arc::new(operators::GuardOperators))
        .build();
    functions::register_shared(&mut state)?;
    Ok(state)
}

fn runtime_env(settings: &Settings) -> datafusion::error::Result<RuntimeEnv> {
    std::fs::create_dir_all(&settings.spill_dir)?;
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![settings.spill_dir.clone()]))
        .with_max_temp_directory_size(settings.spill);
    let pool = TrackConsumersPool::new(FairSpillPool::new(settings.memory), NonZeroUsize::MIN);
    RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build()
}
