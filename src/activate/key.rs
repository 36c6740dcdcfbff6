//! What a message is about, and its key: at most one message leaves per key, for ever.
//!
//! The key is a hash of trigger, occurrence, channel and destination. The occurrence is the cart or the payment that the
//! segment's row names, else the day on which the membership began: never the person alone, so that a merge of two
//! people, or a phone that two people share, does not text twice about one thing.

use std::fmt;

use aws_lc_rs::digest;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::base::{Micros, PersonId};

/// 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageKey(pub String);

impl MessageKey {
    /// `destination` is the destination's hash. A message of test data has a key of its own, so that a rehearsal does
    /// not use up the real one.
    pub fn new(trigger: &str, occurrence: &str, medium: &str, destination: &str, livemode: bool) -> MessageKey {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mode = if livemode { "live" } else { "test" };
        for part in [trigger, occurrence, medium, destination, mode] {
            // The length first: no two lists of parts may read as one text.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        MessageKey(hex::encode(&hash.finish().as_ref()[..16]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands for the destination in the key of a person who has none: such messages are only ever skipped, and two
/// people without a phone are two skipped messages.
pub fn no_destination(person: &PersonId) -> String {
    format!("nowhere:{person}")
}

/// The occurrence of a row that names none: the day, in the merchant's zone, on which it happened.
pub fn day_bucket(at: Micros, zone: Tz) -> String {
    let day = at.midnight(zone).unwrap_or(at);
    let local = chrono::DateTime::from_timestamp_micros(day.0).map(|t| t.with_timezone(&zone).date_naive());
    local.map_or_else(|| at.0.to_string(), |d| d.to_string())
}

/// Which repetition of an `every` trigger `at` falls into: 0 from the entry on, 1 after the first period, …
pub fn repetition(entered_at: Micros, every: i64, at: Micros) -> i64 {
    at.0.saturating_sub(entered_at.0).max(0) / every.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_each_part_and_on_where_it_ends() {
        let key = |t: &str, o: &str, c: &str, d: &str, l| MessageKey::new(t, o, c, d, l);
        let base = key("cart", "c1", "sms", "h", true);
        assert_eq!(base, key("cart", "c1", "sms", "h", true));
        assert_eq!(base.as_str().len(), 32);
        let others = [
            key("cart2", "c1", "sms", "h", true),
            key("cart", "c2", "sms", "h", true),
            key("cart", "c1", "email", "h", true),
            key("cart", "c1", "sms", "i", true),
            key("cart", "c1", "sms", "h", false),
            key("car", "tc1", "sms", "h", true),
            key("cart", "c1s", "ms", "h", true),
        ];
        assert!(others.iter().all(|k| *k != base));
    }

    #[test]
    fn a_day_is_a_day_of_the_merchant() {
        let late = Micros::from_rfc3339("2026-03-01T23:30:00Z").unwrap();
        assert_eq!(day_bucket(late, Tz::UTC), "2026-03-01");
        assert_eq!(day_bucket(late, Tz::Europe__Paris), "2026-03-02");
    }

    #[test]
    fn repetitions_count_from_the_entry() {
        let entered = Micros(1_000);
        assert_eq!([999, 1_000, 1_099, 1_100, 1_350].map(|t| repetition(entered, 100, Micros(t))), [0, 0, 0, 1, 3]);
    }
}
