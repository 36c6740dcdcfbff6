//! Single values: text, flags, whole numbers, amounts.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::forgiving;
use crate::base::Micros;

/// Text, not empty. A number reads as its digits.
#[derive(Debug, Default, Clone)]
pub(in crate::facts) struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    pub fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    pub fn owned(&self) -> Option<String> {
        self.get().map(str::to_owned)
    }

    pub fn is(&self, text: &str) -> bool {
        self.get() == Some(text)
    }

    pub(super) fn of(text: Cow<'a, str>) -> Text<'a> {
        Text(Some(text).filter(|t| !t.is_empty()))
    }
}

struct ReadText<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ReadText<'a> {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'a>, E> {
        Ok(Text::of(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text::of(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Text<'a>, E> {
        Ok(Text::of(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text<'a>, E> {
        Ok(Text::of(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Text<'a>, E> {
        Ok(Text::of(Cow::Owned(number.to_string())))
    }

    forgiving!(unit, bool, seq, map);
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadText(PhantomData))
    }
}

/// `true` or `false`.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::facts) struct Flag(pub Option<bool>);

impl Flag {
    pub fn is_true(self) -> bool {
        self.0 == Some(true)
    }
}

struct ReadFlag;

impl<'de> Visitor<'de> for ReadFlag {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Flag, E> {
        Ok(Flag(Some(value)))
    }

    forgiving!(unit, number, text, seq, map);
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadFlag)
    }
}

/// A whole number that is no amount: a time, a score, a count.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::facts) struct Whole(pub Option<i64>);

impl Whole {
    /// As whole seconds since 1970.
    pub fn seconds(self) -> Option<Micros> {
        self.0.and_then(Micros::from_seconds)
    }
}

struct ReadWhole;

impl<'de> Visitor<'de> for ReadWhole {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
        Ok(Whole(i64::try_from(value).ok()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
        Ok(Whole(Some(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Whole, E> {
        let whole = value as i64;
        Ok(Whole((whole as f64 == value).then_some(whole)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Whole, E> {
        Ok(Whole(text.parse().ok()))
    }

    forgiving!(unit, bool, seq, map);
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadWhole)
    }
}

/// A rate of exchange: no amount, so a float.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::facts) struct Rate(pub Option<f64>);

struct ReadRate;

impl<'de> Visitor<'de> for ReadRate {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a rate")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Rate, E> {
        Ok(Rate(Some(value as f64)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Rate, E> {
        Ok(Rate(Some(value as f64)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Rate, E> {
        Ok(Rate(Some(value)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Rate, E> {
        Ok(Rate(text.parse().ok().filter(|r: &f64| r.is_finite())))
    }

    forgiving!(unit, bool, seq, map);
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadRate)
    }
}

/// What stands where an amount in minor units belongs.
#[derive(Debug, Default, Clone)]
pub(in crate::facts) enum Amount {
    #[default]
    Absent,
    Minor(i64),
    /// Not an integer of 64 bits, as it was written.
    Bad(String),
}

struct ReadAmount;

impl<'de> Visitor<'de> for ReadAmount {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an amount in minor units")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Amount, E> {
        Ok(i64::try_from(value).map_or_else(|_| Amount::Bad(value.to_string()), Amount::Minor))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Amount, E> {
        Ok(Amount::Minor(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Amount, E> {
        Ok(Amount::Bad(value.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
        Ok(Amount::Bad(format!("{text:?}")))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Amount, E> {
        Ok(Amount::Bad(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Amount, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Amount::Bad("an array".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Amount, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Amount::Bad("an object".to_owned()))
    }

    forgiving!(unit);
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadAmount)
    }
}
