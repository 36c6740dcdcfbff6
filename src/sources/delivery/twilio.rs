//! Twilio's forms, as JSON objects of their parameters, so that every payload in the tables is JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

/// The parameters of a form, as they came.
pub fn parameters(body: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

/// One object, by name; a parameter that comes several times is a list of its values.
pub fn form(parameters: Vec<(String, String)>) -> Bytes {
    let mut object: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in parameters {
        match object.get_mut(&name) {
            None => drop(object.insert(name, value.into())),
            Some(Value::Array(values)) => values.push(value.into()),
            Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
        }
    }
    // Texts by texts always serialise.
    serde_json::to_vec(&object).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_is_an_object() {
        let body = b"Body=STOP%21&From=%2B447400123456&Media=a&Media=b&Media=c&Empty=&=x";
        let object = form(parameters(body));
        let wanted = r#"{"":"x","Body":"STOP!","Empty":"","From":"+447400123456","Media":["a","b","c"]}"#;
        assert_eq!(object, wanted.as_bytes());
    }

    proptest! {
        #[test]
        fn any_body_is_some_object(body: Vec<u8>) {
            let object: Value = serde_json::from_slice(&form(parameters(&body))).unwrap();
            prop_assert!(object.is_object());
        }
    }
}
