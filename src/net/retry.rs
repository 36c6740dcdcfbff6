//! When to try again, and when to let it be.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};

use crate::base::Backoff;

/// How often and after which waits one request is tried.
#[derive(Debug, Clone)]
pub struct Retry {
    /// In all, the first try included.
    pub tries: u32,
    /// The bound of the first wait; it doubles with each failure.
    pub first_wait: Duration,
    /// No wait is longer. A server that asks for more (`Retry-After`) is not waited for: the caller is told.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        // With these the five tries of a request lie within half a minute on average: a provider's restart is bridged,
        // and a longer outage is the outbox's to wait out, which does so durably.
        Retry { tries: 5, first_wait: Duration::from_millis(250), longest_wait: Duration::from_secs(60) }
    }
}

impl Retry {
    /// A wait after `failures` tries.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        Backoff { first: self.first_wait, longest: self.longest_wait }.wait(failures)
    }
}

/// Tries again are paid from here, so that a provider in trouble gets at most a fifth more requests, not five times.
pub(super) struct Budget(AtomicI64);

/// What a request pays in, what a retry costs, and what may gather: 100 retries. In tenths of a retry.
const DEPOSIT: i64 = 2;
const COST: i64 = 10;
const MOST: i64 = 1000;

impl Budget {
    /// Starts with ten retries, so that the first requests of a process may be tried again too.
    pub fn new() -> Budget {
        Budget(AtomicI64::new(10 * COST))
    }

    pub fn deposit(&self) {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |b| Some((b + DEPOSIT).min(MOST))).ok();
    }

    /// False when it is spent.
    pub fn withdraw(&self) -> bool {
        let pay = |b: i64| (b >= COST).then_some(b - COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

/// `Retry-After`: seconds, or an HTTP date.
pub(super) fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(value).ok()?;
    Some((at.to_utc() - now).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_in_trouble_is_not_hit_five_times_as_often() {
        let budget = Budget::new();
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            while budget.withdraw() {
                retries += 1;
            }
        }
        assert!((190..=210).contains(&retries), "{retries}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-31T09:30:00Z").unwrap().to_utc();
        assert_eq!(retry_after(" 7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 09:30:20 GMT", now), Some(Duration::from_secs(20)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 09:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
