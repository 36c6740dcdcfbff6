//! `triggers preview`: who would get what now, and who not and why. It changes nothing.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    Activator,
    error::ActivateError,
    evaluate::Call,
    key::day_bucket,
    knowledge::Knowledge,
    mask,
    members::{Member, MemberKey, Row},
    message::{Medium, Message, State, Text},
    rules::{CONSENT_MAX_AGE, Stage, Verdict},
    sms,
};
use crate::{
    base::{Micros, PersonId},
    engine::Session,
    pipeline::{On, Trigger},
};

/// What a trigger would do for one row of its segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    pub person_id: PersonId,
    pub occurrence: String,
    pub medium: Medium,
    pub provider: String,
    /// Masked.
    pub destination: Option<String>,
    pub livemode: bool,
    pub fate: Fate,
    /// What it would say; `None` where that cannot be written.
    pub text: Option<Text>,
    /// Of a text message.
    pub length: Option<sms::Length>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It would go at once.
    Goes,
    /// It would go then.
    Waits { until: Micros, why: String },
    /// It would not go.
    Refused { why: String },
    /// The row makes a member only then.
    NotYet { due_at: Micros },
    /// It was written before.
    Already { state: State, at: Micros, reason: Option<String> },
}

impl Activator {
    /// For every person whom the trigger's segment holds now.
    pub async fn preview(&self, trigger: &str, session: &Session, now: Micros) -> Result<Vec<Preview>, ActivateError> {
        let trigger = self.trigger(trigger)?;
        let segment = self.segment(&trigger.segment)?;
        let rows = self.segment_rows(session, segment, None, now).await?;
        let people: BTreeSet<String> = rows.iter().map(|r| r.key.person_id.0.clone()).collect();
        let known = Knowledge::of(session, &people, []).await?;
        let stored = self.members.of(&segment.name)?;
        let entered: HashMap<&MemberKey, Micros> = stored.iter().map(|m| (&m.key, m.entered_at)).collect();
        let entry = |row: &Row| entered.get(&row.key).copied().unwrap_or(now);
        rows.iter().map(|row| self.preview_row(trigger, row, entry(row), &known, now)).collect()
    }

    fn preview_row(
        &self,
        trigger: &Trigger,
        row: &Row,
        entered_at: Micros,
        known: &Knowledge,
        now: Micros,
    ) -> Result<Preview, ActivateError> {
        let member = Member { key: row.key.clone(), entered_at, columns: row.columns.clone() };
        let own = row.key.occurrence.as_str();
        let base = if own.is_empty() { day_bucket(entered_at, self.zone) } else { own.to_owned() };
        let occurrence = match trigger.on {
            On::Every(every) => {
                let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
                format!("{base}#{}", super::key::repetition(entered_at, every, now))
            }
            On::Enter | On::Exit => base,
        };
        let draft = self.draft(&Call { trigger, member: &member, occurrence }, known, now);
        // What is known by now is shown; no yes is waited for.
        let message = Message { queued_at: now.plus(-2 * CONSENT_MAX_AGE), ..draft };
        let cap = trigger.cap.as_ref().map(Into::into);
        let assessed = self.assess(known, &message, &message.person_id, cap, (Stage::Queueing, &[]), now)?;
        let marketing = message.purpose == super::Purpose::Marketing;
        let written =
            self.templates.write(&trigger.template, message.medium, marketing, &message.columns, &self.merchant);
        let fate = match (self.outbox.get(&message.key)?, row.due_at, assessed.verdict, &written) {
            (Some(Message { state, reason, queued_at, settled_at, sent_at, .. }), ..) => {
                Fate::Already { state, at: settled_at.or(sent_at).unwrap_or(queued_at), reason }
            }
            (_, Some(due_at), ..) if due_at > now => Fate::NotYet { due_at },
            (_, _, Verdict::Refused(refusal), _) => Fate::Refused { why: refusal.to_string() },
            (.., Err(error)) => Fate::Refused { why: error.to_string() },
            (_, _, Verdict::Wait { until, why }, _) => Fate::Waits { until, why },
            (_, _, Verdict::Go, _) => Fate::Goes,
        };
        let text = written.ok();
        Ok(Preview {
            occurrence: message.occurrence,
            medium: message.medium,
            provider: self.channel_of(message.medium, message.livemode).name().to_owned(),
            destination: assessed.address.map(|a| mask(message.medium, &a)),
            livemode: message.livemode,
            fate,
            length: text.as_ref().filter(|_| message.medium == Medium::Sms).map(|t| sms::measure(&t.body)),
            text,
            person_id: message.person_id,
        })
    }
}
