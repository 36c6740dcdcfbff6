//! What was kept of a person as it came: events and set-aside input lose what tells who they are, the log what it still has of
//! it.
//!
//! It comes behind the record of the erasure: what is loaded after that is redacted as it is folded.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, RecordBatch, StringArray},
    error::ArrowError,
};
use futures::StreamExt;

use super::{FoldIn, LoadError, Loader, blocking, fold_in, recall, unreadable};
use crate::{
    base::{Envelope, Logged, Offset, Source},
    facts::{
        Contact, Decoded, Decoder, Table, Texts, Whose,
        erasure::Erasure,
        identity::{Identifier, IdentifierKind},
        raw, replay, strings_of,
    },
    lake::{Edit, Lake, changes_of},
};

/// How long the log's index may take to be on disk up to where the log is trimmed.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Whom to look for in what was kept.
#[derive(Clone)]
pub struct Sought {
    pub person: Erasure,
    /// Clear texts that are theirs …
    pub contacts: Vec<Contact>,
    /// … and those of them that are nobody else's: what holds one speaks of them.
    pub traces: Vec<Contact>,
    /// The ids of their payments and charges: an event that names nobody and one of these speaks of them.
    pub objects: HashSet<String>,
}

/// What lost something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redacted {
    pub events: u64,
    pub quarantined: u64,
    /// Rows were made of what is gone: they are to be made again.
    pub in_tables: bool,
}

/// Takes what tells who they are out of what was kept as it came.
pub async fn redact(lake: &Lake, decoder: &Decoder, sought: Vec<Sought>) -> Result<Redacted, LoadError> {
    let search = Arc::new(Search::new(decoder.clone(), sought));
    let events: Edit = {
        let search = search.clone();
        Arc::new(move |batch| search.events(batch))
    };
    let quarantined: Edit = {
        let search = search.clone();
        Arc::new(move |batch| search.quarantined(batch))
    };
    let events = lake.rewrite(raw::EVENTS, &events).await?;
    let quarantined = lake.rewrite(raw::QUARANTINE, &quarantined).await?;
    Ok(Redacted { events, quarantined, in_tables: search.in_tables.load(Ordering::Relaxed) })
}

/// Nothing is left of older versions of the tables that events make: neither what was told of somebody nor what it was made
/// of.
pub async fn sweep(lake: &Lake) -> Result<(), LoadError> {
    // What was told of them stands in rows that others were laid over.
    fold_in(lake, FoldIn::All).await?;
    for table in Table::ALL {
        lake.sweep(table.name()).await?;
        lake.sweep(&changes_of(table.name())).await?;
    }
    Ok(())
}

/// The events that speak of them, as they were kept.
pub async fn events_about(lake: &Lake, decoder: &Decoder, sought: Sought) -> Result<Vec<Logged>, LoadError> {
    let search = Search::new(decoder.clone(), vec![sought]);
    let mut found = Vec::new();
    let Some(mut rows) = recall::rows(&lake.snapshot(), raw::EVENTS, &[], None).await? else { return Ok(found) };
    while let Some(batch) = rows.next().await {
        let mut events = replay::events(&batch.map_err(unreadable)?).map_err(unreadable)?;
        events.retain(|event| {
            let decoded = search.decoder.decode(&event.envelope).ok();
            search.found(&event.envelope, decoded.as_ref()).iter().any(|(_, whose)| *whose == Whose::Theirs)
        });
        found.append(&mut events);
    }
    found.sort_by_key(|event| event.offset);
    Ok(found)
}

impl Loader {
    /// Commits all that the log has before `end`, where a segment begins, and removes it from there.
    pub async fn empty_log(&mut self, end: Offset) -> Result<(), LoadError> {
        while self.next < end && self.step().await?.is_some() {}
        self.commit().await?;
        self.store.sync()?;
        let began = Instant::now();
        // The log's index is on disk a moment later than its events.
        while self.log.start() < end {
            let log = self.log.clone();
            blocking(move || Ok(log.remove(end)?)).await?;
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
    people: Vec<Person>,
    in_tables: AtomicBool,
}

/// One of them.
struct Person {
    sought: Sought,
    identifiers: HashSet<String>,
    traces: Texts,
}

impl Search {
    fn new(decoder: Decoder, sought: Vec<Sought>) -> Search {
        let of = |(kind, hash): &(IdentifierKind, String)| format!("{}:{hash}", kind.as_str());
        let person = |sought: Sought| Person {
            identifiers: sought.person.identifiers.iter().map(of).collect(),
            traces: Texts::new(&sought.traces),
            sought,
        };
        Search { decoder, people: sought.into_iter().map(person).collect(), in_tables: AtomicBool::new(false) }
    }

    fn events(&self, batch: &RecordBatch) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
        let events = replay::events(batch).map_err(|e| ArrowError::from_external_error(e.into()))?;
        let left = events.iter().map(|event| self.redacted(&event.envelope)).collect();
        with_texts(batch, "payload", left)
    }

    fn redacted(&self, event: &Envelope) -> Option<String> {
        let decoded = self.decoder.decode(event).ok();
        let payload = str::from_utf8(&event.payload).ok()?;
        let mut left: Option<String> = None;
        for (person, whose) in self.found(event, decoded.as_ref()) {
            let mut contacts = person.sought.contacts.clone();
            contacts.extend(decoded.iter().flat_map(|d| &d.contacts).filter(|_| whose == Whose::Theirs).cloned());
            left = self.decoder.redacted(left.as_deref().unwrap_or(payload), whose, &contacts).or(left);
        }
        let payload = left.clone()?.into();
        let again = self.decoder.decode(&Envelope { payload, ..event.clone() }).ok();
        let is_the_same = match (&decoded, &again) {
            (Some(before), Some(after)) => before.makes_the_same(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !is_the_same {
            self.in_tables.store(true, Ordering::Relaxed);
        }
        left
    }

    /// Those of whom the event speaks.
    fn found(&self, event: &Envelope, decoded: Option<&Decoded>) -> Vec<(&Person, Whose)> {
        let Ok(payload) = str::from_utf8(&event.payload) else { return Vec::new() };
        // The best of a claim's identifiers: a browser that was theirs may be another's by now.
        let best = decoded.iter().flat_map(|d| &d.claims).filter_map(|claim| claim.identifiers.first());
        let mut named: Vec<String> = best.map(Identifier::id).collect();
        // Of what is not decoded the envelope tells whose it is.
        if named.is_empty() {
            named.extend(self.decoder.implied(event).iter().map(Identifier::id));
        }
        let objects = if named.is_empty() { strings_of(&event.payload) } else { Vec::new() };
        let is_own = event.source == Source::Tillstream;
        let whose = |person: &Person| {
            let is_named = named.iter().any(|identifier| person.identifiers.contains(identifier))
                || objects.iter().any(|object| person.sought.objects.contains(object));
            let has_a_trace = || person.traces.are_in(payload);
            match () {
                () if is_named && !is_own => Some(Whose::Theirs),
                () if has_a_trace() && named.is_empty() && !is_own => Some(Whose::Theirs),
                () if has_a_trace() => Some(Whose::Others),
                () => None,
            }
        };
        self.people.iter().filter_map(|person| Some((person, whose(person)?))).collect()
    }

    /// Of input that is no event only their own texts go: whose the rest is nobody knows.
    fn quarantined(&self, batch: &RecordBatch) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
        let left = |name| -> Result<Vec<Option<String>>, ArrowError> {
            let cut = |text: &str| {
                let theirs = self.people.iter().filter(|person| person.traces.are_in(text));
                let cut = |left: Option<String>, person: &Person| {
                    let text = left.as_deref().unwrap_or(text);
                    self.decoder.redacted(text, Whose::Others, &person.sought.contacts).or(left)
                };
                theirs.fold(None, cut)
            };
            Ok(texts(batch, name)?.iter().map(|text| text.and_then(cut)).collect())
        };
        let reasons = with_texts(batch, "reason", left("reason")?)?;
        let told = reasons.as_ref().map_or(batch, |(batch, _)| batch);
        Ok(with_texts(told, "payload", left("payload")?)?.or(reasons))
    }
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ArrowError> {
    let wrong = || ArrowError::SchemaError(format!("there is no text column {name}"));
    batch.column_by_name(name).and_then(|column| column.as_string_opt()).ok_or_else(wrong)
}

/// The batch with other texts in a column where there are some, and how many.
fn with_texts(
    batch: &RecordBatch,
    name: &str,
    left: Vec<Option<String>>,
) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
    let changed = left.iter().flatten().count() as u64;
    if changed == 0 {
        return Ok(None);
    }
    let texts: StringArray = texts(batch, name)?.iter().zip(&left).map(|(old, new)| new.as_deref().or(old)).collect();
    let at = batch.schema().index_of(name)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(texts);
    Ok(Some((RecordBatch::try_new(batch.schema(), columns)?, changed)))
}
