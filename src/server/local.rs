//! The commands of this machine, over the socket in the data directory. Whoever may open that file owns the directory,
//! so no token is asked.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, Request as HttpRequest, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::{App, sql};
use crate::{
    base::{Progress, Source},
    ops::{Line, OpsError, Reply, Request},
    sources::orders::OrdersMapping,
};

pub fn routes(app: App) -> Router {
    Router::new()
        .route("/local/ping", get(|| async { StatusCode::NO_CONTENT }))
        .route("/local/perform", post(perform))
        .route("/local/ingest", post(ingest))
        .route("/local/sql", post(sql::answer))
        .with_state(app)
}

async fn perform(State(app): State<App>, Json(request): Json<Request>) -> Response {
    told(app, move |app, progress| async move { app.instance.perform(request, &*progress).await })
}

#[derive(Deserialize)]
struct Upload {
    source: String,
    /// `OrdersMapping` as JSON.
    mapping: String,
}

/// Events in the request's body, for whoever pipes them in.
async fn ingest(State(app): State<App>, Query(upload): Query<Upload>, request: HttpRequest) -> Response {
    let wrong = |told: String| (StatusCode::BAD_REQUEST, told).into_response();
    let source = match upload.source.parse::<Source>() {
        Ok(source) => source,
        Err(error) => return wrong(error.to_string()),
    };
    let mapping: OrdersMapping = match serde_json::from_str(&upload.mapping) {
        Ok(mapping) => mapping,
        Err(error) => return wrong(error.to_string()),
    };
    let (pieces, body) = mpsc::channel::<io::Result<Bytes>>(16);
    let mut data = request.into_body().into_data_stream();
    let reading = async move {
        while let Some(piece) = data.next().await {
            if pieces.send(piece.map_err(io::Error::other)).await.is_err() {
                break;
            }
        }
    };
    tokio::spawn(reading.boxed());
    told(app, move |app, progress| async move {
        let reader = Box::new(Pieces { body, left: Bytes::new() });
        app.instance.ingest_stream(source, reader, mapping, &*progress).await.map(Reply::Ingested)
    })
}

/// Starts the work, and answers with a line for each thing that it tells.
fn told<F, Fut>(app: App, work: F) -> Response
where
    F: FnOnce(App, Arc<Telling>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Reply, OpsError>> + Send,
{
    let (lines, heard) = mpsc::unbounded_channel::<Line>();
    let performing = async move {
        let telling = Arc::new(Telling(lines.clone()));
        let line = match work(app, telling).await {
            Ok(reply) => Line::Reply(Box::new(reply)),
            Err(error) => Line::Failed { message: error.to_string(), of_the_words: error.is_of_the_words() },
        };
        if lines.send(line).is_err() {
            tracing::info!("a command went away before its work was done; the work is done");
        }
    };
    tokio::spawn(performing.boxed());
    let body = stream::unfold(heard, |mut heard| async move {
        let line = heard.recv().await?;
        let mut text = Vec::new();
        let written = serde_json::to_writer(&mut text, &line).is_ok() && text.write_all(b"\n").is_ok();
        written.then(|| (Ok::<_, Infallible>(Bytes::from(text)), heard))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

struct Telling(UnboundedSender<Line>);

impl Telling {
    fn tell(&self, line: Line) {
        // A command that went away hears nothing; its work goes on.
        drop(self.0.send(line));
    }
}

impl Progress for Telling {
    fn begin(&self, stage: &str, total: Option<u64>, unit: &str) {
        self.tell(Line::Begin { stage: stage.to_owned(), total, unit: unit.to_owned() });
    }

    fn at(&self, done: u64) {
        self.tell(Line::At { done });
    }

    fn end(&self, summary: &str) {
        self.tell(Line::End { summary: summary.to_owned() });
    }
}

/// A body that arrives, read by a thread that waits for it.
struct Pieces {
    body: mpsc::Receiver<io::Result<Bytes>>,
    left: Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.body.blocking_recv() {
                // A body that breaks off is an error, never an end: half an order is not an order.
                Some(piece) => self.left = piece?,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.left.len());
        into[..n].copy_from_slice(&self.left.split_to(n));
        Ok(n)
    }
}
