//! Prices in major units, as shops' pages write them (`12.5`), into integers of minor units. No float is used.

use serde_json::value::RawValue;

use crate::base::Currency;

/// The minor units of a JSON number or a decimal text. What is beyond the currency's places is rounded to the nearest,
/// halves up, since pages compute in binary floats (`0.30000000000000004`). `None`: no number, negative, or too large.
pub(super) fn minor_units(json: &RawValue, currency: Currency) -> Option<i64> {
    let text = json.get().trim().trim_matches('"').trim();
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(part.bytes());
    if whole.is_empty() || !digits().all(|d| d.is_ascii_digit()) {
        return None;
    }
    // How many of the digits, counted from the first, stand before the minor unit's point.
    let kept = i32::try_from(whole.len()).ok()?.checked_add(power)?.checked_add(i32::from(currency.exponent()))?;
    let mut minor: i64 = 0;
    for place in 0..kept.max(0) {
        let digit = usize::try_from(place).ok().and_then(|p| digits().nth(p)).map_or(0, |d| i64::from(d - b'0'));
        if minor == 0 && digit == 0 && place as usize >= whole.len() + part.len() {
            break;
        }
        minor = minor.checked_mul(10)?.checked_add(digit)?;
    }
    let next = usize::try_from(kept).ok().and_then(|p| digits().nth(p));
    minor.checked_add(i64::from(next.is_some_and(|d| d >= b'5')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{base::Money, tests::cases};

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn an_amount_is_what_was_written_in_every_currency(amount in 0..=i64::MAX) {
            for currency in Currency::all() {
                let major = Money { minor: amount, currency }.major();
                prop_assert_eq!(minor(&major, currency.as_str()), Some(amount), "{} {}", major, currency.as_str());
            }
        }
    }

    fn minor(json: &str, code: &str) -> Option<i64> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        minor_units(&raw, Currency::parse(code).unwrap())
    }

    #[test]
    fn major_units_become_minor_ones_exactly() {
        let cases = [
            ("12.5", "usd", 1250),
            ("12", "usd", 1200),
            ("\"19.99\"", "eur", 1999),
            ("0.30000000000000004", "usd", 30),
            ("179.97000000000003", "usd", 17997),
            ("0.005", "usd", 1),
            ("0.004", "usd", 0),
            ("0.05", "jpy", 0),
            ("1e3", "jpy", 1000),
            ("1.2345e1", "kwd", 12345),
            ("5E-2", "usd", 5),
            ("1e-9", "usd", 0),
            ("92233720368547758.07", "usd", i64::MAX),
        ];
        for (json, code, wanted) in cases {
            assert_eq!(minor(json, code), Some(wanted), "{json} {code}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for json in ["-1", "\"free\"", "\"\"", "true", "null", "{}", "92233720368547758.08", "1e30", "1e2147483647"] {
            assert_eq!(minor(json, "usd"), None, "{json}");
        }
        assert_eq!(minor("0e2147483000", "usd"), Some(0));
    }
}
