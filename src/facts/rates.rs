//! Exchange rates: the rows of one day's.

use std::collections::BTreeMap;

use super::{
    DecodeError,
    decode::Event,
    json::{Text, object},
    observation::Step,
    rows::FxRate,
    table::Table,
};
use crate::base::Currency;

object! {
    struct Day<'a> {
        day: Text<'a>,
        base: Text<'a>,
        origin: Text<'a>,
        rates: BTreeMap<String, f64>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let told: Day = event.read()?;
    let day = event.required("day", told.day.get().and_then(|day| day.parse().ok()))?;
    let base = event.required("base", event.currency("base", told.base.get())?)?;
    for (code, rate) in told.rates {
        // Of a currency that nobody is paid in any more there is nothing to convert.
        let Ok(currency) = Currency::parse(&code) else { continue };
        let rate_id = format!("{base}:{currency}:{day}");
        let (origin, fetched_at) = (told.origin.owned(), event.at());
        let row = FxRate { rate_id: rate_id.clone(), day, base, currency, rate, origin, fetched_at };
        event.tell(Table::FxRates, &rate_id, Step::default(), row.into(), Vec::new());
    }
    Ok(())
}
