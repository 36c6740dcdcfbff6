//! When a pipeline runs, and spans of time as people write them.

use std::{str::FromStr, time::Duration};

use chrono::DateTime;

use crate::base::Micros;

/// What starts a pipeline. Cron times are UTC.
#[derive(Debug, Clone)]
pub enum When {
    /// Nothing: it runs when a person asks, or when a later pipeline needs it.
    Asked,
    Cron(Box<croner::Cron>),
    Every(Duration),
    /// After each commit of new rows to the tables.
    Commit,
}

impl When {
    /// The first time after `last` at which the clock starts the pipeline; `None` where no clock does.
    pub fn next_after(&self, last: Micros) -> Option<Micros> {
        match self {
            When::Asked | When::Commit => None,
            When::Every(span) => Some(last.plus(i64::try_from(span.as_micros()).ok()?)),
            When::Cron(cron) => {
                let last = DateTime::from_timestamp_micros(last.0)?;
                cron.find_next_occurrence(&last, false).ok().map(|t| Micros(t.timestamp_micros()))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWhen {
    #[error("{0:?} is no span of time: write a number and s, m, h, d or w, as \"30m\" or \"7d\"")]
    Span(String),
    #[error("{0:?} is no cron expression of five fields (minute hour day month weekday, UTC): {1}")]
    Cron(String, String),
}

/// Reads `30s`, `5m`, `24h`, `7d` or `2w`. Zero is no span.
pub fn parse_span(text: &str) -> Result<Duration, BadWhen> {
    let bad = || BadWhen::Span(text.to_owned());
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

/// Reads five fields. Seconds and years are refused: a pipeline every second is `every = "1s"`.
pub(super) fn parse_cron(text: &str) -> Result<When, BadWhen> {
    let bad = |why: String| BadWhen::Cron(text.to_owned(), why);
    let fields = text.split_whitespace().count();
    if fields != 5 {
        return Err(bad(format!("it has {fields} fields")));
    }
    croner::Cron::from_str(text).map(|c| When::Cron(Box::new(c))).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "d", "0s", "7", "7 d", "-1d", "1y", "99999999999999999999w", "1.5h", "é"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_night_is_found_in_utc() {
        let nightly = parse_cron("0 2 * * *").unwrap();
        let at = |text: &str| Micros::from_rfc3339(text).unwrap();
        assert_eq!(nightly.next_after(at("2026-01-31T01:59:59Z")), Some(at("2026-01-31T02:00:00Z")));
        assert_eq!(nightly.next_after(at("2026-01-31T02:00:00Z")), Some(at("2026-02-01T02:00:00Z")));
        assert_eq!(When::Every(Duration::from_secs(5)).next_after(Micros(0)), Some(Micros(5_000_000)));
        assert!(When::Commit.next_after(Micros(0)).is_none());
    }

    #[test]
    fn a_bad_schedule_says_why() {
        assert!(parse_cron("0 2 * *").unwrap_err().to_string().contains("4 fields"));
        assert!(parse_cron("0 25 * * *").is_err());
    }
}
