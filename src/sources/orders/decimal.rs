//! Exact decimal numbers, as files of orders write prices and quantities.

use std::fmt;

use serde::{Serialize, Serializer};

/// `units / 10^scale`. Equal are equal numbers, however many zeros they end with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal {
    units: i128,
    scale: u32,
}

/// So many digits fit an i128 twice over: a product of two numbers does not overflow.
const DIGITS: usize = 18;

impl Decimal {
    pub const ZERO: Decimal = Decimal { units: 0, scale: 0 };

    /// `12`, `-0.50`, `1.5e-3`; no separators but the point, which a comma is not: `1,234` means two things.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim();
        let (text, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let all = || whole.bytes().chain(part.bytes());
        if all().next().is_none() || !all().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = all().skip_while(|b| *b == b'0').count();
        if significant > DIGITS || part.len() > 30 {
            return None;
        }
        let units = all().fold(0i128, |n, b| n * 10 + i128::from(b - b'0'));
        let units = if negative { -units } else { units };
        let scale = i32::try_from(part.len()).ok()?.checked_sub(exponent)?;
        Decimal { units, scale: 0 }.scaled(scale)
    }

    pub fn is_positive(self) -> bool {
        self.units > 0
    }

    pub fn is_negative(self) -> bool {
        self.units < 0
    }

    pub fn times(self, other: Decimal) -> Option<Decimal> {
        Some(Decimal { units: self.units.checked_mul(other.units)?, scale: self.scale.checked_add(other.scale)? })
    }

    pub fn plus(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        let units = self.at_scale(scale)?.checked_add(other.at_scale(scale)?)?;
        Some(Decimal { units, scale })
    }

    pub fn negated(self) -> Decimal {
        Decimal { units: -self.units, scale: self.scale }
    }

    /// In minor units of a currency with this exponent, rounded half away from zero.
    pub fn minor(self, exponent: u8) -> Option<i64> {
        let exponent = u32::from(exponent);
        if self.scale <= exponent {
            return i64::try_from(self.at_scale(exponent)?).ok();
        }
        let divisor = 10i128.checked_pow(self.scale - exponent)?;
        let rounded = (self.units.checked_add(self.units.signum() * (divisor / 2))?) / divisor;
        i64::try_from(rounded).ok()
    }

    /// Whether it has digits below the minor unit of a currency with this exponent: more than a millionth of it, as sums of
    /// floats have tails.
    pub fn is_finer_than(self, exponent: u8) -> bool {
        let Some(divisor) = self.scale.checked_sub(exponent.into()).and_then(|digits| 10i128.checked_pow(digits))
        else {
            return false;
        };
        let below = (self.units % divisor).abs();
        below.min(divisor - below).checked_mul(1_000_000).is_none_or(|distance| distance > divisor)
    }

    /// As a whole number, where it is one.
    pub fn whole(self) -> Option<i64> {
        let divisor = 10i128.checked_pow(self.scale)?;
        if self.units % divisor == 0 { i64::try_from(self.units / divisor).ok() } else { None }
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.units.checked_mul(10i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    /// The same digits with the point moved.
    fn scaled(self, scale: i32) -> Option<Decimal> {
        match u32::try_from(scale) {
            Ok(scale) if scale <= 36 => Some(Decimal { units: self.units, scale }),
            Ok(_) => (self.units == 0).then_some(Decimal::ZERO),
            Err(_) => {
                let units = self.units.checked_mul(10i128.checked_pow(scale.unsigned_abs())?)?;
                (units.unsigned_abs() < 10u128.pow(DIGITS as u32)).then_some(Decimal { units, scale: 0 })
            }
        }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.plus(other.negated()).is_some_and(|difference| difference.units == 0)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale as usize;
        let digits = format!("{:0width$}", self.units.unsigned_abs(), width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        let sign = if self.units < 0 { "-" } else { "" };
        if part.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part}") }
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (text, shown) in [
            ("2.55", "2.55"),
            (" -0.50 ", "-0.50"),
            ("+7", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1.5e-3", "0.0015"),
            ("1e3", "1000"),
            ("0.00", "0.00"),
            ("000000000000000000000012", "12"),
        ] {
            assert_eq!(decimal(text).to_string(), shown, "{text}");
        }
        for text in
            ["", "-", ".", "1,234", "12,50", "£5", "0x1", "1e", "nan", "inf", "1e40", "12345678901234567890", "1 2"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn minor_units_are_rounded_once_and_exactly() {
        assert_eq!(decimal("2.55").times(decimal("6")).unwrap().minor(2), Some(1530));
        assert_eq!(decimal("0.005").minor(2), Some(1));
        assert_eq!(decimal("-0.005").minor(2), Some(-1));
        assert_eq!(decimal("0.0049").minor(2), Some(0));
        assert_eq!(decimal("500").minor(0), Some(500));
        assert_eq!(decimal("1.2345").minor(3), Some(1235));
        assert_eq!(Decimal::parse("92233720368547758.07"), None, "more digits than an amount has");
        assert_eq!(decimal("999999999999999999").minor(2), None, "2^63 is not an amount");
    }

    #[test]
    fn what_is_finer_than_the_currency_is_told_from_the_tails_of_floats() {
        for (text, exponent) in [("49.999", 2), ("0.004", 2), ("100.7", 0), ("1.2345", 3)] {
            assert!(decimal(text).is_finer_than(exponent), "{text}");
        }
        for (text, exponent) in [("49.990", 2), ("59.970000000000006", 2), ("29.999999999999996", 2), ("100.000", 0)] {
            assert!(!decimal(text).is_finer_than(exponent), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_told_from_parts() {
        assert_eq!(decimal("6.00").whole(), Some(6));
        assert_eq!(decimal("-80995").whole(), Some(-80995));
        assert_eq!(decimal("1.5").whole(), None);
        assert_eq!(decimal("5.0"), decimal("5.00"));
        assert_ne!(decimal("5.0"), decimal("5.01"));
    }

    proptest! {
        #[test]
        fn sums_of_cents_are_exact(cents in proptest::collection::vec(-10_000_000i64..10_000_000, 0..50)) {
            let text = |c: &i64| format!("{}{}.{:02}", if *c < 0 { "-" } else { "" }, c.abs() / 100, c.abs() % 100);
            let sum = cents.iter().try_fold(Decimal::ZERO, |sum, c| sum.plus(decimal(&text(c)))).unwrap();
            prop_assert_eq!(sum.minor(2), Some(cents.iter().sum()));
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[-+0-9.eE ]{0,60}|\\PC{0,20}") {
            if let Some(number) = Decimal::parse(&text) {
                prop_assert_eq!(Decimal::parse(&number.to_string()), Some(number));
                number.minor(2);
            }
        }
    }
}
