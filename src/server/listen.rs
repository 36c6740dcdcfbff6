//! Connections: so many at once, each of which must say what it wants before long.
//!
//! A connection from outside that neither sends a request nor finishes its head within [`HEAD_TIME`] is closed, be it new or
//! kept open after an answer; so every place is free again after that time, whoever holds it. While all are taken nobody is
//! turned away: the system keeps who knocks until there is one. Commands of the directory's owner may think as long as they
//! like between two, and there are few of them.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use futures::FutureExt;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

/// Senders of webhooks ask again within this over a kept connection, or open a new one.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Far above the headers of any sender, and small beside a body.
const HEAD_BYTES: usize = 64 << 10;
/// After a failure to take a connection, which no file to spare is the usual cause of. No [`Backoff`](crate::base::Backoff):
/// nobody is asked again who might be overrun, and a file may be free at any moment.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// From where a request came: the other end of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Lets the process open as many files as it may ever: each connection is one, and what a shell allows at first is few.
pub fn allow_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!("connections are limited to the files that may be open: {error}");
    }
}

/// Where connections come from.
pub enum Listener {
    Public(TcpListener),
    Local(UnixListener),
}

/// Boxed, as what serves a connection is compiled for each type of it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Accepted {
    stream: Box<dyn Stream>,
    /// Of a public listener.
    peer: Option<Peer>,
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Public(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and waited for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("answers may be held back by the system: {error}");
                }
                Ok(Accepted { stream: Box::new(stream), peer: Some(Peer(peer)) })
            }
            Listener::Local(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted { stream: Box::new(stream), peer: None })
            }
        }
    }
}

/// Serves until `stop`, and then until the requests under way are answered.
pub async fn listen(listener: Listener, routes: Router, connections: usize, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        let taken = tokio::select! {
            () = told(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            taken = take(&listener, &places) => taken,
        };
        let Some((place, accepted)) = taken else { continue };
        let (routes, stop) = (routes.clone(), stop.clone());
        let conversation = async move {
            converse(accepted, routes, stop).await;
            drop(place);
        };
        open.spawn(conversation.boxed());
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it.
async fn take(listener: &Listener, places: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, Accepted)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok(accepted) => Some((place, accepted)),
        Err(error) => {
            tracing::warn!("a connection could not be taken: {error}");
            sleep(AFTER_FAILURE).await;
            None
        }
    }
}

/// One connection, to its end.
async fn converse(Accepted { stream, peer }: Accepted, routes: Router, mut stop: watch::Receiver<bool>) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(peer.map(|_| HEAD_TIME))
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Who hangs up in the middle of a request does so every day.
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Returns once the process is to stop, or nobody is left who could say so.
pub async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|s| *s).await);
}
