//! The command line as data. What a command does stands in its own file.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

use crate::{base::Source, engine::output::Format};

/// Streams a shop's payment and marketing events into tables, analyses them in SQL, and messages the right person once.
#[derive(Debug, Parser)]
#[command(name = "tillstream", version, max_term_width = 110)]
pub struct Cli {
    /// The data directory. One process owns it; beside a running `serve`, commands are its clients.
    #[arg(long, global = true, env = "TILLSTREAM_DATA", default_value = "tillstream-data", value_name = "DIR")]
    pub data: PathBuf,
    /// The settings file. Without it, tillstream.toml of the current directory where there is one.
    /// Stands before the command.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// No progress on stderr, and of the log only errors.
    #[arg(long, global = true)]
    pub quiet: bool,
    /// One JSON object on stdout at the end, instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole job in a fresh directory: a sample shop's events (or real orders) in, tables, funnel, segments, messages.
    Demo(Demo),
    /// Write a sample shop's events as its sources would send them, with the totals that any right pipeline finds.
    Generate(Generate),
    /// Take events or past orders from files. What was taken before is recognised and not taken again.
    Ingest(Ingest),
    /// Take history from Stripe's or Klaviyo's API. One that was cut off goes on at its page; nothing is taken twice.
    Backfill(Backfill),
    /// Receive webhooks, keep tables, pipelines and segments up to date, and answer queries.
    Serve(Serve),
    /// Ask a question in SQL, or several at a prompt.
    Sql(Sql),
    /// Build the pipelines' models now, run their checks, see who enters which segment, and send what is due.
    Run(Run),
    /// Check pipelines, SQL, templates and settings without running them.
    Check,
    /// Who is in which segment.
    Segments(Segments),
    /// What is sent to whom, and why.
    Triggers(Triggers),
    /// Make the core tables again from raw.events.
    Rebuild(Rebuild),
    /// Forget a person: their payments and visits are counted on, and no address, phone or name of theirs is left.
    Erase(Erase),
    /// All that is kept of a person, a line of JSON a row.
    Export(Export),
    /// What was set aside as no event or no fact, and why; take in what is good by now.
    Quarantine(Quarantine),
    /// What is wrong, and what to do about it.
    Doctor(Doctor),
}

#[derive(Debug, Args)]
pub struct Demo {
    /// How many customers the sample shop has.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub customers: u32,
    /// How many days of its life are made.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// The same seed makes the same shop.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Past orders (CSV or Parquet) instead of a sample shop.
    #[arg(long, value_name = "FILE")]
    pub orders: Option<PathBuf>,
    /// Serve the result when it is ready.
    #[arg(long)]
    pub serve: bool,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// Where to write. With several sources, a file each: shop.ndjson becomes shop.stripe.ndjson and so on. Names ending
    /// in .gz or .zst are compressed.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub customers: u32,
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    #[arg(long, value_delimiter = ',', default_value = "stripe,klaviyo,storefront", value_name = "SOURCE,...", value_parser = Source::from_str)]
    pub sources: Vec<Source>,
}

#[derive(Debug, Args)]
pub struct Ingest {
    /// What wrote the files: events one a line (plain, .gz, .zst), or orders as CSV or Parquet.
    #[arg(value_parser = Source::from_str)]
    pub source: Source,
    /// The files; - is stdin.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub columns: Columns,
}

/// Names of the columns in a file of orders. What is not named is recognised where the layout is a known one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Columns of orders")]
pub struct Columns {
    #[arg(long, value_name = "COLUMN")]
    pub order_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub customer_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub quantity_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub price_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub amount_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub currency_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub country_column: Option<String>,
    #[arg(long, value_name = "COLUMN")]
    pub sku_column: Option<String>,
    /// The currency of all orders, where the file has no column of it.
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// stripe or klaviyo; its api_key must be set.
    #[arg(value_parser = with_api)]
    pub source: Source,
    /// What happened from then on; a date is its midnight in the merchant's zone. Without it, all that the API has.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// What happened before then; without it, until now.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Take nothing: compare the events that the API lists (Stripe: of the last 30 days) with those that are here. Exit
    /// code 1 where some are missing.
    #[arg(long)]
    pub check: bool,
}

fn with_api(text: &str) -> Result<Source, String> {
    match Source::from_str(text) {
        Ok(source @ (Source::Stripe | Source::Klaviyo)) => Ok(source),
        _ => Err("only stripe and klaviyo have an API to read from".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port; the settings' [server] listen otherwise.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

#[derive(Debug, Args)]
pub struct Sql {
    /// The query. Without one, and without -f, a prompt.
    pub query: Option<String>,
    /// Read the query from a file; - is stdin.
    #[arg(short, long, conflicts_with = "query", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// table, csv, json, ndjson, arrow or parquet.
    #[arg(long, default_value = "table", value_parser = Format::from_str)]
    pub format: Format,
    /// Write the answer to a file.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Pipelines by name; all without one.
    pub pipelines: Vec<String>,
    /// The business time: what happened after it is not seen. A date is its midnight in the merchant's zone.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<String>,
    /// Of what was known to an earlier run (`ops.pipeline_runs.run_id`), at its business time unless --as-of says another.
    #[arg(long, value_name = "RUN")]
    pub known_at: Option<String>,
    /// Build incremental models from the beginning.
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Args)]
pub struct Segments {
    #[command(subcommand)]
    pub action: SegmentAction,
}

#[derive(Debug, Subcommand)]
pub enum SegmentAction {
    /// The segments and how many people are in each.
    List,
    /// The members of one.
    Show { name: String },
    /// The members of one, as CSV on stdout.
    Export { name: String },
}

#[derive(Debug, Args)]
pub struct Triggers {
    #[command(subcommand)]
    pub action: TriggerAction,
}

#[derive(Debug, Subcommand)]
pub enum TriggerAction {
    /// The triggers and what became of their messages.
    List,
    /// Who would get what now, who would not, and why.
    Preview { name: String },
    /// Look at all segments now, and send whatever is due; shows what became of this trigger's messages.
    Run { name: String },
}

#[derive(Debug, Args)]
pub struct Rebuild {
    /// Tables as core.charges; all without one.
    pub tables: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Erase {
    /// per_… as in core.people, an e-mail address, +44…, or an id that Stripe, Klaviyo, the shop or an order gave them.
    pub person: String,
}

#[derive(Debug, Args)]
pub struct Export {
    /// As for `erase`.
    pub person: String,
}

#[derive(Debug, Args)]
pub struct Quarantine {
    #[command(subcommand)]
    pub action: QuarantineAction,
}

#[derive(Debug, Subcommand)]
pub enum QuarantineAction {
    /// What waits to be mended, the newest first.
    List,
    /// One of them, with its payload as it was received.
    Show { id: u64 },
    /// Decode again, as after an upgrade, and take in what is good now; all without an id. Exits 1 where some are refused.
    Retry { ids: Vec<u64> },
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print every option with its value, its source and its meaning.
    #[arg(long = "config", id = "show_config")]
    pub show_config: bool,
}
