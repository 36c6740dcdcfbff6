//! Envelopes into the topic: what a record is, and when it counts as delivered.
//!
//! A record's key is [`partition_key`]; its value is four bytes that say whose it is and in which format, and then the
//! body that events have in the embedded log ([`record`]). The producer is idempotent, so that its own retries double nothing and
//! keep the order; a record that was not acknowledged in time may still be in the topic, and is a duplicate when its sender
//! sends it again.

use std::{
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use tokio::time::sleep;

use super::waiting::Mark;
use crate::{
    base::{Envelope, Source},
    facts::partition_key,
    log::{error::AppendError, record},
};

/// Of a record. The first byte occurs in no UTF-8 text, the last is the format.
const MAGIC: [u8; 4] = [0xf5, b'T', b'S', 1];
/// The partition of our own records: of two claims of one message every reader finds the same one first, however many
/// partitions there are by then.
const OWN: i32 = 0;
/// The header under which a record carries its [`Mark`].
pub(super) const MARK: &str = "tillstream";
/// Of one record: an event of a webhook is a megabyte at most, an imported order with thousands of lines several.
pub(super) const LARGEST: usize = 16 << 20;
/// Senders of webhooks wait 10 s and more for an answer.
const DELIVERY: Duration = Duration::from_secs(8);
/// Before it is tried again to put a record into a full queue.
const QUEUE_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Sender {
    client: ClientConfig,
    topic: String,
    producer: RwLock<Producing>,
}

type Producing = FutureProducer<Refusals>;

/// Tells why brokers turn us away, of which all that is asked of them only says that they cannot be reached.
#[derive(Default)]
struct Refusals(Mutex<Option<Instant>>);

/// Every try to connect is refused, and there is one a second and broker.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl ClientContext for Refusals {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{Authentication, SSL};
        if !matches!(error.rdkafka_error_code(), Some(Authentication | SSL)) {
            return;
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            *told = Some(Instant::now());
            tracing::error!("the brokers of [log] refuse the connection, see [log] properties: {reason}");
        }
    }
}

impl Sender {
    pub fn new(client: &ClientConfig, topic: &str) -> KafkaResult<Sender> {
        let mut client = client.clone();
        if client.get("compression.type").or(client.get("compression.codec")).is_none() {
            client.set("compression.type", "lz4");
        }
        client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("message.max.bytes", LARGEST.to_string())
            .set("queue.buffering.max.kbytes", (64 << 10).to_string())
            // Events that come at once share a request; more would only delay their answers.
            .set("queue.buffering.max.ms", "2")
            // As other clients partition by key, should one be used to read the topic.
            .set("partitioner", "murmur2_random");
        let producer = RwLock::new(client.create_with_context(Refusals::default())?);
        Ok(Sender { client, topic: topic.to_owned(), producer })
    }

    /// Returns when the topic has all records; `wait`: for room in the queue, where there is none.
    pub async fn send<'a>(
        &self,
        records: impl Iterator<Item = (&'a Envelope, Option<Mark>)>,
        wait: bool,
    ) -> Result<(), AppendError> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut delivered = Vec::new();
        for (envelope, mark) in records {
            let (key, value) = (partition_key(envelope), encode(envelope)?);
            let mut record = FutureRecord::to(&self.topic).key(&key).payload(&value);
            record.partition = (envelope.source == Source::Tillstream).then_some(OWN);
            if let Some(mark) = &mark {
                record = record.headers(OwnedHeaders::new().insert(Header { key: MARK, value: Some(mark) }));
            }
            delivered.push(self.queue(&producer, record, wait).await?);
        }
        for delivery in delivered {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(self.failed(&producer, &error)),
                Err(_) => return Err(AppendError::Closed),
            }
        }
        Ok(())
    }

    async fn queue(
        &self,
        producer: &Producing,
        mut record: FutureRecord<'_, String, Vec<u8>>,
        wait: bool,
    ) -> Result<DeliveryFuture, AppendError> {
        loop {
            record = match producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if wait => back,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return Err(AppendError::Full),
                Err((error, _)) => return Err(self.failed(producer, &error)),
            };
            sleep(QUEUE_LOOK).await;
        }
    }

    /// A producer that lost count of its records with the brokers says so, and takes no more: the next one begins anew.
    fn failed(&self, producer: &Producing, error: &KafkaError) -> AppendError {
        let mut reason = format!("the brokers did not take it: {error}");
        if let Some((_, why)) = producer.client().fatal_error() {
            reason = format!("{reason} ({why})");
            let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
            if current.client().fatal_error().is_some() {
                match self.client.create_with_context(Refusals::default()) {
                    Ok(new) => *current = new,
                    Err(error) => tracing::error!("no new producer could be made: {error}"),
                }
            }
        }
        AppendError::Write { reason }
    }
}

fn encode(envelope: &Envelope) -> Result<Vec<u8>, AppendError> {
    let mut value = Vec::with_capacity(MAGIC.len() + envelope.payload.len() + 256);
    value.extend_from_slice(&MAGIC);
    let value = record::encode(envelope, value).map_err(|e| AppendError::Write { reason: e.to_string() })?;
    // The producer counts some bytes of its own.
    if value.len() > LARGEST - 1024 {
        let (event_id, bytes) = (envelope.event_id.clone(), value.len());
        return Err(AppendError::TooLarge { event_id, bytes, limit: LARGEST });
    }
    Ok(value)
}

/// What a record of the topic is.
pub(super) enum Decoded {
    Event(Box<Envelope>),
    /// Somebody else wrote it.
    Foreign,
    /// A later version wrote it.
    Newer,
}

pub(super) fn decode(value: &[u8]) -> Decoded {
    match value.split_at_checked(MAGIC.len()) {
        Some((magic, body)) if magic == MAGIC => {
            record::decode(&Bytes::copy_from_slice(body)).map_or(Decoded::Foreign, |e| Decoded::Event(Box::new(e)))
        }
        Some((magic, _)) if magic[..3] == MAGIC[..3] => Decoded::Newer,
        _ => Decoded::Foreign,
    }
}
