//! Points in time: microseconds since 1970 in UTC, as every table holds them.

use std::{fmt, time::Duration};

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, Offset, SecondsFormat, TimeZone, Utc};
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

/// Reads a span of time: `30s`, `5m`, `24h`, `7d` or `2w`. Zero is no span.
pub fn parse_span(text: &str) -> Result<Duration, BadSpan> {
    let bad = || BadSpan(text.to_owned());
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - 1];
    let number: u64 =
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten().ok_or_else(bad)?;
    let total = number.checked_mul(seconds).filter(|s| (1..=u64::from(u32::MAX)).contains(s)).ok_or_else(bad)?;
    Ok(Duration::from_secs(total))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span of time: write a number and s, m, h, d or w, as \"30m\" or \"7d\"")]
pub struct BadSpan(String);

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
        local.and_then(|l| Micros::at_local(l, zone)).ok_or_else(|| BadTime(text.to_owned()))
    }

    /// When clocks in `zone` show `local`; the first time where they show it twice. A time that they skip is read by the
    /// clocks as they were before: so the midnight of a day that begins at 1 is its first moment.
    pub fn at_local(local: NaiveDateTime, zone: Tz) -> Option<Micros> {
        let shown = zone.from_local_datetime(&local).earliest().map(|t| t.to_utc());
        let skipped = || {
            let offset = zone.offset_from_utc_datetime(&local.checked_sub_days(Days::new(1))?).fix();
            offset.from_local_datetime(&local).earliest().map(|t| t.to_utc())
        };
        shown.or_else(skipped).map(|t| Micros(t.timestamp_micros()))
    }

    /// Whole seconds, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// The UTC date; `None` outside chrono's range of some 262,000 years.
    pub fn date(self) -> Option<NaiveDate> {
        DateTime::from_timestamp_micros(self.0).map(|t| t.date_naive())
    }

    /// Whether it is a moment that every SQL function can reckon with: some count nanoseconds, in 64 bits.
    pub fn is_reckonable(self) -> bool {
        self.0.checked_mul(1000).is_some()
    }

    /// The midnight that starts this day in `zone`.
    pub fn midnight(self, zone: Tz) -> Option<Micros> {
        let local = DateTime::from_timestamp_micros(self.0)?.with_timezone(&zone).date_naive().and_hms_opt(0, 0, 0)?;
        Micros::at_local(local, zone)
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

    #[test]
    fn a_day_without_a_midnight_begins_when_the_clocks_jump() {
        let santiago = Micros::parse("2025-09-07", Tz::America__Santiago).unwrap();
        assert_eq!(santiago.to_string(), "2025-09-07T04:00:00Z");
        assert_eq!(santiago.plus(DAY / 2).midnight(Tz::America__Santiago), Some(santiago));
        assert_eq!(Micros(santiago.0 - 1).midnight(Tz::America__Santiago), Some(Micros(santiago.0 - DAY)));
        let paris = Micros::parse("2026-03-29 02:30", Tz::Europe__Paris).unwrap();
        assert_eq!(paris.to_string(), "2026-03-29T01:30:00Z", "the hour that the clocks skipped");
    }

    #[test]
    fn spans_are_a_number_and_a_unit() {
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "d", "0s", "7", "7 d", "-1d", "1y", "99999999999999999999w", "1.5h", "é"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
