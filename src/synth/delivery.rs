//! The way from a source to whoever listens: late, out of order, and sometimes twice.
//!
//! Every event arrives at least once. Arrival follows occurrence by seconds as a rule, by minutes for one in twenty and
//! by hours for one in a hundred; three in a hundred arrive again, and one in four hundred of Stripe's comes as a twin: the
//! same change of the same object under another id, which Stripe documents. What waits to be delivered is all that is
//! kept, so memory does not grow with the output.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{
    dice::Dice,
    letter::{Again, Letter, browser_time},
};
use crate::base::{
    Source,
    time::{HOUR, MINUTE, SECOND},
};

/// Streams of the seed, a source each, so that leaving a source out changes nothing in the others.
const STREAMS: u64 = 3 << 40;
const AGAIN: f64 = 0.03;
const TWIN: f64 = 0.0025;

pub(super) struct Delivery {
    waiting: BinaryHeap<Reverse<Parcel>>,
    sent: u64,
    dice: [Dice; 3],
}

struct Parcel {
    at: i64,
    /// Ties arrive in the order of posting.
    number: u64,
    source: Source,
    line: Vec<u8>,
}

/// How many lines one event became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Posted {
    /// Distinct events: 2 where it has a twin.
    pub events: u64,
    pub duplicates: u64,
}

impl Delivery {
    pub fn new(seed: u64) -> Delivery {
        let dice = std::array::from_fn(|source| Dice::new(seed, STREAMS | source as u64));
        Delivery { waiting: BinaryHeap::new(), sent: 0, dice }
    }

    /// Chance for what the source itself makes up: ids of events.
    pub fn dice(&mut self, source: Source) -> &mut Dice {
        &mut self.dice[place(source)]
    }

    /// Hands over an event that occurred at `at`, in microseconds.
    pub fn post(&mut self, source: Source, letter: Letter, at: i64) -> Posted {
        let first = at + self.latency(source);
        let mut posted = Posted { events: 1, duplicates: 0 };
        if let Some(id) = letter.id.clone().filter(|_| self.dice(source).chance(TWIN)) {
            let mut twin = letter.line.clone();
            let other = self.dice(source).made("evt_1", at / SECOND);
            twin[id].copy_from_slice(other.as_bytes());
            let later = first + self.latency(source);
            self.send(source, twin, later);
            posted.events += 1;
        }
        if self.dice(source).chance(AGAIN) {
            let wait = [5 * SECOND, MINUTE, 5 * MINUTE, HOUR];
            let later = first + *self.dice(source).pick(&wait) + self.latency(source);
            let line = again(&letter, later);
            self.send(source, line, later);
            posted.duplicates += 1;
        }
        self.send(source, letter.line, first);
        posted
    }

    /// The next line that arrives no later than `until`.
    pub fn next(&mut self, until: i64) -> Option<(Source, Vec<u8>)> {
        if self.waiting.peek()?.0.at > until {
            return None;
        }
        self.waiting.pop().map(|Reverse(parcel)| (parcel.source, parcel.line))
    }

    fn send(&mut self, source: Source, line: Vec<u8>, at: i64) {
        self.sent += 1;
        self.waiting.push(Reverse(Parcel { at, number: self.sent, source, line }));
    }

    fn latency(&mut self, source: Source) -> i64 {
        let dice = self.dice(source);
        let usual = match source {
            // Polled every minute.
            Source::Klaviyo => dice.between(0.5, 60.0),
            Source::Stripe => 0.3 + dice.wait(1.2),
            _ => dice.between(0.05, 3.0),
        };
        let seconds = match dice.unit() {
            u if u < 0.01 => dice.between(600.0, 6.0 * 3_600.0),
            u if u < 0.06 => dice.between(5.0, 1_800.0),
            _ => usual,
        };
        (seconds * SECOND as f64) as i64
    }
}

fn place(source: Source) -> usize {
    match source {
        Source::Stripe => 0,
        Source::Klaviyo => 1,
        _ => 2,
    }
}

/// The text of a second delivery.
fn again(letter: &Letter, at: i64) -> Vec<u8> {
    let mut line = letter.line.clone();
    match &letter.again {
        Again::Nothing => {}
        Again::Pending(place) => line[*place] = b'0',
        Again::SentAt(place) => {
            let sent = browser_time(at);
            if sent.len() == place.len() {
                line[place.clone()].copy_from_slice(sent.as_bytes());
            }
        }
    }
    line
}

impl Ord for Parcel {
    fn cmp(&self, other: &Parcel) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Parcel) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Parcel) -> bool {
        self.number == other.number
    }
}

impl Eq for Parcel {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_arrives_and_three_in_a_hundred_again() {
        let mut delivery = Delivery::new(7);
        let mut posted = Posted::default();
        for n in 0..20_000i64 {
            let line = format!(r#"{{"id":"evt_1{n:023}","pending_webhooks":1}}"#).into_bytes();
            let pending = line.len() - 2;
            let letter = Letter { line, id: Some(7..35), again: Again::Pending(pending) };
            let one = delivery.post(Source::Stripe, letter, n * SECOND);
            posted.events += one.events;
            posted.duplicates += one.duplicates;
        }
        let lines: Vec<_> = std::iter::from_fn(|| delivery.next(i64::MAX)).map(|(_, line)| line).collect();
        assert_eq!(lines.len() as u64, posted.events + posted.duplicates);
        assert!((500..700).contains(&posted.duplicates), "{posted:?}");
        assert!((20_020..20_090).contains(&posted.events), "{posted:?}");
        let mut ids: Vec<_> = lines.iter().map(|l| l[7..35].to_vec()).collect();
        let in_order = ids.is_sorted();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len() as u64, posted.events);
        assert!(!in_order, "some must be late");
        assert_eq!(lines.iter().filter(|l| l.ends_with(b":0}")).count() as u64, posted.duplicates);
    }
}
