//! `quarantine`: what was set aside, why, and whether it is good by now.

use std::process::ExitCode;

use anyhow::bail;

use super::{
    Context,
    args::{Quarantine, QuarantineAction},
    reach::reach,
};
use crate::ops::{Listed, Reply, Request, Retried};

pub async fn run(context: &Context, quarantine: Quarantine) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let request = match quarantine.action {
        QuarantineAction::List => Request::Quarantine,
        QuarantineAction::Show { id } => Request::QuarantineShow { id },
        QuarantineAction::Retry { ids } => Request::QuarantineRetry { ids },
    };
    let mut refused = false;
    match reached.perform(context, request).await? {
        Reply::Quarantine(listed) => context.answer(&listed, list)?,
        Reply::SetAside(row) => context.answer(&row, |row| {
            let taken = if row.taken_in { "taken in since" } else { "set aside" };
            let (id, source, at) = (row.row.id, &row.row.source, &row.row.received_at);
            format!("{id}  {source}  received {at}, {taken}\n{}\n\n{}\n", row.row.reason, row.payload)
        })?,
        Reply::Retried(retried) => {
            refused = retried.refused > 0;
            context.answer(&retried, told)?;
        }
        _ => bail!("the reply is of another kind"),
    }
    Ok(ExitCode::from(u8::from(refused)))
}

fn list(listed: &Listed) -> String {
    let mut text: String = listed
        .rows
        .iter()
        .map(|r| format!("{:>8}  {:<10} {}  {}\n", r.id, r.source, r.received_at, r.reason))
        .collect();
    match listed.open {
        0 => text.push_str("nothing is set aside\n"),
        n if n > listed.rows.len() as u64 => text.push_str(&format!("and {} older\n", n - listed.rows.len() as u64)),
        _ => {}
    }
    text
}

fn told(retried: &Retried) -> String {
    let mut text: String = retried.reasons.iter().map(|r| format!("{:>8}  {}\n", r.id, r.reason)).collect();
    let Retried { taken_in, refused, already, .. } = retried;
    text.push_str(&format!("{taken_in} taken in, {refused} refused"));
    text.push_str(&if *already > 0 { format!(", {already} taken in before\n") } else { "\n".to_owned() });
    text
}
