//! May this message go to this person now? Consent, suppression, cap, quiet hours, as pure functions.
//!
//! The same rules are asked when a message is queued and again when it is sent. They fail closed: what is not known
//! forbids. A refusal is a sentence for a marketer, without a number or an address in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::{Medium, Message, Purpose, State};
use crate::base::{
    Micros,
    time::{DAY, HOUR, MINUTE},
};

/// Consent that came from another system is believed for this long after we last looked there.
pub const CONSENT_MAX_AGE: i64 = 15 * MINUTE;
/// Klaviyo is asked every minute: a look begun after a message was queued is over by then.
const NEXT_LOOK: i64 = 2 * MINUTE;

/// The newest word of a person on marketing by one medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// `subscribed` is consent; any other word is none.
    pub state: String,
    pub source: String,
    pub at: Micros,
    /// When the source told us.
    pub seen_at: Micros,
}

/// At most `messages` in any `per` microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    pub messages: u32,
    pub per: i64,
}

/// What is known of one recipient at one moment.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The vault knows the address behind the hash.
    pub reachable: bool,
    /// What kind of number it is, where texts do not arrive at such: `base::phone::Plan::kind`.
    pub textless: Option<String>,
    pub consent: Option<Consent>,
    /// When the system that consent came from was last asked, if it is another system and must be asked.
    pub consent_seen: Option<Micros>,
    /// Since when the message waits, if it does.
    pub queued_at: Option<Micros>,
    /// The reason and time of a suppression.
    pub suppressed: Option<(String, Micros)>,
    /// How many messages count against the cap.
    pub recent: u32,
    /// The first open moment of the quiet hours; `None`: none is known.
    pub open_from: Option<Micros>,
    pub quiet_by: String,
}

/// What is to be sent, as far as the rules care.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub medium: Medium,
    pub purpose: Purpose,
    pub cap: Option<Cap>,
    /// It leaves through a provider, rather than being recorded only.
    pub leaves: bool,
    /// `None` where old consent is taken.
    pub consent_max_age: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// Allowed, but not before.
    Wait {
        until: Micros,
        why: String,
    },
    Refused(Refusal),
}

/// Why a message is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Unreachable(Medium),
    Suppressed { medium: Medium, reason: String, at: Micros },
    NeverAgreed(Medium),
    Withdrew { medium: Medium, state: String, at: Micros },
    Capped { medium: Medium, had: u32, cap: u32, per: i64 },
    NoOpenHour,
    LeftSegment { segment: String },
    BackInSegment { segment: String },
    Ended { trigger: String },
    TakesNoTexts { kind: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreachable(Medium::Sms) => f.write_str("no phone number is known"),
            Refusal::Unreachable(Medium::Email) => f.write_str("no e-mail address is known"),
            Refusal::Suppressed { medium, reason, at } => {
                write!(f, "suppressed for {} since {}: {reason}", medium.spoken(), day(*at))
            }
            Refusal::NeverAgreed(medium) => write!(f, "never agreed to marketing by {}", medium.spoken()),
            Refusal::Withdrew { medium, state, at } => {
                write!(f, "no consent to marketing by {}: {state} since {}", medium.spoken(), day(*at))
            }
            Refusal::Capped { medium, had, cap, per } => {
                write!(f, "had {had} by {} in the last {}, and the cap is {cap}", medium.spoken(), span(*per))
            }
            Refusal::NoOpenHour => f.write_str("no hour is known at which it may arrive: the country is unknown"),
            Refusal::LeftSegment { segment } => write!(f, "no longer in segment {segment}"),
            Refusal::BackInSegment { segment } => write!(f, "in segment {segment} again"),
            Refusal::TakesNoTexts { kind } => {
                write!(f, "the phone takes no texts: it is of the kind {}", kind.replace('_', " "))
            }
            Refusal::Ended { trigger } => write!(f, "trigger {trigger} is no longer defined"),
        }
    }
}

/// The rules, strictest first: the reason given is the one that would remain if the others were mended.
pub fn judge(plan: &Plan, standing: &Standing, now: Micros) -> Verdict {
    let medium = plan.medium;
    if !standing.reachable {
        return Verdict::Refused(Refusal::Unreachable(medium));
    }
    if let Some(kind) = &standing.textless {
        return Verdict::Refused(Refusal::TakesNoTexts { kind: kind.clone() });
    }
    if let Some((reason, at)) = &standing.suppressed {
        return Verdict::Refused(Refusal::Suppressed { medium, reason: reason.clone(), at: *at });
    }
    let marketing = plan.purpose == Purpose::Marketing;
    if marketing && let Some(refusal) = consent(medium, standing.consent.as_ref()) {
        return unasked(plan, standing, &refusal, now).unwrap_or(Verdict::Refused(refusal));
    }
    if let Some(cap) = plan.cap
        && standing.recent >= cap.messages
    {
        return Verdict::Refused(Refusal::Capped { medium, had: standing.recent, cap: cap.messages, per: cap.per });
    }
    if marketing
        && plan.leaves
        && let Some(wait) = stale(plan, standing, now)
    {
        return wait;
    }
    if marketing && medium == Medium::Sms { quiet(standing, now) } else { Verdict::Go }
}

fn consent(medium: Medium, consent: Option<&Consent>) -> Option<Refusal> {
    match consent {
        Some(c) if c.state == "subscribed" => None,
        Some(c) if c.state != "never_subscribed" => {
            Some(Refusal::Withdrew { medium, state: c.state.clone(), at: c.at })
        }
        _ => Some(Refusal::NeverAgreed(medium)),
    }
}

/// A yes that was given in Klaviyo just now is known at the next look there, and not before: a no for want of it is not
/// final until then, or until nobody has looked for too long.
fn unasked(plan: &Plan, standing: &Standing, refusal: &Refusal, now: Micros) -> Option<Verdict> {
    let (max_age, seen, queued_at) = (plan.consent_max_age?, standing.consent_seen?, standing.queued_at?);
    let waits = matches!(refusal, Refusal::NeverAgreed(_)) && plan.leaves;
    (waits && seen < queued_at && now.0.saturating_sub(queued_at.0) <= max_age).then(|| Verdict::Wait {
        until: now.plus(NEXT_LOOK),
        why: format!("{refusal}, as far as is known before the next look at Klaviyo"),
    })
}

/// Klaviyo's own unsubscribes reach us only when we look; until then a yes of an hour ago may be a no.
fn stale(plan: &Plan, standing: &Standing, now: Micros) -> Option<Verdict> {
    let (max_age, consent) = (plan.consent_max_age?, standing.consent.as_ref()?);
    if consent.source != "klaviyo" {
        return None;
    }
    let seen = standing.consent_seen.unwrap_or_default().max(consent.seen_at);
    (now.0.saturating_sub(seen.0) > max_age).then(|| Verdict::Wait {
        until: now.plus(MINUTE),
        why: format!("consent in Klaviyo was last looked at {}; it must be looked at again", ago(seen, now)),
    })
}

fn quiet(standing: &Standing, now: Micros) -> Verdict {
    match standing.open_from {
        None => Verdict::Refused(Refusal::NoOpenHour),
        Some(open) if open > now => Verdict::Wait { until: open, why: format!("quiet hours ({})", standing.quiet_by) },
        Some(_) => Verdict::Go,
    }
}

/// Does `other` count against the cap of a message that is about to be queued or sent?
///
/// Marketing counts all marketing on the same medium, whichever trigger sent it: people do not know of triggers. What
/// is transactional counts its own trigger's messages. `Stage::Queueing` counts what waits to go as well.
pub fn counts(other: &Message, message: &Message, leaves: bool, cap: Cap, stage: Stage, now: Micros) -> bool {
    let live = other.state.may_have_arrived() || (stage == Stage::Queueing && other.state == State::Queued);
    let same = match message.purpose {
        Purpose::Marketing => other.purpose == Purpose::Marketing,
        Purpose::Transactional => other.trigger == message.trigger,
    };
    // A rehearsal in the outbox must not use up the room of a message that leaves.
    let real = !leaves || other.provider.as_deref() != Some(super::channel::outbox::NAME);
    let recent = now.0.saturating_sub(other.went_at().0) < cap.per;
    other.key != message.key
        && other.medium == message.medium
        && other.livemode == message.livemode
        && live
        && same
        && real
        && recent
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Queueing,
    Sending,
}

fn day(at: Micros) -> String {
    at.date().map_or_else(|| at.to_string(), |d| d.to_string())
}

/// `7 days`, `36 hours`, `90 minutes`.
pub fn span(micros: i64) -> String {
    let (count, unit) = match micros {
        m if m >= DAY && m % DAY == 0 => (m / DAY, "day"),
        m if m >= HOUR && m % HOUR == 0 => (m / HOUR, "hour"),
        m => (m / MINUTE, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn ago(then: Micros, now: Micros) -> String {
    if then == Micros::default() {
        return "never".to_owned();
    }
    let age = now.0.saturating_sub(then.0).max(0);
    let unit = if age >= DAY {
        DAY
    } else if age >= HOUR {
        HOUR
    } else {
        MINUTE
    };
    format!("{} ago", span(age / unit * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn marketing() -> Plan {
        Plan {
            medium: Medium::Sms,
            purpose: Purpose::Marketing,
            cap: None,
            leaves: true,
            consent_max_age: Some(CONSENT_MAX_AGE),
        }
    }

    fn agreed(state: &str, source: &str, age: i64) -> Option<Consent> {
        let at = NOW.plus(-age);
        Some(Consent { state: state.into(), source: source.into(), at, seen_at: at })
    }

    fn good() -> Standing {
        Standing {
            reachable: true,
            consent: agreed("subscribed", "storefront", 90 * DAY),
            open_from: Some(NOW),
            ..Standing::default()
        }
    }

    fn reason(plan: &Plan, standing: &Standing) -> String {
        match judge(plan, standing, NOW) {
            Verdict::Go => "go".to_owned(),
            Verdict::Wait { why, .. } => why,
            Verdict::Refused(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn what_is_not_known_forbids() {
        assert_eq!(reason(&marketing(), &Standing::default()), "no phone number is known");
        let known = Standing { reachable: true, ..Standing::default() };
        assert_eq!(reason(&marketing(), &known), "never agreed to marketing by SMS");
        let landline = Standing { textless: Some("fixed_line".to_owned()), ..good() };
        assert_eq!(reason(&marketing(), &landline), "the phone takes no texts: it is of the kind fixed line");
        let agreed = Standing { open_from: None, ..good() };
        assert!(reason(&marketing(), &agreed).starts_with("no hour is known"));
        assert_eq!(reason(&marketing(), &good()), "go");
    }

    #[test]
    fn transactional_messages_want_no_consent_but_heed_stop() {
        let plan = Plan { purpose: Purpose::Transactional, ..marketing() };
        let standing = Standing { consent: None, open_from: None, ..good() };
        assert_eq!(reason(&plan, &standing), "go");
        let stopped = Standing { suppressed: Some(("STOP".into(), NOW)), ..standing };
        assert_eq!(reason(&plan, &stopped), "suppressed for SMS since 2027-01-15: STOP");
    }

    #[test]
    fn a_withdrawal_is_told_with_its_day() {
        let standing = Standing { consent: agreed("unsubscribed", "klaviyo", 2 * DAY), ..good() };
        assert_eq!(reason(&marketing(), &standing), "no consent to marketing by SMS: unsubscribed since 2027-01-13");
    }

    #[test]
    fn a_yes_from_klaviyo_goes_stale_until_somebody_looks() {
        let old = Standing { consent: agreed("subscribed", "klaviyo", 3 * HOUR), ..good() };
        assert!(reason(&marketing(), &old).starts_with("consent in Klaviyo was last looked at 3 hours ago"));
        let seen = Standing { consent_seen: Some(NOW.plus(-10 * MINUTE)), ..old.clone() };
        assert_eq!(reason(&marketing(), &seen), "go");
        assert_eq!(reason(&Plan { leaves: false, ..marketing() }, &old), "go");
    }

    #[test]
    fn a_yes_that_may_be_on_its_way_from_klaviyo_is_waited_for_until_somebody_looked() {
        let queued = |minutes: i64, seen: i64| Standing {
            consent: None,
            queued_at: Some(NOW.plus(-minutes * MINUTE)),
            consent_seen: Some(NOW.plus(-seen * MINUTE)),
            ..good()
        };
        let waits = |plan: &Plan, standing: &Standing| matches!(judge(plan, standing, NOW), Verdict::Wait { .. });
        assert!(waits(&marketing(), &queued(0, 1)) && waits(&marketing(), &queued(3, 4)));
        assert!(waits(&marketing(), &Standing { consent: agreed("never_subscribed", "klaviyo", DAY), ..queued(0, 1) }));
        let never = "never agreed to marketing by SMS";
        assert_eq!(reason(&marketing(), &queued(3, 2)), never, "looked at since");
        assert_eq!(reason(&marketing(), &queued(16, 17)), never, "nobody looks");
        assert_eq!(reason(&marketing(), &Standing { consent_seen: None, ..queued(0, 1) }), never, "nobody ever did");
        assert_eq!(reason(&marketing(), &Standing { queued_at: None, ..queued(0, 1) }), never, "it may have gone out");
        assert_eq!(reason(&Plan { leaves: false, ..marketing() }, &queued(0, 1)), never);
        let no = Standing { consent: agreed("unsubscribed", "klaviyo", DAY), ..queued(0, 1) };
        assert!(!waits(&marketing(), &no), "a no is final");
    }

    #[test]
    fn quiet_hours_wait_and_the_cap_refuses() {
        let until = NOW.plus(HOUR);
        let standing = Standing { open_from: Some(until), quiet_by: "FR".into(), ..good() };
        assert_eq!(judge(&marketing(), &standing, NOW), Verdict::Wait { until, why: "quiet hours (FR)".into() });
        let plan = Plan { cap: Some(Cap { messages: 1, per: 7 * DAY }), ..marketing() };
        let capped = Standing { recent: 1, ..standing };
        assert_eq!(reason(&plan, &capped), "had 1 by SMS in the last 7 days, and the cap is 1");
    }
}
