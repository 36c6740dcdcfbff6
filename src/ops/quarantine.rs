//! What was set aside: looked at, and decoded again by today's decoders.
//!
//! A row of `raw.quarantine` is named by its log offset. Nothing there is ever changed: that a row was taken in is a record
//! of the log ([`raw::RETRIED`]), written after today's decoder found it good. What it brings is folded in once, however
//! often it is retried, and whether a rebuild brought it already.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Instance, OpsError};
use crate::{
    base::{Envelope, Logged, Micros, Offset, Progress, Source, progress::Silent},
    facts::{Decoder, raw},
    load::at_offsets,
    sources,
};

/// Rows that a list shows, the newest first.
const LISTED: usize = 1000;
/// Rows that are tried at once: their payloads are held in memory.
const PAGE: usize = 200;
/// Refusals that are told one by one.
const TOLD: usize = 100;

/// One row of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub id: u64,
    pub source: String,
    /// RFC 3339.
    pub received_at: String,
    pub reason: String,
    /// Of input that is no event: a fingerprint of its bytes.
    pub event_id: String,
    pub livemode: bool,
}

/// What was set aside and not taken in since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub open: u64,
    /// The newest of them.
    pub rows: Vec<SetAside>,
}

/// One row as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithPayload {
    #[serde(flatten)]
    pub row: SetAside,
    pub payload: String,
    pub taken_in: bool,
}

/// What became of a retry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    pub taken_in: u64,
    /// Of those named: taken in before.
    pub already: u64,
    pub refused: u64,
    /// Of the first of them.
    pub reasons: Vec<Refused>,
}

/// Still no event, or no fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub id: u64,
    pub reason: String,
}

impl Instance {
    /// What waits to be mended, the newest first.
    pub async fn quarantine(&self) -> Result<Listed, OpsError> {
        self.load(&Silent).await?;
        let sql = format!("{} ORDER BY id DESC LIMIT {LISTED}", open(""));
        let rows = self.session(Micros::now())?.rows(&sql).await?;
        Ok(Listed { rows, open: self.set_aside_open().await? })
    }

    /// How many rows wait to be mended.
    pub(super) async fn set_aside_open(&self) -> Result<u64, OpsError> {
        self.count(&format!("({}) AS open", open(""))).await
    }

    /// One of them with its payload, whether it was taken in or not.
    pub async fn set_aside(&self, id: u64) -> Result<WithPayload, OpsError> {
        self.load(&Silent).await?;
        let sql = format!(
            "SELECT {COLUMNS}, payload, (SELECT count(*) FROM ({}) AS taken WHERE object_id = '{id}') > 0 AS taken_in \
             FROM raw.quarantine AS q WHERE log_offset = {id}",
            taken_in()
        );
        let rows: Vec<WithPayload> = self.session(Micros::now())?.rows(&sql).await?;
        rows.into_iter().next().ok_or_else(|| unknown(id))
    }

    /// Decodes again what was set aside (all of it where no `ids` are given), and takes in what is good now.
    pub async fn retry(&self, ids: &[u64], progress: &dyn Progress) -> Result<Retried, OpsError> {
        self.load(&Silent).await?;
        let mut done = Retried::default();
        for id in ids {
            done.already += u64::from(self.set_aside(*id).await?.taken_in);
        }
        let decoder = self.decoder();
        progress.begin("Decoding again", None, "rows");
        let mut after = None;
        loop {
            let rows = self.page(ids, after).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.row.id);
            let again = self.events_of(&rows).await?;
            let mut good = Vec::new();
            for row in rows {
                match judge(&decoder, &row, again.get(&row.row.id)) {
                    Ok(events) => {
                        done.taken_in += 1;
                        good.extend(events);
                    }
                    Err(reason) => {
                        done.refused += 1;
                        done.reasons.extend((done.reasons.len() < TOLD).then_some(Refused { id: row.row.id, reason }));
                    }
                }
            }
            self.log.append(good).await?;
            progress.at(done.taken_in + done.refused);
        }
        progress.end(&format!("{} taken in, {} refused", done.taken_in, done.refused));
        self.load(progress).await?;
        Ok(done)
    }

    async fn page(&self, ids: &[u64], after: Option<u64>) -> Result<Vec<WithPayload>, OpsError> {
        let named: Vec<String> = ids.iter().map(u64::to_string).collect();
        let named = if named.is_empty() { String::new() } else { format!(" AND id IN ({})", named.join(", ")) };
        let after = after.map_or(-1, |id| id as i64);
        let all = open(", payload, false AS taken_in");
        let sql = format!("SELECT * FROM ({all}) AS open WHERE id > {after}{named} ORDER BY id LIMIT {PAGE}");
        Ok(self.session(Micros::now())?.rows(&sql).await?)
    }

    /// The events that some of these rows are, by their offset: those that only failed to become facts.
    async fn events_of(&self, rows: &[WithPayload]) -> Result<HashMap<u64, Logged>, OpsError> {
        let offsets: Vec<Offset> = rows.iter().map(|r| Offset(r.row.id)).collect();
        let found = at_offsets(&self.lake.snapshot(), &offsets).await?;
        Ok(found.into_iter().map(|event| (event.offset.0, event)).collect())
    }
}

/// The columns of a [`SetAside`].
const COLUMNS: &str = "q.log_offset AS id, q.source, q.received_at, q.reason, q.event_id, q.livemode";

/// What names the rows that were taken in.
fn taken_in() -> String {
    format!("SELECT object_id FROM raw.events WHERE source = '{}' AND type = '{}'", Source::Tillstream, raw::RETRIED)
}

/// The rows that were not, with more columns.
fn open(more: &str) -> String {
    format!(
        "SELECT {COLUMNS}{more} FROM raw.quarantine AS q \
         LEFT ANTI JOIN ({}) AS taken ON taken.object_id = CAST(q.log_offset AS VARCHAR)",
        taken_in()
    )
}

fn unknown(id: u64) -> OpsError {
    OpsError::Unknown(format!("nothing was set aside under {id}: `tillstream quarantine list` shows what was"))
}

/// What goes to the log for a row that is good by today's decoders; why not, for another.
fn judge(decoder: &Decoder, row: &WithPayload, event: Option<&Logged>) -> Result<Vec<Envelope>, String> {
    let taken = record(row)?;
    if let Some(event) = event {
        return decoder.decode(&event.envelope).map(|_| vec![taken]).map_err(|e| e.to_string());
    }
    let source: Source = row.row.source.parse().map_err(|e: crate::base::envelope::UnknownSource| e.to_string())?;
    if !sources::is_whole(&row.row.event_id, row.payload.as_bytes()) {
        return Err("not all of it was kept as it came, so only who sent it can send it again".to_owned());
    }
    let received_at = Micros::from_rfc3339(&row.row.received_at).unwrap_or_else(Micros::now);
    let body = Bytes::copy_from_slice(row.payload.as_bytes());
    sources::decode(source, &body, received_at).map(|envelope| vec![envelope, taken]).map_err(|e| e.to_string())
}

fn record(row: &WithPayload) -> Result<Envelope, String> {
    let (id, now) = (row.row.id, Micros::now());
    let payload = json!({ "log_offset": id }).to_string();
    let own = Envelope::own(raw::RETRIED, format!("quarantine:{id}:{}", now.0), now, payload);
    Ok(Envelope {
        livemode: row.row.livemode,
        object_type: Some("quarantine".to_owned()),
        object_id: Some(id.to_string()),
        ..own.map_err(|e| e.to_string())?
    })
}
