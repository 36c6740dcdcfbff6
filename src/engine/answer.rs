//! A query's rows as they come: bounded in memory, time and number, and stopped when dropped.
//!
//! The query runs on the engine's threads and hands over batches through a channel of two, so a slow reader slows the
//! query down and fills nothing. The deadline is kept by the reader's own clock: a query that never yields still ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::DataFusionError,
    execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::{FutureExt, Stream, StreamExt};
use tokio::{
    runtime::Runtime,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, Sleep},
};

use super::{Limits, error::SqlError};

/// A task of the engine that ends with its owner.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, SqlError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx).map_err(|_| {
            SqlError::internal("the query stopped by a fault of the engine; please report it with the query")
        })
    }
}

/// Plans on a thread of its own until the plan is made, `deadline` passes or the caller goes away. Not on the threads
/// that run queries: planning never yields, and a plan that takes long must not hold up queries that run.
pub(super) async fn plan<T: Send + 'static>(
    runtime: &Runtime,
    limits: Limits,
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
) -> Result<T, SqlError> {
    let handle = runtime.handle().clone();
    let task = Task(runtime.spawn_blocking(move || handle.block_on(work)));
    match deadline {
        Some(at) => tokio::time::timeout_at(at, task).await.map_err(|_| too_long(limits))??,
        None => task.await?,
    }
}

/// The rows of one query. A stream of batches; nothing comes after an error.
pub struct Answer {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    /// `None` once the answer has ended.
    task: Option<Task<()>>,
    limits: Limits,
    timer: Option<Pin<Box<Sleep>>>,
    rows: u64,
}

/// Batches that wait for a slow reader.
const WAITING: usize = 2;

impl Answer {
    /// Starts to read `stream`. `explain` puts its failures into words.
    pub(super) fn new(
        runtime: &Runtime,
        stream: SendableRecordBatchStream,
        limits: Limits,
        deadline: Option<Instant>,
        explain: impl Fn(&DataFusionError) -> SqlError + Send + 'static,
    ) -> Answer {
        let schema = stream.schema();
        let (sender, batches) = mpsc::channel(WAITING);
        let task = runtime.spawn(async move {
            let mut stream = stream;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|e| explain(&e));
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    break;
                }
            }
        });
        let timer = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Answer { schema, batches, task: Some(Task(task)), limits, timer, rows: 0 }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// As DataFusion's own stream, which writes of tables take.
    pub fn into_stream(self) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let batches = self.map(|batch| batch.map_err(|e| DataFusionError::External(Box::new(e))));
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    /// All rows at once.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, SqlError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }

    fn take(&mut self, batch: RecordBatch) -> Result<RecordBatch, SqlError> {
        self.rows += batch.num_rows() as u64;
        match self.limits.rows {
            Some(most) if self.rows > most => Err(SqlError::limit(format!(
                "the answer has more than {most} rows: add LIMIT, aggregate, or raise the row limit"
            ))),
            _ => Ok(batch),
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch, SqlError>>> {
        let Some(task) = self.task.as_mut() else { return Poll::Ready(None) };
        if self.timer.as_mut().is_some_and(|timer| timer.poll_unpin(cx).is_ready()) {
            return Poll::Ready(Some(Err(too_long(self.limits))));
        }
        match ready!(self.batches.poll_recv(cx)) {
            Some(batch) => Poll::Ready(Some(batch.and_then(|b| self.take(b)))),
            // The channel also closes when the task panics.
            None => Poll::Ready(ready!(task.poll_unpin(cx)).err().map(Err)),
        }
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch, SqlError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.poll_batch(cx));
        if !matches!(next, Some(Ok(_))) {
            self.task = None;
        }
        Poll::Ready(next)
    }
}

fn too_long(limits: Limits) -> SqlError {
    let limit = limits.time.unwrap_or_default();
    SqlError::limit(format!(
        "the query ran longer than its limit of {limit:?}: read fewer rows, or raise [engine] time_limit"
    ))
}
