//! One reader's session: text in, plan, rows out.

use std::{sync::Arc, time::Duration};

use chrono_tz::Tz;
use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::Column,
    error::DataFusionError,
    execution::{SessionStateBuilder, context::SessionState},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast},
    physical_plan::execute_stream,
    prelude::SessionContext,
};
use tokio::time::Instant;

use super::{
    Engine,
    answer::{self, Answer},
    catalog::{Catalog, Tables, View},
    error::{Names, SqlError, explain},
    fence,
    functions::{self, Conversion},
    overlay::Shape,
};
use crate::base::{Micros, Pseudonymizer};

/// How much one query may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the call to the last row.
    pub time: Option<Duration>,
    /// Of the answer; one more is an error, never a silent cut.
    pub rows: Option<u64>,
}

/// What a session sees.
pub struct SessionOptions {
    /// The tables as they were at one moment; a lake's snapshot.
    pub tables: Arc<dyn Tables>,
    /// Models and segments that are views. They are planned when a query names them.
    pub views: Arc<Vec<View>>,
    /// Business time: what `as_of()` says.
    pub as_of: Micros,
    /// The merchant's: where a day begins for `local_date`.
    pub zone: Tz,
    /// For `email_hash` and `phone_hash`.
    pub names: Pseudonymizer,
    /// How a national phone number is read where a query names no region.
    pub default_region: Option<String>,
    /// For `fx` and `reporting_currency`.
    pub money: Conversion,
    pub limits: Limits,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    engine: Engine,
    catalog: Arc<Catalog>,
    /// The shared state with this session's catalog and functions.
    state: Arc<SessionState>,
    limits: Limits,
}

impl Session {
    /// `facts`: how the tables of facts are stored.
    pub(super) fn new(engine: Engine, options: SessionOptions, facts: Arc<Vec<Shape>>) -> Result<Session, SqlError> {
        let SessionOptions { tables, views, as_of, zone, names, default_region, money, limits } = options;
        let mut functions = SessionStateBuilder::new_from_existing(engine.inner.base.clone()).build();
        functions::register_for_session(&mut functions, as_of, zone, names, default_region, money)
            .map_err(|e| explain(&e, Names::default))?;
        let catalog = Arc::new(Catalog::new(tables, &views, facts, functions)?);
        let mut state = catalog.state();
        // What now() says, and current_date.
        state.mark_start_execution();
        Ok(Session { engine, catalog, state: Arc::new(state), limits })
    }

    /// Plans and starts one statement. Rows come as the answer is read.
    pub async fn query(&self, sql: &str) -> Result<Answer, SqlError> {
        let deadline = self.limits.time.map(|limit| Instant::now() + limit);
        let (this, sql) = (self.clone(), sql.to_owned());
        let runtime = self.engine.runtime()?;
        let stream = answer::plan(runtime, self.limits, deadline, async move { this.start(&sql).await }).await?;
        let this = self.clone();
        Ok(Answer::new(runtime, stream, self.limits, deadline, move |e| this.explain(e)))
    }

    /// Plans one statement without running it; the columns of its answer.
    pub async fn validate(&self, sql: &str) -> Result<Vec<FieldRef>, SqlError> {
        let (this, sql) = (self.clone(), sql.to_owned());
        let deadline = self.limits.time.map(|limit| Instant::now() + limit);
        answer::plan(self.engine.runtime()?, self.limits, deadline, async move {
            let plan = this.plan(&sql).await?;
            let plan = this.state.optimize(&plan).map_err(|e| this.explain(&e))?;
            Ok(plan.schema().fields().iter().cloned().collect())
        })
        .await
    }

    /// Every table and view, as `schema.table`, sorted.
    pub fn tables(&self) -> Vec<String> {
        self.catalog.names()
    }

    async fn start(&self, sql: &str) -> Result<datafusion::execution::SendableRecordBatchStream, SqlError> {
        let plan = self.plan(sql).await?;
        let started = async {
            if let LogicalPlan::DescribeTable(_) = plan {
                let context = SessionContext::new_with_state(SessionState::clone(&self.state));
                return context.execute_logical_plan(plan).await?.execute_stream().await;
            }
            let plan = self.state.create_physical_plan(&plan).await?;
            execute_stream(plan, self.state.task_ctx())
        };
        started.await.map_err(|e: DataFusionError| self.explain(&e))
    }

    async fn plan(&self, sql: &str) -> Result<LogicalPlan, SqlError> {
        let statement = fence::parse(sql)?;
        self.catalog.plan_views(&fence::references(&statement)?).await?;
        let plan = self.state.statement_to_plan(statement).await.map_err(|e| self.explain(&e))?;
        fence::verify(&plan)?;
        plain(plan).map_err(|e| self.explain(&e))
    }

    fn explain(&self, error: &DataFusionError) -> SqlError {
        explain(error, || self.catalog.suggestions(self.engine.inner.memory))
    }
}

/// Casts columns to types that every format and every reader knows: plain strings for string views and dictionaries,
/// JSON text for the union that `->` gives.
fn plain(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let columns: Vec<Expr> = schema
        .iter()
        .map(|(relation, field)| {
            let column = Expr::Column(Column::new(relation.cloned(), field.name()));
            match field.data_type() {
                DataType::Union(..) => functions::json_text(column).alias_qualified(relation.cloned(), field.name()),
                other => match plain_type(other) {
                    Some(to) => cast(column, to).alias_qualified(relation.cloned(), field.name()),
                    None => column,
                },
            }
        })
        .collect();
    if columns.iter().all(|c| matches!(c, Expr::Column(_))) {
        return Ok(plan);
    }
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The plain form of a type, where it has another.
fn plain_type(of: &DataType) -> Option<DataType> {
    let inside = |field: &FieldRef| {
        plain_type(field.data_type()).map(|to| Arc::new(Field::clone(field).with_data_type(to)) as FieldRef)
    };
    match of {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        DataType::Dictionary(_, value) => Some(plain_type(value).unwrap_or_else(|| value.as_ref().clone())),
        DataType::List(field) => inside(field).map(DataType::List),
        DataType::LargeList(field) => inside(field).map(DataType::LargeList),
        DataType::Struct(fields) if fields.iter().any(|f| inside(f).is_some()) => {
            Some(DataType::Struct(fields.iter().map(|f| inside(f).unwrap_or_else(|| Arc::clone(f))).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::engine::{Kind, Settings};

    pub use crate::tests::engine::Memory;

    pub fn engine() -> (Engine, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { threads: 2, memory: 64 << 20, ..Settings::new(dir.path().join("tmp")) };
        (Engine::new(settings).unwrap(), dir)
    }

    pub fn options(tables: Memory) -> SessionOptions {
        SessionOptions {
            tables: Arc::new(tables),
            views: Arc::default(),
            as_of: Micros::from_rfc3339("2026-01-31T23:30:00Z").unwrap(),
            zone: Tz::Europe__Paris,
            names: Pseudonymizer::new(&[7; 32]),
            default_region: Some("GB".to_owned()),
            money: Conversion::default(),
            limits: Limits::default(),
        }
    }

    pub async fn shown(session: &Session, sql: &str) -> String {
        let answer = session.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        pretty_format_batches(&answer.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"))).unwrap().to_string()
    }

    /// The one cell of an answer.
    pub async fn cell(session: &Session, sql: &str) -> String {
        let table = shown(session, sql).await;
        table.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
    }

    pub async fn refusal(session: &Session, sql: &str) -> SqlError {
        match session.query(sql).await {
            Err(e) => e,
            Ok(answer) => answer.collect().await.err().unwrap_or_else(|| panic!("{sql} was answered")),
        }
    }

    #[tokio::test]
    async fn functions_say_what_they_are_documented_to() {
        let (engine, _dir) = engine();
        let session = engine.session(options(Memory::default())).unwrap();
        for (sql, expected) in [
            ("money_major(1205, 'usd')", "12.050"),
            ("money_major(500, 'JPY')", "500.000"),
            ("money_major(-5, 'kwd')", "-0.005"),
            ("money_major(9223372036854775807, 'jpy')", "9223372036854775807.000"),
            ("money_major(NULL, 'usd') IS NULL", "true"),
            ("money_major(1, NULL) IS NULL", "true"),
            ("decline_category('expired_card')", "card_data"),
            ("decline_category('expired_card', 'paypal')", "lpm_account"),
            ("decline_category('a_code_of_next_year')", "unknown"),
            ("decline_category(NULL) IS NULL", "true"),
            ("phone_e164('020 7946 0958')", "+442079460958"),
            ("phone_e164('06 12 34 56 78', 'FR')", "+33612345678"),
            ("phone_e164('call me', 'FR') IS NULL", "true"),
            ("phone_region('+33612345678')", "FR"),
            ("phone_type('+33612345678')", "mobile"),
            ("email_hash(' Ann@Example.com') = email_hash('ann@example.com')", "true"),
            ("length(email_hash('ann@example.com'))", "24"),
            ("phone_hash('020 7946 0958') = phone_hash('+44 20 7946 0958', 'US')", "true"),
            ("email_hash('ann') IS NULL", "true"),
            ("as_of()", "2026-01-31T23:30:00Z"),
            ("local_date(as_of())", "2026-02-01"),
            ("local_date(timestamp '1969-12-31T23:30:00')", "1970-01-01"),
            ("'{\"a\":{\"b\":7}}'->'a'->>'b'", "7"),
            ("'{\"a\":{\"b\":7}}'->'a'", "{\"b\":7}"),
            ("json_get_int('{\"a\":7}', 'a')", "7"),
        ] {
            assert_eq!(cell(&session, &format!("SELECT {sql}")).await, expected, "{sql}");
        }
        let told = refusal(&session, "SELECT money_major(1, 'dollars')").await.to_string();
        assert!(told.contains("\"dollars\" is no currency code"), "{told}");
        let told = refusal(&session, "SELECT phone_e164(5)").await.to_string();
        assert!(told.contains("phone_e164 takes texts: argument 1 is Int64"), "{told}");
        let plan = shown(&session, "EXPLAIN SELECT * FROM ref.currencies WHERE to_timestamp(exponent) < as_of()").await;
        assert!(plan.contains("1769902200000") && !plan.contains("as_of"), "{plan}");
    }

    #[tokio::test]
    async fn a_funnel_is_an_aggregate() {
        let (engine, _dir) = engine();
        let session = engine.session(options(Memory::default())).unwrap();
        let events = "(VALUES ('a', 0, 1), ('b', 0, 1), ('a', 10, 2), ('b', 99, 2), ('a', 15, 3), ('c', 0, 2)) \
                      AS e(person, at, step)";
        let funnel =
            |time: &str, mode: &str| format!("window_funnel(20, '{mode}', {time}, step = 1, step = 2, step = 3)");
        for time in ["at", "to_timestamp(at)"] {
            let sql =
                format!("SELECT person, {} AS level FROM {events} GROUP BY 1 ORDER BY 1", funnel(time, "default"));
            assert_eq!(
                shown(&session, &sql).await.lines().skip(3).take(3).collect::<Vec<_>>(),
                ["| a      | 3     |", "| b      | 1     |", "| c      | 0     |"]
            );
            let all = format!("SELECT {} FROM {events}", funnel(time, "strict_order, strict_once"));
            assert_eq!(cell(&session, &all).await, "3");
        }
        assert_eq!(cell(&session, &format!("SELECT {} FROM {events} WHERE false", funnel("at", "default"))).await, "0");
        let told = refusal(&session, &format!("SELECT {} FROM {events}", funnel("at", "strict_ordre"))).await;
        assert!(told.to_string().contains("did you mean \"strict_order\"?"), "{told}");
        let told = refusal(&session, &format!("SELECT {} FROM {events}", funnel("person", "default"))).await;
        assert_eq!(told.kind, Kind::User);
    }

    #[tokio::test]
    async fn errors_say_where_and_what_was_meant() {
        let (engine, _dir) = engine();
        let session = engine.session(options(Memory::default())).unwrap();
        for (sql, expected) in [
            ("SELECT curency\nFROM ref.currencies", "1:8: unknown column \"curency\"; did you mean \"currency\"?"),
            (
                "SELECT 1,\n  c.exponnt FROM ref.currencies c",
                "2:3: unknown column \"c.exponnt\"; did you mean \"exponent\"?",
            ),
            ("SELECT weather FROM ref.currencies", "1:8: unknown column \"weather\"; there are currency, exponent"),
            ("SELECT *\nFROM ref.curencies", "2:6: unknown table \"ref.curencies\"; did you mean \"ref.currencies\"?"),
            ("SELECT * FROM currencies", "1:15: unknown table \"core.currencies\"; did you mean \"ref.currencies\"?"),
            ("SELECT mony_major(1, 'usd')", "1:8: unknown function \"mony_major\"; did you mean \"money_major\"?"),
            ("SELECT (1 FROM t", "1:11: found FROM where ) is expected"),
            ("SELECT 1 +", "the text ends where an expression is expected"),
            ("SELECT 1/0", "division by zero: NULLIF(divisor, 0) gives NULL instead"),
            ("SELECT * FROM '/etc/passwd'", "unknown table \"core./etc/passwd\"; SHOW TABLES lists what there is"),
        ] {
            let told = refusal(&session, sql).await;
            assert_eq!((told.to_string().as_str(), told.kind), (expected, Kind::User), "{sql}");
        }
    }
}
