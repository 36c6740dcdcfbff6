//! `check`: pipelines, SQL, templates and settings, without running them.

use std::process::ExitCode;

use super::{
    Context,
    reach::{Reached, reach_or_make},
};
use crate::ops::{Reply, Request};

pub async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let reached: Reached = reach_or_make(context).await?;
    let faults = match reached.perform(context, Request::Check).await? {
        Reply::Checked(faults) => faults,
        _ => anyhow::bail!("the reply is of another kind"),
    };
    let well = faults.is_empty();
    context.answer_list("faults", &faults, |faults| match faults {
        [] => "all in order\n".to_owned(),
        faults => faults.iter().map(|f| format!("{f}\n")).collect(),
    })?;
    Ok(ExitCode::from(if well { 0 } else { 1 }))
}
