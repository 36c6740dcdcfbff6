//! The merchant's own Kafka topics, taken in for as long as `serve` runs.

use std::mem;

use tokio::sync::watch;

use super::{Ingested, Instance, OpsError};
use crate::sources::Topics;

impl Instance {
    /// Takes in what the topics bring, until it is told to stop. After an error it is to be called again, and begins where
    /// the log has everything.
    pub async fn take_topics(&self, mut stop: watch::Receiver<bool>) -> Result<(), OpsError> {
        if self.settings.kafka.topics.is_empty() {
            return Ok(());
        }
        let topics = Topics::join(&self.settings.kafka)?;
        loop {
            let mut records = tokio::select! {
                _ = stop.wait_for(|s| *s) => return Ok(()),
                records = topics.next() => records?,
            };
            let mut envelopes = mem::take(&mut records.envelopes);
            while let Some(source) = envelopes.first().map(|e| e.source) {
                let rest = envelopes.iter().position(|e| e.source != source).unwrap_or(envelopes.len());
                let others = envelopes.split_off(rest);
                self.take(source, mem::replace(&mut envelopes, others), &mut Ingested::default()).await?;
            }
            topics.commit(records).await?;
        }
    }
}
