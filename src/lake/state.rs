//! One version of one table, in memory: its columns, its files with their statistics, and how far each stage has come.
//!
//! A version never changes: a commit makes the next one from it, and whoever holds the old one goes on reading it. A version
//! is exactly what the table's log says; reading it afresh from the log gives the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use deltalake_core::kernel::{Add, Metadata};
use object_store::ObjectMeta;
use object_store::path::Path as StorePath;

use super::error::{LakeError, Result};
use super::stats;

/// A table's columns: in the order they were declared, and in the order a scan has them (partition columns last).
#[derive(Debug)]
pub(super) struct Layout {
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    pub scan: TableSchema,
    /// For each declared column its place in the scan.
    pub place: Vec<usize>,
}

impl Layout {
    pub fn new(table: &str, schema: SchemaRef, partition_by: &[String]) -> Result<Layout> {
        let field = |name: &String| {
            schema.fields().iter().find(|f| f.name() == name).cloned().ok_or_else(|| {
                LakeError::schema(table, format!("it is partitioned by {name:?}, which is not one of its columns"))
            })
        };
        let partitions = partition_by.iter().map(field).collect::<Result<Vec<FieldRef>>>()?;
        let in_files: Vec<FieldRef> =
            schema.fields().iter().filter(|f| !partition_by.contains(f.name())).cloned().collect();
        if in_files.is_empty() {
            return Err(LakeError::schema(table, "it needs a column that it is not partitioned by"));
        }
        let scan = TableSchema::builder(Arc::new(Schema::new(in_files))).with_table_partition_cols(partitions).build();
        let place = schema.fields().iter().filter_map(|f| scan.table_schema().index_of(f.name()).ok()).collect();
        Ok(Layout { schema, partition_by: partition_by.to_vec(), scan, place })
    }
}

/// One Parquet file of a table, as the log describes it and as a scan wants it.
#[derive(Debug)]
pub(super) struct DataFile {
    pub add: Add,
    pub rows: u64,
    pub size: u64,
    /// With partition values and statistics.
    pub scan: PartitionedFile,
}

impl DataFile {
    pub fn new(table: &str, directory: &Path, layout: &Layout, add: Add) -> Result<DataFile> {
        let damaged = |detail: String| LakeError::Corrupt {
            table: table.to_owned(),
            path: directory.to_owned(),
            detail: format!("{}: {detail}", add.path),
        };
        let size = u64::try_from(add.size).map_err(|_| damaged(format!("a size of {} bytes", add.size)))?;
        let (rows, mut statistics) = stats::parse(add.stats.as_deref(), size, layout.scan.file_schema().fields())
            .ok_or_else(|| damaged("the log does not say how many rows it holds".into()))?;
        let values = partition_values(layout, &add).map_err(damaged)?;
        let column_rows = usize::try_from(rows).unwrap_or(usize::MAX);
        statistics.column_statistics.extend(values.iter().map(|value| constant(value, column_rows)));
        let location = location(directory, &add.path).map_err(|e| damaged(e.to_string()))?;
        let last_modified = DateTime::from_timestamp_millis(add.modification_time).unwrap_or_default();
        let meta = ObjectMeta { location, last_modified, size, e_tag: None, version: None };
        let mut scan = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        scan.statistics = Some(Arc::new(statistics));
        Ok(DataFile { add, rows, size, scan })
    }

    pub fn statistics(&self) -> Option<&Statistics> {
        self.scan.statistics.as_deref()
    }
}

fn location(directory: &Path, path: &str) -> Result<StorePath, object_store::path::Error> {
    let root = StorePath::from_absolute_path(directory)?;
    StorePath::parse(format!("{root}/{path}"))
}

fn partition_values(layout: &Layout, add: &Add) -> Result<Vec<ScalarValue>, String> {
    let value = |field: &FieldRef| match add.partition_values.get(field.name()) {
        Some(Some(text)) => ScalarValue::try_from_string(text.clone(), field.data_type())
            .map_err(|e| format!("its {} is {text:?}: {e}", field.name())),
        _ => ScalarValue::try_from(field.data_type()).map_err(|e| e.to_string()),
    };
    layout.scan.table_partition_cols().iter().map(value).collect()
}

/// Statistics of a column that has the same value in every row.
fn constant(value: &ScalarValue, rows: usize) -> ColumnStatistics {
    if value.is_null() {
        return ColumnStatistics::new_unknown().with_null_count(Precision::Exact(rows));
    }
    ColumnStatistics::new_unknown()
        .with_null_count(Precision::Exact(0))
        .with_min_value(Precision::Exact(value.clone()))
        .with_max_value(Precision::Exact(value.clone()))
        .with_distinct_count(Precision::Exact(1))
}

/// What one commit changes.
#[derive(Default)]
pub(super) struct Change {
    /// The table's new description, when it is made or its columns change.
    pub described: Option<(Metadata, Arc<Layout>)>,
    pub removed: Vec<Arc<DataFile>>,
    pub added: Vec<Add>,
    pub position: Option<(String, i64)>,
}

#[derive(Clone)]
pub(super) struct TableState {
    pub name: Arc<str>,
    pub directory: Arc<PathBuf>,
    pub version: u64,
    pub metadata: Metadata,
    pub layout: Arc<Layout>,
    /// Oldest commit first.
    pub files: Vec<Arc<DataFile>>,
    pub positions: BTreeMap<String, i64>,
    merged: OnceLock<Statistics>,
}

impl TableState {
    pub fn new(
        name: Arc<str>,
        directory: Arc<PathBuf>,
        version: u64,
        (metadata, layout): (Metadata, Arc<Layout>),
        adds: Vec<Add>,
        positions: BTreeMap<String, i64>,
    ) -> Result<TableState> {
        let files = data_files(&name, &directory, &layout, adds)?;
        Ok(TableState { name, directory, version, metadata, layout, files, positions, merged: OnceLock::new() })
    }

    /// The version that `change` makes where there is no table.
    pub fn first(name: Arc<str>, directory: Arc<PathBuf>, change: &Change) -> Result<TableState> {
        let Some(described) = change.described.clone() else {
            return Err(LakeError::schema(&name, "there is no such table"));
        };
        let positions = change.position.iter().cloned().collect();
        TableState::new(name, directory, 0, described, change.added.clone(), positions)
    }

    /// The version that `change` makes of this one.
    pub fn next(&self, change: &Change) -> Result<TableState> {
        let mut next = self.clone();
        next.version += 1;
        next.merged = OnceLock::new();
        if !change.removed.is_empty() {
            let gone: HashSet<&str> = change.removed.iter().map(|f| f.add.path.as_str()).collect();
            next.files.retain(|f| !gone.contains(f.add.path.as_str()));
        }
        if let Some((metadata, layout)) = &change.described {
            if layout.schema != self.layout.schema || layout.partition_by != self.layout.partition_by {
                // Statistics are kept by the column's place, and the places have moved.
                let kept = next.files.iter().map(|f| f.add.clone()).collect();
                next.files = data_files(&self.name, &self.directory, layout, kept)?;
            }
            (next.metadata, next.layout) = (metadata.clone(), layout.clone());
        }
        next.files.extend(data_files(&self.name, &self.directory, &next.layout, change.added.clone())?);
        next.positions.extend(change.position.clone());
        Ok(next)
    }

    pub fn position(&self, stage: &str) -> Option<i64> {
        self.positions.get(stage).copied()
    }

    /// Whether all of `adds` are files of this version; never for none.
    pub fn holds(&self, adds: &[Add]) -> bool {
        let here: HashSet<&str> = self.files.iter().map(|f| f.add.path.as_str()).collect();
        !adds.is_empty() && adds.iter().all(|a| here.contains(a.path.as_str()))
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Statistics of the whole table, in the order of a scan.
    pub fn statistics(&self) -> &Statistics {
        self.merged.get_or_init(|| merge(&self.layout, &self.files))
    }
}

fn data_files(name: &str, directory: &Path, layout: &Layout, adds: Vec<Add>) -> Result<Vec<Arc<DataFile>>> {
    adds.into_iter().map(|add| DataFile::new(name, directory, layout, add).map(Arc::new)).collect()
}

pub(super) fn merge(layout: &Layout, files: &[Arc<DataFile>]) -> Statistics {
    let schema = layout.scan.table_schema();
    if files.is_empty() {
        return Statistics::new_unknown(schema).with_num_rows(Precision::Exact(0));
    }
    Statistics::try_merge_iter(files.iter().filter_map(|f| f.statistics()), schema)
        .unwrap_or_else(|_| Statistics::new_unknown(schema))
}

impl fmt::Debug for TableState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {} ({} files)", self.name, self.version, self.files.len())
    }
}
