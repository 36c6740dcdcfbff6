//! Phone numbers: E.164 or not a number, and what a number's plan tells of it. By libphonenumber's data.

use std::fmt;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region};
use serde::{Deserialize, Serialize};

/// A valid number, as `+14155550123`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct E164(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPhone {
    #[error("it is empty")]
    Empty,
    #[error("it has no country code and no region was given: write +44 … or name the region")]
    NoRegion,
    #[error("the region is no country's two-letter code, as GB")]
    UnknownRegion,
    #[error("it is not a phone number")]
    NotANumber,
    #[error("no such number exists in its country's numbering plan")]
    Invalid,
}

impl BadPhone {
    /// In one word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            BadPhone::Empty => "empty",
            BadPhone::NoRegion => "no_region",
            BadPhone::UnknownRegion => "unknown_region",
            BadPhone::NotANumber => "not_a_number",
            BadPhone::Invalid => "invalid",
        }
    }
}

impl E164 {
    /// Parses what a person typed. `region` (two letters, as `GB`) says how to read a national number.
    pub fn parse(text: &str, region: Option<&str>) -> Result<E164, BadPhone> {
        parse(text, region).map(|n| E164(n.format_as(PhoneNumberFormat::E164).into_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its digits without the country's code.
    pub fn national(&self) -> String {
        parse(&self.0, None).map_or_else(|_| self.0.clone(), |number| number.get_national_significant_number())
    }

    /// The country of the number, two letters. `None` of a number of no country, as +800 …
    pub fn region(&self) -> Option<String> {
        region(&parse(&self.0, None).ok()?)
    }

    /// `mobile`, `fixed_line`, … as [`Plan::kind`].
    pub fn kind(&self) -> &'static str {
        parse(&self.0, None).map_or("other", |number| kind_name(number.get_type()))
    }

    /// What the numbering plans tell of it.
    pub fn plan(&self) -> Plan {
        let number = parse(&self.0, None).ok();
        // Its leading digits decide, and it takes no more than E.164 has.
        let prefix = namba::parse(self.0.get(..=15).unwrap_or(&self.0)).ok();
        let zones = prefix.as_ref().and_then(namba::TimeZones::for_number);
        Plan {
            region: number.as_ref().and_then(region),
            kind: number.as_ref().map_or("other", |n| kind_name(n.get_type())),
            carrier: prefix.as_ref().and_then(namba::CarrierName::for_number).map(|c| c.as_str().to_owned()),
            time_zones: zones.iter().flat_map(|z| z.iter()).map(str::to_owned).collect(),
        }
    }
}

/// What a number's leading digits tell: never who has it, nor that anybody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Two letters.
    pub region: Option<String>,
    /// `mobile`, `fixed_line`, `fixed_line_or_mobile` or another of libphonenumber's types.
    pub kind: &'static str,
    /// To whom the range was given first; the number may have been taken along to another since.
    pub carrier: Option<String>,
    /// IANA names, all that the number's range lies in.
    pub time_zones: Vec<String>,
}

/// How a national number is read: as one of the country that was given with it, or else of `default`.
pub fn region_or<'a>(given: Option<&'a str>, default: Option<&'a str>) -> Option<&'a str> {
    given.map(str::trim).filter(|region| !region.is_empty()).or(default)
}

/// Shows the country and the last two digits only: logs must not hold a phone number.
impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = self.0.len().saturating_sub(2);
        write!(f, "{}…{}", self.0.get(..3).unwrap_or_default(), self.0.get(tail..).unwrap_or_default())
    }
}

fn parse(text: &str, region: Option<&str>) -> Result<PhoneNumber, BadPhone> {
    let text = text.trim();
    if text.is_empty() {
        return Err(BadPhone::Empty);
    }
    let given = region.map(str::trim).filter(|r| !r.is_empty());
    let region = given.and_then(|r| r.to_uppercase().parse::<Region>().ok()).filter(|r| has_telephones(*r));
    match PHONE_NUMBER_UTIL.parse(text, region) {
        Ok(number) if number.is_valid() => Ok(number),
        Ok(_) => Err(BadPhone::Invalid),
        // Only a number with its country's code is one without a country.
        Err(_) if region.is_none() && given.is_some() => Err(BadPhone::UnknownRegion),
        Err(_) if region.is_none() && !text.contains(['+', '\u{ff0b}']) => Err(BadPhone::NoRegion),
        Err(_) => Err(BadPhone::NotANumber),
    }
}

fn has_telephones(region: Region) -> bool {
    PHONE_NUMBER_UTIL.get_country_code_for_region(region).is_some()
}

fn region(number: &PhoneNumber) -> Option<String> {
    let region = number.get_region_code()?.as_region_str();
    region.bytes().all(|b| b.is_ascii_uppercase()).then(|| region.to_string())
}

fn kind_name(kind: PhoneNumberType) -> &'static str {
    match kind {
        PhoneNumberType::FixedLine => "fixed_line",
        PhoneNumberType::Mobile => "mobile",
        PhoneNumberType::FixedLineOrMobile => "fixed_line_or_mobile",
        PhoneNumberType::TollFree => "toll_free",
        PhoneNumberType::PremiumRate => "premium_rate",
        PhoneNumberType::SharedCost => "shared_cost",
        PhoneNumberType::PersonalNumber => "personal_number",
        PhoneNumberType::VoIP => "voip",
        PhoneNumberType::Pager => "pager",
        PhoneNumberType::UAN => "uan",
        PhoneNumberType::VoiceMail => "voicemail",
        PhoneNumberType::Unknown => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn national_numbers_need_a_region() {
        assert_eq!(E164::parse("020 7946 0958", Some("gb")).unwrap().as_str(), "+442079460958");
        assert_eq!(E164::parse("020 7946 0958", None), Err(BadPhone::NoRegion));
        assert_eq!(E164::parse("+33 6 12 34 56 78", None).unwrap().region().as_deref(), Some("FR"));
    }

    #[test]
    fn a_number_tells_of_its_plan() {
        let plan = E164::parse("+33 6 12 34 56 78", None).unwrap().plan();
        assert_eq!((plan.region.as_deref(), plan.kind), (Some("FR"), "mobile"));
        assert_eq!((plan.carrier.as_deref(), plan.time_zones), (Some("SFR"), vec!["Europe/Paris".to_owned()]));
        let longer = E164::parse("+49 800 12345678909", None).unwrap().plan();
        assert_eq!((longer.kind, longer.time_zones.len()), ("toll_free", 1));
        // Fixed lines of Italy keep their zero; +800 is of no country.
        assert_eq!(E164::parse("02 1234 5678", Some("IT")).unwrap().plan().kind, "fixed_line");
        let nowhere = E164::parse("+800 1234 5678", None).unwrap().plan();
        assert_eq!((nowhere.region, nowhere.kind), (None, "toll_free"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,40}", digits in "[+]?[0-9 ()./;=ext-]{0,30}", region in "[A-Z]{2}") {
            for region in [None, Some(region.as_str())] {
                for text in [&text, &digits] {
                    if let Ok(number) = E164::parse(text, region) {
                        proptest::prop_assert_eq!(E164::parse(number.as_str(), None), Ok(number));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_says_why() {
        assert_eq!(E164::parse("  ", None), Err(BadPhone::Empty));
        assert_eq!(E164::parse("+1 555", None), Err(BadPhone::Invalid));
        assert_eq!(E164::parse("call me", Some("US")), Err(BadPhone::NotANumber));
        for odd in ["Atlantis", "ZZ", "UK"] {
            assert_eq!(E164::parse("020 7946 0958", Some(odd)), Err(BadPhone::UnknownRegion));
            assert_eq!(E164::parse("+44 20 7946 0958", Some(odd)).unwrap().as_str(), "+442079460958");
        }
        assert_eq!(E164::parse("tel:+44-20-7946-0958", None).unwrap().as_str(), "+442079460958");
        assert_eq!(E164::parse("\u{202a}+44 20 7946 0958\u{202c}", None).unwrap().as_str(), "+442079460958");
    }

    #[test]
    fn a_number_in_a_log_is_not_readable() {
        assert_eq!(E164::parse("+14155550123", None).unwrap().to_string(), "+14…23");
    }
}
