//! What became of a request, as far as anyone can know.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;

/// See the module. A caller that must not do a thing twice matches all three.
#[derive(Debug)]
pub enum Outcome {
    /// The server answered, and its answer tells what it did: success, or an error of the request's own (4xx).
    Sent(Response),
    /// The server certainly did nothing: it was not reached, or said 429. It is safe to try again later.
    Refused {
        why: String,
        /// When the server would have it again, where it said so.
        retry_after: Option<Duration>,
    },
    /// The server may have done it: an answer did not come, or was a failure of the server's (5xx).
    Unknown { why: String, response: Option<Response> },
}

/// A server's answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
    pub(super) headers: HeaderMap,
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}
