//! The hot tail: rows that are durable elsewhere and not committed yet, seen by readers all the same.
//!
//! A batch of appended rows names the position that they reach. A snapshot shows it only beside a version of its table that
//! has not come that far, so a row is seen from the tail or from a file, never from both and never from neither. Newer
//! versions of objects lie over whatever there is for as long as they are in the tail: before a table may hold one of them too they
//! are [replaced](super::Lake::replace_in_tail) by what is appended to which.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::Result;
use super::provider::Scan;
use super::schema;
use super::state::TableState;

/// Rows of one stage that are not committed yet, by table.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    stage: Arc<str>,
    tables: BTreeMap<Arc<str>, Vec<Arc<Part>>>,
}

#[derive(Debug)]
struct Part {
    /// The position that the stage's next commit to the table reaches at least, if it holds these rows. Without one they
    /// are seen whatever the table holds.
    version: Option<i64>,
    batch: RecordBatch,
}

impl Tail {
    pub fn of(stage: &str) -> Tail {
        Tail { stage: stage.into(), tables: BTreeMap::new() }
    }

    /// Adds rows that a commit will append to `table`, as it reaches `version` or more.
    pub fn append(&mut self, table: &str, version: i64, batch: RecordBatch) {
        self.push(table, Some(version), batch);
    }

    /// Adds newer versions of objects to a table of changes.
    pub fn lay_over(&mut self, changes: &str, batch: RecordBatch) {
        self.push(changes, None, batch);
    }

    fn push(&mut self, table: &str, version: Option<i64>, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.tables.entry(table.into()).or_default().push(Arc::new(Part { version, batch }));
        }
    }

    /// Nothing to be seen.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Without the parts that are the same in `other`.
    pub(super) fn without(mut self, other: &Tail) -> Tail {
        for (table, parts) in &mut self.tables {
            let theirs = other.tables.get(table).map_or(&[][..], Vec::as_slice);
            parts.retain(|part| !theirs.iter().any(|their| Arc::ptr_eq(part, their)));
        }
        self.tables.retain(|_, parts| !parts.is_empty());
        self
    }

    /// With what another of the same stage has.
    pub fn and(mut self, other: &Tail) -> Tail {
        for (table, parts) in &other.tables {
            self.tables.entry(table.clone()).or_default().extend(parts.iter().cloned());
        }
        self
    }

    /// Whether `states` have every column that it has rows of: a table of an older build grows by the next commit.
    pub(super) fn fits(&self, states: &BTreeMap<Arc<str>, Arc<TableState>>) -> bool {
        self.tables.iter().all(|(name, parts)| match (states.get(name), parts.first()) {
            (Some(state), Some(part)) => {
                let known = &state.layout.schema;
                part.batch.schema_ref().fields().iter().all(|f| known.column_with_name(f.name()).is_some())
            }
            _ => true,
        })
    }

    /// What a reader of `states` sees of it.
    pub(super) fn beside(&self, states: &BTreeMap<Arc<str>, Arc<TableState>>) -> BTreeMap<Arc<str>, HotRows> {
        let tables = self.tables.iter().map(|(name, parts)| (name, self.newer(parts, states.get(name))));
        tables.filter(|(_, newer)| !newer.is_empty()).map(|(name, newer)| (name.clone(), HotRows::of(newer))).collect()
    }

    fn newer(&self, parts: &[Arc<Part>], state: Option<&Arc<TableState>>) -> Vec<Arc<Part>> {
        let reached = state.and_then(|s| s.position(&self.stage));
        let is_newer = |part: &&Arc<Part>| part.version.is_none_or(|version| reached.is_none_or(|r| version > r));
        parts.iter().filter(is_newer).cloned().collect()
    }
}

/// The rows of one table that a snapshot has beside its files. Most snapshots are asked for few of their tables, so rows are
/// brought into their table's columns when somebody asks for them first.
#[derive(Debug)]
pub(super) struct HotRows {
    parts: Vec<Arc<Part>>,
    shaped: OnceLock<(SchemaRef, Vec<RecordBatch>)>,
}

impl HotRows {
    fn of(parts: Vec<Arc<Part>>) -> HotRows {
        HotRows { parts, shaped: OnceLock::new() }
    }

    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.batch.num_rows() as u64).sum()
    }

    /// In the columns of `state`, the table's in the same snapshot.
    fn shaped(&self, name: &str, state: Option<&Arc<TableState>>) -> Result<&(SchemaRef, Vec<RecordBatch>)> {
        if let Some(shaped) = self.shaped.get() {
            return Ok(shaped);
        }
        let schema = match (state, self.parts.first()) {
            (Some(state), _) => state.layout.schema.clone(),
            (None, Some(first)) => schema::stored(name, first.batch.schema_ref())?,
            (None, None) => Arc::new(Schema::empty()),
        };
        let batches = self.parts.iter().map(|part| schema::conform(name, &part.batch, &schema));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        Ok(self.shaped.get_or_init(|| (schema, batches)))
    }
}

/// A table's files and the rows beside them.
#[derive(Debug)]
pub(super) struct Tailed {
    cold: Option<Scan>,
    hot: MemTable,
    schema: SchemaRef,
}

impl Tailed {
    pub fn new(name: &str, cold: Option<Arc<TableState>>, hot: &HotRows) -> PlanResult<Tailed> {
        let (schema, batches) = hot.shaped(name, cold.as_ref()).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let schema = schema.clone();
        let hot = MemTable::try_new(schema.clone(), vec![batches.clone()])?;
        Ok(Tailed { cold: cold.map(Scan::new), hot, schema })
    }

    fn scan_both<'a>(
        &'a self,
        session: &'a dyn Session,
        projection: Option<&'a Vec<usize>>,
        filters: &'a [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'a, PlanResult<Arc<dyn ExecutionPlan>>> {
        let limit = limit.filter(|_| filters.is_empty());
        async move {
            let hot = self.hot.scan(session, projection, &[], limit).await?;
            match &self.cold {
                None => Ok(hot),
                Some(cold) => UnionExec::try_new(vec![cold.scan(session, projection, filters, limit).await?, hot]),
            }
        }
        .boxed()
    }
}

impl TableProvider for Tailed {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Files are left out by a filter, rows in memory are not: the filter stays above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // See `provider`: as `async_trait` would write it.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, PlanResult<Arc<dyn ExecutionPlan>>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        self.scan_both(session, projection, filters, limit)
    }
}
