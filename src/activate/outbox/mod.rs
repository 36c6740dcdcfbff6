//! The outbox: every message that was ever wanted, with its state, and what of it the log does not hold yet.
//!
//! What must hold: a key is queued once, for ever. Every transition is one batch of the store with the record for the
//! log beside it, marked as not yet logged; the mark goes when the log has it, so a crash between the two is healed by
//! [`Outbox::log`] at the next start. The reverse, a log that knows more than the store, is healed by
//! [`Outbox::restore`]. Nothing here talks to a provider.

mod log;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    error::ActivateError,
    key::MessageKey,
    message::{Medium, Message, State},
    record::{MessageRecord, Record, SuppressionRecord, order_of},
};
use crate::{
    base::{Envelope, Micros, Offset, PersonId, Source},
    store::{Batch, Keyspace, Store},
    telemetry,
};

/// What was last said at one place on whether a destination may be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    pub medium: Medium,
    pub destination_hash: String,
    /// Where: a provider, or `tillstream`.
    pub source: String,
    pub reason: String,
    pub at: Micros,
    pub lifted: bool,
}

/// How many records go to the log at once.
const LOG_GROUP: usize = 1000;
/// Up to where the log was read: own records and providers' words before it are known to this store.
const LOG_MARK: &[u8] = b"log_mark";
const CONSENT_SEEN: &[u8] = b"consent_seen";

pub struct Outbox {
    store: Store,
    /// Key -> message, as JSON.
    messages: Keyspace,
    /// See [`Index`].
    index: Keyspace,
    /// Sequence -> envelope: what the log lacks.
    unlogged: Keyspace,
    /// Medium, destination and source -> the last word there.
    suppressions: Keyspace,
    meta: Keyspace,
    next: AtomicU64,
    /// Held from the reading of a message to the commit of its next state.
    turn: Mutex<()>,
    /// The claims that the log had before they were made here. Held while records go to the log: of two who take the same
    /// ones there, each would find the other's.
    contested: tokio::sync::Mutex<HashSet<String>>,
}

impl Outbox {
    pub fn open(store: &Store) -> Result<Outbox, ActivateError> {
        let unlogged = store.keyspace("outbox_unlogged")?;
        let last = unlogged.prefix(b"").next_back().transpose()?;
        let next = last.and_then(|(key, _)| Some(u64::from_be_bytes((*key).try_into().ok()?) + 1)).unwrap_or(0);
        Ok(Outbox {
            store: store.clone(),
            messages: store.keyspace("outbox")?,
            index: store.keyspace("outbox_index")?,
            unlogged,
            suppressions: store.keyspace("suppressions")?,
            meta: store.keyspace("activate")?,
            next: AtomicU64::new(next),
            turn: Mutex::new(()),
            contested: tokio::sync::Mutex::default(),
        })
    }

    pub fn get(&self, key: &MessageKey) -> Result<Option<Message>, ActivateError> {
        self.messages.get(key.as_str().as_bytes())?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Every message, in no order.
    pub fn all(&self) -> impl Iterator<Item = Result<Message, ActivateError>> {
        self.messages.prefix(b"").map(|entry| decode(&entry?.1))
    }

    /// Adds a new message and its record to `batch`. The caller sees to it that its key is not there yet.
    pub fn queue(&self, batch: &mut Batch, message: &Message, at: Micros) -> Result<(), ActivateError> {
        telemetry::message(message.medium.as_str(), message.state.as_str());
        self.write(batch, None, message)?;
        self.mark_unlogged(batch, &Record::of(message, at))
    }

    /// Brings a message into another state: `edit` fills in what is known of it. `None`, and no change, where the
    /// state machine does not lead there. Survives the death of the process; see [`Outbox::log`] for the rest.
    pub fn change(
        &self,
        key: &MessageKey,
        to: State,
        at: Micros,
        edit: impl FnOnce(&mut Message),
    ) -> Result<Option<Message>, ActivateError> {
        let _turn = self.turn();
        let Some(old) = self.get(key)?.filter(|m| m.state.may_become(to)) else {
            return Ok(None);
        };
        let mut message = old.clone();
        message.enter(to, at);
        edit(&mut message);
        let mut batch = self.store.batch();
        self.write(&mut batch, Some(&old), &message)?;
        self.mark_unlogged(&mut batch, &Record::of(&message, at))?;
        batch.commit()?;
        telemetry::message(message.medium.as_str(), message.state.as_str());
        Ok(Some(message))
    }

    /// Looks at a message again only at `until`. Its state stays, so the log is not told.
    pub fn postpone(&self, key: &MessageKey, until: Micros, why: &str) -> Result<(), ActivateError> {
        let _turn = self.turn();
        let Some(old) = self.get(key)?.filter(|m| matches!(m.state, State::Queued | State::Unknown)) else {
            return Ok(());
        };
        let mut message = old.clone();
        message.not_before = until;
        message.reason = Some(why.to_owned());
        message.asked += u32::from(message.state == State::Unknown);
        let mut batch = self.store.batch();
        self.write(&mut batch, Some(&old), &message)?;
        Ok(batch.commit()?)
    }

    /// Queued messages of a medium whose time has come, oldest first.
    pub fn ready(&self, medium: Medium, now: Micros, most: usize) -> Result<Vec<Message>, ActivateError> {
        self.due_by(&Index::ready(medium), now, most)
    }

    /// Claimed and unknown messages that are to be looked at by `now`.
    pub fn unsettled(&self, now: Micros, most: usize) -> Result<Vec<Message>, ActivateError> {
        self.due_by(&Index::unsettled(), now, most)
    }

    /// When the first queued message of a medium is ready.
    pub fn next_ready(&self, medium: Medium) -> Result<Option<Micros>, ActivateError> {
        self.first(&Index::ready(medium))
    }

    pub fn next_unsettled(&self) -> Result<Option<Micros>, ActivateError> {
        self.first(&Index::unsettled())
    }

    /// All messages to a person, under any of these ids, or to a destination.
    pub fn to(&self, people: &[PersonId], destination: &str) -> Result<Vec<Message>, ActivateError> {
        let mut keys = BTreeSet::new();
        let mut prefixes: Vec<Vec<u8>> = people.iter().map(|p| Index::person(&p.0)).collect();
        if !destination.is_empty() {
            prefixes.push(Index::destination(destination));
        }
        for prefix in prefixes {
            for entry in self.index.prefix(&prefix) {
                keys.insert(entry?.0[prefix.len()..].to_vec());
            }
        }
        let mut messages = Vec::new();
        for key in keys {
            if let Some(bytes) = self.messages.get(&key)? {
                messages.push(decode(&bytes)?);
            }
        }
        Ok(messages)
    }

    /// The message that a provider knows under this id.
    pub fn by_provider_id(&self, id: &str) -> Result<Option<Message>, ActivateError> {
        let Some(key) = self.index.get(&Index::provider(id))? else {
            return Ok(None);
        };
        self.messages.get(&key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// No more by this medium to this destination, unless that is taken back where it was said.
    pub fn suppress(&self, record: SuppressionRecord) -> Result<(), ActivateError> {
        let _turn = self.turn();
        let mut batch = self.store.batch();
        if self.write_word(&mut batch, &Word::from(&record))? {
            self.mark_unlogged(&mut batch, &Record::Suppression(record))?;
            batch.commit_durable()?;
        }
        Ok(())
    }

    /// Takes up a word that the log holds as an event of its own.
    pub fn heed(&self, word: &Word) -> Result<(), ActivateError> {
        let _turn = self.turn();
        let mut batch = self.store.batch();
        if self.write_word(&mut batch, word)? {
            batch.commit_durable()?;
        }
        Ok(())
    }

    /// The word that forbids to write to a destination, if one does.
    pub fn suppressed(&self, medium: Medium, destination: &str) -> Result<Option<Word>, ActivateError> {
        for entry in self.suppressions.prefix(&suppression_key(medium, destination, "")) {
            let word: Word = decode(&entry?.1)?;
            if !word.lifted {
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    /// Takes up what records say beyond what the store knows; returns how many messages that changed.
    pub fn restore(&self, records: impl IntoIterator<Item = Record>) -> Result<usize, ActivateError> {
        let _turn = self.turn();
        let mut changed = HashSet::new();
        for record in records {
            let mut batch = self.store.batch();
            match record {
                Record::Suppression(record) => drop(self.write_word(&mut batch, &Word::from(&record))?),
                Record::Message(record) => {
                    let key = record.message_key.clone();
                    if self.restore_message(&mut batch, *record)? {
                        changed.insert(key);
                    }
                }
            }
            batch.commit()?;
        }
        Ok(changed.len())
    }

    /// Claims without an outcome, from a process that died: whether they went out is not known. Only to be called
    /// while nothing is being sent. What was claimed elsewhere is left to whoever claimed it for `patience`.
    pub fn abandon(&self, now: Micros, patience: i64) -> Result<Vec<Message>, ActivateError> {
        let mut abandoned = Vec::new();
        for message in self.due_by(&Index::unsettled(), Micros(i64::MAX), usize::MAX)? {
            if message.state == State::Claimed && (message.is_ours() || message.claimed_for(now) >= patience) {
                abandoned.extend(self.change(&message.key, State::Unknown, now, |m| {
                    m.not_before = now;
                    m.reason = Some("the program stopped while it was being sent".to_owned());
                })?);
            }
        }
        Ok(abandoned)
    }

    /// Up to where the log was read; `None` in a store that was just made.
    pub fn log_mark(&self) -> Result<Option<Offset>, ActivateError> {
        let bytes = self.meta.get(LOG_MARK)?;
        Ok(bytes.and_then(|b| Some(Offset(u64::from_be_bytes((*b).try_into().ok()?)))))
    }

    pub fn set_log_mark(&self, end: Offset) -> Result<(), ActivateError> {
        let mut batch = self.store.batch();
        batch.put(&self.meta, LOG_MARK, end.0.to_be_bytes());
        Ok(batch.commit()?)
    }

    /// When somebody last looked at the consents in Klaviyo.
    pub fn consent_seen(&self) -> Result<Option<Micros>, ActivateError> {
        let bytes = self.meta.get(CONSENT_SEEN)?;
        Ok(bytes.and_then(|b| Some(Micros(i64::from_be_bytes((*b).try_into().ok()?)))))
    }

    pub fn set_consent_seen(&self, at: Micros) -> Result<(), ActivateError> {
        let mut batch = self.store.batch();
        batch.put(&self.meta, CONSENT_SEEN, at.0.to_be_bytes());
        Ok(batch.commit()?)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own: after a panic elsewhere the store is still whole.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore_message(&self, batch: &mut Batch, record: MessageRecord) -> Result<bool, ActivateError> {
        let Some(old) = self.get(&record.message_key)? else {
            self.write(batch, None, &record.message())?;
            return Ok(true);
        };
        let mut message = old.clone();
        if message.columns.is_empty() {
            message.columns = record.columns.clone();
        }
        let later = record.order() > (old.attempt, order_of(old.state, old.attempt));
        if later {
            message.enter(record.state, record.at);
            message.attempt = record.attempt;
            message.reason = record.reason;
            message.not_before = record.at;
            message.provider = record.provider.or(message.provider);
            message.provider_id = record.provider_id.or(message.provider_id);
        } else if message.columns == old.columns {
            return Ok(false);
        }
        self.write(batch, Some(&old), &message)?;
        Ok(later)
    }

    /// The message and its places in the index.
    fn write(&self, batch: &mut Batch, old: Option<&Message>, message: &Message) -> Result<(), ActivateError> {
        let entries = Index::entries(message);
        if let Some(old) = old {
            for gone in Index::entries(old).difference(&entries) {
                batch.delete(&self.index, gone.clone());
            }
        }
        for entry in entries {
            let key = message.key.as_str();
            batch.put(&self.index, entry, if message.provider_id.is_some() { key.as_bytes() } else { b"" });
        }
        let bytes = encode("a message", message)?;
        batch.put(&self.messages, message.key.as_str(), bytes);
        Ok(())
    }

    /// False, and nothing written, where a later word stands there. Of two at one moment the no holds.
    fn write_word(&self, batch: &mut Batch, word: &Word) -> Result<bool, ActivateError> {
        let key = suppression_key(word.medium, &word.destination_hash, &word.source);
        let held: Option<Word> = self.suppressions.get(&key)?.map(|bytes| decode(&bytes)).transpose()?;
        let weight = |word: &Word| (word.at, !word.lifted);
        let new = held.is_none_or(|held| weight(word) > weight(&held));
        if new {
            batch.put(&self.suppressions, key, encode("a suppression", word)?);
        }
        Ok(new)
    }

    fn mark_unlogged(&self, batch: &mut Batch, record: &Record) -> Result<(), ActivateError> {
        let envelope = record.envelope()?;
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        batch.put(&self.unlogged, sequence.to_be_bytes(), pack(&envelope)?);
        Ok(())
    }

    fn due_by(&self, prefix: &[u8], now: Micros, most: usize) -> Result<Vec<Message>, ActivateError> {
        let mut due = Vec::new();
        for entry in self.index.prefix(prefix) {
            let (key, _) = entry?;
            let Some((at, key)) = Index::time_and_key(&key[prefix.len()..]) else {
                continue;
            };
            if at > now || due.len() >= most {
                break;
            }
            if let Some(bytes) = self.messages.get(key)? {
                due.push(decode(&bytes)?);
            }
        }
        Ok(due)
    }

    fn first(&self, prefix: &[u8]) -> Result<Option<Micros>, ActivateError> {
        let first = self.index.prefix(prefix).next().transpose()?;
        Ok(first.and_then(|(key, _)| Index::time_and_key(&key[prefix.len()..]).map(|(at, _)| at)))
    }
}

impl From<&SuppressionRecord> for Word {
    fn from(record: &SuppressionRecord) -> Word {
        Word {
            medium: record.channel,
            destination_hash: record.destination_hash.clone(),
            source: record.provider.clone().unwrap_or_else(|| Source::Tillstream.to_string()),
            reason: record.reason.clone(),
            at: record.at,
            lifted: false,
        }
    }
}

impl Message {
    fn enter(&mut self, to: State, at: Micros) {
        self.state = to;
        self.reason = None;
        match to {
            State::Queued => (self.claimed_at, self.provider_id) = (None, None),
            State::Claimed => (self.claimed_at, self.attempt) = (Some(at), self.attempt + 1),
            State::Unknown => self.claimed_at = self.claimed_at.or(Some(at)),
            State::Sent => self.sent_at = Some(at),
            State::Delivered | State::Failed | State::Skipped => self.settled_at = Some(at),
        }
    }
}

/// The keys of the index: what is due when, and which messages went to whom.
struct Index;

impl Index {
    fn ready(medium: Medium) -> Vec<u8> {
        vec![b'r', medium as u8]
    }

    fn unsettled() -> Vec<u8> {
        vec![b'u']
    }

    fn person(id: &str) -> Vec<u8> {
        [b"p", id.as_bytes(), b"\0"].concat()
    }

    fn destination(hash: &str) -> Vec<u8> {
        [b"d", hash.as_bytes(), b"\0"].concat()
    }

    fn provider(id: &str) -> Vec<u8> {
        [b"i", id.as_bytes()].concat()
    }

    fn entries(message: &Message) -> BTreeSet<Vec<u8>> {
        let key = message.key.as_str().as_bytes();
        // Times are not before 1970, so their bytes sort as they do.
        let time = message.not_before.0.max(0).to_be_bytes();
        let mut entries = BTreeSet::from([[&Index::person(&message.person_id.0), key].concat()]);
        if !message.destination_hash.is_empty() {
            entries.insert([&Index::destination(&message.destination_hash), key].concat());
        }
        match message.state {
            State::Queued => drop(entries.insert([&Index::ready(message.medium)[..], &time, key].concat())),
            State::Claimed | State::Unknown => drop(entries.insert([&Index::unsettled()[..], &time, key].concat())),
            _ => {}
        }
        if let Some(id) = &message.provider_id {
            entries.insert(Index::provider(id));
        }
        entries
    }

    fn time_and_key(rest: &[u8]) -> Option<(Micros, &[u8])> {
        let (time, key) = rest.split_at_checked(8)?;
        Some((Micros(i64::from_be_bytes(time.try_into().ok()?)), key))
    }
}

/// With an empty source the prefix of all words on the destination.
fn suppression_key(medium: Medium, destination: &str, source: &str) -> Vec<u8> {
    [medium.as_str().as_bytes(), b"\0", destination.as_bytes(), b"\0", source.as_bytes()].concat()
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, ActivateError> {
    serde_json::to_vec(value).map_err(|source| ActivateError::Encoding { what, source })
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ActivateError> {
    serde_json::from_slice(bytes).map_err(|source| ActivateError::Damaged { what: "an entry of the outbox", source })
}

fn pack(envelope: &Envelope) -> Result<Vec<u8>, ActivateError> {
    postcard::to_stdvec(envelope).map_err(ActivateError::Packing)
}

fn unpack(bytes: &[u8]) -> Result<Envelope, ActivateError> {
    postcard::from_bytes(bytes).map_err(ActivateError::Packing)
}
