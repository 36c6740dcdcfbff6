//! What a run did, for people and for programs.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::spec::Severity;

/// How one model or check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Succeeded,
    Failed,
    /// Not tried, because what it reads failed.
    Skipped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelOutcome {
    pub pipeline: String,
    pub model: String,
    pub status: Status,
    /// Of the whole table; `None` for a view, and where nothing was written.
    pub rows: Option<u64>,
    /// The first day that was computed anew, where not all were.
    pub from_day: Option<NaiveDate>,
    pub seconds: f64,
    /// What went wrong and where, or why it was skipped.
    pub error: Option<String>,
}

impl ModelOutcome {
    /// Behind the model's name: `4338 rows`.
    pub(super) fn summary(&self) -> String {
        match (self.status, &self.rows, &self.error) {
            (Status::Succeeded, Some(rows), _) => format!("{rows} rows"),
            (Status::Succeeded, None, _) => "a view".to_owned(),
            (status, _, Some(error)) => format!("{}: {error}", status.as_str()),
            (status, _, None) => status.as_str().to_owned(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckOutcome {
    pub pipeline: String,
    pub check: String,
    pub severity: Severity,
    pub status: Status,
    /// Rows that the check returned; `None` where it did not run.
    pub failures: Option<u64>,
    pub error: Option<String>,
}

impl CheckOutcome {
    /// Whether what depends on it must not be computed.
    pub(super) fn stops(&self) -> bool {
        self.status == Status::Failed && self.severity == Severity::Error
    }
}

/// One run of some pipelines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub run_id: String,
    /// RFC 3339.
    pub as_of: String,
    pub seconds: f64,
    /// In the order of computing.
    pub models: Vec<ModelOutcome>,
    pub checks: Vec<CheckOutcome>,
}

impl Report {
    /// No model failed or was skipped, and no check of severity `error` failed.
    pub fn succeeded(&self) -> bool {
        self.models.iter().all(|m| m.status == Status::Succeeded) && !self.checks.iter().any(CheckOutcome::stops)
    }
}
