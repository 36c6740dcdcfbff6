//! Amounts: integers in minor units, with their currency. No float ever holds one.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{Deserialize, Serialize};

/// An ISO 4217 code in lower case, as Stripe writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no currency code of ISO 4217, as usd is one")]
pub struct UnknownCurrency(String);

/// Decimal places by currency: ISO 4217's codes that people are paid in, withdrawn ones that older payments name among
/// them. The places are Stripe's, which differ from ISO 4217's for UGX, ISK and MGA.
static EXPONENTS: LazyLock<BTreeMap<[u8; 3], u8>> = LazyLock::new(|| {
    include_str!("../../data/currencies.csv")
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .filter_map(|(code, exponent)| Some((code.as_bytes().try_into().ok()?, exponent.parse().ok()?)))
        .collect()
});

impl Currency {
    /// Of a code in letters of either case. An unknown one is an error: nobody can say what its minor unit is.
    pub fn parse(text: &str) -> Result<Currency, UnknownCurrency> {
        let code = <[u8; 3]>::try_from(text.as_bytes()).map(|code| code.map(|letter| letter.to_ascii_lowercase()));
        code.ok()
            .filter(|code| EXPONENTS.contains_key(code))
            .map(Currency)
            .ok_or_else(|| UnknownCurrency(text.to_owned()))
    }

    /// Every currency there is, by its code.
    pub fn all() -> impl Iterator<Item = Currency> {
        EXPONENTS.keys().map(|code| Currency(*code))
    }

    /// What people are paid in, by country (two letters): of CLDR's territories the currency that is legal tender now, of
    /// several the first.
    pub fn by_country() -> impl Iterator<Item = (&'static str, Currency)> {
        let lines = include_str!("../../data/country_currencies.csv").lines().skip(1);
        lines.filter_map(|line| line.split_once(',')).filter_map(|(at, code)| Some((at, Currency::parse(code).ok()?)))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// How many decimal places a major unit has: 2 for USD, 0 for JPY, 3 for KWD.
    pub fn exponent(&self) -> u8 {
        // A value that exists was found in the table.
        EXPONENTS.get(&self.0).copied().unwrap_or(2)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = UnknownCurrency;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Currency::parse(&text)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

/// An amount in minor units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    /// In major units, exactly, as `-12.05`: a point where the currency has minor units, no separators, no symbol.
    pub fn major(&self) -> String {
        let exponent = usize::from(self.currency.exponent());
        let digits = format!("{:0width$}", self.minor.unsigned_abs(), width = exponent + 1);
        let (whole, part) = digits.split_at(digits.len() - exponent);
        let sign = if self.minor < 0 { "-" } else { "" };
        if exponent == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
    }
}

/// `1,234.50 GBP`, for people.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let major = self.major();
        let (sign, digits) = major.strip_prefix('-').map_or(("", major.as_str()), |d| ("-", d));
        let (whole, part) = digits.split_once('.').map_or((digits, None), |(w, p)| (w, Some(p)));
        write!(f, "{sign}{}", grouped(whole))?;
        if let Some(part) = part {
            write!(f, ".{part}")?;
        }
        write!(f, " {}", self.currency.as_str().to_uppercase())
    }
}

/// Digits in groups of three, for people: `1,234`.
pub fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(minor: i64, code: &str) -> Money {
        Money { minor, currency: Currency::parse(code).unwrap() }
    }

    #[test]
    fn exponents_are_stripes() {
        for (code, exponent) in [("usd", 2), ("jpy", 0), ("kwd", 3), ("ugx", 2), ("isk", 2), ("mga", 0)] {
            assert_eq!(Currency::parse(code).unwrap().exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn amounts_are_written_exactly() {
        assert_eq!(money(-1205, "usd").major(), "-12.05");
        assert_eq!(money(5, "kwd").major(), "0.005");
        assert_eq!(money(500, "jpy").major(), "500");
        assert_eq!(money(891_140_790, "gbp").to_string(), "8,911,407.90 GBP");
        assert_eq!(money(i64::MIN, "jpy").to_string(), "-9,223,372,036,854,775,808 JPY");
    }

    #[test]
    fn no_currency_is_guessed() {
        assert!(Currency::parse("US").is_err());
        assert!(Currency::parse("€").is_err(), "three bytes");
        assert_eq!(
            Currency::parse("eru").unwrap_err().to_string(),
            "\"eru\" is no currency code of ISO 4217, as usd is one"
        );
        assert_eq!(Currency::parse("EUR").unwrap().as_str(), "eur");
        let lines = include_str!("../../data/currencies.csv").lines().count() - 1;
        assert_eq!(Currency::all().count(), lines, "every line of the table is read");
    }
}
