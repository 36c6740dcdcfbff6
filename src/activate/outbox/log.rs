//! From the store to the log: every transition, and whose claim of a message came first.

use std::collections::HashSet;

use super::{LOG_GROUP, Outbox, unpack};
use crate::{
    activate::{error::ActivateError, key::MessageKey, record},
    log::{Appended, EventLog},
};

impl Outbox {
    /// Makes every transition so far durable: in the store, then in the log. When this returns, losing either loses no
    /// knowledge of what was sent.
    pub async fn log(&self, log: &EventLog) -> Result<(), ActivateError> {
        self.log_all(log, &mut *self.contested.lock().await).await
    }

    /// As [`Outbox::log`] does; returns those of `claimed`, which were claimed just now, that another process had claimed
    /// before.
    pub async fn log_claims<'a>(
        &self,
        log: &EventLog,
        claimed: impl Iterator<Item = &'a MessageKey>,
    ) -> Result<HashSet<String>, ActivateError> {
        let mut contested = self.contested.lock().await;
        self.log_all(log, &mut contested).await?;
        Ok(claimed.filter_map(|key| contested.take(key.as_str())).collect())
    }

    /// What was contested before is settled: to be called where nothing is claimed.
    pub async fn forget_contested(&self) {
        self.contested.lock().await.clear();
    }

    async fn log_all(&self, log: &EventLog, contested: &mut HashSet<String>) -> Result<(), ActivateError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.sync()).await??;
        loop {
            let mut keys = Vec::new();
            let mut envelopes = Vec::new();
            for entry in self.unlogged.prefix(b"").take(LOG_GROUP) {
                let (key, value) = entry?;
                envelopes.push(unpack(&value)?);
                keys.push(key);
            }
            if keys.is_empty() {
                return Ok(());
            }
            let claims: Vec<Option<String>> = envelopes.iter().map(record::claimed).collect();
            // Records that the log has already, from before a crash, are duplicates there and change nothing.
            for (claim, became) in claims.into_iter().zip(log.append(envelopes).await?) {
                contested.extend(claim.filter(|_| matches!(became, Appended::Duplicate(_))));
            }
            let mut batch = self.store.batch();
            keys.into_iter().for_each(|key| batch.delete(&self.unlogged, key));
            batch.commit()?;
        }
    }
}
