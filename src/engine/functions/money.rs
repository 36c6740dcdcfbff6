//! `money_major(amount, currency)`: an amount in major units, exactly.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, Decimal128Builder},
        datatypes::{DataType, Int64Type},
    },
    common::exec_datafusion_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

use crate::base::Currency;

/// 19 digits of an i64, and the three decimal places of the currencies that have most.
const PRECISION: u8 = 22;
const SCALE: i8 = 3;

/// `money_major(amount Int64, currency Utf8) -> Decimal128(22, 3)`. `amount` is in minor units of `currency`: 1205 is
/// 12.050 in USD and 1205.000 in JPY. One scale for all currencies, so that the type does not depend on the data; no
/// digit is ever lost. NULL where either argument is; an error where `currency` is not three letters.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MoneyMajor {
    signature: Signature,
}

impl MoneyMajor {
    pub fn new() -> MoneyMajor {
        MoneyMajor { signature: Signature::exact(vec![DataType::Int64, DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MoneyMajor {
    fn name(&self) -> &str {
        "money_major"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(PRECISION, SCALE))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [amount, currency] = super::text::arrays(&args)?;
        let (amount, currency) = (amount.as_primitive::<Int64Type>(), currency.as_string::<i32>());
        let mut major = Decimal128Builder::with_capacity(amount.len()).with_precision_and_scale(PRECISION, SCALE)?;
        for row in 0..amount.len() {
            if amount.is_null(row) || currency.is_null(row) {
                major.append_null();
                continue;
            }
            let currency =
                Currency::parse(currency.value(row)).map_err(|e| exec_datafusion_err!("money_major: {e}"))?;
            let places = (SCALE as u32).checked_sub(u32::from(currency.exponent()));
            let places =
                places.ok_or_else(|| exec_datafusion_err!("money_major: {currency} has more than {SCALE} decimals"))?;
            major.append_value(i128::from(amount.value(row)) * 10i128.pow(places));
        }
        Ok(ColumnarValue::Array(Arc::new(major.finish())))
    }
}
