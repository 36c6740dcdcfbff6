//! What providers of text messages say of their own accord: what became of a message, and who wants no more of them.
//!
//! Read in one place for the tables and for whoever sends. Statuses and words that are not known here say nothing. A word
//! counts at the place where it was given: START lifts what STOP said, and no complaint in Klaviyo.

use super::{
    DecodeError,
    decode::Event,
    json::{Text, object},
    rows::MessageEvent,
    suppression::{self, Word},
};
use crate::base::{E164, Envelope, Micros, Pseudonymizer, Source, pseudonym};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `provider_id` is the provider's name for the message; `code` is its own for what went wrong.
    Receipt { provider_id: String, fate: Fate, code: Option<String> },
    /// Who texts wants no more text messages …
    Stop(Sender),
    /// … or wants them again.
    Start(Sender),
}

/// Who texts: their number; of one that was erased its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    Number(E164),
    Erased(String),
}

impl Sender {
    /// On another channel than SMS it is `whatsapp:+44…`, and its words are on that channel.
    pub(super) fn of(from: &str) -> Option<Sender> {
        let erased = pseudonym::erased("phone", from).map(|hash| Sender::Erased(hash.to_owned()));
        let number = || E164::parse(Some(from).filter(|from| from.starts_with('+'))?, None).ok().map(Sender::Number);
        erased.or_else(number)
    }

    pub fn hash(&self, names: &Pseudonymizer) -> String {
        match self {
            Sender::Number(phone) => names.phone(phone),
            Sender::Erased(hash) => hash.clone(),
        }
    }
}

impl Said {
    /// Of a word: why a number is texted no more, or again.
    pub fn reason(lifted: bool) -> &'static str {
        if lifted { "START by text message" } else { "STOP by text message" }
    }
}

/// What a receipt says that happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Sent,
    Delivered,
    Opened,
    Failed,
}

impl Fate {
    /// As `core.message_events` calls it.
    fn kind(self) -> &'static str {
        match self {
            Fate::Sent => "sent",
            Fate::Delivered => "delivered",
            Fate::Opened => "opened",
            Fate::Failed => "failed",
        }
    }
}

/// Twilio's default keywords; with Advanced Opt-Out its `OptOutType` tells instead (twilio.com/docs/messaging).
const STOP: [&str; 8] = ["STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL"];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];

object! {
    struct Callback<'a> {
        status: Text<'a> = "MessageStatus",
        error_code: Text<'a> = "ErrorCode",
        from: Text<'a> = "From",
        body: Text<'a> = "Body",
        opt_out_type: Text<'a> = "OptOutType",
        /// Aliyun's.
        err_code: Text<'a>,
    }
}

/// What `envelope` says. `None`: nothing that matters here.
pub fn said(envelope: &Envelope) -> Result<Option<Said>, serde_json::Error> {
    let callback: Callback = serde_json::from_slice(&envelope.payload)?;
    let receipt = |fate, code: &Text| {
        let provider_id = envelope.object_id.clone()?;
        Some(Said::Receipt { provider_id, fate, code: code.owned().filter(|_| fate == Fate::Failed) })
    };
    Ok(match (envelope.source, envelope.event_type.as_str()) {
        (Source::Twilio, "message.inbound") => answer(&callback),
        (Source::Twilio, _) => {
            callback.status.get().and_then(fate).and_then(|fate| receipt(fate, &callback.error_code))
        }
        (Source::Aliyun, "message.delivered") => receipt(Fate::Delivered, &callback.err_code),
        (Source::Aliyun, "message.failed") => receipt(Fate::Failed, &callback.err_code),
        _ => None,
    })
}

/// Twilio's status that a message came into, where somebody is the wiser for it.
fn fate(status: &str) -> Option<Fate> {
    match status {
        "sent" => Some(Fate::Sent),
        "delivered" => Some(Fate::Delivered),
        "read" => Some(Fate::Opened),
        "failed" | "undelivered" | "canceled" => Some(Fate::Failed),
        _ => None,
    }
}

/// Whether a text to us is one of the words that end or begin again.
fn answer(callback: &Callback) -> Option<Said> {
    let sender = Sender::of(callback.from.get()?)?;
    let letters: String = callback.body.get().unwrap_or_default().chars().filter(|c| c.is_alphabetic()).collect();
    let word = callback.opt_out_type.get().unwrap_or(&letters).to_uppercase();
    match word.as_str() {
        word if STOP.contains(&word) => Some(Said::Stop(sender)),
        word if START.contains(&word) => Some(Said::Start(sender)),
        _ => None,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let said = said(event.envelope).map_err(|e| event.unreadable(e))?;
    event.decoded.handled = said.is_some();
    let at = event.at();
    match said {
        None => {}
        Some(Said::Receipt { provider_id, fate, .. }) => happened(event, provider_id, fate.kind(), at),
        Some(Said::Stop(sender)) => {
            word(event, &sender, false);
            let message = event.envelope.object_id.clone().unwrap_or_default();
            happened(event, message, "unsubscribed", at);
        }
        Some(Said::Start(sender)) => word(event, &sender, true),
    }
    Ok(())
}

/// A phone names no person, so the row has none: `ops.messages.provider_id` leads from the message to whom it went.
fn happened(event: &mut Event, message_id: String, kind: &str, occurred_at: Micros) {
    let row = MessageEvent {
        event_id: event.envelope.event_id.clone(),
        message_id,
        person_id: None,
        channel: "sms".to_owned(),
        kind: kind.to_owned(),
        campaign: None,
        flow: None,
        variant: None,
        occurred_at,
        source: event.envelope.source.to_string(),
    };
    event.decoded.rows.push(row.into());
}

fn word(event: &mut Event, sender: &Sender, lifted: bool) {
    let destination_hash = event.sender_hash(sender);
    let word = Word {
        channel: "sms",
        destination_hash: &destination_hash,
        reason: Some(Said::reason(lifted).to_owned()),
        at: event.at(),
        source: event.envelope.source.as_str(),
        lifted,
    };
    suppression::say(event, word);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::base::{Digest, Via};

    fn envelope(source: Source, event_type: &str, payload: &Value) -> Envelope {
        Envelope {
            source,
            event_id: "e1".to_owned(),
            event_type: event_type.to_owned(),
            api_version: None,
            account: None,
            livemode: true,
            occurred_at: Micros(7),
            received_at: Micros(7),
            via: Via::Webhook,
            object_type: Some("message".to_owned()),
            object_id: Some("SM1".to_owned()),
            person_hint: None,
            digest: Digest(1),
            payload: Bytes::from(payload.to_string()),
        }
    }

    fn texted(body: &str) -> Option<Said> {
        let payload = json!({"From": "+447400123456", "Body": body});
        said(&envelope(Source::Twilio, "message.inbound", &payload)).unwrap()
    }

    #[test]
    fn a_word_that_ends_is_heard_however_it_is_written() {
        let phone = Sender::Number(E164::parse("+447400123456", None).unwrap());
        for body in
            ["STOP", "stop", " Stop! ", "Stop all.", "opt-out", "Opt out", "UNSUBSCRIBE", "end", "Cancel", "quit"]
        {
            assert_eq!(texted(body), Some(Said::Stop(phone.clone())), "{body}");
        }
        for body in ["START", "yes", "Unstop."] {
            assert_eq!(texted(body), Some(Said::Start(phone.clone())), "{body}");
        }
        for body in ["", "HELP", "Where does it stop?", "yes please, two"] {
            assert_eq!(texted(body), None, "{body}");
        }
        let payload = json!({"From": "+447400123456", "Body": "ARRET", "OptOutType": "STOP"});
        assert_eq!(said(&envelope(Source::Twilio, "message.inbound", &payload)).unwrap(), Some(Said::Stop(phone)));
        for from in ["whatsapp:+447400123456", "12345", ""] {
            let payload = json!({"From": from, "Body": "STOP"});
            assert_eq!(said(&envelope(Source::Twilio, "message.inbound", &payload)).unwrap(), None, "{from}");
        }
    }

    #[test]
    fn a_receipt_says_what_became_of_a_message() {
        let told = |status: &str| {
            let payload = json!({"MessageStatus": status, "ErrorCode": "30003"});
            said(&envelope(Source::Twilio, &format!("message.{status}"), &payload)).unwrap()
        };
        let receipt = |fate, code: Option<&str>| {
            Some(Said::Receipt { provider_id: "SM1".to_owned(), fate, code: code.map(str::to_owned) })
        };
        assert_eq!(told("sent"), receipt(Fate::Sent, None));
        assert_eq!(told("delivered"), receipt(Fate::Delivered, None));
        assert_eq!(told("read"), receipt(Fate::Opened, None));
        assert_eq!(told("undelivered"), receipt(Fate::Failed, Some("30003")));
        assert_eq!((told("queued"), told("a_new_status")), (None, None));
        let report = json!({"err_code": "UNDELIVERED"});
        let failed = said(&envelope(Source::Aliyun, "message.failed", &report)).unwrap();
        assert_eq!(failed, receipt(Fate::Failed, Some("UNDELIVERED")));
    }
}
