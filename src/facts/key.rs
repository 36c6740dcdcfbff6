//! Under which key an event stands in a log that is kept in partitions: events of one key are in one of them, in the order
//! in which they were taken.
//!
//! A payment's events go by its payment intent, else by its charge, else by the object; what says who is one person with
//! whom goes by one key for all. Which key that is decides nothing about the rows, which are a function of the set of events:
//! it spreads the load and keeps together what is folded together.

use super::json::{Maybe, OnlyId, Reference, object};
use crate::base::{Envelope, Source};

/// Of all events that link identities.
const IDENTITIES: &str = "identities";

object! {
    struct Event<'a> {
        data: Maybe<Data<'a>>,
    }
}

object! {
    struct Data<'a> {
        object: Maybe<Object<'a>>,
    }
}

object! {
    struct Object<'a> {
        payment_intent: Reference<'a, OnlyId<'a>>,
        charge: Reference<'a, OnlyId<'a>>,
    }
}

/// See the module.
pub fn partition_key(envelope: &Envelope) -> String {
    if links_identities(envelope) {
        return IDENTITIES.to_owned();
    }
    payment(envelope)
        .or_else(|| envelope.object_id.clone())
        .or_else(|| envelope.person_hint.clone())
        .unwrap_or_else(|| envelope.event_id.clone())
}

fn links_identities(envelope: &Envelope) -> bool {
    match envelope.source {
        Source::Stripe => envelope.object_type.as_deref() == Some("customer"),
        Source::Klaviyo => envelope.object_type.as_deref() == Some("profile"),
        Source::Storefront => matches!(envelope.event_type.as_str(), "identify" | "alias"),
        Source::Orders | Source::Tillstream | Source::Twilio | Source::Aliyun => false,
    }
}

/// The payment intent, else the charge, that a Stripe event is about.
fn payment(envelope: &Envelope) -> Option<String> {
    if envelope.source != Source::Stripe || envelope.object_type.as_deref() == Some("payment_intent") {
        return None;
    }
    let event: Event = serde_json::from_slice(&envelope.payload).ok()?;
    let object = event.data.get()?.object.get()?;
    object.payment_intent.id_owned().or_else(|| {
        let is_charge = envelope.object_type.as_deref() == Some("charge");
        if is_charge { envelope.object_id.clone() } else { object.charge.id_owned() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::{Digest, Micros, Via};

    fn envelope(source: Source, kind: &str, object: Option<(&str, &str)>, payload: &Value) -> Envelope {
        Envelope {
            source,
            event_id: "evt_1".to_owned(),
            event_type: kind.to_owned(),
            api_version: None,
            account: None,
            livemode: true,
            occurred_at: Micros(0),
            received_at: Micros(0),
            object_type: object.map(|(kind, _)| kind.to_owned()),
            object_id: object.map(|(_, id)| id.to_owned()),
            person_hint: None,
            digest: Digest(0),
            via: Via::Webhook,
            payload: payload.to_string().into(),
        }
    }

    fn stripe(kind: &str, id: &str, object: Value) -> String {
        let payload = json!({"id": "evt_1", "data": {"object": object, "previous_attributes": {"charge": "ch_no"}}});
        partition_key(&envelope(Source::Stripe, "any", Some((kind, id)), &payload))
    }

    #[test]
    fn a_payment_s_events_go_by_its_intent_else_its_charge_else_the_object() {
        assert_eq!(stripe("payment_intent", "pi_1", json!({"latest_charge": "ch_1"})), "pi_1");
        assert_eq!(stripe("charge", "ch_1", json!({"payment_intent": "pi_1"})), "pi_1");
        assert_eq!(stripe("charge", "ch_1", json!({"payment_intent": {"id": "pi_1", "charges": []}})), "pi_1");
        assert_eq!(stripe("charge", "ch_1", json!({"payment_intent": null})), "ch_1");
        assert_eq!(stripe("refund", "re_1", json!({"payment_intent": null, "charge": "ch_1"})), "ch_1");
        assert_eq!(stripe("checkout.session", "cs_1", json!({"payment_intent": "pi_1"})), "pi_1");
        assert_eq!(stripe("payout", "po_1", json!({"charge": 7})), "po_1");
        assert_eq!(stripe("payout", "po_1", json!([])), "po_1", "whatever its shape");
    }

    #[test]
    fn what_links_identities_goes_by_one_key() {
        let key = |source, kind, object| partition_key(&envelope(source, kind, object, &json!({})));
        assert_eq!(key(Source::Stripe, "customer.created", Some(("customer", "cus_1"))), IDENTITIES);
        assert_eq!(key(Source::Klaviyo, "profile.updated", Some(("profile", "01H"))), IDENTITIES);
        assert_eq!(key(Source::Storefront, "identify", None), IDENTITIES);
        assert_eq!(key(Source::Storefront, "Product Added", Some(("cart", "c1"))), "c1");
        assert_eq!(key(Source::Tillstream, "message.claimed", Some(("message", "m1"))), "m1");
        assert_eq!(key(Source::Storefront, "page", None), "evt_1");
    }
}
