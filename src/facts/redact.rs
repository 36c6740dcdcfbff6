//! Payloads of people who asked to be forgotten: what tells who they are goes, and all that is counted stays.
//!
//! An address, a phone and an IP leave a [token](pseudonym::token), from which the same hashes are made again: facts of the
//! payload that is left are those of the payload that was. What else is personal leaves the word `erased`. Numbers, times,
//! amounts, countries and the ids of objects stay.

use std::ops::Range;

use regex::{Captures, Regex, RegexBuilder};
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Contact, Decoder, identity::IdentifierKind};
use crate::base::{
    Digest, Pseudonymizer,
    pseudonym::{self, normal_email},
};

/// What stands for a value of which nothing is needed any more.
const ERASED: &str = "erased";
/// The same within a longer text.
const CUT_OUT: &str = "[erased]";
/// A shorter name is looked for as a whole value alone: within other words it would be found by chance.
const LEAST_NAME: usize = 5;
/// The same of a phone's digits.
const LEAST_DIGITS: usize = 7;

/// Keys whose text is personal whoever sends it, in lower case and letters alone.
const PERSONAL: [&str; 31] = [
    "accountholdername",
    "address1",
    "address2",
    "birthdate",
    "birthday",
    "cardholdername",
    "city",
    "customername",
    "dateofbirth",
    "dob",
    "familyname",
    "firstname",
    "fullname",
    "givenname",
    "lastname",
    "latitude",
    "line1",
    "line2",
    "longitude",
    "middlename",
    "nameoncard",
    "payername",
    "postalcode",
    "postcode",
    "street",
    "streetaddress",
    "surname",
    "useragent",
    "verifiedname",
    "zip",
    "zipcode",
];
const IPS: [&str; 5] = ["clientip", "customeracsip", "ip", "ipaddress", "remoteip"];
/// Objects whose `name` and `state` are a person's, by the keys that they are under.
const OF_A_PERSON: [&str; 18] = [
    "address",
    "billing",
    "billingaddress",
    "billingdetails",
    "card",
    "customer",
    "customeraddress",
    "customerdetails",
    "customershipping",
    "individual",
    "owner",
    "previousattributes",
    "recipient",
    "shipping",
    "shippingaddress",
    "shippingdetails",
    "traits",
    "user",
];

impl Decoder {
    /// `payload` without what tells who it is of. `contacts`: the texts that are theirs, its own among them. `None` where
    /// nothing in it does.
    pub fn redacted(&self, payload: &str, contacts: &[Contact]) -> Option<String> {
        let redaction = Redaction::new(&self.names, contacts);
        // What is nested deeper than anything that was ever taken for an event is looked at as text.
        if Digest::of_json(payload).is_err() {
            return redaction.texts.cut_out(payload);
        }
        let mut out = String::with_capacity(payload.len());
        let whole = serde_json::from_str(payload).ok()?;
        redaction.walk(whole, Place::default(), &mut out).ok()?.then_some(out)
    }
}

/// Somebody's texts, looked for within longer ones, and never within a longer word: Ann's address is not in Joann's.
pub struct Texts(Option<Regex>);

impl Texts {
    pub fn new(contacts: &[Contact]) -> Texts {
        let mut patterns: Vec<String> = contacts.iter().flat_map(patterns).collect();
        if patterns.is_empty() {
            return Texts(None);
        }
        // The longest first: of two that begin alike the regex takes the first.
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        Texts(RegexBuilder::new(&patterns.join("|")).case_insensitive(true).build().ok())
    }

    pub fn are_in(&self, said: &str) -> bool {
        self.0.as_ref().is_some_and(|texts| texts.find_iter(said).any(|found| stands_alone(said, found.range())))
    }

    /// What is left of a text without them; `None` where none is in it.
    fn cut_out(&self, said: &str) -> Option<String> {
        let texts = self.0.as_ref().filter(|_| self.are_in(said))?;
        let left = texts.replace_all(said, |found: &Captures| {
            let whole = found.get_match();
            if stands_alone(said, whole.range()) { CUT_OUT.to_owned() } else { whole.as_str().to_owned() }
        });
        Some(left.into_owned())
    }
}

/// Whether neither a letter nor a digit, nor what joins them in an address, is beside it.
fn stands_alone(said: &str, range: Range<usize>) -> bool {
    let joins = |c: char| c.is_alphanumeric() || "._+-".contains(c);
    let goes_on = |rest: &str| {
        let mut rest = rest.chars();
        match rest.next() {
            // The end of a sentence is none of a name's.
            Some('.' | '-') => rest.next().is_some_and(char::is_alphanumeric),
            next => next.is_some_and(|c| c.is_alphanumeric() || c == '_'),
        }
    };
    !said[..range.start].chars().next_back().is_some_and(joins) && !goes_on(&said[range.end..])
}

struct Redaction<'a> {
    names: &'a Pseudonymizer,
    contacts: &'a [Contact],
    texts: Texts,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    key: &'a str,
    /// The object that it is in is a person's.
    of_a_person: bool,
}

impl<'a> Redaction<'a> {
    fn new(names: &'a Pseudonymizer, contacts: &'a [Contact]) -> Redaction<'a> {
        Redaction { names, contacts, texts: Texts::new(contacts) }
    }

    /// Writes the value to `out` as it may stay. Whether it is another now.
    fn walk(&self, value: &RawValue, place: Place, out: &mut String) -> Result<bool, serde_json::Error> {
        let text = value.get();
        let mut changed = false;
        match text.as_bytes().first() {
            Some(b'{') => {
                let Entries(entries) = serde_json::from_str(text)?;
                let of_a_person = is_a_persons(place.key, &entries);
                for (i, (key, value)) in entries.iter().enumerate() {
                    out.push(if i == 0 { '{' } else { ',' });
                    out.push_str(&serde_json::to_string(key)?);
                    out.push(':');
                    let key = letters(key);
                    changed |= self.walk(value, Place { key: &key, of_a_person }, out)?;
                }
                out.push_str(if entries.is_empty() { "{}" } else { "}" });
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                for (i, item) in items.iter().enumerate() {
                    out.push(if i == 0 { '[' } else { ',' });
                    changed |= self.walk(item, place, out)?;
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Some(b'"') => {
                let said: String = serde_json::from_str(text)?;
                let left = self.left_of(&said, place);
                changed = left.as_ref().is_some_and(|left| *left != said);
                out.push_str(&serde_json::to_string(&left.unwrap_or(said))?);
            }
            Some(b'-' | b'0'..=b'9') if is_personal(place) || place.key.contains("phone") => {
                out.push_str("null");
                changed = true;
            }
            _ => out.push_str(text),
        }
        Ok(changed)
    }

    /// What is left of a text; `None` where all of it may stay.
    fn left_of(&self, said: &str, place: Place) -> Option<String> {
        let said = said.trim();
        if said.is_empty() || said == ERASED || said.starts_with(pseudonym::TOKEN) {
            return None;
        }
        if let Some(address) = normal_email(said).filter(|a| !a.contains(char::is_whitespace))
            && (place.key.contains("email") || self.theirs("email").any(|contact| contact.plaintext == address))
        {
            return Some(self.token_of(said, &address));
        }
        if let Some(contact) = self.theirs("phone").find(|contact| is_the_phone(&contact.plaintext, said)) {
            return Some(pseudonym::token([("phone", contact.hash.as_str())]));
        }
        if IPS.contains(&place.key) {
            return Some(pseudonym::token([("ip", self.names.hash("ip", said).as_str())]));
        }
        let is_their_name =
            || self.theirs("name").any(|contact| contact.plaintext.to_lowercase() == said.to_lowercase());
        let is_a_phone = || place.key.contains("phone") && digits(said).len() >= LEAST_DIGITS;
        if is_personal(place) || is_a_phone() || is_their_name() {
            return Some(ERASED.to_owned());
        }
        self.texts.cut_out(said)
    }

    fn theirs(&self, kind: &'static str) -> impl Iterator<Item = &Contact> {
        self.contacts.iter().filter(move |contact| contact.kind == kind)
    }

    /// The address as whatever it may have been read as.
    fn token_of(&self, said: &str, address: &str) -> String {
        let email = self.names.hash(IdentifierKind::Email.as_str(), address);
        let others = [IdentifierKind::User, IdentifierKind::OrderRef, IdentifierKind::Anonymous];
        let others = others.map(|kind| (kind.as_str(), self.names.hash(kind.as_str(), said)));
        let others = others.iter().map(|(kind, hash)| (*kind, hash.as_str()));
        pseudonym::token(std::iter::once((IdentifierKind::Email.as_str(), email.as_str())).chain(others))
    }
}

/// What finds a contact within a longer text.
fn patterns(contact: &Contact) -> Vec<String> {
    let text = contact.plaintext.as_str();
    match contact.kind {
        "email" => [text.to_owned(), text.replace('@', "%40")].iter().map(|t| regex::escape(t)).collect(),
        "phone" => vec![format!(r"\+?{}", regex::escape(text.trim_start_matches('+')))],
        _ if text.chars().count() >= LEAST_NAME => vec![regex::escape(text)],
        _ => Vec::new(),
    }
}

/// Whether `said` is the number, in whatever way it is written: with its country, or as it is dialled within it.
fn is_the_phone(number: &str, said: &str) -> bool {
    let is_spelt = |c: char| c.is_ascii_digit() || c.is_whitespace() || "+-.()/".contains(c);
    if !said.trim_start_matches("tel:").chars().all(is_spelt) {
        return false;
    }
    let dialled = digits(said);
    let dialled = dialled.trim_start_matches('0');
    dialled.len() >= LEAST_DIGITS && digits(number).ends_with(dialled)
}

fn is_personal(place: Place) -> bool {
    PERSONAL.contains(&place.key) || (place.of_a_person && matches!(place.key, "name" | "state"))
}

fn is_a_persons(key: &str, entries: &[(String, &RawValue)]) -> bool {
    OF_A_PERSON.contains(&key) || entries.iter().any(|(key, value)| key == "object" && value.get() == "\"customer\"")
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// A key as it is compared: `$first_name`, `firstName` and `First name` are one.
fn letters(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// An object's keys and values as they stand there.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::SharedAddresses;

    fn decoder() -> Decoder {
        Decoder::new(Pseudonymizer::new(&[7; 32]), None, SharedAddresses::default())
    }

    fn contacts(decoder: &Decoder) -> Vec<Contact> {
        let email = decoder.names.email("ann@example.com").unwrap();
        let phone = decoder.names.hash("phone", "+447400123456");
        vec![
            Contact::new("email", &email, "ann@example.com".to_owned()),
            Contact::new("phone", &phone, "+447400123456".to_owned()),
            Contact::new("name", &email, "Ann Lee".to_owned()),
        ]
    }

    #[test]
    fn what_tells_who_it_is_goes_and_what_is_counted_stays() {
        let (decoder, payload) = (
            decoder(),
            json!({
                "id": "evt_1", "amount": 1200, "currency": "gbp", "customer": "cus_1", "livemode": true,
                "receipt_email": "Ann@Example.com", "userId": "ann@example.com",
                "billing_details": {"name": "Ann Lee", "phone": "07400 123456", "address":
                    {"line1": "1 High Street", "city": "Leeds", "postal_code": "LS1", "country": "GB", "state": null}},
                "product": {"name": "Mug"}, "metric": {"name": "ann lee"},
                "metadata": {"ip": "10.0.0.1", "note": "call Ann Lee at +447400123456, ann%40example.com", "table": 4},
                "location": {"latitude": 53.8, "timezone": "Europe/London"},
            }),
        );
        let known = contacts(&decoder);
        let left = decoder.redacted(&payload.to_string(), &known).unwrap();
        let read: Value = serde_json::from_str(&left).unwrap();
        for gone in ["nn@", "Ann", "ann", "7400", "High", "Leeds", "LS1", "10.0.0.1", "53.8"] {
            assert!(!left.contains(gone), "{gone} in {left}");
        }
        for (kept, value) in [("id", json!("evt_1")), ("amount", json!(1200)), ("customer", json!("cus_1"))] {
            assert_eq!(read[kept], value);
        }
        assert_eq!(read["product"]["name"], "Mug");
        assert_eq!(read["billing_details"]["address"]["country"], "GB");
        assert_eq!(read["location"]["timezone"], "Europe/London");
        assert_eq!(read["metadata"]["note"], "call [erased] at [erased], [erased]");
        let names = &decoder.names;
        assert_eq!(names.email(read["receipt_email"].as_str().unwrap()), names.email("ann@example.com"));
        assert_eq!(names.hash("user", read["userId"].as_str().unwrap()), names.hash("user", "ann@example.com"));
        assert_eq!(names.hash("ip", read["metadata"]["ip"].as_str().unwrap()), names.hash("ip", "10.0.0.1"));
        let phone = read["billing_details"]["phone"].as_str().unwrap();
        assert_eq!(pseudonym::erased("phone", phone), Some(known[1].hash.as_str()));
        // Once is enough.
        assert_eq!(decoder.redacted(&left, &known), None);
    }

    #[test]
    fn what_is_no_json_loses_the_texts_alone() {
        let decoder = decoder();
        let cut = |email: &str| format!("{{\"email\": \"{email}\", \"to\": \"joann@example.com, jo.ann@example.com");
        let left = decoder.redacted(&cut("ANN@example.com"), &contacts(&decoder));
        assert_eq!(left, Some(cut("[erased]")), "Joann is somebody else");
        assert_eq!(decoder.redacted("nothing of theirs", &contacts(&decoder)), None);
    }
}
