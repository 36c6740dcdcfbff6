//! `export`: all that is kept of a person.

use std::{io::Write, process::ExitCode};

use anyhow::bail;

use super::{Context, args::Export, reach::reach};
use crate::ops::{Reply, Request};

pub async fn run(context: &Context, export: Export) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let reply = reached.perform(context, Request::Export { person: export.person }).await?;
    let Reply::Exported(held) = reply else { bail!("the reply is of another kind") };
    if context.json {
        context.answer_list("rows", &held, |_| String::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    for row in &held {
        writeln!(out, "{}", serde_json::to_string(row)?)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
