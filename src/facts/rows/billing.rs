//! Rows on what is billed again and again: subscriptions, their invoices, and what paid those.
//!
//! Every amount is in minor units of the `currency` beside it. Lists (`taxes`, `items`, `discounts`) are JSON texts, with
//! their keys sorted; `core.invoice_taxes` is the table of the first.

use super::row;
use crate::base::{Currency, Micros, PersonId};

row! {
    /// One row an invoice. A draft that was deleted has the status `deleted`.
    Invoice {
        invoice_id: String,
        created_at: Option<Micros>,
        status: String,
        billing_reason: Option<String>,
        collection_method: Option<String>,
        subscription_id: Option<String>,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        currency: Currency,
        /// Negative where credit exceeds what is billed.
        total: Option<i64>,
        total_excl_tax: Option<i64>,
        total_tax: Option<i64>,
        amount_due: Option<i64>,
        amount_paid: Option<i64>,
        amount_remaining: Option<i64>,
        attempt_count: Option<i64>,
        next_payment_attempt: Option<Micros>,
        due_at: Option<Micros>,
        finalized_at: Option<Micros>,
        paid_at: Option<Micros>,
        /// When a try to collect it first failed, and when it was paid after that.
        first_failed_at: Option<Micros>,
        recovered_at: Option<Micros>,
        taxes: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a payment of an invoice: the pair of the two, told by the invoice before 2025-03-31, and since by an object
    /// of its own.
    InvoicePayment {
        /// `invoice_id:payment_intent_id`, or `invoice_id:charge_id` where no intent is.
        invoice_payment_id: String,
        invoice_id: String,
        payment_intent_id: Option<String>,
        charge_id: Option<String>,
        created_at: Option<Micros>,
        status: String,
        amount_paid: Option<i64>,
        currency: Currency,
        paid_at: Option<Micros>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a subscription.
    Subscription {
        subscription_id: String,
        /// Of the event that it is as of.
        seen_at: Micros,
        created_at: Option<Micros>,
        status: String,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        currency: Option<Currency>,
        /// What it brings a month while it is `active` or `past_due`, in millionths of a major unit: after discounts that
        /// last, without tax and without what is metered. Stored as null where the event only names a discount, or a price in
        /// tiers; readers see it with what is known of that by now (`sql/core/with_discounts.sql`).
        mrr_micros: Option<i64>,
        items: String,
        discounts: Option<String>,
        current_period_start: Option<Micros>,
        current_period_end: Option<Micros>,
        trial_start: Option<Micros>,
        trial_end: Option<Micros>,
        cancel_at_period_end: bool,
        cancel_at: Option<Micros>,
        canceled_at: Option<Micros>,
        ended_at: Option<Micros>,
        cancel_reason: Option<String>,
        cancel_feedback: Option<String>,
        collection_method: Option<String>,
        default_payment_method: Option<String>,
        latest_invoice_id: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a subscription and second in which it was seen: what `core.subscription_intervals` is made of.
    SubscriptionState {
        /// `subscription_id:` and the second.
        subscription_state_id: String,
        subscription_id: String,
        at: Micros,
        created_at: Option<Micros>,
        status: String,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        currency: Option<Currency>,
        mrr_micros: Option<i64>,
        items: String,
        discounts: Option<String>,
        cancel_at_period_end: bool,
        cancel_reason: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a coupon: what may be taken off.
    Coupon {
        coupon_id: String,
        created_at: Option<Micros>,
        name: Option<String>,
        /// Of a hundred.
        percent_off: Option<f64>,
        /// Minor units of `currency`.
        amount_off: Option<i64>,
        currency: Option<Currency>,
        /// `once`, `repeating` or `forever`.
        duration: Option<String>,
        duration_in_months: Option<i64>,
        redeem_by: Option<Micros>,
        valid: Option<bool>,
        deleted_at: Option<Micros>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a discount: a coupon's use by a customer, or for a subscription or an item of one.
    Discount {
        discount_id: String,
        coupon_id: Option<String>,
        promotion_code_id: Option<String>,
        customer_id: Option<String>,
        subscription_id: Option<String>,
        subscription_item_id: Option<String>,
        invoice_id: Option<String>,
        /// When it began to be taken off.
        created_at: Option<Micros>,
        ends_at: Option<Micros>,
        deleted_at: Option<Micros>,
        order_ambiguous: bool,
    }
}
