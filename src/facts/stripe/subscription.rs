//! Subscriptions: as they are now, and as they were in each second in which they were seen.
//!
//! What a subscription is sold at is read in `terms`.

use super::{
    DecodeError, Event, Mark, Message, Saw, Seen, Step, Table,
    discount::{self, Discount},
    shown,
    terms::{Item, Plan, Shown},
};
use crate::{
    base::Micros,
    facts::{
        identity::IdentifierKind,
        json::{Flag, List, Maybe, OnlyId, Reference, Text, Whole, object},
        rows,
    },
};

object! {
    #[derive(Clone)]
    struct Subscription<'a> {
        id: Text<'a>,
        object: Text<'a>,
        /// `collection_method` before 2019-10-17.
        billing: Text<'a>,
        cancel_at: Whole,
        cancel_at_period_end: Flag,
        canceled_at: Whole,
        cancellation_details: Maybe<Cancellation<'a>>,
        collection_method: Text<'a>,
        created: Whole,
        currency: Text<'a>,
        /// On the items since 2025-03-31, as is its start.
        current_period_end: Whole,
        current_period_start: Whole,
        customer: Reference<'a, OnlyId<'a>>,
        default_payment_method: Reference<'a, OnlyId<'a>>,
        /// `discounts` since 2024.
        discount: Maybe<Discount<'a>>,
        discounts: List<Reference<'a, Discount<'a>>>,
        ended_at: Whole,
        items: List<Maybe<Item<'a>>>,
        latest_invoice: Reference<'a, OnlyId<'a>>,
        /// Of the only item, before there were items.
        plan: Maybe<Plan<'a>>,
        quantity: Whole,
        start: Whole,
        start_date: Whole,
        status: Text<'a>,
        trial_end: Whole,
        trial_start: Whole,
    }
}

object! {
    #[derive(Clone)]
    struct Cancellation<'a> {
        feedback: Text<'a>,
        reason: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<bool, DecodeError> {
    let message: Message<Subscription> = Message::of(event)?;
    let subscription = &message.object;
    if subscription.object.get().is_some_and(|o| o != "subscription") {
        return Ok(false);
    }
    let (state, prior) = message.digests(event)?;
    let id = event.required("data.object.id", subscription.id.owned())?;
    let sold = subscription.sold();
    for discount in sold.all_discounts() {
        discount::carried(event, discount)?;
    }
    let row = subscription.row(event, &id, &sold)?;
    let then = at_second(event, &row);
    let (step, ended) = (subscription.step(event, &row.status), is_over(&row.status).then_some(Mark::Closed));
    let unborn = subscription.created_at().is_none().then_some(Mark::Seen);
    let marks = shown(event, ended.into_iter().chain(unborn));
    let (table, seen, key) = (Table::SubscriptionStates, Seen::own(state, prior), then.subscription_state_id.clone());
    event.saw(Saw { table, id: key, seen, step, marks: Vec::new(), parts: Vec::new(), row: then.into() });
    let (table, seen, row) = (Table::Subscriptions, Seen::own(state, prior), row.into());
    event.saw(Saw { table, id, seen, step, marks, parts: Vec::new(), row });
    Ok(true)
}

/// The statuses that no subscription leaves.
fn is_over(status: &str) -> bool {
    matches!(status, "canceled" | "incomplete_expired")
}

fn at_second(event: &Event, row: &rows::Subscription) -> rows::SubscriptionState {
    let (subscription_id, second) = (row.subscription_id.clone(), event.at().seconds());
    rows::SubscriptionState {
        subscription_state_id: format!("{subscription_id}:{second}"),
        subscription_id,
        at: event.at(),
        created_at: row.created_at,
        status: row.status.clone(),
        customer_id: row.customer_id.clone(),
        person_id: row.person_id.clone(),
        currency: row.currency,
        mrr_micros: row.mrr_micros,
        items: row.items.clone(),
        discounts: row.discounts.clone(),
        cancel_at_period_end: row.cancel_at_period_end,
        cancel_reason: row.cancel_reason.clone(),
        order_ambiguous: false,
    }
}

impl<'a> Subscription<'a> {
    fn created_at(&self) -> Option<Micros> {
        self.created.seconds().or(self.start_date.seconds()).or(self.start.seconds())
    }

    /// Its items; of before there were any, the one that its plan is.
    fn sold(&self) -> Shown<'a> {
        let items = match self.items.get() {
            Some(items @ [_, ..]) => items.iter().filter_map(Maybe::get).cloned().collect(),
            _ => self.plan.get().map(|plan| Item::of_plan(plan, self.quantity)).into_iter().collect(),
        };
        // A version that has both names them all, and shows the last of them whole beside.
        let shown = || self.discount.get().map(|d| Reference::Object(Box::new(d.clone())));
        let whole = |named: &Reference<'a, Discount<'a>>| match shown() {
            Some(discount) if named.id() == discount.id() => discount,
            _ => named.clone(),
        };
        let discounts = match self.discounts.get() {
            Some(discounts @ [_, ..]) => discounts.iter().map(whole).collect(),
            _ => shown().into_iter().collect(),
        };
        Shown { items, discounts }
    }

    fn step(&self, event: &Event, status: &str) -> Step {
        let (phase, rank) = match event.kind() {
            "customer.subscription.created" => (0, 0),
            "customer.subscription.updated" => (1, 2),
            "customer.subscription.deleted" => (2, 3),
            _ => (1, 1),
        };
        let begun = i64::from(status != "incomplete");
        let progress = [Some(begun), self.period().0.map(|p| p.0), None];
        Step { settled: u8::from(is_over(status)), phase, rank, progress, ..Step::default() }
    }

    /// The current period, of the item that ends first where the items differ.
    fn period(&self) -> (Option<Micros>, Option<Micros>) {
        let items = || self.items.iter().filter_map(Maybe::get);
        let first = items().min_by_key(|i| i.current_period_end.0.unwrap_or(i64::MAX));
        let start = self.current_period_start.seconds().or(first.and_then(|i| i.current_period_start.seconds()));
        (start, self.current_period_end.seconds().or(first.and_then(|i| i.current_period_end.seconds())))
    }

    fn row(&self, event: &mut Event, id: &str, sold: &Shown) -> Result<rows::Subscription, DecodeError> {
        let deleted = event.kind() == "customer.subscription.deleted";
        let status = self.status.get().unwrap_or(if deleted { "canceled" } else { "unknown" });
        let terms = sold.terms(event, self.currency.get())?;
        let brings = matches!(status, "active" | "past_due");
        let (start, end) = self.period();
        let cancellation = self.cancellation_details.get();
        let mut someone = event.someone();
        someone.known_as(IdentifierKind::Customer, self.customer.id());
        let person_id = someone.person();
        event.keep(someone);
        let mrr_micros = if brings { terms.mrr_micros(event, event.at())? } else { Some(0) };
        // What is not shown of it costs something as well.
        let mrr_micros = mrr_micros.filter(|_| !brings || !self.items.has_more());
        if mrr_micros.is_none() && !event.is_fetched() {
            terms.want_unknown(event, id);
        }
        Ok(rows::Subscription {
            subscription_id: id.to_owned(),
            seen_at: event.at(),
            created_at: self.created_at(),
            status: status.to_owned(),
            customer_id: self.customer.id_owned(),
            person_id,
            currency: terms.currency,
            mrr_micros,
            items: terms.items_text(event)?,
            discounts: terms.discounts_text(event)?,
            current_period_start: start,
            current_period_end: end,
            trial_start: self.trial_start.seconds(),
            trial_end: self.trial_end.seconds(),
            cancel_at_period_end: self.cancel_at_period_end.is_true(),
            cancel_at: self.cancel_at.seconds(),
            canceled_at: self.canceled_at.seconds(),
            ended_at: self.ended_at.seconds(),
            cancel_reason: cancellation.and_then(|c| c.reason.owned()),
            cancel_feedback: cancellation.and_then(|c| c.feedback.owned()),
            collection_method: self.collection_method.owned().or(self.billing.owned()),
            default_payment_method: self.default_payment_method.id_owned(),
            latest_invoice_id: self.latest_invoice.id_owned(),
            order_ambiguous: false,
        })
    }
}
