//! What goes wrong with a query, in words for the person who wrote it.
//!
//! Every failure of the engine is a [`SqlError`]: who can mend it ([`Kind`]), where in the text it is, and what to do.
//! DataFusion's own wording reaches a person only where it names their mistake; its plans, back traces and memory
//! reports never do.

use std::fmt;

use datafusion::{
    arrow::error::ArrowError,
    common::{Column, SchemaError},
    error::DataFusionError,
};

use parquet::errors::ParquetError;

use crate::base::suggest;

/// Whose fault it is, and so who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The query: its writer can change it.
    User,
    /// A limit of time, memory or rows: a smaller query or a larger limit helps.
    Limit,
    /// Us, the disk or the tables.
    Internal,
}

/// A place in a query's text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SqlError {
    pub kind: Kind,
    /// Where, if the fault has a place.
    pub place: Option<Place>,
    /// The view or model whose text `place` is in; `None` for the query itself.
    pub view: Option<String>,
    pub message: String,
}

impl SqlError {
    pub fn user(message: impl Into<String>) -> SqlError {
        SqlError { kind: Kind::User, place: None, view: None, message: message.into() }
    }

    pub fn limit(message: impl Into<String>) -> SqlError {
        SqlError { kind: Kind::Limit, ..SqlError::user(message) }
    }

    pub fn internal(message: impl Into<String>) -> SqlError {
        SqlError { kind: Kind::Internal, ..SqlError::user(message) }
    }

    pub(super) fn at(mut self, line: u64, column: u64) -> SqlError {
        self.place = Some(Place { line, column });
        self
    }

    /// Says in which view the fault is; the innermost view is kept.
    pub(super) fn in_view(mut self, name: &str) -> SqlError {
        self.view.get_or_insert_with(|| name.to_owned());
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(view) = &self.view {
            write!(f, "{view}: ")?;
        }
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// What a misspelt name can have meant.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// `schema.table`.
    pub tables: Vec<String>,
    pub functions: Vec<String>,
    /// The size of the memory pool, bytes.
    pub memory: usize,
}

/// Puts a failure of DataFusion into words. `names` is asked only where a name is at fault.
pub(super) fn explain(error: &DataFusionError, names: impl FnOnce() -> Names) -> SqlError {
    let (root, place) = root(error);
    let mut told = match root {
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::SQL(parser, _) => parser_error(&parser.to_string()),
        DataFusionError::Plan(message) => plan_error(message, names),
        DataFusionError::ResourcesExhausted(message) => exhausted(message, names().memory),
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow),
        DataFusionError::NotImplemented(message) => SqlError::user(format!("not supported: {}", first_line(message))),
        DataFusionError::Execution(message) | DataFusionError::Configuration(message) => {
            SqlError::user(first_line(message))
        }
        DataFusionError::External(other) => match other.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone(),
            None => SqlError::internal(format!("reading the tables failed: {}", first_line(&other.to_string()))),
        },
        DataFusionError::ExecutionJoin(_) => {
            SqlError::internal("the query stopped by a fault of the engine; please report it with the query")
        }
        DataFusionError::Internal(message) => SqlError::internal(format!(
            "the engine cannot run this query: {}; please report it with the query",
            first_line(message)
        )),
        DataFusionError::ParquetError(parquet) => match parquet.as_ref() {
            ParquetError::External(other) => match other.downcast_ref::<ArrowError>() {
                Some(arrow) => arrow_error(arrow),
                None => unreadable(&parquet.to_string()),
            },
            _ => unreadable(&parquet.to_string()),
        },
        DataFusionError::ObjectStore(error) => unreadable(&error.to_string()),
        other => SqlError::internal(format!("reading the tables failed: {}", first_line(&other.to_string()))),
    };
    if told.view.is_none() {
        told.place = told.place.or(place);
    }
    told
}

/// The error at the bottom, and the place that the layers above it name.
fn root(error: &DataFusionError) -> (&DataFusionError, Option<Place>) {
    let (mut error, mut place) = (error, None);
    loop {
        error = match error {
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let start = diagnostic.span.map(|span| span.start);
                place = start.map(|at| Place { line: at.line, column: at.column }).or(place);
                inner
            }
            DataFusionError::Context(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Collection(all) => match all.first() {
                Some(first) => first,
                None => return (error, place),
            },
            DataFusionError::External(other) => match other.downcast_ref::<DataFusionError>() {
                Some(inner) => inner,
                None => return (error, place),
            },
            // A filter is computed while a file is read: what fails may be the query and not the file.
            DataFusionError::ParquetError(parquet) => match parquet.as_ref() {
                ParquetError::External(other) => match other.downcast_ref::<DataFusionError>() {
                    Some(inner) => inner,
                    None => return (error, place),
                },
                _ => return (error, place),
            },
            DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
                ArrowError::ExternalError(other) => match other.downcast_ref::<DataFusionError>() {
                    Some(inner) => inner,
                    None => return (error, place),
                },
                _ => return (error, place),
            },
            _ => return (error, place),
        };
    }
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => SqlError::user(format!(
            "column \"{}\" is in more than one of the tables: write it with its table, as t.{}",
            field.name, field.name
        )),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::user(format!("two columns are named \"{name}\": give one of them another name with AS"))
        }
    }
}

/// How many columns an error lists where none is near what was written.
const LISTED: usize = 12;

fn unknown_column(field: &Column, valid: &[Column]) -> SqlError {
    let here: Vec<&str> = valid
        .iter()
        .filter(|c| field.relation.is_none() || c.relation == field.relation)
        .map(|c| c.name.as_str())
        .collect();
    let name = match &field.relation {
        Some(relation) => format!("{}.{}", relation.table(), field.name),
        None => field.name.clone(),
    };
    let mut hint = suggest::did_you_mean(&field.name, here.iter().copied());
    if hint.is_empty() && !here.is_empty() {
        let more = if here.len() > LISTED { ", …" } else { "" };
        hint = format!("; there are {}{more}", here.iter().take(LISTED).copied().collect::<Vec<_>>().join(", "));
    }
    let told = SqlError::user(format!("unknown column \"{name}\"{hint}"));
    match field.spans.first() {
        Some(span) => told.at(span.start.line, span.start.column),
        None => told,
    }
}

/// The parser writes the place into its message: `… at Line: 1, Column: 8`.
pub(super) fn parser_error(message: &str) -> SqlError {
    let message = message.trim_start_matches("sql parser error: ");
    let (text, place) = match message.rsplit_once(" at Line: ") {
        Some((text, place)) => (text, place.split_once(", Column: ")),
        None => (message, None),
    };
    let text = match text.strip_prefix("Expected: ").and_then(|t| t.split_once(", found: ")) {
        Some((expected, "EOF")) => format!("the text ends where {expected} is expected"),
        Some((expected, found)) => format!("found {found} where {expected} is expected"),
        None if text == "recursion limit exceeded" => "it is nested too deeply: name parts of it with WITH".to_owned(),
        None => first_line(text),
    };
    let told = SqlError::user(text);
    match place.and_then(|(line, column)| Some((line.parse().ok()?, column.trim().parse().ok()?))) {
        Some((line, column)) => told.at(line, column),
        None => told,
    }
}

fn plan_error(message: &str, names: impl FnOnce() -> Names) -> SqlError {
    let quoted = |after: &str, before: &str| {
        let (_, rest) = message.split_once(after)?;
        rest.split_once(before).map(|(name, _)| name.to_owned())
    };
    if let Some(name) = quoted("table function '", "' not found") {
        return SqlError::user(format!("unknown table function \"{name}\"; there are generate_series and range"));
    }
    if let Some(name) = quoted("table '", "' not found") {
        return unknown_table(&name, &names().tables);
    }
    if let Some(name) = quoted("Invalid function '", "'") {
        let names = names();
        let hint = suggest::did_you_mean(&name, names.functions.iter().map(String::as_str));
        return SqlError::user(format!("unknown function \"{name}\"{hint}"));
    }
    SqlError::user(first_line(message))
}

/// `name` as DataFusion writes it, with the catalog.
pub(super) fn unknown_table(name: &str, tables: &[String]) -> SqlError {
    let name = name.strip_prefix("tillstream.").unwrap_or(name);
    let bare = name.rsplit('.').next().unwrap_or(name);
    let whole = suggest::nearest(name, tables.iter().map(String::as_str));
    // The right table in the wrong schema, or in none.
    let elsewhere = || tables.iter().find(|t| t.rsplit('.').next() == Some(bare)).map(String::as_str);
    let near = || {
        let last = suggest::nearest(bare, tables.iter().filter_map(|t| t.rsplit('.').next()))?;
        tables.iter().find(|t| t.rsplit('.').next() == Some(last)).map(String::as_str)
    };
    let hint = match elsewhere().or(whole).or_else(near) {
        Some(table) => format!("; did you mean \"{table}\"?"),
        None => "; SHOW TABLES lists what there is".to_owned(),
    };
    SqlError::user(format!("unknown table \"{name}\"{hint}"))
}

fn exhausted(message: &str, memory: usize) -> SqlError {
    if message.contains("disk") {
        return SqlError::limit(
            "the query needs more temporary disk space than it may use: read fewer rows, or aggregate earlier",
        );
    }
    SqlError::limit(format!(
        "the query needs more memory than its limit of {} MiB: read fewer rows or columns, aggregate earlier, or raise \
         [engine] memory",
        memory >> 20
    ))
}

fn arrow_error(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::user("division by zero: NULLIF(divisor, 0) gives NULL instead"),
        ArrowError::ArithmeticOverflow(message) => {
            SqlError::user(format!("a number grew too large for its type: {}", first_line(message)))
        }
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::InvalidArgumentError(message) => SqlError::user(first_line(message)),
        ArrowError::ParquetError(message) => unreadable(message),
        other => SqlError::internal(format!("reading the tables failed: {}", first_line(&other.to_string()))),
    }
}

fn unreadable(message: &str) -> SqlError {
    SqlError::internal(format!(
        "a file of a table cannot be read: {}; `tillstream doctor` looks at each, and says what to do",
        first_line(message)
    ))
}

/// The message without the lines of advice and back trace that DataFusion adds, and without its prefixes.
fn first_line(message: &str) -> String {
    let mut line = message.trim().lines().next().unwrap_or_default().trim_end_matches(['.', ':']);
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Error evaluating filter predicate: ",
        "Cast error: ",
        "Parser error: ",
    ] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    let line = written_out(line).unwrap_or_else(|| line.to_owned());
    if line.starts_with("Cannot cast string") {
        return format!("{line}: CAST it AS DOUBLE where it may have decimals, or TRY_CAST, which gives NULL");
    }
    line
}

/// What an error says that the engine wrote out as a program holds it, as `ArrowError(CastError("…"), Some(""))`.
fn written_out(line: &str) -> Option<String> {
    let (kind, rest) = line.split_once("(\"")?;
    let is_error = kind.ends_with("Error") || kind.ends_with("Execution");
    let (said, _) = rest.split_once("\")").filter(|_| is_error)?;
    Some(said.replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_place_is_read() {
        let told = parser_error("sql parser error: Expected: an expression, found: FROM at Line: 2, Column: 8");
        assert_eq!(told.to_string(), "2:8: found FROM where an expression is expected");
        let told = parser_error("sql parser error: Expected: identifier, found: EOF");
        assert_eq!(told.to_string(), "the text ends where identifier is expected");
    }

    #[test]
    fn a_table_in_the_wrong_schema_is_found() {
        let tables = ["core.orders".to_owned(), "marts.clv".to_owned()];
        for wrong in ["tillstream.core.order", "tillstream.raw.orders", "tillstream.core.ordres"] {
            assert!(unknown_table(wrong, &tables).message.ends_with("did you mean \"core.orders\"?"), "{wrong}");
        }
        assert!(unknown_table("tillstream.core.weather", &tables).message.ends_with("SHOW TABLES lists what there is"));
    }
}
