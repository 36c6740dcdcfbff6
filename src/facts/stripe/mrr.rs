//! What a subscription brings a month: monthly recurring revenue, in integers all the way.
//!
//! Of each item its price times its quantity, less the discounts that last, over the months of its interval: a year has 12
//! months, 52 weeks, 365 days. What is metered is not known before it is used, and counts nothing. A discount that an event
//! only names by its id lowers nothing, for nobody can say by how much.

use serde_json::json;

use super::{DecodeError, Event, list_text};
use crate::{
    base::{Currency, Micros},
    facts::json::{Amount, Identified, List, Maybe, OnlyId, Reference, Text, Whole, object},
};

/// Decimal places of a minor unit while it is reckoned with: those of `unit_amount_decimal`.
const PLACES: u32 = 12;
const ONE: i128 = 10i128.pow(PLACES);
/// Of a percentage, in millionths of one per cent.
const WHOLE: i128 = 100_000_000;

/// What a subscription is sold at.
pub(super) struct Terms<'a> {
    pub items: Vec<Item<'a>>,
    pub discounts: Vec<Reference<'a, Discount<'a>>>,
    pub currency: Text<'a>,
    pub at: Micros,
}

object! {
    #[derive(Clone)]
    pub(super) struct Item<'a> {
        id: Text<'a>,
        pub current_period_end: Whole,
        pub current_period_start: Whole,
        discounts: List<Reference<'a, Discount<'a>>>,
        plan: Maybe<Plan<'a>>,
        price: Maybe<Price<'a>>,
        quantity: Whole,
    }
}

object! {
    /// A price of before there were prices.
    #[derive(Clone)]
    pub(super) struct Plan<'a> {
        id: Text<'a>,
        amount: Amount,
        amount_decimal: Text<'a>,
        currency: Text<'a>,
        interval: Text<'a>,
        interval_count: Whole,
        product: Reference<'a, OnlyId<'a>>,
        usage_type: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    struct Price<'a> {
        id: Text<'a>,
        currency: Text<'a>,
        product: Reference<'a, OnlyId<'a>>,
        recurring: Maybe<Recurring<'a>>,
        unit_amount: Amount,
        unit_amount_decimal: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    struct Recurring<'a> {
        interval: Text<'a>,
        interval_count: Whole,
        usage_type: Text<'a>,
    }
}

object! {
    #[derive(Clone)]
    pub(super) struct Discount<'a> {
        id: Text<'a>,
        /// `source.coupon` since 2025-09-30.
        coupon: Reference<'a, Coupon<'a>>,
        end: Whole,
        source: Maybe<DiscountSource<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct DiscountSource<'a> {
        coupon: Reference<'a, Coupon<'a>>,
    }
}

object! {
    #[derive(Clone)]
    struct Coupon<'a> {
        id: Text<'a>,
        amount_off: Amount,
        duration: Text<'a>,
        percent_off: Text<'a>,
    }
}

impl Identified for Discount<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

impl Identified for Coupon<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

impl Terms<'_> {
    pub fn currency(&self, event: &Event) -> Result<Option<Currency>, DecodeError> {
        let of_items = || self.items.iter().find_map(|i| i.sold_at().currency);
        event.currency("data.object.currency", self.currency.get().or_else(of_items))
    }

    /// In millionths of a major unit.
    pub fn mrr_micros(&self, event: &Event) -> Result<i64, DecodeError> {
        let Some(currency) = self.currency(event)? else { return Ok(0) };
        let too_much = || event.no_amount("data.object.items", "more a month than can be counted".to_owned());
        let mut monthly = 0i128;
        for item in &self.items {
            let gross = item.sold_at().monthly(event, item.quantity)?.ok_or_else(too_much)?;
            let net = item.off(event, item.discounts.iter(), gross, self.at)?.ok_or_else(too_much)?;
            monthly = monthly.checked_add(net).ok_or_else(too_much)?;
        }
        if let Some(first) = self.items.first() {
            monthly = first.off(event, self.discounts.iter(), monthly, self.at)?.ok_or_else(too_much)?;
        }
        let micros = 10i128.pow(6 - u32::from(currency.exponent()).min(6));
        let exact = monthly.checked_mul(micros).ok_or_else(too_much)?;
        i64::try_from((exact + ONE / 2).div_euclid(ONE)).map_err(|_| too_much())
    }

    pub fn items_text(&self, event: &Event) -> Result<String, DecodeError> {
        let mut items = Vec::new();
        for item in &self.items {
            let sold = item.sold_at();
            items.push(json!({
                "id": item.id.get(),
                "price_id": sold.id,
                "product_id": sold.product,
                "quantity": item.quantity.0.unwrap_or(1),
                "unit_amount": event.signed_amount("items.price.unit_amount", sold.amount)?,
                "unit_amount_decimal": sold.decimal,
                "interval": sold.interval,
                "interval_count": sold.count,
                "usage_type": sold.usage,
                "discounts": texts(event, item.discounts.iter())?,
            }));
        }
        Ok(serde_json::Value::from(items).to_string())
    }

    pub fn discounts_text(&self, event: &Event) -> Result<Option<String>, DecodeError> {
        Ok(list_text(texts(event, self.discounts.iter())?))
    }
}

/// What an item's price says, be it a price or a plan.
struct SoldAt<'b> {
    id: Option<&'b str>,
    product: Option<&'b str>,
    currency: Option<&'b str>,
    amount: &'b Amount,
    decimal: Option<&'b str>,
    interval: Option<&'b str>,
    count: i64,
    usage: &'b str,
}

static NO_AMOUNT: Amount = Amount::Absent;

impl<'a> Item<'a> {
    pub fn of_plan(plan: &Plan<'a>, quantity: Whole) -> Item<'a> {
        Item { plan: Maybe::of(plan.clone()), quantity, ..Item::default() }
    }

    fn sold_at(&self) -> SoldAt<'_> {
        let plan = self.plan.get();
        let Some(price) = self.price.get() else {
            return SoldAt {
                id: plan.and_then(|p| p.id.get()),
                product: plan.and_then(|p| p.product.id()),
                currency: plan.and_then(|p| p.currency.get()),
                amount: plan.map_or(&NO_AMOUNT, |p| &p.amount),
                decimal: plan.and_then(|p| p.amount_decimal.get()),
                interval: plan.and_then(|p| p.interval.get()),
                count: plan.and_then(|p| p.interval_count.0).unwrap_or(1),
                usage: plan.and_then(|p| p.usage_type.get()).unwrap_or("licensed"),
            };
        };
        let recurring = price.recurring.get();
        SoldAt {
            id: price.id.get(),
            product: price.product.id(),
            currency: price.currency.get(),
            amount: &price.unit_amount,
            decimal: price.unit_amount_decimal.get(),
            interval: recurring.and_then(|r| r.interval.get()),
            count: recurring.and_then(|r| r.interval_count.0).unwrap_or(1),
            usage: recurring.and_then(|r| r.usage_type.get()).unwrap_or("licensed"),
        }
    }

    /// What remains of `monthly` after the discounts; what they take off is taken off at each of this item's intervals.
    fn off<'b, 'c: 'b>(
        &self,
        event: &Event,
        discounts: impl Iterator<Item = &'b Reference<'c, Discount<'c>>>,
        monthly: i128,
        at: Micros,
    ) -> Result<Option<i128>, DecodeError> {
        let mut left = monthly;
        for discount in discounts.filter_map(Reference::object) {
            let Some(coupon) = discount.coupon().object().filter(|_| discount.lasts(at)) else { continue };
            let percent = coupon.percent_off.get().and_then(|p| scaled(p, 6)).unwrap_or(0).clamp(0, WHOLE);
            let amount = event.signed_amount("discount.coupon.amount_off", &coupon.amount_off)?;
            let amount = amount.map(|a| self.sold_at().a_month(i128::from(a) * ONE));
            let (Some(rest), Some(amount)) = (left.checked_mul(WHOLE - percent), amount.unwrap_or(Some(0))) else {
                return Ok(None);
            };
            left = (rest / WHOLE - amount).max(0);
        }
        Ok(Some(left))
    }
}

impl SoldAt<'_> {
    /// What so many bring a month, in `ONE`ths of a minor unit; `None` where that is more than can be counted.
    fn monthly(&self, event: &Event, quantity: Whole) -> Result<Option<i128>, DecodeError> {
        if self.usage == "metered" {
            return Ok(Some(0));
        }
        let whole = event.signed_amount("items.price.unit_amount", self.amount)?.map(|a| i128::from(a) * ONE);
        let unit = whole.or_else(|| scaled(self.decimal?, PLACES)).unwrap_or(0);
        let quantity = i128::from(quantity.0.unwrap_or(1));
        Ok(unit.checked_mul(quantity).and_then(|amount| self.a_month(amount)))
    }

    /// An amount of each interval, by the month. An interval that is not known brings nothing.
    fn a_month(&self, amount: i128) -> Option<i128> {
        let (times, months) = match self.interval {
            Some("month") => (1, 1),
            Some("year") => (1, 12),
            Some("week") => (52, 12),
            Some("day") => (365, 12),
            _ => (0, 1),
        };
        Some(amount.checked_mul(times)? / (months * i128::from(self.count.max(1))))
    }
}

impl<'a> Discount<'a> {
    fn coupon(&self) -> &Reference<'a, Coupon<'a>> {
        self.source.get().map_or(&self.coupon, |s| &s.coupon)
    }

    /// Whether it is taken off again and again, and still.
    fn lasts(&self, at: Micros) -> bool {
        let once = self.coupon().object().is_some_and(|c| c.duration.is("once"));
        !once && self.end.seconds().is_none_or(|end| end > at)
    }
}

fn texts<'b, 'c: 'b>(
    event: &Event,
    discounts: impl Iterator<Item = &'b Reference<'c, Discount<'c>>>,
) -> Result<Vec<serde_json::Value>, DecodeError> {
    let mut all = Vec::new();
    for discount in discounts {
        let coupon = discount.object().map(|d| d.coupon());
        let known = coupon.and_then(|c| c.object());
        let amount = known.map(|c| event.signed_amount("discount.coupon.amount_off", &c.amount_off));
        all.push(json!({
            "id": discount.id(),
            "coupon_id": coupon.and_then(|c| c.id()),
            "percent_off": known.and_then(|c| c.percent_off.get()),
            "amount_off": amount.transpose()?.flatten(),
            "duration": known.and_then(|c| c.duration.get()),
            "ends_at": discount.object().and_then(|d| d.end.0),
        }));
    }
    Ok(all)
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
