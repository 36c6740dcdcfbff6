//! `POST /v1/sql`: a query in, its answer as a stream of bytes.

use std::{future::Future, io, panic::AssertUnwindSafe, str::FromStr};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{App, caught_up};
use crate::{
    base::Micros,
    engine::{
        Kind, SqlError,
        output::{self, WriteError},
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    query: String,
    #[serde(default = "json")]
    format: String,
}

fn json() -> String {
    "json".to_owned()
}

/// Pieces of an answer that wait for a slow reader; more, and the query waits.
const PIECES_AHEAD: usize = 8;
const PIECE_BYTES: usize = 64 << 10;

pub async fn answer(State(app): State<App>, Json(query): Json<Query>) -> Response {
    let format = match output::Format::from_str(&query.format) {
        Ok(format) => format,
        Err(told) => return (StatusCode::BAD_REQUEST, format!("{told}\n")).into_response(),
    };
    if let Err(not_yet) = caught_up(&app).await {
        return not_yet;
    }
    let session = match app.instance.session(Micros::now()) {
        Ok(session) => session,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let rows = match session.query(&query.query).await {
        Ok(rows) => rows,
        Err(error) => return refused(&error),
    };
    let mut ready = pieces(|writer| output::write(rows, format, writer));
    // The first piece decides between an answer and an error, so that a query that fails at once says so.
    match ready.recv().await {
        Some(Err(WriteError::Query(error))) => refused(&error),
        Some(Err(error)) => {
            tracing::error!("an answer could not be written: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        first => {
            let rest = stream::unfold((first, ready), |(first, mut ready)| async move {
                let piece = match first {
                    Some(piece) => piece,
                    None => ready.recv().await?,
                };
                // The status is sent: only a connection that breaks off tells the reader that the answer is not whole.
                if let Err(error) = &piece {
                    tracing::warn!("an answer broke off: {error}");
                }
                Some((piece, (None, ready)))
            });
            ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(rest)).into_response()
        }
    }
}

/// What `write` writes, as it comes, on a task of its own. One that panics has not ended: an error comes last.
fn pieces<W>(write: impl FnOnce(Pieces) -> W) -> mpsc::Receiver<Result<Bytes, WriteError>>
where
    W: Future<Output = Result<u64, WriteError>> + Send + 'static,
{
    let (pieces, ready) = mpsc::channel(PIECES_AHEAD);
    let writing = write(Pieces { pieces: pieces.clone(), piece: Vec::with_capacity(PIECE_BYTES) });
    let writing = async move {
        let panicked = |_| {
            Err(SqlError::internal("writing the answer stopped by a fault; please report it with the query").into())
        };
        if let Err(error) = AssertUnwindSafe(writing).catch_unwind().await.unwrap_or_else(panicked) {
            drop(pieces.send(Err(error)).await);
        }
    };
    tokio::spawn(writing.boxed());
    ready
}

fn refused(error: &SqlError) -> Response {
    let status = match error.kind {
        Kind::User => StatusCode::BAD_REQUEST,
        Kind::Limit => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Internal => {
            tracing::error!("a query failed by our fault: {error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, format!("{error}\n")).into_response()
}

/// Cuts what is written into pieces for a connection.
struct Pieces {
    pieces: mpsc::Sender<Result<Bytes, WriteError>>,
    piece: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece).into();
        let sent = tokio::task::block_in_place(|| self.pieces.blocking_send(Ok(piece)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_whose_writing_panics_does_not_look_whole() {
        let mut ready = pieces(|mut writer| async move {
            writer.write_all(b"a,b\n")?;
            writer.flush()?;
            if writer.piece.is_empty() {
                panic!("a fault");
            }
            Ok(0)
        });
        assert_eq!(ready.recv().await.unwrap().unwrap(), "a,b\n");
        let told = ready.recv().await.unwrap().unwrap_err().to_string();
        assert!(told.contains("please report it"), "{told}");
        assert!(ready.recv().await.is_none());
    }
}
