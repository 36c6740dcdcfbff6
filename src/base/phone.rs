//! Phone numbers: E.164 or not a number. By libphonenumber's data.

use std::{
    fmt,
    sync::{LazyLock, PoisonError},
};

use phonenumber::country;
use serde::{Deserialize, Serialize};

/// The library keeps 100 compiled patterns, and one country has a dozen. Where customers come from twenty countries it
/// would compile again for every number; this many are some tens of megabytes, if all are ever in use.
static PATTERNS: LazyLock<()> = LazyLock::new(|| {
    phonenumber::metadata::DATABASE.cache().lock().unwrap_or_else(PoisonError::into_inner).set_capacity(500);
});

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
    #[error("the region is not a two-letter country code")]
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
        parse(text, region).map(|n| E164(n.format().mode(phonenumber::Mode::E164).to_string()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The country of the number, two letters.
    pub fn region(&self) -> Option<String> {
        parse(&self.0, None).ok()?.country().id().map(|c| c.as_ref().to_owned())
    }

    /// `mobile`, `fixed_line`, `fixed_line_or_mobile` or another of libphonenumber's types.
    pub fn kind(&self) -> Option<&'static str> {
        let number = parse(&self.0, None).ok()?;
        Some(kind_name(number.number_type(&phonenumber::metadata::DATABASE)))
    }
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

fn parse(text: &str, region: Option<&str>) -> Result<phonenumber::PhoneNumber, BadPhone> {
    let text = text.trim();
    if text.is_empty() {
        return Err(BadPhone::Empty);
    }
    let region: Option<country::Id> = match region.map(str::trim).filter(|r| !r.is_empty()) {
        Some(r) => Some(r.to_uppercase().parse().map_err(|_| BadPhone::UnknownRegion)?),
        None => None,
    };
    if region.is_none() && !text.starts_with('+') {
        return Err(BadPhone::NoRegion);
    }
    LazyLock::force(&PATTERNS);
    let number = phonenumber::parse(region, text).map_err(|_| BadPhone::NotANumber)?;
    if phonenumber::is_valid(&number) { Ok(number) } else { Err(BadPhone::Invalid) }
}

fn kind_name(kind: phonenumber::Type) -> &'static str {
    use phonenumber::Type;
    match kind {
        Type::FixedLine => "fixed_line",
        Type::Mobile => "mobile",
        Type::FixedLineOrMobile => "fixed_line_or_mobile",
        Type::TollFree => "toll_free",
        Type::PremiumRate => "premium_rate",
        Type::SharedCost => "shared_cost",
        Type::PersonalNumber => "personal_number",
        Type::Voip => "voip",
        Type::Pager => "pager",
        Type::Uan => "uan",
        Type::Voicemail => "voicemail",
        _ => "other",
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
        assert_eq!(E164::parse("+33 6 12 34 56 78", None).unwrap().kind(), Some("mobile"));
    }

    #[test]
    fn what_is_no_number_says_why() {
        assert_eq!(E164::parse("  ", None), Err(BadPhone::Empty));
        assert_eq!(E164::parse("+1 555", None), Err(BadPhone::Invalid));
        assert_eq!(E164::parse("call me", Some("US")), Err(BadPhone::NotANumber));
        assert_eq!(E164::parse("5", Some("Atlantis")), Err(BadPhone::UnknownRegion));
    }

    #[test]
    fn a_number_in_a_log_is_not_readable() {
        assert_eq!(E164::parse("+14155550123", None).unwrap().to_string(), "+14…23");
    }
}
