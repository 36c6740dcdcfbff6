//! `+`, `-` and `*` between whole numbers that say when the result does not fit: the engine's own wrap around.
//!
//! An expression planner puts a function in the place of each operator; its column keeps the name that the operator would give
//! it. From the tens of them in a row one function does the rest, so that a long sum is no deep expression, whose type takes time
//! quadratic to its depth to find out.

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

/// So many are nested, one operator each, in which a GROUP BY finds its parts again.
const NESTED: usize = 30;

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
        let nested = match &left {
            Expr::ScalarFunction(call) => chain(&call.func).map_or(0, |chain| chain.nested + 1),
            _ => 0,
        };
        let (mut operators, mut operands) = match left {
            Expr::ScalarFunction(call) if chain(&call.func).is_some_and(|chain| chain.goes_on_with(operator)) => {
                (chain(&call.func).map(|chain| chain.operators.clone()).unwrap_or_default(), call.args)
            }
            left => (Vec::new(), vec![left]),
        };
        operators.push(operator);
        operands.push(right);
        let chain = Chain::new(operators, kind, nested.min(NESTED));
        Ok(PlannerResult::Planned(ScalarUDF::from(chain).call(operands)))
    }
}

/// The type of the result, where it is a whole number; of a difference a signed one, be the sides signed or not. What has no type here, the engine's own planning tells of; of a signed
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
    if operator == Operator::Minus && result.is_unsigned_integer() {
        return Some(DataType::Int64);
    }
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
    /// How many are one inside the other on its left side; no more than [`NESTED`] are counted.
    nested: usize,
    signature: Signature,
}

impl Chain {
    fn new(operators: Vec<Operator>, kind: DataType, nested: usize) -> Chain {
        Chain { operators, kind, nested, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// Whether it takes one more in; products are chains of their own.
    fn goes_on_with(&self, operator: Operator) -> bool {
        let multiplies = |operator: &Operator| *operator == Operator::Multiply;
        self.nested == NESTED && self.operators.iter().all(|known| multiplies(known) == multiplies(&operator))
    }
}

impl ScalarUDFImpl for Chain {
    /// As plans show it.
    fn name(&self) -> &str {
        match self.operators[..] {
            [Operator::Plus] => "checked_add",
            [Operator::Minus] => "checked_subtract",
            [Operator::Multiply] => "checked_multiply",
            _ => "checked_arithmetic",
        }
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
            "a result of {operator} does not fit its type: CAST a side AS BIGINT or DECIMAL(38, 0), which have more room"
        ),
        other => DataFusionError::from(other),
    })
}
