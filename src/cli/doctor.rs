//! `doctor`: what is wrong and what to do about it; with `--config`, every option.

use std::process::ExitCode;

use anyhow::bail;

use super::{Context, args::Doctor, reach::reach};
use crate::ops::{Finding, Reply, Request};

pub async fn run(context: &Context, doctor: Doctor) -> anyhow::Result<ExitCode> {
    if doctor.show_config {
        let options = context.settings.describe();
        context.answer_list("options", &options, |options| {
            options.iter().map(|o| format!("{:<32} {:<28} {:<22} {}\n", o.name, o.value, o.source, o.meaning)).collect()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings = match reach(context).await {
        Ok(reached) => match reached.perform(context, Request::Doctor).await? {
            Reply::Doctor(findings) => findings,
            _ => bail!("the reply is of another kind"),
        },
        // What keeps every command from starting is a finding like any other, and the only one that can be made.
        Err(error) => {
            vec![Finding::fault("start", super::whole(&error), "mend this first; doctor then looks at the rest")]
        }
    };
    let well = findings.iter().all(|f| f.ok);
    context.answer_list("findings", &findings, |findings| {
        findings
            .iter()
            .map(|f| {
                let remedy = if f.ok { String::new() } else { format!("\n          {}", f.remedy) };
                format!("{:<9} {:<12} {}{remedy}\n", if f.ok { "ok" } else { "FAULT" }, f.subject, f.found)
            })
            .collect()
    })?;
    Ok(ExitCode::from(if well { 0 } else { 1 }))
}
