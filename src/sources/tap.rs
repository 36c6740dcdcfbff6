//! One reading of a Stripe event's `data` that yields both its digest and the names of the object inside.
//!
//! The digest must walk every byte, and this is the hot path: a second walk for three names would cost half as much
//! again. So the digest walks a deserializer that looks at `object`, and in it at `id`, `object` and `customer`, as
//! they pass by. Below those levels it steps aside.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::short;
use crate::base::Digest;

/// What `data.object` is. Texts that cannot be ids, empty or too long, are left out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub object: Option<String>,
    pub id: Option<String>,
    /// The customer's id, where the object names one, expanded or not.
    pub customer: Option<String>,
}

impl Names {
    /// These, or else those.
    pub fn or(self, other: Names) -> Names {
        Names {
            object: self.object.or(other.object),
            id: self.id.or(other.id),
            customer: self.customer.or(other.customer),
        }
    }
}

/// Reads a part of an event: its digest is the value, and names are noted on the way.
pub(super) struct Data<'n> {
    at: At,
    names: &'n mut Names,
}

impl<'n> Data<'n> {
    /// Of `data`.
    pub fn of_event(names: &'n mut Names) -> Data<'n> {
        Data { at: At::Data, names }
    }

    /// Of a thin event's `related_object`: `{"id", "type", "url"}`.
    pub fn of_reference(names: &'n mut Names) -> Data<'n> {
        Data { at: At::Reference, names }
    }
}

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<Digest, D::Error> {
        Digest::of(Tap { inner, at: self.at, names: self.names })
    }
}

/// Which value is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A value that says nothing of interest, nor does anything in it.
    Elsewhere,
    Data,
    Object,
    Reference,
    Kind,
    Id,
    Customer,
}

impl At {
    /// The value under `key` in this one.
    fn under(self, key: &str) -> At {
        match (self, key) {
            (At::Data, "object") => At::Object,
            (At::Object, "object") | (At::Reference, "type") => At::Kind,
            (At::Object | At::Reference, "id") => At::Id,
            (At::Object, "customer") | (At::Customer, "id") => At::Customer,
            _ => At::Elsewhere,
        }
    }
}

/// A deserializer, or a visitor, or a seed, or a map's entries: with the place that it is at.
struct Tap<'n, T> {
    inner: T,
    at: At,
    names: &'n mut Names,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tap<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Tap { inner: visitor, at: self.at, names: self.names })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Tap<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.inner.visit_f64(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        match self.at {
            At::Kind => self.names.object = short(text),
            At::Id => self.names.id = short(text),
            At::Customer => self.names.customer = short(text),
            At::Elsewhere | At::Data | At::Object | At::Reference => {}
        }
        self.inner.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        match self.at {
            At::Data | At::Object | At::Reference | At::Customer => {
                let map = Tap { inner: entries, at: self.at, names: self.names };
                self.inner.visit_map(Entries { map, next: At::Elsewhere })
            }
            At::Elsewhere | At::Kind | At::Id => self.inner.visit_map(entries),
        }
    }
}

struct Entries<'n, A> {
    map: Tap<'n, A>,
    /// The value whose key was just read.
    next: At,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let at = self.map.at;
        self.map.inner.next_key_seed(Key { inner: seed, at, next: &mut self.next })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.next {
            At::Elsewhere => self.map.inner.next_value_seed(seed),
            at => self.map.inner.next_value_seed(Tap { inner: seed, at, names: self.map.names }),
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Tap<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Tap { inner, at: self.at, names: self.names })
    }
}

/// A map's key on its way to the digest: tells which value comes next.
struct Key<'k, T> {
    inner: T,
    at: At,
    next: &'k mut At,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Key { inner, at: self.at, next: self.next })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Key<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Key { inner: visitor, at: self.at, next: self.next })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Key<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        *self.next = self.at.under(key);
        self.inner.visit_str(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> (Digest, Names) {
        let mut names = Names::default();
        let digest = Data::of_event(&mut names).deserialize(&mut serde_json::Deserializer::from_str(data)).unwrap();
        (digest, names)
    }

    #[test]
    fn the_tap_changes_no_digest() {
        for data in [
            r#"{"object":{"id":"ch_1","object":"charge","customer":"cus_1","amount":5,"list":[{"id":"x"}]}}"#,
            r#"{"object":{"customer":{"id":"cus_1","object":"customer"},"a":null,"b":-1.5,"c":[true,[]]}}"#,
            r#"{"object":"text","previous_attributes":{"id":"no"}}"#,
            r#"{"obj\u0065ct":{"i\u0064":"ch_\u0031"}}"#,
            "[]",
            "null",
            "7",
            r#""text""#,
        ] {
            assert_eq!(read(data).0, Digest::of_json(data).unwrap(), "{data}");
        }
    }

    #[test]
    fn the_objects_names_are_found_and_no_other() {
        let names = |data| {
            let names = read(data).1;
            [names.object, names.id, names.customer].map(|n| n.unwrap_or_default())
        };
        let plain =
            r#"{"object":{"id":"ch_1","card":{"id":"card_1","customer":"no"},"object":"charge","customer":"cus_1"}}"#;
        assert_eq!(names(plain), ["charge", "ch_1", "cus_1"]);
        let expanded =
            r#"{"object":{"customer":{"sources":{"id":"no"},"id":"cus_1","object":"customer"},"id":"ch_1"}}"#;
        assert_eq!(names(expanded), ["", "ch_1", "cus_1"]);
        assert_eq!(names(r#"{"previous_attributes":{"id":"no"},"object":{"id":null}}"#), ["", "", ""]);
        assert_eq!(names(r#"{"obj\u0065ct":{"i\u0064":"ch_\u0031"}}"#), ["", "ch_1", ""]);
    }
}
