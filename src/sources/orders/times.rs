//! Times of orders, as shops' exports write them.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;

use crate::base::Micros;

/// Shops sell neither before nor after: what is outside is a date that was misread or misspelt.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;

const WITH_OFFSET: &[&str] = &["%Y-%m-%d %H:%M:%S%.f %z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"];

const LOCAL: &[&str] = &["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];

const MONTH_FIRST: &[&str] = &["%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M"];

/// Reads times; most rows repeat the time of the row before.
pub(super) struct Times {
    zone: Tz,
    month_first: bool,
    last: Option<(String, Micros)>,
}

impl Times {
    pub fn new(zone: Tz, month_first: bool) -> Times {
        Times { zone, month_first, last: None }
    }

    /// A time with an offset, or a local one in the merchant's zone; a date is its midnight.
    pub fn read(&mut self, text: &str) -> Result<Micros, String> {
        if let Some((_, at)) = self.last.as_ref().filter(|(last, _)| last == text) {
            return Ok(*at);
        }
        let at = self.parse(text.trim()).ok_or_else(|| {
            let slashes = if self.month_first { ", or 1/31/2026 9:30" } else { "" };
            format!("\"{text}\" is no time: write 2026-01-31, 2026-01-31 09:30 or 2026-01-31T09:30:00Z{slashes}")
        })?;
        self.last = Some((text.to_owned(), at));
        Ok(at)
    }

    fn parse(&self, text: &str) -> Option<Micros> {
        let fixed = DateTime::parse_from_rfc3339(text).ok();
        let fixed = fixed.or_else(|| WITH_OFFSET.iter().find_map(|f| DateTime::parse_from_str(text, f).ok()));
        if let Some(at) = fixed {
            return YEARS.contains(&at.year()).then(|| Micros(at.timestamp_micros()));
        }
        let slashes = if self.month_first { MONTH_FIRST } else { &[] };
        let local = LOCAL.iter().chain(slashes).find_map(|f| NaiveDateTime::parse_from_str(text, f).ok());
        let local = local.or_else(|| self.date(text)?.and_hms_opt(0, 0, 0))?;
        YEARS.contains(&local.year()).then(|| Micros::at_local(local, self.zone)).flatten()
    }

    fn date(&self, text: &str) -> Option<NaiveDate> {
        let slashes = || NaiveDate::parse_from_str(text, "%m/%d/%Y").ok().filter(|_| self.month_first);
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().or_else(slashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(zone: Tz, month_first: bool, text: &str) -> Result<String, String> {
        Times::new(zone, month_first).read(text).map(|t| t.to_string())
    }

    #[test]
    fn local_times_are_the_merchants() {
        let paris = |text| read(Tz::Europe__Paris, false, text).unwrap();
        assert_eq!(paris("2026-01-31 09:30:00"), "2026-01-31T08:30:00Z");
        assert_eq!(paris("2026-01-31T09:30:00.250"), "2026-01-31T08:30:00.250Z");
        assert_eq!(paris("2026-01-31"), "2026-01-30T23:00:00Z");
        assert_eq!(paris("2026-01-31T09:30:00Z"), "2026-01-31T09:30:00Z");
        assert_eq!(paris("2025-10-07 09:50:26 +0200"), "2025-10-07T07:50:26Z");
        assert_eq!(paris("2026-03-29 02:30"), "2026-03-29T01:30:00Z", "the hour that the clocks skipped");
    }

    #[test]
    fn slashes_mean_what_the_export_means() {
        let american = |text| read(Tz::UTC, true, text).unwrap();
        assert_eq!(american("12/1/2010 8:26"), "2010-12-01T08:26:00Z");
        assert_eq!(american("9/6/2016  6:29:00"), "2016-09-06T06:29:00Z");
        assert_eq!(american("9/6/2016"), "2016-09-06T00:00:00Z");
        assert!(read(Tz::UTC, false, "12/1/2010 8:26").is_err(), "nobody knows which is the month");
    }

    #[test]
    fn what_is_no_time_is_not_guessed() {
        for text in ["", "soon", "2026-02-30", "0010-12-01", "9999-01-01", "12/1/10 8:26"] {
            assert!(read(Tz::UTC, true, text).is_err(), "{text}");
        }
    }
}
