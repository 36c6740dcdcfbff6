//! `fx(amount, currency, target, day)` and `reporting_currency()`.

use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::{
    arrow::{
        array::{Array, AsArray, Int64Builder},
        datatypes::{DataType, Date32Type, Int64Type},
    },
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

use crate::base::{Currency, fx::Rates};

/// `fx(amount Int64, currency Utf8, target Utf8, day Date32) -> Int64`. `amount` is in minor units of `currency`, the result
/// in minor units of `target`, by the rates of `day` in `ref.fx_rates` or the last before it. NULL where an argument is, and
/// where there is no rate or only one that is too old (`[fx] max_age_days`); an error where a currency is none, or where the
/// result does not fit.
#[derive(Debug)]
pub(super) struct Fx {
    signature: Signature,
    rates: Arc<Rates>,
}

impl Fx {
    pub fn new(rates: Arc<Rates>) -> Fx {
        let types = vec![DataType::Int64, DataType::Utf8, DataType::Utf8, DataType::Date32];
        // Within a query the rates do not change.
        Fx { signature: Signature::exact(types, Volatility::Stable), rates }
    }
}

impl PartialEq for Fx {
    fn eq(&self, other: &Fx) -> bool {
        Arc::ptr_eq(&self.rates, &other.rates)
    }
}

impl Eq for Fx {}

impl std::hash::Hash for Fx {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.rates).hash(state);
    }
}

impl ScalarUDFImpl for Fx {
    fn name(&self) -> &str {
        "fx"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [amount, currency, target, day] = super::text::arrays(&args)?;
        let amount = amount.as_primitive::<Int64Type>();
        let (currency, target) = (currency.as_string::<i32>(), target.as_string::<i32>());
        let day = day.as_primitive::<Date32Type>();
        let mut converted = Int64Builder::with_capacity(amount.len());
        for row in 0..amount.len() {
            let is_known = amount.is_valid(row) && currency.is_valid(row) && target.is_valid(row) && day.is_valid(row);
            let date: Option<NaiveDate> = is_known.then(|| Date32Type::to_naive_date_opt(day.value(row))).flatten();
            let Some(date) = date else {
                converted.append_null();
                continue;
            };
            let parse = |code: &str| Currency::parse(code).map_err(|e| exec_datafusion_err!("fx: {e}"));
            let (from, to) = (parse(currency.value(row))?, parse(target.value(row))?);
            let amount = self.rates.convert(amount.value(row), from, to, date);
            converted.append_option(amount.map_err(|e| exec_datafusion_err!("fx: {e}"))?);
        }
        Ok(ColumnarValue::Array(Arc::new(converted.finish())))
    }
}

/// `reporting_currency() -> Utf8`: `[people] reporting_currency`, NULL where it is not set.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ReportingCurrency {
    signature: Signature,
    currency: Option<Currency>,
}

impl ReportingCurrency {
    pub fn new(currency: Option<Currency>) -> ReportingCurrency {
        ReportingCurrency { signature: Signature::nullary(Volatility::Stable), currency }
    }
}

impl ScalarUDFImpl for ReportingCurrency {
    fn name(&self) -> &str {
        "reporting_currency"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let code = self.currency.map(|c| c.as_str().to_owned());
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(code)))
    }
}
