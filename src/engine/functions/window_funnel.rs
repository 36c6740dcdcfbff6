//! `window_funnel(window_seconds, mode, ts, cond_1, …, cond_n) -> Int32`: the aggregate over [`super::funnel`].
//!
//! Held per group: the events that fill a step, 16 bytes each. The state that goes between partitions is those events,
//! so neither the order of rows nor how they are split changes an answer.

use std::{mem::size_of, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Int32Array},
        compute::cast,
        datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit},
    },
    common::{exec_datafusion_err, exec_err, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
    physical_expr::expressions::Literal,
    scalar::ScalarValue,
};

use super::funnel::{Event, MAX_STEPS, MODES, Mode, level};
use crate::base::{suggest, time::SECOND};

/// See the module. `ts` is a time or whole seconds; `mode` one of [`MODES`] or several with commas between.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WindowFunnel {
    signature: Signature,
}

/// The arguments before the conditions.
const FIXED: usize = 3;

impl WindowFunnel {
    pub fn new() -> WindowFunnel {
        WindowFunnel { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for WindowFunnel {
    fn name(&self) -> &str {
        "window_funnel"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int32(Some(0)))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let steps = given.len().saturating_sub(FIXED);
        if !(1..=MAX_STEPS).contains(&steps) {
            return plan_err!(
                "window_funnel takes a window in seconds, a mode, a time and 1 to {MAX_STEPS} conditions, not {} arguments",
                given.len()
            );
        }
        let time = match &given[2] {
            DataType::Timestamp(..) | DataType::Date32 => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            integer if integer.is_integer() => DataType::Int64,
            other => return plan_err!("window_funnel: the time, argument 3, is {other}"),
        };
        if let Some(wrong) = given[FIXED..].iter().position(|t| !matches!(t, DataType::Boolean | DataType::Null)) {
            return plan_err!("window_funnel: condition {} is {}, not Boolean", wrong + 1, given[FIXED + wrong]);
        }
        let fixed = [DataType::Int64, DataType::Utf8, time];
        Ok(fixed.into_iter().chain(std::iter::repeat_n(DataType::Boolean, steps)).collect())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "events"), DataType::Binary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneFunnel(Funnels::new(&args)?)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Funnels::new(&args)?))
    }
}

/// Many people's funnels.
#[derive(Debug)]
struct Funnels {
    steps: usize,
    /// In the unit of the times.
    window: i64,
    mode: Mode,
    groups: Vec<Vec<Event>>,
    /// Events in all groups.
    held: usize,
}

impl Funnels {
    fn new(args: &AccumulatorArgs) -> Result<Funnels> {
        if args.is_distinct {
            return plan_err!("window_funnel counts events: it takes no DISTINCT");
        }
        let literal = |i: usize| args.exprs.get(i).and_then(|e| e.downcast_ref::<Literal>()).map(Literal::value);
        let Some(ScalarValue::Int64(Some(window @ 0..))) = literal(0) else {
            return plan_err!("window_funnel: the window, argument 1, is a constant number of seconds, 0 or more");
        };
        let Some(ScalarValue::Utf8(Some(mode))) = literal(1) else {
            return plan_err!("window_funnel: the mode, argument 2, is a constant: one of {}", MODES.join(", "));
        };
        let mode = match mode.parse::<Mode>() {
            Ok(mode) => mode,
            Err(name) => {
                let hint = suggest::did_you_mean(&name, MODES);
                return plan_err!("window_funnel: unknown mode \"{name}\"{hint} There are {}", MODES.join(", "));
            }
        };
        let in_seconds = args.expr_fields.get(2).is_some_and(|f| *f.data_type() == DataType::Int64);
        let window = if in_seconds { *window } else { window.saturating_mul(SECOND) };
        Ok(Funnels { steps: args.exprs.len().saturating_sub(FIXED), window, mode, groups: Vec::new(), held: 0 })
    }

    /// The event of each row: `None` where the row is filtered out, has no time, or fills no step and breaks no order.
    fn events(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<Option<Event>>> {
        let Some((times, conditions)) = values.get(2).zip(values.get(FIXED..)) else {
            return exec_err!("window_funnel: arguments are missing");
        };
        let times = cast(times, &DataType::Int64)?;
        let times = times.as_primitive::<Int64Type>();
        let conditions: Vec<&BooleanArray> = conditions.iter().map(|c| c.as_boolean()).collect();
        let is_true = |array: &BooleanArray, row: usize| array.is_valid(row) && array.value(row);
        let event = |row: usize| {
            let steps = conditions.iter().enumerate().fold(0, |all, (i, c)| all | u32::from(is_true(c, row)) << i);
            let counts =
                times.is_valid(row) && filter.is_none_or(|f| is_true(f, row)) && (steps != 0 || self.mode.order);
            counts.then(|| Event { at: times.value(row), steps })
        };
        Ok((0..times.len()).map(event).collect())
    }

    fn add(&mut self, group: usize, event: Event) {
        self.groups[group].push(event);
        self.held += 1;
    }

    fn take(&mut self, emit: EmitTo) -> Vec<Vec<Event>> {
        let taken = emit.take_needed(&mut self.groups);
        self.held -= taken.iter().map(Vec::len).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for Funnels {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        for (event, group) in self.events(values, opt_filter)?.into_iter().zip(group_indices) {
            if let Some(event) = event {
                self.add(*group, event);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let Some(states) = values.first().and_then(|v| v.as_binary_opt::<i32>()) else {
            return exec_err!("window_funnel: the state is missing");
        };
        for (state, group) in states.iter().zip(group_indices) {
            for record in state.unwrap_or_default().chunks_exact(RECORD) {
                self.add(*group, read(record)?);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (steps, window, mode) = (self.steps, self.window, self.mode);
        let levels = self.take(emit_to).into_iter().map(|mut events| level(&mut events, steps, window, mode) as i32);
        Ok(Arc::new(levels.collect::<Int32Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut states = BinaryBuilder::new();
        for events in self.take(emit_to) {
            states.append_value(written(&events));
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let events = self.events(values, opt_filter)?;
        let states: BinaryArray = events.iter().map(|e| e.map(|e| written(&[e]))).collect();
        Ok(vec![Arc::new(states)])
    }

    fn size(&self) -> usize {
        // A vector that grows has up to twice the room that it uses.
        self.groups.capacity() * size_of::<Vec<Event>>() + 2 * self.held * size_of::<Event>()
    }
}

/// One funnel over all rows: a group of its own.
#[derive(Debug)]
struct OneFunnel(Funnels);

impl Accumulator for OneFunnel {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |v| v.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |v| v.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut events = self.0.groups.first().cloned().unwrap_or_default();
        Ok(ScalarValue::Int32(Some(level(&mut events, self.0.steps, self.0.window, self.0.mode) as i32)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let events = self.0.groups.first().map(Vec::as_slice).unwrap_or_default();
        Ok(vec![ScalarValue::Binary(Some(written(events)))])
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.0)
    }
}

/// Bytes of one event in a state: its time, then its steps, little-endian.
const RECORD: usize = 12;

fn written(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * RECORD);
    for event in events {
        bytes.extend_from_slice(&event.at.to_le_bytes());
        bytes.extend_from_slice(&event.steps.to_le_bytes());
    }
    bytes
}

fn read(record: &[u8]) -> Result<Event> {
    let broken = || exec_datafusion_err!("window_funnel: a state is cut off");
    let (at, steps) = record.split_first_chunk::<8>().ok_or_else(broken)?;
    let steps = steps.first_chunk::<4>().ok_or_else(broken)?;
    Ok(Event { at: i64::from_le_bytes(*at), steps: u32::from_le_bytes(*steps) })
}
