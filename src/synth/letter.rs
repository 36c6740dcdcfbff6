//! One event as text, with the places where a second delivery of it may differ.

use std::ops::Range;

use chrono::{DateTime, SecondsFormat};

/// See the module. `line` is one JSON document without a line break.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub line: Vec<u8>,
    /// The event's own id, where the source is known to send one event under two ids.
    pub id: Option<Range<usize>>,
    pub again: Again,
}

/// What a retry changes.
#[derive(Debug, Clone)]
pub(super) enum Again {
    Nothing,
    /// Stripe's `pending_webhooks`, one digit here.
    Pending(usize),
    /// The storefront library's `sentAt`.
    SentAt(Range<usize>),
}

/// `2026-01-31T09:30:00.250Z`, as browsers write it.
pub(super) fn browser_time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map(|t| t.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default()
}

/// `2026-01-31T09:30:00+00:00`, as Klaviyo writes it.
pub(super) fn offset_time(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).map(|t| t.to_rfc3339_opts(SecondsFormat::Secs, false)).unwrap_or_default()
}
