//! Tables of facts as a reader sees them: one row an object, each person under one id.
//!
//! A folded table is stored as a base and an append-only `<table>_changes` of newer row versions. What is read is the
//! newest version of every changed object, and of the base every row whose object has not changed. Then the person of
//! each row, stored as the seed of its best identifier, becomes the person that the merges make of it.
//!
//! Invariant: a filter may reach the base, never the choice of the newest version: else an older one that passes it
//! would come back. Where nothing has changed and no person is asked for, the plan is the scan of the base.

use std::{collections::HashSet, fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::AsArray,
        datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, JoinType},
    datasource::empty::EmptyTable,
    error::Result,
    execution::{SessionStateBuilder, context::SessionState},
    functions::expr_fn::coalesce,
    logical_expr::{
        BinaryExpr, Expr, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, cast, col, lit,
    },
    physical_plan::{ExecutionPlan, collect},
    prelude::SessionContext,
};
use futures::{FutureExt, future::BoxFuture};

use super::catalog::Tables;
use crate::facts::{
    Table,
    loads::{LOADS, loads_schema},
    raw,
};
use crate::lake::overlay::{self, CHANGES, of, scan};

const MERGES: &str = "core.person_merges";
const PERSON: &str = "person_id";

/// How a table of facts is stored.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// `schema.table`.
    pub name: &'static str,
    pub schema: SchemaRef,
    /// The object's id, for a folded table.
    pub key: Option<&'static str>,
    /// Which rows readers see, where that is not all.
    pub visible: Option<Expr>,
}

/// All tables of facts.
pub(super) fn shapes() -> Result<Arc<Vec<Shape>>> {
    let shape = |table: Table| {
        let (name, schema) = (table.name(), table.schema());
        let visible = table.visible().map(|sql| visible(sql, &schema)).transpose()?;
        Ok(Shape { name, schema, key: table.is_folded().then(|| table.key()), visible })
    };
    let raw =
        [(raw::EVENTS, raw::events_schema()), (raw::QUARANTINE, raw::quarantine_schema()), (LOADS, loads_schema())];
    let raw = raw.map(|(name, schema)| Ok(Shape { name, schema, key: None, visible: None }));
    raw.into_iter().chain(Table::ALL.into_iter().map(shape)).collect::<Result<Vec<_>>>().map(Arc::new)
}

fn visible(sql: &str, schema: &SchemaRef) -> Result<Expr> {
    SessionContext::new().parse_sql_expr(sql, &DFSchema::try_from(Arc::clone(schema))?)
}

/// What the name of a table of facts stands for, given the tables that exist.
pub(super) fn table(
    shape: &Shape,
    shapes: &[Shape],
    tables: &dyn Tables,
    planner: &Arc<SessionState>,
) -> Result<Arc<dyn TableProvider>> {
    let base = tables.provider(shape.name);
    let changes_name = format!("{}{CHANGES}", shape.name);
    let changes = shape
        .key
        .filter(|_| !tables.is_empty(&changes_name))
        .and_then(|key| Some(Changes { table: tables.provider(&changes_name)?, key }));
    let merged = !tables.is_empty(MERGES) || !tables.is_empty(&format!("{MERGES}{CHANGES}"));
    let merges = shapes
        .iter()
        .find(|s| merged && s.name == MERGES && shape.schema.field_with_name(PERSON).is_ok())
        .map(|merges| table(merges, shapes, tables, planner))
        .transpose()?;
    let as_it_is = changes.is_none() && merges.is_none() && shape.visible.is_none();
    match &base {
        None if changes.is_none() => return Ok(Arc::new(EmptyTable::new(Arc::clone(&shape.schema)))),
        // An older release's table lacks the columns that came later.
        Some(base) if as_it_is && has_all(&base.schema(), &shape.schema) => return Ok(Arc::clone(base)),
        _ => {}
    }
    let stored = base.as_ref().or(changes.as_ref().map(|c| &c.table)).map(|table| table.schema());
    let schema = reading_schema(&shape.schema, stored.as_deref());
    let visible = shape.visible.clone();
    Ok(Arc::new(Overlay { name: shape.name, schema, base, changes, merges, visible, planner: Arc::clone(planner) }))
}

fn has_all(stored: &Schema, wanted: &Schema) -> bool {
    wanted.fields().iter().all(|f| stored.field_with_name(f.name()).is_ok())
}

/// The columns of the facts, with the types in which they are stored (strings may be read as views).
fn reading_schema(facts: &Schema, stored: Option<&Schema>) -> SchemaRef {
    let field = |field: &FieldRef| {
        let stored = stored.and_then(|s| s.field_with_name(field.name()).ok()).unwrap_or(field.as_ref());
        Field::new(field.name(), stored.data_type().clone(), true)
    };
    Arc::new(Schema::new(facts.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Whose rows a scan asks for.
enum Who {
    /// The person of no row.
    Nobody,
    Anybody,
    /// Those who are stored under these ids.
    These(Vec<String>),
}

/// More people by name than this are read like everybody.
const MOST_NAMED: usize = 1000;

/// The people outside of whom `filter` lets nobody through.
fn people_named(filter: &Expr) -> Option<Vec<String>> {
    let is_person = |e: &Expr| matches!(e, Expr::Column(c) if c.name == PERSON);
    let text = |e: &Expr| match e {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_person(left) => Some(vec![text(right)?]),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some([people_named(left)?, people_named(right)?].concat())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            people_named(left).or_else(|| people_named(right))
        }
        Expr::InList(list) if !list.negated && is_person(&list.expr) => list.list.iter().map(text).collect(),
        _ => None,
    }
}

struct Changes {
    table: Arc<dyn TableProvider>,
    key: &'static str,
}

struct Overlay {
    name: &'static str,
    schema: SchemaRef,
    base: Option<Arc<dyn TableProvider>>,
    changes: Option<Changes>,
    /// `old`, `new`, where the rows have a person and anyone was merged.
    merges: Option<Arc<dyn TableProvider>>,
    visible: Option<Expr>,
    /// See [`planner`].
    planner: Arc<SessionState>,
}

/// A session that makes plans which become part of others: without the physical rules, which are for the whole plan.
/// A join that was optimised on its own has its sides, its partitions and its filters fixed, and the whole cannot
/// change them any more.
pub(super) fn planner(session: SessionState) -> Arc<SessionState> {
    Arc::new(SessionStateBuilder::new_from_existing(session).with_physical_optimizer_rules(Vec::new()).build())
}

impl Overlay {
    /// The plan of all rows; `who` says whether anyone looks at the person.
    fn plan(&self, who: Who) -> Result<LogicalPlanBuilder> {
        let schema = &self.schema;
        let rows = match (&self.base, &self.changes) {
            (Some(base), None) => {
                scan("base", Arc::clone(base))?.project(overlay::columns("base", schema, &base.schema()))?
            }
            (None, None) => scan("base", Arc::new(EmptyTable::new(Arc::clone(schema))))?,
            (None, Some(changes)) => overlay::newest(Arc::clone(&changes.table), changes.key, schema)?,
            (Some(base), Some(changes)) => {
                overlay::laid_over(Arc::clone(base), Arc::clone(&changes.table), changes.key, schema)?
            }
        };
        let rows = match &self.visible {
            Some(visible) => rows.filter(visible.clone())?,
            None => rows,
        };
        match (&self.merges, who) {
            (None, _) | (_, Who::Nobody) => Ok(rows),
            (Some(merges), Who::Anybody) => self.with_person(rows, merges),
            (Some(merges), Who::These(seeds)) => {
                let seeds = seeds.into_iter().map(lit).collect();
                self.with_person(rows.filter(col(PERSON).in_list(seeds, false))?, merges)
            }
        }
    }

    /// Whom a scan asks for. People asked for by name are looked up in the merges first, so that the rows of the few
    /// can be found by the seeds that are stored, without reading those of the many.
    async fn who(&self, state: &dyn Session, wanted: &[&str], filters: &[Expr]) -> Result<Who> {
        let filtered: HashSet<&Column> = filters.iter().flat_map(Expr::column_refs).collect();
        let Some(merges) = &self.merges else { return Ok(Who::Nobody) };
        if !wanted.contains(&PERSON) && !filtered.iter().any(|c| c.name == PERSON) {
            return Ok(Who::Nobody);
        }
        let Some(mut people) = filters.iter().find_map(people_named).filter(|p| p.len() <= MOST_NAMED) else {
            return Ok(Who::Anybody);
        };
        let named = people.iter().map(|p| lit(p.as_str())).collect();
        let plan = scan("merges", Arc::clone(merges))?.filter(col("new").in_list(named, false))?;
        let plan = plan.project([cast(col("old"), DataType::Utf8)])?.build()?;
        for batch in collect(state.create_physical_plan(&plan).await?, state.task_ctx()).await? {
            people.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        Ok(Who::These(people))
    }

    fn with_person(&self, rows: LogicalPlanBuilder, merges: &Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
        let on =
            (vec![of("merges", "livemode"), of("merges", "old")], vec![of("rows", "livemode"), of("rows", PERSON)]);
        let columns = self.schema.fields().iter().map(|field| {
            let stored = col(of("rows", field.name()));
            if field.name() != PERSON {
                return stored.alias(field.name());
            }
            let merged = Expr::Column(of("merges", "new"));
            cast(coalesce(vec![merged, stored]), field.data_type().clone()).alias(PERSON)
        });
        scan("merges", Arc::clone(merges))?
            .join(rows.alias("rows")?.build()?, JoinType::Right, on, None)?
            .project(columns)
    }

    fn plan_scan<'a>(
        &'a self,
        state: &'a dyn Session,
        projection: Option<&'a Vec<usize>>,
        filters: &'a [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
        async move {
            let all: Vec<usize> = (0..self.schema.fields().len()).collect();
            let wanted: Vec<&str> =
                projection.unwrap_or(&all).iter().map(|i| self.schema.field(*i).name().as_str()).collect();
            let mut plan = self.plan(self.who(state, &wanted, filters).await?)?;
            if let Some(filter) = filters.iter().cloned().reduce(Expr::and) {
                plan = plan.filter(filter)?;
            }
            plan = plan.project(wanted.into_iter().map(|name| Expr::Column(Column::new_unqualified(name))))?;
            if limit.is_some() {
                plan = plan.limit(0, limit)?;
            }
            self.planner.create_physical_plan(&plan.build()?).await
        }
        .boxed()
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({})", self.name)
    }
}

impl TableProvider for Overlay {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    // See `lake::provider`: as `async_trait` would write it.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        state: &'b dyn Session,
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
        self.plan_scan(state, projection, filters, limit)
    }
}

#[cfg(test)]
mod tests;
