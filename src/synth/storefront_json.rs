//! What the shop's page sends as people use it: messages of the Segment tracking API, as analytics.js writes them.
//!
//! Prices are JSON numbers in major units. `sentAt` is the browser's clock when the batch left it.

use super::{
    catalog::major,
    letter::{Again, Letter, browser_time},
    people::Person,
    shape::Slot,
    stripe_json::shape,
};

shape!(MESSAGE, "shapes/storefront.json");

/// One message of a browser.
pub(super) struct Message<'a> {
    pub id: String,
    pub anonymous: &'a str,
    /// Where somebody is signed in.
    pub user: Option<&'a str>,
    /// Microseconds since 1970.
    pub at: i64,
    pub sent: i64,
    pub place: &'a Place,
    pub body: &'a Body,
}

/// The page that somebody is on.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub path: String,
    pub title: &'static str,
    pub search: String,
    pub referrer: &'static str,
}

/// What a message says, JSON between `"userId"` and `"context"`.
pub(super) enum Body {
    Page(&'static str),
    Track(&'static str, String),
    Identify(String),
}

impl Body {
    /// The storefront's word for what happened: the message's type, or a tracked event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Page(_) => "page",
            Body::Track(name, _) => name,
            Body::Identify(_) => "identify",
        }
    }
}

pub(super) fn message(person: &Person, of: &Message) -> Letter {
    let Place { path, title, search, referrer } = of.place;
    let (kind, body) = match of.body {
        Body::Page(name) => (
            "page",
            format!(
                r#""name":"{name}","properties":{{"path":"{path}","referrer":"{referrer}","search":"{search}","title":"{title}","url":"https://shop.example.com{path}{search}"}}"#
            ),
        ),
        Body::Track(name, properties) => ("track", format!(r#""event":"{name}","properties":{properties}"#)),
        Body::Identify(traits) => ("identify", format!(r#""traits":{traits}"#)),
    };
    let sent = browser_time(of.sent);
    let mut line = Vec::with_capacity(1_024);
    MESSAGE.fill(
        &[
            ("type", kind.into()),
            ("message_id", (&of.id).into()),
            ("anonymous_id", of.anonymous.into()),
            ("user_id", of.user.into()),
            ("body", Slot::Json(&body)),
            ("ip", (&person.ip).into()),
            ("locale", person.country.locale.into()),
            ("path", path.into()),
            ("referrer", (*referrer).into()),
            ("search", search.into()),
            ("title", (*title).into()),
            ("path_text", path.into()),
            ("timezone", person.country.zone.into()),
            ("user_agent", person.agent.into()),
            ("timestamp", (&browser_time(of.at)).into()),
            ("sent_at", (&sent).into()),
        ],
        &mut line,
    );
    let end = line.len() - 2;
    Letter { again: Again::SentAt(end - sent.len()..end), line, id: None }
}

/// Who somebody says they are.
pub(super) fn traits(person: &Person, email: &str, phone: bool) -> String {
    let mut traits = Vec::with_capacity(256);
    traits.extend_from_slice(br#"{"email":"#);
    Slot::from(email).write(&mut traits);
    for (key, value) in [("firstName", person.first_name), ("lastName", person.last_name)] {
        traits.extend_from_slice(format!(r#","{key}":"#).as_bytes());
        Slot::from(value).write(&mut traits);
    }
    if let Some(phone) = person.phone.as_ref().filter(|_| phone) {
        traits.extend_from_slice(format!(r#","phone":"{phone}""#).as_bytes());
    }
    traits.push(b'}');
    String::from_utf8(traits).unwrap_or_default()
}

/// A product with its price, as part of an event's properties.
pub(super) fn product_properties(
    cart: Option<&str>,
    product: &super::catalog::Product,
    quantity: Option<u8>,
    currency: &str,
) -> String {
    let price = major(product.price(currency), currency);
    let (cart, quantity) = (
        cart.map(|c| format!(r#""cart_id":"{c}","#)).unwrap_or_default(),
        quantity.map(|q| format!(r#","quantity":{q}"#)).unwrap_or_default(),
    );
    format!(
        r#"{{{cart}"product_id":"{}","sku":"{}","name":"{}","category":"{}","price":{price},"currency":"{}"{quantity}}}"#,
        product.id,
        product.id,
        product.name,
        product.category,
        currency.to_ascii_uppercase(),
    )
}

/// A whole cart, and its order's number once it is bought.
pub(super) fn cart_properties(cart: &str, order: Option<&str>, value: i64, currency: &str) -> String {
    let order = order.map(|o| format!(r#","order_id":"{o}""#)).unwrap_or_default();
    let value = major(value, currency);
    format!(r#"{{"cart_id":"{cart}"{order},"value":{value},"currency":"{}"}}"#, currency.to_ascii_uppercase())
}
