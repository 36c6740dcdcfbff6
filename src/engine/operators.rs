//! Guards around the operators that DataFusion leaves without one.
//!
//! A window operator holds its whole input and a copy of it, and asks no memory pool: one `OVER ()` over a large table
//! could take the process down. A join answers as long as it is asked, without ever yielding its thread: a large cross
//! join could not be stopped, and two would stop everybody. A rule of the physical optimizer puts a node below each
//! window, which keeps what passes reserved until the window is done, and one above each join, which yields now and
//! then. (Windows that run in bounded memory, as `row_number` over sorted rows, are another operator and stay as they
//! are.)

use std::{fmt, sync::Arc};

use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::PhysicalExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        coop::CooperativeExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec},
        replace_children_if_necessary,
        stream::RecordBatchStreamAdapter,
        unnest::UnnestExec,
        windows::WindowAggExec,
    },
};
use futures::StreamExt;

/// Puts the nodes in; where they are already, as in the plan of an overlay, it puts none.
#[derive(Debug)]
pub(super) struct GuardOperators;

impl PhysicalOptimizerRule for GuardOperators {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(|node| {
            if node.is::<CooperativeExec>() || node.is::<Metered>() {
                return Ok(Transformed::no(node));
            }
            let is_window = node.is::<WindowAggExec>();
            let children = node.children().into_iter().map(|child| guarded(child, is_window)).collect();
            replace_children_if_necessary(node, children).map(Transformed::yes)
        });
        plan.data().map(|root| guarded(&root, false))
    }

    fn name(&self) -> &str {
        "guard_operators"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn guarded(node: &Arc<dyn ExecutionPlan>, below_window: bool) -> Arc<dyn ExecutionPlan> {
    let mut guarded = Arc::clone(node);
    if multiplies(node.as_ref()) {
        guarded = Arc::new(CooperativeExec::new(guarded));
    }
    if below_window && !node.is::<Metered>() {
        guarded = Arc::new(Metered { input: guarded });
    }
    guarded
}

/// Whether a node can make much of little, so that waiting for its input is no chance to yield.
fn multiplies(node: &dyn ExecutionPlan) -> bool {
    node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<HashJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
        || node.is::<UnnestExec>()
}

/// The operator holds its input and one copy of it.
const COPIES: usize = 2;

#[derive(Debug)]
struct Metered {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Metered {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Metered")
    }
}

impl ExecutionPlan for Metered {
    fn name(&self) -> &str {
        "Metered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a metered node has one input".to_owned()))?;
        Ok(Arc::new(Metered { input }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new(format!("window[{partition}]")).register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        // The closure owns the reservation, so it is given back when the window drops its input.
        let metered = input.map(move |batch| {
            let batch = batch?;
            held.try_grow(COPIES * batch.get_array_memory_size())?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), metered)))
    }
}
