//! What a pipeline file says, as typed values.
//!
//! What a [`Pipeline`] holds is valid by itself: spans of time are durations, the SQL is at hand, words are enums. Only
//! `read` makes one, from TOML; what only the whole project can say (that a segment exists, that no two models share a
//! name) is checked in `project`. Template names are collected here and proven by whoever renders them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{sql::Sql, when::When};

/// One file of `pipelines/`.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub name: String,
    pub description: String,
    pub file: String,
    pub line: usize,
    pub when: When,
    pub models: Vec<Model>,
    pub checks: Vec<Check>,
    pub segments: Vec<Segment>,
    pub triggers: Vec<Trigger>,
}

/// A query whose answer is a table or a view of the schema `marts`.
#[derive(Debug, Clone)]
pub struct Model {
    /// `marts.rfm_scores`
    pub name: String,
    pub line: usize,
    pub sql: Sql,
    pub materialize: Materialize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Materialize {
    /// Written whole at each run.
    Table,
    /// Not stored.
    View,
    /// Written for the days that new rows touched, and this many before them. The query has a column `day`.
    ByDay { lookback_days: u32 },
}

/// A query whose rows are failures.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: String,
    pub line: usize,
    pub sql: Sql,
    pub severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Stops what depends on it.
    Error,
    /// Is recorded.
    Warn,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warn => "warn",
        }
    }
}

/// A query whose rows are people: `person_id`, `occurrence`, and columns for templates.
#[derive(Debug, Clone)]
pub struct Segment {
    /// `lapsed_champions`; as a view it is `segments.lapsed_champions`.
    pub name: String,
    pub line: usize,
    pub sql: Sql,
}

impl Segment {
    /// The name of its view.
    pub fn table(&self) -> String {
        format!("segments.{}", self.name)
    }
}

/// Who is written to when somebody enters or leaves a segment.
#[derive(Debug, Clone)]
pub struct Trigger {
    pub name: String,
    pub file: String,
    pub line: usize,
    pub segment: String,
    pub on: On,
    pub channel: Channel,
    pub template: String,
    pub purpose: Purpose,
    pub cap: Option<Cap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Enter,
    Exit,
    /// Again after this long, as long as the person is a member.
    Every(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Sms,
    Email,
}

/// Marketing wants consent; transactional does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Marketing,
    Transactional,
}

/// At most so many messages of a trigger to one person in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    pub messages: u32,
    pub per: Duration,
}
