//! A folded table as it is stored: a base, and an append-only `<table>_changes` of newer row versions laid over it.
//!
//! What is read is the newest version of every changed object, and of the base every row whose object has not changed.
//! Here is the one place that says so; readers build on [`laid_over`], and [`super::Lake::fold_in`] writes what it
//! yields back into the base.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, Result as PlanResult};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit};
use datafusion::scalar::ScalarValue;

/// What the name of a table of changes ends with.
pub const CHANGES: &str = "_changes";

/// The table that gathers the changes of `table`.
pub fn changes_of(table: &str) -> String {
    format!("{table}{CHANGES}")
}

/// The rows of `base` with `changes` laid over them, as the columns of `schema`. A column that a stored table does not
/// have yet is null. Objects are told apart by `livemode` and `key`.
pub fn laid_over(
    base: Arc<dyn TableProvider>,
    changes: Arc<dyn TableProvider>,
    key: &str,
    schema: &Schema,
) -> PlanResult<LogicalPlanBuilder> {
    let newest = newest(changes.clone(), key, schema)?.build()?;
    let keys = |side: &str| vec![of(side, "livemode"), of(side, key)];
    let columns = columns("base", schema, &base.schema());
    // The few changed ids are the side that is held in memory.
    scan("changed", changes)?
        .join(scan("base", base)?.build()?, JoinType::RightAnti, (keys("changed"), keys("base")), None)?
        .project(columns)?
        .union(newest)
}

/// The last version of each object in `changes`. Versions of one object differ in their offset: what a table holds and what the
/// tail has of it are never both seen.
pub fn newest(changes: Arc<dyn TableProvider>, key: &str, schema: &Schema) -> PlanResult<LogicalPlanBuilder> {
    let columns = columns("changes", schema, &changes.schema());
    let of_last = |name| Expr::Column(of("last", name));
    let newest = max(of_last("log_offset")).alias("newest");
    // Of all versions these three columns alone, so that whole rows are passed on as they are read, and not sorted.
    scan("last", changes.clone())?
        .aggregate([of_last("livemode"), of_last(key)], [newest])?
        .join(
            scan("changes", changes)?.build()?,
            JoinType::RightSemi,
            (
                vec![of("last", "livemode"), of("last", key), Column::from_name("newest")],
                vec![of("changes", "livemode"), of("changes", key), of("changes", "log_offset")],
            ),
            None,
        )?
        .project(columns)
}

/// The columns of `schema` out of a stored table.
pub fn columns(side: &str, schema: &Schema, stored: &Schema) -> Vec<Expr> {
    let column = |field: &FieldRef| {
        let name = field.name();
        match stored.field_with_name(name).map(|f| f.data_type() == field.data_type()) {
            Ok(true) => Expr::Column(of(side, name)).alias(name),
            Ok(false) => cast(Expr::Column(of(side, name)), field.data_type().clone()).alias(name),
            Err(_) => cast(lit(ScalarValue::Null), field.data_type().clone()).alias(name),
        }
    };
    schema.fields().iter().map(column).collect()
}

pub fn scan(alias: &str, table: Arc<dyn TableProvider>) -> PlanResult<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(alias, provider_as_source(table), None)
}

/// A column by its exact name: `col` would read capitals and dots in it.
pub fn of(side: &str, name: &str) -> Column {
    Column::new(Some(side), name)
}
