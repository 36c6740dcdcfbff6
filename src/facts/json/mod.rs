//! Reading JSON that others write: typed, borrowed from the payload, and forgiving in shape.
//!
//! A field that is absent, null, empty, or of a kind that another API version gave it, reads as nothing: a valid event
//! of any version decodes. Only amounts are strict. They keep what stands there, so that whoever asks for one learns
//! the field and the value.

mod object;
mod scalar;
mod shape;

pub(super) use self::{
    object::{Object, object, read},
    scalar::{Amount, Flag, Rate, Text, Whole},
    shape::{Identified, List, Maybe, OnlyId, Reference},
};

/// The visits that most readers here answer alike, unless they say otherwise.
macro_rules! forgiving {
    ($($visit:ident),*) => {
        $(forgiving!(@ $visit);)*
    };
    (@ unit) => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@ bool) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@ number) => {
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@ text) => {
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@ seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (@ map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}
use forgiving;
