//! `sum` of whole numbers that says when the total does not fit: the engine's own wraps around.
//!
//! The engine adds decimals of 38 digits in 128 bits, which no table is long enough to overflow. So whole numbers are added
//! as such, and the total is brought back to 64 bits or told to be too large.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray},
        compute::{CastOptions, cast, cast_with_options},
        datatypes::{DataType, FieldRef},
    },
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
    execution::{FunctionRegistry, context::SessionState},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
        SetMonotonicity, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

/// What whole numbers are added as.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// Puts itself in the place of the engine's `sum`.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let inner = state.udaf("sum")?;
    state.register_udaf(Arc::new(AggregateUDF::from(CheckedSum { inner })))?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_whole(&args.return_field) {
            return self.inner.inner().state_fields(args);
        }
        let fields: Vec<FieldRef> = args.input_fields.iter().map(widened).collect();
        let return_field = widened(&args.return_field);
        self.inner.inner().state_fields(StateFieldsArgs { input_fields: &fields, return_field, ..args })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.adding(args, |sum, args| sum.accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        // The engine slides over distinct whole numbers only, and not over distinct decimals.
        if args.is_distinct {
            return self.inner.inner().create_sliding_accumulator(args);
        }
        self.adding(args, |sum, args| sum.create_sliding_accumulator(args))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let total = Arc::clone(&args.return_field);
        let made = as_decimals(args, |args| self.inner.inner().create_groups_accumulator(args))?;
        Ok(if is_whole(&total) { Box::new(Narrowed(made, total.data_type().clone())) } else { made })
    }

    // The engine's shortcuts, `simplify_expr_op_literal` and `value_from_stats`, are left out: they multiply and add without
    // a check.

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.inner().reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.inner().order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

impl CheckedSum {
    fn adding(
        &self,
        args: AccumulatorArgs,
        make: impl FnOnce(&dyn AggregateUDFImpl, AccumulatorArgs) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        let total = Arc::clone(&args.return_field);
        let made = as_decimals(args, |args| make(self.inner.inner().as_ref(), args))?;
        Ok(if is_whole(&total) { Box::new(Narrowed(made, total.data_type().clone())) } else { made })
    }
}

fn is_whole(total: &FieldRef) -> bool {
    matches!(total.data_type(), DataType::Int64 | DataType::UInt64)
}

/// What `make` makes where whole numbers are given and returned as decimals.
fn as_decimals<T>(args: AccumulatorArgs, make: impl FnOnce(AccumulatorArgs) -> Result<T>) -> Result<T> {
    if !is_whole(&args.return_field) {
        return make(args);
    }
    let fields: Vec<FieldRef> = args.expr_fields.iter().map(widened).collect();
    make(AccumulatorArgs { return_field: widened(&args.return_field), expr_fields: &fields, ..args })
}

fn widened(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(WIDE))
}

fn widen(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    Ok(values.iter().map(|array| cast(array, &WIDE)).collect::<Result<_, _>>()?)
}

fn narrow(totals: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(totals, kind, &strict).map_err(|_| {
        let most = if *kind == DataType::Int64 { "2^63-1" } else { "2^64-1" };
        exec_datafusion_err!("a sum is beyond {most}: write sum(CAST(… AS DECIMAL(38, 0))), which has room for it")
    })
}

/// An accumulator of decimals that is given whole numbers, and asked for such of the type beside it.
#[derive(Debug)]
struct Narrowed<A>(A, DataType);

impl Accumulator for Narrowed<Box<dyn Accumulator>> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(&widen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(&widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&narrow(&self.0.evaluate()?.to_array()?, &self.1)?, 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

impl GroupsAccumulator for Narrowed<Box<dyn GroupsAccumulator>> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.update_batch(&widen(values)?, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.0.merge_batch(states, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.0.convert_to_state(&widen(values)?, opt_filter)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit_to)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrow(&self.0.evaluate(emit_to)?, &self.1)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
