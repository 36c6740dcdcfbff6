//! What holds values: nested objects, references to objects, lists.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Flag, Text, forgiving, object};

/// A nested object, where it is one.
#[derive(Debug, Clone)]
pub(in crate::facts) struct Maybe<T>(Option<Box<T>>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Maybe(None)
    }
}

impl<T> Maybe<T> {
    pub fn of(object: T) -> Maybe<T> {
        Maybe(Some(Box::new(object)))
    }

    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }
}

struct ReadMaybe<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadMaybe<T> {
    type Value = Maybe<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Maybe<T>, A::Error> {
        Ok(Maybe(Some(Box::new(T::deserialize(MapAccessDeserializer::new(entries))?))))
    }

    forgiving!(unit, bool, number, text, seq);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadMaybe(PhantomData))
    }
}

/// Another object: its id, or all of it where it was expanded.
#[derive(Debug, Clone, Default)]
pub(in crate::facts) enum Reference<'a, T> {
    #[default]
    Nothing,
    Id(Text<'a>),
    Object(Box<T>),
}

/// An object that knows its id.
pub(in crate::facts) trait Identified {
    fn id(&self) -> Option<&str>;
}

impl<T: Identified> Reference<'_, T> {
    pub fn id(&self) -> Option<&str> {
        match self {
            Reference::Nothing => None,
            Reference::Id(id) => id.get(),
            Reference::Object(object) => object.id(),
        }
    }

    pub fn id_owned(&self) -> Option<String> {
        self.id().map(str::to_owned)
    }
}

impl<T> Reference<'_, T> {
    pub fn object(&self) -> Option<&T> {
        match self {
            Reference::Object(object) => Some(object),
            _ => None,
        }
    }
}

struct ReadReference<'a, T>(PhantomData<(&'a (), T)>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for ReadReference<'a, T> {
    type Value = Reference<'a, T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an id or an object")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Reference::Id(Text::of(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Reference::Id(Text::of(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        Ok(Reference::Object(Box::new(T::deserialize(MapAccessDeserializer::new(entries))?)))
    }

    forgiving!(unit, bool, number, seq);
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Reference<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadReference(PhantomData))
    }
}

object! {
    /// An object of which only the id matters.
    #[derive(Clone)]
    pub(in crate::facts) struct OnlyId<'a> {
        id: Text<'a>,
    }
}

impl Identified for OnlyId<'_> {
    fn id(&self) -> Option<&str> {
        self.id.get()
    }
}

/// A list, either bare or as Stripe's list object `{"data": […]}`; `None` where there is none.
#[derive(Debug, Clone)]
pub(in crate::facts) struct List<T> {
    items: Option<Vec<T>>,
    has_more: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { items: None, has_more: false }
    }
}

impl<T> List<T> {
    pub fn get(&self) -> Option<&[T]> {
        self.items.as_deref()
    }

    /// Whether there are others that are not shown.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.get().unwrap_or_default().iter()
    }
}

#[derive(Deserialize)]
struct ListObject<T> {
    #[serde(default = "Bare::default")]
    data: Bare<T>,
    #[serde(default)]
    has_more: Flag,
}

struct Bare<T>(Option<Vec<T>>);

impl<T> Default for Bare<T> {
    fn default() -> Self {
        Bare(None)
    }
}

struct ReadBare<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadBare<T> {
    type Value = Bare<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bare<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Bare(Some(all)))
    }

    forgiving!(unit, bool, number, text, map);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadBare(PhantomData))
    }
}

struct ReadList<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadList<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<List<T>, A::Error> {
        ReadBare(PhantomData).visit_seq(items).map(|Bare(items)| List { items, has_more: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<List<T>, A::Error> {
        let list = ListObject::deserialize(MapAccessDeserializer::new(entries))?;
        Ok(List { items: list.data.0, has_more: list.has_more.is_true() })
    }

    forgiving!(unit, bool, number, text);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadList(PhantomData))
    }
}
