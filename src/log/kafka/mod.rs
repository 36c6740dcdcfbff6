//! A log that brokers keep: what is appended goes to their topic first, and comes from there into the embedded log.
//!
//! ```text
//!  append ──► producer ──► topic, in partitions ──► follower ──► embedded log ──► load, activate
//!  (any        acks=all,    by payment, the          (one a         duplicates out,
//!   process)   idempotent   copies in sync           directory)     one order
//!                 │                                      │
//!                 └─ delivered: acknowledged             └─ then how far each partition was read, in the store
//! ```
//!
//! What must always hold: an event is acknowledged only when the topic has it in as many copies as its settings demand; a
//! partition's position is stored only behind what the embedded log has on disk. So a crash anywhere reads a stretch of
//! a partition again, of which the embedded log finds the duplicates, as it finds those that a sender or the producer made.
//!
//! Each directory reads all partitions by positions of its own: no assignment by brokers can take a partition from it, and
//! a process that was paused for any time goes on where it was. Two directories that follow one topic hold the same facts.

mod follower;
mod positions;
mod sender;
mod topic;
mod waiting;

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use self::{follower::Follower, positions::Positions, sender::Sender, waiting::Waiting};
use super::{
    Appended,
    embedded::Embedded,
    error::{AppendError, LogError},
    request,
};
use crate::{base::Envelope, config::Log, store::Store};

/// Brokers that answer at all do so within this.
const PATIENCE: Duration = Duration::from_secs(3);
/// What was delivered comes back in milliseconds, unless the brokers fail right then.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Whoever appends at the very start waits this long for the brokers to be found.
const BEGINNING: Duration = Duration::from_secs(5);

/// The topic, followed. When this is dropped the follower has ended.
pub(super) struct Brokers {
    topic: String,
    /// Asks about the topic and reads none of it: a question would wait behind a request for records that are yet to come.
    asker: Arc<BaseConsumer>,
    sender: Sender,
    shared: Arc<Shared>,
    follower: Mutex<Following>,
}

enum Following {
    NotYet(Box<Follower>),
    Since(JoinHandle<()>),
    Ended,
}

/// What the follower tells.
struct Shared {
    /// Of each partition, the first offset that the embedded log does not have; `None` until the topic was found.
    reached: watch::Sender<Option<Vec<i64>>>,
    /// What hinders the follower now.
    trouble: Mutex<Option<String>>,
    waiting: Waiting,
    stop: AtomicBool,
}

impl Brokers {
    /// What is to be followed into `embedded`, from where the store says that it was read to.
    pub fn join(settings: &Log, store: &Store, embedded: Arc<Embedded>) -> Result<Brokers, LogError> {
        let mut client = ClientConfig::new();
        client.extend(settings.cluster.client().map(|(name, value)| (name.to_owned(), value)));
        let topic = settings.topic.clone();
        let asker: BaseConsumer = client.clone().set("allow.auto.create.topics", "false").create().map_err(unusable)?;
        let asker = Arc::new(asker);
        let sender = Sender::new(&client, &topic).map_err(unusable)?;
        let shared = Arc::new(Shared {
            reached: watch::Sender::new(None),
            trouble: Mutex::new(Some("its brokers were not reached yet".to_owned())),
            waiting: Waiting::new(),
            stop: AtomicBool::new(false),
        });
        let positions = Positions::open(store, &topic)?;
        let follower = Follower::new(client, asker.clone(), topic.clone(), embedded, positions, shared.clone());
        let follower = Mutex::new(Following::NotYet(Box::new(follower.map_err(unusable)?)));
        Ok(Brokers { topic, asker, sender, shared, follower })
    }

    /// Begins; once is enough.
    pub fn follow(&self) -> Result<(), LogError> {
        let mut follower = self.follower();
        match mem::replace(&mut *follower, Following::Ended) {
            Following::NotYet(idle) => {
                *follower = Following::Since(idle.start().map_err(|e| LogError::Brokers(e.to_string()))?)
            }
            begun => *follower = begun,
        }
        Ok(())
    }

    /// Returns when all of it came back from the topic and is on disk here.
    pub async fn append(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        self.begun().await?;
        let mut all = Vec::with_capacity(envelopes.len());
        for part in request::parts(envelopes) {
            let tickets: Vec<_> = part.iter().map(|_| self.shared.waiting.ticket()).collect();
            let records = part.iter().zip(tickets.iter().map(|t| Some(t.mark())));
            self.sender.send(records, true).await?;
            for ticket in tickets {
                let arrived = timeout(ARRIVAL, ticket.arrived()).await;
                all.push(arrived.unwrap_or(None).ok_or_else(|| self.held_up())?);
            }
        }
        Ok(all)
    }

    /// Returns when the topic has all of it.
    pub async fn offer(&self, envelopes: &[Envelope]) -> Result<Vec<Appended>, AppendError> {
        self.begun().await?;
        self.sender.send(envelopes.iter().map(|e| (e, None)), false).await?;
        Ok(vec![Appended::Delivered; envelopes.len()])
    }

    pub async fn catch_up(&self) -> Result<(), AppendError> {
        if matches!(*self.follower(), Following::NotYet(_)) {
            return Ok(());
        }
        self.begun().await?;
        let (asker, topic) = (self.asker.clone(), self.topic.clone());
        let ends = spawn_blocking(move || ends(&asker, &topic)).await.map_err(|_| AppendError::Closed)?;
        let ends = ends.map_err(|e| AppendError::Write { reason: format!("its brokers do not answer: {e}") })?;
        let mut reached = self.shared.reached.subscribe();
        let there = reached.wait_for(|reached| {
            let reached = reached.as_deref().unwrap_or_default();
            ends.iter().enumerate().all(|(partition, end)| reached.get(partition).is_some_and(|at| at >= end))
        });
        match timeout(ARRIVAL, there).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(AppendError::Closed),
            Err(_) => Err(self.held_up()),
        }
    }

    /// Why it takes nothing, as far as is known.
    pub fn stopped(&self) -> Option<AppendError> {
        self.shared.trouble().map(|reason| AppendError::Write { reason })
    }

    /// Nothing is sent before the topic is known to be as it must.
    async fn begun(&self) -> Result<(), AppendError> {
        let mut reached = self.shared.reached.subscribe();
        let begun = timeout(BEGINNING, reached.wait_for(Option::is_some)).await;
        if begun.is_ok_and(|b| b.is_ok()) { Ok(()) } else { Err(self.held_up()) }
    }

    fn follower(&self) -> MutexGuard<'_, Following> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_up(&self) -> AppendError {
        let reason = self.shared.trouble().unwrap_or_else(|| "it does not come back from the brokers".to_owned());
        AppendError::Write { reason }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Following::Since(follower) = mem::replace(&mut *self.follower(), Following::Ended)
            && follower.join().is_err()
        {
            tracing::error!("the follower of the log's topic ended abnormally; the next start goes on where it was");
        }
    }
}

impl Shared {
    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

fn unusable(error: KafkaError) -> LogError {
    LogError::Brokers(format!("see [log] brokers and properties: {error}"))
}

/// One past the last record of each partition.
fn ends(asker: &BaseConsumer, topic: &str) -> Result<Vec<i64>, KafkaError> {
    let gone = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let partitions = topic::partitions(asker, topic)?.ok_or(gone)?;
    (0..partitions).map(|p| Ok(asker.fetch_watermarks(topic, p, PATIENCE)?.1)).collect()
}
