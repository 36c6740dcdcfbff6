//! What an object was before its event: the object overlaid with `previous_attributes`.
//!
//! Nested maps are overlaid key by key, arrays are whole. Equal digests of one event's *before* and another's *after*
//! say that the one followed the other.

use serde_json::{Value, value::RawValue};

use super::{DecodeError, Event};
use crate::base::Digest;

/// The digests of the event's own object after the event and, where it says, before it.
pub(super) fn digests(event: &Event, previous: Option<&RawValue>) -> Result<(Digest, Option<Digest>), DecodeError> {
    let object = object(event)?;
    let unreadable = |e| event.unreadable(e);
    let previous: Option<Value> = previous.map(|p| serde_json::from_str(p.get())).transpose().map_err(unreadable)?;
    match previous.filter(|p| p.as_object().is_some_and(|p| !p.is_empty())) {
        None => Ok((Digest::of_json(object).map_err(unreadable)?, None)),
        Some(previous) => {
            let (after, before) = Digest::with_overlay(object, &previous).map_err(unreadable)?;
            Ok((after, Some(before)))
        }
    }
}

/// `data.object` as it stands in the payload.
fn object<'a>(event: &Event<'a>) -> Result<&'a str, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let message: Message<'a> = event.read()?;
    Ok(message.data.object.get())
}
