//! Points in time: microseconds since 1970 in UTC, as every table holds them.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no time: write a date (2026-01-31), or a date and time (2026-01-31T09:30:00Z)")]
pub struct BadTime(String);

impl Micros {
    pub fn now() -> Micros {
        Micros(Utc::now().timestamp_micros())
    }

    /// From whole seconds; `None` where they do not fit.
    pub fn from_seconds(seconds: i64) -> Option<Micros> {
        seconds.checked_mul(SECOND).map(Micros)
    }

    /// From RFC 3339 text, as `2026-01-31T09:30:00.5Z`.
    pub fn from_rfc3339(text: &str) -> Option<Micros> {
        DateTime::parse_from_rfc3339(text).ok().map(|t| Micros(t.timestamp_micros()))
    }

    /// A time as a person writes it: RFC 3339, or a local date or date and time in `zone`. A date is its midnight.
    pub fn parse(text: &str, zone: Tz) -> Result<Micros, BadTime> {
        let text = text.trim();
        if let Some(at) = Micros::from_rfc3339(text) {
            return Ok(at);
        }
        let local =
            NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|d| d.and_hms_opt(0, 0, 0)).or_else(|| {
                ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
                    .iter()
                    .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
            });
        local
            .and_then(|l| zone.from_local_datetime(&l).earliest())
            .map(|t| Micros(t.timestamp_micros()))
            .ok_or_else(|| BadTime(text.to_owned()))
    }

    /// Whole seconds, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// The UTC date; `None` outside chrono's range of some 262,000 years.
    pub fn date(self) -> Option<NaiveDate> {
        DateTime::from_timestamp_micros(self.0).map(|t| t.date_naive())
    }

    /// The midnight that starts this day in `zone`.
    pub fn midnight(self, zone: Tz) -> Option<Micros> {
        let local = DateTime::from_timestamp_micros(self.0)?.with_timezone(&zone).date_naive().and_hms_opt(0, 0, 0)?;
        zone.from_local_datetime(&local).earliest().map(|t| Micros(t.timestamp_micros()))
    }

    pub fn plus(self, micros: i64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_micros(self.0) {
            Some(t) => f.write_str(&t.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{} us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight_in_the_merchants_zone() {
        let utc = Micros::parse("2026-07-01", Tz::UTC).unwrap();
        let paris = Micros::parse("2026-07-01", Tz::Europe__Paris).unwrap();
        assert_eq!(utc.to_string(), "2026-07-01T00:00:00Z");
        assert_eq!(utc.0 - paris.0, 2 * HOUR);
        assert!(Micros::parse("yesterday", Tz::UTC).is_err());
    }
}
