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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::session::{
        Session,
        tests::{Memory, engine, options, shown},
    };

    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
    struct Payment {
        key: u8,
        livemode: bool,
        status: u8,
        person: Option<u8>,
        offset: i64,
    }

    fn payments() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("payment_id", DataType::Utf8, false),
            Field::new("status", DataType::Utf8, false),
            Field::new(PERSON, DataType::Utf8, true),
            Field::new("livemode", DataType::Boolean, false),
            Field::new("log_offset", DataType::Int64, false),
        ]))
    }

    fn merges() -> SchemaRef {
        let text = |name| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![text("old"), text("new"), Field::new("livemode", DataType::Boolean, false)]))
    }

    fn shapes() -> Arc<Vec<Shape>> {
        Arc::new(vec![
            Shape { name: "core.payments", schema: payments(), key: Some("payment_id"), visible: None },
            Shape { name: MERGES, schema: merges(), key: Some("old"), visible: None },
        ])
    }

    fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }

    fn batch(rows: &[Payment]) -> RecordBatch {
        RecordBatch::try_new(
            payments(),
            vec![
                texts(rows.iter().map(|r| Some(format!("pi_{}", r.key)))),
                texts(rows.iter().map(|r| Some(format!("s{}", r.status)))),
                texts(rows.iter().map(|r| r.person.map(|p| format!("per_{p}")))),
                Arc::new(rows.iter().map(|r| Some(r.livemode)).collect::<BooleanArray>()),
                Arc::new(rows.iter().map(|r| Some(r.offset)).collect::<Int64Array>()),
            ],
        )
        .unwrap()
    }

    fn merges_batch(merged: &BTreeMap<(u8, bool), u8>) -> RecordBatch {
        RecordBatch::try_new(
            merges(),
            vec![
                texts(merged.keys().map(|(old, _)| Some(format!("per_{old}")))),
                texts(merged.values().map(|new| Some(format!("per_{new}")))),
                Arc::new(merged.keys().map(|(_, live)| Some(*live)).collect::<BooleanArray>()),
            ],
        )
        .unwrap()
    }

    fn session(
        base: &[Payment],
        changes: &[Payment],
        merged: &BTreeMap<(u8, bool), u8>,
    ) -> (Session, tempfile::TempDir) {
        let mut tables = Memory::default().with("core.payments", batch(base));
        if !changes.is_empty() {
            tables = tables.with("core.payments_changes", batch(changes));
        }
        if !merged.is_empty() {
            tables = tables.with(MERGES, merges_batch(merged));
        }
        let (engine, dir) = engine();
        (Session::new(engine, options(tables), shapes()).unwrap(), dir)
    }

    /// What a reader must see, row by row: the newest version of each object, its person after merges.
    fn naive(base: &[Payment], changes: &[Payment], merged: &BTreeMap<(u8, bool), u8>) -> BTreeSet<Payment> {
        let mut rows: BTreeMap<(u8, bool), Payment> = BTreeMap::new();
        for row in base.iter().chain(changes) {
            let newest = rows.entry((row.key, row.livemode)).or_insert_with(|| row.clone());
            if row.offset >= newest.offset {
                *newest = row.clone();
            }
        }
        rows.into_values()
            .map(|r| Payment { person: r.person.map(|p| merged.get(&(p, r.livemode)).copied().unwrap_or(p)), ..r })
            .collect()
    }

    /// Rows of an answer of all columns, as the table shows them.
    async fn rows(session: &Session, condition: &str) -> BTreeSet<String> {
        let table = shown(session, &format!("SELECT * FROM core.payments WHERE {condition}")).await;
        table.lines().skip(3).filter(|l| l.starts_with('|')).map(|l| l.replace(' ', "")).collect()
    }

    fn expected(rows: impl Iterator<Item = Payment>) -> BTreeSet<String> {
        rows.map(|r| {
            let person = r.person.map(|p| format!("per_{p}")).unwrap_or_default();
            format!("|pi_{}|s{}|{person}|{}|{}|", r.key, r.status, r.livemode, r.offset)
        })
        .collect()
    }

    type World = (Vec<Payment>, Vec<Payment>, BTreeMap<(u8, bool), u8>);

    /// Objects 0..6 with versions in the order of their offsets: the first few versions folded into the base.
    fn worlds() -> impl Strategy<Value = World> {
        let version = (0u8..6, any::<bool>(), 0u8..3, proptest::option::of(0u8..6));
        let merged = proptest::collection::btree_map((0u8..3, any::<bool>()), 3u8..6, 0..4);
        (proptest::collection::vec(version, 1..24), 0usize..24, merged).prop_map(|(versions, folded, merged)| {
            let all: Vec<Payment> = versions
                .into_iter()
                .zip(0..)
                .map(|((key, livemode, status, person), offset)| Payment { key, livemode, status, person, offset })
                .collect();
            let (old, new) = all.split_at(folded.min(all.len()));
            let base = naive(old, &[], &BTreeMap::new()).into_iter().collect();
            (base, new.to_vec(), merged)
        })
    }

    proptest! {
        #![proptest_config(crate::tests::cases(40))]

        #[test]
        fn a_reader_sees_the_newest_version_of_every_object((base, changes, merged) in worlds()) {
            let truth = naive(&base, &changes, &merged);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (session, _dir) = session(&base, &changes, &merged);
                prop_assert_eq!(rows(&session, "true").await, expected(truth.iter().cloned()));
                // A filter that an old version passes and the newest does not must not bring the old one back.
                let of_status = truth.iter().filter(|r| r.status == 1).cloned();
                prop_assert_eq!(rows(&session, "status = 's1'").await, expected(of_status));
                let of_person = truth.iter().filter(|r| r.person == Some(4) && r.livemode).cloned();
                prop_assert_eq!(rows(&session, "person_id = 'per_4' AND livemode").await, expected(of_person));
                let of_four = truth.iter().filter(|r| r.person.is_some_and(|p| p != 1 && p != 5)).cloned();
                let four = "person_id IN ('per_0', 'per_2', 'per_3', 'per_4')";
                prop_assert_eq!(rows(&session, four).await, expected(of_four));
                let count = shown(&session, "SELECT count(*) FROM core.payments WHERE log_offset >= 5").await;
                let later = truth.iter().filter(|r| r.offset >= 5).count();
                prop_assert!(count.contains(&format!("| {later} ")), "{count} {later}");
                Ok(())
            })?;
        }
    }

    fn payment(key: u8, status: u8, person: u8, offset: i64) -> Payment {
        Payment { key, livemode: true, status, person: Some(person), offset }
    }

    #[tokio::test]
    async fn what_is_not_needed_is_not_in_the_plan() {
        let merged = BTreeMap::from([((1, true), 2)]);
        let plan = |base, changes, merged, sql: &'static str| async move {
            let (session, _dir) = session(base, changes, merged);
            shown(&session, &format!("EXPLAIN {sql}")).await
        };
        let base = &[payment(1, 1, 1, 1)];
        let unmerged = BTreeMap::new();
        let plain = plan(base, &[], &unmerged, "SELECT * FROM core.payments WHERE status = 's1'").await;
        assert!(!plain.contains("Join") && !plain.contains("Window") && !plain.contains("Union"), "{plain}");
        let no_person = plan(base, &[], &merged, "SELECT status FROM core.payments").await;
        assert!(!no_person.contains("Join"), "{no_person}");
        let person = plan(base, &[], &merged, "SELECT status FROM core.payments WHERE person_id = 'per_2'").await;
        assert!(person.contains("Join"), "{person}");
        // Both seeds of the person reach the rows below the join.
        let (_, below) = person.rsplit_once("Join").unwrap();
        assert!(below.contains("per_1") && below.contains("per_2"), "{person}");
    }

    #[tokio::test]
    async fn absent_tables_are_empty_and_changes_alone_are_a_table() {
        let (engine, _dir) = engine();
        let session = Session::new(engine.clone(), options(Memory::default()), shapes()).unwrap();
        assert!(rows(&session, "true").await.is_empty());
        assert_eq!(session.validate("SELECT * FROM core.payments").await.unwrap().len(), 5);
        let newest = payment(1, 2, 1, 9);
        let tables = Memory::default().with("core.payments_changes", batch(&[payment(1, 1, 1, 8), newest.clone()]));
        let session = Session::new(engine, options(tables), shapes()).unwrap();
        assert_eq!(rows(&session, "true").await, expected([newest].into_iter()));
        assert_eq!(session.tables().iter().filter(|t| t.contains("payments")).count(), 1);
    }

    #[tokio::test]
    async fn a_column_that_the_base_does_not_have_yet_is_null() {
        let old = batch(&[payment(1, 1, 1, 1)]).project(&[0, 2, 3, 4]).unwrap();
        let tables =
            Memory::default().with("core.payments", old).with("core.payments_changes", batch(&[payment(2, 1, 1, 2)]));
        let (engine, _dir) = engine();
        let session = Session::new(engine, options(tables), shapes()).unwrap();
        let table = shown(&session, "SELECT payment_id, status IS NULL AS gone FROM core.payments ORDER BY 1").await;
        assert!(table.contains("| pi_1       | true  |") && table.contains("| pi_2       | false |"), "{table}");
    }
}
