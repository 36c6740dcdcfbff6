//! `demo`: the main job end to end in a fresh directory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};

use super::{
    Context, Usage,
    args::Demo,
    page::{Page, by_source},
    serve::serve_until_told,
};
use crate::{
    base::{Micros, Source, time::DAY},
    ops::{BusinessTime, DirLock, Ingested, Instance, Taken},
    sources::orders::OrdersMapping,
    synth::{self, Shop},
};

pub async fn run(context: &Context, demo: Demo) -> anyhow::Result<ExitCode> {
    if context.data.join("lake").exists() {
        let dir = context.data.display();
        bail!(Usage(format!("{dir} holds data already; demo wants a fresh directory: name one with --data")));
    }
    if let Some(file) = demo.orders.as_deref().filter(|file| *file != Path::new("-")) {
        std::fs::metadata(file).with_context(|| format!("--orders {}", file.display()))?;
    }
    let Taken::Ours(lock) = DirLock::take(&context.data)? else {
        bail!("{} is in use by another process; name another directory with --data", context.data.display());
    };
    let instance = Arc::new(Instance::open(&context.data, context.settings.clone(), lock).await?);
    let ingested = match &demo.orders {
        Some(file) => take_orders(context, &instance, file.clone()).await?,
        None => take_shop(context, &instance, &demo).await?,
    };
    let as_of = end_of_story(&instance).await?;
    let time = BusinessTime { as_of: Some(as_of.to_string()), known_at: None };
    let ran = instance.run(&[], &time, true, &*context.progress).await?;
    let page = Page::read(&instance.session(as_of)?, as_of, by_source(ingested), instance.triggers()?).await?;
    context.answer(&page, |page| page.text(&context.data))?;
    if demo.serve {
        return serve_until_told(context, instance, context.settings.server.listen).await;
    }
    Ok(ExitCode::from(if ran.succeeded() { 0 } else { 1 }))
}

async fn take_orders(
    context: &Context,
    instance: &Instance,
    file: PathBuf,
) -> anyhow::Result<BTreeMap<String, Ingested>> {
    let mapping = OrdersMapping::default();
    let ingested = instance.ingest_files(Source::Orders, vec![file], mapping, &*context.progress).await?;
    Ok(BTreeMap::from([(Source::Orders.to_string(), ingested)]))
}

/// The sample shop's events go through files, as a merchant's would.
async fn take_shop(context: &Context, instance: &Instance, demo: &Demo) -> anyhow::Result<BTreeMap<String, Ingested>> {
    let dir = context.data.join("demo");
    std::fs::create_dir_all(&dir)?;
    let shop = Shop { customers: demo.customers, days: demo.days, seed: demo.seed, ..Shop::default() };
    context.progress.begin("Making a shop", None, "");
    let out = dir.join("shop.ndjson.zst");
    let sources = shop.sources.clone();
    let written = tokio::task::spawn_blocking(move || synth::write_files(shop, &out)).await??;
    context.progress.end(&format!("{} events", written.events));
    let mut all = BTreeMap::new();
    for (source, file) in sources.into_iter().zip(written.files) {
        let mapping = OrdersMapping::default();
        let ingested = instance.ingest_files(source, vec![file], mapping, &*context.progress).await?;
        all.insert(source.to_string(), ingested);
    }
    Ok(all)
}

/// The midnight that ends the day after the last event: the last day is whole, and late deliveries are in.
async fn end_of_story(instance: &Instance) -> anyhow::Result<Micros> {
    #[derive(serde::Deserialize)]
    struct Last {
        last: Option<i64>,
    }
    let sql = "SELECT CAST(arrow_cast(max(occurred_at), 'Timestamp(Microsecond, None)') AS BIGINT) AS last \
               FROM raw.events WHERE source <> 'tillstream'";
    let rows: Vec<Last> = instance.session(Micros::now())?.rows(sql).await?;
    let last = rows.first().and_then(|r| r.last).map(Micros);
    let Some(last) = last else { bail!("no event came in: nothing to show") };
    last.plus(2 * DAY)
        .midnight(instance.settings().merchant.timezone)
        .ok_or_else(|| anyhow::anyhow!("{last} is not a day of the calendar"))
}
