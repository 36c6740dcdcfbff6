//! Rows read back from state: the columns one after the other, as postcard writes a struct.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::Record;

/// A row of `R::COLUMNS` columns.
pub fn row<'de, R: Record, D: Deserializer<'de>>(deserializer: D) -> Result<R, D::Error> {
    deserializer.deserialize_tuple(R::COLUMNS.len(), ReadRow(PhantomData))
}

/// The next column of a row, which is `name`.
pub fn column<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(columns: &mut A, name: &'static str) -> Result<T, A::Error> {
    columns.next_element()?.ok_or_else(|| A::Error::missing_field(name))
}

struct ReadRow<R>(PhantomData<R>);

impl<'de, R: Record> Visitor<'de> for ReadRow<R> {
    type Value = R;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a row of {} columns", R::COLUMNS.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut columns: A) -> Result<R, A::Error> {
        R::unpack(&mut columns)
    }
}
