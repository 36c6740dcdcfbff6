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
    Digest, E164, Pseudonymizer,
    pseudonym::{self, CUT_OUT, ERASED, normal_email},
};

/// A shorter name is one by its place alone: within other texts it would be found by chance.
const LEAST_NAME: usize = 5;
/// Of a phone: what is longer or shorter is none.
const LEAST_DIGITS: usize = 6;
const MOST_DIGITS: usize = 17;
/// Of the text of one, in bytes.
const MOST_TEXT: usize = 64;
/// What people write between the digits of a phone.
const BETWEEN_DIGITS: &str = r"[\s().\-/]{0,3}";

/// Keys whose text is personal whoever sends it, in lower case and letters alone.
const PERSONAL: [&str; 37] = [
    "accountholdername",
    "address1",
    "address2",
    "billingaddress",
    "billingzip",
    "birthdate",
    "birthday",
    "businessname",
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
    "organization",
    "payername",
    "postalcode",
    "postcode",
    "shippingaddress",
    "street",
    "streetaddress",
    "surname",
    "useragent",
    "username",
    "verifiedname",
    "zip",
    "zipcode",
];
const IPS: [&str; 5] = ["clientip", "customerpurchaseip", "ip", "ipaddress", "remoteip"];
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

/// How much of a payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// It is theirs: all that is personal.
    Theirs,
    /// It is somebody else's, and names them: their texts alone.
    Others,
}

impl Decoder {
    /// `payload` without what tells who they are whose texts are `contacts`: its own are among them where it is theirs. `None`
    /// where nothing in it does.
    pub fn redacted(&self, payload: &str, whose: Whose, contacts: &[Contact]) -> Option<String> {
        let regions =
            contacts.iter().filter(|c| c.kind == "phone").filter_map(|c| E164::parse(&c.plaintext, None).ok());
        let regions = regions.filter_map(|phone| phone.region()).chain(self.default_region.clone()).collect();
        let redaction = Redaction { names: &self.names, whose, contacts, regions, texts: Texts::new(contacts) };
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
    pub fn cut_out(&self, said: &str) -> Option<String> {
        let texts = self.0.as_ref().filter(|_| self.are_in(said))?;
        let left = texts.replace_all(said, |found: &Captures| {
            let whole = found.get_match();
            if stands_alone(said, whole.range()) { CUT_OUT.to_owned() } else { whole.as_str().to_owned() }
        });
        Some(left.into_owned())
    }
}

/// What finds a contact within a longer text. A name of one word is not looked for: it may be a page, a city or a brand.
fn patterns(contact: &Contact) -> Vec<String> {
    let text = contact.plaintext.as_str();
    match contact.kind {
        // As it stands, in an address of a page, and as JSON may write it.
        "email" => ["@", "%40", r"\\u0040"].map(|at| regex::escape(text).replace('@', at)).to_vec(),
        "phone" => E164::parse(text, None).map(|phone| phone_pattern(&phone)).into_iter().collect(),
        _ if is_a_full_name(text) => vec![regex::escape(text)],
        _ => Vec::new(),
    }
}

/// The number with its country or without, its digits apart or together.
fn phone_pattern(phone: &E164) -> String {
    let (all, national) = (phone.as_str().trim_start_matches('+'), phone.national());
    let country = all.strip_suffix(national.as_str()).unwrap_or_default();
    let apart = |digits: &str| digits.chars().map(String::from).collect::<Vec<_>>().join(BETWEEN_DIGITS);
    format!(r"(?:(?:\+|%2B)?{country}{BETWEEN_DIGITS}\(?0?\)?{BETWEEN_DIGITS}|\(?0)?{}", apart(&national))
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

fn is_a_full_name(text: &str) -> bool {
    text.contains(char::is_whitespace) && text.chars().count() >= LEAST_NAME
}

struct Redaction<'a> {
    names: &'a Pseudonymizer,
    whose: Whose,
    contacts: &'a [Contact],
    /// Two letters, of their phones and of the merchant: how a national number may be read.
    regions: Vec<String>,
    texts: Texts,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    key: &'a str,
    /// The object that it is in is a person's.
    of_a_person: bool,
}

impl Redaction<'_> {
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
                let left = self.left_of(&said, place).filter(|left| *left != said);
                changed = left.is_some();
                out.push_str(&serde_json::to_string(&left.unwrap_or(said))?);
            }
            Some(b'-' | b'0'..=b'9') => {
                let left = match self.phone(text, place) {
                    Some(token) => Some(serde_json::to_string(&token)?),
                    None => self.is_personal(place).then(|| "null".to_owned()),
                };
                changed = left.is_some();
                out.push_str(left.as_deref().unwrap_or(text));
            }
            _ => out.push_str(text),
        }
        Ok(changed)
    }

    /// What is left of a text; `None` where all of it may stay.
    fn left_of(&self, said: &str, place: Place) -> Option<String> {
        let trimmed = said.trim();
        if trimmed.is_empty() || trimmed == ERASED || trimmed.starts_with(pseudonym::TOKEN) {
            return None;
        }
        self.email(said, place).or_else(|| self.phone(said, place)).or_else(|| self.ip(said, place)).or_else(|| {
            let is_their_name = is_a_full_name(trimmed)
                && self.theirs("name").any(|contact| contact.plaintext.to_lowercase() == trimmed.to_lowercase());
            match self.is_personal(place) || is_their_name {
                true => Some(ERASED.to_owned()),
                false => self.texts.cut_out(said),
            }
        })
    }

    fn email(&self, said: &str, place: Place) -> Option<String> {
        let address = normal_email(said).filter(|address| !address.contains(char::is_whitespace))?;
        let is_one = self.whose == Whose::Theirs && place.key.contains("email");
        let is_theirs = is_one || self.theirs("email").any(|contact| contact.plaintext == address);
        let kind = IdentifierKind::Email.as_str();
        is_theirs.then(|| self.token(said, kind, &self.names.hash(kind, &address)))
    }

    /// A phone of theirs in whatever way it is written, and under a phone's key what only may be one.
    fn phone(&self, said: &str, place: Place) -> Option<String> {
        let digits = said.chars().filter(|c| c.is_numeric()).count();
        if !(LEAST_DIGITS..=MOST_DIGITS).contains(&digits) || said.len() > MOST_TEXT {
            return None;
        }
        let regions = std::iter::once(None).chain(self.regions.iter().map(|region| Some(region.as_str())));
        let read: Vec<E164> = regions.filter_map(|region| E164::parse(said, region).ok()).collect();
        let contact = self.theirs("phone").find(|c| read.iter().any(|phone| phone.as_str() == c.plaintext));
        let is_one = self.whose == Whose::Theirs && place.key.contains("phone");
        match contact {
            Some(contact) => Some(self.token(said, "phone", &contact.hash)),
            None => is_one.then(|| ERASED.to_owned()),
        }
    }

    fn ip(&self, said: &str, place: Place) -> Option<String> {
        let is_one = self.whose == Whose::Theirs && IPS.contains(&place.key);
        is_one.then(|| pseudonym::token([("ip", self.names.hash("ip", said).as_str())]))
    }

    fn theirs(&self, kind: &'static str) -> impl Iterator<Item = &Contact> {
        self.contacts.iter().filter(move |contact| contact.kind == kind)
    }

    /// A text as whatever it may be read as.
    fn token(&self, said: &str, kind: &str, hash: &str) -> String {
        let others = [IdentifierKind::User, IdentifierKind::OrderRef, IdentifierKind::Anonymous];
        let others = others.map(|kind| (kind.as_str(), self.names.hash(kind.as_str(), said)));
        let others = others.iter().map(|(kind, hash)| (*kind, hash.as_str()));
        pseudonym::token(std::iter::once((kind, hash)).chain(others))
    }

    fn is_personal(&self, place: Place) -> bool {
        let is_personal = PERSONAL.contains(&place.key) || (place.of_a_person && matches!(place.key, "name" | "state"));
        self.whose == Whose::Theirs && is_personal
    }
}

fn is_a_persons(key: &str, entries: &[(String, &RawValue)]) -> bool {
    OF_A_PERSON.contains(&key) || entries.iter().any(|(key, value)| key == "object" && value.get() == "\"customer\"")
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
        let left = decoder.redacted(&payload.to_string(), Whose::Theirs, &known).unwrap();
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
        assert_eq!(decoder.redacted(&left, Whose::Theirs, &known), None);
    }

    #[test]
    fn what_is_no_json_loses_the_texts_alone() {
        let decoder = decoder();
        let cut = |email: &str| format!("{{\"email\": \"{email}\", \"to\": \"joann@example.com, jo.ann@example.com");
        let left = decoder.redacted(&cut("ANN@example.com"), Whose::Theirs, &contacts(&decoder));
        assert_eq!(left, Some(cut("[erased]")), "Joann is somebody else");
        assert_eq!(decoder.redacted("nothing of theirs", Whose::Theirs, &contacts(&decoder)), None);
    }

    #[test]
    fn a_phone_is_known_in_whatever_way_it_is_written() {
        let (decoder, known) = (decoder(), contacts(&decoder()));
        let user = |said: &str| decoder.names.hash("user", said);
        for said in
            ["+447400123456", "07400 123456", "+44 (0)7400 123456", "\u{202a}+44 7400 123456\u{202c}", "447400123456"]
        {
            let left =
                decoder.redacted(&json!({ "userId": said, "phone": said }).to_string(), Whose::Theirs, &known).unwrap();
            let read: Value = serde_json::from_str(&left).unwrap();
            let token = read["userId"].as_str().unwrap();
            assert_eq!(pseudonym::erased("phone", token), Some(known[1].hash.as_str()), "{said}");
            assert_eq!(decoder.names.hash("user", token), user(said), "an id that is a phone names whom it named");
        }
        let texts = Texts::new(&known[1..2]);
        for said in ["ring 07400-123 456.", "tel:+44 7400 123456", "(0)7400123456", "44 7400123456"] {
            assert!(texts.are_in(said), "{said}");
        }
        for said in ["order 107400123456", "+4474001234567", "07400 123457"] {
            assert!(!texts.are_in(said), "{said}");
        }
        let number =
            decoder.redacted(r#"{"phone":447400123456,"mobile":7400123456,"n":7}"#, Whose::Theirs, &known).unwrap();
        assert!(!number.contains("7400123456") && number.contains("\"n\":7"), "{number}");
    }

    #[test]
    fn what_is_somebody_elses_loses_their_texts_alone() {
        let decoder = decoder();
        let payload = json!({"type": "page", "email": "bob@example.com", "phone": "+33612345678", "city": "Paris",
            "context": {"page": {"url": "https://shop.example/?email=ann%40example.com"}}, "product": "Lee"});
        let left = decoder.redacted(&payload.to_string(), Whose::Others, &contacts(&decoder)).unwrap();
        let mut wanted = payload;
        wanted["context"]["page"]["url"] = "https://shop.example/?email=[erased]".into();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), wanted);
    }
}
