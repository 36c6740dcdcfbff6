//! What goes on by itself while `serve` runs: loading, pipelines that are due, messages that are due, upkeep, and asking
//! the providers' APIs for what no webhook brought.
//!
//! Each kind of work is a loop of its own that survives its errors: it says what failed, waits, and tries again. Only one of
//! each kind runs at a time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    base::{Source, progress::Silent},
    ops::{Instance, OpsError},
};

/// Events gather this long before they are committed: long enough that a steady trickle does not make a file an event,
/// short enough that an event is in an answer within a second.
const GATHER: Duration = Duration::from_millis(300);
/// Between two looks for pipelines and messages that are due.
const LOOK: Duration = Duration::from_millis(1000);
/// Between two rounds of upkeep of the tables.
const UPKEEP: Duration = Duration::from_secs(300);
/// Stripe's webhooks bring what happens; this is for those that did not arrive.
const ASK_STRIPE: Duration = Duration::from_secs(600);
/// Klaviyo's webhooks are for some plans only, and consent is believed for a quarter of an hour.
const ASK_KLAVIYO: Duration = Duration::from_secs(60);
/// After a failure, so that one that lasts does not fill the disk with its reports.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Ends when told to stop; earlier, with what ended it, when one of the loops fails beyond repair.
pub async fn go_on(instance: Arc<Instance>, stop: watch::Receiver<bool>) -> Result<(), JoinError> {
    let mut loops = JoinSet::new();
    loops.spawn(load(instance.clone(), stop.clone()));
    loops.spawn(repeat("running what is due", LOOK, instance.clone(), stop.clone(), |i| async move {
        i.run_due(&Silent).await
    }));
    loops.spawn(ask(Source::Stripe, ASK_STRIPE, instance.clone(), stop.clone()));
    loops.spawn(ask(Source::Klaviyo, ASK_KLAVIYO, instance.clone(), stop.clone()));
    loops.spawn(repeat("upkeep", UPKEEP, instance, stop, |i| async move { i.upkeep().await }));
    while let Some(ended) = loops.join_next().await {
        ended?;
    }
    Ok(())
}

async fn load(instance: Arc<Instance>, mut stop: watch::Receiver<bool>) {
    let mut end = instance.log().watch();
    loop {
        let loaded = instance.load_available().await;
        if let Err(error) = &loaded {
            tracing::error!("loading failed, and is tried again: {error}");
        }
        let pause = if loaded.is_err() { AFTER_FAILURE } else { GATHER };
        tokio::select! {
            _ = stop.wait_for(|s| *s) => break,
            _ = sleep(pause) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|s| *s) => break,
            changed = end.changed(), if loaded.is_ok() => if changed.is_err() { break },
            _ = std::future::ready(()), if loaded.is_err() => {}
        }
    }
    // What is acknowledged is in the log; that it is in the tables too saves the next start the work.
    if let Err(error) = instance.load_available().await {
        tracing::warn!("what came last will be loaded at the next start: {error}");
    }
}

/// At once, since what happened while nothing ran is what is missing most, and then every so often.
async fn ask(source: Source, every: Duration, instance: Arc<Instance>, mut stop: watch::Receiver<bool>) {
    loop {
        match instance.poll(source, stop.clone()).await {
            Ok(Some(done)) if done.missing > 0 => {
                tracing::info!("{source}: its API listed {} events that nothing else had brought", done.missing);
            }
            Ok(Some(_)) => {}
            // Without a key there is nothing to ask, now or later.
            Ok(None) => return,
            Err(_) if *stop.borrow() => return,
            Err(error) => tracing::error!("asking {source} for what happened failed, and is tried again: {error}"),
        }
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(every) => {}
        }
    }
}

async fn repeat<F, Fut>(what: &str, every: Duration, instance: Arc<Instance>, mut stop: watch::Receiver<bool>, work: F)
where
    F: Fn(Arc<Instance>) -> Fut,
    Fut: Future<Output = Result<(), OpsError>>,
{
    let mut pause = every;
    loop {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(pause) => {}
        }
        pause = every;
        if let Err(error) = work(instance.clone()).await {
            tracing::error!("{what} failed, and is tried again: {error}");
            pause = AFTER_FAILURE.max(every);
        }
    }
}
