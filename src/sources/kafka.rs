//! Topics of the merchant's own, whose records are events: read under a consumer group, whose positions are committed only
//! behind what the log holds.
//!
//! What must hold: a record is committed when it was appended, and no earlier. So whoever is cut off, or was paused so long
//! that another took its partitions, reads records again or leaves them to be read again; the log has each event once. A
//! record that is no event is kept like any other input, and its reason names topic, partition and offset.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Rejected, decode};
use crate::{
    base::{Envelope, Micros, Source},
    config,
};

/// Records appended together: one sync, one commit.
const GROUP: usize = 2_000;
const GROUP_BYTES: usize = 8 << 20;
/// Before a topic that is not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Before JSON that a schema registry's serialiser wrote: a zero, which no JSON begins with, and the schema's number.
const REGISTRY_HEADER: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error("see [kafka] brokers and properties: {0}")]
    Client(KafkaError),
    #[error("the topics of [kafka] cannot be read: {0}")]
    Read(KafkaError),
    #[error("how far the topics of [kafka] were read cannot be committed: {0}")]
    Commit(KafkaError),
}

/// A member of the group. It leaves when this is dropped.
pub struct Topics {
    consumer: Arc<StreamConsumer>,
    sources: HashMap<String, Source>,
}

/// What was read at once.
pub struct Records {
    pub envelopes: Vec<Envelope>,
    /// One past the last record of each topic and partition.
    next: HashMap<(String, i32), i64>,
    bytes: usize,
}

impl Topics {
    pub fn join(settings: &config::Kafka) -> Result<Topics, TopicsError> {
        let mut client = ClientConfig::new();
        client.extend(settings.cluster.client().map(|(name, value)| (name.to_owned(), value)));
        client
            .set("group.id", &settings.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("queued.max.messages.kbytes", (32 << 10).to_string());
        let consumer: StreamConsumer = client.create().map_err(TopicsError::Client)?;
        let names: Vec<&str> = settings.topics.iter().map(|t| t.name.as_str()).collect();
        consumer.subscribe(&names).map_err(TopicsError::Client)?;
        let sources = settings.topics.iter().map(|t| (t.name.clone(), t.source)).collect();
        Ok(Topics { consumer: Arc::new(consumer), sources })
    }

    /// The next records, as soon as there are some. May be dropped while it waits.
    pub async fn next(&self) -> Result<Records, TopicsError> {
        let mut records = Records { envelopes: Vec::new(), next: HashMap::new(), bytes: 0 };
        let first = loop {
            match self.consumer.recv().await {
                Ok(first) => break first,
                Err(error) if passes(&error) => sleep(LOOK_AGAIN).await,
                Err(error) => return Err(TopicsError::Read(error)),
            }
        };
        self.add(&mut records, &first);
        while records.envelopes.len() < GROUP
            && records.bytes < GROUP_BYTES
            && let Some(Ok(more)) = self.consumer.recv().now_or_never()
        {
            self.add(&mut records, &more);
        }
        Ok(records)
    }

    /// To be called when the log has them. Where another member has the partitions by now, it reads them again.
    pub async fn commit(&self, records: Records) -> Result<(), TopicsError> {
        let mut positions = TopicPartitionList::new();
        for ((topic, partition), next) in &records.next {
            let put = positions.add_partition_offset(topic, *partition, Offset::Offset(*next));
            put.map_err(TopicsError::Commit)?;
        }
        let consumer = self.consumer.clone();
        let committed = spawn_blocking(move || consumer.commit(&positions, CommitMode::Sync)).await;
        match committed.unwrap_or(Err(KafkaError::Canceled)) {
            Err(error) if is_anothers(&error) => {
                tracing::info!(
                    "partitions of [kafka] topics went to another member of the group, which reads on: {error}"
                );
                Ok(())
            }
            done => done.map_err(TopicsError::Commit),
        }
    }

    fn add(&self, records: &mut Records, message: &BorrowedMessage<'_>) {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        records.next.insert((topic.to_owned(), partition), offset + 1);
        let Some(source) = self.sources.get(topic).copied() else { return };
        let value = message.payload().unwrap_or_default();
        records.bytes += value.len();
        let now = Micros::now();
        // What has no time of its own happened when it was written.
        let written = message.timestamp().to_millis().map_or(now, |ms| Micros(ms.saturating_mul(1000)).min(now));
        let event = decode(source, &json(value), written);
        records.envelopes.push(event.unwrap_or_else(|why| {
            let why = Rejected::Record { topic: topic.to_owned(), partition, offset, why: Box::new(why) };
            why.envelope(source, value, now)
        }));
    }
}

fn json(value: &[u8]) -> Bytes {
    let framed = value.first() == Some(&0) && value.len() > REGISTRY_HEADER;
    Bytes::copy_from_slice(if framed { &value[REGISTRY_HEADER..] } else { value })
}

/// The client goes on by itself, or the topic may come yet.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, OperationTimedOut, RequestTimedOut, Resolve, UnknownTopic,
        UnknownTopicOrPartition,
    };
    let passing = [
        AllBrokersDown,
        BrokerTransportFailure,
        OperationTimedOut,
        RequestTimedOut,
        Resolve,
        UnknownTopic,
        UnknownTopicOrPartition,
    ];
    let passes = error.rdkafka_error_code().is_some_and(|code| passing.contains(&code));
    if passes {
        tracing::warn!("the topics of [kafka] cannot be read now: {error}");
    }
    passes
}

/// Whether the group has moved on without us.
fn is_anothers(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AssignmentLost, IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    let moved = [AssignmentLost, IllegalGeneration, RebalanceInProgress, UnknownMemberId];
    error.rdkafka_error_code().is_some_and(|code| moved.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_s_serialiser_puts_before_is_left_out() {
        assert_eq!(json(b"\0\0\0\0\x07{\"a\":1}"), b"{\"a\":1}".as_slice());
        assert_eq!(json(b"{\"a\":1}"), b"{\"a\":1}".as_slice());
        assert_eq!(json(b"\0"), b"\0".as_slice());
        assert_eq!(json(b""), b"".as_slice());
    }
}
