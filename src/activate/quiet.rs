//! When a marketing SMS may arrive: the recipient's local hours.
//!
//! `data/quiet_hours.csv` holds the hours by jurisdiction (and, in the United States, by the state of the area code);
//! `data/country_zones.csv` the zones of each country (tz database, one of each set that agrees through a year). What is
//! not known is taken at its most careful: an unknown zone is every zone of the country at once, an unknown country has
//! the narrowest hours. Simple rules only: an engineering reading of the law, not legal advice.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, Datelike, Days, NaiveDate, Timelike, Weekday};
use chrono_tz::Tz;

use crate::base::{E164, Micros, time::MINUTE};

/// What is known of where somebody is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whereabouts<'a> {
    pub phone: Option<&'a E164>,
    /// Two letters, as the person's record has it.
    pub country: Option<&'a str>,
    /// An IANA name, as the person's browser or profile said.
    pub timezone: Option<&'a str>,
}

/// The hours that must all be open.
#[derive(Debug)]
pub struct QuietHours {
    zones: Vec<Tz>,
    rules: Vec<&'static Rule>,
}

/// From and to, in minutes of the local day; `None`: the whole day is closed.
type Hours = Option<(u32, u32)>;

#[derive(Debug)]
struct Rule {
    jurisdiction: &'static str,
    weekday: Hours,
    saturday: Hours,
    sunday: Hours,
    area_codes: Vec<&'static str>,
}

static RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| include_str!("../../data/quiet_hours.csv").lines().skip(1).filter_map(parse_rule).collect());

static ZONES: LazyLock<HashMap<&str, Vec<Tz>>> = LazyLock::new(|| {
    let lines = include_str!("../../data/country_zones.csv").lines().skip(1);
    let entry = |line: &'static str| {
        let (country, zones) = line.split_once(',')?;
        Some((country, zones.split(' ').filter_map(|z| z.parse().ok()).collect()))
    };
    lines.filter_map(entry).collect()
});

/// What the table says of a jurisdiction it does not hold.
const ANYWHERE_ELSE: &str = "*";
/// All offsets of the world's zones are multiples of this, and so are all hours of the table.
const STEP: i64 = 15 * MINUTE;
/// A week and a day: longer than any row of closed days.
const HORIZON: i64 = 8 * 24 * 4;

impl QuietHours {
    pub fn of(place: Whereabouts<'_>) -> QuietHours {
        let phone_region = place.phone.and_then(E164::region);
        let country = place.country.map(str::to_uppercase);
        let mut rules: Vec<&'static Rule> = Vec::new();
        let mut regions: Vec<&str> = phone_region.iter().chain(&country).map(String::as_str).collect();
        regions.dedup();
        for region in &regions {
            rules.extend(find_rule(region).or_else(|| find_rule(ANYWHERE_ELSE)));
        }
        if let Some(area) = place.phone.and_then(|p| p.as_str().strip_prefix("+1")).and_then(|n| n.get(..3)) {
            rules.extend(RULES.iter().filter(|r| r.area_codes.contains(&area)));
        }
        if rules.is_empty() {
            rules.extend(find_rule(ANYWHERE_ELSE));
        }
        let known: Option<Tz> = place.timezone.and_then(|z| z.parse().ok());
        let zones = match known {
            Some(zone) => vec![zone],
            None => regions.iter().filter_map(|r| ZONES.get(r)).flatten().copied().collect(),
        };
        QuietHours { zones, rules }
    }

    /// The first moment from `at` on that is open everywhere the recipient may be; `None` where there is none, as for a
    /// recipient of whom no country is known.
    pub fn next_open(&self, at: Micros) -> Option<Micros> {
        if self.is_open(at) {
            return Some(at);
        }
        let first = at.0.div_euclid(STEP) + 1;
        (first..first + HORIZON).map(|step| Micros(step * STEP)).find(|t| self.is_open(*t))
    }

    /// The jurisdictions whose hours were applied, for the reason that a marketer reads.
    pub fn jurisdictions(&self) -> String {
        let mut names: Vec<&str> = self.rules.iter().map(|r| r.jurisdiction).collect();
        names.dedup();
        names.join(", ").replace(ANYWHERE_ELSE, "the narrowest")
    }

    fn is_open(&self, at: Micros) -> bool {
        !self.zones.is_empty() && self.zones.iter().all(|zone| self.rules.iter().all(|rule| rule.is_open(at, *zone)))
    }
}

impl Rule {
    fn is_open(&self, at: Micros, zone: Tz) -> bool {
        let Some(local) = DateTime::from_timestamp_micros(at.0).map(|t| t.with_timezone(&zone)) else {
            return false;
        };
        let hours = match local.weekday() {
            Weekday::Sat => self.saturday,
            Weekday::Sun => self.sunday,
            _ => self.weekday,
        };
        let minute = local.hour() * 60 + local.minute();
        let holiday = self.jurisdiction == "FR" && is_french_holiday(local.date_naive());
        !holiday && hours.is_some_and(|(from, to)| from <= minute && minute < to)
    }
}

fn find_rule(jurisdiction: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.jurisdiction == jurisdiction)
}

/// `jurisdiction,start,end,saturday,sunday,area_codes`: the last three may be empty, a day's hours may be `none`.
fn parse_rule(line: &'static str) -> Option<Rule> {
    let mut cells = line.split(',');
    let mut next = || cells.next().map(str::trim);
    let (jurisdiction, start, end) = (next()?, next()?, next()?);
    let (saturday, sunday, area_codes) = (next()?, next()?, next()?);
    let weekday = Some((minutes(start)?, minutes(end)?));
    let day = |cell: &str| match cell {
        "" => Some(weekday),
        "none" => Some(None),
        hours => hours.split_once('-').and_then(|(from, to)| Some(Some((minutes(from)?, minutes(to)?)))),
    };
    let area_codes = area_codes.split(' ').filter(|c| !c.is_empty()).collect();
    Some(Rule { jurisdiction, weekday, saturday: day(saturday)?, sunday: day(sunday)?, area_codes })
}

fn minutes(clock: &str) -> Option<u32> {
    let (hours, minutes) = clock.split_once(':')?;
    Some(hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?)
}

/// The eleven public holidays of metropolitan France (Code du travail, L3133-1).
fn is_french_holiday(day: NaiveDate) -> bool {
    const FIXED: [(u32, u32); 8] = [(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25)];
    /// Easter Monday, Ascension, Whit Monday.
    const AFTER_EASTER: [u64; 3] = [1, 39, 50];
    let moves =
        easter(day.year()).is_some_and(|e| AFTER_EASTER.iter().any(|d| e.checked_add_days(Days::new(*d)) == Some(day)));
    moves || FIXED.contains(&(day.month(), day.day()))
}

/// The Gregorian Easter Sunday (the anonymous computus, Nature 1876).
fn easter(year: i32) -> Option<NaiveDate> {
    let (a, b, c) = (year % 19, year / 100, year % 100);
    let (d, e, g) = (b / 4, b % 4, (8 * b + 13) / 25);
    let h = (19 * a + b - d - g + 15) % 30;
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k) % 7;
    let m = (a + 11 * h + 19 * l) / 433;
    let month = (h + l - 7 * m + 90) / 25;
    let day = (h + l - 7 * m + 33 * month + 19) % 32;
    NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        Micros::from_rfc3339(text).unwrap()
    }

    fn next(phone: &str, zone: Option<&str>, from: &str) -> Option<String> {
        let phone = E164::parse(phone, None).unwrap();
        let place = Whereabouts { phone: Some(&phone), country: None, timezone: zone };
        QuietHours::of(place).next_open(at(from)).map(|t| t.to_string())
    }

    #[test]
    fn every_row_of_both_tables_is_read() {
        assert_eq!(RULES.len(), include_str!("../../data/quiet_hours.csv").lines().count() - 1);
        assert_eq!(ZONES.len(), include_str!("../../data/country_zones.csv").lines().count() - 1);
        let listed = |line: &str| line.split_once(',').map_or(0, |(_, z)| z.split(' ').count());
        for line in include_str!("../../data/country_zones.csv").lines().skip(1) {
            assert_eq!(ZONES[&line[..2]].len(), listed(line), "{line}");
        }
    }

    #[test]
    fn the_recipients_zone_decides() {
        let zone = Some("America/New_York");
        assert_eq!(next("+12125550123", zone, "2026-01-14T12:59:00Z").unwrap(), "2026-01-14T13:00:00Z");
        assert_eq!(next("+12125550123", zone, "2026-01-14T20:07:11Z").unwrap(), "2026-01-14T20:07:11Z");
        assert_eq!(next("+12125550123", zone, "2026-01-15T02:00:00Z").unwrap(), "2026-01-15T13:00:00Z");
    }

    #[test]
    fn a_state_by_area_code_is_stricter() {
        // Florida closes at 20:00; Texas opens at noon on a Sunday (2026-01-18).
        assert_eq!(
            next("+13055550123", Some("America/New_York"), "2026-01-15T01:30:00Z").unwrap(),
            "2026-01-15T13:00:00Z"
        );
        assert_eq!(
            next("+15125550123", Some("America/Chicago"), "2026-01-18T16:00:00Z").unwrap(),
            "2026-01-18T18:00:00Z"
        );
    }

    #[test]
    fn an_unknown_zone_is_every_zone_of_the_country() {
        // 08:00 in Hawaii is 13:00 in New York; 21:00 in New York is 16:00 in Hawaii.
        assert_eq!(next("+12125550123", None, "2026-01-14T14:00:00Z").unwrap(), "2026-01-14T18:00:00Z");
        assert_eq!(next("+12125550123", None, "2026-01-15T02:00:00Z").unwrap(), "2026-01-15T18:00:00Z");
    }

    #[test]
    fn france_rests_on_sundays_and_holidays() {
        assert_eq!(next("+33612345678", None, "2026-07-12T10:00:00Z").unwrap(), "2026-07-13T06:00:00Z");
        assert_eq!(next("+33612345678", None, "2026-07-14T10:00:00Z").unwrap(), "2026-07-15T06:00:00Z");
        assert_eq!(next("+33612345678", None, "2026-04-06T10:00:00Z").unwrap(), "2026-04-07T06:00:00Z");
        assert_eq!(
            [2024, 2025, 2026].map(|y| easter(y).unwrap().to_string()),
            ["2024-03-31", "2025-04-20", "2026-04-05"]
        );
    }

    #[test]
    fn who_lives_nowhere_known_is_never_texted() {
        assert!(QuietHours::of(Whereabouts::default()).next_open(at("2026-01-14T12:00:00Z")).is_none());
    }

    #[test]
    fn a_country_without_a_row_has_the_narrowest_hours() {
        assert_eq!(
            next("+34612345678", Some("Europe/Madrid"), "2026-01-14T07:30:00Z").unwrap(),
            "2026-01-14T08:00:00Z"
        );
        assert_eq!(
            next("+34612345678", Some("Europe/Madrid"), "2026-01-14T17:00:00Z").unwrap(),
            "2026-01-15T08:00:00Z"
        );
    }
}
