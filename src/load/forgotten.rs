//! Who asked to be forgotten, and where in the log: what comes after that links nobody to them, and is kept redacted.
//!
//! It is no part of the identity graph, which is a function of the set of claims: which claims there are depends on it, by
//! their place in the log alone, and so it is known before any other event is folded again.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::StreamExt;

use super::{LoadError, fold::Folder, folded::Folded, recall, unreadable};
use crate::{
    base::{Envelope, Logged, Offset},
    facts::{
        Decoded, Decoder, Whose, erasure,
        identity::{Attributes, Identifier, IdentityClaim},
        raw, replay,
    },
    lake::Snapshot,
    store::{Keyspace, Store, StoreError},
};

pub struct Forgotten {
    /// World and identifier -> the offset of the first record that names it.
    since: Keyspace,
    store: Store,
    /// Whether there are any: events are looked at for them only then.
    any: AtomicBool,
}

impl Forgotten {
    pub fn open(store: &Store) -> Result<Forgotten, StoreError> {
        let since = store.keyspace("forgotten")?;
        let any = AtomicBool::new(since.prefix(b"").next().is_some());
        Ok(Forgotten { since, store: store.clone(), any })
    }

    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes note of whom the record at `offset` names.
    pub fn note(&self, claim: &IdentityClaim, offset: Offset) -> Result<(), LoadError> {
        let mut batch = self.store.batch();
        for identifier in &claim.identifiers {
            let name = name(claim.livemode, identifier);
            if self.since(&name)?.is_none_or(|since| offset < since) {
                batch.put(&self.since, name, offset.0.to_be_bytes());
            }
        }
        batch.commit()?;
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// All records that `raw.events` holds.
    pub async fn recall(&self, decoder: &Decoder, source: &Snapshot) -> Result<(), LoadError> {
        use datafusion::prelude::{col, lit};

        let asked = col("type").eq(lit(erasure::RECORD));
        let Some(mut events) = recall::rows(source, raw::EVENTS, &[], Some(asked)).await? else { return Ok(()) };
        while let Some(batch) = events.next().await {
            for event in replay::events(&batch.map_err(unreadable)?).map_err(unreadable)? {
                for claim in decoder.decode(&event.envelope).into_iter().flat_map(|decoded| decoded.claims) {
                    self.note(&claim, event.offset)?;
                }
            }
        }
        Ok(())
    }

    /// Whether whom `identifier` names had asked to be forgotten before `offset`.
    pub fn is(&self, livemode: bool, identifier: &Identifier, offset: Offset) -> Result<bool, LoadError> {
        Ok(self.any() && self.since(&name(livemode, identifier))?.is_some_and(|since| since < offset))
    }

    /// What the claim of an event at `offset` says of who is one person, if anything, and whether it is of somebody forgotten:
    /// by the best of its identifiers, as a browser or an account that was theirs may be another's by now.
    pub fn heed<'a>(
        &self,
        claim: &'a IdentityClaim,
        offset: Offset,
    ) -> Result<(Option<Cow<'a, IdentityClaim>>, bool), LoadError> {
        if !self.any() {
            return Ok((Some(Cow::Borrowed(claim)), false));
        }
        let mut others = Vec::new();
        let mut theirs = false;
        for (i, identifier) in claim.identifiers.iter().enumerate() {
            match self.is(claim.livemode, identifier, offset)? {
                true => theirs |= i == 0,
                false => others.push(identifier.clone()),
            }
        }
        if others.len() == claim.identifiers.len() {
            return Ok((Some(Cow::Borrowed(claim)), false));
        }
        // What is told of somebody forgotten is not of whoever is named beside them.
        let attributes = if theirs { Attributes::default() } else { claim.attributes.clone() };
        let left = IdentityClaim { identifiers: others, attributes, ..*claim };
        Ok(((!left.identifiers.is_empty()).then_some(Cow::Owned(left)), theirs))
    }

    fn since(&self, name: &[u8]) -> Result<Option<Offset>, StoreError> {
        Ok(self.since.get(name)?.and_then(|at| Some(Offset(u64::from_be_bytes(at.as_ref().try_into().ok()?)))))
    }

    /// The entries, for whoever takes them over.
    pub(super) fn entries(&self) -> &Keyspace {
        &self.since
    }

    /// The entries were replaced.
    pub(super) fn replaced(&self) {
        self.any.store(self.since.prefix(b"").next().is_some(), Ordering::Release);
    }
}

impl Folder {
    /// Learns from `raw.events` who asked to be forgotten: to be known before events are folded that came after them.
    pub async fn recall_forgotten(&self, source: &Snapshot) -> Result<(), LoadError> {
        self.forgotten.recall(&self.decoder, source).await
    }

    /// Takes in who the event says is one person. Whether it speaks of somebody who asked to be forgotten before `stood`, where it
    /// came first.
    pub(super) fn admit_claims(
        &self,
        event: &Logged,
        stood: Offset,
        decoded: &Decoded,
        folded: &mut Folded,
    ) -> Result<bool, LoadError> {
        let stores = (&self.people, folded.below.as_ref().map(|b| &b.people));
        let mut theirs = false;
        for claim in &decoded.claims {
            if claim.erases {
                self.forgotten.note(claim, event.offset)?;
                folded.people.join(stores, claim, event.offset)?;
                continue;
            }
            let (claim, is_theirs) = self.forgotten.heed(claim, stood)?;
            theirs |= is_theirs;
            if let Some(claim) = claim {
                folded.people.join(stores, &claim, event.offset)?;
            }
        }
        if decoded.claims.is_empty() && self.forgotten.any() {
            for identifier in self.decoder.implied(&event.envelope) {
                theirs = theirs || self.forgotten.is(event.envelope.livemode, &identifier, stood)?;
            }
        }
        Ok(theirs)
    }

    /// Makes of `decoded` what the event says without what tells who it is of.
    pub(super) fn redact(&self, event: &Logged, decoded: &mut Decoded) -> Result<Option<Bytes>, LoadError> {
        let Ok(payload) = str::from_utf8(&event.envelope.payload) else { return Ok(None) };
        let mut contacts = std::mem::take(&mut decoded.contacts);
        // Wherever it stands, an address of theirs is one.
        for (identifier, contact) in self.decoder.addresses(&event.envelope) {
            if self.forgotten.is(event.envelope.livemode, &identifier, event.offset)? {
                contacts.push(contact);
            }
        }
        let Some(left) = self.decoder.redacted(payload, Whose::Theirs, &contacts) else { return Ok(None) };
        let left = Bytes::from(left);
        let envelope = Envelope { payload: left.clone(), ..event.envelope.clone() };
        if let Ok(again) = self.decoder.decode(&envelope) {
            *decoded = Decoded { contacts: Vec::new(), ..again };
        }
        Ok(Some(left))
    }
}

fn name(livemode: bool, identifier: &Identifier) -> Vec<u8> {
    let world = if livemode { 'l' } else { 't' };
    format!("{world}{}", identifier.id()).into_bytes()
}
