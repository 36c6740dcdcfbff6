//! Somebody asked to be forgotten: our own record of it.
//!
//! It names them by hashes alone. From it on nothing is told of them in tables, however often and in whatever order their
//! events come again, and nobody may write to the addresses that were theirs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    DecodeError,
    decode::Event,
    identity::{Attributes, Component, Identifier, IdentifierKind, IdentityClaim},
    suppression::{self, Word},
};
use crate::base::{Envelope, Micros, PersonId};

/// The type of the record.
pub const RECORD: &str = "person.erased";

/// Who may not be written to any more, and why.
const PLACE: &str = "erasure";

/// The payload of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    pub person_id: PersonId,
    /// All that named them.
    pub identifiers: Vec<(IdentifierKind, String)>,
    /// Hashes of the phones that were told of them, and of nobody else.
    pub phones: BTreeSet<String>,
}

impl Erasure {
    /// Of whoever `component` is, with those of their phones that are `theirs` alone; `None` of a component of nothing.
    pub fn of<E>(component: &Component, theirs: impl Fn(&str) -> Result<bool, E>) -> Result<Option<Erasure>, E> {
        let Some(person_id) = component.canonical().cloned() else { return Ok(None) };
        let identifiers = component.identifiers().map(|i| (i.kind, i.value_hash.clone())).collect();
        let mut phones = BTreeSet::new();
        for (phone, _) in component.phones() {
            if theirs(phone)? {
                phones.insert(phone.to_owned());
            }
        }
        Ok(Some(Erasure { person_id, identifiers, phones }))
    }

    pub fn envelope(&self, livemode: bool, at: Micros) -> Result<Envelope, serde_json::Error> {
        let payload = serde_json::to_string(self)?;
        let id = format!("erasure:{}:{}:{livemode}", self.person_id, at.0);
        Ok(Envelope {
            livemode,
            object_type: Some("person".to_owned()),
            object_id: Some(self.person_id.to_string()),
            ..Envelope::own(RECORD, id, at, payload)?
        })
    }

    /// Where they could be written to: medium and hash.
    fn destinations(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let emails = self.identifiers.iter().filter(|(kind, _)| *kind == IdentifierKind::Email);
        let emails = emails.map(|(_, hash)| ("email", hash.as_str()));
        emails.chain(self.phones.iter().map(|phone| ("sms", phone.as_str())))
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let erasure: Erasure = event.read()?;
    let at = event.at();
    for (channel, destination_hash) in erasure.destinations() {
        let reason = Some("erased".to_owned());
        suppression::say(event, Word { channel, destination_hash, reason, at, source: PLACE, lifted: false });
    }
    let mut identifiers: Vec<Identifier> =
        erasure.identifiers.into_iter().map(|(kind, hash)| event.identifier(kind, hash)).collect();
    identifiers.sort_unstable();
    identifiers.dedup();
    let (livemode, attributes) = (event.envelope.livemode, Attributes::default());
    if !identifiers.is_empty() {
        event.decoded.claims.push(IdentityClaim { at, livemode, identifiers, attributes, erases: true });
    }
    Ok(())
}
