//! The embedded log, opened: its queue, its one writer and what they share.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    Appended, Options,
    error::{AppendError, LogError},
    index::Index,
    recover,
    request::{self, Request},
    shared::{LogSize, Shared},
    writer,
};
use crate::{
    base::{Envelope, Identity, Offset},
    store::Store,
};

pub(super) struct Embedded {
    pub shared: Arc<Shared>,
    index: Index,
    /// Room in the queue. Waiters are served in the order in which they came.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    pub fn open(dir: &Path, store: &Store, options: Options) -> Result<Embedded, LogError> {
        let index = Index::open(store)?;
        let recovered = recover::recover(dir, &index, options.held, options.disk.as_ref())?;
        let shared = Arc::new(Shared::new(dir, recovered.segments, recovered.end));
        recover::catch_up(&shared, &index)?;
        let queue_bytes = options.queue_bytes.clamp(1, u32::MAX as usize);
        let (queue, requests) = mpsc::channel();
        let writer = writer::start(shared.clone(), index.clone(), recovered.active, options, requests)?;
        Ok(Embedded {
            shared,
            index,
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    pub async fn append(&self, envelopes: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        let mut answers = Vec::new();
        for part in request::parts(envelopes) {
            let (request, answer) = request::prepare(&part)?;
            let room = self.room.clone().acquire_many_owned(self.cost(&request)).await;
            self.send(request.with_room(room.map_err(|_| AppendError::Closed)?))?;
            answers.push(answer);
        }
        gather(answers).await
    }

    pub async fn offer(&self, envelopes: &[Envelope]) -> Result<Vec<Appended>, AppendError> {
        let (request, answer) = request::prepare(envelopes)?;
        let room = self.room.clone().try_acquire_many_owned(self.cost(&request));
        self.send(request.with_room(room.map_err(|_| AppendError::Full)?))?;
        gather(vec![answer]).await
    }

    pub async fn begin_segment(&self) -> Result<Offset, AppendError> {
        let (request, answer) = request::new_segment();
        self.send(request)?;
        match gather(vec![answer]).await?.first() {
            Some(Appended::Stored(begins)) => Ok(*begins),
            _ => Err(AppendError::Closed),
        }
    }

    pub fn trim(&self, before: Offset, at_once: bool) -> Result<u64, LogError> {
        let known = self.index.sync()?;
        self.shared.trim(before.min(known), at_once)
    }

    pub fn restore(&self, events: &[(Identity<'_>, Offset)]) -> Result<(), LogError> {
        Ok(self.index.restore(events)?)
    }

    pub fn size(&self) -> LogSize {
        let segments = self.shared.segments();
        LogSize {
            queued_bytes: self.queue_bytes.saturating_sub(self.room.available_permits()) as u64,
            kept_bytes: segments.iter().map(|s| s.durable().1).sum(),
            segments: segments.len() as u64,
        }
    }

    fn cost(&self, request: &Request) -> u32 {
        u32::try_from(request.bytes().min(self.queue_bytes)).unwrap_or(u32::MAX)
    }

    fn send(&self, request: Request) -> Result<(), AppendError> {
        self.shared.check()?;
        let queue = self.queue.as_ref().ok_or(AppendError::Closed)?;
        queue.send(request).map_err(|_| AppendError::Closed)
    }
}

async fn gather(
    answers: Vec<oneshot::Receiver<Result<Vec<Appended>, AppendError>>>,
) -> Result<Vec<Appended>, AppendError> {
    let mut all = Vec::new();
    for answer in answers {
        all.append(&mut answer.await.map_err(|_| AppendError::Closed)??);
    }
    Ok(all)
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer ended abnormally; what was acknowledged is on disk");
        }
    }
}
