//! Activation: who belongs to which segment, who is told what, and what became of it.
//!
//! What must always hold: a message key is sent at most once, whatever is killed, repeated, merged or retried; no message
//! goes out unless it is durable that it is about to ([`outbox`]); the rules ([`rules`]) are asked when a message is queued
//! and again when it is sent; who has left the segment by then is not written to. Nothing here knows a person's address
//! longer than the request that needs it, and no log or report holds one.
//!
//! ```text
//!  segment's SQL ─► members (diff) ─► triggers ─► rules ─► outbox ─► rules ─► template ─► channel ─► outbox
//!                   └──────────── evaluate ──────────────┘  └─────────────── dispatch ────────────────┘
//! ```

mod assess;
pub mod channel;
mod check;
mod copy;
mod dispatch;
mod error;
mod evaluate;
mod hear;
mod key;
mod knowledge;
mod members;
mod message;
mod outbox;
mod preview;
mod quiet;
mod read;
mod record;
mod recover;
mod report;
mod rules;
mod settle;
pub mod sms;
mod template;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono_tz::Tz;

use self::{
    channel::{Channel, Klaviyo, RecordOnly, Twilio},
    members::Memberships,
    outbox::Outbox,
};
pub use self::{
    check::check,
    dispatch::{Dispatched, Outcome},
    error::ActivateError,
    evaluate::{Evaluated, SegmentChange},
    key::MessageKey,
    message::{Columns, Medium, Message, Purpose, State, Text},
    preview::{Fate, Preview},
    record::{MessageRecord, Record, SuppressionRecord},
    report::{MemberRow, SegmentSummary, TriggerSummary},
    rules::{CONSENT_MAX_AGE, Refusal},
    template::{TemplateError, Templates},
};
use crate::{
    base::{Micros, Pseudonymizer, suggest::did_you_mean, time::HOUR},
    config,
    lake::Lake,
    log::EventLog,
    net,
    pipeline::{self, Project, Trigger},
    store::{Store, Vault},
};

/// The opened rooms that activation works on.
pub struct Rooms {
    pub store: Store,
    pub log: EventLog,
    pub lake: Lake,
    pub vault: Vault,
    /// How a phone becomes a destination.
    pub names: Pseudonymizer,
}

/// See the module. One a data directory.
pub struct Activator {
    store: Store,
    log: EventLog,
    lake: Lake,
    vault: Vault,
    names: Pseudonymizer,
    project: Arc<Project>,
    templates: Templates,
    merchant: String,
    zone: Tz,
    /// `activate.send`.
    send: bool,
    consent_max_age: Option<i64>,
    /// What time it really is, whatever the business time of a session.
    clock: Arc<dyn Fn() -> Micros + Send + Sync>,
    channels: HashMap<Medium, Arc<dyn Channel>>,
    record_only: Arc<dyn Channel>,
    outbox: Outbox,
    members: Memberships,
    /// Until when a medium's provider wants no requests.
    held: Mutex<HashMap<Medium, Micros>>,
    /// Segments that could not be acted on at the last look.
    resting: Mutex<HashMap<String, Rest>>,
    /// Whether the log was compared with the store since the start.
    recovered: tokio::sync::Mutex<bool>,
    evaluating: tokio::sync::Mutex<()>,
    dispatching: tokio::sync::Mutex<()>,
}

/// Why a segment is not looked at again of itself, and until when.
struct Rest {
    why: String,
    until: Micros,
}

/// Waits that are shorter than this are waited out inside a request; longer ones in the outbox, durably.
const SHORT_WAIT: Duration = Duration::from_secs(5);
/// Who claimed a message in another process says what became of it before this, or is gone.
const ELSEWHERE: i64 = HOUR;
/// Klaviyo's limit for Create Event: 3,500 a minute.
const KLAVIYO_EVENTS_A_MINUTE: u32 = 3500;

impl Activator {
    /// Opens the outbox and the memberships. Messages that an earlier process was sending when it died become unknown
    /// as of `now`.
    pub fn open(
        rooms: Rooms,
        settings: &config::Settings,
        project: Arc<Project>,
        now: Micros,
    ) -> Result<Activator, ActivateError> {
        let Rooms { store, log, lake, vault, names } = rooms;
        let outbox = Outbox::open(&store)?;
        outbox.abandon(now, patience(&log))?;
        let members = Memberships::open(&store)?;
        Ok(Activator {
            templates: Templates::beside(settings.pipelines.dir.as_deref())?,
            merchant: settings.merchant.id.clone(),
            zone: settings.merchant.timezone,
            send: settings.activate.send,
            consent_max_age: Some(CONSENT_MAX_AGE),
            clock: Arc::new(Micros::now),
            channels: channels(settings)?,
            record_only: Arc::new(RecordOnly),
            held: Mutex::default(),
            resting: Mutex::default(),
            recovered: tokio::sync::Mutex::new(false),
            evaluating: tokio::sync::Mutex::new(()),
            dispatching: tokio::sync::Mutex::new(()),
            store,
            log,
            lake,
            vault,
            names,
            project,
            outbox,
            members,
        })
    }

    /// The same with another channel for a medium.
    pub fn with_channel(mut self, medium: Medium, channel: Arc<dyn Channel>) -> Activator {
        self.channels.insert(medium, channel);
        self
    }

    /// The same with another age at which consent from elsewhere is too old to send on; `None`: never.
    pub fn with_consent_max_age(mut self, micros: Option<i64>) -> Activator {
        self.consent_max_age = micros;
        self
    }

    /// The same by another clock.
    pub fn with_clock(mut self, clock: impl Fn() -> Micros + Send + Sync + 'static) -> Activator {
        self.clock = Arc::new(clock);
        self
    }

    /// When something is to be done even if nothing happens: a message's time comes, a cart becomes abandoned, a
    /// provider is to be asked. A time in the past means now.
    pub fn due(&self, now: Micros) -> Result<Option<Micros>, ActivateError> {
        let mut next: Vec<Micros> = self.sends_at()?.into_iter().collect();
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        for segment in self.project.segments() {
            // A segment that was never looked at is looked at now.
            let look = self.members.look(&segment.name)?.map_or(Some(now), |look| look.next);
            next.extend(look.map(|look| resting.get(&segment.name).map_or(look, |rest| look.max(rest.until))));
        }
        drop(resting);
        Ok(next.into_iter().min())
    }

    /// When a message's time comes, or a provider is to be asked, whatever the segments say.
    pub fn sends_at(&self) -> Result<Option<Micros>, ActivateError> {
        let mut next: Vec<Micros> = self.outbox.next_unsettled()?.into_iter().collect();
        for medium in Medium::ALL {
            if let Some(ready) = self.outbox.next_ready(medium)? {
                next.push(ready.max(self.held_until(medium).unwrap_or(ready)));
            }
        }
        Ok(next.into_iter().min())
    }

    /// Somebody looked at the consents in Klaviyo, and what they found is in the tables.
    pub fn consent_was_seen(&self, at: Micros) -> Result<(), ActivateError> {
        self.outbox.set_consent_seen(at)
    }

    /// Until when that is so; `None` where nobody ever looked.
    pub fn consent_seen(&self) -> Result<Option<Micros>, ActivateError> {
        self.outbox.consent_seen()
    }

    /// Every message there is, in no order.
    pub fn messages(&self) -> impl Iterator<Item = Result<Message, ActivateError>> + '_ {
        self.outbox.all()
    }

    /// The channel that a message takes: the configured one, if messages are to leave at all and this one is of a real
    /// person; else the record.
    fn channel_of(&self, medium: Medium, livemode: bool) -> &Arc<dyn Channel> {
        let configured = self.channels.get(&medium).filter(|_| self.send && livemode);
        configured.unwrap_or(&self.record_only)
    }

    /// Whether there is a trigger of this name.
    pub fn known(&self, trigger: &str) -> Result<(), ActivateError> {
        self.trigger(trigger).map(|_| ())
    }

    fn held_until(&self, medium: Medium) -> Option<Micros> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&medium).copied()
    }

    fn hold(&self, medium: Medium, until: Micros) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.entry(medium).or_insert(until);
        *held = until.max(*held);
    }

    fn trigger(&self, name: &str) -> Result<&Trigger, ActivateError> {
        self.project.trigger(name).ok_or_else(|| {
            let hint = did_you_mean(name, self.project.triggers().map(|t| t.name.as_str()));
            ActivateError::UnknownTrigger { name: name.to_owned(), hint }
        })
    }

    fn segment(&self, name: &str) -> Result<&pipeline::Segment, ActivateError> {
        self.project.segment(name).ok_or_else(|| {
            let hint = did_you_mean(name, self.project.segments().map(|s| s.name.as_str()));
            ActivateError::UnknownSegment { name: name.to_owned(), hint }
        })
    }
}

/// The channels that are configured; none where nothing is to leave.
fn channels(settings: &config::Settings) -> Result<HashMap<Medium, Arc<dyn Channel>>, ActivateError> {
    let mut channels: HashMap<Medium, Arc<dyn Channel>> = HashMap::new();
    if !settings.activate.send {
        return Ok(channels);
    }
    let retry = net::Retry { tries: 2, longest_wait: SHORT_WAIT, ..net::Retry::default() };
    let prefix = settings.klaviyo.api_base.join("/api/events");
    let limit = net::Limit { prefix, requests: KLAVIYO_EVENTS_A_MINUTE, per: Duration::from_secs(60) };
    let client = net::Client::new(net::Options { retry, limits: vec![limit], ..net::Options::default() })?;
    if settings.activate.sms == config::SmsChannel::Twilio
        && let Some(twilio) = Twilio::new(&settings.twilio, settings.server.public_url.as_ref(), client.clone())
    {
        channels.insert(Medium::Sms, Arc::new(twilio));
    }
    if settings.activate.email == config::EmailChannel::Klaviyo
        && let Some(klaviyo) = Klaviyo::new(&settings.klaviyo, client)
    {
        channels.insert(Medium::Email, Arc::new(klaviyo));
    }
    Ok(channels)
}

/// How long what was claimed elsewhere is left alone: where nobody else has a part in the log, whoever it was is gone.
fn patience(log: &EventLog) -> i64 {
    if log.is_shared() { ELSEWHERE } else { 0 }
}

/// An address as a report may show it.
fn mask(medium: Medium, address: &str) -> String {
    match medium {
        Medium::Sms => crate::base::E164::parse(address, None).map_or_else(|_| "…".to_owned(), |p| p.to_string()),
        Medium::Email => {
            let (name, host) = address.split_once('@').unwrap_or((address, ""));
            let start = |text: &str, n| text.chars().take(n).collect::<String>();
            let ending = host.rsplit_once('.').map_or("", |(_, end)| end);
            format!("{}…@{}….{ending}", start(name, 1), start(host, 2))
        }
    }
}
