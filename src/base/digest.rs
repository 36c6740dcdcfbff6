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
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u64);

impl Digest {
    /// Of one JSON document, which is read to its end and so proven well formed.
    pub fn of_json(json: &[u8]) -> Result<Digest, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let digest = Digest::of(&mut reader)?;
        reader.end()?;
        Ok(digest)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(json: &str) -> Digest {
        Digest::of_json(json.as_bytes()).unwrap()
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
        assert!(Digest::of_json(br#"{"a":1"#).is_err());
        assert!(Digest::of_json(br#"{"a":1} {"#).is_err());
    }
}
