//! What marketing sees: segments with their members, triggers with what became of their messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Activator,
    error::ActivateError,
    message::{Columns, Medium, Purpose, State},
    rules,
};
use crate::{
    base::{Micros, PersonId},
    pipeline::{On, Trigger},
};

/// One line of `segments list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentSummary {
    pub name: String,
    pub file: String,
    pub members: usize,
    /// `None` before the first look.
    pub looked_at: Option<Micros>,
    pub next_look: Option<Micros>,
    pub triggers: Vec<String>,
}

/// One line of `segments show` and of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberRow {
    pub person_id: PersonId,
    pub occurrence: String,
    pub entered_at: Micros,
    pub livemode: bool,
    pub columns: Columns,
}

/// One line of `triggers list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriggerSummary {
    pub name: String,
    pub file: String,
    pub segment: String,
    /// `enter`, `exit` or `every 30 days`.
    pub on: String,
    pub medium: Medium,
    /// Who carries its messages to real people: `outbox` records them only.
    pub provider: String,
    pub template: String,
    pub purpose: Purpose,
    /// `1 in 7 days`
    pub cap: Option<String>,
    /// How many messages are in each state.
    pub messages: BTreeMap<State, usize>,
    /// Why messages were skipped or failed, and how many.
    pub reasons: BTreeMap<String, usize>,
}

impl Activator {
    pub fn segments(&self) -> Result<Vec<SegmentSummary>, ActivateError> {
        let summary = |segment: &crate::pipeline::Segment| {
            let look = self.members.look(&segment.name)?;
            let triggers = self.project.triggers().filter(|t| t.segment == segment.name);
            Ok(SegmentSummary {
                name: segment.name.clone(),
                file: segment.sql.file.clone(),
                members: look.map_or(0, |l| l.members),
                looked_at: look.map(|l| l.as_of),
                next_look: look.and_then(|l| l.next),
                triggers: triggers.map(|t| t.name.clone()).collect(),
            })
        };
        self.project.segments().map(summary).collect()
    }

    /// The members of a segment as of its last look, in the order in which they entered.
    pub fn members(&self, segment: &str) -> Result<Vec<MemberRow>, ActivateError> {
        let segment = self.segment(segment)?;
        let mut members = self.members.of(&segment.name)?;
        members.sort_by(|a, b| (a.entered_at, &a.key).cmp(&(b.entered_at, &b.key)));
        let row = |m: super::members::Member| MemberRow {
            person_id: m.key.person_id,
            occurrence: m.key.occurrence,
            entered_at: m.entered_at,
            livemode: m.key.livemode,
            columns: m.columns,
        };
        Ok(members.into_iter().map(row).collect())
    }

    pub fn triggers(&self) -> Result<Vec<TriggerSummary>, ActivateError> {
        let mut all: Vec<TriggerSummary> = self.project.triggers().map(|t| self.summary(t)).collect();
        for message in self.outbox.all() {
            let message = message?;
            if let Some(summary) = all.iter_mut().find(|s| s.name == message.trigger) {
                *summary.messages.entry(message.state).or_default() += 1;
                if let (State::Skipped | State::Failed, Some(reason)) = (message.state, message.reason) {
                    *summary.reasons.entry(reason).or_default() += 1;
                }
            }
        }
        Ok(all)
    }

    fn summary(&self, trigger: &Trigger) -> TriggerSummary {
        let medium = Medium::from(trigger.channel);
        let span = |d: std::time::Duration| rules::span(i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
        TriggerSummary {
            name: trigger.name.clone(),
            file: trigger.file.clone(),
            segment: trigger.segment.clone(),
            on: match trigger.on {
                On::Enter => "enter".to_owned(),
                On::Exit => "exit".to_owned(),
                On::Every(every) => format!("every {}", span(every)),
            },
            medium,
            provider: self.channel_of(medium, true).name().to_owned(),
            template: trigger.template.clone(),
            purpose: Purpose::from(trigger.purpose),
            cap: trigger.cap.as_ref().map(|c| format!("{} in {}", c.messages, span(c.per))),
            messages: BTreeMap::new(),
            reasons: BTreeMap::new(),
        }
    }
}
