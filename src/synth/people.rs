//! Who visits the sample shop: everything about a person that does not change by what happens.
//!
//! A person is a function of the seed and a number, made anew whenever needed: a shop of a million people keeps none of
//! their names. What happens to them is in `crowd`.

use std::ops::Range;

use super::{
    countries::{COUNTRIES, Country},
    dice::Dice,
};
use crate::base::{Micros, time::DAY};

/// Seeds of a person's own streams, apart from the shop's stream 0.
const TRAITS: u64 = 1 << 40;
const CARDS: u64 = 2 << 40;

pub(super) struct Person {
    pub index: u32,
    pub country: &'static Country,
    pub name: String,
    pub first_name: &'static str,
    pub last_name: &'static str,
    email: String,
    pub phone: Option<String>,
    pub street: String,
    pub town: &'static (&'static str, &'static str, &'static str),
    /// The shop's own id, for those who open an account; the others stay guests.
    pub user: Option<String>,
    pub customer: String,
    pub profile: String,
    devices: u64,
    pub ip: String,
    pub agent: &'static str,
    pub first_visit: Micros,
    /// After which they are seen no more.
    pub lapses: Option<Micros>,
    pub visits_a_week: f64,
    /// Of a visit in which something is in the cart, how often it is bought.
    pub resolve: f64,
    /// How much is put into a cart.
    pub appetite: f64,
    pub takes_email: bool,
    pub takes_sms: bool,
    pub pays: Habit,
    seed: u64,
}

/// How somebody likes to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Card,
    ApplePay,
    GooglePay,
    Link,
    PayPal,
    /// Where the currency is the euro.
    Debit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub brand: &'static str,
    pub country: &'static str,
    pub funding: &'static str,
    pub fingerprint: String,
    pub last4: String,
    pub month: i64,
    pub year: i64,
}

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:139.0) Gecko/20100101 Firefox/139.0",
];

impl Person {
    /// Person `index` of the shop whose events lie between `start` and `end`.
    pub fn of(seed: u64, index: u32, start: Micros, end: Micros) -> Person {
        let mut dice = Dice::new(seed, TRAITS | u64::from(index));
        let country = dice.weighted(COUNTRIES, |c| c.share);
        let (first_name, last_name) = (*dice.pick(country.first_names), *dice.pick(country.last_names));
        let host = *dice.pick(&["example.com", "example.org", "example.net"]);
        let (town, street) = (dice.pick(country.towns), *dice.pick(country.streets));
        let (number, agent) = (dice.whole(1, 180), *dice.pick(AGENTS));
        let first_visit = arrival(&mut dice, start, end);
        Person {
            index,
            country,
            name: format!("{first_name} {last_name}"),
            first_name,
            last_name,
            email: format!("{}.{}{index}@{host}", plain(first_name), plain(last_name)),
            phone: dice.chance(0.8).then(|| country.phone(Person::household(index).start)),
            street: format!("{number} {street}"),
            town,
            user: dice.chance(0.68).then(|| format!("u_{:06}", index + 1)),
            customer: dice.id("cus_", 14),
            profile: dice.ulid(),
            devices: dice.whole(0, i64::MAX) as u64,
            ip: format!("198.{}.{}.{}", dice.whole(18, 19), dice.whole(0, 255), dice.whole(1, 254)),
            agent,
            first_visit,
            lapses: dice.chance(0.35).then(|| first_visit.plus((dice.wait(18.0) * DAY as f64) as i64)),
            visits_a_week: dice.normal(-1.0, 0.9).exp().clamp(0.05, 6.0),
            resolve: dice.normal(0.62, 0.18).clamp(0.1, 0.95),
            appetite: dice.normal(0.0, 0.6).exp(),
            takes_email: dice.chance(0.62),
            takes_sms: dice.chance(0.3),
            pays: habit(&mut dice, country),
            seed,
        }
    }

    /// Who has one phone: every fiftieth person has that of the one before, where both live in one country.
    pub fn household(index: u32) -> Range<u32> {
        match index % 50 {
            0 => index..index + 2,
            1 => index - 1..index + 1,
            _ => index..index + 1,
        }
    }

    /// The address; `changed` for the one that some move to.
    pub fn email(&self, changed: bool) -> String {
        if changed { format!("new.{}", self.email) } else { self.email.clone() }
    }

    /// The anonymous id that the shop's page gave device `number`.
    pub fn device(&self, number: u8) -> String {
        Dice::new(self.devices, u64::from(number)).uuid()
    }

    /// The `number`th card in this person's wallet.
    pub fn card(&self, number: u8) -> Card {
        let mut dice = Dice::new(self.seed, CARDS | u64::from(self.index) << 8 | u64::from(number));
        let brand = dice.weighted(&[("visa", 52), ("mastercard", 33), ("amex", 10), ("discover", 5)], |b| b.1).0;
        let abroad = dice.chance(0.06);
        Card {
            brand,
            country: if abroad { dice.pick(COUNTRIES).code } else { self.country.code },
            funding: dice.weighted(&[("credit", 55), ("debit", 38), ("prepaid", 7)], |f| f.1).0,
            fingerprint: dice.id("", 16),
            last4: format!("{:04}", dice.whole(0, 9_999)),
            month: dice.whole(1, 12),
            year: dice.whole(2027, 2031),
        }
    }
}

/// Half of all people come in the first sixth: a shop does not start empty, and does not stop growing.
fn arrival(dice: &mut Dice, start: Micros, end: Micros) -> Micros {
    let span = (end.0 - start.0) as f64;
    let share = if dice.chance(0.5) { dice.unit() / 6.0 } else { dice.unit() * 0.97 };
    start.plus((span * share) as i64)
}

fn habit(dice: &mut Dice, country: &Country) -> Habit {
    let debit = if country.currency == "eur" { 8 } else { 0 };
    let habits = [
        (Habit::Card, 60),
        (Habit::ApplePay, 13),
        (Habit::GooglePay, 8),
        (Habit::Link, 6),
        (Habit::PayPal, 11),
        (Habit::Debit, debit),
    ];
    dice.weighted(&habits, |h| h.1).0
}

/// A name in the letters that an address may have.
fn plain(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            'ü' => Some('u'),
            'ö' => Some('o'),
            'ä' | 'å' | 'á' | 'ã' | 'Å' | 'Á' => Some('a'),
            'é' | 'è' => Some('e'),
            'í' => Some('i'),
            'ñ' => Some('n'),
            'ú' => Some('u'),
            'ó' => Some('o'),
            c => c.is_ascii_alphabetic().then(|| c.to_ascii_lowercase()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::E164;

    fn people(count: u32) -> impl Iterator<Item = Person> {
        (0..count).map(|i| Person::of(7, i, Micros(0), Micros(90 * DAY)))
    }

    #[test]
    fn phones_are_valid_where_they_belong() {
        for country in COUNTRIES {
            for index in [0, 1, 99, 100, 1_234, 98_765, 2_000_000_011] {
                let phone = country.phone(index);
                let parsed = E164::parse(&phone, None).unwrap_or_else(|e| panic!("{} {phone}: {e}", country.code));
                assert_eq!(parsed.as_str(), phone);
                let plan = parsed.plan();
                assert_eq!(plan.region.as_deref(), Some(country.code), "{phone}");
                assert!(matches!(plan.kind, "mobile" | "fixed_line_or_mobile"), "{phone}");
            }
        }
        let given = people(300).filter_map(|p| p.phone).filter(|p| E164::parse(p, None).is_ok()).count();
        assert!((200..280).contains(&given), "{given}");
    }

    #[test]
    fn addresses_are_plain_and_of_one_person() {
        let mut all: Vec<_> = people(2_000).map(|p| p.email(false)).collect();
        assert!(all.iter().all(|e| e.is_ascii() && e.split_once("@example.").is_some_and(|(n, _)| n.len() > 4)));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2_000);
    }

    #[test]
    fn a_person_is_the_same_each_time_and_lives_within_the_shops_time() {
        let (a, b) = (Person::of(7, 5, Micros(0), Micros(DAY)), Person::of(7, 5, Micros(0), Micros(DAY)));
        assert_eq!((a.email(true), a.device(1), a.card(0)), (b.email(true), b.device(1), b.card(0)));
        assert_ne!(a.card(0), a.card(1));
        assert!(people(500).all(|p| p.first_visit >= Micros(0) && p.first_visit < Micros(90 * DAY)));
    }
}
