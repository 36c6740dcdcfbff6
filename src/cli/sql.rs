//! `sql`: one query, or a prompt.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, bail};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::json;

use super::{
    Context, Usage,
    args::Sql,
    reach::{Reached, reach},
};
use crate::{
    base::Micros,
    engine::output::{self, Format},
    net::Upload,
};

pub async fn run(context: &Context, sql: Sql) -> anyhow::Result<ExitCode> {
    if context.json && !matches!(sql.format, Format::Table | Format::Json) && sql.out.is_none() {
        bail!(Usage(format!("--json and --format {} are two answers: leave one out", sql.format.as_str())));
    }
    let format = if context.json && sql.format == Format::Table { Format::Json } else { sql.format };
    let query = match (&sql.query, &sql.file) {
        (Some(query), _) => Some(query.clone()),
        (None, Some(file)) => Some(read(file)?),
        (None, None) if !io::stdin().is_terminal() => Some(read(Path::new("-"))?),
        (None, None) => None,
    };
    let binary = matches!(format, Format::Arrow | Format::Parquet);
    if binary && sql.out.is_none() && io::stdout().is_terminal() {
        bail!(Usage("this format is not for a terminal: write it to a file with -o".to_owned()));
    }
    let asker = Asker::over(reach(context).await?, context).await?;
    let Some(query) = query else { return prompt(&asker, context).await };
    let answered = match &sql.out {
        Some(path) => asker.write_file(&query, format, path).await,
        // Whole or not at all: one object, be it of an error.
        None if context.json && sql.format == Format::Table => {
            let mut rows = Vec::new();
            asker.ask(&query, format, &mut rows).await.and_then(|()| Ok(wrapped(&rows)?))
        }
        None => asker.ask(&query, format, BufWriter::new(io::stdout())).await,
    };
    answered.map_err(|e| placed(e, sql.file.as_deref()))?;
    if let Some(path) = sql.out.filter(|_| context.json) {
        context.answer(&json!({ "file": path }), |_| String::new())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows as a JSON array, as the one object that `--json` promises.
fn wrapped(rows: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"{\"rows\":")?;
    out.write_all(rows.trim_ascii_end())?;
    out.write_all(b"}\n")?;
    out.flush()
}

/// An error in a file names the file before the line.
fn placed(error: anyhow::Error, file: Option<&Path>) -> anyhow::Error {
    match file {
        Some(file) if file != Path::new("-") => error.context(format!("in {}", file.display())),
        _ => error,
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

/// Asks the owner of the directory.
struct Asker {
    reached: Reached,
}

impl Asker {
    /// What an earlier process acknowledged and did not load is loaded first, so that no answer misses it.
    async fn over(reached: Reached, context: &Context) -> anyhow::Result<Asker> {
        if let Reached::Here(instance) = &reached {
            instance.load(&*context.progress).await?;
        }
        Ok(Asker { reached })
    }

    async fn ask(&self, query: &str, format: Format, mut out: impl Write + Send) -> anyhow::Result<()> {
        match &self.reached {
            Reached::Here(instance) => {
                let rows = instance.session(Micros::now())?.query(query).await?;
                output::write(rows, format, &mut out).await?;
            }
            Reached::There(client) => {
                let asked = json!({ "query": query, "format": format.as_str() });
                let mut answer = client.post("/local/sql", &[], Upload::Json(asked)).await?;
                if !answer.is_success() {
                    bail!("{}", String::from_utf8_lossy(&answer.bytes().await?).trim());
                }
                while let Some(chunk) = answer.chunk().await? {
                    out.write_all(&chunk)?;
                }
            }
        }
        out.flush()?;
        Ok(())
    }

    /// A file has another name until it is whole, and where a link points to it stays there; a pipe or a device is
    /// written to.
    async fn write_file(&self, query: &str, format: Format, path: &Path) -> anyhow::Result<()> {
        let named = || path.display().to_string();
        let path = match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => bail!("-o {}: it is a directory; name a file in it", path.display()),
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(path).with_context(named)?;
                return self.ask(query, format, BufWriter::new(file)).await;
            }
            Ok(_) => path.canonicalize().with_context(named)?,
            Err(_) => path.to_owned(),
        };
        let unfinished = PathBuf::from(format!("{}.unfinished", path.display()));
        let file = File::create(&unfinished).with_context(named)?;
        let written = self.ask(query, format, BufWriter::new(file)).await;
        let finished = written.and_then(|()| std::fs::rename(&unfinished, &path).with_context(named));
        if finished.is_err() {
            std::fs::remove_file(&unfinished)?;
        }
        finished
    }
}

const HELP: &str = "\
A statement ends with a semicolon and may take several lines.
\\d           the tables            \\d TABLE     its columns
\\f FORMAT    table, csv, json, ndjson
\\q           leave (or Ctrl-D)
";

/// Reads statements until the end; an error is shown and the next statement awaited.
async fn prompt(asker: &Asker, context: &Context) -> anyhow::Result<ExitCode> {
    let mut editor = DefaultEditor::new()?;
    let history = context.data.join("sql_history");
    if history.exists() && editor.load_history(&history).is_err() {
        eprintln!("the history in {} cannot be read; a new one begins", history.display());
    }
    eprintln!("\\? for help");
    let mut format = Format::Table;
    let mut statement = String::new();
    loop {
        let line = match editor.readline(if statement.is_empty() { "tillstream> " } else { "         -> " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if statement.is_empty() && line.trim_start().starts_with('\\') {
            editor.add_history_entry(&line)?;
            match meta(line.trim(), &mut format) {
                Meta::Leave => break,
                Meta::Told(text) => eprint!("{text}"),
                Meta::Ask(query) => show(asker, &query, format).await,
            }
            continue;
        }
        statement.push_str(&line);
        statement.push('\n');
        if line.trim_end().ends_with(';') {
            let whole = std::mem::take(&mut statement);
            editor.add_history_entry(whole.trim_end())?;
            show(asker, whole.trim_end().trim_end_matches(';'), format).await;
        } else if statement.trim().is_empty() {
            statement.clear();
        }
    }
    editor.save_history(&history)?;
    Ok(ExitCode::SUCCESS)
}

async fn show(asker: &Asker, query: &str, format: Format) {
    if let Err(error) = asker.ask(query, format, io::stdout()).await {
        eprintln!("error: {}", super::whole(&error));
    }
}

enum Meta {
    Leave,
    Told(String),
    Ask(String),
}

fn meta(line: &str, format: &mut Format) -> Meta {
    let (command, rest) = line.split_once(' ').map_or((line, ""), |(c, r)| (c, r.trim()));
    match (command, rest) {
        ("\\q", _) => Meta::Leave,
        ("\\d", "") => Meta::Ask(
            "SELECT table_schema || '.' || table_name AS \"table\" FROM information_schema.tables \
             WHERE table_schema <> 'information_schema' ORDER BY 1"
                .to_owned(),
        ),
        ("\\d", table) => Meta::Ask(format!("DESCRIBE {table}")),
        ("\\f", name) => match Format::from_str(name) {
            Ok(Format::Arrow | Format::Parquet) => Meta::Told(format!("{name} is not for a terminal\n")),
            Ok(known) => {
                *format = known;
                Meta::Told(String::new())
            }
            Err(told) => Meta::Told(format!("{told}\n")),
        },
        _ => Meta::Told(HELP.to_owned()),
    }
}
