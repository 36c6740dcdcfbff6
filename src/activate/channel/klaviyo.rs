//! E-mail by Klaviyo: an event that starts one of the merchant's flows (Create Event, revision 2026-07-15).
//!
//! Klaviyo takes an event once by profile, metric and `unique_id` (the first processed wins), and ours is the message key:
//! so an event may be posted again when its first answer was lost. The metric is `Tillstream <trigger>`; the flow finds
//! subject, body and the segment's columns in the event's properties.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Answer, Channel, Parcel, Sent};
use crate::{
    activate::message::{Medium, State},
    base::Micros,
    config::{self, BaseUrl, Secret},
    net::{Client, Delivery, NetError, Outcome, Request, Response},
};

pub struct Klaviyo {
    client: Client,
    base: BaseUrl,
    api_key: Secret,
}

const REVISION: &str = "2026-07-15";
const CONTENT_TYPE: &str = "application/vnd.api+json";
const LATER: Duration = Duration::from_secs(60);
const MISCONFIGURED: Duration = Duration::from_secs(300);

impl Klaviyo {
    /// `None` where the settings lack a key.
    pub fn new(settings: &config::Klaviyo, client: Client) -> Option<Klaviyo> {
        Some(Klaviyo { client, base: settings.api_base.clone(), api_key: settings.api_key.clone()? })
    }

    fn request(&self, parcel: &Parcel<'_>) -> Result<Request, NetError> {
        Request::post(self.base.join("/api/events"), Delivery::Idempotent)
            .header("authorization", format!("Klaviyo-API-Key {}", self.api_key.expose()))
            .header("revision", REVISION)
            .header("accept", CONTENT_TYPE)
            .json(CONTENT_TYPE, &event(parcel))
    }
}

#[async_trait]
impl Channel for Klaviyo {
    fn name(&self) -> &'static str {
        "klaviyo"
    }

    async fn send(&self, parcel: &Parcel<'_>) -> Sent {
        let sent = match self.request(parcel) {
            Ok(request) => self.client.send(&request).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(Outcome::Sent(response)) => judge(&response),
            Ok(Outcome::Refused { why, retry_after }) => {
                Sent::Later { after: retry_after.unwrap_or(LATER), why: format!("Klaviyo: {why}") }
            }
            Ok(Outcome::Unknown { why, .. }) => Sent::Unknown { why: format!("Klaviyo: {why}") },
            Err(error) => Sent::Refused { why: error.to_string(), opted_out: false },
        }
    }

    /// By posting the same event again: see the module.
    async fn ask(&self, parcel: &Parcel<'_>, _: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Answer {
        match self.send(parcel).await {
            Sent::Accepted { provider_id } => Answer::Has { state: State::Sent, provider_id, why: None },
            Sent::Refused { why, .. } => Answer::Has { state: State::Failed, provider_id: None, why: Some(why) },
            Sent::Later { why, .. } | Sent::Unknown { why } => Answer::Silent { why },
        }
    }

    fn asks_by_sending(&self) -> bool {
        true
    }
}

fn event(parcel: &Parcel<'_>) -> Value {
    let message = parcel.message;
    let mut properties = message.columns.clone();
    properties.insert("trigger".to_owned(), message.trigger.clone().into());
    properties.insert("message_segment".to_owned(), message.segment.clone().into());
    if let Some(text) = parcel.text {
        properties.insert("subject".to_owned(), text.subject.clone().into());
        properties.insert("body".to_owned(), text.body.clone().into());
    }
    let identifier = match message.medium {
        Medium::Email => "email",
        Medium::Sms => "phone_number",
    };
    json!({"data": {"type": "event", "attributes": {
        "properties": properties,
        "time": whole_seconds(message.claimed_at.unwrap_or(parcel.now)),
        "unique_id": message.key,
        "metric": {"data": {"type": "metric", "attributes": {"name": format!("Tillstream {}", message.trigger)}}},
        "profile": {"data": {"type": "profile", "attributes": {identifier: parcel.address}}},
    }}})
}

/// Klaviyo cuts times to seconds.
fn whole_seconds(at: Micros) -> String {
    Micros::from_seconds(at.seconds()).unwrap_or(at).to_string()
}

fn judge(response: &Response) -> Sent {
    match response.status {
        200..300 => Sent::Accepted { provider_id: None },
        401 | 403 | 404 => Sent::Later {
            after: MISCONFIGURED,
            why: format!(
                "Klaviyo does not take our key ({}): check [klaviyo] api_key (scope events:write) and api_base",
                response.status
            ),
        },
        status => {
            let body: Value = response.json().unwrap_or_default();
            let detail = body.pointer("/errors/0/detail").and_then(Value::as_str).unwrap_or("it gave no reason");
            Sent::Refused { why: format!("Klaviyo {status}: {detail}"), opted_out: false }
        }
    }
}
