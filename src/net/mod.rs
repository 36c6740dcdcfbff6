//! The one way out: every request to a provider, and the command line's to a running `serve`, goes through here.
//!
//! What must hold: a request marked [`Delivery::AtMostOnce`] is never given to the server twice. It is tried again only
//! where the server certainly did not process it (no connection was made, or 429), and when nobody can know, the
//! [`Outcome`] says so. No request follows a redirect: a second address was not what the caller meant, nor whom its key is
//! for. Nothing here logs an address, a header or a body.

mod client;
mod limit;
mod local;
mod outcome;
mod request;
mod retry;

pub use client::{Client, Options};
pub use limit::{Gate, Limit};
pub use local::{Answer, LocalClient, LocalError, Upload};
pub use outcome::{Outcome, Response};
pub use request::{Delivery, Request};
pub use retry::Retry;

/// A request that cannot be sent at all, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("no HTTP client could be set up: {0}")]
    SetUp(String),
    #[error("the request cannot be written: {0}")]
    BadRequest(String),
}

/// An error and its causes, without the address, which may hold a person's phone or a key.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
