//! A person is forgotten: their facts are counted on, and nothing says any more whose they are.
//!
//! ```text
//! note that it was asked ──► record in the log ──► loaded: nobody is told of, nobody written to
//!     ──► events, input that was set aside ──► the log before it ──► their key ──► the note goes
//! ```
//!
//! What is cut off is gone on with by the next start, or by asking again: the texts to look for go last.

use serde::{Deserialize, Serialize};

use super::{Instance, OpsError};
use crate::{
    base::{Micros, Offset, Progress, progress::Silent},
    facts::erasure::Erasure,
    load::{self, Redacted, redact},
    log::Appended,
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
}

impl Instance {
    /// Forgets `person`: an id (`per_…`), an e-mail address, a phone that nobody shares, or any id that named them.
    ///
    /// # Errors
    /// Nobody, or more than one, is known by it; a disk that fails. What was begun is gone on with by the next start.
    pub async fn erase(&self, person: &str, progress: &dyn Progress) -> Result<Erased, OpsError> {
        self.load(&Silent).await?;
        let at = Micros::now();
        let mut batch = self.store.batch();
        for (livemode, component) in self.whom(person.trim()).await? {
            let Some(erasure) = Erasure::of(&component) else { continue };
            let asked = Asked { livemode, at, erasure };
            let name = format!("{livemode}:{}", asked.erasure.person_id);
            batch.put(&self.erasures, name.into_bytes(), serde_json::to_vec(&asked).map_err(unwritable)?);
        }
        batch.commit_durable()?;
        self.finish_erasures(progress).await
    }

    /// Does what was asked for and is not done.
    pub(super) async fn finish_erasures(&self, progress: &dyn Progress) -> Result<Erased, OpsError> {
        let mut done = Erased::default();
        let asked: Vec<(Vec<u8>, Asked)> = self
            .erasures
            .prefix(b"")
            .map(|entry| {
                let (name, asked) = entry?;
                Ok((name.to_vec(), serde_json::from_slice(&asked).map_err(unwritable)?))
            })
            .collect::<Result<_, OpsError>>()?;
        for (name, asked) in asked {
            self.forget(asked, &mut done, progress).await?;
            let mut batch = self.store.batch();
            batch.delete(&self.erasures, name);
            batch.commit_durable()?;
        }
        if self.log.is_shared() {
            let topic =
                "the topic that keeps the log, until its retention ends, and the end of its copy in the log folder";
            done.elsewhere.push(topic.to_owned());
        }
        done.elsewhere.push(
            "Stripe, Klaviyo and whoever else sent it: what they send again of this person is redacted as it comes"
                .to_owned(),
        );
        Ok(done)
    }

    async fn forget(&self, asked: Asked, done: &mut Erased, progress: &dyn Progress) -> Result<(), OpsError> {
        let Asked { livemode, at, erasure } = asked;
        progress.begin("Forgetting", None, "rows");
        let end = self.record(&erasure, livemode, at).await?;
        let sought = self.sought(&erasure, livemode).await?;
        let Redacted { events, quarantined } = redact(&self.lake, &self.decoder(), sought).await?;
        self.lake.publish();
        load::note_versions(&self.lake, &self.store)?;
        self.loader.lock().await.drop_log_before(end).await?;
        // Last, as it tells what to look for.
        let (vault, owners) = (self.vault.clone(), self.owners(&erasure));
        let contacts = load::blocking(move || Ok(vault.forget(&owners)?)).await?;
        progress.end(&format!("{events} events redacted"));
        done.people.push(erasure.person_id.0.clone());
        done.identifiers += erasure.identifiers.len() as u64;
        done.events += events;
        done.quarantined += quarantined;
        done.contacts += contacts as u64;
        Ok(())
    }

    /// Writes it into the log, once, and loads it; returns where what may not stay in the log ends.
    async fn record(&self, erasure: &Erasure, livemode: bool, at: Micros) -> Result<Offset, OpsError> {
        self.log.cut();
        let record = erasure.envelope(livemode, at).map_err(unwritable)?;
        let appended = self.log.append(vec![record]).await?;
        self.log.catch_up().await?;
        self.load_and_commit().await?;
        Ok(match appended.first() {
            Some(Appended::Stored(offset) | Appended::Duplicate(offset)) => *offset,
            // What brokers keep is theirs to let go of.
            Some(Appended::Delivered) | None => self.log.start(),
        })
    }
}

fn unwritable(error: serde_json::Error) -> OpsError {
    OpsError::Told(format!("what is to be forgotten cannot be written down or read back: {error}"))
}
