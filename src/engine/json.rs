//! What the JSON that `->` gives is not: a number, or something with an order.
//!
//! The engine holds it as a union of JSON's types. Compared with a whole number it is one only where the JSON has no decimal
//! point, and sorted it stays as it was; either would be a wrong answer without a word. So both are refused.

use std::ops::ControlFlow;

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan,
        expr::{InList, Sort},
    },
};

use super::error::SqlError;

/// # Errors
/// What is done with JSON that only its values could be asked for, and how to ask them.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut found = ControlFlow::Continue(());
    let seen = plan.apply_with_subqueries(|node| {
        let schema = readable(node);
        if let LogicalPlan::Sort(sort) = node {
            found = sorted(&sort.expr, &schema);
        }
        node.apply_expressions(|expression| {
            expression.apply(|e| {
                if found.is_continue() {
                    found = misused(e, &schema);
                }
                Ok(if found.is_break() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    });
    debug_assert!(seen.is_ok(), "{seen:?}");
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(SqlError::user(format!(
            "-> gives JSON, which {what}: write CAST(payload->>'amount' AS DOUBLE) for a number, and ->> for text"
        ))),
    }
}

/// The columns that a node's expressions may name.
fn readable(node: &LogicalPlan) -> DFSchema {
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    schema
}

fn misused(e: &Expr, schema: &DFSchema) -> ControlFlow<&'static str> {
    let is_json = |e: &Expr| matches!(e.get_type(schema), Ok(DataType::Union(..)));
    let is_number = |e: &Expr| e.get_type(schema).is_ok_and(|kind| kind.is_numeric());
    let compares = match e {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() && !op.is_logic_operator() => {
            is_json(left) && (is_json(right) || is_number(right)) || is_number(left) && is_json(right)
        }
        Expr::Between(Between { expr, low, high, .. }) => is_json(expr) || is_json(low) || is_json(high),
        Expr::InList(InList { expr, list, .. }) => {
            is_json(expr) && list.iter().any(|one| is_number(one) || is_json(one))
        }
        Expr::WindowFunction(window) => return sorted(&window.params.order_by, schema),
        _ => false,
    };
    if compares { ControlFlow::Break("does not compare with numbers or with JSON") } else { ControlFlow::Continue(()) }
}

fn sorted(keys: &[Sort], schema: &DFSchema) -> ControlFlow<&'static str> {
    let is_json = |key: &Sort| matches!(key.expr.get_type(schema), Ok(DataType::Union(..)));
    if keys.iter().any(is_json) { ControlFlow::Break("has no order") } else { ControlFlow::Continue(()) }
}
