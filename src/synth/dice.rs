//! Chance, from a seed: the only source of it in the sample shop, so that one seed gives one shop.
//!
//! Streams of one seed are independent: a person's traits come from a stream of their own and do not change when the
//! rest of the shop does.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Unix time at which the five characters that Stripe's ids begin with are five zeros: of the ids in its API reference and in recorded
/// events whose `created` is known, but for a few of another shape, give or take the second.
const FIRST_SECOND: i64 = 1_342_389_380;
/// Of the shop's account at Stripe.
const ACCOUNT: &str = "rRoastery0";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Crockford's alphabet, in which ULIDs are written.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// True once in `1 / probability` times.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number from `low` up to and including `high`.
    pub fn whole(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..=high.max(low))
    }

    /// A wait until something that happens once in `mean` on average.
    pub fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// From the normal distribution (Box and Muller 1958).
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        mean + deviation * radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// One of a list that is never empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.0.random_range(0..from.len())]
    }

    /// One of a list that is never empty, by its weights.
    pub fn weighted<'a, T>(&mut self, from: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
        let total: u32 = from.iter().map(&weight).sum();
        let mut left = self.0.random_range(0..total.max(1));
        for item in from {
            match left.checked_sub(weight(item)) {
                Some(rest) => left = rest,
                None => return item,
            }
        }
        &from[from.len() - 1]
    }

    /// `prefix` and `length` characters.
    pub fn id(&mut self, prefix: &str, length: usize) -> String {
        self.characters(prefix, length, BASE62)
    }

    /// An id as Stripe makes them: `prefix`, which ends in a digit, the second of `created` (of Unix time) in five characters, ten of
    /// the account's, and eight of chance. So ids of one kind stand in the order in which they were made.
    pub fn made(&mut self, prefix: &str, created: i64) -> String {
        let mut left = u64::try_from(created - FIRST_SECOND).unwrap_or_default();
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[(left % 62) as usize];
            left /= 62;
        }
        let second = String::from_iter(digits.map(char::from));
        let chance = self.id("", 23);
        format!("{prefix}{second}{ACCOUNT}{}", &chance[15..])
    }

    pub fn hex(&mut self, prefix: &str, length: usize) -> String {
        self.characters(prefix, length, HEX)
    }

    /// A ULID, as Klaviyo names profiles and messages.
    pub fn ulid(&mut self) -> String {
        self.characters("01J", 23, BASE32)
    }

    /// A version 4 UUID.
    pub fn uuid(&mut self) -> String {
        let mut text = self.hex("", 32);
        text.replace_range(12..13, "4");
        text.replace_range(16..17, "a");
        for at in [20, 16, 12, 8] {
            text.insert(at, '-');
        }
        text
    }

    fn characters(&mut self, prefix: &str, length: usize, alphabet: &[u8]) -> String {
        let mut text = String::with_capacity(prefix.len() + length);
        text.push_str(prefix);
        let (mut bits, mut left) = (0u64, 0);
        for _ in 0..length {
            if left == 0 {
                (bits, left) = (self.0.random(), 10);
            }
            text.push(char::from(alphabet[(bits % alphabet.len() as u64) as usize]));
            bits /= alphabet.len() as u64;
            left -= 1;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence_and_streams_differ() {
        let ids = |seed, stream| Dice::new(seed, stream).id("pi_3", 23);
        assert_eq!(ids(7, 1), ids(7, 1));
        assert_ne!(ids(7, 1), ids(7, 2));
        assert_ne!(ids(7, 1), ids(8, 1));
        assert_eq!(Dice::new(1, 1).uuid().len(), 36);
    }

    #[test]
    fn ids_say_when_they_were_made_as_stripes_do() {
        // From Stripe's API reference and recorded events: what their ids begin with, and their `created`.
        let known = [("evt_1KJeHm", 1_642_599_194), ("ch_3KtQTh", 1_651_125_926), ("in_1KJrLs", 1_642_649_420)];
        for (begins, created) in known {
            let prefix = &begins[..begins.len() - 5];
            let id = Dice::new(7, 0).made(prefix, created);
            assert_eq!((id.len(), &id[..begins.len() - 1]), (prefix.len() + 23, &begins[..begins.len() - 1]), "{id}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let mut dice = Dice::new(1, 0);
        let hits = (0..10_000).filter(|_| *dice.weighted(&[("a", 3), ("b", 1)], |x| x.1) == ("a", 3)).count();
        assert!((7_200..7_800).contains(&hits), "{hits}");
        let mean = (0..10_000).map(|_| dice.wait(5.0)).sum::<f64>() / 10_000.0;
        assert!((4.7..5.3).contains(&mean), "{mean}");
    }
}
