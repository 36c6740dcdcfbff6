//! One version of one table for DataFusion: a plain Parquet scan, with the files left out that cannot hold what is asked.
//!
//! It is no scan of deltalake's own: the files and their statistics are in memory already, a plan is made without reading
//! the log, `count(*)` is answered from it, and a plain scan can be sent to another process. That it may be plain rests on
//! the tables being without deletion vectors and column mapping, which `log` refuses.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, Statistics, project_schema};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::prune;
use super::state::{DataFile, TableState, merge};

#[derive(Debug)]
pub(super) struct Scan {
    state: Arc<TableState>,
    /// Scanned instead of all files of the version.
    only: Option<Vec<Arc<DataFile>>>,
}

impl Scan {
    pub fn new(state: Arc<TableState>) -> Scan {
        Scan { state, only: None }
    }

    /// Some of the version's files, in this order.
    pub fn of_files(state: Arc<TableState>, files: Vec<Arc<DataFile>>) -> Scan {
        Scan { state, only: Some(files) }
    }

    fn files(&self) -> &[Arc<DataFile>] {
        self.only.as_deref().unwrap_or(&self.state.files)
    }

    fn statistics_of(&self, files: &[Arc<DataFile>]) -> Statistics {
        match self.only {
            None if files.len() == self.state.files.len() => self.state.statistics().clone(),
            _ => merge(&self.state.layout, files),
        }
    }

    /// The files that can hold what is asked, and the plan that reads them.
    fn choose(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (exact, others): (Vec<_>, Vec<_>) =
            filters.iter().cloned().partition(|f| prune::decides_by_partition(&self.state.layout, f));
        let mut files = prune::by_partition(session, &self.state.layout, self.files(), exact)?;
        files = prune::by_statistics(session, &self.state.layout, files, &others)?;
        if let (Some(limit), true) = (limit, others.is_empty()) {
            files = first_rows(files, limit);
        }
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        self.plan(session, &files, projection, limit)
    }

    fn plan(
        &self,
        session: &dyn Session,
        files: &[Arc<DataFile>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let layout = &self.state.layout;
        let url = ObjectStoreUrl::local_filesystem();
        let runtime = session.runtime_env();
        let readers = CachedParquetFileReaderFactory::new(
            runtime.object_store(&url)?,
            runtime.cache_manager.get_file_metadata_cache(),
        );
        let mut options = TableParquetOptions::new();
        options.global = session.config().options().execution.parquet.clone();
        let source = ParquetSource::new(layout.scan.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(readers));
        let place = |i: &usize| layout.place.get(*i).copied();
        let columns = match projection {
            Some(declared) => declared.iter().filter_map(place).collect(),
            None => layout.place.clone(),
        };
        let groups = groups(files, session.config().target_partitions());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(self.statistics_of(files))
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// `files` in up to `n` groups of about the same number of bytes, neighbours together.
fn groups(files: &[Arc<DataFile>], n: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().map(|f| f.size).sum();
    let share = (total / n.max(1) as u64).max(1);
    let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new()];
    let mut filled = 0;
    for file in files {
        if filled >= share * groups.len() as u64 && groups.len() < n {
            groups.push(Vec::new());
        }
        filled += file.size;
        if let Some(group) = groups.last_mut() {
            group.push(file.scan.clone());
        }
    }
    groups.into_iter().map(FileGroup::new).collect()
}

impl TableProvider for Scan {
    fn schema(&self) -> SchemaRef {
        self.state.layout.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match prune::decides_by_partition(&self.state.layout, filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics_of(self.files()).project(Some(&self.state.layout.place)))
    }

    // As `async_trait` would write it, but for the future, which is made outside of these bounds: within them the compiler
    // proves anew, part by part, that expressions may be sent to another thread, which takes it ten seconds.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        planned(self.choose(session, projection, filters, limit))
    }
}

/// A plan that is made already.
fn planned(plan: Result<Arc<dyn ExecutionPlan>>) -> BoxFuture<'static, Result<Arc<dyn ExecutionPlan>>> {
    ready(plan).boxed()
}

/// As many of `files` as hold `limit` rows.
fn first_rows(files: Vec<Arc<DataFile>>, limit: usize) -> Vec<Arc<DataFile>> {
    let mut before = 0;
    let enough = |file: &Arc<DataFile>| {
        let needed = before < limit as u64;
        before += file.rows;
        needed
    };
    files.into_iter().take_while(enough).collect()
}
