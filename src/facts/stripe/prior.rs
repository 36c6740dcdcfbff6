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
    let state = Digest::of_json(object.as_bytes()).map_err(|e| event.unreadable(e))?;
    let Some(previous) = previous else { return Ok((state, None)) };
    let previous: Value = serde_json::from_str(previous.get()).map_err(|e| event.unreadable(e))?;
    if previous.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok((state, None));
    }
    let mut before: Value = serde_json::from_str(object).map_err(|e| event.unreadable(e))?;
    overlay(&mut before, previous);
    let prior = Digest::of(&before).map_err(|e| event.unreadable(e))?;
    Ok((state, Some(prior)))
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

fn overlay(object: &mut Value, previous: Value) {
    match (object, previous) {
        (Value::Object(object), Value::Object(previous)) => {
            for (key, value) in previous {
                overlay(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, previous) => *object = previous,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_are_overlaid_and_arrays_are_whole() {
        let mut object = json!({"a": 1, "m": {"x": 1, "y": 2}, "l": [1, 2], "n": {"k": 1}, "gone": null});
        overlay(&mut object, json!({"m": {"y": 3}, "l": [9], "n": null, "gone": {"b": 1}}));
        assert_eq!(object, json!({"a": 1, "m": {"x": 1, "y": 3}, "l": [9], "n": null, "gone": {"b": 1}}));
    }
}
