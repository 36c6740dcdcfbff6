//! Making the store whole again: once in a process, before anything is queued or sent.
//!
//! The log (and `raw.events`, where the log was trimmed) knows every message that was ever claimed. What the store lacks
//! of it, because it was lost or fell back behind a power cut, is taken up here, so that nothing is sent twice. In a
//! store that knows nothing the memberships come back from their copy: nobody enters a segment anew.

use serde::Deserialize;

use super::{Activator, error::ActivateError, record::Record};
use crate::{
    base::{Micros, Offset, Source},
    engine::Session,
    log::EventLog,
};

/// Payload bytes that one read of the log takes.
const READ_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
struct RawRow {
    r#type: String,
    payload: String,
}

impl Activator {
    pub(super) async fn recover(&self, session: &Session, now: Micros) -> Result<(), ActivateError> {
        let mut recovered = self.recovered.lock().await;
        if *recovered {
            return Ok(());
        }
        // First what the store knows and the log does not.
        self.outbox.log(&self.log).await?;
        let mark = self.outbox.log_mark()?;
        let (from, end) = (mark.unwrap_or_default(), self.log.end());
        let start = self.log.start();
        if from < start {
            self.outbox.restore(self.trimmed(session, from, start).await?)?;
        }
        self.restore_from_log(from.max(start), end).await?;
        if mark.is_none() {
            let spans = self.copied_memberships(session).await?;
            let mut batch = self.store.batch();
            self.members.restore(&mut batch, &spans)?;
            batch.commit_durable()?;
        }
        self.outbox.abandon(now)?;
        self.outbox.log(&self.log).await?;
        self.outbox.set_log_mark(self.log.end())?;
        *recovered = true;
        Ok(())
    }

    /// Our records that the log no longer holds.
    async fn trimmed(&self, session: &Session, from: Offset, to: Offset) -> Result<Vec<Record>, ActivateError> {
        let sql = format!(
            "SELECT type, payload FROM raw.events WHERE source = '{}' AND log_offset >= {from} AND log_offset < {to} \
             ORDER BY log_offset",
            Source::Tillstream
        );
        let found = session.rows::<RawRow>(&sql).await?;
        Ok(found.into_iter().filter_map(|r| Record::parse(&r.r#type, r.payload.as_bytes())).collect())
    }

    async fn restore_from_log(&self, from: Offset, end: Offset) -> Result<(), ActivateError> {
        let mut next = from;
        while next < end {
            let (records, after) = read_records(self.log.clone(), next).await?;
            if after == next {
                break;
            }
            self.outbox.restore(records)?;
            next = after;
        }
        Ok(())
    }
}

/// Our records in the next stretch of the log, and where that ends.
async fn read_records(log: EventLog, from: Offset) -> Result<(Vec<Record>, Offset), ActivateError> {
    tokio::task::spawn_blocking(move || {
        let logged = log.read(from, READ_BYTES)?;
        let after = logged.last().map_or(from, |l| l.offset.next());
        let ours = logged.iter().filter(|l| l.envelope.source == Source::Tillstream);
        Ok((ours.filter_map(|l| Record::parse(&l.envelope.event_type, &l.envelope.payload)).collect(), after))
    })
    .await?
}
