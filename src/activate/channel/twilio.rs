//! Text messages by Twilio's Messages API (2010-04-01).
//!
//! `POST Messages` is not idempotent and has no key: after a timeout or a 5xx the message may be on its way, so it is
//! never posted again (twilio.com/docs/api/errors/20500). What became of it is asked by listing the messages to that
//! number and looking for our text. A 429 was never processed.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Answer, Channel, Parcel, Sent};
use crate::{
    activate::message::State,
    base::time::MINUTE,
    config::{self, BaseUrl, Secret},
    net::{Client, Delivery, Outcome, Request, Response},
};

pub struct Twilio {
    client: Client,
    base: BaseUrl,
    account_sid: String,
    auth_token: Secret,
    sender: Sender,
    /// Where Twilio is to tell what becomes of a message.
    callback: Option<String>,
}

enum Sender {
    /// A messaging service, which picks a number.
    Service(String),
    From(String),
}

/// As `serve` takes receipts.
const STATUS_PATH: &str = "/webhooks/twilio/status";

/// After a refusal that says nothing of when to come back.
const LATER: Duration = Duration::from_secs(60);
/// Credentials do not mend themselves in a minute.
const MISCONFIGURED: Duration = Duration::from_secs(300);
/// Our clock and Twilio's may differ by this.
const SKEW: i64 = 5 * MINUTE;
/// A message whose text was lost is known by its time alone: within this of the claim.
const WITHOUT_TEXT: i64 = 10 * MINUTE;

impl Twilio {
    /// `None` where the settings lack an account, a token or a sender. `ours`: the address under which Twilio reaches us;
    /// without it receipts come only if the messaging service itself names where to.
    pub fn new(settings: &config::Twilio, ours: Option<&BaseUrl>, client: Client) -> Option<Twilio> {
        let service = settings.messaging_service_sid.clone().map(Sender::Service);
        Some(Twilio {
            client,
            base: settings.api_base.clone(),
            account_sid: settings.account_sid.clone()?,
            auth_token: settings.auth_token.clone()?,
            sender: service.or_else(|| settings.from.clone().map(Sender::From))?,
            callback: ours.map(|ours| ours.join(STATUS_PATH)),
        })
    }

    fn address(&self, query: &str) -> String {
        let account: String = url::form_urlencoded::byte_serialize(self.account_sid.as_bytes()).collect();
        self.base.join(&format!("/2010-04-01/Accounts/{account}/Messages.json{query}"))
    }
}

#[async_trait]
impl Channel for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    async fn send(&self, parcel: &Parcel<'_>) -> Sent {
        let Some(text) = parcel.text else {
            return Sent::Refused { why: "it has no text".to_owned(), opted_out: false };
        };
        let sender = match &self.sender {
            Sender::Service(sid) => ("MessagingServiceSid", sid.as_str()),
            Sender::From(number) => ("From", number.as_str()),
        };
        let mut form = vec![("To", parcel.address), sender, ("Body", &text.body)];
        form.extend(self.callback.as_deref().map(|callback| ("StatusCallback", callback)));
        let request = Request::post(self.address(""), Delivery::AtMostOnce)
            .basic_auth(&self.account_sid, &self.auth_token)
            .form(&form);
        match self.client.send(&request).await {
            Ok(Outcome::Sent(response)) => judge(&response),
            Ok(Outcome::Refused { why, retry_after }) => {
                Sent::Later { after: retry_after.unwrap_or(LATER), why: format!("Twilio: {why}") }
            }
            Ok(Outcome::Unknown { why, .. }) => Sent::Unknown { why: format!("Twilio: {why}") },
            Err(error) => Sent::Refused { why: error.to_string(), opted_out: false },
        }
    }

    async fn ask(&self, parcel: &Parcel<'_>, taken: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Answer {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("To", parcel.address)
            .append_pair("PageSize", "100")
            .finish();
        let request = Request::get(self.address(&format!("?{query}"))).basic_auth(&self.account_sid, &self.auth_token);
        let silent = |why: String| Answer::Silent { why: format!("Twilio: {why}") };
        let response = match self.client.send(&request).await {
            Ok(Outcome::Sent(response)) if response.is_success() => response,
            Ok(Outcome::Sent(response)) => return silent(format!("status {}", response.status)),
            Ok(Outcome::Refused { why, .. } | Outcome::Unknown { why, .. }) => return silent(why),
            Err(error) => return silent(error.to_string()),
        };
        match response.json::<Listing>() {
            Err(error) => silent(format!("its list of messages cannot be read: {error}")),
            Ok(listing) => listing
                .messages
                .into_iter()
                .find(|m| m.is(parcel) && !taken(&m.sid))
                .map_or(Answer::Nothing, |m| m.answer()),
        }
    }
}

#[derive(Deserialize)]
struct Created {
    sid: String,
}

#[derive(Deserialize, Default)]
struct Fault {
    code: Option<i64>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    messages: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    sid: String,
    body: Option<String>,
    status: Option<String>,
    error_code: Option<i64>,
    date_created: Option<String>,
    direction: Option<String>,
}

impl Listed {
    /// Is it the message of this parcel?
    fn is(&self, parcel: &Parcel<'_>) -> bool {
        let created = self.date_created.as_deref().and_then(|d| chrono::DateTime::parse_from_rfc2822(d).ok());
        let (Some(created), Some(claimed)) = (created, parcel.message.claimed_at) else {
            return false;
        };
        let after = created.timestamp_micros() - claimed.0;
        let ours = self.direction.as_deref().is_none_or(|d| d.starts_with("outbound"));
        let text = match parcel.text {
            // Twilio may trim what it was given.
            Some(text) => self.body.as_deref().is_some_and(|b| b.trim() == text.body.trim()),
            None => after < WITHOUT_TEXT,
        };
        ours && after > -SKEW && text
    }

    fn answer(self) -> Answer {
        let why = self.error_code.map(|code| explain(code, None));
        let state = state_of(self.status.as_deref().unwrap_or_default());
        Answer::Has { state, provider_id: Some(self.sid), why }
    }
}

/// Twilio's word for a state. It calls everything under way by several names; a new name means under way too.
pub fn state_of(status: &str) -> State {
    match status {
        "delivered" | "read" | "received" => State::Delivered,
        "failed" | "undelivered" | "canceled" => State::Failed,
        _ => State::Sent,
    }
}

fn judge(response: &Response) -> Sent {
    if response.is_success() {
        // Taken is taken: an answer that cannot be read does not undo it.
        return Sent::Accepted { provider_id: response.json::<Created>().ok().map(|c| c.sid) };
    }
    let fault: Fault = response.json().unwrap_or_default();
    if matches!(response.status, 401 | 403 | 404) && fault.code != Some(OPTED_OUT) {
        let why = format!(
            "Twilio does not take our account ({}): check [twilio] account_sid, auth_token and api_base",
            response.status
        );
        return Sent::Later { after: MISCONFIGURED, why };
    }
    let code = fault.code.unwrap_or(i64::from(response.status));
    Sent::Refused { why: explain(code, fault.message.as_deref()), opted_out: code == OPTED_OUT }
}

const OPTED_OUT: i64 = 21610;

/// What Twilio's error codes mean to a marketer (twilio.com/docs/api/errors).
pub fn explain(code: i64, message: Option<&str>) -> String {
    let meaning = match code {
        21211 | 21614 => "no valid mobile number",
        OPTED_OUT => "the recipient opted out (STOP)",
        21611 => "the sender's queue is full",
        21635 | 30006 => "a landline, which takes no text messages",
        30003 => "the phone could not be reached",
        30004 | 30007 => "blocked by the carrier",
        30034 => "the sender is not registered (10DLC)",
        _ => message.unwrap_or("see twilio.com/docs/api/errors"),
    };
    format!("Twilio {code}: {}", without_numbers(meaning))
}

/// A provider may name the phone that it could not reach, which is not for tables.
fn without_numbers(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        told.push_str(if digits < 7 { word } else { "… " });
    }
    told
}
