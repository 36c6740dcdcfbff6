//! The functions that Tillstream adds to SQL: money, phones, hashes, decline codes, business time, funnels and JSON.
//!
//! A function never guesses: text that is no phone, address or known code gives NULL or `unknown` as documented, and
//! what can only be a mistake in the query is an error that says so.

mod checked_arithmetic;
mod checked_sum;
mod funnel;
mod fx;
mod guarded;
mod money;
mod recurring;
mod text;
mod time;
mod window_funnel;

use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::{
    error::Result,
    execution::{FunctionRegistry, context::SessionState},
    logical_expr::{AggregateUDF, Expr, ScalarUDF},
};
use datafusion_functions_json::udfs::json_union_to_text_udf;

use crate::base::{Currency, Micros, Pseudonymizer, fx::Rates};

/// Functions that are the same in every session.
pub(super) fn register_shared(state: &mut SessionState) -> Result<()> {
    guarded::register(state)?;
    checked_sum::register(state)?;
    checked_arithmetic::register(state)?;
    datafusion_functions_json::register_all(state)?;
    state.register_udf(ScalarUDF::from(money::MoneyMajor::new()).into())?;
    state.register_udf(ScalarUDF::from(recurring::TermsNamed::new()).into())?;
    for with in [recurring::With::items(), recurring::With::discounts()] {
        state.register_udf(ScalarUDF::from(with).into())?;
    }
    state.register_udf(ScalarUDF::from(recurring::MrrMicros::new()).into())?;
    for function in text::shared() {
        state.register_udf(ScalarUDF::from(function).into())?;
    }
    state.register_udaf(AggregateUDF::from(window_funnel::WindowFunnel::new()).into())?;
    Ok(())
}

/// How amounts of one currency become such of another.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    pub rates: Arc<Rates>,
    pub reporting: Option<Currency>,
}

/// Functions that depend on who asks and when.
pub(super) fn register_for_session(
    state: &mut SessionState,
    as_of: Micros,
    zone: Tz,
    names: Pseudonymizer,
    default_region: Option<String>,
    money: Conversion,
) -> Result<()> {
    state.register_udf(ScalarUDF::from(fx::Fx::new(money.rates)).into())?;
    state.register_udf(ScalarUDF::from(fx::ReportingCurrency::new(money.reporting)).into())?;
    state.register_udf(ScalarUDF::from(time::AsOf::new(as_of)).into())?;
    state.register_udf(ScalarUDF::from(time::LocalDate::new(zone)).into())?;
    for function in text::for_session(names, default_region) {
        state.register_udf(ScalarUDF::from(function).into())?;
    }
    Ok(())
}

/// The JSON text of a value that `->` gave.
pub(super) fn json_text(value: Expr) -> Expr {
    json_union_to_text_udf().call(vec![value])
}
