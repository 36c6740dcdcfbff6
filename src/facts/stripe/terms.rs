//! What a subscription is sold at: its items and their prices, and what is taken off.
//!
//! What that brings a month is reckoned in [`recurring`].

use super::{DecodeError, Event, Table, Why, discount::Discount};
use crate::{
    base::{Currency, Micros, recurring},
    facts::json::{Amount, List, Maybe, OnlyId, Reference, Text, Whole, object},
};

/// As the event shows them.
pub(super) struct Shown<'a> {
    pub items: Vec<Item<'a>>,
    pub discounts: Vec<Reference<'a, Discount<'a>>>,
}

/// As the tables hold them.
pub(super) struct Terms {
    pub currency: Option<Currency>,
    pub items: Vec<recurring::Item>,
    pub discounts: Vec<recurring::Discount>,
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
        transform_usage: Maybe<Together<'a>>,
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
        transform_quantity: Maybe<Together<'a>>,
        unit_amount: Amount,
        unit_amount_decimal: Text<'a>,
    }
}

object! {
    /// A price for so many at once.
    #[derive(Clone)]
    struct Together<'a> {
        divide_by: Whole,
        round: Text<'a>,
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

impl Shown<'_> {
    /// `named`: the currency that the subscription itself names.
    pub fn terms(&self, event: &Event, named: Option<&str>) -> Result<Terms, DecodeError> {
        let of_items = || self.items.iter().find_map(|i| i.sold_at().currency);
        let currency = event.currency("data.object.currency", named.or_else(of_items))?;
        let items = self.items.iter().map(|item| item.terms(event, currency)).collect::<Result<_, _>>()?;
        Ok(Terms { currency, items, discounts: all_terms(event, self.discounts.iter(), currency)? })
    }

    /// Its discounts, those of its items among them.
    pub fn all_discounts(&self) -> impl Iterator<Item = &Discount<'_>> {
        let of_items = self.items.iter().flat_map(|item| item.discounts.iter());
        of_items.chain(&self.discounts).filter_map(Reference::object)
    }
}

impl Terms {
    /// In millionths of a major unit; `None` where the event does not say what something costs, or what is taken off.
    pub fn mrr_micros(&self, event: &Event, at: Micros) -> Result<Option<i64>, DecodeError> {
        let Some(currency) = self.currency else { return Ok(Some(0)) };
        let micros = recurring::mrr_micros(currency, &self.items, &self.discounts, at)
            .map_err(|e| event.no_amount("data.object.items", e.to_string()))?;
        let unsaid =
            recurring::unknown(&self.items, &self.discounts).count() + recurring::unpriced(&self.items).count();
        Ok((unsaid == 0).then_some(micros))
    }

    /// The discounts that the event only names are wanted: Stripe shows them within the subscription alone.
    pub fn want_unknown(&self, event: &mut Event, subscription: &str) {
        let unknown = recurring::unknown(&self.items, &self.discounts);
        for discount in unknown.filter_map(|discount| discount.id.as_deref()) {
            event.want(Table::Discounts, discount, Why::Named { within: Some(subscription.to_owned()) });
        }
    }

    pub fn items_text(&self, event: &Event) -> Result<String, DecodeError> {
        serde_json::to_string(&self.items).map_err(|e| event.unreadable(e))
    }

    /// Nothing where there are none.
    pub fn discounts_text(&self, event: &Event) -> Result<Option<String>, DecodeError> {
        let some = !self.discounts.is_empty();
        some.then(|| serde_json::to_string(&self.discounts)).transpose().map_err(|e| event.unreadable(e))
    }
}

fn all_terms<'b, 'c: 'b>(
    event: &Event,
    discounts: impl Iterator<Item = &'b Reference<'c, Discount<'c>>>,
    currency: Option<Currency>,
) -> Result<Vec<recurring::Discount>, DecodeError> {
    let terms = |discount: &Reference<'c, Discount<'c>>| match discount.object() {
        Some(shown) => shown.terms(event, currency),
        None => Ok(recurring::Discount { id: discount.id_owned(), ..recurring::Discount::default() }),
    };
    discounts.map(terms).collect()
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
    together: Option<&'b Together<'b>>,
}

static NO_AMOUNT: Amount = Amount::Absent;

impl<'a> Item<'a> {
    pub fn of_plan(plan: &Plan<'a>, quantity: Whole) -> Item<'a> {
        Item { plan: Maybe::of(plan.clone()), quantity, ..Item::default() }
    }

    fn terms(&self, event: &Event, currency: Option<Currency>) -> Result<recurring::Item, DecodeError> {
        let sold = self.sold_at();
        let text = |text: Option<&str>| text.map(str::to_owned);
        Ok(recurring::Item {
            discounts: all_terms(event, self.discounts.iter(), currency)?,
            divide_by: sold.together.and_then(|t| t.divide_by.0),
            id: self.id.owned(),
            interval: text(sold.interval),
            interval_count: sold.count,
            price_id: text(sold.id),
            product_id: text(sold.product),
            quantity: self.quantity.0.unwrap_or(1),
            round: sold.together.and_then(|t| t.round.owned()),
            unit_amount: event.signed_amount("items.price.unit_amount", sold.amount)?,
            unit_amount_decimal: text(sold.decimal),
            usage_type: text(Some(sold.usage)),
        })
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
                together: plan.and_then(|p| p.transform_usage.get()),
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
            together: price.transform_quantity.get(),
        }
    }
}
