//! Functions whose answer is as long as an argument says, kept to a length that fits in memory.
//!
//! `range(0, 1e12)` would be one allocation that takes the process down before any limit of time or memory can act.
//! Each of these functions is asked first how much it would make of one batch of rows.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{DataType, FieldRef, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit},
    },
    common::exec_err,
    config::ConfigOptions,
    error::Result,
    execution::{FunctionRegistry, context::SessionState},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

/// Elements or bytes that one call may make of one batch (8,192 rows).
const MOST: f64 = (1u32 << 26) as f64;

/// How the length of an answer follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Length {
    /// The second argument.
    Count,
    /// The second argument, times the length of the first.
    TextTimesCount,
    /// From the first argument to the second in steps of the third; to the only one from 0.
    Range,
}

const GUARDED: [(&str, Length); 7] = [
    ("array_repeat", Length::Count),
    ("array_resize", Length::Count),
    ("lpad", Length::Count),
    ("rpad", Length::Count),
    ("repeat", Length::TextTimesCount),
    ("range", Length::Range),
    ("generate_series", Length::Range),
];

/// Puts a guard around each of the functions above.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for (name, length) in GUARDED {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Guarded { inner, length })))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    length: Length,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.inner().simplify(args, info)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(ScalarUDF::from(Guarded { inner, length: self.length }))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let made = match self.length {
            Length::Count => sum(&numbers(arrays.get(1))?),
            Length::TextTimesCount => {
                let times = numbers(arrays.get(1))?;
                let longest = arrays.first().map_or(0, longest);
                sum(&times) * longest as f64
            }
            Length::Range => range(&arrays)?,
        };
        if made > MOST {
            return exec_err!("{} would make {made:.0} elements of one batch of rows; at most {MOST} fit", self.name());
        }
        self.inner.invoke_with_args(args)
    }
}

/// As floats, which all numbers and times become without overflow; NULL counts nothing.
fn numbers(array: Option<&ArrayRef>) -> Result<Vec<f64>> {
    let Some(array) = array else { return Ok(Vec::new()) };
    let integers = match array.data_type() {
        DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        DataType::Timestamp(..) | DataType::Date64 => cast(array, &DataType::Int64)?,
        _ => Arc::clone(array),
    };
    let floats = cast(&integers, &DataType::Float64)?;
    Ok(floats.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
}

fn sum(counts: &[f64]) -> f64 {
    counts.iter().map(|c| c.max(0.0)).sum()
}

/// Bytes of the longest text.
fn longest(texts: &ArrayRef) -> usize {
    match texts.data_type() {
        DataType::Utf8 => texts.as_string::<i32>().iter().flatten().map(str::len).max(),
        DataType::LargeUtf8 => texts.as_string::<i64>().iter().flatten().map(str::len).max(),
        DataType::Utf8View => texts.as_string_view().iter().flatten().map(str::len).max(),
        _ => None,
    }
    .unwrap_or(1)
}

const NANOS_OF_DAY: f64 = 86_400e9;

/// How many steps of the third argument lie between the first two.
fn range(arrays: &[ArrayRef]) -> Result<f64> {
    let (start, stop) = match arrays {
        [stop] => (vec![0.0; stop.len()], numbers(Some(stop))?),
        [start, stop, ..] => (numbers(Some(start))?, numbers(Some(stop))?),
        [] => return Ok(0.0),
    };
    let unit = match arrays[0].data_type() {
        DataType::Date32 => NANOS_OF_DAY,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1e6,
        DataType::Timestamp(TimeUnit::Second, _) => 1e9,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1e3,
        _ => 1.0,
    };
    let steps = match arrays.get(2) {
        Some(steps) if matches!(steps.data_type(), DataType::Interval(IntervalUnit::MonthDayNano)) => steps
            .as_primitive::<IntervalMonthDayNanoType>()
            .iter()
            .flatten()
            .map(|i| {
                f64::from(i.months) * 28.0 * NANOS_OF_DAY + f64::from(i.days) * NANOS_OF_DAY + i.nanoseconds as f64
            })
            .collect(),
        other => numbers(other)?,
    };
    // Which step goes with which row is not worth knowing: the shortest bounds them all.
    let shortest = steps.iter().map(|s| s.abs()).filter(|s| *s > 0.0).fold(f64::INFINITY, f64::min);
    let shortest = if shortest.is_finite() { shortest } else { 1.0 };
    Ok(start.iter().zip(&stop).map(|(from, to)| (to - from).abs() * unit / shortest).sum())
}
