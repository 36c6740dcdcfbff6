//! `erase`: a person is forgotten.

use std::process::ExitCode;

use anyhow::bail;

use super::{Context, args::Erase, reach::reach};
use crate::ops::{Erased, Reply, Request};

pub async fn run(context: &Context, erase: Erase) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let reply = reached.perform(context, Request::Erase { person: erase.person }).await?;
    let Reply::Erased(erased) = reply else { bail!("the reply is of another kind") };
    context.answer(&erased, page)?;
    Ok(ExitCode::SUCCESS)
}

fn page(erased: &Erased) -> String {
    let Erased { people, identifiers, events, quarantined, contacts, elsewhere } = erased;
    let elsewhere: String = elsewhere.iter().map(|place| format!("  {place}\n")).collect();
    format!(
        "forgotten: {}\n  {identifiers} identifiers, {contacts} addresses, phones and names\n  {events} events and \
         {quarantined} of what was set aside lost what tells who they are of\nstill elsewhere:\n{elsewhere}",
        people.join(", ")
    )
}
