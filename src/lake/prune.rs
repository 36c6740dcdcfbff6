//! Which files a query can leave out.
//!
//! A condition on partition columns alone decides a file exactly, so the scan need not test it again. Any other leaves out
//! what the statistics exclude, and every row that is read is still tested.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue};
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::state::{DataFile, Layout};

/// Whether `filter` says the same of every row of a file.
pub(super) fn decides_by_partition(layout: &Layout, filter: &Expr) -> bool {
    let columns: Vec<&str> = layout.partition_by.iter().map(String::as_str).collect();
    !columns.is_empty()
        && !filter.column_refs().is_empty()
        && !asks_another_query(filter)
        && expr_applicable_for_cols(&columns, filter)
}

/// The answer of a subquery is not known while the plan is made.
fn asks_another_query(filter: &Expr) -> bool {
    let asks = |e: &Expr| {
        let subquery =
            matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_));
        Ok(subquery || matches!(e, Expr::OuterReferenceColumn(_, _) | Expr::Placeholder(_)))
    };
    // The closure never fails.
    filter.exists(asks).unwrap_or(true)
}

/// `iter_to_array` is thousands of functions, compiled for each type of iterator: one type does.
fn array(values: Vec<ScalarValue>) -> Result<ArrayRef> {
    ScalarValue::iter_to_array(values)
}

/// The files whose partition values meet all of `filters`, which must all be decided by them.
pub(super) fn by_partition(
    session: &dyn Session,
    layout: &Layout,
    files: &[Arc<DataFile>],
    filters: Vec<Expr>,
) -> Result<Vec<Arc<DataFile>>> {
    let Some(filter) = conjunction(filters).filter(|_| !files.is_empty()) else { return Ok(files.to_vec()) };
    let schema = Arc::new(Schema::new(layout.scan.table_partition_cols().clone()));
    let columns = (0..schema.fields().len())
        .map(|i| array(files.iter().filter_map(|f| f.scan.partition_values.get(i).cloned()).collect()))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let values = RecordBatch::try_new(schema.clone(), columns)?;
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
    let kept = filter.evaluate(&values)?.into_array(files.len())?;
    let kept = datafusion::common::cast::as_boolean_array(&kept)?;
    Ok(files.iter().enumerate().filter(|(i, _)| kept.is_valid(*i) && kept.value(*i)).map(|(_, f)| f.clone()).collect())
}

/// The files whose statistics do not exclude all of `filters` being met.
pub(super) fn by_statistics(
    session: &dyn Session,
    layout: &Layout,
    files: Vec<Arc<DataFile>>,
    filters: &[Expr],
) -> Result<Vec<Arc<DataFile>>> {
    let known = filters.iter().filter(|f| !asks_another_query(f)).cloned();
    let Some(filter) = conjunction(known).filter(|_| !files.is_empty()) else { return Ok(files) };
    let schema = layout.scan.table_schema();
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(schema.clone())?)?;
    // A condition that statistics say nothing about is no error of the query.
    let builder = PruningPredicateBuilder::new().with_file_schema(schema.clone());
    let Ok(predicate) = builder.try_build(filter) else { return Ok(files) };
    if predicate.always_true() {
        return Ok(files);
    }
    let kept = predicate.prune(&Bounds { schema, files: &files })?;
    Ok(files.iter().zip(kept).filter(|(_, kept)| *kept).map(|(f, _)| f.clone()).collect())
}

/// The log's statistics as bounds: inexact ones bound too, see `stats`.
struct Bounds<'a> {
    schema: &'a Schema,
    files: &'a [Arc<DataFile>],
}

impl Bounds<'_> {
    fn of<'s>(&'s self, column: &Column) -> Option<impl Iterator<Item = Option<&'s ColumnStatistics>>> {
        let place = self.schema.index_of(column.name()).ok()?;
        Some(self.files.iter().map(move |f| f.statistics().and_then(|s| s.column_statistics.get(place))))
    }

    fn bound(&self, column: &Column, which: impl Fn(&ColumnStatistics) -> &Precision<ScalarValue>) -> Option<ArrayRef> {
        let unknown = ScalarValue::try_from(self.schema.field_with_name(column.name()).ok()?.data_type()).ok()?;
        let value = |s: &ColumnStatistics| which(s).get_value().cloned();
        array(self.of(column)?.map(|s| s.and_then(value).unwrap_or_else(|| unknown.clone())).collect()).ok()
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |s| &s.min_value)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |s| &s.max_value)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let count = |s: &ColumnStatistics| s.null_count.get_value().and_then(|n| u64::try_from(*n).ok());
        Some(Arc::new(self.of(column)?.map(|s| s.and_then(count)).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|f| Some(f.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
