//! `serve`: webhooks in, answers out, and the work that goes on by itself.
//!
//! The only place that names axum and hyper. Handlers verify, hand on, and answer; what happens to an event is decided
//! elsewhere. Every route but those that receive, and health, wants the admin's token.

mod auth;
mod background;
mod collector;
mod inlet;
mod listen;
mod local;
mod phones;
mod sql;
mod webhooks;
mod work;

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{FutureExt, future};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use self::background::{Background, Priority};
pub(crate) use self::listen::{Listener, listen};
use crate::{
    base::progress::Silent,
    ops::{self, Instance, OpsError, Request},
    telemetry::Metrics,
};

/// Requests under way when the process is told to stop get this long.
pub const GRACE: Duration = Duration::from_secs(10);

/// A question waits so long for what was in the log at the start.
const CATCHING_UP: Duration = Duration::from_secs(10);

/// Commands that may be connected at once: more than anyone starts.
const COMMANDS: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}; another port: --listen or [server] listen")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} holds no token: remove it, and the next start makes one", path.display())]
    BadToken { path: PathBuf },
    #[error("the system gave no random bytes for a token")]
    NoRandom,
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error("no threads for background work could be started: {0}")]
    Threads(std::io::Error),
    #[error("background work ended ({0}): start serve again; nothing that was acknowledged is lost")]
    Work(String),
}

/// What every handler can reach.
#[derive(Clone)]
pub struct App {
    instance: Arc<Instance>,
    metrics: Metrics,
    token: auth::AdminToken,
    receivers: Arc<webhooks::Receivers>,
    checkouts: Arc<phones::Checkouts>,
}

/// Serves until `stop`. `ready` is told the address once requests are answered, and the admin's token.
pub async fn serve(
    instance: Arc<Instance>,
    metrics: Metrics,
    address: SocketAddr,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr, &std::path::Path),
) -> Result<(), ServeError> {
    let token = auth::AdminToken::of(instance.dir())?;
    let settings = instance.settings();
    let receivers = Arc::new(webhooks::Receivers::new(settings));
    let checkouts = Arc::new(phones::Checkouts::new(&settings.server));
    let connections = settings.server.connections;
    let app = App { instance: instance.clone(), metrics, token, receivers, checkouts };
    listen::allow_files();
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;
    let socket = ops::socket(instance.dir());
    let local = listen_locally(&socket)?;
    let background = Background::start("background", Priority::WORK).map_err(ServeError::Threads)?;
    let keeping = Background::start("upkeep", Priority::UPKEEP).map_err(ServeError::Threads)?;
    let upkeep = keeping.spawn(work::keep_up(instance.clone(), stop.clone()));
    let mut work = background.spawn(work::go_on(instance.clone(), upkeep, app.metrics.clone(), stop.clone()));

    let http = listen(Listener::Public(listener), routes(app.clone()), connections, stop.clone());
    let commands = listen(Listener::Local(local), local::routes(app), COMMANDS, stop.clone());
    ready(address, &socket);
    let both = tokio::spawn(future::join(http, commands).map(drop).boxed());
    // Webhooks must not be acknowledged for long when nothing loads them any more, nor refused for ever.
    let worked = tokio::select! {
        // Told to stop, the work ends as well: that is no fault.
        biased;
        _ = stop.wait_for(|s| *s) => None,
        ended = &mut work => Some(ServeError::Work(format!("{ended:?}"))),
        fault = work::fault(&instance) => Some(fault.into()),
    };
    if let Some(error) = worked {
        drop(fs::remove_file(&socket));
        return Err(error);
    }
    let served = tokio::time::timeout(GRACE, both).await;
    drop(fs::remove_file(&socket));
    work.await.and_then(|ended| ended).map_err(|e| ServeError::Work(e.to_string()))?;
    if served.is_err() {
        tracing::warn!("connections were cut off that had not ended {} s after the stop", GRACE.as_secs());
    }
    Ok(())
}

/// The socket of the directory; one that a killed process left is replaced, since we hold the lock.
fn listen_locally(socket: &std::path::Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::File { path: socket.to_owned(), source };
    match fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn routes(app: App) -> Router {
    let asked = Router::new()
        .route("/v1/sql", post(sql::answer))
        .route("/v1/segments", get(segments))
        .route("/v1/segments/{name}", get(members))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(app.clone(), auth::require));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/webhooks/stripe", post(webhooks::stripe))
        .route("/webhooks/klaviyo", post(webhooks::klaviyo))
        .route("/webhooks/twilio/status", post(webhooks::twilio_status))
        .route("/webhooks/twilio/inbound", post(webhooks::twilio_inbound))
        .route("/webhooks/aliyun/status/{secret}", post(webhooks::aliyun))
        .route("/v1/phones/validate", post(phones::validate))
        .route("/v1/{call}", post(collector::collect).options(collector::preflight).fallback(collector::otherwise))
        .merge(asked)
        .with_state(app)
}

/// Ready: the log takes events.
async fn ready(State(app): State<App>) -> Response {
    match app.instance.log().stopped() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Nobody is answered on less than was answered before the last stop.
async fn caught_up(app: &App) -> Result<(), Response> {
    tokio::time::timeout(CATCHING_UP, app.instance.caught_up()).await.map_err(|_| {
        let told = "what came before this start is still being loaded, and is not in the tables yet: ask again\n";
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], told).into_response()
    })
}

async fn metrics(State(app): State<App>) -> String {
    app.instance.observe();
    app.metrics.render()
}

async fn segments(State(app): State<App>) -> Response {
    performed(&app, Request::Segments).await
}

async fn members(State(app): State<App>, Path(segment): Path<String>) -> Response {
    performed(&app, Request::Members { segment }).await
}

async fn performed(app: &App, request: Request) -> Response {
    if let Err(not_yet) = caught_up(app).await {
        return not_yet;
    }
    match app.instance.perform(request, &Silent).await {
        Ok(ops::Reply::Segments(list)) => Json(list).into_response(),
        Ok(ops::Reply::Members(members)) => Json(members).into_response(),
        Ok(other) => Json(other).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
