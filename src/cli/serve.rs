//! `serve`: until it is told to stop.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::bail;
use futures::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    Context, Usage,
    args::Serve,
    reach::{Reached, reach_or_make},
};
use crate::{ops::Instance, server};

pub async fn run(context: &Context, serve: Serve) -> anyhow::Result<ExitCode> {
    let address = match serve.listen {
        Some(text) => text
            .parse()
            .map_err(|_| Usage(format!("--listen {text:?}: write an address and a port, as 127.0.0.1:8700")))?,
        None => context.settings.server.listen,
    };
    match reach_or_make(context).await? {
        Reached::Here(instance) => serve_until_told(context, instance, address).await,
        Reached::There(_) => bail!("a serve runs already on {}; its commands work from here", context.data.display()),
    }
}

/// Serves until SIGINT or SIGTERM.
pub async fn serve_until_told(
    context: &Context,
    instance: Arc<Instance>,
    address: SocketAddr,
) -> anyhow::Result<ExitCode> {
    let (stop, stopped) = watch::channel(false);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stopping = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("stopping: requests under way get {} s; again to stop at once", server::GRACE.as_secs());
        stop.send_replace(true);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // Whatever is cut off here is what a kill may cut off too.
        std::process::exit(1);
    };
    tokio::spawn(stopping.boxed());
    if instance.settings().stripe.webhook_secrets.is_empty() {
        eprintln!("no Stripe webhook will be accepted: [stripe] webhook_secrets is not set");
    }
    let token = instance.dir().join("admin.token");
    server::serve(instance, context.metrics.clone(), address, stopped, |address, socket| {
        eprintln!("listening on http://{address} and on {}", socket.display());
        eprintln!("the admin's token is in {}", token.display());
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
