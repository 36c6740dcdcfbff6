//! Business time: `as_of()` and the merchant's days.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use chrono_tz::Tz;
use datafusion::{
    arrow::{
        array::{AsArray, Date32Array},
        datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    },
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    scalar::ScalarValue,
};

use crate::base::Micros;

/// The type of moments.
pub(super) fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `as_of() -> Timestamp(us, UTC)`: the moment that the models speak of; what happened after it is not seen. A
/// constant of the session, so that filters on it reach the files.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AsOf {
    at: Micros,
    signature: Signature,
}

impl AsOf {
    pub fn new(at: Micros) -> AsOf {
        AsOf { at, signature: Signature::nullary(Volatility::Immutable) }
    }

    fn literal(&self) -> ScalarValue {
        ScalarValue::TimestampMicrosecond(Some(self.at.0), Some("UTC".into()))
    }
}

impl ScalarUDFImpl for AsOf {
    fn name(&self) -> &str {
        "as_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(utc())
    }

    fn simplify(&self, _: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(self.literal(), None)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.literal()))
    }
}

/// `local_date(time) -> Date32`: the day of a time in the merchant's zone.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LocalDate {
    zone: Tz,
    signature: Signature,
}

impl LocalDate {
    pub fn new(zone: Tz) -> LocalDate {
        LocalDate { zone, signature: Signature::exact(vec![utc()], Volatility::Immutable) }
    }
}

/// Days from 0001-01-01, which is chrono's day 1, to 1970-01-01.
const EPOCH: i32 = 719_163;

impl ScalarUDFImpl for LocalDate {
    fn name(&self) -> &str {
        "local_date"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times] = super::text::arrays(&args)?;
        let day = |micros: i64| {
            let local = DateTime::from_timestamp_micros(micros)?.with_timezone(&self.zone);
            Some(local.date_naive().num_days_from_ce() - EPOCH)
        };
        let days: Date32Array =
            times.as_primitive::<TimestampMicrosecondType>().iter().map(|t| t.and_then(day)).collect();
        Ok(ColumnarValue::Array(Arc::new(days)))
    }
}
