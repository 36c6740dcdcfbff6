//! Sending: a turn under the limits, a try, and what its outcome allows next.
//!
//! ```text
//!                 ┌── not reached, 429 ──► nothing was done: try again, whatever the marker
//!  turn ──► try ──┤── 5xx, 408, timeout, lost ──► try again if idempotent, else Unknown at once
//!                 └── any other answer ──► Sent
//! ```

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use chrono::Utc;
use reqwest::{
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::{
    Delivery, Limit, NetError, Outcome, Request, Response, Retry, describe,
    limit::Limits,
    request::Method,
    retry::{Budget, retry_after},
};

/// How long a try may take, from its first byte to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Shorter than [`TIMEOUT`], so that a server that cannot be reached is told from one that does not answer: the first is
/// safe to try again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that idles longer is not used again: servers close idle ones after a minute or so, and a request that
/// meets the closing looks like one that was lost after it was sent.
const IDLE: Duration = Duration::from_secs(15);

/// No answer of a provider's API is longer; one that is must not fill the memory.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// What a client is made with.
#[derive(Debug, Clone)]
pub struct Options {
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub retry: Retry,
    pub limits: Vec<Limit>,
}

impl Default for Options {
    fn default() -> Self {
        Options { timeout: TIMEOUT, connect_timeout: CONNECT_TIMEOUT, retry: Retry::default(), limits: Vec::new() }
    }
}

/// See the room's head. Clones share limits, retry budget and connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    timeout: Duration,
    retry: Retry,
    limits: Limits,
    budget: Budget,
}

impl Client {
    pub fn new(options: Options) -> Result<Client, NetError> {
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(IDLE)
            .redirect(redirect::Policy::none())
            // Ours is the only retry: the library's does not know what may be done twice.
            .retry(reqwest::retry::never())
            .user_agent(concat!("tillstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| NetError::SetUp(describe(e)))?;
        let limits = Limits::new(options.limits);
        let Options { timeout, retry, .. } = options;
        Ok(Client { inner: Arc::new(Inner { http, timeout, retry, limits, budget: Budget::new() }) })
    }

    /// Sends, tries again where that is right, and tells what is known in the end. An `Err` was never sent and never can be.
    pub async fn send(&self, request: &Request) -> Result<Outcome, NetError> {
        let inner = &*self.inner;
        let (url, headers) = parts(request)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        inner.budget.deposit();
        let mut tries = 0;
        // An earlier try that may have been processed: from then on "certainly not" is no longer true.
        let mut doubt = None;
        loop {
            tokio::time::sleep_until(inner.limits.reserve(&request.url, &host, Instant::now())).await;
            let outcome = inner.attempt(request, url.clone(), headers.clone()).await;
            tries += 1;
            let Some(wait) = inner.wait_before_next(request, &outcome, tries) else {
                return Ok(with_doubt(outcome, doubt));
            };
            if let Outcome::Refused { why, .. } | Outcome::Unknown { why, .. } = &outcome {
                tracing::warn!("{host}: {why}; trying again in {:.1} s", wait.as_secs_f64());
            }
            match outcome {
                // Everyone who calls this host waits with us.
                Outcome::Refused { retry_after: Some(_), .. } => inner.limits.pause(&host, Instant::now() + wait),
                unknown @ Outcome::Unknown { .. } => doubt = Some(unknown),
                Outcome::Refused { .. } | Outcome::Sent(_) => {}
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl Inner {
    async fn attempt(&self, request: &Request, url: reqwest::Url, headers: HeaderMap) -> Outcome {
        let builder = match request.method {
            Method::Get => self.http.get(url),
            Method::Post => self.http.post(url),
        };
        let timeout = self.timeout;
        match builder.headers(headers).body(request.body.clone()).timeout(timeout).send().await {
            Ok(answer) => as_wanted(request, read(answer).await),
            Err(e) if e.is_connect() => Outcome::Refused { why: describe(e), retry_after: None },
            Err(e) if e.is_timeout() => {
                Outcome::Unknown { why: format!("no answer within {timeout:?}"), response: None }
            }
            Err(e) => Outcome::Unknown { why: describe(e), response: None },
        }
    }

    /// How long to wait before the next try; `None` where there must be none.
    fn wait_before_next(&self, request: &Request, outcome: &Outcome, tries: u32) -> Option<Duration> {
        let asked = match outcome {
            Outcome::Sent(_) => return None,
            Outcome::Unknown { .. } if request.delivery == Delivery::AtMostOnce => return None,
            Outcome::Unknown { response: Some(r), .. } => {
                r.header("retry-after").and_then(|v| retry_after(v, Utc::now()))
            }
            Outcome::Unknown { .. } => None,
            Outcome::Refused { retry_after, .. } => *retry_after,
        };
        if tries >= self.retry.tries || asked.is_some_and(|a| a > self.retry.longest_wait) || !self.budget.withdraw() {
            return None;
        }
        // A server's own time is a lower bound, and all who were refused heard the same: the jitter comes on top.
        Some(asked.unwrap_or_default() + self.retry.wait(tries))
    }
}

/// Reads the answer to its end and tells what it says about the request.
async fn read(mut answer: reqwest::Response) -> Outcome {
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let asked = headers.get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| retry_after(v, Utc::now()));
    let mut body = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LONGEST_ANSWER => body.extend_from_slice(&chunk),
            Ok(None) => break,
            // The status alone decides below where it says that nothing was done.
            _ if status == 429 => break,
            Ok(Some(_)) => {
                let why = format!("the answer ({status}) is longer than {LONGEST_ANSWER} bytes");
                return Outcome::Unknown { why, response: None };
            }
            Err(e) => {
                let why = format!("the answer ({status}) broke off: {}", describe(e));
                return Outcome::Unknown { why, response: None };
            }
        }
    }
    let response = Response { status, headers, body: body.freeze() };
    match status {
        429 => Outcome::Refused { why: "too many requests (429)".to_owned(), retry_after: asked },
        // 408 may come from a proxy that gave up on a server that did not.
        408 | 500.. => Outcome::Unknown { why: format!("the server failed ({status})"), response: Some(response) },
        _ => Outcome::Sent(response),
    }
}

/// A success whose body is not what was asked for is an answer that did not come.
fn as_wanted(request: &Request, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Sent(response) if request.wants_json && response.is_success() => {
            match serde_json::from_slice::<IgnoredAny>(&response.body) {
                Ok(_) => Outcome::Sent(response),
                Err(e) => {
                    let why = format!("the answer ({}) is not JSON: {e}", response.status);
                    Outcome::Unknown { why, response: None }
                }
            }
        }
        other => other,
    }
}

fn with_doubt(outcome: Outcome, doubt: Option<Outcome>) -> Outcome {
    match (outcome, doubt) {
        (Outcome::Refused { .. }, Some(doubt)) => doubt,
        (outcome, _) => outcome,
    }
}

/// The address and headers, checked. Values are marked so that no library prints them.
fn parts(request: &Request) -> Result<(reqwest::Url, HeaderMap), NetError> {
    let bad = |what: String| NetError::BadRequest(what);
    let url: reqwest::Url = request.url.parse().map_err(|e| bad(format!("its address: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("its address has no http(s) host".to_owned()));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_str(value).map_err(|_| bad(format!("header {name}: not plain text")))?;
        value.set_sensitive(true);
        let name = HeaderName::try_from(*name).map_err(|e| bad(format!("header {name}: {e}")))?;
        headers.insert(name, value);
    }
    Ok((url, headers))
}
