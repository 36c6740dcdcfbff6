//! Faults that last, as rows: `ops.alerts`.
//!
//! What must hold: a fault is one row from when it was found to when it was gone, over restarts and kills as well. So what is
//! raised and what is cleared is noted in the store before it is recorded in the log, which knows a record that comes twice,
//! and is struck off when the log has it. A note that was lost with the store is made again from the table.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Finding, Ingested, Instance, OpsError};
use crate::{
    base::{Envelope, Micros, Source},
    facts::alerts::{CLEARED, RAISED},
    telemetry,
};

/// In the store: the alerts that stand open. Other keys beside it are names of pipelines.
const OPEN: &[u8] = b"\0alerts";

/// The payload of the record that raises it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Alert {
    alert_id: String,
    subject: String,
    found: String,
    remedy: String,
}

/// An alert that the log does not have the end of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    #[serde(flatten)]
    alert: Alert,
    raised_at: Micros,
    /// When it was gone.
    #[serde(default)]
    cleared_at: Option<Micros>,
    /// Whether the log has it for certain.
    #[serde(default = "recorded")]
    recorded: bool,
}

fn recorded() -> bool {
    true
}

impl Open {
    fn of(finding: Finding, now: Micros) -> Open {
        let Finding { subject, found, remedy, .. } = finding;
        let alert = Alert { alert_id: format!("{subject}@{}", now.0), subject, found, remedy };
        Open { alert, raised_at: now, cleared_at: None, recorded: false }
    }

    fn stands(&self) -> bool {
        self.cleared_at.is_none()
    }

    /// What the log lacks of it.
    fn records(&self) -> Result<Vec<Envelope>, serde_json::Error> {
        let record = |kind: &str, at, payload| {
            let object_id = Some(self.alert.alert_id.clone());
            let own = Envelope::own(kind, format!("{kind}:{}", self.alert.alert_id), at, payload)?;
            Ok(Envelope { object_type: Some("alert".to_owned()), object_id, ..own })
        };
        let raised = || record(RAISED, self.raised_at, serde_json::to_string(&self.alert)?);
        let gone = serde_json::json!({ "alert_id": self.alert.alert_id });
        let cleared = self.cleared_at.map(|at| record(CLEARED, at, gone.to_string()));
        (!self.recorded).then(raised).into_iter().chain(cleared).collect()
    }
}

impl Instance {
    /// Raises an alert of each fault that was not there, and clears those of faults that are gone: of what costs little to look
    /// at ([`Instance::own_findings`]).
    pub async fn look_for_faults(&self) -> Result<(), OpsError> {
        let _one_at_a_time = self.alerting.lock().await;
        let (findings, now) = (self.own_findings().await, Micros::now());
        let faults: BTreeMap<String, Finding> =
            findings.into_iter().filter(|f| !f.ok).map(|f| (f.subject.clone(), f)).collect();
        let mut open = self.open_alerts().await?;
        for gone in open.iter_mut().filter(|open| open.stands() && !faults.contains_key(&open.alert.subject)) {
            gone.cleared_at = Some(now);
        }
        let known: BTreeSet<String> =
            open.iter().filter(|open| open.stands()).map(|open| open.alert.subject.clone()).collect();
        telemetry::alerts_open(faults.len());
        for (_, fault) in faults.into_iter().filter(|(subject, _)| !known.contains(subject)) {
            tracing::error!("{}: {}; {}", fault.subject, fault.found, fault.remedy);
            open.push(Open::of(fault, now));
        }
        self.note_alerts(&open)?;
        let records = open.iter().map(Open::records).collect::<Result<Vec<_>, _>>().map_err(unwritable)?.concat();
        if !records.is_empty() {
            self.take(Source::Tillstream, records, &mut Ingested::default()).await?;
            open.retain(Open::stands);
            open.iter_mut().for_each(|open| open.recorded = true);
            self.note_alerts(&open)?;
        }
        Ok(())
    }

    async fn open_alerts(&self) -> Result<Vec<Open>, OpsError> {
        if let Some(noted) = self.runs.get(OPEN)?.and_then(|noted| serde_json::from_slice(&noted).ok()) {
            return Ok(noted);
        }
        let sql = "SELECT alert_id, subject, found, remedy, \
                   CAST(arrow_cast(raised_at, 'Timestamp(Microsecond, None)') AS BIGINT) AS raised_at \
                   FROM ops.alerts WHERE cleared_at IS NULL";
        Ok(self.session(Micros::now())?.rows(sql).await?)
    }

    fn note_alerts(&self, open: &[Open]) -> Result<(), OpsError> {
        let noted = serde_json::to_vec(open).map_err(unwritable)?;
        if self.runs.get(OPEN)?.is_none_or(|before| *before != *noted) {
            let mut batch = self.store.batch();
            batch.put(&self.runs, OPEN, noted);
            // The log is synced too, and must not know of an alert that the store forgot.
            batch.commit_durable()?;
        }
        Ok(())
    }
}

fn unwritable(error: serde_json::Error) -> OpsError {
    OpsError::Told(format!("an alert could not be recorded: {error}"))
}
