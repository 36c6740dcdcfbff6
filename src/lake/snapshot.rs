//! All tables as they were at one moment, and what was not committed by then: what a query reads, whatever is written
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::catalog::TableProvider;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::provider::Scan;
use super::state::TableState;
use super::tail::{HotRows, Tail, Tailed};

/// Cheap to hold. Its files stay on disk for upkeep's retention after they were replaced; a query that runs longer than
/// that may fail to find one.
#[derive(Default)]
pub struct Snapshot {
    tables: BTreeMap<Arc<str>, Arc<TableState>>,
    hot: BTreeMap<Arc<str>, HotRows>,
}

impl Snapshot {
    pub(super) fn of(states: impl IntoIterator<Item = Arc<TableState>>, tail: &Tail) -> Snapshot {
        let tables = states.into_iter().map(|state| (state.name.clone(), state)).collect();
        let hot = tail.beside(&tables);
        Snapshot { tables, hot }
    }

    /// Names as `schema.table`, in order.
    pub fn tables(&self) -> Vec<String> {
        let names: BTreeSet<&Arc<str>> = self.tables.keys().chain(self.hot.keys()).collect();
        names.into_iter().map(|name| name.to_string()).collect()
    }

    /// `table` for DataFusion: a plain Parquet scan of this version's files, and the rows that are not committed yet.
    pub fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        let cold = self.state(table).cloned();
        match self.hot.get(table).map(|hot| Tailed::new(table, cold.clone(), hot)) {
            Some(Ok(tailed)) => Some(Arc::new(tailed)),
            Some(Err(error)) => {
                tracing::error!(table, %error, "rows are seen only when they are committed");
                cold.map(|state| Arc::new(Scan::new(state)) as Arc<dyn TableProvider>)
            }
            None => cold.map(|state| Arc::new(Scan::new(state)) as Arc<dyn TableProvider>),
        }
    }

    /// Rows in files and beside them.
    pub fn rows(&self, table: &str) -> Option<u64> {
        let hot = self.hot.get(table).map(|hot| hot.rows());
        match self.state(table) {
            Some(state) => Some(state.rows() + hot.unwrap_or(0)),
            None => hot,
        }
    }

    pub fn files(&self, table: &str) -> Option<usize> {
        self.state(table).map(|state| state.files.len())
    }

    /// Bytes of Parquet on disk.
    pub fn bytes(&self, table: &str) -> Option<u64> {
        self.state(table).map(|state| state.bytes())
    }

    /// The Delta version.
    pub fn version(&self, table: &str) -> Option<u64> {
        self.state(table).map(|state| state.version)
    }

    /// Looks for files that are missing or damaged: at the length and footer of each, and for as long as `patience` at all
    /// that is in them. Blocks on the disk.
    pub fn inspect(&self, patience: Duration) -> Inspected {
        let until = Instant::now() + patience;
        let mut inspected = Inspected::default();
        for (state, file) in self.tables.values().flat_map(|state| state.files.iter().map(move |file| (state, file))) {
            let path = state.directory.join(&file.add.path);
            let whole = Instant::now() < until;
            inspected.files += 1;
            inspected.read += usize::from(whole);
            if let Err(why) = inspect(&path, file.size, whole) {
                inspected.damaged.push(Damaged { table: state.name.to_string(), path, why });
            }
        }
        inspected
    }

    fn state(&self, table: &str) -> Option<&Arc<TableState>> {
        self.tables.get(table)
    }
}

/// What [`Snapshot::inspect`] saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    pub files: usize,
    /// Those of them that were read to their ends.
    pub read: usize,
    pub damaged: Vec<Damaged>,
}

/// A file that a table's log names and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    pub table: String,
    pub path: PathBuf,
    pub why: String,
}

fn inspect(path: &Path, size: u64, whole: bool) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let found = file.metadata().map_err(|e| e.to_string())?.len();
    if found != size {
        return Err(format!("it has {found} bytes, and was written with {size}"));
    }
    let mut rows = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|e| e.to_string())?;
    if whole { rows.try_for_each(|batch| batch.map(drop).map_err(|e| e.to_string())) } else { Ok(()) }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tables.values()).finish()
    }
}
