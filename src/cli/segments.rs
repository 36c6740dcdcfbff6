//! `segments`: who is in which.

use std::{io, process::ExitCode};

use anyhow::bail;

use super::{
    Context,
    args::{SegmentAction, Segments},
    reach::reach,
};
use crate::{
    activate::MemberRow,
    engine::output::csv,
    ops::{Reply, Request},
};

pub async fn run(context: &Context, segments: Segments) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let (name, export) = match segments.action {
        SegmentAction::List => {
            let Reply::Segments(list) = reached.perform(context, Request::Segments).await? else {
                bail!("the reply is of another kind")
            };
            context.answer_list("segments", &list, |list| {
                list.iter()
                    .map(|s| {
                        let looked = s.looked_at.map_or_else(|| "never looked at".to_owned(), |t| format!("as of {t}"));
                        format!(
                            "{:<24}{:>8} members  {looked}  triggers: {}\n",
                            s.name,
                            s.members,
                            s.triggers.join(", ")
                        )
                    })
                    .collect()
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        SegmentAction::Show { name } => (name, false),
        SegmentAction::Export { name } => (name, true),
    };
    let Reply::Members(members) = reached.perform(context, Request::Members { segment: name }).await? else {
        bail!("the reply is of another kind")
    };
    if export {
        write_csv(&members)?;
    } else {
        context.answer_list("members", &members, |members| {
            members
                .iter()
                .map(|m| {
                    let columns = serde_json::to_string(&m.columns).unwrap_or_default();
                    format!("{}  {}  since {}  {columns}\n", m.person_id, m.occurrence, m.entered_at)
                })
                .collect()
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A header, then a line a member; the segment's own columns as JSON in the last.
fn write_csv(members: &[MemberRow]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    use io::Write;
    writeln!(out, "person_id,occurrence,entered_at,livemode,columns")?;
    for m in members {
        for cell in [m.person_id.0.as_str(), &m.occurrence, &m.entered_at.to_string(), &m.livemode.to_string()] {
            csv::cell(&mut out, cell)?;
            out.write_all(b",")?;
        }
        csv::cell(&mut out, &serde_json::to_string(&m.columns)?)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
