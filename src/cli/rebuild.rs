//! `rebuild`: core tables again from raw.events.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::{Context, args::Rebuild, reach::reach};
use crate::ops::{Reply, Request};

pub async fn run(context: &Context, rebuild: Rebuild) -> anyhow::Result<ExitCode> {
    let reached = reach(context).await?;
    let reply = reached.perform(context, Request::Rebuild { tables: rebuild.tables }).await?;
    let Reply::Rebuilt { rows } = reply else { bail!("the reply is of another kind") };
    context.answer(&json!({ "rows": rows }), |_| format!("{rows} rows made again from raw.events\n"))?;
    Ok(ExitCode::SUCCESS)
}
