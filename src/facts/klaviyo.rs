//! Klaviyo: what happened to messages, and what people agreed to.
//!
//! An event is the resource of the Events API with its metric and profile included; a profile is a resource of its
//! own. The metric's name is the event's type.

use super::{
    DecodeError, decimal,
    decode::Event,
    identity::IdentifierKind,
    json::{Flag, List, Maybe, Text, object},
    observation::Step,
    people::Someone,
    rows::{CartEvent, Consent, MessageEvent, MetricEvent, Profile},
    suppression::{self, Word},
    table::Table,
};
use crate::base::{Currency, Micros, PersonId};

object! {
    struct Document<'a> {
        id: Text<'a>,
        attributes: Maybe<Attributes<'a>>,
        relationships: Maybe<Relationships<'a>>,
        included: List<Maybe<Included<'a>>>,
    }
}

object! {
    /// Of an event: its properties. Of a profile: all the rest.
    struct Attributes<'a> {
        event_properties: Maybe<Properties<'a>>,
        email: Text<'a>,
        phone_number: Text<'a>,
        external_id: Text<'a>,
        created: Text<'a>,
        last_event_date: Text<'a>,
        first_name: Text<'a>,
        last_name: Text<'a>,
        locale: Text<'a>,
        location: Maybe<Location<'a>>,
        subscriptions: Maybe<Subscriptions<'a>>,
    }
}

object! {
    struct Properties<'a> {
        campaign: Text<'a> = "Campaign Name",
        message: Text<'a> = "$message",
        flow: Text<'a> = "$flow",
        variation: Text<'a> = "$variation",
        cart_id: Text<'a>,
        order_id: Text<'a>,
        currency: Text<'a>,
        currency_code: Text<'a> = "$currency_code",
        value: Option<&'a serde_json::value::RawValue> = "$value",
    }
}

object! {
    struct Location<'a> {
        country: Text<'a>,
        timezone: Text<'a>,
    }
}

object! {
    struct Subscriptions<'a> {
        email: Maybe<Channel<'a>>,
        sms: Maybe<Channel<'a>>,
        mobile_push: Maybe<Channel<'a>>,
        whatsapp: Maybe<Channel<'a>>,
    }
}

object! {
    struct Channel<'a> {
        marketing: Maybe<Agreement<'a>>,
        transactional: Maybe<Agreement<'a>>,
        conversational: Maybe<Agreement<'a>>,
    }
}

object! {
    struct Agreement<'a> {
        consent: Text<'a>,
        consent_timestamp: Text<'a>,
        last_updated: Text<'a>,
        method: Text<'a>,
        can_receive_email_marketing: Flag,
        can_receive_sms_marketing: Flag,
        can_receive_push_marketing: Flag,
        suppression: List<Maybe<Suppressed<'a>>>,
    }
}

object! {
    struct Suppressed<'a> {
        reason: Text<'a>,
        timestamp: Text<'a>,
    }
}

object! {
    struct Relationships<'a> {
        metric: Maybe<Linked<'a>>,
        profile: Maybe<Linked<'a>>,
    }
}

object! {
    struct Linked<'a> {
        data: Maybe<Included<'a>>,
    }
}

object! {
    struct Included<'a> {
        kind: Text<'a> = "type",
        id: Text<'a>,
        attributes: Maybe<Attributes<'a>>,
    }
}

impl Agreement<'_> {
    /// What was agreed to, in lower case; `suppressed` where Klaviyo may not act on it.
    fn state(&self) -> Option<String> {
        let state = self.consent.get()?.to_ascii_lowercase();
        let may = [self.can_receive_email_marketing, self.can_receive_sms_marketing, self.can_receive_push_marketing];
        let barred = state == "subscribed" && may.iter().any(|may| may.0 == Some(false));
        Some(if barred { "suppressed".to_owned() } else { state })
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let document: Document = event.read()?;
    match event.envelope.object_type.as_deref() {
        Some("profile") => profile(event, &document),
        Some("event") => metric(event, &document)?,
        // A resource of a kind that is not known here.
        _ => return Ok(()),
    }
    event.decoded.handled = true;
    Ok(())
}

/// The metrics that more is made of than a row of `core.metric_events`, as the API names them.
pub const METRICS: [&str; 17] = [
    "Received Email",
    "Opened Email",
    "Clicked Email",
    "Bounced Email",
    "Dropped Email",
    "Marked Email as Spam",
    "Unsubscribed from Email Marketing",
    "Subscribed to Email Marketing",
    "Sent SMS",
    "Received SMS",
    "Clicked SMS",
    "Failed to Deliver SMS",
    "Unsubscribed from SMS Marketing",
    "Unsubscribed from SMS",
    "Subscribed to SMS Marketing",
    "Consented to Receive SMS",
    CHECKOUT_STARTED,
];
const CHECKOUT_STARTED: &str = "Checkout Started";

/// The channel and kind of a message's event, by its metric.
fn message_kind(metric: &str) -> Option<(&'static str, &'static str)> {
    Some(match metric {
        "Received Email" => ("email", "delivered"),
        "Opened Email" => ("email", "opened"),
        "Clicked Email" => ("email", "clicked"),
        "Bounced Email" => ("email", "bounced"),
        "Dropped Email" => ("email", "failed"),
        "Marked Email as Spam" | "Unsubscribed from Email Marketing" => ("email", "unsubscribed"),
        // By whom: the profile, to the shop's number.
        "Sent SMS" => ("sms", "inbound"),
        "Received SMS" => ("sms", "delivered"),
        "Clicked SMS" => ("sms", "clicked"),
        "Failed to Deliver SMS" => ("sms", "failed"),
        "Unsubscribed from SMS Marketing" | "Unsubscribed from SMS" => ("sms", "unsubscribed"),
        _ => return None,
    })
}

/// The channel and state of a statement of consent, by its metric.
fn consent_state(metric: &str) -> Option<(&'static str, &'static str)> {
    Some(match metric {
        "Subscribed to Email Marketing" => ("email", "subscribed"),
        "Subscribed to SMS Marketing" | "Consented to Receive SMS" => ("sms", "subscribed"),
        "Marked Email as Spam" | "Unsubscribed from Email Marketing" => ("email", "unsubscribed"),
        "Unsubscribed from SMS Marketing" | "Unsubscribed from SMS" => ("sms", "unsubscribed"),
        _ => return None,
    })
}

fn metric(event: &mut Event, document: &Document) -> Result<(), DecodeError> {
    let properties = document.attributes.get().and_then(|a| a.event_properties.get());
    let included = document.included.iter().filter_map(Maybe::get).find(|i| i.kind.is("profile"));
    let relationships = document.relationships.get();
    let linked = relationships.and_then(|r| r.profile.get()).and_then(|p| p.data.get());
    let mut someone = event.someone();
    if let Some(attributes) = included.and_then(|i| i.attributes.get()) {
        describe(&mut someone, attributes);
    }
    let profile_id = linked.and_then(|l| l.id.get()).or(included.and_then(|i| i.id.get()));
    someone.known_as(IdentifierKind::Klaviyo, profile_id);
    let person = someone.person();
    event.keep(someone);
    let metric_id = relationships.and_then(|r| r.metric.get()).and_then(|m| m.data.get()).and_then(|m| m.id.owned());
    let row = metric_event(event, properties, metric_id, person.clone());
    event.decoded.rows.push(row.into());
    if let Some((channel, kind)) = message_kind(event.kind()) {
        let row = message(event, properties, person.clone(), channel, kind);
        event.decoded.rows.push(row.into());
    }
    if let Some((channel, state)) = consent_state(event.kind()) {
        let row = consent(event, person.clone(), channel, "marketing", state, event.at());
        event.decoded.rows.push(row.into());
    }
    if event.kind() == CHECKOUT_STARTED {
        let row = checkout_started(event, properties, person)?;
        event.decoded.rows.push(row.into());
    }
    Ok(())
}

/// Metrics are the shop's own: a value that is no amount, or of points for a currency, is left out, and the event counts.
fn metric_event(
    event: &Event,
    properties: Option<&Properties>,
    metric_id: Option<String>,
    person_id: Option<PersonId>,
) -> MetricEvent {
    let currency = properties.and_then(|p| p.currency.get().or(p.currency_code.get()));
    let currency = currency.and_then(|code| Currency::parse(code).ok());
    let value = properties.and_then(|p| p.value).zip(currency);
    // An envelope names a metric that it knows only the id of by that, or by the topic of the webhook.
    let unnamed = event.kind() == "event" || ["metric:", "event:"].iter().any(|other| event.kind().starts_with(other));
    MetricEvent {
        event_id: event.envelope.event_id.clone(),
        metric: (!unnamed).then(|| event.kind().to_owned()),
        metric_id,
        person_id,
        value: value.and_then(|(raw, currency)| decimal::minor_units(raw, currency)),
        currency,
        campaign: properties.and_then(|p| p.campaign.owned()),
        flow: properties.and_then(|p| p.flow.owned()),
        variant: properties.and_then(|p| p.variation.owned()),
        occurred_at: event.at(),
        source: "klaviyo".to_owned(),
    }
}

fn message(
    event: &Event,
    properties: Option<&Properties>,
    person_id: Option<PersonId>,
    channel: &str,
    kind: &str,
) -> MessageEvent {
    let event_id = event.envelope.event_id.clone();
    MessageEvent {
        message_id: properties.and_then(|p| p.message.owned()).unwrap_or_else(|| event_id.clone()),
        event_id,
        person_id,
        channel: channel.to_owned(),
        kind: kind.to_owned(),
        campaign: properties.and_then(|p| p.campaign.owned()),
        flow: properties.and_then(|p| p.flow.owned()),
        variant: properties.and_then(|p| p.variation.owned()),
        occurred_at: event.at(),
        source: "klaviyo".to_owned(),
    }
}

fn checkout_started(
    event: &Event,
    properties: Option<&Properties>,
    person_id: Option<PersonId>,
) -> Result<CartEvent, DecodeError> {
    let code = properties.and_then(|p| p.currency.get().or(p.currency_code.get()));
    let currency = event.currency("event_properties.currency", code)?;
    let value = match (properties.and_then(|p| p.value), currency) {
        (Some(raw), Some(currency)) => {
            let minor = decimal::minor_units(raw, currency);
            Some(minor.ok_or_else(|| event.no_amount("event_properties.$value", raw.get().to_owned()))?)
        }
        _ => None,
    };
    Ok(CartEvent {
        event_id: event.envelope.event_id.clone(),
        cart_id: event.reference(properties.and_then(|p| p.cart_id.get())),
        kind: "checkout_started".to_owned(),
        product_id: None,
        quantity: None,
        price: None,
        value,
        currency,
        occurred_at: event.at(),
        person_id,
        order_ref: event.reference(properties.and_then(|p| p.order_id.get())),
        source: "klaviyo".to_owned(),
    })
}

fn profile(event: &mut Event, document: &Document) {
    let Some(attributes) = document.attributes.get() else { return };
    let mut someone = event.someone();
    let described = describe(&mut someone, attributes);
    someone.known_as(IdentifierKind::Klaviyo, document.id.get());
    let person = someone.person();
    event.keep(someone);
    if let Some(id) = document.id.get() {
        as_it_is(event, id, attributes, &described, person.clone());
    }
    let Described { email, phone, .. } = described;
    let subscriptions = attributes.subscriptions.get();
    let channels = [
        ("email", email, subscriptions.and_then(|s| s.email.get())),
        ("sms", phone.clone(), subscriptions.and_then(|s| s.sms.get())),
        ("push", None, subscriptions.and_then(|s| s.mobile_push.get())),
        ("whatsapp", phone, subscriptions.and_then(|s| s.whatsapp.get())),
    ];
    for (name, destination, channel) in channels {
        let Some(channel) = channel else { continue };
        let agreements = [
            ("marketing", channel.marketing.get()),
            ("transactional", channel.transactional.get()),
            ("conversational", channel.conversational.get()),
        ];
        for (purpose, agreement) in agreements {
            if let Some(agreement) = agreement {
                agreed(event, person.clone(), name, purpose, agreement, destination.as_deref());
            }
        }
    }
}

/// The profile itself, whole.
fn as_it_is(event: &mut Event, id: &str, attributes: &Attributes, described: &Described, person_id: Option<PersonId>) {
    let (location, subscriptions) = (attributes.location.get(), attributes.subscriptions.get());
    let time = |text: &Text| text.get().and_then(Micros::from_rfc3339);
    let marketing = |channel: Option<&Channel>| channel.and_then(|c| c.marketing.get()).and_then(Agreement::state);
    let last_event_at = time(&attributes.last_event_date);
    let row = Profile {
        profile_id: id.to_owned(),
        created_at: time(&attributes.created),
        updated_at: event.at(),
        person_id,
        email_hash: described.email.clone(),
        phone_hash: described.phone.clone(),
        country: described.country.clone(),
        locale: attributes.locale.owned(),
        timezone: location.and_then(|l| l.timezone.owned()),
        email_consent: marketing(subscriptions.and_then(|s| s.email.get())),
        sms_consent: marketing(subscriptions.and_then(|s| s.sms.get())),
        last_event_at,
        order_ambiguous: false,
    };
    // What happened to it last only grows, whatever else changed in that second.
    let step = Step { progress: [Some(last_event_at.map_or(i64::MIN, |at| at.0)), None, None], ..Step::default() };
    event.tell(Table::Profiles, id, step, row.into(), Vec::new());
}

/// What a profile tells of its person. Hashes of e-mail and phone; two letters of the country.
struct Described {
    email: Option<String>,
    phone: Option<String>,
    country: Option<String>,
}

/// Addresses, and what else identifies or describes a profile.
fn describe(someone: &mut Someone, attributes: &Attributes) -> Described {
    let location = attributes.location.get();
    let country = someone.lives_in(location.and_then(|l| l.country.get()));
    let email = someone.email(attributes.email.get());
    let phone = someone.phone(attributes.phone_number.get(), country.as_deref());
    someone.speaks(attributes.locale.get());
    someone.in_zone(location.and_then(|l| l.timezone.get()));
    // Shops put their own id of the customer here, or Stripe's.
    let external = attributes.external_id.get();
    let is_stripes = external.is_some_and(|id| id.starts_with("cus_"));
    someone.known_as(if is_stripes { IdentifierKind::Customer } else { IdentifierKind::User }, external);
    let name = [attributes.first_name.get(), attributes.last_name.get()];
    let name: Vec<&str> = name.into_iter().flatten().collect();
    someone.named(Some(&name.join(" ")));
    Described { email, phone, country }
}

fn agreed(
    event: &mut Event,
    person: Option<PersonId>,
    channel: &str,
    purpose: &str,
    agreement: &Agreement,
    destination: Option<&str>,
) {
    let time = |text: &Text| text.get().and_then(Micros::from_rfc3339);
    if let Some(state) = agreement.state() {
        let at = time(&agreement.last_updated).or(time(&agreement.consent_timestamp)).unwrap_or(event.at());
        let mut row = consent(event, person, channel, purpose, &state, at);
        row.wording = agreement.method.owned();
        event.decoded.rows.push(row.into());
    }
    let Some(destination) = destination else { return };
    for suppressed in agreement.suppression.iter().filter_map(Maybe::get) {
        let reason = suppressed.reason.get().map(str::to_ascii_lowercase);
        let at = time(&suppressed.timestamp).unwrap_or(event.at());
        let (destination_hash, source) = (destination, "klaviyo");
        suppression::say(event, Word { channel, destination_hash, reason, at, source, lifted: false });
    }
}

fn consent(
    event: &Event,
    person_id: Option<PersonId>,
    channel: &str,
    purpose: &str,
    state: &str,
    at: Micros,
) -> Consent {
    Consent {
        event_id: event.envelope.event_id.clone(),
        person_id,
        channel: channel.to_owned(),
        purpose: purpose.to_owned(),
        state: state.to_owned(),
        source: "klaviyo".to_owned(),
        wording: None,
        at,
        seen_at: event.at(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_made_of_every_metric_that_is_named_here() {
        for metric in METRICS {
            let makes_rows = message_kind(metric).is_some() || consent_state(metric).is_some();
            assert!(makes_rows || metric == CHECKOUT_STARTED, "{metric}");
        }
    }
}
