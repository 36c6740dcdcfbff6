//! A person is forgotten: their facts are counted on, and only hashes say whose they are.
//!
//! ```text
//! note that it was asked ──► record in the log ──► loaded: nothing is told of them, nobody writes to them
//!     ──► events, input that was set aside ──► tables, where they hold a text ──► old files, the log
//!     ──► their key ──► the note goes
//! ```
//!
//! What is cut off is gone on with: the texts to look for go last.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Instance, OpsError};
use crate::{
    base::{Micros, Progress, progress::Silent},
    facts::erasure::Erasure,
    load::{self, Sought, redact, sweep},
};

/// What an erasure came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Whom, by the ids under which they are counted on.
    pub people: Vec<String>,
    /// Identifiers of theirs of which nothing is told any more.
    pub identifiers: u64,
    /// Events whose payloads lost something.
    pub events: u64,
    /// Input that was set aside and lost something.
    pub quarantined: u64,
    /// Addresses, phones and names that were kept for messages.
    pub contacts: u64,
    /// Where else it may stand: what only others can see to.
    pub elsewhere: Vec<String>,
}

/// In the store until all is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Asked {
    livemode: bool,
    at: Micros,
    erasure: Erasure,
    /// Events are being rewritten: what tables were made of may be gone from there.
    #[serde(default)]
    redacting: bool,
}

impl Instance {
    /// Forgets `person`: an id (`per_…`), an e-mail address, a phone that nobody shares, or any id that named them.
    ///
    /// # Errors
    /// Nobody, or more than one, is known by it; a disk that fails. What was begun is gone on with by upkeep, by the next command,
    /// or by asking again.
    pub async fn erase(&self, person: &str, progress: &dyn Progress) -> Result<Erased, OpsError> {
        self.load(&Silent).await?;
        let at = Micros::now();
        let mut batch = self.store.batch();
        for (livemode, component) in self.whom(person.trim()).await? {
            let asked = Asked { livemode, at, erasure: self.known(livemode, &component)?, redacting: false };
            let name = format!("{livemode}:{}", asked.erasure.person_id).into_bytes();
            // One that was cut off knows how far it came.
            if !self.erasures.contains(&name)? {
                batch.put(&self.erasures, name, serde_json::to_vec(&asked).map_err(unwritable)?);
            }
        }
        batch.commit_durable()?;
        self.finish_erasures(progress).await
    }

    /// Goes on with what was asked for and is not done; what fails is told, and tried again later.
    pub async fn resume_erasures(&self) {
        // Whoever is at it will come to the end of it.
        if self.erasures.prefix(b"").next().is_none() || self.forgetting.try_lock().is_err() {
            return;
        }
        tracing::warn!("somebody is to be forgotten, and it was cut off: that is gone on with");
        if let Err(error) = self.finish_erasures(&Silent).await {
            tracing::error!("somebody is still to be forgotten: {error}");
        }
    }

    async fn finish_erasures(&self, progress: &dyn Progress) -> Result<Erased, OpsError> {
        let _only = self.forgetting.lock().await;
        let mut asked: Vec<(Vec<u8>, Asked)> = Vec::new();
        for entry in self.erasures.prefix(b"") {
            let (name, value) = entry?;
            asked.push((name.to_vec(), serde_json::from_slice(&value).map_err(unwritable)?));
        }
        if asked.is_empty() {
            return Ok(Erased::default());
        }
        progress.begin("Forgetting", None, "steps");
        for (_, Asked { livemode, at, erasure, .. }) in &asked {
            let record = erasure.envelope(*livemode, *at).map_err(unwritable)?;
            self.log.append(vec![record]).await?;
        }
        self.log.catch_up().await?;
        self.load_and_commit().await?;
        let mut done = Erased::default();
        let (mut sought, mut owners) = (Vec::new(), HashSet::new());
        for (_, Asked { livemode, erasure, .. }) in &asked {
            sought.push(self.sought(erasure, *livemode).await?);
            owners.extend(self.owners(erasure));
            done.people.push(erasure.person_id.0.clone());
            done.identifiers += erasure.identifiers.len() as u64;
        }
        let was_cut_off = asked.iter().any(|(_, asked)| asked.redacting);
        let mut begun = self.store.batch();
        for (name, asked) in &asked {
            let asked = Asked { redacting: true, ..asked.clone() };
            begun.put(&self.erasures, name.as_slice(), serde_json::to_vec(&asked).map_err(unwritable)?);
        }
        begun.commit_durable()?;
        self.forget(sought, was_cut_off, &mut done).await?;
        // Last, as it tells what to look for.
        let vault = self.vault.clone();
        done.contacts = load::blocking(move || Ok(vault.forget(&owners)?)).await? as u64;
        let mut batch = self.store.batch();
        asked.into_iter().for_each(|(name, _)| batch.delete(&self.erasures, name));
        batch.commit_durable()?;
        progress.end(&format!("{} events redacted", done.events));
        done.people.dedup();
        done.elsewhere = self.elsewhere();
        Ok(done)
    }

    /// Takes what tells who they are out of events, input that was set aside, tables and log.
    async fn forget(&self, sought: Vec<Sought>, was_cut_off: bool, done: &mut Erased) -> Result<(), OpsError> {
        let redacted = {
            let _raw = self.reading_raw.write().await;
            redact(&self.lake, &self.decoder(), sought).await?
        };
        (done.events, done.quarantined) = (redacted.events, redacted.quarantined);
        load::note_versions(&self.lake, &self.store)?;
        if redacted.in_tables || was_cut_off {
            self.rebuild(&[], &Silent).await?;
        }
        sweep(&self.lake).await?;
        load::note_versions(&self.lake, &self.store)?;
        let end = self.log.begin_segment().await?;
        Ok(self.loader.lock().await.empty_log(end).await?)
    }

    fn elsewhere(&self) -> Vec<String> {
        let topic = "the topic that keeps the log, until its retention ends, and other directories that read it: erase there too";
        let senders = "Stripe, Klaviyo and whoever else sent it: what they send of this person again is redacted when it is loaded";
        let copies = "backups, and what was exported";
        let topic = self.log.is_shared().then_some(topic);
        topic.into_iter().chain([senders, copies]).map(str::to_owned).collect()
    }
}

fn unwritable(error: serde_json::Error) -> OpsError {
    OpsError::Told(format!("what is to be forgotten cannot be written down or read back: {error}"))
}
