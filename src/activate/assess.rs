//! What is known of one message's recipient at one moment, put together for the rules.

use super::{
    Activator,
    error::ActivateError,
    knowledge::Knowledge,
    message::{Medium, Message, State},
    quiet::{QuietHours, Whereabouts},
    rules::{self, Cap, Plan, Stage, Standing, Verdict},
};
use crate::{
    base::{E164, Micros, PersonId},
    pipeline,
};

/// Kinds of numbers that a text costs as much to and does not arrive at.
const TEXTLESS: [&str; 7] = ["fixed_line", "toll_free", "premium_rate", "shared_cost", "pager", "uan", "voicemail"];

/// The rules' word on a message, and where it would go.
pub struct Assessed {
    pub verdict: Verdict,
    /// The address itself, where the vault knows it.
    pub address: Option<String>,
}

impl Activator {
    /// `person`: the recipient's name of now. `others`: messages that the outbox does not hold yet.
    pub(super) fn assess(
        &self,
        known: &Knowledge,
        message: &Message,
        person: &PersonId,
        cap: Option<Cap>,
        (stage, others): (Stage, &[Message]),
        now: Micros,
    ) -> Result<Assessed, ActivateError> {
        let medium = message.medium;
        let destination = message.destination_hash.as_str();
        let address = match destination {
            "" => None,
            hash => self.vault.get(medium.address_kind(), hash)?,
        };
        let leaves = self.channel_of(medium, message.livemode).leaves();
        let phone = address.as_deref().filter(|_| medium == Medium::Sms).and_then(|a| E164::parse(a, None).ok());
        let quiet = self.quiet_hours(known, message, person, phone.as_ref());
        let standing = Standing {
            reachable: address.is_some(),
            textless: phone.map(|phone| phone.kind()).filter(|kind| TEXTLESS.contains(kind)).map(str::to_owned),
            consent: known.consent(person, medium).cloned(),
            consent_seen: self.outbox.consent_seen()?,
            queued_at: (message.state == State::Queued).then_some(message.queued_at),
            suppressed: self.suppression(known, medium, destination)?,
            recent: match cap {
                None => 0,
                Some(cap) => {
                    let sent = self.outbox.to(&known.names(person), destination)?;
                    let counted =
                        sent.iter().chain(others).filter(|o| rules::counts(o, message, leaves, cap, stage, now));
                    u32::try_from(counted.count()).unwrap_or(u32::MAX)
                }
            },
            open_from: quiet.next_open(now),
            quiet_by: quiet.jurisdictions(),
        };
        let plan = Plan { medium, purpose: message.purpose, cap, leaves, consent_max_age: self.consent_max_age };
        Ok(Assessed { verdict: rules::judge(&plan, &standing, now), address })
    }

    fn suppression(
        &self,
        known: &Knowledge,
        medium: Medium,
        destination: &str,
    ) -> Result<Option<(String, Micros)>, ActivateError> {
        if let Some(own) = self.outbox.suppressed(medium, destination)? {
            return Ok(Some((own.reason, own.at)));
        }
        Ok(known.suppression(medium, destination).cloned())
    }

    fn quiet_hours(&self, known: &Knowledge, message: &Message, person: &PersonId, phone: Option<&E164>) -> QuietHours {
        let person = known.person(person, message.livemode);
        QuietHours::of(Whereabouts {
            phone,
            country: person.and_then(|p| p.country.as_deref()),
            timezone: person.and_then(|p| p.timezone.as_deref()),
        })
    }
}

impl From<&pipeline::Cap> for Cap {
    fn from(cap: &pipeline::Cap) -> Cap {
        Cap { messages: cap.messages, per: i64::try_from(cap.per.as_micros()).unwrap_or(i64::MAX) }
    }
}

impl From<pipeline::Channel> for Medium {
    fn from(channel: pipeline::Channel) -> Medium {
        match channel {
            pipeline::Channel::Sms => Medium::Sms,
            pipeline::Channel::Email => Medium::Email,
        }
    }
}

impl From<pipeline::Purpose> for super::Purpose {
    fn from(purpose: pipeline::Purpose) -> super::Purpose {
        match purpose {
            pipeline::Purpose::Marketing => super::Purpose::Marketing,
            pipeline::Purpose::Transactional => super::Purpose::Transactional,
        }
    }
}
