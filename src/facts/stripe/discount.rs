//! Coupons, and discounts: what a coupon takes off for one customer or subscription, and until when.
//!
//! A subscription's events tell its discounts whole before 2025-03-31, and since then their ids alone. What these take off is
//! told by events of their own, and by subscriptions that were fetched. Since 2025-09-30 a discount names its coupon by id as
//! well. So each is an object of its own, and whoever reads what a subscription brings looks them up (`sql/core/with_discounts.sql`).

use super::{DecodeError, Event, Mark, Message, Saw, Seen, Step, Table, Why, shown};
use crate::{
    base::{Currency, recurring},
    facts::{
        json::{Amount, Flag, Identified, Maybe, OnlyId, Reference, Text, Whole, object},
        rows,
    },
};

object! {
    #[derive(Clone)]
    pub(super) struct Discount<'a> {
        id: Text<'a>,
        object: Text<'a>,
        /// `source.coupon` since 2025-09-30.
        coupon: Reference<'a, Coupon<'a>>,
        customer: Reference<'a, OnlyId<'a>>,
        end: Whole,
        invoice: Reference<'a, OnlyId<'a>>,
        promotion_code: Reference<'a, OnlyId<'a>>,
        source: Maybe<DiscountSource<'a>>,
        start: Whole,
        subscription: Reference<'a, OnlyId<'a>>,
        subscription_item: Reference<'a, OnlyId<'a>>,
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
    pub(super) struct Coupon<'a> {
        id: Text<'a>,
        object: Text<'a>,
        amount_off: Amount,
        created: Whole,
        currency: Text<'a>,
        duration: Text<'a>,
        duration_in_months: Whole,
        name: Text<'a>,
        percent_off: Text<'a>,
        redeem_by: Whole,
        valid: Flag,
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

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Discount> = Message::of(event)?;
    let discount = &message.object;
    if discount.object.get().is_some_and(|o| o != "discount") {
        return Ok(false);
    }
    // Before 2020 a discount had no id, and nothing names one of those.
    let Some(id) = discount.id.owned() else { return Ok(false) };
    let (state, prior) = message.digests(event)?;
    let step = step(event.kind(), "customer.discount.created", "customer.discount.deleted");
    record(event, discount, id, Seen::own(state, prior), step)?;
    Ok(true)
}

pub(super) fn decode_coupon(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Coupon> = Message::of(event)?;
    let coupon = &message.object;
    if coupon.object.get().is_some_and(|o| o != "coupon") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", coupon.id.owned())?;
    // Another may be made under the id of one that was deleted.
    let step = Step { settled: 0, ..step(event.kind(), "coupon.created", "coupon.deleted") };
    record_coupon(event, coupon, id, Seen::own(state, prior), step)?;
    Ok(true)
}

/// One that another object's event shows whole.
pub(super) fn carried(event: &mut Event, discount: &Discount) -> Result<(), DecodeError> {
    let Some(id) = discount.id.owned() else { return Ok(()) };
    let seen = Seen::carried(event, &id);
    record(event, discount, id, seen, Step::default())
}

/// The phase of what is no more.
const DELETED: u8 = 2;

fn step(kind: &str, created: &str, deleted: &str) -> Step {
    let phase = match kind {
        kind if kind == created => 0,
        kind if kind == deleted => DELETED,
        _ => 1,
    };
    Step { settled: u8::from(phase == DELETED), phase, rank: phase, ..Step::default() }
}

fn record(event: &mut Event, discount: &Discount, id: String, seen: Seen, step: Step) -> Result<(), DecodeError> {
    let coupon = discount.coupon();
    match coupon.object().zip(coupon.id_owned()) {
        Some((coupon, id)) => {
            let seen = Seen::carried(event, &id);
            record_coupon(event, coupon, id, seen, Step { phase: 1, ..Step::default() })?;
        }
        None => {
            if let Some(coupon) = coupon.id() {
                event.want(Table::Coupons, coupon, Why::Named { within: None });
            }
        }
    }
    let row = rows::Discount {
        discount_id: id.clone(),
        coupon_id: coupon.id_owned(),
        promotion_code_id: discount.promotion_code.id_owned(),
        customer_id: discount.customer.id_owned(),
        subscription_id: discount.subscription.id_owned(),
        subscription_item_id: discount.subscription_item.id_owned(),
        invoice_id: discount.invoice.id_owned(),
        created_at: discount.start.seconds(),
        ends_at: discount.end.seconds(),
        deleted_at: None,
        order_ambiguous: false,
    };
    let deleted = (step.phase == DELETED).then_some(Mark::Deleted);
    let unborn = discount.start.0.is_none().then_some(Mark::Seen);
    let marks = shown(event, deleted.into_iter().chain(unborn));
    event.saw(Saw { table: Table::Discounts, id, seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(())
}

fn record_coupon(event: &mut Event, coupon: &Coupon, id: String, seen: Seen, step: Step) -> Result<(), DecodeError> {
    let row = rows::Coupon {
        coupon_id: id.clone(),
        created_at: coupon.created.seconds(),
        name: coupon.name.owned(),
        percent_off: coupon.percent_off.get().and_then(|percent| percent.parse().ok()),
        amount_off: coupon.amount_off(event)?,
        // Of a currency that is none, its amount is taken off nothing, and who shows it keeps the rest of what it says.
        currency: coupon.currency.get().and_then(|code| Currency::parse(code).ok()),
        duration: coupon.duration.owned(),
        duration_in_months: coupon.duration_in_months.0,
        redeem_by: coupon.redeem_by.seconds(),
        valid: coupon.valid.0,
        deleted_at: None,
        order_ambiguous: false,
    };
    let deleted = (step.phase == DELETED).then_some(Mark::Deleted);
    let unborn = coupon.created.0.is_none().then_some(Mark::Seen);
    let marks = shown(event, deleted.into_iter().chain(unborn));
    event.saw(Saw { table: Table::Coupons, id, seen, step, marks, parts: Vec::new(), row: row.into() });
    Ok(())
}

impl<'a> Discount<'a> {
    fn coupon(&self) -> &Reference<'a, Coupon<'a>> {
        self.source.get().map_or(&self.coupon, |s| &s.coupon)
    }

    /// `currency`: of what it is taken off. An amount of another one says nothing of that.
    pub fn terms(&self, event: &Event, currency: Option<Currency>) -> Result<recurring::Discount, DecodeError> {
        let coupon = self.coupon().object();
        let of_it = coupon.filter(|c| c.currency.get().is_none_or(|own| currency == Currency::parse(own).ok()));
        Ok(recurring::Discount {
            amount_off: of_it.map(|c| c.amount_off(event)).transpose()?.flatten(),
            coupon_id: self.coupon().id_owned(),
            duration: coupon.and_then(|c| c.duration.owned()),
            ends_at: self.end.0,
            id: self.id.owned(),
            percent_off: coupon.and_then(|c| c.percent_off.owned()),
        })
    }
}

impl Coupon<'_> {
    fn amount_off(&self, event: &Event) -> Result<Option<i64>, DecodeError> {
        event.signed_amount("coupon.amount_off", &self.amount_off)
    }
}
