//! The commands, one file each. The only layer that prints: answers on stdout, everything else on stderr.

mod args;
mod backfill;
mod check;
mod demo;
mod doctor;
mod erase;
mod export;
mod generate;
mod ingest;
mod page;
mod progress;
mod quarantine;
mod reach;
mod rebuild;
mod run;
mod segments;
mod serve;
mod sql;
mod triggers;

use std::{
    collections::BTreeMap,
    fmt::{self, Arguments},
    io::Write,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use serde::Serialize;

pub use args::Cli;
use args::Command;

use crate::{base::Progress, config::Settings, ops::OpsError, telemetry};

/// What every command is given.
pub struct Context {
    pub data: PathBuf,
    pub settings: Settings,
    pub quiet: bool,
    pub json: bool,
    pub progress: Box<dyn Progress>,
    pub metrics: telemetry::Metrics,
}

/// A fault of the command's words rather than of the work: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs the command line; 0 done, 1 failed, 2 usage.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let told = error.print();
            if std::env::args().any(|arg| arg == "--json") && error.use_stderr() {
                tell_json(&error.to_string());
            }
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) && told.is_ok();
            return ExitCode::from(if fine { 0 } else { 2 });
        }
    };
    let json = cli.json;
    match start(cli) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let told = whole(&error);
            eprintln!("error: {told}");
            if json {
                tell_json(&told);
            }
            ExitCode::from(if is_of_the_words(&error) { 2 } else { 1 })
        }
    }
}

/// An error and its causes, but for those that it tells itself.
fn whole(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// The one object of a command that failed. Where stdout is the fault, stderr has said it.
fn tell_json(error: &str) {
    drop(writeln!(std::io::stdout(), "{}", serde_json::json!({ "error": error.trim_end() })));
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let level = if cli.quiet { "error" } else { "warn" };
    let level = if matches!(cli.command, Command::Serve(_)) && !cli.quiet { "info" } else { level };
    let metrics = telemetry::start(level)?;
    let settings = Settings::load(cli.config.as_deref()).map_err(|e| Usage(e.to_string()))?;
    let progress = progress::display(cli.quiet);
    let context = Context { data: cli.data, settings, quiet: cli.quiet, json: cli.json, progress, metrics };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(perform(&context, cli.command));
    // Blocking work that a cut-off command left behind must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn perform(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(demo) => demo::run(context, demo).await,
        Command::Generate(generate) => generate::run(context, generate),
        Command::Ingest(ingest) => ingest::run(context, ingest).await,
        Command::Backfill(backfill) => backfill::run(context, backfill).await,
        Command::Serve(serve) => serve::run(context, serve).await,
        Command::Sql(sql) => sql::run(context, sql).await,
        Command::Run(run) => run::run(context, run).await,
        Command::Check => check::run(context).await,
        Command::Segments(segments) => segments::run(context, segments).await,
        Command::Triggers(triggers) => triggers::run(context, triggers).await,
        Command::Rebuild(rebuild) => rebuild::run(context, rebuild).await,
        Command::Erase(erase) => erase::run(context, erase).await,
        Command::Export(export) => export::run(context, export).await,
        Command::Quarantine(quarantine) => quarantine::run(context, quarantine).await,
        Command::Doctor(doctor) => doctor::run(context, doctor).await,
    }
}

impl Context {
    /// The answer: one JSON object with `--json`, else text made by `text`.
    fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, value)?;
            writeln!(out)?;
        } else {
            write!(out, "{}", text(value))?;
        }
        out.flush()?;
        Ok(())
    }

    /// The same of a list: with `--json` an object whose one field, `name`, holds it.
    fn answer_list<T: Serialize>(
        &self,
        name: &str,
        list: &[T],
        text: impl FnOnce(&[T]) -> String,
    ) -> anyhow::Result<()> {
        self.answer(&BTreeMap::from([(name, list)]), |_| text(list))
    }
}

/// One more line of an answer.
fn push(text: &mut String, line: Arguments<'_>) {
    let written = fmt::Write::write_fmt(text, line);
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

/// Whether the command asked for what there is not, rather than failed at its work.
fn is_of_the_words(error: &anyhow::Error) -> bool {
    error.is::<Usage>() || error.downcast_ref::<OpsError>().is_some_and(OpsError::is_of_the_words)
}

/// Whoever read our output has seen enough (`| head`): no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}
