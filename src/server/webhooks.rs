//! What providers post to us: verified over the raw bytes, durable, then answered.
//!
//! A body that is not what its signature says leaves no trace but a counter. A verified one is never refused for what it
//! holds: an unknown type is kept, and a payload that cannot be read goes to quarantine.

use std::time::Instant;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::App;
use crate::{
    base::{Micros, Source},
    log::{AppendError, Appended},
    sources, telemetry,
};

/// What a sender is told to wait for when the log's queue is full: it drains in well under a second.
const RETRY_AFTER: &str = "1";

pub async fn stripe(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let began = Instant::now();
    let signature = headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let now = Micros::now();
    if let Err(fault) = app.stripe.verify(signature, &body, now) {
        telemetry::webhook_refused(Source::Stripe, "signature");
        return (StatusCode::BAD_REQUEST, format!("{fault}\n")).into_response();
    }
    let envelope = sources::decode(Source::Stripe, &body, now)
        .unwrap_or_else(|rejected| rejected.envelope(Source::Stripe, &body, now));
    match app.instance.log().offer(vec![envelope]).await {
        Ok(outcomes) => {
            let duplicates = outcomes.iter().filter(|o| matches!(o, Appended::Duplicate(_))).count() as u64;
            telemetry::events_ingested(Source::Stripe, 1 - duplicates.min(1), duplicates);
            telemetry::webhook_accepted(Source::Stripe, began.elapsed().as_secs_f64());
            StatusCode::OK.into_response()
        }
        Err(error) => refuse(&error),
    }
}

/// Not stored, so not acknowledged: the sender tries again.
fn refuse(error: &AppendError) -> Response {
    tracing::error!("an event could not be stored: {error}");
    telemetry::webhook_refused(Source::Stripe, if error.is_retryable() { "full" } else { "log" });
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], format!("{error}\n")).into_response()
}
