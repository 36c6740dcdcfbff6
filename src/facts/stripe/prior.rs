//! What an object was before its event: the object overlaid with `previous_attributes`.
//!
//! Nested maps are overlaid key by key, arrays are whole. Equal digests of one event's *before* and another's *after*
//! say that the one followed the other.

use serde_json::{Value, value::RawValue};

use crate::base::Digest;

/// The digests of an event's object after the event and, where it says, before it.
pub(super) fn digests(
    object: &RawValue,
    previous: Option<&RawValue>,
) -> Result<(Digest, Option<Digest>), serde_json::Error> {
    let previous: Option<Value> = previous.map(|p| serde_json::from_str(p.get())).transpose()?;
    match previous.filter(|p| p.as_object().is_some_and(|p| !p.is_empty())) {
        None => Ok((Digest::of_json(object.get())?, None)),
        Some(previous) => {
            let (after, before) = Digest::with_overlay(object.get(), &previous)?;
            Ok((after, Some(before)))
        }
    }
}
