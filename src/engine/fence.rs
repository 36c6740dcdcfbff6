//! The fence: of all that SQL can say, one statement that reads.
//!
//! What passes is one `SELECT`, `EXPLAIN`, `SHOW` or `DESCRIBE`, short and shallow enough that no later pass over it
//! can exhaust the stack. The plan is checked again by DataFusion's own options; nothing here runs a query.

use datafusion::{
    common::TableReference,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    sql::{
        parser::{DFParserBuilder, Statement},
        resolve::resolve_table_references,
        sqlparser::{
            ast::Statement as Ast,
            tokenizer::{Token, Tokenizer},
        },
    },
};

use super::{
    CATALOG, DEFAULT_SCHEMA, depth,
    dialect::Ours,
    error::{SqlError, explain, parser_error},
    expansion, json, nesting,
};

/// Longest query text, bytes. A generated list of ids fits; a whole table does not belong in a query.
pub const MAX_LENGTH: usize = 1 << 20;

/// How many parentheses, subqueries and functions may be nested (sqlparser's own default).
const MAX_NESTING: usize = 50;

/// The one statement of `sql`, if it reads only.
pub(super) fn parse(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > MAX_LENGTH {
        return Err(SqlError::user(format!("the query is longer than {} KiB", MAX_LENGTH >> 10)));
    }
    let tokens = Tokenizer::new(&Ours, sql).tokenize_with_location().map_err(|e| parser_error(&e.to_string()))?;
    depth::check(&tokens)?;
    // They would be taken for -> and ->> of one field, of a name in braces.
    if let Some(path) = tokens.iter().find(|t| matches!(t.token, Token::HashArrow | Token::HashLongArrow)) {
        let told = SqlError::user(format!("{} is not known here: write payload->'data'->>'id'", path.token));
        return Err(told.at(path.span.start.line, path.span.start.column));
    }
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&Ours)
        .with_recursion_limit(MAX_NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| explain(&e, Default::default))?;
    let statement = statements.pop_front().ok_or_else(|| SqlError::user("there is no statement"))?;
    if !statements.is_empty() {
        return Err(SqlError::user(format!("{} statements: write one at a time", statements.len() + 1)));
    }
    only_reads(&statement)?;
    nesting::check(&statement)?;
    Ok(statement)
}

/// The tables that a statement names, as `schema.table`, sorted; not those of its own `WITH`.
pub(super) fn references(statement: &Statement) -> Result<Vec<String>, SqlError> {
    let (tables, _) = resolve_table_references(statement, true).map_err(|e| explain(&e, Default::default))?;
    let mut names: Vec<String> = tables.iter().map(full_name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// `schema.table`; a table of another catalog keeps all three parts.
fn full_name(table: &TableReference) -> String {
    match table.catalog() {
        Some(catalog) if catalog != CATALOG => table.to_string(),
        _ => format!("{}.{}", table.schema().unwrap_or(DEFAULT_SCHEMA), table.table()),
    }
}

/// What only the finished plan tells: DataFusion's own check, and what its conditions would become.
pub(super) fn verify(plan: &LogicalPlan) -> Result<(), SqlError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| refused("this statement"))?;
    json::check(plan)?;
    expansion::check(plan)
}

fn only_reads(statement: &Statement) -> Result<(), SqlError> {
    match statement {
        Statement::Explain(explain) => only_reads(&explain.statement),
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
        Statement::Statement(ast) => match ast.as_ref() {
            Ast::Query(_)
            | Ast::ShowTables { .. }
            | Ast::ShowColumns { .. }
            | Ast::ShowFunctions { .. }
            | Ast::ShowVariable { .. }
            | Ast::ShowCreate { .. }
            | Ast::ExplainTable { .. } => Ok(()),
            Ast::Explain { statement, .. } => match statement.as_ref() {
                Ast::Query(_) => Ok(()),
                other => Err(refused(&verb(other))),
            },
            other => Err(refused(&verb(other))),
        },
    }
}

fn refused(verb: &str) -> SqlError {
    SqlError::user(format!("{verb} is refused: SQL here only reads (SELECT, EXPLAIN, SHOW, DESCRIBE)"))
}

/// The first word of a statement.
fn verb(ast: &Ast) -> String {
    ast.to_string().split_whitespace().next().unwrap_or_default().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sql: &str) -> String {
        parse(sql).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_only_reads_passes() {
        for sql in [
            "SELECT 1;",
            "WITH a AS (SELECT 1) SELECT * FROM a UNION ALL VALUES (2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM core.orders",
            "DESCRIBE core.orders",
            "-- a comment\nVALUES (1), (2)",
        ] {
            assert!(parse(sql).is_ok(), "{sql}: {}", refusal(sql));
        }
    }

    #[test]
    fn what_writes_or_reaches_out_is_refused() {
        for (sql, verb) in [
            ("INSERT INTO core.orders VALUES (1)", "INSERT"),
            ("UPDATE core.orders SET amount = 1", "UPDATE"),
            ("DELETE FROM core.orders", "DELETE"),
            ("DROP TABLE core.orders", "DROP"),
            ("CREATE TABLE t AS SELECT 1", "CREATE"),
            ("CREATE VIEW t AS SELECT 1", "CREATE"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE EXTERNAL TABLE"),
            ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("EXPLAIN INSERT INTO core.orders VALUES (1)", "INSERT"),
            ("EXPLAIN COPY core.orders TO '/tmp/x.csv'", "COPY"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("BEGIN", "BEGIN"),
        ] {
            let told = refusal(sql);
            assert!(told.starts_with(&format!("{verb} is refused")), "{sql}: {told}");
        }
        assert_eq!(refusal("SELECT 1; SELECT 2"), "2 statements: write one at a time");
        assert_eq!(refusal(" -- nothing\n"), "there is no statement");
    }

    #[test]
    fn references_are_full_names_without_ctes() {
        let sql = "WITH o AS (SELECT * FROM core.orders) SELECT * FROM o JOIN tillstream.marts.clv USING (person_id) \
                   JOIN charges c ON true WHERE EXISTS (SELECT 1 FROM core.orders)";
        assert_eq!(references(&parse(sql).unwrap()).unwrap(), ["core.charges", "core.orders", "marts.clv"]);
    }
}
