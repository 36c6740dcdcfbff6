//! What is sold again and again, and what it brings a month: monthly recurring revenue, in integers all the way.
//!
//! Of each item its price times its quantity, less the discounts that last, over the months of its interval: a year has 12
//! months, 52 weeks, 365 days. What is metered is not known before it is used, and counts nothing.

use serde::{Deserialize, Serialize};

use super::{Currency, Micros};

/// Decimal places of a minor unit while it is reckoned with: those of `unit_amount_decimal`.
const PLACES: u32 = 12;
const ONE: i128 = 10i128.pow(PLACES);
/// Of a percentage, in millionths of one per cent.
const WHOLE: i128 = 100_000_000;

/// An item of a subscription, as the JSON texts in `core.subscriptions.items` hold it: their keys sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    pub discounts: Vec<Discount>,
    /// So many are sold together, where it is not one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divide_by: Option<i64>,
    pub id: Option<String>,
    /// `day`, `week`, `month` or `year`; what is none of these brings nothing.
    pub interval: Option<String>,
    pub interval_count: i64,
    pub price_id: Option<String>,
    pub product_id: Option<String>,
    pub quantity: i64,
    /// `up` where a part of `divide_by` counts as one of them, else `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<String>,
    /// Minor units; `unit_amount_decimal` where a price has parts of them.
    pub unit_amount: Option<i64>,
    pub unit_amount_decimal: Option<String>,
    pub usage_type: Option<String>,
}

/// A discount, as the JSON texts of items and subscriptions hold it: their keys sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Discount {
    /// Minor units, off each interval.
    pub amount_off: Option<i64>,
    pub coupon_id: Option<String>,
    /// `once`, `repeating` or `forever`.
    pub duration: Option<String>,
    /// Seconds since 1970.
    pub ends_at: Option<i64>,
    pub id: Option<String>,
    /// A decimal number.
    pub percent_off: Option<String>,
}

/// More a month than can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more a month than can be counted")]
pub struct TooMuch;

/// What the items bring a month at a moment, in millionths of a major unit of `currency`, after their own discounts and then
/// those of the whole. A discount that is only named takes nothing off, and an item without a price brings nothing: see
/// [`unknown`] and [`unpriced`].
///
/// # Errors
/// Where some amount on the way does not fit.
pub fn mrr_micros(currency: Currency, items: &[Item], discounts: &[Discount], at: Micros) -> Result<i64, TooMuch> {
    let mut monthly = 0i128;
    for item in items {
        let gross = item.monthly().ok_or(TooMuch)?;
        let net = item.off(&item.discounts, gross, at).ok_or(TooMuch)?;
        monthly = monthly.checked_add(net).ok_or(TooMuch)?;
    }
    if let Some(first) = items.first() {
        monthly = first.off(discounts, monthly, at).ok_or(TooMuch)?;
    }
    let micros = 10i128.pow(6 - u32::from(currency.exponent()).min(6));
    let exact = monthly.checked_mul(micros).ok_or(TooMuch)?;
    i64::try_from((exact + ONE / 2).div_euclid(ONE)).map_err(|_| TooMuch)
}

/// Those discounts of which nothing says what they take off.
pub fn unknown<'a>(items: &'a [Item], discounts: &'a [Discount]) -> impl Iterator<Item = &'a Discount> {
    let all = items.iter().flat_map(|item| &item.discounts).chain(discounts);
    all.filter(|discount| !discount.is_known())
}

/// Those items of which nothing says what they cost: Stripe's events name a price in tiers without showing them.
pub fn unpriced(items: &[Item]) -> impl Iterator<Item = &Item> {
    items.iter().filter(|item| !item.is_priced())
}

impl Item {
    /// What remains of `monthly` after the discounts; what they take off is taken off at each of this item's intervals. `None`
    /// where that does not fit.
    fn off(&self, discounts: &[Discount], monthly: i128, at: Micros) -> Option<i128> {
        let mut left = monthly;
        for discount in discounts.iter().filter(|discount| discount.lasts(at)) {
            let percent = discount.percent_off.as_deref().and_then(|p| scaled(p, 6)).unwrap_or(0).clamp(0, WHOLE);
            let amount = self.a_month(i128::from(discount.amount_off.unwrap_or(0)) * ONE)?;
            left = (left.checked_mul(WHOLE - percent)? / WHOLE - amount).max(0);
        }
        Some(left)
    }

    /// What so many bring a month, in `ONE`ths of a minor unit; `None` where that is more than can be counted.
    fn monthly(&self) -> Option<i128> {
        if self.is_metered() {
            return Some(0);
        }
        self.unit().unwrap_or(0).checked_mul(self.sold()).and_then(|amount| self.a_month(amount))
    }

    fn is_priced(&self) -> bool {
        self.is_metered() || self.quantity == 0 || self.unit().is_some()
    }

    /// What one costs, in `ONE`ths of a minor unit.
    fn unit(&self) -> Option<i128> {
        let whole = self.unit_amount.map(|a| i128::from(a) * ONE);
        whole.or_else(|| scaled(self.unit_amount_decimal.as_deref()?, PLACES))
    }

    fn is_metered(&self) -> bool {
        self.usage_type.as_deref() == Some("metered")
    }

    /// How many are paid for.
    fn sold(&self) -> i128 {
        let (quantity, together) = (i128::from(self.quantity), i128::from(self.divide_by.unwrap_or(1).max(1)));
        match self.round.as_deref() {
            Some("up") => -(-quantity).div_euclid(together),
            _ => quantity.div_euclid(together),
        }
    }

    /// An amount of each interval, by the month. An interval that is not known brings nothing.
    fn a_month(&self, amount: i128) -> Option<i128> {
        let (times, months) = match self.interval.as_deref() {
            Some("month") => (1, 1),
            Some("year") => (1, 12),
            Some("week") => (52, 12),
            Some("day") => (365, 12),
            _ => (0, 1),
        };
        Some(amount.checked_mul(times)? / (months * i128::from(self.interval_count.max(1))))
    }
}

impl Discount {
    /// A coupon takes off a part or an amount, never neither.
    fn is_known(&self) -> bool {
        self.percent_off.is_some() || self.amount_off.is_some()
    }

    /// Whether it is taken off again and again, and still.
    fn lasts(&self, at: Micros) -> bool {
        let end = self.ends_at.and_then(Micros::from_seconds);
        self.duration.as_deref() != Some("once") && end.is_none_or(|end| end > at)
    }
}

/// A decimal text as an integer of `places` decimal places; what is finer is cut off. `None`: no such number.
fn scaled(text: &str, places: u32) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = || whole.bytes().chain(part.bytes());
    if whole.is_empty() || whole.len() > 20 || !all().all(|d| d.is_ascii_digit()) {
        return None;
    }
    let part = part.bytes().chain(std::iter::repeat(b'0')).take(places as usize);
    Some(sign * whole.bytes().chain(part).fold(0i128, |sum, d| sum * 10 + i128::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_to_the_place_and_no_further() {
        for (text, places, wanted) in [
            ("1500", 12, Some(1_500 * ONE)),
            ("0.5", 12, Some(ONE / 2)),
            ("33.333", 6, Some(33_333_000)),
            ("0.1234567", 6, Some(123_456)),
            ("-2", 1, Some(-20)),
            ("", 6, None),
            ("1e3", 6, None),
            ("123456789012345678901", 12, None),
        ] {
            assert_eq!(scaled(text, places), wanted, "{text}");
        }
    }
}
