//! Twilio's callbacks, each the parameters of its form as one JSON object: what became of a message, or one texted to us.
//!
//! An event is a message's state, or the message that came in; its digest is of what makes it that, since parameters come
//! and go and a second attempt may differ in them. Callbacks carry no time: it happened when it came.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Rejected, short, text};
use crate::base::{Digest, Envelope, Micros, Source, Via};

pub(super) fn decode(body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    let params: Value = serde_json::from_str(text(body)?).map_err(|e| Rejected::from_json(&e))?;
    if !params.is_object() {
        return Err(Rejected::NotAnObject);
    }
    let sid = params["MessageSid"].as_str().or(params["SmsSid"].as_str()).filter(|sid| !sid.is_empty());
    let sid = sid.ok_or(Rejected::Missing { field: "MessageSid" })?;
    let sid = short(sid).ok_or(Rejected::BadField { field: "MessageSid", why: "is longer than 255 bytes" })?;
    let (event_id, event_type, said) = match params["MessageStatus"].as_str() {
        Some(status) => {
            let event_type = short(&format!("message.{status}")).filter(|_| !status.is_empty());
            let event_type = event_type.ok_or(Rejected::BadField { field: "MessageStatus", why: "is no status" })?;
            (format!("{sid}:{status}"), event_type, json!([status, params["ErrorCode"]]))
        }
        // What was texted to us has a state of its own (SmsStatus), and that is always that it came.
        None => (sid.clone(), "message.inbound".to_owned(), json!([params["From"], params["Body"]])),
    };
    Ok(Envelope {
        source: Source::Twilio,
        event_id: short(&event_id).unwrap_or_else(|| sid.clone()),
        event_type,
        api_version: params["ApiVersion"].as_str().and_then(short),
        account: params["AccountSid"].as_str().and_then(short),
        livemode: true,
        occurred_at: received_at,
        received_at,
        via: Via::File,
        object_type: Some("message".to_owned()),
        object_id: Some(sid),
        person_hint: None,
        digest: Digest::of(&said).map_err(|e| Rejected::from_json(&e))?,
        payload: body.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: &Value) -> Result<Envelope, Rejected> {
        decode(&Bytes::from(params.to_string()), Micros(7))
    }

    #[test]
    fn each_state_of_a_message_is_an_event_however_often_it_is_told() {
        let told = |status: &str, more: &str| {
            read(&json!({"MessageSid": "SM1", "MessageStatus": status, "AccountSid": "AC1", "To": "+1", "New": more}))
                .unwrap()
        };
        let sent = told("sent", "a");
        assert_eq!((sent.event_id.as_str(), sent.event_type.as_str()), ("SM1:sent", "message.sent"));
        assert_eq!((sent.object_id.as_deref(), sent.account.as_deref()), (Some("SM1"), Some("AC1")));
        assert_eq!(sent.identity().key(), told("sent", "b").identity().key());
        assert_ne!(sent.identity().key(), told("delivered", "a").identity().key());
        for no_status in [String::new(), "s".repeat(250)] {
            let refused = read(&json!({"MessageSid": "SM1", "MessageStatus": no_status})).unwrap_err();
            assert_eq!(refused.to_string(), "its \"MessageStatus\" is no status");
        }
    }

    #[test]
    fn a_text_to_us_is_one_event() {
        let came = json!({"MessageSid": "SM2", "SmsSid": "SM2", "SmsStatus": "received", "From": "+1", "Body": "STOP"});
        let event = read(&came).unwrap();
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("SM2", "message.inbound"));
        assert!(event.person_hint.is_none(), "a phone number is not for envelopes");
        assert_eq!(read(&json!({"CallSid": "CA1"})).unwrap_err().to_string(), "it has no \"MessageSid\"");
        assert_eq!(read(&json!([1])).unwrap_err().to_string(), "not a JSON object");
    }
}
