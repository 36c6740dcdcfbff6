//! Klaviyo, the shop's pages, past orders, our own records.

use serde_json::json;

use super::{decoder, envelope, folded, names, seconds};
use crate::{
    base::{Offset, Source},
    facts::{Decoded, ObjectState, Row, identity::IdentifierKind},
    tests::facts::only,
};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/facts/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn read(source: Source, event_type: &str, payload: &str) -> Decoded {
    let mut envelope = envelope(source, "e1", event_type, seconds(1_769_850_000), payload);
    if source == Source::Klaviyo {
        let kind = if event_type == "profile.updated" { "profile" } else { "event" };
        envelope.object_type = Some(kind.to_owned());
    }
    decoder().decode(&envelope).unwrap()
}

#[test]
fn what_klaviyo_says_of_a_message_is_a_row_of_its_person() {
    let text = fixture("klaviyo_event.json");
    let decoded = read(Source::Klaviyo, "Clicked Email", &text);
    let row = only!(decoded.rows, MessageEvent);
    assert_eq!((row.channel.as_str(), row.kind.as_str(), row.message_id.as_str()), ("email", "clicked", "msg_7"));
    assert_eq!((row.campaign.as_deref(), row.variant.as_deref()), (Some("Spring"), Some("B")));
    let email = names().email("ann@example.com").unwrap();
    assert_eq!(row.person_id, Some(names().person("email", &email)));
    let kinds: Vec<_> = decoded.claims[0].identifiers.iter().map(|i| i.kind).collect();
    assert_eq!(kinds, [IdentifierKind::Email, IdentifierKind::Customer, IdentifierKind::Klaviyo]);
    let left = read(Source::Klaviyo, "Unsubscribed from Email Marketing", &text);
    assert_eq!(only!(left.rows, MessageEvent).kind, "unsubscribed");
    assert_eq!(only!(left.rows, Consent).state, "unsubscribed");
    let said = |metric| only!(read(Source::Klaviyo, metric, &text).rows, Consent).state;
    assert_eq!(
        (said("Unsubscribed from SMS").as_str(), said("Consented to Receive SMS").as_str()),
        ("unsubscribed", "subscribed")
    );
    // Klaviyo calls a text that the profile wrote a sent one.
    assert_eq!(only!(read(Source::Klaviyo, "Sent SMS", &text).rows, MessageEvent).kind, "inbound");
    let started = read(Source::Klaviyo, "Checkout Started", &text);
    let cart = only!(started.rows, CartEvent);
    assert_eq!(
        (cart.kind.as_str(), cart.cart_id.as_deref(), cart.value),
        ("checkout_started", Some("cart_1"), Some(1999))
    );
}

#[test]
fn every_metric_counts_by_its_name_and_for_what_it_was_worth() {
    let text = fixture("klaviyo_event.json");
    let event = |metric: &str, text: &str| only!(read(Source::Klaviyo, metric, text).rows, MetricEvent);
    let own = event("Joined the Club", &text);
    assert_eq!((own.metric.as_deref(), own.metric_id.as_deref()), (Some("Joined the Club"), Some("Xy1")));
    assert_eq!((own.value, own.currency.map(|c| c.to_string())), (Some(1999), Some("eur".to_owned())));
    assert!(own.person_id.is_some());
    // What is counted in points is no money, and still happened; what is not included has no name.
    let points = event("metric:Xy1", &text.replace("\"EUR\"", "\"points\""));
    assert_eq!((points.metric, points.metric_id.as_deref(), points.value), (None, Some("Xy1"), None));
}

#[test]
fn a_profile_says_what_was_agreed_to_and_what_must_not_be_written_to() {
    let decoded = read(Source::Klaviyo, "profile.updated", &fixture("klaviyo_profile.json"));
    let consents: Vec<_> = decoded
        .rows
        .iter()
        .filter_map(|r| match r {
            Row::Consent(c) => Some((c.channel.as_str(), c.purpose.as_str(), c.state.as_str(), c.at.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(
        consents,
        [
            ("email", "marketing", "suppressed", "2026-01-30T08:00:00Z".to_owned()),
            ("sms", "marketing", "subscribed", "2026-01-02T00:00:00Z".to_owned())
        ]
    );
    let suppressed = only!(folded([&decoded]), Suppression);
    assert_eq!(suppressed.destination_hash, names().email("ann@example.com").unwrap());
    assert_eq!(
        (suppressed.reason.as_deref(), suppressed.at.to_string().as_str()),
        (Some("unsubscribe"), "2026-01-30T08:00:00Z")
    );
    let profile = only!(folded([&decoded]), Profile);
    assert_eq!(profile.email_hash, names().email("ann@example.com"));
    assert_eq!(
        (profile.email_consent.as_deref(), profile.sms_consent.as_deref()),
        (Some("suppressed"), Some("subscribed"))
    );
    assert!(profile.person_id.is_some() && !profile.order_ambiguous);
    let attributes = &decoded.claims[0].attributes;
    assert_eq!((attributes.timezone.as_deref(), attributes.locale.as_deref()), (Some("Europe/Paris"), Some("fr-FR")));
    // A country by its name is no code.
    assert_eq!(attributes.country, None);
    assert_eq!(attributes.phone.as_ref().map(|p| p.kind.as_str()), Some("mobile"));
}

#[test]
fn a_profile_agrees_by_channel_and_purpose() {
    let agreement = |consent: &str| json!({"consent": consent, "consent_timestamp": "2026-01-02T00:00:00+00:00"});
    let mut push = agreement("SUBSCRIBED");
    push["can_receive_push_marketing"] = json!(false);
    let profile = json!({"type": "profile", "id": "P1", "attributes": {"subscriptions": {
        "mobile_push": {"marketing": push},
        "whatsapp": {"marketing": agreement("UNSUBSCRIBED"), "transactional": agreement("SUBSCRIBED"),
            "conversational": agreement("SUBSCRIBED")}}}});
    let decoded = read(Source::Klaviyo, "profile.updated", &profile.to_string());
    let consents: Vec<_> = decoded
        .rows
        .iter()
        .filter_map(|r| match r {
            Row::Consent(c) => Some(format!("{} {} {}", c.channel, c.purpose, c.state)),
            _ => None,
        })
        .collect();
    let wanted = [
        "push marketing suppressed",
        "whatsapp marketing unsubscribed",
        "whatsapp transactional subscribed",
        "whatsapp conversational subscribed",
    ];
    assert_eq!(consents, wanted);
}

#[test]
fn the_shops_pages_become_views_and_cart_events() {
    let mut decoded: Vec<Decoded> = Vec::new();
    for (i, line) in fixture("storefront.ndjson").lines().enumerate() {
        let e = envelope(Source::Storefront, &format!("m{i}"), "track", seconds(1_769_850_000 + i as i64), line);
        decoded.push(decoder().decode(&e).unwrap());
    }
    let page = only!(decoded[0].rows, PageView);
    assert_eq!((page.path.as_deref(), page.referrer_host.as_deref()), (Some("/socks"), Some("news.example")));
    assert_eq!((page.campaign.as_deref(), page.locale.as_deref()), (Some("spring"), Some("fr-FR")));
    assert!(page.ip_hash.is_some());
    let seen = only!(decoded[1].rows, ProductView);
    assert_eq!((seen.product_id.as_deref(), seen.price), (Some("17"), Some(1299)));
    let added = only!(decoded[2].rows, CartEvent);
    assert_eq!((added.kind.as_str(), added.quantity, added.price), ("added", Some(2), Some(1299)));
    assert_eq!(added.cart_id.as_deref(), Some("cart_1"));
    let ordered = only!(decoded[4].rows, CartEvent);
    assert_eq!(
        (ordered.kind.as_str(), ordered.value, ordered.order_ref.as_deref()),
        ("ordered", Some(2598), Some("2001"))
    );
    // Signing in ties the browser to the user and the address.
    assert!(decoded[3].rows.is_empty() && decoded[3].handled);
    let kinds: Vec<_> = decoded[3].claims[0].identifiers.iter().map(|i| i.kind).collect();
    assert_eq!(kinds, [IdentifierKind::Email, IdentifierKind::User, IdentifierKind::Anonymous]);
    assert_eq!(decoded[0].claims[0].identifiers.len(), 1);
    assert!(!decoded[5].handled);
    let bad =
        r#"{"type":"track","event":"Product Added","anonymousId":"a","properties":{"price":-3,"currency":"EUR"}}"#;
    let error =
        decoder().decode(&envelope(Source::Storefront, "m9", "track", seconds(1), bad)).unwrap_err().to_string();
    assert!(error.contains("properties.price is -3") && error.contains("m9"), "{error}");
}

#[test]
fn past_orders_and_their_refunds() {
    let order = r#"{"order_ref":"536365","customer_ref":17850,"ordered_at":"2010-12-01T08:26:00","country":"United Kingdom",
        "currency":"gbp","lines":[{"sku":"85123A","quantity":6,"unit_price":"2.55"},{"sku":"71053","quantity":6,"unit_price":"3.39"}],"amount":3564}"#;
    let row = |decoded: Decoded| {
        let observation = decoded.observations.into_iter().next().unwrap();
        let mut state = ObjectState::new(observation.key().clone());
        state.admit(observation, Offset(0));
        [state.row().unwrap()]
    };
    let imported = only!(row(read(Source::Orders, "order.imported", order)), ImportedOrder);
    assert_eq!(
        (imported.order_id.as_str(), imported.amount, imported.lines, imported.quantity),
        ("536365", 3564, 2, 12)
    );
    assert_eq!(
        (imported.customer_ref.as_deref(), imported.country.as_deref()),
        (Some("17850"), Some("United Kingdom"))
    );
    assert_eq!(imported.person_id, Some(names().person("order_ref", &names().hash("order_ref", "17850"))));
    let refund =
        r#"{"order_ref":"C536379","refund_id":"C536379","customer_ref":"14527","currency":"GBP","amount":2750}"#;
    let refunded = only!(row(read(Source::Orders, "order.refunded", refund)), Refund);
    assert_eq!(
        (refunded.refund_id.as_str(), refunded.amount, refunded.status.as_str()),
        ("C536379", 2750, "succeeded")
    );
    assert_eq!(refunded.currency.as_str(), "gbp");
    let anonymous = read(Source::Orders, "order.anonymous", order);
    assert!(anonymous.handled && anonymous.observations.is_empty() && anonymous.rows.is_empty());
}

#[test]
fn a_messages_records_fold_in_any_order() {
    let record = |state: &str, rest: &str| {
        let at = 1_769_850_000_000_000u64 + state.len() as u64;
        let payload = format!(r#"{{"message_key":"k1","channel":"sms","at":{at}{rest}}}"#);
        let e = envelope(Source::Tillstream, &format!("k1:{state}"), &format!("message.{state}"), seconds(1), &payload);
        decoder().decode(&e).unwrap().observations.into_iter().next().unwrap()
    };
    let records = [
        record("queued", r#","trigger":"win_back","template":"t1","person_id":"per_1","destination_hash":"d1""#),
        record("claimed", ""),
        record("unknown", r#","reason":"timeout""#),
        record("sent", r#","provider":"twilio","provider_id":"SM1""#),
        record("delivered", ""),
    ];
    for first in 0..5 {
        let mut state = ObjectState::new(records[0].key().clone());
        for i in 0..5 {
            state.admit(records[(first + i * 3) % 5].clone(), Offset(i as u64));
        }
        let row = only!([state.row().unwrap()], Message);
        assert_eq!(
            (row.state.as_str(), row.provider_id.as_deref(), row.trigger.as_deref()),
            ("delivered", Some("SM1"), Some("win_back"))
        );
        assert_eq!(row.queued_at.unwrap().0 % 100, 6);
        assert_eq!(
            (row.claimed_at.unwrap().0 % 100, row.sent_at.unwrap().0 % 100, row.settled_at.unwrap().0 % 100),
            (7, 4, 9)
        );
        assert_eq!(row.reason, None);
        let bytes = state.to_bytes().unwrap();
        assert_eq!(ObjectState::from_bytes(&bytes).unwrap(), state);
    }
    let payload = r#"{"channel":"sms","destination_hash":"d1","reason":"STOP","at":5}"#;
    let decoded = read(Source::Tillstream, "suppression.added", payload);
    let suppressed = only!(folded([&decoded]), Suppression);
    assert_eq!((suppressed.at.0, suppressed.source.as_str(), suppressed.lifted), (5, "tillstream", false));
}

#[test]
fn the_last_word_holds_whatever_order_stop_and_start_come_in() {
    let text = |second: i64, id: &str, body: &str| {
        let payload = format!(r#"{{"MessageSid":"{id}","From":"+447400123456","Body":"{body}"}}"#);
        decoder().decode(&envelope(Source::Twilio, id, "message.inbound", seconds(second), &payload)).unwrap()
    };
    let refused = r#"{"channel":"sms","destination_hash":"HASH","reason":"21610","provider":"twilio","at":25000000}"#;
    let phone = crate::base::E164::parse("+447400123456", None).unwrap();
    let refused = read(Source::Tillstream, "suppression.added", &refused.replace("HASH", &names().phone(&phone)));
    let words = [
        text(10, "SM1", "STOP"),
        text(20, "SM2", "Start"),
        refused,
        text(30, "SM3", "unstop"),
        text(30, "SM4", "stop"),
    ];
    // After each of them, what holds by then.
    for (until, lifted) in [(1, false), (2, true), (3, false), (4, true), (5, false)] {
        let known: Vec<&Decoded> = words[..until].iter().collect();
        for first in 0..until {
            let mut turned = known.clone();
            turned.rotate_left(first);
            turned.reverse();
            let row = only!(folded(turned), Suppression);
            assert_eq!((row.lifted, row.source.as_str()), (lifted, "twilio"), "{until} words, from {first}");
        }
    }
    let kinds: Vec<_> = words.iter().flat_map(|w| &w.rows).collect();
    assert!(kinds.iter().all(|r| matches!(r, Row::MessageEvent(m) if m.kind == "unsubscribed")), "{kinds:?}");
    assert_eq!(kinds.len(), 2);
}

#[test]
fn a_receipt_becomes_a_message_event() {
    let status = |status: &str| {
        let payload = format!(r#"{{"MessageSid":"SM1","MessageStatus":"{status}","To":"+447400123456"}}"#);
        let mut e =
            envelope(Source::Twilio, &format!("SM1:{status}"), &format!("message.{status}"), seconds(9), &payload);
        e.object_id = Some("SM1".to_owned());
        decoder().decode(&e).unwrap()
    };
    for (told, kind) in [("sent", "sent"), ("delivered", "delivered"), ("read", "opened"), ("undelivered", "failed")] {
        let row = only!(status(told).rows, MessageEvent);
        assert_eq!((row.message_id.as_str(), row.kind.as_str(), row.channel.as_str()), ("SM1", kind, "sms"));
        assert_eq!(row.source, "twilio");
    }
    assert!(!status("queued").handled && status("queued").rows.is_empty());
}
