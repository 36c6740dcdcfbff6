//! The SQL texts of a project: where each stands, that each is one query, and which tables it reads.

use datafusion::{
    common::DataFusionError,
    sql::{
        parser::{DFParser, Statement},
        resolve::resolve_table_references,
        sqlparser::ast,
    },
};
use xxhash_rust::xxh3::xxh3_64;

use super::problem::Problem;

/// One query and its place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// As shown to people.
    pub file: String,
    /// The line of the file that the text's first line stands in.
    pub line: usize,
    pub text: String,
}

impl Sql {
    /// The file's line for a line (from 1) of the text.
    pub fn file_line(&self, line: usize) -> usize {
        self.line + line.saturating_sub(1)
    }

    /// Of its text: what a later run compares.
    pub(super) fn digest(&self) -> String {
        format!("{:016x}", xxh3_64(self.text.as_bytes()))
    }

    pub(super) fn problem(&self, message: &str) -> Problem {
        let (line, message) = split_position(message);
        Problem::new(&self.file, self.file_line(line.unwrap_or(1)), message)
    }

    /// The tables that the query reads, as `schema.table`, sorted; its own CTEs are none.
    pub(super) fn tables(&self) -> Result<Vec<String>, Problem> {
        let mut statements = DFParser::parse_sql(&self.text).map_err(|e| self.problem(&parser_message(&e)))?;
        let statement = match (statements.pop_front(), statements.is_empty()) {
            (Some(Statement::Statement(s)), true) if matches!(*s, ast::Statement::Query(_)) => Statement::Statement(s),
            (Some(_), true) => return Err(self.problem("only a query (SELECT, or WITH … SELECT) may stand here")),
            (Some(_), false) => return Err(self.problem("one statement a file: this one holds several")),
            (None, _) => return Err(self.problem("it holds no statement")),
        };
        let (tables, _) = resolve_table_references(&statement, true).map_err(|e| self.problem(&parser_message(&e)))?;
        let mut names: Vec<String> = tables
            .iter()
            .map(|t| match t.schema() {
                Some(schema) => format!("{schema}.{}", t.table()),
                None => t.table().to_owned(),
            })
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn parser_message(error: &DataFusionError) -> String {
    match error {
        DataFusionError::SQL(parser, _) => {
            let text = parser.to_string();
            text.strip_prefix("sql parser error: ").unwrap_or(&text).to_owned()
        }
        other => other.strip_backtrace(),
    }
}

/// The parser writes ` at Line: 3, Column: 7` behind what it says.
fn split_position(message: &str) -> (Option<usize>, &str) {
    let Some((before, position)) = message.rsplit_once(" at Line: ") else { return (None, message) };
    match position.split(',').next().and_then(|line| line.trim().parse().ok()) {
        Some(line) => (Some(line), before),
        None => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> Sql {
        Sql { file: "sql/x.sql".into(), line: 1, text: text.into() }
    }

    #[test]
    fn the_tables_of_a_query_are_those_it_does_not_define() {
        let query = "WITH a AS (SELECT * FROM core.orders) SELECT * FROM a JOIN Marts.B ON true
            WHERE x IN (SELECT y FROM tillstream.core.people)";
        assert_eq!(sql(query).tables().unwrap(), ["core.orders", "core.people", "marts.b"]);
    }

    #[test]
    fn a_slip_of_syntax_is_named_with_its_line() {
        let problem = sql("SELECT 1,\n  2\nFROM orders GROUP x").tables().unwrap_err();
        assert_eq!(problem.line, Some(3), "{problem}");
        assert!(!problem.message.contains("Line:"), "{problem}");
    }

    #[test]
    fn only_one_query_may_stand_in_a_file() {
        assert!(sql("SELECT 1; SELECT 2").tables().unwrap_err().message.contains("several"));
        assert!(sql("DELETE FROM core.orders").tables().unwrap_err().message.contains("only a query"));
        assert!(sql("-- nothing\n").tables().unwrap_err().message.contains("no statement"));
        assert!(sql("SELECT 1;\n").tables().is_ok());
    }
}
