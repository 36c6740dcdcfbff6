//! The person that an event speaks of: what identifies them, what is told of them, and the clear texts for the vault.
//!
//! Whatever goes into a row passes through here and comes out as a hash.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Contact, Decoder,
    identity::{Attributes, Identifier, IdentifierKind, IdentityClaim, Phone},
};
use crate::base::{
    Currency, E164, Lately, Micros, PersonId, Pseudonymizer,
    phone::BadPhone,
    pseudonym::{self, normal_email},
};

/// Phones as people wrote them, and the numbers they are. Finding out takes longer than reading the rest of an event,
/// and the same phone comes with every order of its owner's.
pub(super) struct Phones(Mutex<Lately<String, Judged>>);

/// Phones remembered at least: some 20 MB.
const REMEMBERED: usize = 50_000;

/// A number and what is told of it, or why it is none.
type Judged = Result<(E164, Phone), BadPhone>;

impl Default for Phones {
    fn default() -> Phones {
        Phones(Mutex::new(Lately::new(REMEMBERED)))
    }
}

impl Phones {
    fn judge(&self, names: &Pseudonymizer, text: &str, region: Option<&str>) -> Judged {
        let key = format!("{}\0{text}", region.unwrap_or_default());
        if let Some(known) = self.lock().get(&key) {
            return known;
        }
        let judged = E164::parse(text, region).map(|number| {
            let phone = told(names, &number);
            (number, phone)
        });
        self.lock().insert(key, judged.clone());
        judged
    }

    fn lock(&self) -> MutexGuard<'_, Lately<String, Judged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(names: &Pseudonymizer, number: &E164) -> Phone {
    let plan = number.plan();
    Phone {
        hash: names.phone(number),
        region: plan.region,
        kind: plan.kind.to_owned(),
        carrier: plan.carrier,
        time_zones: (!plan.time_zones.is_empty()).then(|| serde_json::Value::from(plan.time_zones).to_string()),
    }
}

/// Where one was erased the word says so, once for each part of it.
fn is_a_name(text: &str) -> bool {
    text.split_whitespace().any(|word| word != pseudonym::ERASED)
}

/// Gathers what one event tells of one person.
pub(super) struct Someone<'a> {
    by: &'a Decoder,
    identifiers: Vec<Identifier>,
    attributes: Attributes,
    contacts: Vec<Contact>,
}

impl<'a> Someone<'a> {
    pub fn new(by: &'a Decoder) -> Someone<'a> {
        let (identifiers, contacts) = (Vec::new(), Vec::new());
        Someone { by, identifiers, attributes: Attributes::default(), contacts }
    }

    /// An address that names the person, unless many share it. Its hash, where it is one.
    pub fn email(&mut self, address: Option<&str>) -> Option<String> {
        let hash = self.by.names.email(address?)?;
        // Of one that was erased only the hash is left.
        let plaintext = normal_email(address?);
        if plaintext.as_deref().is_some_and(|address| self.by.shared.hold(address)) {
            return Some(hash);
        }
        self.attributes.email_hash = Some(hash.clone());
        self.add(IdentifierKind::Email, hash.clone());
        self.contacts.extend(plaintext.map(|plaintext| Contact::new("email", &hash, plaintext)));
        Some(hash)
    }

    /// A phone, which is told of the person but never names them: families share one. Its hash, where it is one.
    pub fn phone(&mut self, text: Option<&str>, country: Option<&str>) -> Option<String> {
        if let Some(hash) = pseudonym::erased("phone", text?) {
            return Some(hash.to_owned());
        }
        let region = country.filter(|c| c.len() == 2).or(self.by.default_region.as_deref());
        match self.by.phones.judge(&self.by.names, text?, region) {
            Ok((number, phone)) => {
                let hash = phone.hash.clone();
                self.contacts.push(Contact::new("phone", &hash, number.as_str().to_owned()));
                self.attributes.phone = Some(phone);
                Some(hash)
            }
            Err(BadPhone::Empty) => None,
            Err(why) => {
                self.attributes.phone_problem = Some(why.code().to_owned());
                None
            }
        }
    }

    /// Any other identifier.
    pub fn known_as(&mut self, kind: IdentifierKind, value: Option<&str>) -> Option<String> {
        let hash = self.by.names.hash(kind.as_str(), value?);
        self.add(kind, hash.clone());
        Some(hash)
    }

    pub fn lives_in(&mut self, country: Option<&str>) -> Option<String> {
        let country = country.filter(|c| c.len() == 2 && c.bytes().all(|b| b.is_ascii_alphabetic()))?;
        self.attributes.country = Some(country.to_ascii_uppercase());
        self.attributes.country.clone()
    }

    /// What they paid in.
    pub fn pays_in(&mut self, currency: Currency) {
        self.attributes.currency = Some(currency.as_str().to_owned());
    }

    pub fn speaks(&mut self, locale: Option<&str>) {
        self.attributes.locale = locale.map(str::to_owned).or(self.attributes.locale.take());
    }

    pub fn in_zone(&mut self, timezone: Option<&str>) {
        self.attributes.timezone = timezone.map(str::to_owned).or(self.attributes.timezone.take());
    }

    /// A name, kept in the vault under the hash of the person's best identifier. To be told after all identifiers.
    pub fn named(&mut self, name: Option<&str>) {
        let (Some(name), Some(best)) = (name.map(str::trim).filter(|n| is_a_name(n)), self.best()) else { return };
        let contact = Contact::new("name", &best.value_hash, name.to_owned());
        self.contacts.push(contact);
    }

    /// The person by the best identifier, with that one's rank.
    pub fn ranked(&self) -> Option<(u8, PersonId)> {
        self.best().map(|i| (i.kind as u8, i.seed.clone()))
    }

    pub fn person(&self) -> Option<PersonId> {
        self.best().map(|i| i.seed.clone())
    }

    pub fn finish(self, at: Micros, livemode: bool) -> (Option<IdentityClaim>, Vec<Contact>) {
        let owner = self.person();
        let Someone { mut identifiers, attributes, mut contacts, .. } = self;
        contacts.iter_mut().for_each(|contact| contact.owner.clone_from(&owner));
        identifiers.sort_unstable();
        identifiers.dedup();
        let claim =
            (!identifiers.is_empty()).then_some(IdentityClaim { at, livemode, identifiers, attributes, erases: false });
        (claim, contacts)
    }

    fn add(&mut self, kind: IdentifierKind, hash: String) {
        if !self.identifiers.iter().any(|i| i.kind == kind && i.value_hash == hash) {
            self.identifiers.push(Identifier::new(&self.by.names, kind, hash));
        }
    }

    fn best(&self) -> Option<&Identifier> {
        self.identifiers.iter().min()
    }
}
