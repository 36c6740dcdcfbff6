//! How large a statement would become, found out before it does.
//!
//! A short text can stand for a deep tree (`a OR b OR c …` is as deep as it is long), a tree that takes exponential
//! time to plan (each nested subquery is planned twice), or one that doubles with each line (a `WITH` that names the
//! one before it twice). None of these is stopped by limits of time and memory, as they act in the planner.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::{
    parser::Statement,
    sqlparser::{
        ast::{Expr, ObjectName, Query, Visit, Visitor},
        keywords::Keyword,
        tokenizer::{Token, TokenWithSpan},
    },
};

use super::error::SqlError;

/// How deep an expression or a chain of joins may be. Some passes recurse with frames of kilobytes; this depth fits the
/// engine's stacks with a margin.
const MAX_DEPTH: usize = 1000;

/// How deep subqueries in expressions may be nested. Planning takes time 2 to this power.
const MAX_SUBQUERIES: usize = 8;

/// How deep `CASE` may be nested. The parser tries each in several ways, so a fault inside takes time exponential to this.
const MAX_CASES: usize = 12;

/// How many tables a statement may read, each mention of a `WITH` table counted as all that it reads.
const MAX_TABLES: u64 = 2000;

/// One level of parentheses.
#[derive(Default)]
struct Level {
    /// Operators since the last comma or clause.
    operators: usize,
    /// Joins and set operations, which clauses do not end.
    chain: usize,
    in_from: bool,
}

/// Refuses what would be nested deeper than [`MAX_DEPTH`], before anything is built that deep.
pub(super) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels = vec![Level::default()];
    // Of all levels but the last.
    let mut below = 0;
    let mut cases = 0usize;
    for TokenWithSpan { token, span } in tokens {
        if let Token::Word(word) = token {
            cases += usize::from(word.keyword == Keyword::CASE);
            cases = cases.saturating_sub(usize::from(word.keyword == Keyword::END));
        }
        if cases > MAX_CASES {
            return Err(SqlError::user(format!(
                "more than {MAX_CASES} CASEs inside one another, or some have no END: name parts of it with WITH"
            ))
            .at(span.start.line, span.start.column));
        }
        match token {
            Token::LParen => {
                below += levels.last().map_or(0, |l| 1 + l.operators + l.chain);
                levels.push(Level::default());
            }
            Token::RParen if levels.len() > 1 => {
                levels.pop();
                below -= levels.last().map_or(0, |l| 1 + l.operators + l.chain);
            }
            other => {
                if let Some(level) = levels.last_mut() {
                    count(level, other);
                }
            }
        }
        let depth = below + levels.last().map_or(0, |l| l.operators + l.chain);
        if depth > MAX_DEPTH {
            return Err(SqlError::user(format!(
                "more than {MAX_DEPTH} operators, joins or parentheses in a row: use IN (…), or a table to join with"
            ))
            .at(span.start.line, span.start.column));
        }
    }
    Ok(())
}

fn count(level: &mut Level, token: &Token) {
    match token {
        Token::Comma if level.in_from => level.chain += 1,
        Token::Comma => level.operators = 0,
        Token::SemiColon => *level = Level::default(),
        Token::Word(word) => match word.keyword {
            Keyword::JOIN | Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => level.chain += 1,
            Keyword::FROM => *level = Level { operators: 0, in_from: true, ..*level },
            Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                *level = Level { operators: 0, in_from: false, ..*level };
            }
            Keyword::ON | Keyword::WHEN | Keyword::THEN | Keyword::ELSE => level.operators = 0,
            Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::IN | Keyword::BETWEEN => {
                level.operators += 1;
            }
            Keyword::LIKE | Keyword::ILIKE | Keyword::SIMILAR | Keyword::COLLATE | Keyword::AT => level.operators += 1,
            _ => {}
        },
        Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::EOF => {}
        _ => level.operators += 1,
    }
}

/// Refuses subqueries nested too deeply, and `WITH` tables that multiply.
pub(super) fn check_statement(statement: &Statement) -> Result<(), SqlError> {
    let ast = match statement {
        Statement::Statement(ast) => ast.as_ref(),
        Statement::Explain(explain) => return check_statement(&explain.statement),
        _ => return Ok(()),
    };
    let mut walk = Walk { read: vec![0], ..Walk::default() };
    if let ControlFlow::Break(told) = ast.visit(&mut walk) {
        return Err(told);
    }
    if walk.read.first().is_some_and(|read| *read > MAX_TABLES) {
        return Err(SqlError::user(format!(
            "with each WITH written out the query reads more than {MAX_TABLES} tables: name each of them fewer times"
        )));
    }
    Ok(())
}

/// One walk through a statement for all that is counted in it: the parser's tree has hundreds of types, and each
/// visitor's way through them is compiled for itself.
#[derive(Default)]
struct Walk {
    /// How deep it is in subqueries of expressions.
    subqueries: usize,
    /// How many tables are read in the statement, and in each of the queries that the walk is in.
    read: Vec<u64>,
    /// The `WITH` tables that were announced, by where their queries stand.
    announced: HashMap<*const Query, String>,
    /// How many tables each `WITH` table reads. One name that means two things counts as the larger.
    reads: HashMap<String, u64>,
}

fn is_subquery(e: &Expr) -> bool {
    matches!(e, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. })
}

impl Walk {
    fn add(&mut self, tables: u64) {
        if let Some(read) = self.read.last_mut() {
            *read = read.saturating_add(tables);
        }
    }
}

impl Visitor for Walk {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<SqlError> {
        self.subqueries += usize::from(is_subquery(e));
        if self.subqueries > MAX_SUBQUERIES {
            return ControlFlow::Break(SqlError::user(format!(
                "more than {MAX_SUBQUERIES} subqueries inside one another: name parts of it with WITH"
            )));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, e: &Expr) -> ControlFlow<SqlError> {
        self.subqueries -= usize::from(is_subquery(e));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<SqlError> {
        // A `WITH` table has one name, quoted or not.
        let with = match &name.0[..] {
            [part] => part.as_ident().and_then(|ident| self.reads.get(&ident.value.to_lowercase())),
            _ => None,
        };
        self.add(with.copied().unwrap_or(1));
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.announced.insert(cte.query.as_ref(), cte.alias.name.value.to_lowercase());
        }
        self.read.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        let read = self.read.pop().unwrap_or_default();
        self.add(read);
        if let Some(name) = self.announced.get(&std::ptr::from_ref(query)) {
            let known = self.reads.entry(name.clone()).or_default();
            *known = read.max(*known);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::parse;

    fn refusal(sql: &str) -> String {
        parse(sql).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn depth_is_refused_before_it_is_built() {
        let sum = format!("SELECT 1{}", "+1".repeat(100_000));
        assert!(refusal(&sum).starts_with("1:2009: more than 1000 operators"), "{}", refusal(&sum));
        for chain in [" OR a = 1", " UNION ALL SELECT 1", ", t", " JOIN t ON true", "::int", "[1]", " IS NULL"] {
            let sql = format!("SELECT a FROM t WHERE a{}", chain.repeat(5_000));
            let sql = if chain.contains('t') { sql.replace(" WHERE a", "") } else { sql };
            assert!(refusal(&sql).contains("in a row"), "{chain}: {}", refusal(&sql));
        }
        assert!(refusal(&format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200))).contains("too deeply"));
        assert!(refusal(&format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000))).contains("in a row"));
        assert!(refusal(&format!("SELECT {}1", "- ".repeat(900))).contains("too deeply"));
        let long_list = format!("SELECT 1 WHERE 1 IN ({}1)", "-1, ".repeat(50_000));
        assert!(parse(&long_list).is_ok());
    }

    #[test]
    fn subqueries_are_nested_a_few_times_at_most() {
        let nested = |depth: usize| format!("SELECT {}1{}", "(SELECT ".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(8)).is_ok());
        assert_eq!(refusal(&nested(9)), "more than 8 subqueries inside one another: name parts of it with WITH");
        let beside = format!("SELECT 1{}", ", (SELECT 1)".repeat(100));
        assert!(parse(&beside).is_ok());
    }

    #[test]
    fn cases_without_an_end_are_refused_at_once() {
        let nested = |depth: usize| format!("SELECT {}1{}", "CASE WHEN a THEN ".repeat(depth), " END".repeat(depth));
        assert!(parse(&nested(12)).is_ok());
        assert!(refusal(&nested(13)).contains("more than 12 CASEs"));
        assert!(refusal(&format!("SELECT {}", "CASE WHEN ".repeat(500))).contains("more than 12 CASEs"));
        refusal(&format!("SELECT {}", "CASE WHEN ".repeat(12)));
        assert!(parse(&format!("SELECT 1{}", ", CASE WHEN a THEN 1 END".repeat(100))).is_ok());
    }

    #[test]
    fn tables_that_double_are_refused() {
        let doubling = |levels: usize| {
            let ctes: String = (1..=levels)
                .map(|i| format!(", t{i} AS (SELECT * FROM t{0} UNION ALL SELECT * FROM t{0})", i - 1))
                .collect();
            format!("WITH t0 AS (SELECT * FROM core.orders){ctes} SELECT count(*) FROM t{levels}")
        };
        assert!(parse(&doubling(6)).is_ok());
        assert!(refusal(&doubling(12)).contains("more than 2000 tables"));
        let quoted =
            (1..=12).fold(doubling(12), |sql, i| sql.replace(&format!(", t{i} AS"), &format!(", \"t{i}\" AS")));
        assert!(refusal(&quoted).contains("more than 2000 tables"));
        assert!(refusal(&format!("SELECT * FROM ({}) AS x", doubling(12))).contains("more than 2000 tables"));
        let one_after_another: String = (1..300).map(|i| format!(", t{i} AS (SELECT * FROM t{})", i - 1)).collect();
        assert!(parse(&format!("WITH t0 AS (SELECT 1){one_after_another} SELECT * FROM t299")).is_ok());
        // A name of its own inside: not endless.
        assert!(parse("WITH t AS (SELECT * FROM t AS a, t AS b) SELECT * FROM t, t AS c").is_ok());
    }

    /// References are read on the caller's thread, which has the stack of any thread.
    #[test]
    fn the_deepest_statement_is_parsed_on_a_small_stack() {
        let deepest = [
            format!("SELECT 1{}", "+1".repeat(990)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(490)),
            format!("SELECT {}1{}", "(SELECT abs(".repeat(8), "))".repeat(8)),
        ];
        let parsing =
            move || deepest.iter().all(|sql| parse(sql).and_then(|s| super::super::fence::references(&s)).is_ok());
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(parsing).unwrap();
        assert!(thread.join().unwrap());
    }
}
