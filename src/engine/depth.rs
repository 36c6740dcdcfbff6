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
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
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
    fn cases_without_an_end_are_refused_at_once() {
        let nested = |depth: usize| format!("SELECT {}1{}", "CASE WHEN a THEN ".repeat(depth), " END".repeat(depth));
        assert!(parse(&nested(12)).is_ok());
        assert!(refusal(&nested(13)).contains("more than 12 CASEs"));
        assert!(refusal(&format!("SELECT {}", "CASE WHEN ".repeat(500))).contains("more than 12 CASEs"));
        refusal(&format!("SELECT {}", "CASE WHEN ".repeat(12)));
        assert!(parse(&format!("SELECT 1{}", ", CASE WHEN a THEN 1 END".repeat(100))).is_ok());
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
