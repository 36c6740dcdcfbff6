//! `POST /v1/phones/validate`: what a checkout's form wants to know of a phone before it takes it.
//!
//! Asked by the shop's server, which has a token of its own. Who asks too often is sent away: an answer tells how many people
//! have a number, which is not for whoever would try them all.

use std::time::Duration;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::{task::spawn_blocking, time::Instant};

use super::{App, auth};
use crate::{
    config::{Secret, Server},
    net::Gate,
};

/// Who may ask, and how often.
pub struct Checkouts {
    tokens: Vec<Secret>,
    gate: Gate,
}

impl Checkouts {
    pub fn new(settings: &Server) -> Checkouts {
        let gate = Gate::new(settings.checkout_rate, Duration::from_secs(1));
        Checkouts { tokens: settings.checkout_tokens.clone(), gate }
    }

    fn knows(&self, token: &str) -> bool {
        auth::is_one_of(&self.tokens, token)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// As it was typed.
    phone: String,
    /// Two letters: of what country a national number is.
    region: Option<String>,
}

pub async fn validate(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<Asked>, JsonRejection>,
) -> Response {
    let token = auth::bearer(&headers).unwrap_or_default();
    if !app.checkouts.knows(token) && !app.token.is(token) {
        return auth::wanted("one of [server] checkout_tokens, or the admin's");
    }
    if let Err(wait) = app.checkouts.gate.admit(Instant::now()) {
        let seconds = wait.as_secs_f64().ceil().max(1.0).to_string();
        let told = "too many questions at once: ask again in a while, or raise [server] checkout_rate\n";
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], told).into_response();
    }
    let Asked { phone, region } = match body {
        Ok(Json(asked)) => asked,
        Err(wrong) => {
            let told = format!(
                "{}: send {{\"phone\": \"020 7946 0958\", \"region\": \"GB\"}} as application/json\n",
                wrong.body_text()
            );
            return (StatusCode::BAD_REQUEST, told).into_response();
        }
    };
    let judged = spawn_blocking(move || app.instance.judge_phone(&phone, region.as_deref()).map_err(|e| e.to_string()));
    match judged.await.map_err(|e| e.to_string()).flatten() {
        Ok(judged) => Json(judged).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
