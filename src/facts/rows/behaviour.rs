//! Rows of what people did, each one event that is written once; and what their last word was on being written to.

use super::row;
use crate::base::{Currency, Micros, PersonId};

row! {
    /// One row a thing done with a cart.
    CartEvent {
        event_id: String,
        cart_id: Option<String>,
        /// `added`, `removed`, `viewed`, `checkout_started` or `ordered`.
        kind: String,
        product_id: Option<String>,
        quantity: Option<i64>,
        /// Minor units of `currency`, of one piece.
        price: Option<i64>,
        /// Minor units of `currency`, of the whole cart or order.
        value: Option<i64>,
        currency: Option<Currency>,
        occurred_at: Micros,
        person_id: Option<PersonId>,
        order_ref: Option<String>,
        source: String,
    }
}

row! {
    /// One row a page seen.
    PageView {
        event_id: String,
        person_id: Option<PersonId>,
        occurred_at: Micros,
        name: Option<String>,
        /// Without host and query, which may hold personal data.
        path: Option<String>,
        referrer_host: Option<String>,
        campaign: Option<String>,
        campaign_source: Option<String>,
        campaign_medium: Option<String>,
        locale: Option<String>,
        timezone: Option<String>,
        ip_hash: Option<String>,
        source: String,
    }
}

row! {
    /// One row a product seen.
    ProductView {
        event_id: String,
        person_id: Option<PersonId>,
        occurred_at: Micros,
        product_id: Option<String>,
        name: Option<String>,
        category: Option<String>,
        price: Option<i64>,
        currency: Option<Currency>,
        cart_id: Option<String>,
        source: String,
    }
}

row! {
    /// One row an event of a Klaviyo metric, whatever the metric.
    MetricEvent {
        event_id: String,
        /// The metric's name, as `Placed Order`; null where the event named it by its id alone.
        metric: Option<String>,
        metric_id: Option<String>,
        person_id: Option<PersonId>,
        /// Minor units of `currency`; null where the event tells no currency of it.
        value: Option<i64>,
        currency: Option<Currency>,
        campaign: Option<String>,
        flow: Option<String>,
        variant: Option<String>,
        occurred_at: Micros,
        source: String,
    }
}

row! {
    /// One row a thing that happened to a message: sent, delivered, opened, …
    MessageEvent {
        event_id: String,
        /// The provider's id of the message that was sent, where it tells; else the event's.
        message_id: String,
        person_id: Option<PersonId>,
        channel: String,
        /// `delivered`, `opened`, `clicked`, `bounced`, `unsubscribed`, `failed`, or `inbound`: a text that the person wrote.
        kind: String,
        campaign: Option<String>,
        flow: Option<String>,
        variant: Option<String>,
        occurred_at: Micros,
        source: String,
    }
}

row! {
    /// One row a statement on what a person agreed to. The latest by `at` holds.
    Consent {
        event_id: String,
        person_id: Option<PersonId>,
        channel: String,
        purpose: String,
        /// `subscribed`, `unsubscribed`, `never_subscribed`, or `suppressed`: agreed, but not to be written to.
        state: String,
        source: String,
        wording: Option<String>,
        at: Micros,
        /// When the source said so.
        seen_at: Micros,
    }
}

row! {
    /// One row a destination that must not be written to, and where that was said: the latest word there.
    Suppression {
        /// `channel:destination_hash:source`.
        suppression_id: String,
        event_id: String,
        channel: String,
        destination_hash: String,
        reason: Option<String>,
        at: Micros,
        source: String,
        /// The latest word takes the suppression back; readers do not see such rows.
        lifted: bool,
    }
}
