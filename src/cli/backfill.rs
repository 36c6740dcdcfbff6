//! `backfill`: history from a provider's API, and with `--check` what of it is not held.

use std::process::ExitCode;

use anyhow::bail;

use super::{Context, args::Backfill, push, reach::reach_or_make};
use crate::ops::{Backfilled, Reply, Request};

pub async fn run(context: &Context, backfill: Backfill) -> anyhow::Result<ExitCode> {
    let Backfill { source, since, until, check } = backfill;
    let request = Request::Backfill { source, since, until, check };
    let Reply::Backfilled(done) = reach_or_make(context).await?.perform(context, request).await? else {
        bail!("the reply is of another kind")
    };
    context.answer(&done, |done| if check { compared(done) } else { taken(done) })?;
    Ok(ExitCode::from(if check && done.missing > 0 { 1 } else { 0 }))
}

fn taken(done: &Backfilled) -> String {
    let counts = &done.counts;
    let mut text = if done.resumed { "went on where it was cut off\n".to_owned() } else { String::new() };
    push(
        &mut text,
        format_args!(
            "{} read in {} pages: {} new, {} already there, {} set aside\n{} in {:.1} s\n",
            counts.read,
            done.pages,
            counts.accepted,
            counts.duplicates,
            counts.quarantined,
            window(done),
            counts.seconds
        ),
    );
    text
}

fn compared(done: &Backfilled) -> String {
    let listed = done.counts.read;
    let share = if listed == 0 { 100.0 } else { (listed - done.missing) as f64 * 100.0 / listed as f64 };
    let mut text =
        format!("{share:.3}% complete: {} events listed, {} of them missing\n{}\n", listed, done.missing, window(done));
    for id in &done.missing_ids {
        push(&mut text, format_args!("missing   {id}\n"));
    }
    if done.missing > 0 {
        push(&mut text, format_args!("to take what is missing: tillstream backfill {}\n", done.source));
    }
    text
}

fn window(done: &Backfilled) -> String {
    format!("from {} to {}", done.since.as_deref().unwrap_or("the beginning"), done.until)
}
