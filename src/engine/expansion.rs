//! How large and how deep the expressions of a query become once they are written out.
//!
//! The optimizer moves a filter towards the table that it filters, and writes into it what computes each of its columns; it
//! does so with what a join makes equal, with the keys of a sort and with the bounds that a scan is given while it runs. A
//! column that is computed from the one before it, named twice, doubles with each query it passes: a short text can so stand
//! for a condition that no memory holds. Some expressions are rewritten into others that name a part several times, with the
//! same effect. Planning shares what is named twice, so the plan is where it can be counted.

use std::{collections::HashMap, ops::Add, sync::Arc};

use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, BinaryExpr, Case, Distinct, Expr, Join, LogicalPlan, Operator, Subquery,
        expr::{Exists, InList, InSubquery, SetComparison},
    },
};

use super::error::SqlError;

/// How many columns, values and operators the expressions of a query may have in all.
const MAX_SIZE: u64 = 300_000;

/// How deep they may be nested; the passes over them recurse.
const MAX_DEPTH: u64 = 2000;

/// What an expression comes to, written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    /// Columns, values and operators.
    size: u64,
    depth: u64,
}

impl Extent {
    const ONE: Extent = Extent { size: 1, depth: 1 };

    /// With the same again so many times, beside it.
    fn times(self, times: u64) -> Extent {
        Extent { size: self.size.saturating_mul(times), ..self }
    }
}

impl Add for Extent {
    type Output = Extent;

    fn add(self, other: Extent) -> Extent {
        Extent { size: self.size.saturating_add(other.size), depth: self.depth.max(other.depth) }
    }
}

/// What a node of a plan comes to.
#[derive(Clone, Default)]
struct Extents {
    /// Of what computes each column.
    columns: Vec<Extent>,
    /// Of the expressions of the node and of all below it.
    total: Extent,
}

/// The nodes seen, by where they stand: one that is shared is measured once, and added as often as it is named.
#[derive(Default)]
struct Known {
    nodes: HashMap<*const LogicalPlan, Extents>,
    /// Of all columns so far: what a column of a query around this one may come to.
    largest: Extent,
}

/// Refuses a plan whose expressions would outgrow [`MAX_SIZE`] or [`MAX_DEPTH`].
///
/// # Errors
/// What grows, and what to do.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let total = measure(plan, &mut Known::default()).total;
    if total.size <= MAX_SIZE && total.depth <= MAX_DEPTH {
        return Ok(());
    }
    let outgrown = match total.size > MAX_SIZE {
        true => format!("are more than {MAX_SIZE} columns, values and operators"),
        false => format!("are more than {MAX_DEPTH} deep"),
    };
    Err(SqlError::user(format!(
        "with each column written out as what computes it, the conditions of the query {outgrown}: name a computed column fewer \
         times in the queries that a WHERE, a JOIN or an ORDER BY reads from, or join with a table in place of a long CASE or IN"
    )))
}

/// Not by recursion, but for the few subqueries that may be nested: a plan can be as deep as its text is long.
fn measure(plan: &LogicalPlan, known: &mut Known) -> Extents {
    let mut open = vec![(plan, false)];
    while let Some((node, inputs_known)) = open.pop() {
        if known.nodes.contains_key(&std::ptr::from_ref(node)) {
            continue;
        }
        if !inputs_known {
            open.push((node, true));
            // The left side first: a lateral query on the right names its columns.
            open.extend(node.inputs().into_iter().rev().map(|input| (input, false)));
            continue;
        }
        for subquery in subqueries(node) {
            measure(&subquery, known);
        }
        let extents = Inputs::of(node, known).extents(node);
        known.largest = extents.columns.iter().copied().fold(known.largest, larger);
        known.nodes.insert(node, extents);
    }
    known.nodes.get(&std::ptr::from_ref(plan)).cloned().unwrap_or_default()
}

fn larger(a: Extent, b: Extent) -> Extent {
    Extent { size: a.size.max(b.size), depth: a.depth.max(b.depth) }
}

/// What a node reads.
struct Inputs<'a> {
    inputs: Vec<(&'a LogicalPlan, Extents)>,
    known: &'a Known,
    /// Whether columns are written out.
    written_out: bool,
}

impl<'a> Inputs<'a> {
    /// With the columns that the node's conditions make equal as large as all of them: what is said of one is said of each.
    fn of(node: &'a LogicalPlan, known: &'a Known) -> Inputs<'a> {
        let extents = |input| known.nodes.get(&std::ptr::from_ref(input)).cloned().unwrap_or_default();
        let inputs = node.inputs().into_iter().map(|input| (input, extents(input))).collect();
        let mut this = Inputs { inputs, known, written_out: true };
        let groups = equal(node);
        let sums: Vec<Extent> = groups
            .iter()
            .map(|group| group.iter().map(|e| this.extent(e)).fold(Extent::default(), Extent::add))
            .collect();
        for (group, sum) in groups.iter().zip(sums) {
            for column in group.iter().filter_map(Expr::try_as_col) {
                if let Some(extent) = this.column_mut(column) {
                    *extent = sum;
                }
            }
        }
        this
    }

    fn extents(mut self, node: &LogicalPlan) -> Extents {
        let below = self.inputs.iter().map(|(_, extents)| extents.total).fold(Extent::default(), Extent::add);
        let moved = moved(node).into_iter().map(|e| self.extent(e)).fold(below, Extent::add);
        let columns = self.columns(node);
        self.written_out = false;
        let mut total = moved;
        if !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::Sort(_)) {
            let seen = node.apply_expressions(|e| {
                total = total + self.extent(e);
                Ok::<_, DataFusionError>(TreeNodeRecursion::Continue)
            });
            debug_assert!(seen.is_ok());
        }
        Extents { columns, total }
    }

    /// Of a node's columns. What is aggregated or numbered over rows is a value of its own: no filter passes it.
    fn columns(&self, node: &LogicalPlan) -> Vec<Extent> {
        let each = |expressions: &[Expr]| expressions.iter().map(|e| self.extent(e)).collect::<Vec<_>>();
        let fields = node.schema().fields().len();
        let mut known = match (node, self.inputs.as_slice()) {
            (LogicalPlan::Projection(projection), _) => each(&projection.expr),
            (LogicalPlan::Distinct(Distinct::On(distinct)), _) => each(&distinct.select_expr),
            (LogicalPlan::Aggregate(Aggregate { group_expr, .. }), _) => match group_expr.as_slice() {
                [Expr::GroupingSet(sets)] => sets.distinct_expr().into_iter().map(|e| self.extent(e)).collect(),
                group => each(group),
            },
            // A condition on it is copied into each.
            (LogicalPlan::Union(_), inputs) => {
                let of = |i: usize| inputs.iter().filter_map(move |(_, extents)| extents.columns.get(i).copied());
                (0..fields).map(|i| of(i).fold(Extent::default(), Extent::add)).collect()
            }
            (LogicalPlan::Unnest(_), _) => Vec::new(),
            (_, inputs) if inputs.iter().map(|(_, extents)| extents.columns.len()).sum::<usize>() == fields => {
                inputs.iter().flat_map(|(_, extents)| extents.columns.iter().copied()).collect()
            }
            _ => {
                let named = node.schema().iter().map(|(relation, field)| Column::new(relation.cloned(), field.name()));
                named.map(|column| self.extent(&Expr::Column(column))).collect()
            }
        };
        known.resize(fields, Extent::ONE);
        known
    }

    fn column_mut(&mut self, column: &Column) -> Option<&mut Extent> {
        self.inputs.iter_mut().find_map(|(input, extents)| {
            let place = input.schema().maybe_index_of_column(column)?;
            extents.columns.get_mut(place)
        })
    }

    fn column(&self, column: &Column) -> Option<Extent> {
        let at = |(input, extents): &(&LogicalPlan, Extents)| {
            extents.columns.get(input.schema().maybe_index_of_column(column)?).copied()
        };
        self.inputs.iter().find_map(at)
    }

    /// Expressions are as deep as a query's text may nest them, so this may recurse.
    fn extent(&self, e: &Expr) -> Extent {
        match e {
            Expr::Column(column) if self.written_out => return self.column(column).unwrap_or(Extent::ONE),
            Expr::OuterReferenceColumn(..) => return larger(self.known.largest, Extent::ONE),
            Expr::Column(_) | Expr::Literal(..) => return Extent::ONE,
            _ => {}
        }
        let mut parts = Extent::default();
        let seen = e.apply_children(|part| {
            parts = parts + self.extent(part);
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(seen.is_ok());
        if let Some(subquery) = subquery(e) {
            let plan = self.known.nodes.get(&Arc::as_ptr(&subquery.subquery)).cloned().unwrap_or_default();
            // Its column meets the one that it is compared with.
            parts = parts + plan.total + plan.columns.first().copied().unwrap_or_default();
        }
        let whole = parts.times(repeated(e));
        Extent { size: whole.size.saturating_add(1), depth: whole.depth.saturating_add(1) }
    }
}

/// How often the simplifier may write down what `e` names once (DataFusion's `simplify_expressions`).
fn repeated(e: &Expr) -> u64 {
    match e {
        Expr::Between(_) => 2,
        // Up to three become comparisons.
        Expr::InList(InList { list, .. }) if list.len() <= 3 => list.len().max(1) as u64,
        Expr::ScalarFunction(function)
            if matches!(function.name(), "coalesce" | "nvl" | "ifnull" | "nvl2" | "nullif") =>
        {
            2
        }
        // One of truths becomes an OR of what holds and what did not hold before.
        Expr::Case(Case { expr: None, when_then_expr, .. }) if when_then_expr.len() < 3 => 4,
        Expr::Case(Case { expr: None, when_then_expr, .. })
            if when_then_expr.iter().all(|(_, then)| matches!(**then, Expr::Literal(ScalarValue::Boolean(_), _))) =>
        {
            4
        }
        _ => 1,
    }
}

/// What the optimizer may move down.
fn moved(node: &LogicalPlan) -> Vec<&Expr> {
    match node {
        LogicalPlan::Filter(filter) => vec![&filter.predicate],
        LogicalPlan::Join(Join { on, filter, .. }) => on.iter().flat_map(|(l, r)| [l, r]).chain(filter).collect(),
        // Bounds on them are handed to scans while a query runs.
        LogicalPlan::Sort(sort) => sort.expr.iter().map(|key| &key.expr).collect(),
        LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().collect(),
        _ => Vec::new(),
    }
}

/// The columns that a node's conditions say are equal, each once, in groups; and the queries in which one of them is looked for.
fn equal(node: &LogicalPlan) -> Vec<Vec<Expr>> {
    let mut groups: Vec<Vec<Expr>> = Vec::new();
    let mut join = |pair: [&Expr; 2]| {
        let (mut joined, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut groups).into_iter().partition(|group| pair.iter().any(|e| group.contains(e)));
        joined.push(pair.map(Expr::clone).to_vec());
        let mut group: Vec<Expr> = Vec::new();
        joined.into_iter().flatten().for_each(|e| {
            if !group.contains(&e) {
                group.push(e);
            }
        });
        groups = others;
        groups.push(group);
    };
    if let LogicalPlan::Join(Join { on, .. }) = node {
        for pair in on.iter().filter(|(l, r)| [l, r].iter().all(|side| side.try_as_col().is_some())) {
            join([&pair.0, &pair.1]);
        }
    }
    let conditions = match node {
        LogicalPlan::Join(Join { filter, .. }) => filter.iter().collect(),
        LogicalPlan::Filter(filter) => vec![&filter.predicate],
        _ => Vec::new(),
    };
    for condition in conditions {
        walk(condition, &mut |e| match e {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
                if left.try_as_col().is_some() && right.try_as_col().is_some() =>
            {
                join([left, right]);
            }
            Expr::InSubquery(InSubquery { expr, .. }) if expr.try_as_col().is_some() => join([expr, e]),
            _ => {}
        });
    }
    groups
}

fn subquery(e: &Expr) -> Option<&Subquery> {
    match e {
        Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. })
        | Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// The queries in a node's expressions.
fn subqueries(node: &LogicalPlan) -> Vec<Arc<LogicalPlan>> {
    let mut found = Vec::new();
    let seen = node.apply_expressions(|expression| {
        walk(expression, &mut |e| found.extend(subquery(e).map(|subquery| Arc::clone(&subquery.subquery))));
        Ok::<_, DataFusionError>(TreeNodeRecursion::Continue)
    });
    debug_assert!(seen.is_ok());
    found
}

fn walk(expression: &Expr, see: &mut dyn FnMut(&Expr)) {
    let seen = expression.apply(|e| {
        see(e);
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(seen.is_ok());
}
