//! Exchange rates by day, and amounts converted by them, exactly.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::NaiveDate;

use super::Currency;

/// What one unit of `base` was worth in `currency` on a day: major units of both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub day: NaiveDate,
    pub base: Currency,
    pub currency: Currency,
    pub rate: f64,
}

impl Rate {
    /// To the places that are kept.
    pub fn rounded(self) -> Rate {
        Rate { rate: (self.rate * UNIT as f64).round() / UNIT as f64, ..self }
    }

    /// Why it cannot be one.
    pub fn fault(&self) -> Option<&'static str> {
        if self.base == self.currency {
            return Some("it is of a currency in itself");
        }
        (!SENSIBLE.contains(&self.rate)).then_some("a rate lies between 0.000001 and 10 million")
    }
}

/// A rate as an integer of this part: nine places are kept.
const UNIT: i128 = 1_000_000_000;

/// Rates above or below these are no rates, but a fault of whoever wrote them.
const SENSIBLE: std::ops::RangeInclusive<f64> = 1e-6..=1e7;

/// All rates that are known, of one or more bases.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    by_base: BTreeMap<Currency, BTreeMap<Currency, BTreeMap<NaiveDate, i128>>>,
    /// How many days a rate holds when there is no newer one.
    max_age: u64,
}

/// An amount that no i64 holds in the other currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{amount} {from} in {to} is too large")]
pub struct TooLarge {
    amount: i64,
    from: Currency,
    to: Currency,
}

impl Rates {
    pub fn new(max_age_days: u32) -> Rates {
        Rates { by_base: BTreeMap::new(), max_age: u64::from(max_age_days) }
    }

    /// Of two rates of a day the one that was told later holds. False, and nothing is kept, of what is no rate.
    pub fn insert(&mut self, rate: &Rate) -> bool {
        if rate.fault().is_some() {
            return false;
        }
        let scaled = (rate.rate * UNIT as f64).round() as i128;
        self.by_base.entry(rate.base).or_default().entry(rate.currency).or_default().insert(rate.day, scaled);
        true
    }

    /// The last day that there are rates of.
    pub fn newest(&self) -> Option<NaiveDate> {
        self.by_base.values().flat_map(BTreeMap::values).filter_map(|days| days.keys().next_back().copied()).max()
    }

    /// `amount`, minor units of `from`, in minor units of `to`, by the rates of `day` or the last before it. Halves go to the
    /// even neighbour. `None` where there is no rate, or only one that is too old.
    pub fn convert(&self, amount: i64, from: Currency, to: Currency, day: NaiveDate) -> Result<Option<i64>, TooLarge> {
        if from == to {
            return Ok(Some(amount));
        }
        let pairs = self.by_base.keys().filter_map(|base| self.pair(*base, from, to, day));
        // Of several bases the one whose rates are the newest.
        let Some((_, of_from, of_to)) = pairs.max_by_key(|(since, ..)| *since) else { return Ok(None) };
        let places = |currency: Currency| 10i128.pow(u32::from(currency.exponent()));
        let converted = (i128::from(amount))
            .checked_mul(of_to)
            .and_then(|n| n.checked_mul(places(to)))
            .zip(of_from.checked_mul(places(from)))
            .and_then(|(n, by)| i64::try_from(divided(n, by)).ok());
        converted.map(Some).ok_or(TooLarge { amount, from, to })
    }

    /// What one unit of `base` was worth in both, and the older day of the two.
    fn pair(&self, base: Currency, from: Currency, to: Currency, day: NaiveDate) -> Option<(NaiveDate, i128, i128)> {
        let (since, of_from) = self.rate(base, from, day)?;
        let (also, of_to) = self.rate(base, to, day)?;
        Some((since.min(also), of_from, of_to))
    }

    fn rate(&self, base: Currency, currency: Currency, day: NaiveDate) -> Option<(NaiveDate, i128)> {
        if base == currency {
            return Some((day, UNIT));
        }
        let (since, rate) = self.by_base.get(&base)?.get(&currency)?.range(..=day).next_back()?;
        let age = u64::try_from(day.signed_duration_since(*since).num_days()).ok()?;
        (age <= self.max_age).then_some((*since, *rate))
    }
}

/// Rounded to the nearest, halves to the even one. `by` is above 0.
fn divided(n: i128, by: i128) -> i128 {
    let (quotient, rest) = (n.div_euclid(by), n.rem_euclid(by));
    let up = match rest.cmp(&(by - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    quotient + i128::from(up)
}

/// The rates as of now: what is held by whoever reads them, and changed when newer ones come. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct CurrentRates(Arc<RwLock<Arc<Rates>>>);

impl CurrentRates {
    pub fn get(&self) -> Arc<Rates> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set(&self, rates: Rates) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rates);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::cases;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn rates(all: &[(&str, &str, &str, f64)]) -> Rates {
        let mut rates = Rates::new(7);
        for (at, base, of, rate) in all {
            let rate = Rate { day: day(at), base: currency(base), currency: currency(of), rate: *rate };
            assert!(rates.insert(&rate));
        }
        rates
    }

    #[test]
    fn an_amount_is_converted_over_the_base() {
        let rates = rates(&[
            ("2026-01-30", "eur", "usd", 1.0823),
            ("2026-01-30", "eur", "jpy", 161.5),
            ("2026-01-30", "eur", "kwd", 0.3333),
            ("2026-02-02", "eur", "usd", 1.1),
        ]);
        let convert = |amount, from, to, at| rates.convert(amount, currency(from), currency(to), day(at)).unwrap();
        assert_eq!(convert(10_000, "eur", "usd", "2026-01-30"), Some(10_823));
        assert_eq!(convert(10_823, "usd", "eur", "2026-01-30"), Some(10_000));
        // 100.00 USD are 92.3958 EUR are 14921.925 JPY, which has no minor units.
        assert_eq!(convert(10_000, "usd", "jpy", "2026-01-31"), Some(14_922));
        assert_eq!(convert(-10_000, "usd", "jpy", "2026-01-31"), Some(-14_922));
        assert_eq!(convert(1_000, "eur", "kwd", "2026-01-30"), Some(3_333));
        assert_eq!(convert(100, "eur", "usd", "2026-02-03"), Some(110), "the last before the day");
        assert_eq!(convert(100, "eur", "usd", "2026-02-09"), Some(110));
        assert_eq!(convert(100, "eur", "usd", "2026-02-10"), None, "too old");
        assert_eq!(convert(100, "eur", "usd", "2026-01-29"), None, "before the first");
        assert_eq!(convert(100, "eur", "gbp", "2026-01-30"), None);
        assert_eq!(convert(100, "gbp", "gbp", "1999-01-01"), Some(100));
        assert_eq!(rates.newest(), Some(day("2026-02-02")));
        let most = rates.convert(i64::MAX, currency("eur"), currency("usd"), day("2026-01-30"));
        assert_eq!(most.unwrap_err().to_string(), "9223372036854775807 eur in usd is too large");
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let rates = rates(&[("2026-01-30", "eur", "usd", 0.5)]);
        let halves = [-3, -1, 1, 3, 5]
            .map(|n| rates.convert(n, currency("eur"), currency("usd"), day("2026-01-30")).unwrap().unwrap());
        assert_eq!(halves, [-2, 0, 0, 2, 2]);
    }

    #[test]
    fn of_two_bases_the_newer_rates_are_taken_and_what_is_no_rate_is_not_kept() {
        let mut rates = rates(&[("2026-01-30", "eur", "gbp", 0.8), ("2026-01-31", "usd", "gbp", 0.77)]);
        rates.insert(&Rate { day: day("2026-01-31"), base: currency("usd"), currency: currency("eur"), rate: 0.875 });
        let pounds = |at| rates.convert(100, currency("eur"), currency("gbp"), day(at)).unwrap();
        assert_eq!((pounds("2026-01-30"), pounds("2026-01-31")), (Some(80), Some(88)));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            let rate = Rate { day: day("2026-01-30"), base: currency("eur"), currency: currency("chf"), rate };
            assert!(!rates.clone().insert(&rate), "{rate:?}");
        }
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn there_and_back_differs_by_what_rounding_took(amount in -1_000_000_000i64..1_000_000_000, rate in 0.5f64..2.0) {
            let rates = rates(&[("2026-01-30", "eur", "usd", rate)]);
            let there = rates.convert(amount, currency("eur"), currency("usd"), day("2026-01-30")).unwrap().unwrap();
            let back = rates.convert(there, currency("usd"), currency("eur"), day("2026-01-30")).unwrap().unwrap();
            prop_assert!((back - amount).abs() <= 1, "{amount} {there} {back}");
        }
    }
}
