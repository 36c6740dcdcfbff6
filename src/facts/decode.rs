//! From an envelope to what it says: sights of objects, rows, and claims on who people are.
//!
//! A function of the envelope alone, so that facts can be made again at any time. An event of a type that is not known
//! here is not an error: it stays in `raw.events`, and `handled` says that nothing was read.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    Row,
    identity::{Identifier, IdentifierKind, IdentityClaim},
    json::Amount,
    klaviyo,
    observation::{Mark, ObjectKey, Observation, Part, Sight, Step},
    orders, own,
    people::{Phones, Someone},
    provider::{self, Sender},
    storefront, stripe,
    table::Table,
    want::{Want, Why},
};
use crate::base::{
    Currency, Envelope, Micros, PersonId, Pseudonymizer, SharedAddresses, Source,
    pseudonym::{self, normal_email},
};

/// Decodes envelopes of every source. Cheap to clone.
#[derive(Clone)]
pub struct Decoder {
    pub(super) names: Pseudonymizer,
    pub(super) default_region: Option<String>,
    pub(super) shared: SharedAddresses,
    pub(super) phones: Arc<Phones>,
}

/// What one event says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Of objects whose row is folded from many events.
    pub observations: Vec<Observation>,
    /// Of tables that are only appended to.
    pub rows: Vec<Row>,
    pub claims: Vec<IdentityClaim>,
    /// For the vault.
    pub contacts: Vec<Contact>,
    /// What the event leaves open.
    pub wanted: Vec<Want>,
    /// Whether this type of event is known here.
    pub handled: bool,
}

impl Decoded {
    /// Whether the same rows are made of both. What is told of a person may differ, and what a payload's digests are.
    pub fn makes_the_same(&self, other: &Decoded) -> bool {
        let seen = |o: &Observation| {
            let sight = o.sight.as_ref().map(|s| (s.at, s.own, s.whole, s.step, s.row.clone()));
            (o.key.clone(), sight, o.marks.clone(), o.parts.clone())
        };
        let named = |claim: &IdentityClaim| claim.identifiers.clone();
        self.rows == other.rows
            && self.observations.iter().map(seen).eq(other.observations.iter().map(seen))
            && self.claims.iter().map(named).eq(other.claims.iter().map(named))
    }
}

/// A clear text and the hash that stands for it in tables.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// `email`, `phone` or `name`.
    pub kind: &'static str,
    /// Of the text; of a name, the hash of its person's best identifier.
    pub hash: String,
    pub plaintext: String,
    /// Whose it is, where the event says who they are.
    pub owner: Option<PersonId>,
}

impl Contact {
    /// One that was kept. `None` of a kind that no event brings.
    pub fn kept(kind: &str, hash: String, plaintext: String) -> Option<Contact> {
        let kind = ["email", "phone", "name"].into_iter().find(|known| *known == kind)?;
        Some(Contact { kind, hash, plaintext, owner: None })
    }

    pub(super) fn new(kind: &'static str, hash: &str, plaintext: String) -> Contact {
        Contact { kind, hash: hash.to_owned(), plaintext, owner: None }
    }
}

/// Without the text, so that no log shows it.
impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contact({} {})", self.kind, self.hash)
    }
}

/// Why an event cannot be a fact. It stays in `raw.events`; the reason goes to `raw.quarantine`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("event {event_id}: {field} is {value}, which is no amount: whole minor units from 0 to 2^63-1 are wanted")]
    Amount { event_id: String, field: &'static str, value: String },
    #[error("event {event_id}: {field} is {value:?}, which is no currency: a code of ISO 4217 is wanted, as usd")]
    Currency { event_id: String, field: &'static str, value: String },
    #[error("event {event_id}: {field} is missing, without which its object cannot be known")]
    Missing { event_id: String, field: &'static str },
    #[error(
        "event {event_id}: its payload is no JSON of its type ({source}): send it again, or see raw.events.payload"
    )]
    Json { event_id: String, source: serde_json::Error },
}

impl Decoder {
    /// `default_region`: two letters, how to read a phone number that names no country.
    pub fn new(names: Pseudonymizer, default_region: Option<String>, shared: SharedAddresses) -> Decoder {
        Decoder { names, default_region, shared, phones: Arc::default() }
    }

    /// Who an event that claims nothing may speak of: whom its `person_hint` and the addresses in it name.
    pub fn implied(&self, envelope: &Envelope) -> Vec<Identifier> {
        let kinds: &[IdentifierKind] = match envelope.source {
            Source::Stripe => &[IdentifierKind::Customer],
            Source::Klaviyo => &[IdentifierKind::Klaviyo],
            Source::Storefront => &[IdentifierKind::User, IdentifierKind::Anonymous],
            Source::Orders => &[IdentifierKind::OrderRef],
            Source::Tillstream => return Vec::new(),
            Source::Twilio | Source::Aliyun => &[],
        };
        let hints = envelope.person_hint.iter().flat_map(|hint| kinds.iter().map(move |kind| (*kind, hint)));
        let hints = hints.map(|(kind, hint)| (kind, self.names.hash(kind.as_str(), hint)));
        let hints = hints.map(|(kind, hash)| Identifier::new(&self.names, kind, hash));
        hints.chain(self.addresses(envelope).into_iter().map(|(identifier, _)| identifier)).collect()
    }

    /// The e-mail addresses that are whole texts in an event, wherever.
    pub fn addresses(&self, envelope: &Envelope) -> Vec<(Identifier, Contact)> {
        let address = |text: String| {
            let (address, hash) = (normal_email(&text)?, self.names.email(&text)?);
            let contact = Contact::new("email", &hash, address);
            Some((Identifier::new(&self.names, IdentifierKind::Email, hash), contact))
        };
        strings_of(&envelope.payload).into_iter().filter_map(address).collect()
    }

    pub fn decode(&self, envelope: &Envelope) -> Result<Decoded, DecodeError> {
        if envelope.event_type == super::raw::REJECTED {
            return Ok(Decoded { handled: true, ..Decoded::default() });
        }
        let text = str::from_utf8(&envelope.payload).map_err(|e| DecodeError::Json {
            event_id: envelope.event_id.clone(),
            source: serde::de::Error::custom(e),
        })?;
        let mut event = Event { decoder: self, envelope, text, decoded: Decoded::default() };
        match envelope.source {
            Source::Stripe => stripe::decode(&mut event)?,
            Source::Klaviyo => klaviyo::decode(&mut event)?,
            Source::Storefront => storefront::decode(&mut event)?,
            Source::Orders => orders::decode(&mut event)?,
            Source::Tillstream => own::decode(&mut event)?,
            Source::Twilio | Source::Aliyun => provider::decode(&mut event)?,
        }
        Ok(event.decoded)
    }
}

/// The texts in a JSON document, but for keys; none of what is no JSON.
pub fn strings_of(payload: &[u8]) -> Vec<String> {
    let mut open: Vec<serde_json::Value> = serde_json::from_slice(payload).into_iter().collect();
    let mut texts = Vec::new();
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::String(text) => texts.push(text),
            serde_json::Value::Array(items) => open.extend(items),
            serde_json::Value::Object(fields) => open.extend(fields.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
    texts
}

/// One event while it is decoded.
pub(super) struct Event<'a> {
    decoder: &'a Decoder,
    pub envelope: &'a Envelope,
    /// Its payload.
    text: &'a str,
    pub decoded: Decoded,
}

impl<'a> Event<'a> {
    pub fn kind(&self) -> &'a str {
        &self.envelope.event_type
    }

    pub fn at(&self) -> Micros {
        self.envelope.occurred_at
    }

    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        serde_json::from_str(self.text).map_err(|source| self.unreadable(source))
    }

    pub fn unreadable(&self, source: serde_json::Error) -> DecodeError {
        DecodeError::Json { event_id: self.envelope.event_id.clone(), source }
    }

    pub fn someone(&self) -> Someone<'a> {
        Someone::new(self.decoder)
    }

    /// The object `id` as this event alone shows it, whole.
    pub fn tell(&mut self, table: Table, id: &str, step: Step, row: Row, marks: Vec<(Mark, Micros)>) {
        let envelope = self.envelope;
        let sight = Sight {
            at: self.at(),
            own: true,
            whole: true,
            step,
            event_id: envelope.event_id.clone(),
            event_digest: envelope.digest,
            account: None,
            state: envelope.digest,
            prior: None,
            row,
        };
        let key = self.key(table, id);
        self.decoded.observations.push(Observation { key, sight: Some(sight), marks, parts: Vec::new() });
    }

    /// The shop's own id of something, for a row: an address or a phone that somebody made an id of is not for tables.
    pub fn reference(&self, text: Option<&str>) -> Option<String> {
        let (text, names) = (text?, &self.decoder.names);
        if !text.contains(['@', '+', ':']) {
            return Some(text.to_owned());
        }
        let email = || names.email(text).filter(|_| pseudonym::is_address(text)).map(|hash| format!("email:{hash}"));
        let phone = || Sender::of(text).map(|sender| format!("phone:{}", sender.hash(names)));
        Some(email().or_else(phone).unwrap_or_else(|| text.to_owned()))
    }

    pub fn ip_hash(&self, ip: Option<&str>) -> Option<String> {
        ip.map(|ip| self.decoder.names.hash("ip", ip))
    }

    pub fn sender_hash(&self, sender: &Sender) -> String {
        sender.hash(&self.decoder.names)
    }

    /// The identifier whose hash is known, and not its value.
    pub fn identifier(&self, kind: IdentifierKind, value_hash: String) -> Identifier {
        Identifier::new(&self.decoder.names, kind, value_hash)
    }

    pub fn key(&self, table: Table, id: &str) -> ObjectKey {
        ObjectKey { table, livemode: self.envelope.livemode, id: id.to_owned() }
    }

    /// Keeps what was told of a person.
    pub fn keep(&mut self, someone: Someone<'_>) {
        let (claim, contacts) = someone.finish(self.at(), self.envelope.livemode);
        self.decoded.claims.extend(claim.filter(|c| !self.decoded.claims.contains(c)));
        for contact in contacts {
            if !self.decoded.contacts.contains(&contact) {
                self.decoded.contacts.push(contact);
            }
        }
    }

    /// An object is to be asked for: what it was after this event.
    pub fn want(&mut self, table: Table, id: &str, why: Why) {
        let (key, since, account) = (self.key(table, id), self.at(), self.envelope.account.clone());
        self.decoded.wanted.push(Want { key, since, why, account });
    }

    /// Adds parts to another object's row.
    pub fn add_part(&mut self, table: Table, id: &str, part: Part) {
        let key = self.key(table, id);
        self.decoded.observations.push(Observation { key, sight: None, marks: Vec::new(), parts: vec![part] });
    }

    pub fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or_else(|| DecodeError::Missing { event_id: self.envelope.event_id.clone(), field })
    }

    /// An amount that cannot be negative, where there is one.
    pub fn amount(&self, field: &'static str, amount: &Amount) -> Result<Option<i64>, DecodeError> {
        match amount {
            Amount::Absent => Ok(None),
            Amount::Minor(minor) if *minor >= 0 => Ok(Some(*minor)),
            Amount::Minor(minor) => Err(self.no_amount(field, minor.to_string())),
            Amount::Bad(text) => Err(self.no_amount(field, text.clone())),
        }
    }

    /// An amount that may be negative, as a balance.
    pub fn signed_amount(&self, field: &'static str, amount: &Amount) -> Result<Option<i64>, DecodeError> {
        match amount {
            Amount::Absent => Ok(None),
            Amount::Minor(minor) => Ok(Some(*minor)),
            Amount::Bad(text) => Err(self.no_amount(field, text.clone())),
        }
    }

    /// A sum that does not fit is an error, and never wraps.
    pub fn sum(&self, field: &'static str, amounts: [i64; 2]) -> Result<i64, DecodeError> {
        let [a, b] = amounts;
        a.checked_add(b).ok_or_else(|| self.no_amount(field, format!("{a} + {b}")))
    }

    pub fn no_amount(&self, field: &'static str, value: String) -> DecodeError {
        DecodeError::Amount { event_id: self.envelope.event_id.clone(), field, value }
    }

    pub fn currency(&self, field: &'static str, code: Option<&str>) -> Result<Option<Currency>, DecodeError> {
        let wrong = |value: &str| {
            let (event_id, value) = (self.envelope.event_id.clone(), value.to_owned());
            DecodeError::Currency { event_id, field, value }
        };
        code.map(|code| Currency::parse(code).map_err(|_| wrong(code))).transpose()
    }
}
