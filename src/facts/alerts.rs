//! Our own word that something is wrong here, and that it is right again.

use super::{
    DecodeError,
    decode::Event,
    json::{Text, object},
    observation::{Mark, Observation, Step},
    rows::Alert,
    table::Table,
};

/// The types of the two records.
pub const RAISED: &str = "alert.raised";
pub const CLEARED: &str = "alert.cleared";

object! {
    struct Told<'a> {
        alert_id: Text<'a>,
        subject: Text<'a>,
        found: Text<'a>,
        remedy: Text<'a>,
    }
}

pub(super) fn decode(event: &mut Event) -> Result<(), DecodeError> {
    let told: Told = event.read()?;
    let id = event.required("alert_id", told.alert_id.owned())?;
    if event.kind() == CLEARED {
        let (key, marks) = (event.key(Table::Alerts, &id), vec![(Mark::Closed, event.at())]);
        event.decoded.observations.push(Observation { key, sight: None, marks, parts: Vec::new() });
        return Ok(());
    }
    let row = Alert {
        alert_id: id.clone(),
        subject: event.required("subject", told.subject.owned())?,
        found: told.found.owned().unwrap_or_default(),
        remedy: told.remedy.owned().unwrap_or_default(),
        raised_at: event.at(),
        cleared_at: None,
    };
    event.tell(Table::Alerts, &id, Step::default(), row.into(), Vec::new());
    Ok(())
}
