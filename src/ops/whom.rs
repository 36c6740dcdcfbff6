//! Who is meant by what somebody typed, and what is theirs.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::{Instance, OpsError};
use crate::{
    base::{E164, Micros, PersonId},
    facts::{
        Contact,
        erasure::Erasure,
        identity::{Component, IdentifierKind},
    },
    load::{self, Sought, component},
};

impl Instance {
    /// What is known of whoever a component is. A phone that others have too is not theirs alone.
    pub(super) fn known(&self, livemode: bool, component: &Component) -> Result<Erasure, OpsError> {
        let is_theirs = |phone: &str| self.phone_book.people(livemode, phone, 2).map(|people| people < 2);
        let known = Erasure::of(component, is_theirs)?;
        known.ok_or_else(|| OpsError::Told("a person whom nothing names: run `tillstream rebuild`".to_owned()))
    }

    /// Under which ids the vault may keep texts of theirs.
    pub(super) fn owners(&self, person: &Erasure) -> HashSet<String> {
        let seeds = person.identifiers.iter().map(|(kind, hash)| self.names.person(kind.as_str(), hash).0);
        // A phone that came with nothing else is its own owner.
        seeds.chain(person.phones.iter().cloned()).collect()
    }

    /// What to look for in what was kept as it came.
    pub(super) async fn sought(&self, person: &Erasure, livemode: bool) -> Result<Sought, OpsError> {
        let (vault, owners) = (self.vault.clone(), self.owners(person));
        let kept = load::blocking(move || Ok(vault.kept_of(&owners)?)).await?;
        let (mut contacts, mut traces) = (Vec::new(), Vec::new());
        for kept in kept {
            let is_trace = kept.kind != "name" && !kept.is_shared;
            let Some(contact) = Contact::kept(&kept.kind, kept.hash, kept.plaintext) else { continue };
            traces.extend(is_trace.then(|| contact.clone()));
            contacts.push(contact);
        }
        let objects = self.objects_of(&person.person_id, livemode).await?;
        Ok(Sought { person: person.clone(), contacts, traces, objects })
    }

    async fn objects_of(&self, person: &PersonId, livemode: bool) -> Result<HashSet<String>, OpsError> {
        #[derive(Deserialize)]
        struct Object {
            id: Option<String>,
        }
        let of = |(table, id): (&str, &str)| {
            format!("SELECT {id} AS id FROM core.{table} WHERE person_id = '{person}' AND livemode = {livemode}")
        };
        let tables = [("charges", "charge_id"), ("payment_intents", "payment_intent_id"), ("checkouts", "session_id")];
        let sql = tables.map(of).join(" UNION ALL ");
        let rows: Vec<Object> = self.session(Micros::now())?.rows(&sql).await?;
        Ok(rows.into_iter().filter_map(|row| row.id).collect())
    }

    /// Who is meant, in the live world and in the test world.
    pub(super) async fn whom(&self, person: &str) -> Result<Vec<(bool, Component)>, OpsError> {
        let mut identifiers = self.could_be(person);
        if person.starts_with("per_") {
            identifiers.extend(self.identifiers_where("person_id", person).await?);
        } else if let Ok(phone) = E164::parse(person, self.settings.people.default_region.as_deref()) {
            identifiers.extend(self.identifiers_where("phone_e164_hash", &self.names.phone(&phone)).await?);
        }
        let mut found: BTreeMap<(bool, PersonId), Component> = BTreeMap::new();
        for (livemode, identifier) in identifiers {
            if let Some(component) = component(&self.store, livemode, &identifier)?
                && let Some(person) = component.canonical()
            {
                found.insert((livemode, person.clone()), component);
            }
        }
        let people: HashSet<&PersonId> = found.keys().map(|(_, person)| person).collect();
        match people.len() {
            0 => Err(OpsError::Unknown(format!(
                "nobody is known by {person:?}: a person is named by their id (per_…, as in core.people), an e-mail address, a \
                 phone with its country (+44…), or an id that Stripe, Klaviyo, the shop or an order gave them"
            ))),
            1 => Ok(found.into_iter().map(|((livemode, _), component)| (livemode, component)).collect()),
            _ => {
                let mut ids: Vec<&str> = people.iter().map(|person| person.0.as_str()).collect();
                ids.sort_unstable();
                Err(OpsError::Unknown(format!(
                    "{person:?} is {} people's: name one by their id, {}",
                    ids.len(),
                    ids.join(", ")
                )))
            }
        }
    }

    /// The identifiers with this in a column of `core.identities`.
    async fn identifiers_where(&self, column: &str, value: &str) -> Result<Vec<(bool, String)>, OpsError> {
        #[derive(Deserialize)]
        struct Named {
            livemode: bool,
            identity_id: String,
        }
        let value = value.replace('\'', "''");
        // Of somebody who became one with another the old id still names both.
        let sql = format!(
            "SELECT DISTINCT livemode, identity_id FROM core.identities WHERE {column} = '{value}' OR (person_id IN \
             (SELECT new FROM core.person_merges WHERE old = '{value}'))"
        );
        let rows: Vec<Named> = self.session(Micros::now())?.rows(&sql).await?;
        Ok(rows.into_iter().map(|row| (row.livemode, row.identity_id)).collect())
    }

    /// Every identifier that a text may be.
    fn could_be(&self, text: &str) -> Vec<(bool, String)> {
        let hashes = IdentifierKind::ALL.into_iter().filter_map(|kind| {
            let hash = match kind {
                IdentifierKind::Email => self.names.email(text)?,
                kind => self.names.hash(kind.as_str(), text),
            };
            Some(format!("{}:{hash}", kind.as_str()))
        });
        hashes.flat_map(|identifier| [true, false].map(|livemode| (livemode, identifier.clone()))).collect()
    }
}
