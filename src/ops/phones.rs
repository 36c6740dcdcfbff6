//! A phone as a checkout has it, judged: whether it is one, what kind, and how many people have it already.

use serde::Serialize;

use super::{Instance, OpsError};
use crate::base::{E164, phone::region_or};

/// A number that so many people share is no person's; more are not counted.
pub const MOST_PEOPLE: usize = 100;

/// See [`Instance::judge_phone`].
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Judged {
    pub valid: bool,
    pub e164: Option<String>,
    /// Two letters.
    pub region: Option<String>,
    /// `mobile`, `fixed_line`, …: libphonenumber's types.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// To whom its range was given first; the number may have been taken along to another since.
    pub carrier: Option<String>,
    /// Where numbers of its range are: IANA names.
    pub time_zones: Option<Vec<String>>,
    /// Why it is none, in one word, and in a sentence.
    pub reason: Option<&'static str>,
    pub message: Option<String>,
    /// How many people it was last told of, as of the last commit; at most [`MOST_PEOPLE`].
    pub people: Option<usize>,
}

impl Instance {
    /// What is known of a phone as somebody typed it; a national number is one of `region`, or else of the merchant's.
    ///
    /// # Errors
    /// State that cannot be read. A phone that is none is an answer.
    pub fn judge_phone(&self, text: &str, region: Option<&str>) -> Result<Judged, OpsError> {
        let region = region_or(region, self.settings.people.default_region.as_deref());
        let phone = match E164::parse(text, region) {
            Ok(phone) => phone,
            Err(why) => {
                let (reason, message) = (Some(why.code()), Some(why.to_string()));
                return Ok(Judged { reason, message, ..Judged::default() });
            }
        };
        let plan = phone.plan();
        let people = self.phone_book.people(true, &self.names.phone(&phone), MOST_PEOPLE)?;
        Ok(Judged {
            valid: true,
            e164: Some(phone.as_str().to_owned()),
            region: plan.region,
            kind: Some(plan.kind),
            carrier: plan.carrier,
            time_zones: Some(plan.time_zones),
            people: Some(people),
            ..Judged::default()
        })
    }
}
