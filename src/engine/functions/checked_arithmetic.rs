//! `+`, `-` and `*` of whole numbers that say when the result does not fit: the engine's own wrap around.
//!
//! An expression planner puts a function in the place of the operators: one for a whole chain of them, so that a long sum is no
//! deep expression. Its column keeps the name that the operators would give it.

use std::sync::Arc;

use datafusion::{
    arrow::{array::ArrayRef, compute::kernels::numeric, datatypes::DataType, error::ArrowError},
    common::{DFSchema, exec_datafusion_err, plan_err},
    error::{DataFusionError, Result},
    execution::{FunctionRegistry, context::SessionState},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        binary::BinaryTypeCoercer,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    state.register_expr_planner(Arc::new(CheckedArithmetic))
}

#[derive(Debug)]
struct CheckedArithmetic;

impl ExprPlanner for CheckedArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let Some(kind) = whole(&expr, operator, schema) else { return Ok(PlannerResult::Original(expr)) };
        let RawBinaryExpr { left, right, .. } = expr;
        let (mut operators, mut operands) = match left {
            Expr::ScalarFunction(call) if chain(&call.func).is_some_and(|chain| chain.goes_on_with(operator)) => {
                (chain(&call.func).map(|chain| chain.operators.clone()).unwrap_or_default(), call.args)
            }
            left => (Vec::new(), vec![left]),
        };
        operators.push(operator);
        operands.push(right);
        Ok(PlannerResult::Planned(ScalarUDF::from(Chain::new(operators, kind)).call(operands)))
    }
}

/// The type of the result, where it is a whole number. What has no type here, the engine's own planning tells of; of a signed
/// and an unsigned number of 64 bits it is a decimal.
fn whole(expr: &RawBinaryExpr, operator: Operator, schema: &DFSchema) -> Option<DataType> {
    let kind = |side: &Expr| match side {
        Expr::ScalarFunction(call) if chain(&call.func).is_some() => chain(&call.func).map(|c| c.kind.clone()),
        side => side.get_type(schema).ok(),
    };
    let (left, right) = (kind(&expr.left)?, kind(&expr.right)?);
    if !left.is_integer() || !right.is_integer() {
        return None;
    }
    let result = BinaryTypeCoercer::new(&left, &operator, &right).get_result_type().ok()?;
    result.is_integer().then_some(result)
}

fn chain(function: &ScalarUDF) -> Option<&Chain> {
    function.inner().downcast_ref()
}

/// `a + b - c`, or `a * b * c`, from left to right, all of one type; an error where a result is none of that type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Chain {
    /// Between the operands.
    operators: Vec<Operator>,
    kind: DataType,
    signature: Signature,
}

impl Chain {
    fn new(operators: Vec<Operator>, kind: DataType) -> Chain {
        Chain { operators, kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// Products are chains of their own.
    fn goes_on_with(&self, operator: Operator) -> bool {
        let multiplies = |operator: &Operator| *operator == Operator::Multiply;
        self.operators.iter().all(|known| multiplies(known) == multiplies(&operator))
    }
}

impl ScalarUDFImpl for Chain {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        let mut name = String::new();
        for (i, operand) in operands.iter().enumerate() {
            if let Some(operator) = i.checked_sub(1).and_then(|before| self.operators.get(before)) {
                name += &format!(" {operator} ");
            }
            name += &operand.schema_name().to_string();
        }
        Ok(name)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.clone())
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        if given.len() != self.operators.len() + 1 {
            return plan_err!("{} takes {} numbers, not {}", self.name(), self.operators.len() + 1, given.len());
        }
        Ok(vec![self.kind.clone(); given.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut operands = args.args.into_iter();
        let Some(mut result) = operands.next() else { return plan_err!("{} takes numbers", self.name()) };
        for (operator, operand) in self.operators.iter().zip(operands) {
            result = ColumnarValue::Array(apply(*operator, &result, &operand, args.number_rows)?);
        }
        Ok(result)
    }
}

fn apply(operator: Operator, left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let kernel = match operator {
        Operator::Plus => numeric::add,
        Operator::Minus => numeric::sub,
        _ => numeric::mul,
    };
    let result = match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => kernel(left, right),
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => kernel(left, &right.to_scalar()?),
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => kernel(&left.to_scalar()?, right),
        (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
            kernel(&left.to_array_of_size(rows)?, &right.to_scalar()?)
        }
    };
    result.map_err(|error| match error {
        ArrowError::ArithmeticOverflow(_) => exec_datafusion_err!(
            "a result of {operator} is too large for its type: CAST a side AS DECIMAL(38, 0), which has room for it"
        ),
        other => DataFusionError::from(other),
    })
}
