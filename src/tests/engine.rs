//! SQL as a user meets it: what is refused, what ends, and what survives.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono_tz::Tz;
use datafusion::{arrow::array::RecordBatch, catalog::TableProvider, datasource::MemTable};
use futures::StreamExt;

use crate::{
    base::{Micros, Pseudonymizer},
    engine::{
        Conversion, Engine, Kind, Limits, Session, SessionOptions, Settings, SqlError, Tables, View,
        output::{self, Format},
    },
};

/// Tables in memory.
#[derive(Default)]
pub struct Memory(HashMap<String, Arc<MemTable>>);

impl Memory {
    pub fn with(mut self, name: &str, batch: RecordBatch) -> Memory {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        self.0.insert(name.to_owned(), Arc::new(table));
        self
    }
}

impl Tables for Memory {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        self.0.get(table).map(|t| Arc::clone(t) as _)
    }

    fn is_empty(&self, table: &str) -> bool {
        !self.0.contains_key(table)
    }
}

pub fn options(limits: Limits) -> SessionOptions {
    SessionOptions {
        tables: Arc::new(Memory::default()),
        views: Arc::default(),
        as_of: Micros(0),
        zone: Tz::UTC,
        names: Pseudonymizer::new(&[7; 32]),
        default_region: None,
        money: Conversion::default(),
        limits,
    }
}

pub fn engine() -> (Engine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { threads: 2, memory: 64 << 20, ..Settings::new(dir.path().join("tmp")) };
    (Engine::new(settings).unwrap(), dir)
}

async fn run(session: &Session, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    session.query(sql).await?.collect().await
}

fn limited(time: Option<u64>, rows: Option<u64>) -> (Engine, Session, tempfile::TempDir) {
    let (engine, dir) = engine();
    let limits = Limits { time: time.map(Duration::from_millis), rows };
    let session = engine.session(options(limits)).unwrap();
    (engine, session, dir)
}

fn with_views(views: &[(&str, &str)]) -> (Engine, Session, tempfile::TempDir) {
    let (engine, dir) = engine();
    let view = |(name, sql): &(&str, &str)| View { name: (*name).to_owned(), sql: (*sql).to_owned() };
    let views = Arc::new(views.iter().map(view).collect());
    let session = engine.session(SessionOptions { views, ..options(Limits::default()) }).unwrap();
    (engine, session, dir)
}

async fn refusal(session: &Session, sql: &str) -> SqlError {
    run(session, sql).await.map(|_| panic!("{sql} was answered")).unwrap_err()
}

/// Waits until no query holds memory; tasks end a moment after their answer.
async fn freed(engine: &Engine) {
    for _ in 0..500 {
        if engine.memory_in_use() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} bytes are still held", engine.memory_in_use());
}

pub async fn csv(session: &Session, sql: &str) -> String {
    let answer = session.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut out = Vec::new();
    output::write(answer, Format::Csv, &mut out).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn users_sql_cannot_write_or_leave_the_lake() {
    let (_engine, session, dir) = limited(None, None);
    let file = dir.path().join("secret.csv");
    std::fs::write(&file, "a,b\n1,2\n").unwrap();
    let file = file.display();
    for sql in [
        "INSERT INTO core.orders SELECT * FROM core.orders".to_owned(),
        "CREATE TABLE core.t AS SELECT 1".to_owned(),
        "DROP VIEW core.orders".to_owned(),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
        "RESET datafusion.execution.target_partitions".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"),
        format!("COPY (SELECT 1) TO '{file}.out'"),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}.out' STORED AS CSV"),
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"file://{file}\""),
        format!("SELECT * FROM read_csv('{file}')"),
        format!("SELECT read_text('{file}')"),
        "SELECT 1; DROP TABLE core.orders".to_owned(),
    ] {
        let told = refusal(&session, &sql).await;
        assert_eq!(told.kind, Kind::User, "{sql}: {told}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the secret and the spill directory");
}

#[tokio::test]
async fn a_query_that_would_run_for_ever_ends_and_leaves_the_engine_free() {
    let (engine, session, _dir) = limited(Some(300), None);
    let patient = engine.session(options(Limits { time: Some(Duration::from_secs(20)), rows: None })).unwrap();
    for sql in [
        "SELECT count(*) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b",
        "SELECT * FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b ORDER BY a.value + b.value",
        "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t",
    ] {
        let told = refusal(&session, sql).await;
        assert_eq!(told.kind, Kind::Limit, "{sql}: {told}");
        // The threads are free again.
        assert_eq!(csv(&patient, "SELECT 1 AS one").await, "one\n1\n", "{sql}");
    }
    freed(&engine).await;
}

#[tokio::test]
async fn a_query_that_would_eat_the_memory_ends() {
    let (engine, session, _dir) = limited(Some(60_000), None);
    for sql in [
        "SELECT array_agg(value) FROM generate_series(1, 100000000)",
        "SELECT count(*) FROM generate_series(1, 50000000) a JOIN generate_series(1, 50000000) b USING (value)",
        "SELECT max(s) FROM (SELECT sum(value) OVER () AS s FROM generate_series(1, 100000000))",
    ] {
        let told = refusal(&session, sql).await;
        assert_eq!(told.kind, Kind::Limit, "{sql}: {told}");
        assert!(told.message.contains("more memory than its limit of 64 MiB"), "{sql}: {told}");
    }
    for sql in [
        "SELECT array_length(range(0, 100000000000))",
        "SELECT generate_series(timestamp '2020-01-01', timestamp '2026-01-01', interval '1 microsecond')",
        "SELECT array_repeat(value, value) FROM generate_series(100000000, 100008000)",
        "SELECT repeat('tillstream', 1000000000)",
        "SELECT lpad('x', 2000000000)",
    ] {
        let told = refusal(&session, sql).await;
        assert!(told.kind == Kind::User && told.message.contains("would make"), "{sql}: {told}");
    }
    assert_eq!(csv(&session, "SELECT array_length(range(0, 1000)) AS n").await, "n\n1000\n");
    assert_eq!(csv(&session, "SELECT lpad('7', 3, '0') AS n").await, "n\n007\n");
    freed(&engine).await;
}

#[tokio::test]
async fn a_sort_larger_than_memory_spills_and_leaves_nothing_behind() {
    let (_engine, session, dir) = limited(Some(120_000), None);
    let sql = "SELECT count(*) AS n, min(value) AS least FROM (
                   SELECT value, lag(value) OVER (ORDER BY value % 7919, value) AS before,
                       repeat(arrow_cast(value, 'Utf8'), 10) AS ballast
                   FROM generate_series(1, 1000000)
               ) WHERE length(ballast) > 0 AND before IS NOT NULL";
    assert_eq!(csv(&session, sql).await, "n,least\n999999,1\n");
    fn files(dir: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { files(&p) } else { 1 }).sum()
    }
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn an_answer_longer_than_the_row_limit_is_an_error_and_never_cut() {
    let (_engine, session, _dir) = limited(None, Some(1000));
    let told = refusal(&session, "SELECT * FROM generate_series(1, 1001)").await;
    assert_eq!((told.kind, told.message.contains("more than 1000 rows")), (Kind::Limit, true), "{told}");
    assert_eq!(run(&session, "SELECT * FROM generate_series(1, 1000)").await.unwrap()[0].num_rows(), 1000);
}

#[tokio::test]
async fn a_dropped_answer_stops_its_query() {
    let (engine, session, _dir) = limited(None, None);
    let sql = "SELECT a.value FROM generate_series(1, 100000) a JOIN generate_series(1, 1000000000) b USING (value)";
    let mut answer = session.query(sql).await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert!(engine.memory_in_use() > 0);
    drop(answer);
    freed(&engine).await;
}

/// What passes the fence must also pass every later stage, on the engine's stack.
#[tokio::test]
async fn deep_queries_are_answered_or_refused_but_never_overflow_the_stack() {
    let (_engine, session, _dir) = limited(Some(60_000), None);
    let sum = format!("SELECT value{} AS n FROM generate_series(1, 1)", " + 1".repeat(990));
    assert_eq!(csv(&session, &sum).await, "n\n991\n");
    let any =
        format!("SELECT count(*) AS n FROM generate_series(1, 9) WHERE {}value = 5", "value = 10 OR ".repeat(490));
    assert_eq!(csv(&session, &any).await, "n\n1\n");
    let unions = format!("SELECT count(*) AS n FROM (SELECT 1{})", " UNION ALL SELECT 1".repeat(300));
    assert_eq!(csv(&session, &unions).await, "n\n301\n");
    for part in ["+ 1 ", "|| 'a' ", "AND true ", "::int ", "UNION SELECT 1 ", ", (SELECT 1) ", "[1]"] {
        let told = refusal(&session, &format!("SELECT 1 FROM t {}", part.repeat(50_000))).await;
        assert_eq!(told.kind, Kind::User, "{part}: {told}");
    }
    for (open, close) in [("(", ")"), ("CASE WHEN true THEN ", " END"), ("abs(", ")"), ("(SELECT ", ")"), ("NOT ", "")]
    {
        for depth in [20, 200, 20_000] {
            let sql = format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth));
            if let Err(told) = run(&session, &sql).await {
                assert_eq!(told.kind, Kind::User, "{open} {depth}: {told}");
            }
        }
    }
}

/// `levels` queries, each of which computes its column from two of the one before, by `line`; the last is asked by `end`.
fn doubling(levels: usize, line: &str, end: &str) -> String {
    let lines: String =
        (1..=levels).map(|i| format!(", t{i} AS ({})", line.replace("PREV", &format!("t{}", i - 1)))).collect();
    format!(
        "WITH t0 AS (SELECT value % 3 AS x FROM generate_series(1, 9)){lines} {}",
        end.replace("LAST", &format!("t{levels}"))
    )
}

/// Once written out they would take all memory, which no limit of the engine's stops.
#[tokio::test]
async fn expressions_that_double_with_each_query_are_refused_before_they_are_written_out() {
    let (_engine, session, _dir) = limited(Some(60_000), None);
    let plus = "SELECT x + x AS x FROM PREV";
    let count = "SELECT count(*) AS n FROM LAST WHERE x > 0";
    let every_way = [
        ("SELECT x + x AS x FROM PREV WHERE x + x > 0", "SELECT count(*) AS n FROM LAST"),
        (plus, count),
        ("SELECT a.x + a.x AS x FROM PREV AS a", count),
        ("SELECT x + x AS x FROM (SELECT * FROM PREV) AS q", count),
        ("SELECT x + x AS x FROM PREV GROUP BY x", count),
        ("SELECT DISTINCT x + x AS x FROM PREV", count),
        ("SELECT x + x AS x FROM PREV UNION ALL SELECT 1", count),
        ("SELECT CASE WHEN x > 1 THEN x END AS x FROM PREV", count),
        ("SELECT a.x + a.x AS x FROM PREV AS a JOIN generate_series(1, 2) AS b ON true", count),
        ("SELECT a.x + a.x AS x FROM generate_series(1, 2) AS b RIGHT SEMI JOIN PREV AS a ON a.x = b.value", count),
        // What a join makes equal.
        ("SELECT b.value + b.value AS x FROM PREV AS a JOIN generate_series(1, 9) AS b ON a.x = b.value", count),
        ("SELECT b.value + b.value AS x FROM PREV AS a, generate_series(1, 9) AS b WHERE a.x = b.value", count),
        // What is rewritten into what names it more often.
        ("SELECT CAST(x BETWEEN 0 AND 1 AS BIGINT) AS x FROM PREV", count),
        ("SELECT CAST(x IN (1, 2, 3) AS BIGINT) AS x FROM PREV", count),
        ("SELECT coalesce(x, 1) AS x FROM PREV", count),
        ("SELECT CAST(CASE WHEN x = 1 THEN true WHEN x = 2 THEN false END AS BIGINT) AS x FROM PREV", count),
        // Conditions that stand elsewhere.
        (plus, "SELECT count(*) AS n FROM LAST AS a JOIN generate_series(1, 2) AS b ON a.x > b.value"),
        (plus, "SELECT count(*) AS n FROM LAST AS a WHERE EXISTS (SELECT 1 FROM LAST AS b WHERE a.x > b.x)"),
        (
            plus,
            "SELECT count(*) AS n FROM LAST AS a, LATERAL (SELECT b.value FROM generate_series(1, 2) AS b WHERE a.x > 0) AS q",
        ),
        (
            plus,
            "SELECT count(*) AS n FROM generate_series(1, 2) AS b WHERE b.value IN (SELECT x FROM LAST) AND b.value > 0",
        ),
        (plus, "SELECT (SELECT count(*) FROM LAST WHERE x > 0) AS n"),
        (plus, "SELECT x FROM LAST ORDER BY x LIMIT 1"),
        (plus, "SELECT max(x) AS n FROM LAST"),
    ];
    for (line, end) in every_way {
        let told = refusal(&session, &doubling(24, line, end)).await;
        assert!(told.to_string().contains("more than 300000 columns, values and operators"), "{line}; {end}: {told}");
        let few = run(&session, &doubling(3, line, end)).await;
        assert!(few.is_ok(), "{line}; {end}: {few:?}");
    }
    let nested = (0..30).fold("value".to_owned(), |e, _| format!("coalesce({e}, nullif(value, 3))"));
    let told = refusal(&session, &format!("SELECT {nested} FROM generate_series(1, 9)")).await;
    assert!(told.to_string().contains("300000"), "{told}");
    // A chain of sums is one function; of remainders it is as deep as it is long.
    let deep = " % 7".repeat(900);
    let told = refusal(&session, &doubling(9, &format!("SELECT x{deep} AS x FROM PREV"), count)).await;
    assert!(told.to_string().contains("more than 2000 deep"), "{told}");
    assert_eq!(csv(&session, &doubling(10, "SELECT x + x AS x FROM PREV WHERE x + x > 0", count)).await, "n\n6\n");
    // What is said again and again makes nothing larger.
    let joined = vec!["a.value = b.value AND a.value > 0"; 40].join(" OR ");
    let sql =
        format!("SELECT count(*) AS n FROM generate_series(1, 3) AS a JOIN generate_series(1, 3) AS b ON {joined}");
    assert_eq!(csv(&session, &sql).await, "n\n3\n");
    let listed: Vec<String> = (0..60_000).map(|i| i.to_string()).collect();
    let sql = format!("SELECT count(*) AS n FROM generate_series(1, 3) AS a WHERE value IN ({})", listed.join(", "));
    assert_eq!(csv(&session, &sql).await, "n\n3\n");
    // A sum is a value of its own, and what no condition reads is never written out.
    assert_eq!(csv(&session, &doubling(40, "SELECT max(x) + max(x) AS x FROM PREV", count)).await, "n\n1\n");
    let unread = "SELECT x FROM LAST LIMIT 1";
    assert_eq!(csv(&session, &doubling(40, plus, unread)).await.lines().count(), 2);
}

#[tokio::test]
async fn views_are_planned_when_named_and_a_cycle_is_told_with_its_way() {
    let (_engine, session, _dir) = with_views(&[
        ("marts.large", "SELECT * FROM marts.numbers WHERE n > 2"),
        ("marts.numbers", "SELECT value AS n FROM generate_series(1, 4)"),
        ("segments.a", "SELECT * FROM segments.b"),
        ("segments.b", "SELECT * FROM marts.numbers, segments.c"),
        ("segments.c", "SELECT * FROM segments.a"),
        ("segments.broken", "SELECT\n  nn\nFROM marts.numbers"),
        ("ops.writes", "DROP TABLE core.orders"),
    ]);
    assert_eq!(csv(&session, "SELECT sum(n) AS s FROM marts.large").await, "s\n7\n");
    let told = refusal(&session, "SELECT * FROM segments.a").await;
    assert_eq!(told.to_string(), "a view that names itself: segments.a → segments.b → segments.c → segments.a");
    let told = refusal(&session, "SELECT 1 FROM segments.broken").await;
    assert_eq!(told.to_string(), "segments.broken: 2:3: unknown column \"nn\"; did you mean \"n\"?");
    assert!(refusal(&session, "SELECT * FROM ops.writes").await.to_string().contains("DROP is refused"));

    let listed =
        csv(&session, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'segments'").await;
    assert_eq!(listed.lines().count(), 5, "{listed}");
    let sql = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'large'";
    assert_eq!(csv(&session, sql).await, "column_name,data_type\nn,Int64\n");
}

#[tokio::test]
async fn tables_can_be_listed_and_described() {
    let (_engine, session, _dir) = limited(None, None);
    let tables = csv(&session, "SHOW TABLES").await;
    assert!(tables.contains("tillstream,ref,currencies,BASE TABLE"), "{tables}");
    assert!(tables.contains("tillstream,core,orders,VIEW"), "{tables}");
    let columns = csv(&session, "DESCRIBE ref.currencies").await;
    assert_eq!(columns, "column_name,data_type,is_nullable\ncurrency,Utf8,NO\nexponent,Int32,NO\n");
    assert!(csv(&session, "SHOW COLUMNS FROM ref.currencies").await.contains("exponent"));
    assert!(csv(&session, "EXPLAIN SELECT * FROM ref.currencies").await.contains("DataSourceExec"));
    assert!(csv(&session, "EXPLAIN ANALYZE SELECT * FROM ref.currencies").await.contains("DataSourceExec"));
    let fields = session.validate("SELECT currency AS code, 1 AS one FROM ref.currencies").await.unwrap();
    assert_eq!(fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["code", "one"]);
    assert!(session.validate("SELECT 'x' + 1 FROM ref.currencies WHERE currency > date '2020-01-01'").await.is_err());
}

#[tokio::test]
async fn what_is_distinct_is_told_before_and() {
    let (_engine, session, _dir) = limited(None, None);
    let cases = [
        ("true IS DISTINCT FROM true AND false", "false"),
        ("NOT 1 IS NOT DISTINCT FROM 2 AND 1 > 2", "false"),
        ("1 IS NOT DISTINCT FROM 1 AND 2 > 1 OR false", "true"),
        ("NULL IS NOT DISTINCT FROM NULL", "true"),
        ("1 + 1 IS NOT DISTINCT FROM 4 - 2", "true"),
    ];
    for (sql, expected) in cases {
        assert_eq!(csv(&session, &format!("SELECT {sql} AS x")).await, format!("x\n{expected}\n"), "{sql}");
    }
}

#[tokio::test]
async fn json_is_read_in_sql_and_comes_out_as_text() {
    let (_engine, session, _dir) = limited(None, None);
    let payload = r#"'{"data":{"object":{"id":"pi_1","amount":1200,"tags":["a","b"]}}}'"#;
    let sql = format!(
        "SELECT p->'data'->'object'->>'id' AS id, p->'data'->'object'->'amount' AS amount,
             json_get_int(p, 'data', 'object', 'amount') AS n, p->'data'->'object'->'tags' AS tags
         FROM (SELECT {payload} AS p)"
    );
    assert_eq!(csv(&session, &sql).await, "id,amount,n,tags\npi_1,1200,1200,\"[\"\"a\"\",\"\"b\"\"]\"\n");
    let compared = format!(
        "SELECT count(*) AS n FROM (SELECT {payload} AS p) WHERE p->'data'->'object'->>'id' = 'pi_1' AND 'pi_1' = p->'data'->'object'->>'id'
             AND p->'data'->'object'->>'id' || '!' LIKE 'pi__!' AND (p->'data'->'object'->>'amount')::BIGINT + 1 > 1200
             AND p->'data'->'object'->>'id' IN ('pi_1') AND p->'data'->'nothing'->>'id' IS NULL"
    );
    assert_eq!(csv(&session, &compared).await, "n\n1\n");
    let answer = session.query(&sql).await.unwrap();
    let mut parquet = Vec::new();
    assert_eq!(output::write(answer, Format::Parquet, &mut parquet).await.unwrap(), 1);
    assert!(parquet.starts_with(b"PAR1"));
}

#[tokio::test]
async fn json_is_no_number_and_has_no_order() {
    let (_engine, session, _dir) = limited(None, None);
    let rows = r#"(VALUES ('{"a":9.5,"b":"x"}'), ('{"a":10,"b":"y"}'), ('{"a":8}')) AS t (p)"#;
    for misused in [
        "SELECT p FROM t WHERE p->'a' > 9",
        "SELECT p FROM t WHERE 9.0 <= p->'a'",
        "SELECT CASE WHEN p->'a' = 9.5 THEN 1 END FROM t",
        "SELECT p FROM t WHERE p->'a' BETWEEN 1 AND 9",
        "SELECT p FROM t WHERE p->'a' NOT IN (9.5, 10)",
        "SELECT t.p FROM t JOIN (SELECT p AS q FROM t) AS u ON p->'a' = q->'a'",
        "SELECT p FROM t ORDER BY p->'a' DESC LIMIT 1",
        "SELECT x FROM (SELECT p->'a' AS x FROM t) ORDER BY x",
        "SELECT row_number() OVER (ORDER BY p->'a') FROM t",
        "SELECT (SELECT count(*) FROM t WHERE p->'a' > 9) AS n",
    ] {
        let told = refusal(&session, &misused.replace(" FROM t", &format!(" FROM {rows}"))).await;
        assert!(told.kind == Kind::User && told.message.starts_with("-> gives JSON"), "{misused}: {told:?}");
    }
    let asked = format!(
        "SELECT p->>'b' AS b FROM {rows} WHERE (p->>'a')::DOUBLE > 9 AND (p->'b' = 'x' OR p->'b' IN ('y')) AND p->'a' IS NOT NULL
         ORDER BY CAST(p->>'a' AS DOUBLE)"
    );
    assert_eq!(csv(&session, &asked).await, "b\nx\ny\n");
    let told = refusal(&session, &format!("SELECT p FROM {rows} WHERE p->>'a' > 9")).await;
    let says = "Cannot cast string '9.5' to value of Int64 type: CAST it AS DOUBLE";
    assert!(told.kind == Kind::User && told.message.starts_with(says), "{told:?}");
    let told = refusal(&session, &format!("SELECT p #>> '{{a}}' FROM {rows}")).await;
    assert!(told.kind == Kind::User && told.message.contains("payload->'data'->>'id'"), "{told:?}");
}

#[tokio::test]
async fn whole_numbers_are_reckoned_with_and_never_wrap() {
    let (_engine, session, _dir) = limited(None, None);
    let rows =
        "(VALUES (9223372036854775807, CAST(2 AS INT)), (-5, CAST(3 AS INT)), (NULL, CAST(7 AS INT))) AS t (x, n)";
    let fine = format!(
        "SELECT x - 1, n + n * 2, x + NULL AS nothing, n * 1.5 AS part, 2 - n AS back, 1 + 2 * 3 AS lone
         FROM {rows} WHERE x * 2 - 1 < 0 OR x IS NULL ORDER BY n - 1"
    );
    let told = refusal(&session, &fine).await;
    assert!(told.kind == Kind::User && told.message.contains("a result of * does not fit"), "{told:?}");
    let fine = fine.replace("x * 2 - 1 < 0", "x + 1 - 1 = -5").replace("9223372036854775807", "9223372036854775806");
    let wanted = "t.x - Int64(1),t.n + t.n * Int64(2),nothing,part,back,lone\n-6,9,,4.5,-1,7\n,21,,10.5,-5,7\n";
    assert_eq!(csv(&session, &fine).await, wanted);
    for (too_large, operator) in [
        (format!("SELECT x + 1 FROM {rows}"), "+"),
        (format!("SELECT x FROM {rows} WHERE -x - 2 < 0 AND -2 - x < 0"), "-"),
        (format!("SELECT n * CAST(2000000000 AS INT) FROM {rows}"), "*"),
        ("SELECT 9223372036854775807 + 1".to_owned(), "+"),
        (format!("SELECT n, max(x) * 2 FROM {rows} GROUP BY n"), "*"),
    ] {
        let told = refusal(&session, &too_large).await;
        let says = format!("a result of {operator} does not fit");
        assert!(told.kind == Kind::User && told.message.contains(&says), "{too_large}: {told:?}");
    }
    let grouped = format!(
        "SELECT n - 1 + 1 AS a, n * 2 * 2 AS b FROM {rows} GROUP BY n - 1, n * 2 HAVING n - 1 + 1 > 2 ORDER BY n - 1 - 1"
    );
    assert_eq!(csv(&session, &grouped).await, "a,b\n3,12\n7,28\n");
    // Ranks are unsigned, and what lies between two of them is not.
    let ranks = format!("SELECT row_number() OVER (ORDER BY n) - row_number() OVER (ORDER BY n DESC) AS d FROM {rows}");
    assert_eq!(csv(&session, &format!("{ranks} ORDER BY d")).await, "d\n-2\n0\n2\n");
    assert_eq!(
        csv(&session, "SELECT CAST(9223372036854775807 AS DECIMAL(38, 0)) + 1 AS room").await,
        "room\n9223372036854775808\n"
    );
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_told_and_never_wraps() {
    let (_engine, session, _dir) = limited(None, None);
    let rows = "(VALUES ('a', 9223372036854775807), ('a', -1), ('b', 9223372036854775807), ('b', 1)) AS t (k, x)";
    assert_eq!(
        csv(&session, &format!("SELECT sum(x) AS s FROM {rows} WHERE k = 'a'")).await,
        "s\n9223372036854775806\n"
    );
    let unsigned = "(VALUES (CAST(18446744073709551615 AS BIGINT UNSIGNED)), (CAST(1 AS BIGINT UNSIGNED))) AS t (x)";
    let told = refusal(&session, &format!("SELECT sum(x) FROM {unsigned}")).await;
    assert!(told.kind == Kind::User && told.message.contains("beyond 2^64-1"), "{told:?}");
    assert_eq!(
        csv(&session, &format!("SELECT sum(x) AS s FROM {unsigned} WHERE x > 1")).await,
        "s\n18446744073709551615\n"
    );
    // On the way it may be larger than its end.
    let back = format!("SELECT sum(x) AS s FROM (SELECT x FROM {rows} UNION ALL SELECT -9223372036854775807)");
    assert_eq!(csv(&session, &back).await, "s\n9223372036854775807\n");
    for too_large in [
        format!("SELECT sum(x) FROM {rows}"),
        format!("SELECT k, sum(x) FROM {rows} GROUP BY k"),
        format!("SELECT sum(DISTINCT x) FROM {rows} WHERE x > 0"),
        format!("SELECT sum(x) OVER (PARTITION BY k) FROM {rows}"),
        format!("SELECT sum(x) OVER (PARTITION BY k ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {rows}"),
    ] {
        let told = refusal(&session, &too_large).await;
        assert!(told.kind == Kind::User && told.message.contains("beyond 2^63-1"), "{too_large}: {told:?}");
    }
    let other = "SELECT sum(x) AS a, sum(x / 2.0) AS b, sum(y) AS c
        FROM (SELECT x, CAST(x AS DECIMAL(10, 2)) AS y FROM (VALUES (1), (2), (NULL)) AS t (x))";
    assert_eq!(csv(&session, other).await, "a,b,c\n3,1.5,3.00\n");
    let sliding = "SELECT sum(x) OVER (ORDER BY x ROWS 1 PRECEDING) AS s FROM (VALUES (1), (2), (5)) AS t (x)";
    assert_eq!(csv(&session, sliding).await, "s\n1\n3\n7\n");
    let none = "SELECT sum(x) AS s, count(*) AS n FROM (VALUES (1)) AS t (x) WHERE x > 1";
    assert_eq!(csv(&session, none).await, "s,n\n,0\n");
}
