//! When a pipeline runs.

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
#[error("{0:?} is no cron expression of five fields (minute hour day month weekday, UTC): {1}")]
pub struct BadCron(String, String);

/// Reads five fields. Seconds and years are refused: a pipeline every second is `every = "1s"`.
pub(super) fn parse_cron(text: &str) -> Result<When, BadCron> {
    let bad = |why: String| BadCron(text.to_owned(), why);
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
