//! `triggers`: what is sent to whom, and why.

use std::process::ExitCode;

use anyhow::bail;

use super::{
    Context,
    args::{TriggerAction, Triggers},
    reach::reach,
};
use crate::{
    activate::{Fate, Preview},
    ops::{Reply, Request},
};

pub async fn run(context: &Context, triggers: Triggers) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let request = match triggers.action {
        TriggerAction::List => Request::Triggers,
        TriggerAction::Preview { name } => Request::Preview { trigger: name },
        TriggerAction::Run { name } => Request::Send { trigger: name },
    };
    let mut code = ExitCode::SUCCESS;
    match reached.perform(context, request).await? {
        Reply::Triggers(list) => context.answer_list("triggers", &list, |list| {
            list.iter()
                .map(|t| {
                    let states: Vec<String> = t.messages.iter().map(|(s, n)| format!("{n} {}", s.as_str())).collect();
                    let states = if states.is_empty() { "no messages yet".to_owned() } else { states.join(", ") };
                    let (medium, on, segment) = (t.medium.as_str(), &t.on, &t.segment);
                    format!("{:<18}{medium:<6} by {:<8} on {on} of {segment}: {states}\n", t.name, t.provider)
                })
                .collect()
        })?,
        Reply::Preview(rows) => context.answer_list("messages", &rows, |rows| {
            let mut text: String = rows.iter().map(line).collect();
            if rows.is_empty() {
                text.push_str("nobody is in its segment now\n");
            }
            text
        })?,
        Reply::Sent(dispatched) => {
            code = ExitCode::from(u8::from(!dispatched.faults.is_empty()));
            context.answer(&dispatched, |d| {
                let mut text: String = d
                    .messages
                    .iter()
                    .map(|m| format!("{}  {}  {}\n", m.person_id, m.state.as_str(), m.reason.as_deref().unwrap_or("")))
                    .collect();
                text.push_str(&d.faults.iter().map(|f| format!("fault: {f}\n")).collect::<String>());
                text.push_str(&format!("{} messages\n", d.messages.len()));
                text
            })?;
        }
        _ => bail!("the reply is of another kind"),
    }
    Ok(code)
}

fn line(row: &Preview) -> String {
    let to = row.destination.as_deref().unwrap_or("no address");
    let fate = match &row.fate {
        Fate::Goes => "goes now".to_owned(),
        Fate::Waits { until, why } => format!("waits until {until}: {why}"),
        Fate::Refused { why } => format!("does not go: {why}"),
        Fate::NotYet { due_at } => format!("is not due before {due_at}"),
        Fate::Already { state, at, reason } => {
            format!("was {} at {at}{}", state.as_str(), reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())
        }
    };
    let says =
        row.text.as_ref().map(|t| format!("\n    {}", t.body.trim().replace('\n', "\n    "))).unwrap_or_default();
    format!("{}  {} {to} by {}: {fate}{says}\n", row.person_id, row.medium.as_str(), row.provider)
}
