//! What goes on by itself while `serve` runs: loading, pipelines that are due, messages that are due, upkeep.
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
    base::progress::Silent,
    ops::{Instance, OpsError},
};

/// Events gather this long before they are committed: long enough that a steady trickle does not make a file an event,
/// short enough that an event is in an answer within a second.
const GATHER: Duration = Duration::from_millis(300);
/// Between two looks for pipelines and messages that are due.
const LOOK: Duration = Duration::from_millis(1000);
/// Between two rounds of upkeep of the tables.
const UPKEEP: Duration = Duration::from_secs(300);
/// After a failure, so that one that lasts does not fill the disk with its reports.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Ends when told to stop; earlier, with what ended it, when one of the loops fails beyond repair.
pub async fn go_on(instance: Arc<Instance>, stop: watch::Receiver<bool>) -> Result<(), JoinError> {
    let mut loops = JoinSet::new();
    loops.spawn(load(instance.clone(), stop.clone()));
    loops.spawn(repeat("running what is due", LOOK, instance.clone(), stop.clone(), |i| async move {
        i.run_due(&Silent).await
    }));
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
