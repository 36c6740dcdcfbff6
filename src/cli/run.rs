//! `run`: pipelines now.

use std::process::ExitCode;

use anyhow::bail;

use super::{Context, Usage, args::Run, push, reach::reach};
use crate::{
    base::Micros,
    ops::{Ran, Reply, Request},
};

pub async fn run(context: &Context, run: Run) -> anyhow::Result<ExitCode> {
    if let Some(text) = &run.as_of {
        Micros::parse(text, context.settings.merchant.timezone).map_err(|e| Usage(format!("--as-of: {e}")))?;
    }
    let request = Request::Run { pipelines: run.pipelines, as_of: run.as_of, known_at: run.known_at, full: run.full };
    let Reply::Ran(ran) = reach(context).await?.perform(context, request).await? else {
        bail!("the reply is of another kind")
    };
    context.answer(&ran, text)?;
    Ok(ExitCode::from(if ran.succeeded() { 0 } else { 1 }))
}

fn text(ran: &Ran) -> String {
    let mut text = String::new();
    let report = &ran.report;
    for m in &report.models {
        let rows = m.rows.map_or_else(|| "view".to_owned(), |rows| format!("{rows} rows"));
        let told = m.error.as_deref().unwrap_or_default();
        push(
            &mut text,
            format_args!("{:<10}{:<34}{rows:>14}  {:.2} s {told}\n", m.status.as_str(), m.model, m.seconds),
        );
    }
    for c in report.checks.iter().filter(|c| c.failures != Some(0)) {
        let found = c.error.clone().unwrap_or_else(|| format!("{} rows", c.failures.unwrap_or(0)));
        push(&mut text, format_args!("{:<10}check {:?} of {}: {found}\n", c.severity.as_str(), c.check, c.pipeline));
    }
    for s in ran.segments.iter().flat_map(|e| &e.segments) {
        if let Some(why) = &s.held {
            push(&mut text, format_args!("segment   {:<24}held: {why}\n", s.segment));
            continue;
        }
        let told = s.error.as_deref().map(|e| format!("  {e}")).unwrap_or_default();
        push(
            &mut text,
            format_args!(
                "segment   {:<24}{:>7} members, {} entered, {} left, {} messages queued, {} not allowed{told}\n",
                s.segment, s.members, s.entered, s.exited, s.queued, s.skipped
            ),
        );
    }
    if ran.segments.is_none() {
        push(&mut text, format_args!("segments  not looked at: nobody is written to about another time than now\n"));
    }
    for fault in ran.messages.iter().flat_map(|m| &m.faults) {
        push(&mut text, format_args!("fault     {fault}\n"));
    }
    if let Some(messages) = ran.messages.as_ref().filter(|m| !m.messages.is_empty()) {
        push(&mut text, format_args!("messages  {} handled: `tillstream triggers list`\n", messages.messages.len()));
    }
    push(&mut text, format_args!("as of {}, run {} ({:.1} s)\n", report.as_of, report.run_id, report.seconds));
    text
}
