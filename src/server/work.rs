//! What goes on by itself while `serve` runs: loading, pipelines that are due, messages that are due, upkeep, erasures that were
//! cut off, asking the providers' APIs for what no webhook brought, taking in the merchant's topics, and looking for faults.
//!
//! Each kind of work is a loop of its own that survives its errors: it says what failed, waits, longer with each failure in
//! a row, and tries again. Only one of each kind runs at a time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::{
    base::{Backoff, Source, progress::Silent},
    ops::{Instance, OpsError},
    telemetry::{self, Metrics},
};

/// Events gather this long before they are folded and seen: some hundred of them cost little more than one.
const GATHER: Duration = Duration::from_millis(100);
/// What was folded is looked at this often, whether it has waited long enough to be committed.
const COMMIT_LOOK: Duration = Duration::from_millis(500);
/// Between two looks for pipelines and messages that are due.
const LOOK: Duration = Duration::from_millis(1000);
/// Between two rounds of upkeep of the tables: in steady flow a table gets a dozen files meanwhile.
const UPKEEP: Duration = Duration::from_secs(60);
/// Between two looks for faults of our own.
const FAULTS_LOOK: Duration = Duration::from_secs(60);
/// Between two looks whether exchange rates are a day old.
const RATES_LOOK: Duration = Duration::from_secs(20);
/// Stripe's webhooks bring what happens; this is for those that did not arrive.
const ASK_STRIPE: Duration = Duration::from_secs(600);
/// Between two looks for single objects that events leave open.
const ASK_FOR_OBJECTS: Duration = Duration::from_secs(5);
/// Klaviyo's webhooks are for some plans only, and consent is believed for a quarter of an hour.
const ASK_KLAVIYO: Duration = Duration::from_secs(60);
/// Messages wait so long for the first answers of the APIs.
const FIRST_ANSWER: Duration = Duration::from_secs(120);
/// Between two times that measured times are sorted into their buckets.
const TIDY: Duration = Duration::from_secs(10);
/// After a failure, so that one that lasts does not fill the disk with its reports.
const AFTER_FAILURE: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// Ends when told to stop; earlier, with what ended it, when one of the loops fails beyond repair.
/// `upkeep`: [`keep_up`], which has threads of its own.
pub async fn go_on(
    instance: Arc<Instance>,
    upkeep: JoinHandle<()>,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
) -> Result<(), JoinError> {
    let mut loops = JoinSet::new();
    loops.spawn(tidy(metrics, stop.clone()).boxed());
    // Boxed, as a task's code is compiled for each type of work.
    loops.spawn(load(instance.clone(), stop.clone()).boxed());
    let (asking, asked) = mpsc::channel(1);
    let stripe = ask("asking Stripe", (Source::Stripe, ASK_STRIPE), instance.clone(), stop.clone(), asking.clone());
    loops.spawn(stripe.boxed());
    let klaviyo = ask("asking Klaviyo", (Source::Klaviyo, ASK_KLAVIYO), instance.clone(), stop.clone(), asking);
    loops.spawn(klaviyo.boxed());
    loops.spawn(run(instance.clone(), stop.clone(), asked).boxed());
    loops.spawn(take_topics(instance.clone(), stop.clone()).boxed());
    let rates = repeat("refreshing exchange rates", RATES_LOOK, instance.clone(), stop.clone(), |i| async move {
        i.refresh_rates().await
    });
    loops.spawn(rates.boxed());
    let erasures = repeat("going on with erasures", UPKEEP, instance.clone(), stop.clone(), |i| async move {
        i.resume_erasures().await;
        Ok(())
    });
    loops.spawn(erasures.boxed());
    let faults = repeat("looking for faults", FAULTS_LOOK, instance.clone(), stop.clone(), |i| async move {
        i.look_for_faults().await
    });
    loops.spawn(faults.boxed());
    let told = stop.clone();
    let objects = repeat("asking Stripe for objects", ASK_FOR_OBJECTS, instance, stop, move |i| {
        let told = told.clone();
        async move { i.ask_for_wanted(told).await }
    });
    loops.spawn(objects.boxed());
    let others = async {
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    };
    tokio::try_join!(others, upkeep).map(drop)
}

/// Upkeep of the tables.
pub async fn keep_up(instance: Arc<Instance>, stop: watch::Receiver<bool>) {
    repeat("upkeep", UPKEEP, instance, stop, |i| async move { i.upkeep().await }).await;
}

/// Where nobody looks at the metrics, they would take more memory with every event.
async fn tidy(metrics: Metrics, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(TIDY) => metrics.tidy(),
        }
    }
}

/// Returns once there is a fault that only another start can mend. Who sends meanwhile is told to come again.
pub async fn fault(instance: &Instance) -> OpsError {
    loop {
        if let Some(fault) = instance.fault() {
            return fault;
        }
        sleep(LOOK).await;
    }
}

/// Runs what is due, once the APIs were asked: who paid while nothing ran must not be reminded to.
async fn run(instance: Arc<Instance>, mut stop: watch::Receiver<bool>, mut asked: mpsc::Receiver<Infallible>) {
    tokio::select! {
        _ = stop.wait_for(|s| *s) => return,
        _ = asked.recv() => {}
        _ = sleep(FIRST_ANSWER) => tracing::warn!("the APIs do not answer: messages go by what is known without them"),
    }
    repeat("running what is due", LOOK, instance, stop, |i| async move { i.run_due(&Silent).await }).await;
}

async fn load(instance: Arc<Instance>, mut stop: watch::Receiver<bool>) {
    let mut end = instance.log().watch();
    let mut failures = 0;
    loop {
        end.mark_unchanged();
        let loaded = instance.load_available().await;
        failures = told("loading", &loaded, failures);
        tokio::select! {
            _ = stop.wait_for(|s| *s) => break,
            _ = sleep(pause(GATHER, failures)) => {}
        }
        if failures > 0 {
            continue;
        }
        tokio::select! {
            _ = stop.wait_for(|s| *s) => break,
            changed = end.changed() => if changed.is_err() { break },
            _ = sleep(COMMIT_LOOK) => {}
        }
    }
    // What is acknowledged is in the log; that it is in the tables too saves the next start the work.
    if let Err(error) = instance.load_and_commit().await {
        tracing::warn!("what came last will be loaded at the next start: {error}");
    }
}

/// At once, since what happened while nothing ran is what is missing most, and then every so often.
async fn ask(
    what: &'static str,
    (source, every): (Source, Duration),
    instance: Arc<Instance>,
    mut stop: watch::Receiver<bool>,
    first: mpsc::Sender<Infallible>,
) {
    let mut first = Some(first);
    let mut failures = 0;
    loop {
        let asked = match instance.poll(source, stop.clone()).await {
            // Without a key there is nothing to ask, now or later.
            Ok(None) => return,
            Ok(Some(done)) => {
                if done.missing > 0 {
                    tracing::info!("{source}: its API listed {} events that nothing else had brought", done.missing);
                }
                Ok(())
            }
            Err(_) if *stop.borrow() => return,
            Err(error) => Err(error),
        };
        failures = told(what, &asked, failures);
        // Nobody sends anything by it: that it is gone says that it was asked.
        drop(first.take());
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(pause(every, failures)) => {}
        }
    }
}

/// Reads on where it was after each failure.
async fn take_topics(instance: Arc<Instance>, mut stop: watch::Receiver<bool>) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let taken = instance.take_topics(stop.clone()).await;
        if taken.is_ok() {
            return;
        }
        let in_a_row = if began.elapsed() > AFTER_FAILURE.longest { 0 } else { failures };
        failures = told("taking in Kafka topics", &taken, in_a_row);
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(pause(Duration::ZERO, failures)) => {}
        }
    }
}

async fn repeat<F, Fut>(
    what: &'static str,
    every: Duration,
    instance: Arc<Instance>,
    mut stop: watch::Receiver<bool>,
    work: F,
) where
    F: Fn(Arc<Instance>) -> Fut,
    Fut: Future<Output = Result<(), OpsError>>,
{
    let mut failures = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            _ = sleep(pause(every, failures)) => {}
        }
        failures = told(what, &work(instance.clone()).await, failures);
    }
}

/// Until it is tried again what is done every so often and has failed so many times in a row.
fn pause(every: Duration, failures: u32) -> Duration {
    if failures > 0 { every.max(AFTER_FAILURE.wait(failures)) } else { every }
}

/// Tells of a failure; how many there were in a row by now.
fn told(what: &'static str, done: &Result<(), OpsError>, failures: u32) -> u32 {
    let Err(error) = done else { return 0 };
    tracing::error!("{what} failed, and is tried again: {error}");
    telemetry::work_failed(what);
    failures.saturating_add(1)
}
