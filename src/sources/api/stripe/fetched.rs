//! Answers of the API, made events.
//!
//! An object that was listed is made an event of type `<object>.fetched`, with the object as it came inside. Its id
//! (`fetched:…`) holds a digest of the object, so that the same state is the same event whenever it is listed; its time is that of
//! the answer, by Stripe's clock, at which the object was so: no event of before can outweigh it, and any later one does. An
//! object that was asked for by its id is made the same, but for its id, which holds that time: what was so before and is so
//! again is news. What a payout pays out is listed too: ids then end with the payout's (`fetched:…:po_…`), which the envelope
//! names, and our own word, of type `payout.listed`, says that the list was read to its end.

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::super::{List, Page, envelope};
use crate::{
    base::{Digest, Envelope, Micros, Source},
    facts::LISTED,
    net::Response,
};

/// How the type ends that a fetched object gets.
pub(super) const FETCHED: &str = ".fetched";

/// The version whose shapes the objects of lists have. Events keep the version that they were made in.
pub(super) const VERSION: &str = "2026-07-29.dahlia";

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    has_more: bool,
}

/// What a page needs of an item.
#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default)]
    livemode: Option<bool>,
}

/// An object in the shape of an event.
#[derive(Serialize)]
struct Fetched<'a> {
    id: String,
    object: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    api_version: &'static str,
    created: i64,
    livemode: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payout: Option<&'a str>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    object: &'a RawValue,
}

/// Of what its events are made, beside the text.
pub(super) struct Answer<'a> {
    /// The world that the key sees.
    pub live: bool,
    /// The connected account that was asked of.
    pub account: Option<&'a str>,
    pub asked_at: Micros,
    pub now: Micros,
}

/// By Stripe's clock, where it tells.
pub(super) fn asked_at(response: &Response, now: Micros) -> Micros {
    response.header("date").and_then(date).unwrap_or(now)
}

/// A single object; `Err`: why it is none.
pub(super) fn object_of(list: List, body: &[u8], answer: &Answer) -> Result<Envelope, String> {
    let raw: &RawValue = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let item: Item = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
    let kind = kind(list).ok_or("it is of no object")?;
    let id = || Ok(format!("fetched:{}:{}@{}", item.id, Digest::of_json(raw.get())?, answer.asked_at.seconds()));
    let made = Made { kind, payout: None, answer };
    let text = id().and_then(|id| made.fetched(raw, id, &item)).map_err(|e| e.to_string())?;
    Ok(envelope(Source::Stripe, text, answer.now))
}

/// `Err`: it is of another object than was asked for.
pub(super) fn is_of(told: Envelope, of_type: &str, id: &str) -> Result<Envelope, String> {
    let (shown, of) = (told.object_id.as_deref(), told.object_type.as_deref());
    if (of, shown) == (Some(of_type), Some(id)) {
        return Ok(told);
    }
    Err(format!("it shows {} {}", of.unwrap_or("an object of no type"), shown.unwrap_or("without an id")))
}

/// A page's items, of one payout where that is given; `Err`: why it is none.
pub(super) fn read((list, payout): (List, Option<&str>), body: &[u8], answer: &Answer) -> Result<Page, String> {
    let listed: Listed = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mut page = Page { envelopes: Vec::with_capacity(listed.data.len()), next: None, reached: None };
    let mut last = None;
    for raw in listed.data {
        let item: Item = serde_json::from_str(raw.get()).map_err(|e| format!("an item of it: {e}"))?;
        page.reached = item.created.and_then(Micros::from_seconds).or(page.reached);
        let text = match kind(list) {
            None => raw.get().as_bytes().to_vec(),
            Some(kind) => {
                let of = payout.map(|payout| format!(":{payout}")).unwrap_or_default();
                let id = || Ok(format!("fetched:{}:{}{of}", item.id, Digest::of_json(raw.get())?));
                let made = Made { kind, payout, answer };
                id().and_then(|id| made.fetched(raw, id, &item)).map_err(|e| e.to_string())?
            }
        };
        page.envelopes.push(envelope(Source::Stripe, text, answer.now));
        last = Some(item.id);
    }
    if listed.has_more {
        page.next = Some(last.ok_or("it is empty and says that there is more")?);
    }
    Ok(page)
}

/// Our own word that the list of what a payout is made of was read to its end.
pub(super) fn listed_whole(payout: &str, answer: &Answer) -> Envelope {
    let word = json!({"id": format!("listed:{payout}"), "object": "event", "type": LISTED, "livemode": answer.live,
        "account": answer.account, "created": answer.asked_at.seconds(),
        "data": {"object": {"id": payout, "object": "payout"}}});
    envelope(Source::Stripe, word.to_string().into_bytes(), answer.now)
}

/// The type that a listed object gets; `None` for what is an event already.
pub(super) fn kind(list: List) -> Option<&'static str> {
    match list {
        List::StripeRefunds => Some("refund.fetched"),
        List::StripeCharges => Some("charge.fetched"),
        List::StripePaymentIntents => Some("payment_intent.fetched"),
        List::StripeSessions => Some("checkout.session.fetched"),
        List::StripeCustomers => Some("customer.fetched"),
        List::StripeDisputes => Some("dispute.fetched"),
        List::StripeInvoices => Some("invoice.fetched"),
        List::StripeSubscriptions => Some("subscription.fetched"),
        List::StripePayouts => Some("payout.fetched"),
        List::StripeWarnings => Some("radar.early_fraud_warning.fetched"),
        List::StripeReviews => Some("review.fetched"),
        List::StripeCoupons => Some("coupon.fetched"),
        List::StripeBalanceTransactions => Some("balance_transaction.fetched"),
        List::StripeEvents | List::KlaviyoEvents | List::KlaviyoProfiles => None,
    }
}

/// What the events of an answer share.
struct Made<'a> {
    kind: &'static str,
    /// Whose parts were listed.
    payout: Option<&'a str>,
    answer: &'a Answer<'a>,
}

impl Made<'_> {
    fn fetched(&self, object: &RawValue, id: String, item: &Item) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Fetched {
            id,
            object: "event",
            kind: self.kind,
            api_version: VERSION,
            created: self.answer.asked_at.seconds(),
            // Refunds do not say; a key sees one world alone.
            livemode: item.livemode.unwrap_or(self.answer.live),
            account: self.answer.account,
            payout: self.payout,
            data: Data { object },
        })
    }
}

/// An HTTP date.
fn date(text: &str) -> Option<Micros> {
    let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    Micros::from_seconds(at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Via, time::HOUR};

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn answered(live: bool, asked_at: Micros) -> Answer<'static> {
        Answer { live, account: None, asked_at, now: NOW }
    }

    fn page(list: List, body: &str) -> Result<Page, String> {
        read((list, None), body.as_bytes(), &answered(false, NOW))
    }

    #[test]
    fn a_listed_event_is_the_event_of_its_webhook() {
        let event = r#"{"id":"evt_1","type":"charge.succeeded","created":5,"data":{"object":{"id":"ch_1","n":1.50}}}"#;
        let body = format!(r#"{{"object":"list","data":[{event}],"has_more":true}}"#);
        let page = page(List::StripeEvents, &body).unwrap();
        let webhook = crate::sources::decode(Source::Stripe, &bytes::Bytes::from(event), NOW).unwrap();
        assert_eq!(page.envelopes, [webhook.by(Via::Api)]);
        assert_eq!((page.next.as_deref(), page.reached), (Some("evt_1"), Some(Micros(5_000_000))));
    }

    #[test]
    fn a_listed_object_is_the_same_event_as_long_as_it_is_the_same() {
        let listed = |amount: u32, at| {
            let body = format!(r#"{{"data":[{{"object":"refund","id":"re_1","amount":{amount}}}],"has_more":false}}"#);
            read((List::StripeRefunds, None), body.as_bytes(), &answered(true, at)).unwrap().envelopes.remove(0)
        };
        let first = listed(5, NOW);
        assert_eq!(first.event_type, "refund.fetched");
        assert_eq!((first.object_type.as_deref(), first.object_id.as_deref()), (Some("refund"), Some("re_1")));
        assert!(first.livemode, "a refund does not say; a live key sees live refunds");
        assert_eq!(first.occurred_at, NOW);
        assert_eq!(first.identity().key(), listed(5, NOW.plus(HOUR)).identity().key());
        assert_ne!(first.identity().key(), listed(6, NOW).identity().key());
        assert_ne!(first.event_id, listed(6, NOW).event_id);
    }

    #[test]
    fn an_object_that_was_asked_for_is_an_event_of_that_moment() {
        let body = br#"{"object":"charge","id":"ch_1","livemode":false}"#;
        let asked = |at| object_of(List::StripeCharges, body, &answered(true, at));
        let (first, again) = (asked(NOW).unwrap(), asked(NOW.plus(HOUR)).unwrap());
        assert_eq!((first.event_type.as_str(), first.object_id.as_deref()), ("charge.fetched", Some("ch_1")));
        assert_eq!((first.livemode, first.occurred_at), (false, NOW));
        assert_ne!(first.event_id, again.event_id);
        assert_ne!(first.identity().key(), again.identity().key());
        assert_eq!(is_of(first.clone(), "charge", "ch_1"), Ok(first.clone()));
        assert_eq!(is_of(first.clone(), "charge", "ch_2").unwrap_err(), "it shows charge ch_1");
        assert!(is_of(first, "customer", "ch_1").is_err());
        let none = object_of(List::StripeCharges, b"<html>", &answered(true, NOW)).unwrap_err();
        assert!(none.contains("expected value"), "{none}");
        let none = object_of(List::StripeCharges, br#"{"error":{}}"#, &answered(true, NOW)).unwrap_err();
        assert!(none.contains("id"), "{none}");
        let connected = Answer { account: Some("acct_1"), ..answered(true, NOW) };
        let told = object_of(List::StripeCharges, body, &connected).unwrap();
        assert_eq!((told.account.as_deref(), asked(NOW).unwrap().account), (Some("acct_1"), None));
    }

    #[test]
    fn what_is_no_page_says_why() {
        assert!(page(List::StripeEvents, "{}").unwrap_err().contains("data"));
        assert!(page(List::StripeEvents, r#"{"data":[],"has_more":true}"#).unwrap_err().contains("empty"));
        assert!(page(List::StripeEvents, r#"{"data":[7],"has_more":false}"#).unwrap_err().contains("item"));
    }

    #[test]
    fn the_answers_date_is_read() {
        assert_eq!(date("Sat, 31 Jan 2026 09:30:00 GMT").unwrap().to_string(), "2026-01-31T09:30:00Z");
    }
}
