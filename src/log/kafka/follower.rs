//! The topic into the embedded log: one thread that reads all partitions, from where each was read to, for good.
//!
//! Whatever goes wrong is told, waited for and tried again from the stored positions; only the end of the process ends it.
//! What the brokers no longer have is said and passed over, since waiting would not bring it back.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use super::{
    PATIENCE, Shared,
    positions::Positions,
    sender::{self, Decoded, MARK},
    topic,
};
use crate::{
    base::{Backoff, Envelope, Source},
    log::{Appended, embedded::Embedded},
    telemetry,
};

/// What is read goes into the embedded log in groups of about this size; one sync each.
const GROUP_BYTES: usize = 4 << 20;
/// The thread looks this often whether it is to end.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks whether the brokers answer and the topic got more partitions.
const LOOK: Duration = Duration::from_secs(5);
const AFTER_FAILURE: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

pub(super) struct Follower {
    client: ClientConfig,
    asker: Arc<BaseConsumer>,
    consumer: BaseConsumer,
    topic: String,
    embedded: Arc<Embedded>,
    positions: Positions,
    shared: Arc<Shared>,
}

/// Records that go into the embedded log together.
#[derive(Default)]
struct Group {
    events: Vec<Envelope>,
    /// Of each event, who may wait for it.
    marks: Vec<Option<Vec<u8>>>,
    bytes: usize,
    /// One past the last record of each partition, events or not.
    next: BTreeMap<i32, i64>,
}

impl Follower {
    pub fn new(
        client: ClientConfig,
        asker: Arc<BaseConsumer>,
        topic: String,
        embedded: Arc<Embedded>,
        positions: Positions,
        shared: Arc<Shared>,
    ) -> KafkaResult<Follower> {
        let consumer = consumer(&client, &topic)?;
        Ok(Follower { client, asker, consumer, topic, embedded, positions, shared })
    }

    pub fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("log-follower".into()).spawn(move || self.run())
    }

    fn run(self) {
        let mut failures = 0;
        while let Err(trouble) = self.follow(&mut failures) {
            failures += 1;
            tracing::warn!("the log's topic {} cannot be followed, which is tried again: {trouble}", self.topic);
            telemetry::work_failed("following the log's topic");
            self.shared.tell(Some(trouble));
            let until = Instant::now() + AFTER_FAILURE.wait(failures);
            while Instant::now() < until && !self.shared.is_stopped() {
                thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Until it is told to stop, or fails.
    fn follow(&self, failures: &mut u32) -> Result<(), String> {
        let mut reached = Vec::new();
        let mut looked: Option<Instant> = None;
        while !self.shared.is_stopped() {
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                let partitions = topic::partitions(&self.asker, &self.topic).map_err(|e| e.to_string())?;
                if looked.is_none() || partitions != Some(reached.len() as i32) {
                    reached = self.assign()?;
                }
                looked = Some(Instant::now());
                *failures = 0;
                self.shared.tell(None);
            }
            let group = self.gather()?;
            self.take(group, &mut reached)?;
        }
        Ok(())
    }

    /// Takes up all partitions where they were left.
    fn assign(&self) -> Result<Vec<i64>, String> {
        let partitions = topic::ensure(&self.client, &self.asker, &self.topic)?;
        let (mut list, mut reached) = (TopicPartitionList::new(), Vec::new());
        for partition in 0..partitions {
            let next = self.left_at(partition)?;
            list.add_partition_offset(&self.topic, partition, Offset::Offset(next)).map_err(|e| e.to_string())?;
            reached.push(next);
        }
        self.consumer.assign(&list).map_err(|e| e.to_string())?;
        self.shared.reached.send_replace(Some(reached.clone()));
        Ok(reached)
    }

    fn left_at(&self, partition: i32) -> Result<i64, String> {
        let topic = &self.topic;
        let watermarks = self.asker.fetch_watermarks(topic, partition, PATIENCE);
        let (first, end) = watermarks.map_err(|e| format!("partition {partition}: {e}"))?;
        match self.positions.get(partition).map_err(|e| e.to_string())? {
            Some(next) if next > end => Err(format!(
                "partition {partition} ends before {end} and was read up to {next}: its brokers lost acknowledged events, or \
                 the topic was made anew. Name a new one in [log] topic; what was read is kept"
            )),
            Some(next) if next < first => {
                tracing::error!(
                    "topic {topic}, partition {partition}: events {next} to {} were acknowledged and deleted before they \
                     were read here: the topic's retention is too short. Send them again (ingest the files, backfill)",
                    first - 1
                );
                Ok(first)
            }
            Some(next) => Ok(next),
            None => {
                if first > 0 {
                    tracing::warn!("topic {topic}, partition {partition} no longer has what came before {first}");
                }
                Ok(first)
            }
        }
    }

    /// What is there, as far as it goes into one group.
    fn gather(&self) -> Result<Group, String> {
        let mut group = Group::default();
        let mut patience = POLL;
        while group.bytes < GROUP_BYTES {
            match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => self.add(&mut group, &message)?,
                Some(Err(error)) if heals(&error) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
            patience = Duration::ZERO;
        }
        Ok(group)
    }

    fn add(&self, group: &mut Group, message: &BorrowedMessage<'_>) -> Result<(), String> {
        let (partition, offset) = (message.partition(), message.offset());
        match sender::decode(message.payload().unwrap_or_default()) {
            Decoded::Event(envelope) => {
                let headers = message.headers().into_iter().flat_map(|h| h.iter());
                let mark = headers.filter(|h| h.key == MARK).find_map(|h| h.value.map(<[u8]>::to_vec));
                group.bytes += envelope.payload.len();
                group.events.push(*envelope);
                group.marks.push(mark);
            }
            Decoded::Foreign => tracing::error!(
                "topic {}, partition {partition}: record {offset} is none of ours and is passed over: nobody else may \
                 write to the log's topic",
                self.topic
            ),
            Decoded::Newer => {
                return Err(format!("record {offset} of partition {partition} is of a newer tillstream: use that"));
            }
        }
        group.next.insert(partition, offset + 1);
        Ok(())
    }

    fn take(&self, group: Group, reached: &mut [i64]) -> Result<(), String> {
        if group.next.is_empty() {
            return Ok(());
        }
        let sources: Vec<Source> = group.events.iter().map(|e| e.source).collect();
        let answers = block_on(self.embedded.append(group.events)).map_err(|e| e.to_string())?;
        self.positions.set(&group.next).map_err(|e| e.to_string())?;
        for (partition, next) in group.next {
            if let Some(place) = usize::try_from(partition).ok().and_then(|p| reached.get_mut(p)) {
                *place = next;
            }
        }
        self.shared.reached.send_replace(Some(reached.to_vec()));
        for ((became, mark), source) in answers.into_iter().zip(group.marks).zip(sources) {
            // Whoever waits counts it as well.
            if !mark.is_some_and(|mark| self.shared.waiting.tell(&mark, became)) {
                let duplicate = u64::from(matches!(became, Appended::Duplicate(_)));
                telemetry::events_ingested(source, 1 - duplicate, duplicate);
            }
        }
        Ok(())
    }
}

fn consumer(client: &ClientConfig, topic: &str) -> KafkaResult<BaseConsumer> {
    client
        .clone()
        // Without a name nothing may be read. Nothing is committed under it and nobody joins it.
        .set("group.id", format!("{topic}.followers"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", (32 << 10).to_string())
        .create()
}

/// The client itself goes on trying to reach the brokers; whether they answer is looked at every so often.
fn heals(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, RequestTimedOut, Resolve};
    let passing = [AllBrokersDown, BrokerTransportFailure, OperationTimedOut, RequestTimedOut, Resolve];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}
