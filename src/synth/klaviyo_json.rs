//! Klaviyo's events and profiles as its API exports them.
//!
//! An event comes with its metric and its profile included; a profile is told anew each time something in it changes.

use super::{
    crowd::{Consent, Member},
    letter::{Again, Letter, offset_time},
    people::Person,
    shape::Slot,
    stripe_json::shape,
};

shape!(EVENT, "shapes/klaviyo_event.json");
shape!(PROFILE, "shapes/klaviyo_profile.json");

/// Something that happened to a message.
pub(super) struct Happening<'a> {
    pub id: String,
    pub uuid: String,
    pub metric: &'static str,
    /// Seconds since 1970: Klaviyo cuts times to the second.
    pub at: i64,
    pub email: &'a str,
    pub message: &'a Message,
}

/// A message sent to many: a campaign, or a step of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub id: String,
    pub name: String,
    pub flow: Option<&'static str>,
    pub variation: Option<&'static str>,
    pub sms: bool,
}

pub(super) fn event(person: &Person, of: &Happening) -> Letter {
    let Message { id, name, flow, variation, .. } = of.message;
    let quoted = |key: &str, value: &str| format!(r#","{key}":"{value}""#);
    let properties = format!(
        r#"{{"Campaign Name":"{name}","$message":"{id}"{}{},"$event_id":"{}"}}"#,
        flow.map(|f| quoted("$flow", f)).unwrap_or_default(),
        variation.map(|v| quoted("$variation", v)).unwrap_or_default(),
        of.id,
    );
    let mut line = Vec::with_capacity(1_536);
    EVENT.fill(
        &[
            ("id", (&of.id).into()),
            ("timestamp", of.at.into()),
            ("properties", Slot::Json(&properties)),
            ("datetime", (&offset_time(of.at)).into()),
            ("uuid", (&of.uuid).into()),
            ("profile", (&person.profile).into()),
            ("metric", metric_id(of.metric).into()),
            ("name", of.metric.into()),
            ("email", of.email.into()),
            ("phone", person.phone.as_ref().into()),
            ("external_id", person.user.as_ref().into()),
            ("first_name", person.first_name.into()),
            ("last_name", person.last_name.into()),
            ("locale", person.country.locale.into()),
        ],
        &mut line,
    );
    Letter { line, id: None, again: Again::Nothing }
}

fn metric_id(name: &str) -> &'static str {
    match name {
        "Received Email" => "RcvEm1",
        "Opened Email" => "OpnEm2",
        "Clicked Email" => "ClkEm3",
        "Bounced Email" => "BncEm4",
        "Unsubscribed from Email Marketing" => "UnsEm5",
        "Sent SMS" => "SntSm6",
        "Received SMS" => "RcvSm7",
        "Failed to Deliver SMS" => "FldSm8",
        _ => "UnsSm9",
    }
}

/// The profile as of its last change.
pub(super) fn profile(person: &Person, member: &Member, email: &str, created: i64) -> Letter {
    let (city, zip, region) = *person.town;
    let updated = offset_time(member.profile_changed);
    let suppressed = format!(r#"{{"reason":"UNSUBSCRIBE","timestamp":"{}"}}"#, offset_time(member.email_consent_at));
    let mail = Channel::of(member.email_consent, member.email_consent_at);
    let sms = Channel::of(member.sms_consent, member.sms_consent_at);
    let mut line = Vec::with_capacity(2_048);
    PROFILE.fill(
        &[
            ("id", (&person.profile).into()),
            ("email", email.into()),
            ("phone", person.phone.as_ref().into()),
            ("external_id", person.user.as_ref().into()),
            ("first_name", person.first_name.into()),
            ("last_name", person.last_name.into()),
            ("locale", person.country.locale.into()),
            ("created", (&offset_time(created)).into()),
            ("updated", (&updated).into()),
            ("line1", (&person.street).into()),
            ("city", city.into()),
            ("country", person.country.name.into()),
            ("region", (!region.is_empty()).then_some(region).into()),
            ("zip", zip.into()),
            ("timezone", person.country.zone.into()),
            ("ip", (&person.ip).into()),
            ("email_allowed", (member.email_consent == Consent::Subscribed).into()),
            ("email_consent", mail.consent.into()),
            ("email_since", mail.since.as_ref().into()),
            ("email_updated", mail.since.as_ref().into()),
            ("email_method", mail.method.into()),
            (
                "email_suppression",
                Slot::Json(if member.email_consent == Consent::Unsubscribed { &suppressed } else { "" }),
            ),
            ("sms_allowed", (member.sms_consent == Consent::Subscribed).into()),
            ("sms_consent", sms.consent.into()),
            ("sms_since", sms.since.as_ref().into()),
            ("sms_method", sms.method.into()),
            ("sms_updated", sms.since.as_ref().into()),
        ],
        &mut line,
    );
    Letter { line, id: None, again: Again::Nothing }
}

struct Channel {
    consent: &'static str,
    since: Option<String>,
    method: Option<&'static str>,
}

impl Channel {
    fn of(consent: Consent, at: i64) -> Channel {
        let (consent, method) = match consent {
            Consent::Never => return Channel { consent: "NEVER_SUBSCRIBED", since: None, method: None },
            Consent::Subscribed => ("SUBSCRIBED", "FORM"),
            Consent::Unsubscribed => ("UNSUBSCRIBED", "PREFERENCE_PAGE"),
        };
        Channel { consent, since: Some(offset_time(at)), method: Some(method) }
    }
}
