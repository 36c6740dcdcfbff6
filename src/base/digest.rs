//! A digest of what a JSON value says, whatever its white space, key order or escapes.
//!
//! Two deliveries of one event may be written differently; an absent key and a null one say the same. So a map's
//! digest is a sum over its entries, which no order changes, and a null adds nothing. 64 bits: equal digests are only
//! ever compared under one event id or one object.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u64);

impl Digest {
    /// Of one JSON document, which is read to its end and so proven well formed.
    pub fn of_json(json: &str) -> Result<Digest, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let digest = Digest::of(&mut reader)?;
        reader.end()?;
        Ok(digest)
    }

    /// Of a document, and of what it would be with `overlay` laid over it: maps are overlaid key by key, anything else,
    /// arrays among it, is replaced.
    pub fn with_overlay(json: &str, overlay: &Value) -> Result<(Digest, Digest), serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let (plain, overlaid) = Overlaid(overlay).deserialize(&mut reader)?;
        reader.end()?;
        Ok((Digest(plain), Digest(overlaid)))
    }

    /// Of anything that serde can walk as data of JSON's kinds, a `serde_json::Value` for one.
    pub fn of<'de, D: Deserializer<'de>>(value: D) -> Result<Digest, D::Error> {
        Walk.deserialize(value).map(Digest)
    }

    /// This digest with a word beside it: what an event says is its data *and* its type.
    pub fn with(self, word: &str) -> Digest {
        Digest(mix(xxh3_64(word.as_bytes()), self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

const NULL: u64 = 0;
const ARRAY: u64 = 0x61;
const MAP: u64 = 0x6d;
const NUMBER: u64 = 0x6e;
const BOOL: u64 = 0x62;

fn mix(key: u64, value: u64) -> u64 {
    xxh3_64_with_seed(&value.to_le_bytes(), key)
}

struct Walk;

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A map's key, hashed without keeping it.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        Ok(xxh3_64(text.as_bytes()))
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<u64, E> {
        Ok(NULL)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<u64, E> {
        Ok(mix(BOOL, u64::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(mix(NUMBER, value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        Ok(mix(NUMBER, value as u64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        // 5.0 and 5 are one number in JSON.
        let whole = value as i64;
        Ok(mix(NUMBER, if whole as f64 == value { whole as u64 } else { value.to_bits() }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        Ok(xxh3_64(text.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut sum = ARRAY;
        while let Some(item) = items.next_element_seed(Walk)? {
            sum = mix(sum, item);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let mut sum = 0u64;
        while let Some(key) = entries.next_key_seed(Key)? {
            let value = entries.next_value_seed(Walk)?;
            if value != NULL {
                sum = sum.wrapping_add(mix(key, value));
            }
        }
        Ok(mix(MAP, sum))
    }
}

/// A value and what is laid over it: the digests of the value as it is, and overlaid.
struct Overlaid<'a>(&'a Value);

impl Overlaid<'_> {
    /// Nothing of the value is left under the overlay.
    fn replaces<E: Error>(&self, plain: Result<u64, E>) -> Result<(u64, u64), E> {
        let overlaid = Digest::of(self.0).map_err(E::custom)?;
        Ok((plain?, overlaid.0))
    }
}

impl<'de> DeserializeSeed<'de> for Overlaid<'_> {
    type Value = (u64, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, u64), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Overlaid<'_> {
    type Value = (u64, u64);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_unit())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_u64(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_i64(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_f64(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(u64, u64), E> {
        self.replaces(Walk.visit_str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(u64, u64), A::Error> {
        self.replaces(Walk.visit_seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(u64, u64), A::Error> {
        let Value::Object(over) = self.0 else { return self.replaces(Walk.visit_map(entries)) };
        let (mut plain, mut overlaid) = (0u64, 0u64);
        let entry = |key, value| if value == NULL { 0 } else { mix(key, value) };
        let mut met = Vec::new();
        while let Some((key, over)) = entries.next_key_seed(KeyIn(over))? {
            let (under, above) = match over {
                Some((name, over)) => {
                    met.push(name);
                    entries.next_value_seed(Overlaid(over))?
                }
                None => {
                    let value = entries.next_value_seed(Walk)?;
                    (value, value)
                }
            };
            plain = plain.wrapping_add(entry(key, under));
            overlaid = overlaid.wrapping_add(entry(key, above));
        }
        for (key, value) in over.iter().filter(|(key, _)| !met.contains(key)) {
            let value = Digest::of(value).map_err(A::Error::custom)?;
            overlaid = overlaid.wrapping_add(entry(xxh3_64(key.as_bytes()), value.0));
        }
        Ok((mix(MAP, plain), mix(MAP, overlaid)))
    }
}

/// A map's key, hashed, and its entry in the map that is laid over that one.
struct KeyIn<'a>(&'a Map<String, Value>);

impl<'a, 'de> DeserializeSeed<'de> for KeyIn<'a> {
    type Value = (u64, Option<(&'a String, &'a Value)>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for KeyIn<'a> {
    type Value = (u64, Option<(&'a String, &'a Value)>);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((xxh3_64(text.as_bytes()), self.0.get_key_value(text)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(json: &str) -> Digest {
        Digest::of_json(json).unwrap()
    }

    #[test]
    fn overlaid_maps_are_overlaid_key_by_key_and_anything_else_is_replaced() {
        let under = json!({"a": 1, "m": {"x": 1, "y": 2}, "l": [1, 2], "n": {"k": 1}, "gone": null, "s": "t"});
        let over =
            json!({"m": {"y": 3, "z": {"q": 1}}, "l": [9], "n": null, "gone": {"b": 1}, "s": {"u": 1}, "new": 5});
        let both = json!({"a": 1, "m": {"x": 1, "y": 3, "z": {"q": 1}}, "l": [9], "n": null, "gone": {"b": 1},
            "s": {"u": 1}, "new": 5});
        let (plain, overlaid) = Digest::with_overlay(&under.to_string(), &over).unwrap();
        assert_eq!((plain, overlaid), (digest(&under.to_string()), digest(&both.to_string())));
        let (_, replaced) = Digest::with_overlay("[1]", &over).unwrap();
        assert_eq!(replaced, digest(&over.to_string()));
    }

    #[test]
    fn writing_differs_but_meaning_does_not() {
        let plain = digest(r#"{"a":1,"b":{"c":"é","d":[1,2]}}"#);
        assert_eq!(plain, digest("{ \"b\": {\"d\":[1, 2.0], \"c\":\"\\u00e9\"},\n \"a\":1, \"e\":null }"));
        assert_eq!(plain, Digest::of(&serde_json::json!({"b": {"c": "é", "d": [1, 2]}, "a": 1})).unwrap());
    }

    #[test]
    fn what_differs_in_meaning_differs() {
        let all = [
            "{}",
            "[]",
            "[[]]",
            "[{}]",
            "0",
            "false",
            "\"\"",
            "[1,2]",
            "[2,1]",
            r#"{"a":{"b":1}}"#,
            r#"{"b":{"a":1}}"#,
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(digest(a), digest(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn half_a_document_is_an_error() {
        assert!(Digest::of_json(r#"{"a":1"#).is_err());
        assert!(Digest::of_json(r#"{"a":1} {"#).is_err());
    }
}
