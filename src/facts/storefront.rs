//! The shop's pages: messages in the shape of Segment's tracking API, events by the names of its e-commerce spec.

use serde_json::value::RawValue;

use super::{
    DecodeError, Row, decimal,
    decode::Event,
    identity::IdentifierKind,
    json::{Maybe, Text, Whole, object},
    rows::{CartEvent, PageView, ProductView},
};
use crate::base::{Currency, PersonId, pseudonym};

object! {
    struct Message<'a> {
        kind: Text<'a> = "type",
        anonymous_id: Text<'a> = "anonymousId",
        user_id: Text<'a> = "userId",
        previous_id: Text<'a> = "previousId",
        name: Text<'a>,
        event: Text<'a>,
        properties: Maybe<Properties<'a>>,
        traits: Maybe<Traits<'a>>,
        context: Maybe<Context<'a>>,
    }
}

object! {
    struct Properties<'a> {
        cart_id: Text<'a>,
        order_id: Text<'a>,
        product_id: Text<'a>,
        name: Text<'a>,
        category: Text<'a>,
        email: Text<'a>,
        quantity: Whole,
        currency: Text<'a>,
        price: Option<&'a RawValue>,
        value: Option<&'a RawValue>,
        total: Option<&'a RawValue>,
        revenue: Option<&'a RawValue>,
        path: Text<'a>,
        url: Text<'a>,
        referrer: Text<'a>,
    }
}

object! {
    struct Traits<'a> {
        email: Text<'a>,
        phone: Text<'a>,
        name: Text<'a>,
        address: Maybe<Address<'a>>,
    }
}

object! {
    struct Address<'a> {
        country: Text<'a>,
    }
}

object! {
    struct Context<'a> {
        ip: Text<'a>,
        locale: Text<'a>,
        timezone: Text<'a>,
        page: Maybe<Page<'a>>,
        campaign: Maybe<Campaign<'a>>,
        traits: Maybe<Traits<'a>>,
    }
}

object! {
    struct Page<'a> {
        path: Text<'a>,
        url: Text<'a>,
        referrer: Text<'a>,
    }
}

object! {
    struct Campaign<'a> {
        name: Text<'a>,
        source: Text<'a>,
        medium: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let message: Message = event.read()?;
    let person = who(event, &message);
    let row: Option<Row> = match message.kind.get() {
        Some("page" | "screen") => Some(page_view(event, &message, person).into()),
        Some("track") => tracked(event, &message, person)?,
        _ => None,
    };
    event.decoded.handled = row.is_some() || matches!(message.kind.get(), Some("identify" | "alias" | "group"));
    event.decoded.rows.extend(row);
    Ok(())
}

fn who(event: &mut Event, message: &Message) -> Option<PersonId> {
    let mut someone = event.someone();
    let context = message.context.get();
    // The traits of an `identify` are the user's, those of a `group` are the group's.
    let own = message.traits.get().filter(|_| !message.kind.is("group"));
    for traits in own.into_iter().chain(context.and_then(|c| c.traits.get())) {
        let country = someone.lives_in(traits.address.get().and_then(|a| a.country.get()));
        someone.email(traits.email.get());
        someone.phone(traits.phone.get(), country.as_deref());
    }
    someone.email(message.properties.get().and_then(|p| p.email.get()));
    someone.known_as(IdentifierKind::User, message.user_id.get());
    someone.known_as(IdentifierKind::Anonymous, message.anonymous_id.get());
    if message.kind.is("alias") {
        someone.known_as(IdentifierKind::Anonymous, message.previous_id.get());
    }
    someone.speaks(context.and_then(|c| c.locale.get()));
    someone.in_zone(context.and_then(|c| c.timezone.get()));
    someone.named(own.and_then(|t| t.name.get()));
    let person = someone.person();
    event.keep(someone);
    person
}

fn page_view(event: &Event, message: &Message, person_id: Option<PersonId>) -> PageView {
    let (properties, context) = (message.properties.get(), message.context.get());
    let page = context.and_then(|c| c.page.get());
    let campaign = context.and_then(|c| c.campaign.get());
    let path = properties.and_then(|p| p.path.get()).or(page.and_then(|p| p.path.get()));
    let url = properties.and_then(|p| p.url.get()).or(page.and_then(|p| p.url.get()));
    let referrer = properties.and_then(|p| p.referrer.get()).or(page.and_then(|p| p.referrer.get()));
    PageView {
        event_id: event.envelope.event_id.clone(),
        person_id,
        occurred_at: event.at(),
        name: message.name.owned().or_else(|| properties.and_then(|p| p.name.owned())),
        path: path.or(url).map(path_of),
        referrer_host: referrer.and_then(host_of),
        campaign: campaign.and_then(|c| c.name.owned()),
        campaign_source: campaign.and_then(|c| c.source.owned()),
        campaign_medium: campaign.and_then(|c| c.medium.owned()),
        locale: context.and_then(|c| c.locale.owned()),
        timezone: context.and_then(|c| c.timezone.owned()),
        ip_hash: event.ip_hash(context.and_then(|c| c.ip.get())),
        source: "storefront".to_owned(),
    }
}

fn tracked(event: &Event, message: &Message, person: Option<PersonId>) -> Result<Option<Row>, DecodeError> {
    let nothing = Properties::default();
    let properties = message.properties.get().unwrap_or(&nothing);
    let kind = match message.event.get() {
        Some("Product Viewed") => return product_view(event, properties, person).map(|row| Some(row.into())),
        Some("Product Added") => "added",
        Some("Product Removed") => "removed",
        Some("Cart Viewed") => "viewed",
        Some("Checkout Started") => "checkout_started",
        Some("Order Completed") => "ordered",
        _ => return Ok(None),
    };
    let currency = event.currency("properties.currency", properties.currency.get())?;
    let quantity = properties.quantity.0;
    if let Some(negative) = quantity.filter(|q| *q < 0) {
        return Err(event.no_amount("properties.quantity", negative.to_string()));
    }
    let value = properties.value.or(properties.total).or(properties.revenue);
    Ok(Some(Row::from(CartEvent {
        event_id: event.envelope.event_id.clone(),
        cart_id: event.reference(properties.cart_id.get()),
        kind: kind.to_owned(),
        product_id: properties.product_id.owned(),
        quantity,
        price: price(event, "properties.price", properties.price, currency)?,
        value: price(event, "properties.value", value, currency)?,
        currency,
        occurred_at: event.at(),
        person_id: person,
        order_ref: event.reference(properties.order_id.get()),
        source: "storefront".to_owned(),
    })))
}

fn product_view(event: &Event, p: &Properties, person_id: Option<PersonId>) -> Result<ProductView, DecodeError> {
    let currency = event.currency("properties.currency", p.currency.get())?;
    Ok(ProductView {
        event_id: event.envelope.event_id.clone(),
        person_id,
        occurred_at: event.at(),
        product_id: p.product_id.owned(),
        name: p.name.owned(),
        category: p.category.owned(),
        price: price(event, "properties.price", p.price, currency)?,
        currency,
        cart_id: event.reference(p.cart_id.get()),
        source: "storefront".to_owned(),
    })
}

/// A price says nothing without its currency, and stays in the payload.
fn price(
    event: &Event,
    field: &'static str,
    raw: Option<&RawValue>,
    currency: Option<Currency>,
) -> Result<Option<i64>, DecodeError> {
    let (Some(raw), Some(currency)) = (raw, currency) else { return Ok(None) };
    let minor = decimal::minor_units(raw, currency);
    minor.map(Some).ok_or_else(|| event.no_amount(field, raw.get().to_owned()))
}

/// The path of a URL or path, without host, query and fragment.
fn path_of(url: &str) -> String {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // Whose address it was is no matter of a path's.
    let part = |part: &str| if pseudonym::is_address(part) { pseudonym::CUT_OUT.to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let host = host.rsplit('@').next()?;
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_users_stay_out_of_tables() {
        assert_eq!(path_of("https://shop.test/a/b?email=ann@x.test#top"), "/a/b");
        assert_eq!(path_of("https://shop.test?token=1"), "/");
        assert_eq!(path_of("/cart?x=1"), "/cart");
        assert_eq!(host_of("https://ann:pw@News.test/x?y").as_deref(), Some("news.test"));
        assert_eq!(host_of("direct"), None);
    }
}
