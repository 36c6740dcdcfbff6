//! `ingest`: events or past orders from files.

use std::{path::Path, process::ExitCode};

use anyhow::bail;

use super::{
    Context, Usage,
    args::{Columns, Ingest},
    reach::{Reached, follow, reach_or_make},
};
use crate::{
    base::{Currency, Source},
    net::Upload,
    ops::{Ingested, Reply, Request},
    sources::orders::OrdersMapping,
};

pub async fn run(context: &Context, ingest: Ingest) -> anyhow::Result<ExitCode> {
    let mapping = mapping(ingest.columns)?;
    let source = ingest.source;
    if source != Source::Orders && mapping != OrdersMapping::default() {
        bail!(Usage(format!("columns and a currency are of orders, and {source} has none: leave them out")));
    }
    let stdin = ingest.files.iter().any(|f| f == Path::new("-"));
    if stdin && ingest.files.len() > 1 {
        bail!(Usage("- (stdin) stands alone: give the other files to a command of their own".to_owned()));
    }
    let reached = reach_or_make(context).await?;
    let reply = match &reached {
        Reached::There(client) if stdin => {
            let mapping = serde_json::to_string(&mapping)?;
            let query = [("source", source.as_str()), ("mapping", mapping.as_str())];
            follow(client.post("/local/ingest", &query, Upload::Stdin).await?, context).await?
        }
        _ => reached.perform(context, Request::Ingest { source, files: ingest.files, mapping }).await?,
    };
    let Reply::Ingested(ingested) = reply else { bail!("the reply is of another kind") };
    context.answer(&ingested, text)?;
    Ok(if ingested.is_all_refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn mapping(columns: Columns) -> Result<OrdersMapping, Usage> {
    let currency = columns.currency.as_deref().map(Currency::parse).transpose();
    Ok(OrdersMapping {
        order: columns.order_column,
        customer: columns.customer_column,
        time: columns.time_column,
        quantity: columns.quantity_column,
        price: columns.price_column,
        amount: columns.amount_column,
        currency: columns.currency_column,
        country: columns.country_column,
        sku: columns.sku_column,
        fixed_currency: currency.map_err(|e| Usage(format!("--currency: {e}")))?,
    })
}

fn text(done: &Ingested) -> String {
    let rate = |n: f64| if done.seconds > 0.0 { n / done.seconds } else { 0.0 };
    let mut text = format!(
        "{} read: {} new, {} already there, {} set aside\n{:.1} MB in {:.1} s: {:.0} events/s, {:.0} MB/s\n",
        done.read,
        done.accepted,
        done.duplicates,
        done.quarantined,
        done.bytes as f64 / 1e6,
        done.seconds,
        rate(done.read as f64),
        rate(done.bytes as f64 / 1e6),
    );
    if done.unfit > 0 {
        text.push_str(&format!(
            "{} of those set aside are events and count as new: raw.events keeps them\n",
            done.unfit
        ));
    }
    if done.anonymous > 0 {
        text.push_str(&format!(
            "{} new orders name no customer: raw.events keeps them, and no table of orders counts them\n",
            done.anonymous
        ));
    }
    if done.is_all_refused() {
        text.push_str("nothing that was read is of this source: its name, or the file, may be wrong\n");
    }
    if done.quarantined > 0 {
        text.push_str("what was set aside, and why: tillstream sql \"SELECT reason, payload FROM raw.quarantine\"\n");
    }
    text
}
