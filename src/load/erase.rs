//! What was kept of a person as it came: events and set-aside input lose what tells who they are, the log what it still has of
//! it.
//!
//! It comes behind the record of the erasure: what is loaded after that is redacted as it is folded.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, RecordBatch, StringArray},
    error::ArrowError,
};
use futures::StreamExt;

use super::{LoadError, Loader, fold_in, recall, unreadable};
use crate::{
    base::{Envelope, Logged, Offset, Source},
    facts::{Contact, Decoder, Table, Texts, erasure::Erasure, identity::IdentifierKind, raw, replay},
    lake::{Edit, Lake, changes_of},
};

/// How long the log's index may take to be on disk up to where the log is trimmed.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Whom to look for in what was kept.
#[derive(Clone)]
pub struct Sought {
    pub person: Erasure,
    pub livemode: bool,
    /// Stripe's names for them: they stay, and lead to what nobody else is named in.
    pub customers: Vec<String>,
    /// Clear texts that are theirs …
    pub contacts: Vec<Contact>,
    /// … and those of them that are nobody else's: an event that names nobody and holds one is theirs.
    pub traces: Vec<Contact>,
}

/// Rows that lost something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redacted {
    pub events: u64,
    pub quarantined: u64,
}

/// Takes what tells who they are out of the tables, all versions of them.
pub async fn redact(lake: &Lake, decoder: &Decoder, sought: Sought) -> Result<Redacted, LoadError> {
    let search = Arc::new(Search::new(decoder.clone(), sought));
    let events: Edit = {
        let search = search.clone();
        Arc::new(move |batch| search.events(batch))
    };
    let quarantined: Edit = Arc::new(move |batch| search.quarantined(batch));
    let events = lake.rewrite(raw::EVENTS, &events).await?;
    let quarantined = lake.rewrite(raw::QUARANTINE, &quarantined).await?;
    // What was told of them stands in rows that others were laid over.
    fold_in(lake, true).await?;
    let as_it_is: Edit = Arc::new(|_| Ok(None));
    let identities = Table::Identities.name();
    for table in [identities, &changes_of(identities)] {
        lake.rewrite(table, &as_it_is).await?;
    }
    Ok(Redacted { events, quarantined })
}

/// The events that speak of them, as they were kept.
pub async fn events_about(lake: &Lake, decoder: &Decoder, sought: Sought) -> Result<Vec<Logged>, LoadError> {
    let search = Search::new(decoder.clone(), sought);
    let mut found = Vec::new();
    let Some(mut rows) = recall::rows(&lake.snapshot(), raw::EVENTS, &[], None).await? else { return Ok(found) };
    while let Some(batch) = rows.next().await {
        let mut events = replay::events(&batch.map_err(unreadable)?).map_err(unreadable)?;
        events.retain(|event| search.theirs(&event.envelope).is_some());
        found.append(&mut events);
    }
    found.sort_by_key(|event| event.offset);
    Ok(found)
}

impl Loader {
    /// Trims the log of all before `end`, which must be loaded, and its segment begun with it.
    pub async fn drop_log_before(&mut self, end: Offset) -> Result<(), LoadError> {
        self.commit().await?;
        self.store.sync()?;
        let began = Instant::now();
        while self.log.start() < end {
            self.log.trim(end.min(self.committed))?;
            if began.elapsed() > PATIENCE {
                return Err(LoadError::CutOff(format!("the log still begins at {}, before {end}", self.log.start())));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

struct Search {
    decoder: Decoder,
    sought: Sought,
    identifiers: HashSet<String>,
    traces: Texts,
}

impl Search {
    fn new(decoder: Decoder, sought: Sought) -> Search {
        let of = |(kind, hash): &(IdentifierKind, String)| format!("{}:{hash}", kind.as_str());
        let identifiers = sought.person.identifiers.iter().map(of).collect();
        let traces = Texts::new(&sought.traces);
        Search { decoder, sought, identifiers, traces }
    }

    fn events(&self, batch: &RecordBatch) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
        let events = replay::events(batch).map_err(|e| ArrowError::from_external_error(e.into()))?;
        let left = events.iter().map(|event| {
            let (payload, own) = self.theirs(&event.envelope)?;
            self.decoder.redacted(payload, &[own.as_slice(), &self.sought.contacts].concat())
        });
        with_payloads(batch, left.collect())
    }

    /// The payload of an event that speaks of them, and the texts that it names; `None` of another.
    fn theirs<'a>(&self, event: &'a Envelope) -> Option<(&'a str, Vec<Contact>)> {
        if event.livemode != self.sought.livemode || event.source == Source::Tillstream {
            return None;
        }
        let payload = str::from_utf8(&event.payload).ok()?;
        let decoded = self.decoder.decode(event).unwrap_or_default();
        let mut named = decoded.claims.iter().flat_map(|claim| &claim.identifiers);
        let is_theirs = match decoded.claims.is_empty() {
            true => self.has_a_trace(payload),
            false => named.any(|identifier| self.identifiers.contains(&identifier.id())),
        };
        is_theirs.then_some((payload, decoded.contacts))
    }

    /// Of input that is no event only their own texts go: whose the rest is nobody knows.
    fn quarantined(&self, batch: &RecordBatch) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
        let payloads = payloads(batch)?;
        let left = payloads.iter().map(|payload| {
            let payload = payload.filter(|payload| self.has_a_trace(payload))?;
            self.decoder.redacted(payload, &self.sought.contacts)
        });
        with_payloads(batch, left.collect())
    }

    fn has_a_trace(&self, payload: &str) -> bool {
        let is_customer = |id: &String| payload.contains(&format!("\"{id}\""));
        self.traces.are_in(payload) || self.sought.customers.iter().any(is_customer)
    }
}

fn payloads(batch: &RecordBatch) -> Result<&StringArray, ArrowError> {
    let wrong = || ArrowError::SchemaError("there is no text column payload".to_owned());
    batch.column_by_name("payload").and_then(|column| column.as_string_opt()).ok_or_else(wrong)
}

/// The batch with other payloads where there are some.
fn with_payloads(batch: &RecordBatch, left: Vec<Option<String>>) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
    let changed = left.iter().flatten().count() as u64;
    if changed == 0 {
        return Ok(None);
    }
    let payloads: StringArray = payloads(batch)?.iter().zip(&left).map(|(old, new)| new.as_deref().or(old)).collect();
    let at = batch.schema().index_of("payload")?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(payloads);
    Ok(Some((RecordBatch::try_new(batch.schema(), columns)?, changed)))
}
