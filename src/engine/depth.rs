//! How deep a statement would become, found out before it does.
//!
//! A short text can stand for a deep tree: `a OR b OR c …` is as deep as it is long. Limits of time and memory do not
//! stop it, as it acts in the parser and the planner.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use super::error::SqlError;

/// How deep an expression or a chain of joins may be. Some passes recurse with frames of kilobytes; this depth fits the
/// engine's stacks with a margin.
const MAX_DEPTH: usize = 1000;

/// How deep `CASE` may be nested. The parser tries each in several ways, so a fault inside takes time exponential to this.
const MAX_CASES: usize = 12;

/// One level of brackets.
#[derive(Default)]
struct Level {
    /// Operators since the last comma or clause.
    operators: usize,
    /// Joins and set operations, which clauses do not end.
    chain: usize,
    in_from: bool,
}

impl Level {
    fn depth(&self) -> usize {
        self.operators + self.chain
    }
}

/// Refuses what would be nested deeper than [`MAX_DEPTH`], before anything is built that deep.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels = vec![Level::default()];
    // Of all levels but the last.
    let mut below = 0;
    let mut cases = 0usize;
    let mut before = &Token::SemiColon;
    for TokenWithSpan { token, span } in tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))) {
        let keyword = keyword(token, before);
        cases += usize::from(keyword == Keyword::CASE);
        cases = cases.saturating_sub(usize::from(keyword == Keyword::END));
        if cases > MAX_CASES {
            return Err(SqlError::user(format!(
                "more than {MAX_CASES} CASEs inside one another, or some have no END: name parts of it with WITH"
            ))
            .at(span.start.line, span.start.column));
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                below += levels.last().map_or(0, |l| 1 + l.depth());
                levels.push(Level::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                levels.pop();
                below -= levels.last().map_or(0, |l| 1 + l.depth());
                // `a[1][1]` is as deep as it is long.
                if let (Token::RBracket, Some(level)) = (token, levels.last_mut()) {
                    level.operators += 1;
                }
            }
            other => {
                if let Some(level) = levels.last_mut() {
                    count(level, other, keyword, ends_operand(before) || joins_queries(before));
                }
            }
        }
        if below + levels.last().map_or(0, Level::depth) > MAX_DEPTH {
            return Err(SqlError::user(format!(
                "more than {MAX_DEPTH} operators, joins or parentheses in a row: use IN (…), or a table to join with"
            ))
            .at(span.start.line, span.start.column));
        }
        before = token;
    }
    Ok(())
}

/// The keyword that `token` is after `before`. Behind a point or AS, and where CASE waits for its condition, a word is a name.
fn keyword(token: &Token, before: &Token) -> Keyword {
    match (token, before) {
        (_, Token::Period) => Keyword::NoKeyword,
        (Token::Word(_), Token::Word(before)) if before.keyword == Keyword::AS => Keyword::NoKeyword,
        (Token::Word(word), _) if word.keyword == Keyword::END && !may_end(before) => Keyword::NoKeyword,
        (Token::Word(word), _) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Whether an END behind it can be that of a CASE.
fn may_end(before: &Token) -> bool {
    match before {
        // A column may bear the name of any other keyword.
        Token::Word(word) => !matches!(
            word.keyword,
            Keyword::CASE | Keyword::WHEN | Keyword::THEN | Keyword::ELSE | Keyword::AND | Keyword::OR | Keyword::NOT
        ),
        other => ends_operand(other),
    }
}

/// Whether what ends here is surely a value, so that a word behind it is no name of one.
fn ends_operand(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            matches!(word.keyword, Keyword::NoKeyword | Keyword::NULL | Keyword::TRUE | Keyword::FALSE | Keyword::END)
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen | Token::RBracket | Token::RBrace => true,
        _ => false,
    }
}

/// What a SELECT may stand behind that ends no value.
fn joins_queries(token: &Token) -> bool {
    use Keyword::{ALL, DISTINCT, EXCEPT, INTERSECT, UNION};
    matches!(token, Token::Word(word) if matches!(word.keyword, ALL | DISTINCT | EXCEPT | INTERSECT | UNION))
}

/// `is_clause`: where a keyword of a clause stands here, it begins one, and is no column that bears its name.
fn count(level: &mut Level, token: &Token, keyword: Keyword, is_clause: bool) {
    match token {
        Token::Comma if level.in_from => level.chain += 1,
        Token::Comma => level.operators = 0,
        Token::SemiColon => *level = Level::default(),
        Token::Word(_) => match keyword {
            Keyword::JOIN | Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => level.chain += 1,
            Keyword::FROM => {
                level.in_from = true;
                if is_clause {
                    level.operators = 0;
                }
            }
            Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT
                if is_clause =>
            {
                *level = Level { operators: 0, in_from: false, ..*level };
            }
            Keyword::ON | Keyword::WHEN | Keyword::THEN | Keyword::ELSE if is_clause => level.operators = 0,
            Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::IN | Keyword::BETWEEN => {
                level.operators += 1;
            }
            Keyword::LIKE | Keyword::ILIKE | Keyword::SIMILAR | Keyword::COLLATE | Keyword::AT => level.operators += 1,
            _ => {}
        },
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::EOF => {}
        _ => level.operators += 1,
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
        let names = "SELECT 1 AS \"limit\", 2 AS \"end\"";
        for chain in ["[1, 1][1]+", "a.limit+", "limit+", "a.then + ", "select +", "{'x': 1, 'y': 2}['x']+"] {
            let sql = format!("SELECT {}1 FROM ({names}) a", chain.repeat(20_000));
            assert!(refusal(&sql).contains("in a row"), "{chain}: {}", refusal(&sql));
        }
        assert!(refusal(&format!("SELECT a{}", "[1]".repeat(5_000))).contains("in a row"));
        let long_list = format!("SELECT 1 WHERE 1 IN ({}1)", "-1, ".repeat(50_000));
        assert!(parse(&long_list).is_ok());
    }

    #[test]
    fn cases_without_an_end_are_refused_at_once() {
        let nested = |depth: usize| format!("SELECT {}1{}", "CASE WHEN a THEN ".repeat(depth), " END".repeat(depth));
        assert!(parse(&nested(12)).is_ok());
        assert!(refusal(&nested(13)).contains("more than 12 CASEs"));
        assert!(refusal(&format!("SELECT {}", "CASE WHEN ".repeat(500))).contains("more than 12 CASEs"));
        refusal(&format!("SELECT {}", "CASE WHEN ".repeat(12)));
        assert!(parse(&format!("SELECT 1{}", ", CASE WHEN a THEN 1 END".repeat(100))).is_ok());
        assert!(parse(&format!("SELECT 1{}", ", CASE WHEN a THEN status ELSE NULL END".repeat(100))).is_ok());
        for named in ["a.end", "end"] {
            assert!(
                refusal(&format!("SELECT {}", format!("CASE WHEN {named} THEN ").repeat(45)))
                    .contains("more than 12 CASEs")
            );
        }
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
