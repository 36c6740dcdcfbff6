//! What others post to us: verified over the raw bytes, durable, then answered. One way for all of them.
//!
//! ```text
//!  body (bounded) ─► believed? ─► envelopes ─► log ─► 200
//!     413, 408, 503     400, 401                  503
//! ```
//!
//! A request that is not believed leaves no trace but a counter. A believed one is never refused for what it holds: an
//! unknown type is kept, and what cannot be read goes to quarantine.

use std::time::Instant;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    App, auth,
    inlet::{Fault, Inlet},
    listen::Peer,
};
use crate::{
    base::{Envelope, Micros, Source, Via},
    config::{Aliyun, BaseUrl, Secret, Settings},
    log::{AppendError, Appended},
    sources::{KlaviyoVerifier, Signed, TwilioVerifier, Verifier, decode_or_keep, delivery},
    telemetry,
};

/// What a sender is told to wait for when there is no room: it takes well under a second to have some.
const RETRY_AFTER: &str = "1";

/// What receiving needs to know of each sender.
pub struct Receivers {
    inlets: [Inlet; Source::ALL.len()],
    stripe: Verifier,
    klaviyo: KlaviyoVerifier,
    twilio: TwilioVerifier,
    aliyun: Aliyun,
    /// Of the shop's pages and apps.
    pub write_keys: Vec<Secret>,
    public_url: Option<BaseUrl>,
}

impl Receivers {
    pub fn new(settings: &Settings) -> Receivers {
        Receivers {
            inlets: Source::ALL.map(|_| Inlet::new()),
            stripe: Verifier::new(&settings.stripe.webhook_secrets, settings.stripe.tolerance_seconds),
            klaviyo: KlaviyoVerifier::new(settings.klaviyo.webhook_secret.as_ref()),
            twilio: TwilioVerifier::new(settings.twilio.auth_token.as_ref()),
            aliyun: settings.aliyun.clone(),
            write_keys: settings.storefront.write_keys.clone(),
            public_url: settings.server.public_url.clone(),
        }
    }

    fn inlet(&self, source: Source) -> &Inlet {
        &self.inlets[source as usize]
    }
}

/// Why nothing of a request was kept.
pub struct Refusal {
    pub status: StatusCode,
    /// As the counter names it.
    pub reason: &'static str,
    pub told: String,
}

impl Refusal {
    fn unsigned(fault: impl ToString) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, reason: "signature", told: fault.to_string() }
    }

    pub fn too_many(fault: delivery::TooMany) -> Refusal {
        Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "too_large", told: fault.to_string() }
    }

    fn unread(fault: Fault) -> Refusal {
        let (status, reason) = match fault {
            Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Fault::Broken => (StatusCode::BAD_REQUEST, "broken"),
            Fault::Full => (StatusCode::SERVICE_UNAVAILABLE, "full"),
        };
        Refusal { status, reason, told: fault.to_string() }
    }

    fn unstored(error: &AppendError) -> Refusal {
        tracing::error!("an event could not be stored: {error}");
        let reason = if error.is_retryable() { "full" } else { "log" };
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, reason, told: error.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.told)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

/// The one way: reads the body, asks `open` whether it is believed and what it holds, stores that, answers `done`.
pub async fn receive<F, R>(app: &App, source: Source, request: Request, open: F, done: R) -> Response
where
    F: FnOnce(&Parts, &Bytes, Micros) -> Result<Vec<Envelope>, Refusal>,
    R: IntoResponse,
{
    let began = Instant::now();
    match store(app, source, request, open).await {
        Ok(()) => {
            telemetry::webhook_accepted(source, began.elapsed().as_secs_f64());
            done.into_response()
        }
        Err(refusal) => {
            telemetry::webhook_refused(source, refusal.reason);
            refusal.into_response()
        }
    }
}

async fn store<F>(app: &App, source: Source, request: Request, open: F) -> Result<(), Refusal>
where
    F: FnOnce(&Parts, &Bytes, Micros) -> Result<Vec<Envelope>, Refusal>,
{
    let (parts, body) = request.into_parts();
    // Holds its room until the log has answered.
    let body = app.receivers.inlet(source).read(&parts.headers, body).await.map_err(Refusal::unread)?;
    let envelopes = open(&parts, &body.bytes, Micros::now())?;
    if envelopes.is_empty() {
        return Ok(());
    }
    let envelopes = envelopes.into_iter().map(|e| e.by(Via::Webhook)).collect();
    let outcomes = app.instance.log().offer(envelopes).await.map_err(|e| Refusal::unstored(&e))?;
    let count = |which: fn(&Appended) -> bool| outcomes.iter().filter(|o| which(o)).count() as u64;
    // What is with brokers is counted when it comes from there.
    let stored = count(|o| matches!(o, Appended::Stored(_)));
    telemetry::events_ingested(source, stored, count(|o| matches!(o, Appended::Duplicate(_))));
    Ok(())
}

pub async fn stripe(State(app): State<App>, request: Request) -> Response {
    let open = |parts: &Parts, body: &Bytes, now| {
        let signature = text(&parts.headers, HeaderName::from_static("stripe-signature"));
        app.receivers.stripe.verify(signature, body, now).map_err(Refusal::unsigned)?;
        Ok(vec![decode_or_keep(Source::Stripe, body, now)])
    };
    receive(&app, Source::Stripe, request, open, StatusCode::OK).await
}

pub async fn klaviyo(State(app): State<App>, request: Request) -> Response {
    let open = |parts: &Parts, body: &Bytes, now| {
        let header = |name| text(&parts.headers, HeaderName::from_static(name));
        let (signature, timestamp) = (header("klaviyo-signature"), header("klaviyo-timestamp"));
        app.receivers.klaviyo.verify(signature, timestamp, body).map_err(Refusal::unsigned)?;
        delivery::webhook(body, header("klaviyo-webhook-id"), now).map_err(|fault| match fault {
            delivery::WebhookFault::Mismatch => Refusal { reason: "webhook_id", ..Refusal::unsigned(fault) },
            delivery::WebhookFault::TooMany(many) => Refusal::too_many(many),
        })
    };
    receive(&app, Source::Klaviyo, request, open, StatusCode::OK).await
}

/// What became of a message.
pub async fn twilio_status(State(app): State<App>, request: Request) -> Response {
    receive(&app, Source::Twilio, request, |p, b, now| twilio(&app, p, b, now), StatusCode::NO_CONTENT).await
}

/// A message to us. The answer says that nothing is to be texted back: Twilio itself confirms a STOP.
pub async fn twilio_inbound(State(app): State<App>, request: Request) -> Response {
    let silence = ([(header::CONTENT_TYPE, "text/xml")], "<Response/>");
    receive(&app, Source::Twilio, request, |p, b, now| twilio(&app, p, b, now), silence).await
}

fn twilio(app: &App, parts: &Parts, body: &Bytes, now: Micros) -> Result<Vec<Envelope>, Refusal> {
    let signature = text(&parts.headers, HeaderName::from_static("x-twilio-signature"));
    let form = text(&parts.headers, header::CONTENT_TYPE).starts_with("application/x-www-form-urlencoded");
    let parameters = if form { delivery::parameters(body) } else { Vec::new() };
    let signed = if form { Signed::Form(&parameters) } else { Signed::Other(body) };
    let urls = called(app.receivers.public_url.as_ref(), parts);
    app.receivers.twilio.verify(signature, &urls, &signed).map_err(Refusal::unsigned)?;
    let body = if form { delivery::form(parameters) } else { body.clone() };
    Ok(vec![decode_or_keep(Source::Twilio, &body, now)])
}

/// The addresses that the sender may have called: ours as configured, else whatever leads here by its own word, of which
/// only a signature tells that it was called.
fn called(public: Option<&BaseUrl>, parts: &Parts) -> Vec<String> {
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    match public {
        Some(public) => vec![public.join(path)],
        None => {
            let host = text(&parts.headers, header::HOST);
            ["https", "http"].map(|scheme| format!("{scheme}://{host}{path}")).to_vec()
        }
    }
}

/// Aliyun signs nothing: who knows the secret in the address, and calls from where it may, is believed.
pub async fn aliyun(State(app): State<App>, Path(secret): Path<String>, request: Request) -> Response {
    let open = |parts: &Parts, body: &Bytes, now| {
        let settings = &app.receivers.aliyun;
        if !auth::is_one_of(settings.webhook_secret.as_slice(), &secret) {
            return Err(Refusal::unsigned("the address does not end in the secret that is [aliyun] webhook_secret"));
        }
        let from = parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_canonical());
        if !settings.webhook_ips.is_empty() && !from.is_some_and(|ip| settings.webhook_ips.contains(&ip)) {
            return Err(Refusal {
                reason: "ip",
                ..Refusal::unsigned("[aliyun] webhook_ips does not list this sender")
            });
        }
        delivery::reports(body, now).map_err(Refusal::too_many)
    };
    receive(&app, Source::Aliyun, request, open, Json(json!({"code": 0, "msg": "received"}))).await
}

/// A header's text; none where it is missing, or is no text.
fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_to_come_again_only_where_that_helps() {
        for (refusal, status, again) in [
            (Refusal::unstored(&AppendError::Full), 503, true),
            (Refusal::unstored(&AppendError::Closed), 503, true),
            (Refusal::unread(Fault::Full), 503, true),
            (Refusal::unread(Fault::TooLarge), 413, false),
            (Refusal::unread(Fault::TooSlow), 408, false),
            (Refusal::unsigned("no"), 400, false),
        ] {
            let response = refusal.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), again, "{status}");
        }
    }

    #[test]
    fn the_address_that_was_called_is_ours_or_what_the_sender_says() {
        let (parts, ()) = axum::http::Request::get("/webhooks/twilio/status?bodySHA256=0")
            .header("Host", "shop.test:8700")
            .body(())
            .unwrap()
            .into_parts();
        let public = BaseUrl::parse("https://till.example/behind/");
        let path = "/webhooks/twilio/status?bodySHA256=0";
        assert_eq!(called(public.as_ref(), &parts), [format!("https://till.example/behind{path}")]);
        let either = ["https", "http"].map(|scheme| format!("{scheme}://shop.test:8700{path}"));
        assert_eq!(called(None, &parts), either);
    }
}
