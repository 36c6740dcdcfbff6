//! Objects read field by field.
//!
//! `derive(Deserialize)` writes a visitor for each of the many objects that are read here, and the compiler would do most of
//! its work on them. `object!` writes one arm a field, and one visitor serves them all.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

/// What `object!` makes of a struct.
pub(in crate::facts) trait Object<'de>: Default {
    /// Reads the field's value; false, and nothing read, where the struct has no such field.
    fn read<A: MapAccess<'de>>(&mut self, field: &str, entries: &mut A) -> Result<bool, A::Error>;
}

/// An object from a deserializer: a field that is absent keeps its default, one without a name here is passed over,
/// and of two of one name the last counts.
pub(in crate::facts) fn read<'de, T: Object<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(ReadObject(PhantomData))
}

struct ReadObject<T>(PhantomData<T>);

impl<'de, T: Object<'de>> Visitor<'de> for ReadObject<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(field) = entries.next_key_seed(Name)? {
            if !object.read(&field, &mut entries)? {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// A field's name, borrowed where it holds no escape.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A struct and how it is read from a JSON object. `field: Type = "name"` is a field that JSON names otherwise, or
/// whose name is a word of Rust's.
macro_rules! object {
    ($(#[$about:meta])* $vis:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$note:meta])* $reach:vis $field:ident: $type:ty $(= $key:literal)?,)*
    }) => {
        $(#[$about])*
        #[derive(Default)]
        $vis struct $name $(<$life>)? {
            $($(#[$note])* $reach $field: $type,)*
        }

        impl<'de $(: $life, $life)?> $crate::facts::json::Object<'de> for $name $(<$life>)? {
            fn read<A: serde::de::MapAccess<'de>>(&mut self, field: &str, entries: &mut A) -> Result<bool, A::Error> {
                match field {
                    $($crate::facts::json::object!(@name $field $($key)?) => self.$field = entries.next_value()?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }

        impl<'de $(: $life, $life)?> serde::Deserialize<'de> for $name $(<$life>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::facts::json::read(deserializer)
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
}
pub(in crate::facts) use object;
