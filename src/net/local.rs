//! The command line's way to a `serve` that runs beside it: HTTP over `DATA/tillstream.sock`.
//!
//! Answers and uploads are streams: a query's result or a file of events never lies in memory as a whole. Nothing is
//! tried again here: the user sees the error and decides.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{NetError, describe};

/// A process that owns the socket accepts at once; one that hangs must not hang the command too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Read from an uploaded file and handed on at once.
const CHUNK: usize = 256 * 1024;

/// Talks to the owner of a data directory.
#[derive(Clone)]
pub struct LocalClient {
    http: reqwest::Client,
    socket: PathBuf,
}

/// What a request carries.
pub enum Upload {
    Json(serde_json::Value),
    Stdin,
}

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No process listens: the caller may take the directory itself.
    #[error("nothing listens on {}", .0.display())]
    NotRunning(PathBuf),
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the connection to the running serve failed: {0}")]
    Lost(String),
}

impl LocalClient {
    pub fn new(socket: &Path) -> Result<LocalClient, NetError> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .connect_timeout(CONNECT_TIMEOUT)
            // No TLS here, so a machine without any root certificates will do.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(|e| NetError::SetUp(describe(e)))?;
        Ok(LocalClient { http, socket: socket.to_owned() })
    }

    /// `path` starts with a slash; the query is encoded here.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, LocalError> {
        self.send(self.http.get(address(path)).query(query)).await
    }

    pub async fn post(&self, path: &str, query: &[(&str, &str)], upload: Upload) -> Result<Answer, LocalError> {
        let request = self.http.post(address(path)).query(query);
        let request = match upload {
            Upload::Json(value) => request.json(&value),
            Upload::Stdin => request.body(streamed(stdin().map_err(unreadable(Path::new("stdin")))?)),
        };
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, LocalError> {
        match request.send().await {
            Ok(answer) => Ok(Answer { answer }),
            Err(e) if e.is_connect() => Err(LocalError::NotRunning(self.socket.clone())),
            Err(e) => Err(LocalError::Lost(describe(e))),
        }
    }
}

/// An answer whose body is still on its way.
pub struct Answer {
    answer: reqwest::Response,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.answer.status().is_success()
    }

    /// The next piece of the body; `None` at its end. An answer that breaks off is an error, never an end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, LocalError> {
        self.answer.chunk().await.map_err(|e| LocalError::Lost(describe(e)))
    }

    pub async fn bytes(mut self) -> Result<Bytes, LocalError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError {
    |source| LocalError::Unreadable { path: path.to_owned(), source }
}

/// Standard input as a file: read where blocking is allowed, and not at all before it is asked for.
fn stdin() -> std::io::Result<tokio::fs::File> {
    let descriptor = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(descriptor)))
}

/// The host is a name only: the socket decides who answers.
fn address(path: &str) -> String {
    format!("http://tillstream{path}")
}

fn streamed(from: impl AsyncRead + Send + Unpin + 'static) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::try_unfold(from, |mut from| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = from.read_buf(&mut chunk).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (chunk.freeze(), from)))
    }))
}
