//! Which queries a statement nests, and how many tables it reads once they are all written out.
//!
//! Nested subqueries of expressions take time exponential in their depth, and a `WITH` that names the one before it twice
//! doubles with each line. Neither is stopped by limits of time and memory, as they act in the planner. Both are counted on
//! the parser's tree: what a word of SQL is depends on where it stands, and a guess would be a way around.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{Expr, ObjectName, Query, Visit, Visitor},
};

use super::error::SqlError;

/// How deep subqueries in expressions may be nested.
const MAX_SUBQUERIES: usize = 8;

/// How often the rows of a statement may be grouped, as a power of two: CUBE groups them 2 to the number of its columns times.
const MAX_GROUPINGS: u32 = 12;

/// How many tables a statement may read, each mention of a `WITH` table counted as all that it reads.
const MAX_TABLES: u64 = 2000;

/// Refuses subqueries nested too deeply, and `WITH` tables that multiply.
pub(super) fn check(statement: &Statement) -> Result<(), SqlError> {
    let ast = match statement {
        Statement::Statement(ast) => ast.as_ref(),
        Statement::Explain(explain) => return check(&explain.statement),
        _ => return Ok(()),
    };
    let mut walk = Walk { read: vec![0], ..Walk::default() };
    if let ControlFlow::Break(told) = ast.visit(&mut walk) {
        return Err(told);
    }
    if walk.read.first().into_iter().chain(walk.reads.values()).any(|read| *read > MAX_TABLES) {
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
    /// How often rows are grouped, as a power of two.
    groupings: u32,
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
        self.groupings = self.groupings.saturating_add(match e {
            Expr::Cube(columns) => columns.len() as u32,
            Expr::Rollup(sets) | Expr::GroupingSets(sets) => (sets.len() + 1).next_power_of_two().ilog2(),
            _ => 0,
        });
        if self.groupings > MAX_GROUPINGS {
            return ControlFlow::Break(SqlError::user(format!(
                "its CUBE, ROLLUP and GROUPING SETS group more than {} times: name the sets that are wanted",
                1 << MAX_GROUPINGS
            )));
        }
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
        // The planner looks for a `WITH` table by the whole name, quoted or not: `a.b` is what "a.b" is.
        let parts: Vec<&str> = name.0.iter().filter_map(|p| p.as_ident()).map(|ident| ident.value.as_str()).collect();
        let with = self.reads.get(&parts.join(".").to_lowercase());
        // One that reads no table is written out all the same.
        self.add(with.map_or(1, |reads| (*reads).max(1)));
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
        match self.announced.get(&std::ptr::from_ref(query)) {
            // Read where it is named, and as large whether it is or not.
            Some(name) => {
                let known = self.reads.entry(name.clone()).or_default();
                *known = read.max(*known);
            }
            None => self.add(read),
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
            ("1 FROM a JOIN LATERAL (SELECT (SELECT ", ")) AS b ON true"),
            ("1 IN ((SELECT 1) UNION SELECT ", ")"),
            ("EXISTS ((SELECT true) UNION SELECT ", ")"),
            ("(SELECT 1 FROM (SELECT 1) q UNION ALL VALUES (1), ((SELECT ", ")))"),
            ("1 AS from, (SELECT ", ")"),
        ];
        for (start, end) in every_way {
            let told = refusal(&nested(9, start, end));
            assert!(told.contains("more than 8 subqueries inside one another"), "{start}: {told}");
        }
        assert!(parse(&nested(8, "(SELECT ", ")")).is_ok());
        assert!(parse(&nested(100, "1, (SELECT 1), ", "")).is_ok());
        assert_eq!(
            refusal(&nested(9, "(SELECT ", ")")),
            "more than 8 subqueries inside one another: name parts of it with WITH"
        );
    }

    #[test]
    fn rows_are_not_grouped_by_every_set_of_many_columns() {
        let by = |what: &str, columns: usize| {
            let columns: Vec<String> = (0..columns).map(|i| format!("a + {i}")).collect();
            format!("SELECT count(*) FROM t GROUP BY {what} ({})", columns.join(", "))
        };
        assert!(parse(&by("CUBE", 12)).is_ok() && parse(&by("ROLLUP", 100)).is_ok());
        assert!(refusal(&by("CUBE", 13)).contains("more than 4096 times"));
        assert!(refusal(&format!("{}, CUBE (b, c, d)", by("CUBE", 10))).contains("more than 4096 times"));
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
            ("SELECT 1 UNION ALL (", ")"),
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
        let refused = |sql: &str| assert!(refusal(sql).contains("more than 2000 tables"), "{sql}: {}", refusal(sql));
        let same = |with: &str, from: &str| refused(&doubling(12).replace(" AS (", with).replace("FROM t", from));
        same(" AS (", "FROM t");
        same(" (a, b) AS (", "FROM t");
        same(" (", "FROM t");
        same(" (a, b) (", "FROM t");
        same(" AS (", "FROM core.orders AS o, t");
        same(" AS (", "FROM core.orders JOIN t");
        same(" AS (", "FROM /* why */ t");
        let quoted =
            (1..=12).fold(doubling(12), |sql, i| sql.replace(&format!(", t{i} AS"), &format!(", \"t{i}\" AS")));
        refused(&quoted);
        refused(&format!("SELECT * FROM ({}) AS x", doubling(12)));
        same(" AS (", "FROM core.orders AS limit, t");
        same(" AS (", "FROM core.orders JOIN core.orders AS o ON o.limit = 1, t");
        // One that reads nothing, and one whose name holds a dot.
        refused(&doubling(12).replace("SELECT * FROM core.orders", "SELECT 1 AS a"));
        let dotted = (0..=12).rev().fold(doubling(12), |sql, i| {
            sql.replace(&format!("t{i} AS"), &format!("\"x.t{i}\" AS"))
                .replace(&format!("FROM t{i}"), &format!("FROM x.t{i}"))
        });
        refused(&dotted);
        let texts = (0..=12).rev().fold(doubling(12), |sql, i| {
            sql.replace(&format!("t{i} AS"), &format!("'t{i}' AS"))
                .replace(&format!("FROM t{i}"), &format!("FROM 't{i}'"))
        });
        refused(&texts);
        refused(&doubling(12).replace("SELECT count(*) FROM t12", "SELECT 1"));
        let one_after_another: String = (1..300).map(|i| format!(", t{i} AS (SELECT * FROM t{})", i - 1)).collect();
        assert!(parse(&format!("WITH t0 AS (SELECT 1){one_after_another} SELECT * FROM t299")).is_ok());
        // A name of its own inside: not endless.
        assert!(parse("WITH t AS (SELECT * FROM t AS a, t AS b) SELECT * FROM t, t AS c").is_ok());
        // Columns that are named as tables are.
        let columns = format!("WITH a AS (SELECT 1 AS a) SELECT {} FROM a", vec!["a, a.a"; 1500].join(", "));
        assert!(parse(&columns).is_ok());
    }
}
