//! What the tables know of some people: how to reach them, where they are, what they agreed to.
//!
//! One look, for the people of one look at a segment or of one dispatch. It holds hashes; the vault turns one into an
//! address at the last moment.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::{
    error::ActivateError,
    members,
    message::{Medium, Message},
    read::rows_of,
    rules::Consent,
};
use crate::{
    base::{Micros, PersonId},
    engine::Session,
};

/// A row of `core.people`.
#[derive(Debug, Clone, Deserialize)]
pub struct Person {
    person_id: String,
    email_hash: Option<String>,
    phone_e164_hash: Option<String>,
    pub country: Option<String>,
    pub timezone: Option<String>,
    livemode: Option<bool>,
}

impl Person {
    /// The hash of the address that a message of this medium goes to.
    pub fn destination(&self, medium: Medium) -> Option<&str> {
        match medium {
            Medium::Sms => self.phone_e164_hash.as_deref(),
            Medium::Email => self.email_hash.as_deref(),
        }
    }
}

#[derive(Deserialize)]
struct ConsentRow {
    person_id: String,
    channel: String,
    state: String,
    source: Option<String>,
    at: String,
    seen_at: Option<String>,
}

#[derive(Deserialize)]
struct SuppressionRow {
    channel: String,
    destination_hash: String,
    reason: Option<String>,
    at: String,
}

#[derive(Deserialize)]
struct MergeRow {
    old: String,
    new: String,
}

/// See the module.
#[derive(Default)]
pub struct Knowledge {
    /// By id, and whether the row is of live data.
    people: HashMap<(String, bool), Person>,
    consents: HashMap<(String, Medium), Consent>,
    suppressions: HashMap<(Medium, String), (String, Micros)>,
    /// The ids that a person had before.
    former: HashMap<String, Vec<PersonId>>,
}

impl Knowledge {
    /// Of people by their names of now, and of these destinations beside their own.
    pub async fn of(
        session: &Session,
        people: &BTreeSet<String>,
        destinations: impl IntoIterator<Item = String>,
    ) -> Result<Knowledge, ActivateError> {
        let mut known = Knowledge::default();
        let sql = "SELECT person_id, email_hash, phone_e164_hash, country, timezone, livemode FROM core.people \
                   WHERE person_id IS NOT NULL";
        for person in rows_of::<Person>(session, sql, "person_id", people).await? {
            known.people.insert((person.person_id.clone(), person.livemode == Some(true)), person);
        }
        let sql = "SELECT person_id, channel, state, source, at, seen_at FROM core.consents \
                   WHERE purpose = 'marketing' AND person_id IS NOT NULL AND at IS NOT NULL";
        for row in rows_of::<ConsentRow>(session, sql, "person_id", people).await? {
            known.take_consent(row);
        }
        let sql = "SELECT old, new FROM core.person_merges WHERE old IS NOT NULL AND new IS NOT NULL";
        for MergeRow { old, new } in rows_of::<MergeRow>(session, sql, "new", people).await? {
            known.former.entry(new).or_default().push(PersonId(old));
        }
        let own = known.people.values().flat_map(|p| Medium::ALL.map(|m| p.destination(m).map(str::to_owned)));
        let destinations: BTreeSet<String> = own.flatten().chain(destinations).filter(|d| !d.is_empty()).collect();
        let sql =
            "SELECT channel, destination_hash, reason, at FROM ops.suppressions WHERE destination_hash IS NOT NULL";
        for row in rows_of::<SuppressionRow>(session, sql, "destination_hash", &destinations).await? {
            if let Ok(medium) = row.channel.parse() {
                let why = row.reason.unwrap_or_else(|| "no reason given".to_owned());
                known.suppressions.insert((medium, row.destination_hash), (why, time(&row.at)));
            }
        }
        Ok(known)
    }

    /// The person in the world, live or test, that a message belongs to; else in the other.
    pub fn person(&self, id: &PersonId, livemode: bool) -> Option<&Person> {
        let of = |mode| self.people.get(&(id.0.clone(), mode));
        of(livemode).or_else(|| of(!livemode))
    }

    /// Whether live data knows this person.
    pub fn is_live(&self, id: &PersonId) -> bool {
        self.people.contains_key(&(id.0.clone(), true))
    }

    pub fn consent(&self, id: &PersonId, medium: Medium) -> Option<&Consent> {
        self.consents.get(&(id.0.clone(), medium))
    }

    pub fn suppression(&self, medium: Medium, destination: &str) -> Option<&(String, Micros)> {
        self.suppressions.get(&(medium, destination.to_owned()))
    }

    /// The person's name of now, and those before.
    pub fn names(&self, id: &PersonId) -> Vec<PersonId> {
        let former = self.former.get(&id.0).cloned().unwrap_or_default();
        std::iter::once(id.clone()).chain(former).collect()
    }

    /// The newest statement holds; of two at one moment the one that forbids.
    fn take_consent(&mut self, row: ConsentRow) {
        let Ok(medium) = row.channel.parse::<Medium>() else {
            return;
        };
        let (at, source) = (time(&row.at), row.source.unwrap_or_default());
        let seen_at = row.seen_at.as_deref().map_or(at, time);
        let new = Consent { state: row.state, source, at, seen_at };
        let rank = |c: &Consent| (c.at, c.state != "subscribed", c.seen_at);
        let held = self.consents.entry((row.person_id, medium)).or_insert_with(|| new.clone());
        if rank(&new) > rank(held) {
            *held = new;
        }
    }
}

/// What people are called now, who are not called what they were.
pub async fn merges(
    session: &Session,
    people: &BTreeSet<String>,
) -> Result<HashMap<PersonId, PersonId>, ActivateError> {
    let sql = "SELECT old, new FROM core.person_merges WHERE old IS NOT NULL AND new IS NOT NULL";
    let rows = rows_of::<MergeRow>(session, sql, "old", people).await?;
    Ok(rows.into_iter().map(|r| (PersonId(r.old), PersonId(r.new))).collect())
}

/// The names of now of the people of these messages, by message key.
pub async fn names_of_now(
    session: &Session,
    messages: impl Iterator<Item = &Message> + Clone,
) -> Result<HashMap<String, PersonId>, ActivateError> {
    let people = messages.clone().map(|m| m.person_id.0.clone()).collect();
    let merges = merges(session, &people).await?;
    Ok(messages.map(|m| (m.key.0.clone(), members::current(&m.person_id, &merges))).collect())
}

/// A time as queries give it: with a zone, or without one and then in UTC.
pub fn time(text: &str) -> Micros {
    Micros::parse(text, chrono_tz::Tz::UTC).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, at: &str) -> ConsentRow {
        let (person_id, channel, source) = ("p".to_owned(), "sms".to_owned(), Some("klaviyo".to_owned()));
        ConsentRow { person_id, channel, state: state.to_owned(), source, at: at.to_owned(), seen_at: None }
    }

    #[test]
    fn the_newest_word_holds_and_of_two_at_once_the_no() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let rows = || {
                [
                    row("subscribed", "2026-01-02T00:00:00Z"),
                    row("unsubscribed", "2026-01-02T00:00:00"),
                    row("subscribed", "2026-01-01T00:00:00Z"),
                ]
            };
            let mut known = Knowledge::default();
            for i in order {
                known.take_consent(rows().into_iter().nth(i).unwrap());
            }
            assert_eq!(known.consent(&PersonId("p".into()), Medium::Sms).unwrap().state, "unsubscribed", "{order:?}");
        }
    }
}
