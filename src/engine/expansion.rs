//! How large the conditions of a query become once they are written out.
//!
//! The optimizer moves a filter towards the table that it filters, and writes into it what computes each of its columns. A
//! column that is computed from the one before it, named twice, doubles with each query it passes: a short text can so stand
//! for a condition that no memory holds. Planning shares what is named twice, so the plan is where it can be counted.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::{
        Column,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, Distinct, Expr, Join, LogicalPlan, Subquery,
        expr::{Exists, InSubquery, SetComparison},
    },
};

use super::error::SqlError;

/// How many columns and operators the conditions of a query may have in all, each counted in every query that it is moved to.
const MAX_SIZE: u64 = 100_000;

/// What a node of a plan comes to, in columns and operators.
#[derive(Clone, Default)]
struct Sizes {
    /// Of what computes each column.
    columns: Vec<u64>,
    /// Of the conditions of the node and of all below it.
    conditions: u64,
}

/// The nodes seen, by where they stand: one that is shared is counted once, and added as often as it is named.
type Known = HashMap<*const LogicalPlan, Sizes>;

/// Refuses a plan whose conditions would outgrow [`MAX_SIZE`].
///
/// # Errors
/// What grows, and what to do.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let total = measure(plan, &mut Known::new()).conditions;
    if total <= MAX_SIZE {
        return Ok(());
    }
    Err(SqlError::user(format!(
        "with each column written out as what computes it, its conditions have more than {MAX_SIZE} columns and operators: \
         name a computed column fewer times in the queries that a WHERE or a JOIN reads from"
    )))
}

/// Not by recursion, but for the few subqueries that may be nested: a plan can be as deep as its text is long.
fn measure(plan: &LogicalPlan, known: &mut Known) -> Sizes {
    let mut open = vec![(plan, false)];
    while let Some((node, inputs_known)) = open.pop() {
        if known.contains_key(&std::ptr::from_ref(node)) {
            continue;
        }
        if !inputs_known {
            open.push((node, true));
            open.extend(node.inputs().into_iter().map(|input| (input, false)));
            continue;
        }
        let nested =
            subqueries(node).iter().map(|subquery| measure(subquery, known).conditions).fold(0, u64::saturating_add);
        let of = |input| known.get(&std::ptr::from_ref(input)).cloned().unwrap_or_default();
        let inputs: Vec<(&LogicalPlan, Sizes)> = node.inputs().into_iter().map(|input| (input, of(input))).collect();
        let below = inputs.iter().map(|(_, sizes)| sizes.conditions);
        let own = conditions(node).into_iter().map(|condition| size(condition, &inputs));
        let conditions = below.chain(own).fold(nested, u64::saturating_add);
        known.insert(node, Sizes { columns: columns(node, &inputs), conditions });
    }
    known.get(&std::ptr::from_ref(plan)).cloned().unwrap_or_default()
}

/// What the optimizer may move down.
fn conditions(node: &LogicalPlan) -> Vec<&Expr> {
    match node {
        LogicalPlan::Filter(filter) => vec![&filter.predicate],
        LogicalPlan::Join(Join { on, filter, .. }) => on.iter().flat_map(|(l, r)| [l, r]).chain(filter).collect(),
        _ => Vec::new(),
    }
}

/// The sizes of a node's columns. What is aggregated or numbered over rows is a value of its own: no filter passes it.
fn columns(node: &LogicalPlan, inputs: &[(&LogicalPlan, Sizes)]) -> Vec<u64> {
    let each = |expressions: &[Expr]| expressions.iter().map(|e| size(e, inputs)).collect::<Vec<u64>>();
    let fields = node.schema().fields().len();
    let mut known = match (node, inputs) {
        (LogicalPlan::Projection(projection), _) => each(&projection.expr),
        (LogicalPlan::Distinct(Distinct::On(distinct)), _) => each(&distinct.select_expr),
        (LogicalPlan::Aggregate(Aggregate { group_expr, .. }), _) => match group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => sets.distinct_expr().into_iter().map(|e| size(e, inputs)).collect(),
            group => each(group),
        },
        // A condition on it is copied into each.
        (LogicalPlan::Union(_), inputs) => (0..fields)
            .map(|i| {
                inputs.iter().filter_map(|(_, sizes)| sizes.columns.get(i)).fold(0u64, |sum, n| sum.saturating_add(*n))
            })
            .collect(),
        (_, [(_, one)]) if one.columns.len() == fields => one.columns.clone(),
        (_, inputs) => {
            let named = node.schema().iter().map(|(relation, field)| Column::new(relation.cloned(), field.name()));
            named.map(|column| column_size(&Expr::Column(column), inputs)).collect()
        }
    };
    known.resize(fields, 1);
    known
}

/// The columns and operators of `expression` once each column is written out. Literals are not counted: they do not multiply.
fn size(expression: &Expr, inputs: &[(&LogicalPlan, Sizes)]) -> u64 {
    let mut total = 0u64;
    walk(expression, &mut |e| {
        let outer = subquery(e).into_iter().flat_map(|subquery| &subquery.outer_ref_columns);
        let parts = outer.map(|column| column_size(column, inputs)).fold(0, u64::saturating_add);
        total = total.saturating_add(parts).saturating_add(column_size(e, inputs));
    });
    total
}

fn column_size(e: &Expr, inputs: &[(&LogicalPlan, Sizes)]) -> u64 {
    match e {
        Expr::Literal(..) | Expr::Alias(_) => 0,
        Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => inputs
            .iter()
            .find_map(|(input, sizes)| sizes.columns.get(input.schema().maybe_index_of_column(column)?).copied())
            .unwrap_or(1),
        _ => 1,
    }
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
