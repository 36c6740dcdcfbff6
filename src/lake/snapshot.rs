//! All tables as they were at one moment: what a query reads, whatever is written meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;

use super::provider::Scan;
use super::state::TableState;

/// Cheap to hold. Its files stay on disk for upkeep's retention after they were replaced; a query that runs longer than
/// that may fail to find one.
#[derive(Default)]
pub struct Snapshot {
    tables: BTreeMap<Arc<str>, Arc<TableState>>,
}

impl Snapshot {
    pub(super) fn of(states: impl IntoIterator<Item = Arc<TableState>>) -> Snapshot {
        Snapshot { tables: states.into_iter().map(|state| (state.name.clone(), state)).collect() }
    }

    /// Names as `schema.table`, in order.
    pub fn tables(&self) -> Vec<String> {
        self.tables.keys().map(|name| name.to_string()).collect()
    }

    /// `table` for DataFusion: a plain Parquet scan of this version's files.
    pub fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        self.state(table).map(|state| Arc::new(Scan::new(state.clone())) as Arc<dyn TableProvider>)
    }

    pub fn schema(&self, table: &str) -> Option<SchemaRef> {
        self.state(table).map(|state| state.layout.schema.clone())
    }

    pub fn rows(&self, table: &str) -> Option<u64> {
        self.state(table).map(|state| state.rows())
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

    /// How far `stage` had come in what this snapshot shows of `table`.
    pub fn position(&self, table: &str, stage: &str) -> Option<i64> {
        self.state(table).and_then(|state| state.position(stage))
    }

    fn state(&self, table: &str) -> Option<&Arc<TableState>> {
        self.tables.get(table)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tables.values()).finish()
    }
}
