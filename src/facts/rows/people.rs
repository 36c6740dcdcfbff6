//! Rows on who people are, and on the messages we sent them.

use super::row;
use crate::base::{Micros, PersonId};

row! {
    /// One row an identifier. `person_id` is the identifier's own seed: `PersonMerge` says whom it means.
    Identity {
        /// `kind:value_hash`.
        identity_id: String,
        kind: String,
        value_hash: String,
        person_id: PersonId,
        email_hash: Option<String>,
        phone_e164_hash: Option<String>,
        /// What its number's plan tells of the phone: `mobile`, `fixed_line`, …
        phone_type: Option<String>,
        /// Two letters.
        phone_region: Option<String>,
        /// To whom the number's range was given first.
        phone_carrier: Option<String>,
        /// A JSON list of IANA names: where numbers of its range are.
        phone_time_zones: Option<String>,
        /// When that phone was told last.
        phone_told_at: Option<Micros>,
        /// Why the phone that was told last is none; null where a valid one was told since.
        phone_problem: Option<String>,
        phone_problem_at: Option<Micros>,
        country: Option<String>,
        locale: Option<String>,
        timezone: Option<String>,
        /// That they paid in last.
        currency: Option<String>,
        first_seen_at: Micros,
        last_seen_at: Micros,
        /// When its person asked to be forgotten: nothing is told of them here then.
        erased_at: Option<Micros>,
    }
}

row! {
    /// One row a person id that is no more the name of its person.
    PersonMerge {
        old: PersonId,
        new: PersonId,
        /// When the two became known to be one.
        merged_at: Micros,
    }
}

row! {
    /// One row a profile at Klaviyo, as of its last change. What was agreed to before stands in `Consent`.
    Profile {
        profile_id: String,
        created_at: Option<Micros>,
        updated_at: Micros,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        phone_hash: Option<String>,
        country: Option<String>,
        locale: Option<String>,
        timezone: Option<String>,
        /// To marketing by e-mail and by text message: `subscribed`, `unsubscribed`, `never_subscribed`, or `suppressed`,
        /// where Klaviyo may not write to somebody who agreed.
        email_consent: Option<String>,
        sms_consent: Option<String>,
        last_event_at: Option<Micros>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a message of ours.
    Message {
        message_key: String,
        person_id: Option<PersonId>,
        trigger: Option<String>,
        channel: Option<String>,
        /// `queued`, `claimed`, `unknown`, `sent`, `delivered`, `failed` or `skipped`.
        state: String,
        provider: Option<String>,
        provider_id: Option<String>,
        template: Option<String>,
        destination_hash: Option<String>,
        queued_at: Option<Micros>,
        claimed_at: Option<Micros>,
        sent_at: Option<Micros>,
        settled_at: Option<Micros>,
        reason: Option<String>,
    }
}
