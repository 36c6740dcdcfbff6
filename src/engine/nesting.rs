//! Which queries a statement nests, and how many tables it reads once they are all written out.
//!
//! A subquery in an expression is planned twice, so nested ones take exponential time; a `WITH` that names the one
//! before it twice doubles with each line. Both are counted on the tokens, by what may stand where: the parser's tree
//! has hundreds of types, and a walk through them all would be a twentieth of this crate's machine code. Where tokens
//! leave it open, more is counted than there is, never less.

use std::collections::HashMap;

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Word},
};

use super::error::SqlError;

/// How deep subqueries in expressions may be nested. Planning takes time 2 to this power.
const MAX_SUBQUERIES: usize = 8;

/// How many tables a statement may read, each mention of a `WITH` table counted as all that it reads.
const MAX_TABLES: u64 = 2000;

/// Refuses subqueries nested too deeply, and `WITH` tables that multiply.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let tokens: Vec<_> = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let mut nesting = Nesting::of(tokens.iter().map(|t| &t.token).collect());
    for (at, TokenWithSpan { span, .. }) in tokens.iter().enumerate() {
        nesting.read(at);
        if nesting.innermost().subqueries > MAX_SUBQUERIES {
            return Err(SqlError::user(format!(
                "more than {MAX_SUBQUERIES} subqueries inside one another: name parts of it with WITH"
            ))
            .at(span.start.line, span.start.column));
        }
    }
    if nesting.tables() > MAX_TABLES {
        return Err(SqlError::user(format!(
            "with each WITH written out the query reads more than {MAX_TABLES} tables: name each of them fewer times"
        )));
    }
    Ok(())
}

/// The statement itself, or what stands in one pair of brackets.
#[derive(Default)]
struct Scope {
    /// Where its bracket is.
    opened: usize,
    /// The `WITH` table that is defined in it.
    defines: Option<String>,
    /// `FROM` begins a clause in it. Among a function's arguments it is only a word: `extract(year FROM at)`.
    is_query: bool,
    in_from: bool,
    /// The next word is a table's name, a query in the next brackets a table.
    wants_table: bool,
    /// How deep it is in subqueries of expressions.
    subqueries: usize,
    /// How many tables are read in it.
    reads: u64,
}

struct Nesting<'a> {
    tokens: Vec<&'a Token>,
    statement: Scope,
    /// What is open in the statement, the innermost last.
    scopes: Vec<Scope>,
    /// Where the brackets that were closed last had been opened.
    last_opened: usize,
    /// How many tables each `WITH` table reads. One name that means two things counts as the larger.
    with: HashMap<String, u64>,
}

impl<'a> Nesting<'a> {
    fn of(tokens: Vec<&'a Token>) -> Nesting<'a> {
        let statement = Scope { is_query: true, ..Scope::default() };
        Nesting { tokens, statement, scopes: Vec::new(), last_opened: 0, with: HashMap::new() }
    }

    fn innermost(&mut self) -> &mut Scope {
        self.scopes.last_mut().unwrap_or(&mut self.statement)
    }

    fn tables(&self) -> u64 {
        self.scopes.iter().fold(self.statement.reads, |all, scope| all.saturating_add(scope.reads))
    }

    fn keyword(&self, at: Option<usize>) -> Option<Keyword> {
        match at.and_then(|at| self.tokens.get(at)) {
            Some(Token::Word(word)) => Some(word.keyword),
            _ => None,
        }
    }

    fn read(&mut self, at: usize) {
        let Some(&token) = self.tokens.get(at) else { return };
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let inner = self.opened(at);
                self.innermost().wants_table = false;
                self.scopes.push(inner);
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Word(word) if self.innermost().wants_table => self.read_table(at, word),
            Token::Word(word) => self.read_word(at, word.keyword),
            Token::Comma => {
                let scope = self.innermost();
                scope.wants_table = scope.in_from;
            }
            Token::VerticalBarRightAngleBracket => self.innermost().in_from = false,
            _ => self.innermost().wants_table = false,
        }
    }

    /// What the bracket at `at` opens.
    fn opened(&mut self, at: usize) -> Scope {
        let is_query = matches!(
            self.keyword(Some(at + 1)),
            Some(Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM)
        );
        let defines = self.defined(at);
        let has_as = self.keyword(at.checked_sub(1)) == Some(Keyword::AS);
        let outer = self.innermost();
        let is_table = outer.wants_table || (has_as && defines.is_some());
        Scope {
            opened: at,
            defines,
            is_query,
            // `FROM (a JOIN b ON …)` and `FROM ((SELECT …) UNION …)`.
            in_from: is_table && !is_query,
            wants_table: is_table && !is_query,
            subqueries: outer.subqueries + usize::from(is_query && !is_table),
            reads: 0,
        }
    }

    /// The name in `name AS (`, `name (columns) AS (` and, as `AS` may be left out, in `name (`.
    fn defined(&self, at: usize) -> Option<String> {
        let mut at = at.checked_sub(1)?;
        if self.keyword(Some(at)) == Some(Keyword::AS) {
            at = at.checked_sub(1)?;
        }
        if self.tokens.get(at) == Some(&&Token::RParen) {
            at = self.last_opened.checked_sub(1)?;
        }
        match self.tokens.get(at) {
            Some(Token::Word(word)) => Some(word.value.to_lowercase()),
            _ => None,
        }
    }

    fn close(&mut self) {
        let Some(Scope { opened, defines, reads, .. }) = self.scopes.pop() else { return };
        self.last_opened = opened;
        let outer = self.innermost();
        outer.reads = outer.reads.saturating_add(reads);
        if let Some(name) = defines {
            let known = self.with.entry(name).or_default();
            *known = reads.max(*known);
        }
    }

    fn read_table(&mut self, at: usize, word: &Word) {
        if matches!(word.keyword, Keyword::LATERAL | Keyword::ONLY) {
            return;
        }
        // A `WITH` table has one name, quoted or not.
        let has_schema = self.tokens.get(at + 1) == Some(&&Token::Period);
        let with = if has_schema { None } else { self.with.get(&word.value.to_lowercase()).copied() };
        let scope = self.innermost();
        scope.reads = scope.reads.saturating_add(with.unwrap_or(1));
        scope.wants_table = false;
    }

    fn read_word(&mut self, at: usize, keyword: Keyword) {
        let before = |n| self.keyword(at.checked_sub(n));
        // `a IS NOT DISTINCT FROM b`
        let compares = before(1) == Some(Keyword::DISTINCT) && matches!(before(2), Some(Keyword::IS | Keyword::NOT));
        let scope = self.innermost();
        match keyword {
            Keyword::FROM if scope.is_query && !compares => (scope.in_from, scope.wants_table) = (true, true),
            Keyword::JOIN if scope.is_query || scope.in_from => (scope.in_from, scope.wants_table) = (true, true),
            Keyword::SELECT => (scope.in_from, scope.is_query) = (false, true),
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::QUALIFY | Keyword::WINDOW => {
                scope.in_from = false;
            }
            Keyword::ORDER | Keyword::BY | Keyword::LIMIT | Keyword::OFFSET => scope.in_from = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::parse;

    fn refusal(sql: &str) -> String {
        parse(sql).map(|_| ()).unwrap_err().to_string()
    }

    /// `start` in itself `depth` times, around a number.
    fn nested(depth: usize, start: &str, end: &str) -> String {
        format!("SELECT {}1{}", start.repeat(depth), end.repeat(depth))
    }

    #[test]
    fn subqueries_are_nested_a_few_times_at_most() {
        let every_way = [
            ("(SELECT ", ")"),
            ("(/* why */ SELECT ", ")"),
            ("((SELECT 1) + (SELECT ", "))"),
            ("1 IN (SELECT ", ")"),
            ("1 WHERE EXISTS (SELECT ", ")"),
            ("1 WHERE 1 = ANY (SELECT ", ")"),
            ("extract(year FROM (SELECT ", "))"),
            ("1 IS NOT DISTINCT FROM (SELECT ", ")"),
            ("1 FROM a JOIN b ON a.c = [1, (SELECT ", ")][1]"),
            ("1 FROM a ORDER BY 1, (SELECT ", ")"),
            ("(WITH a AS (SELECT 1) SELECT ", ")"),
            ("(VALUES (1), ((SELECT ", ")))"),
            ("1 FROM unnest((SELECT ", "))"),
            ("1 FROM a JOIN LATERAL (SELECT (SELECT ", ")) ON true"),
        ];
        for (start, end) in every_way {
            let told = refusal(&nested(9, start, end));
            assert!(told.contains("more than 8 subqueries inside one another"), "{start}: {told}");
        }
        assert!(parse(&nested(8, "(SELECT ", ")")).is_ok());
        assert!(parse(&nested(100, "1, (SELECT 1), ", "")).is_ok());
        assert_eq!(
            refusal(&nested(9, "(SELECT ", ")")),
            "1:72: more than 8 subqueries inside one another: name parts of it with WITH"
        );
    }

    #[test]
    fn tables_may_be_queries_in_queries() {
        for (start, end) in [
            ("SELECT * FROM (", ") AS x"),
            ("SELECT * FROM a JOIN (", ") AS x ON true"),
            ("SELECT * FROM a, (", ") AS x"),
            ("WITH x AS (", ") SELECT * FROM x"),
            ("WITH x (y) AS (", ") SELECT * FROM x"),
            ("SELECT * FROM ((", ") UNION SELECT 1) AS x"),
        ] {
            let sql = format!("{}SELECT 1{}", start.repeat(12), end.repeat(12));
            assert!(parse(&sql).is_ok(), "{sql}: {}", refusal(&sql));
        }
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
        let same = |with: &str, from: &str| {
            let sql = doubling(12).replace(" AS (", with).replace("FROM t", from);
            assert!(refusal(&sql).contains("more than 2000 tables"), "{sql}");
        };
        same(" AS (", "FROM t");
        same(" (a, b) AS (", "FROM t");
        same(" (", "FROM t");
        same(" (a, b) (", "FROM t");
        same(" AS (", "FROM lateral t");
        same(" AS (", "FROM core.orders AS o, t");
        same(" AS (", "FROM core.orders JOIN t");
        same(" AS (", "FROM /* why */ t");
        let quoted =
            (1..=12).fold(doubling(12), |sql, i| sql.replace(&format!(", t{i} AS"), &format!(", \"t{i}\" AS")));
        assert!(refusal(&quoted).contains("more than 2000 tables"));
        assert!(refusal(&format!("SELECT * FROM ({}) AS x", doubling(12))).contains("more than 2000 tables"));
        let one_after_another: String = (1..300).map(|i| format!(", t{i} AS (SELECT * FROM t{})", i - 1)).collect();
        assert!(parse(&format!("WITH t0 AS (SELECT 1){one_after_another} SELECT * FROM t299")).is_ok());
        // A name of its own inside: not endless.
        assert!(parse("WITH t AS (SELECT * FROM t AS a, t AS b) SELECT * FROM t, t AS c").is_ok());
        // Columns that are named as tables are.
        let columns = format!("WITH a AS (SELECT 1 AS a) SELECT {} FROM a", vec!["a, a.a"; 1500].join(", "));
        assert!(parse(&columns).is_ok());
    }
}
