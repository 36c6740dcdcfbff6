//! `generate`: a sample shop's events, and the truth about them.

use std::process::ExitCode;

use super::{Context, args::Generate};
use crate::synth::{self, Shop};

pub fn run(context: &Context, generate: Generate) -> anyhow::Result<ExitCode> {
    let shop = Shop {
        customers: generate.customers,
        days: generate.days,
        seed: generate.seed,
        sources: generate.sources,
        ..Shop::default()
    };
    context.progress.begin("Making a shop", None, "");
    let written = synth::write_files(shop, &generate.out)?;
    context.progress.end(&format!("{} events", written.events));
    context.answer(&written, |w| {
        let files: String = w.files.iter().map(|f| format!("  {}\n", f.display())).collect();
        format!(
            "{} events, {:.1} MB; the last file holds what any right pipeline finds\n{files}",
            w.events,
            w.bytes as f64 / 1e6
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
