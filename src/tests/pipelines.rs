//! Pipelines on a real lake: what a run writes, what it leaves, and what it says when something is wrong.

use std::{fs, path::PathBuf, sync::Arc};

use chrono_tz::Tz;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tempfile::TempDir;

use crate::{
    base::{Pseudonymizer, progress::Silent},
    engine::{Engine, Limits},
    lake::{Lake, Position},
    pipeline::{self, Project, Report, Request, Runner, Settings, Status},
    tests::tables::{batch, lines, same, time},
};

/// A data directory with a lake, and a merchant's own pipelines beside the shipped ones.
struct Shop {
    dir: TempDir,
    lake: Lake,
    runner: Runner,
    /// Of the next rows.
    version: i64,
}

impl Shop {
    async fn open() -> Shop {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(crate::engine::Settings::new(dir.path().join("tmp"))).unwrap();
        let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
        let settings = Settings {
            zone: Tz::UTC,
            names: Pseudonymizer::new(&[7; 32]),
            default_region: None,
            rates: Default::default(),
            reporting_currency: None,
        };
        fs::create_dir_all(dir.path().join("own")).unwrap();
        Shop { runner: Runner::new(engine, lake.clone(), settings), lake, dir, version: 0 }
    }

    /// A file of the merchant's own, `pipelines/…` or `sql/…`.
    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join("own").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A pipeline of models `(name, sql)`, and what else its file says.
    fn pipeline(&self, name: &str, models: &[(&str, &str)], more: &str) {
        let mut toml = format!("name = \"{name}\"\n");
        for (model, sql) in models {
            self.file(&format!("sql/own/{model}.sql"), sql);
            toml.push_str(&format!("[[model]]\nname = \"marts.{model}\"\nsql = \"own/{model}.sql\"\n"));
        }
        toml.push_str(more);
        self.file(&format!("pipelines/{name}.toml"), &toml);
    }

    async fn add(&mut self, table: &str, rows: &str) {
        let rows = batch(table, rows);
        let at = Position { stage: "test", version: self.version };
        self.version += 1;
        self.lake.append(table, rows.schema(), &[], vec![rows], at).await.unwrap();
        self.lake.publish();
    }

    fn project(&self) -> Project {
        Project::load(Some(&self.dir.path().join("own"))).unwrap_or_else(|p| panic!("{p}"))
    }

    async fn run(&self, pipelines: &[&str], as_of: &str, log_offset: i64) -> Report {
        let pipelines = pipelines.iter().map(|p| (*p).to_owned()).collect();
        let request = Request { pipelines, as_of: time(as_of), log_offset: Some(log_offset), full: false };
        self.runner.run(&self.project(), &request, &Silent).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Why the segment `own` is not to be acted on.
    async fn doubt(&self, as_of: &str) -> Option<String> {
        let (project, as_of) = (self.project(), time(as_of));
        let session = self.runner.session(&project, as_of, Limits::default()).unwrap();
        pipeline::doubt(&session, &self.lake, &project, "segments.own", as_of).await.unwrap()
    }

    async fn ask(&self, sql: &str) -> Vec<String> {
        let session = self.runner.session(&self.project(), time("31T00:00"), Limits::default()).unwrap();
        let answer = session.query(sql).await.unwrap_or_else(|e| panic!("{e}\n{sql}"));
        answer.collect().await.unwrap().iter().flat_map(lines).collect()
    }
}

/// `model status`, in the order of computing.
fn models(report: &Report) -> Vec<String> {
    report.models.iter().map(|m| format!("{} {}", m.model, m.status.as_str())).collect()
}

#[tokio::test]
async fn a_run_makes_the_shipped_marts_and_records_it() {
    let mut shop = Shop::open().await;
    shop.add(
        "core.imported_orders",
        "order_id customer_ref person_id ordered_at amount currency
         o1       1            ann       09T00:00   100    gbp",
    )
    .await;
    // Before the first run a mart is there, and empty.
    assert!(shop.ask("SELECT person_id, segment FROM marts.rfm_scores").await.is_empty());
    assert!(shop.ask("SELECT * FROM ops.pipeline_runs").await.is_empty());

    let report = shop.run(&[], "10T00:00", 7).await;
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!(shop.ask("SELECT person_id, r FROM marts.rfm_scores").await, ["ann 5"]);
    same(
        &shop
            .ask("SELECT model, pipeline, as_of, log_offset, rows, status, error FROM ops.pipeline_runs ORDER BY 1")
            .await,
        "marts.failure_reasons_daily failures   10T00:00 7 0 succeeded -
         marts.funnel_daily          conversion 10T00:00 7 0 succeeded -
         marts.payment_rates_daily   failures   10T00:00 7 0 succeeded -
         marts.rfm_scores            customers  10T00:00 7 1 succeeded -
         marts.shared_phones         customers  10T00:00 7 0 succeeded -",
    );
    let checks = shop.ask("SELECT count(*), sum(failures), max(status) FROM ops.check_results").await;
    assert_eq!(checks, ["5 0 succeeded"]);
    assert_eq!(shop.ask("SELECT count(*) FROM segments.cart_abandoned").await, ["0"]);
}

#[tokio::test]
async fn what_ships_fits_the_tables() {
    let shop = Shop::open().await;
    shop.runner.verify(&shop.project()).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test]
async fn a_misspelt_column_is_named_with_file_and_line() {
    let shop = Shop::open().await;
    let more = "[[check]]\nname = \"c\"\nsql = \"\"\"\nSELECT 1\nFROM marts.b\nWHERE ps > 1\"\"\"\n";
    shop.pipeline("own", &[("a", "SELECT 1 AS x,\n  amout\nFROM core.orders"), ("b", "SELECT 2 AS pos")], more);
    let problems = shop.runner.verify(&shop.project()).await.unwrap_err();
    let told: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("pipelines/own.toml:13: unknown column \"ps\"; did you mean \"pos\"?"), "{told:#?}");
    assert!(told[1].contains("sql/own/a.sql:2: unknown column \"amout\"; did you mean \"amount\"?"), "{told:#?}");
}

#[tokio::test]
async fn a_model_that_fails_stops_what_reads_it_and_nothing_else() {
    let mut shop = Shop::open().await;
    shop.add("core.page_views", "event_id person_id occurred_at name\n e1 ann 01T10:00 home").await;
    shop.pipeline(
        "own",
        &[
            ("broken", "SELECT CAST(name AS BIGINT) AS n FROM core.page_views"),
            ("reader", "SELECT * FROM marts.broken"),
            ("other", "SELECT 1 AS n"),
        ],
        "",
    );
    let report = shop.run(&["own"], "10T00:00", 1).await;
    assert_eq!(models(&report), ["marts.broken failed", "marts.reader skipped", "marts.other succeeded"]);
    assert!(!report.succeeded());
    let error = report.models[0].error.as_deref().unwrap();
    assert!(error.contains("sql/own/broken.sql") && error.contains("home"), "{error}");
    assert_eq!(report.models[1].error.as_deref(), Some("marts.broken failed"));
    let recorded = shop.ask("SELECT model, status FROM ops.pipeline_runs ORDER BY model").await;
    assert_eq!(recorded, ["marts.broken failed", "marts.other succeeded", "marts.reader skipped"]);
}

#[tokio::test]
async fn a_check_stops_what_depends_on_it_if_it_is_severe() {
    for (severity, reader) in [("error", Status::Skipped), ("warn", Status::Succeeded)] {
        let shop = Shop::open().await;
        let check = format!(
            "[[check]]\nname = \"none\"\nsql = \"SELECT * FROM marts.a WHERE n > 1\"\nseverity = \"{severity}\"\n"
        );
        shop.pipeline("own", &[("a", "SELECT 1 AS n UNION ALL SELECT 2"), ("b", "SELECT n FROM marts.a")], &check);
        let report = shop.run(&["own"], "10T00:00", 1).await;
        assert_eq!(report.models[1].status, reader, "{report:#?}");
        assert_eq!((report.checks[0].status, report.checks[0].failures), (Status::Failed, Some(1)));
        assert_eq!(report.succeeded(), severity == "warn");
        assert_eq!(shop.ask("SELECT check_name, failures FROM ops.check_results").await, ["none 1"]);
    }
}

#[tokio::test]
async fn a_check_of_core_tables_guards_the_models_of_its_pipeline() {
    let mut shop = Shop::open().await;
    shop.add("core.page_views", "event_id person_id occurred_at\n e1 - 01T10:00").await;
    let check = "[[check]]\nname = \"known\"\nsql = \"SELECT * FROM core.page_views WHERE person_id IS NULL\"\n";
    shop.pipeline("own", &[("a", "SELECT count(*) AS n FROM core.page_views")], check);
    let report = shop.run(&["own"], "10T00:00", 1).await;
    assert_eq!(models(&report), ["marts.a skipped"]);
    assert_eq!(report.models[0].error.as_deref(), Some("check \"known\" of own failed"));
}

#[tokio::test]
async fn what_another_pipeline_makes_is_made_first_where_it_is_stale() {
    let shop = Shop::open().await;
    shop.pipeline("own", &[("mine", "SELECT count(*) AS n FROM marts.rfm_scores")], "");
    let report = shop.run(&["own"], "10T00:00", 1).await;
    assert_eq!(models(&report), ["marts.rfm_scores succeeded", "marts.mine succeeded"]);
    assert_eq!(report.checks.len(), 2, "the checks of what was made: {report:#?}");
    let again = shop.run(&["own"], "10T01:00", 1).await;
    assert_eq!(models(&again), ["marts.mine succeeded"]);
    let with_new_rows = shop.run(&["own"], "10T01:00", 2).await;
    assert_eq!(models(&with_new_rows)[0], "marts.rfm_scores succeeded");
}

#[tokio::test]
async fn a_view_is_read_and_not_stored() {
    let shop = Shop::open().await;
    shop.file("sql/own/v.sql", "SELECT 1 AS n");
    let toml = "name = \"own\"\n[[model]]\nname = \"marts.v\"\nsql = \"own/v.sql\"\nmaterialize = \"view\"\n";
    shop.file("pipelines/own.toml", toml);
    let report = shop.run(&["own"], "10T00:00", 1).await;
    assert_eq!((report.models[0].status, report.models[0].rows), (Status::Succeeded, None));
    assert_eq!(shop.lake.snapshot().rows("marts.v"), None);
    assert_eq!(shop.ask("SELECT n FROM marts.v").await, ["1"]);
}

const VIEWS_DAILY: &str =
    "SELECT local_date(occurred_at) AS day, count(*) AS views, count(DISTINCT person_id) AS people,
    max(as_of()) AS made_at
FROM core.page_views WHERE occurred_at <= as_of() GROUP BY 1";

async fn daily() -> Shop {
    let mut shop = Shop::open().await;
    shop.file("sql/own/daily.sql", VIEWS_DAILY);
    let toml = "name = \"own\"\n[[model]]\nname = \"marts.daily\"\nsql = \"own/daily.sql\"\n\
        materialize = { incremental = \"day\" }\n";
    shop.file("pipelines/own.toml", toml);
    shop.add(
        "core.page_views",
        "event_id person_id occurred_at log_offset
         e1       ann       01T10:00    1
         e2       bob       02T10:00    2
         e3       cat       03T10:00    3
         e4       cat       05T10:00    4
         e5       cat       05T14:00    5",
    )
    .await;
    shop
}

const DAYS: &str = "SELECT day, views, people, made_at FROM marts.daily ORDER BY day";

#[tokio::test]
async fn an_incremental_run_computes_only_the_days_that_new_rows_touched() {
    let mut shop = daily().await;
    let first = shop.run(&["own"], "05T12:00", 5).await;
    assert_eq!(first.models[0].from_day, None);
    shop.add("core.page_views", "event_id person_id occurred_at log_offset\n e6 dan 03T11:00 6").await;
    let second = shop.run(&["own"], "05T13:00", 6).await;
    assert_eq!(second.models[0].from_day.unwrap().to_string(), "2026-01-03");
    same(
        &shop.ask(DAYS).await,
        "2026-01-01 1 1 05T12:00
         2026-01-02 1 1 05T12:00
         2026-01-03 2 2 05T13:00
         2026-01-05 1 1 05T13:00",
    );
    // Nothing new, but the clock went on: the last day is not over.
    let third = shop.run(&["own"], "06T13:00", 6).await;
    assert_eq!((third.models[0].from_day.unwrap().to_string(), third.models[0].rows), ("2026-01-05".into(), Some(4)));
    assert_eq!(shop.ask(DAYS).await[3], "2026-01-05 2 1 06T13:00");
    // Back in time: what came later is not seen any more.
    let back = shop.run(&["own"], "02T12:00", 6).await;
    assert_eq!(back.models[0].from_day, None);
    same(&shop.ask(DAYS).await, "2026-01-01 1 1 02T12:00\n 2026-01-02 1 1 02T12:00");
}

#[tokio::test]
async fn days_of_people_who_were_merged_are_computed_again() {
    let mut shop = daily().await;
    shop.run(&["own"], "05T23:00", 5).await;
    shop.add("core.page_views", "event_id person_id occurred_at log_offset\n e7 dan 03T11:00 6").await;
    shop.run(&["own"], "05T23:00", 6).await;
    shop.add("core.person_merges", "old new merged_at log_offset\n dan cat 05T12:00 7").await;
    let merged = shop.run(&["own"], "05T23:30", 7).await;
    assert_eq!(merged.models[0].from_day.unwrap().to_string(), "2026-01-03");
    assert_eq!(shop.ask(DAYS).await[2], "2026-01-03 2 1 05T23:30");
}

#[tokio::test]
async fn a_changed_query_is_computed_whole() {
    let shop = daily().await;
    shop.run(&["own"], "05T12:00", 5).await;
    shop.file("sql/own/daily.sql", &VIEWS_DAILY.replace("count(*) AS views", "count(*) * 10 AS views"));
    let report = shop.run(&["own"], "05T13:00", 5).await;
    assert_eq!(report.models[0].from_day, None);
    assert_eq!(shop.ask(DAYS).await[0], "2026-01-01 10 1 05T13:00");
}

#[tokio::test]
async fn runs_at_once_stand_in_a_queue() {
    let shop = Arc::new(daily().await);
    let (a, b) = tokio::join!(shop.run(&["own"], "05T12:00", 5), shop.run(&["own"], "05T12:00", 5));
    assert!(a.succeeded() && b.succeeded());
    assert_eq!(shop.ask("SELECT count(*) FROM ops.pipeline_runs").await, ["2"]);
}

#[tokio::test]
async fn an_unknown_pipeline_is_told_with_its_neighbour() {
    let shop = Shop::open().await;
    let request =
        Request { pipelines: vec!["costumers".into()], as_of: time("10T00:00"), log_offset: None, full: false };
    let error = shop.runner.run(&shop.project(), &request, &Silent).await.unwrap_err().to_string();
    assert!(error.contains("no pipeline \"costumers\"; did you mean \"customers\"?"), "{error}");
}

/// A check of `a` and `b` that finds nothing while `a` has fewer than `n` rows, and a segment of all of `a`.
fn guarded(shop: &Shop, (a, b): (&str, &str), n: u32) {
    shop.file("sql/own/segment.sql", "SELECT 'ann' AS person_id FROM marts.a");
    let more = format!(
        "[[check]]\nname = \"few\"\nsql = \"SELECT 1 AS one FROM marts.a, marts.b HAVING count(*) >= {n}\"\n\
         [[segment]]\nname = \"own\"\nsql = \"own/segment.sql\"\n"
    );
    shop.pipeline("own", &[("a", a), ("b", b)], &more);
}

#[tokio::test]
async fn a_segment_is_in_doubt_until_its_marts_are_made_and_vouched_for_as_they_are() {
    const AT: &str = "10T00:00";
    let one = "SELECT 1 AS n";
    let shop = Shop::open().await;
    let doubt = async |word: &str| {
        let told = shop.doubt(AT).await.unwrap_or_default();
        assert!(told.contains(word), "{told}");
    };
    guarded(&shop, (one, one), 2);
    doubt("marts.a was never made here").await;
    shop.run(&["own"], AT, 1).await;
    assert_eq!(shop.doubt(AT).await, None);

    // A check that was changed has said nothing yet.
    guarded(&shop, (one, one), 1);
    doubt("check \"few\" of own has not run on it yet").await;
    shop.run(&["own"], AT, 2).await;
    doubt("check \"few\" of own failed").await;
    guarded(&shop, (one, one), 2);
    shop.run(&["own"], AT, 3).await;
    assert_eq!(shop.doubt(AT).await, None);

    // What it said of a table that was made again since is of no worth.
    guarded(&shop, ("SELECT 1 AS n UNION ALL SELECT 2", "SELECT CAST(concat('a', as_of()) AS BIGINT) AS n"), 2);
    let report = shop.run(&["own"], AT, 4).await;
    assert_eq!(models(&report), ["marts.a succeeded", "marts.b failed"]);
    doubt("has not run on it yet").await;
    guarded(&shop, (one, one), 2);
    shop.run(&["own"], AT, 5).await;
    assert_eq!(shop.doubt(AT).await, None);

    let told = shop.doubt("11T00:00").await.unwrap_or_default();
    assert!(told.contains("marts.a is as of 2026-01-10T00:00:00Z"), "{told}");
    // One that left out what came in since is of the past, whatever time it names.
    let request = Request { pipelines: vec!["own".into()], as_of: time(AT), log_offset: None, full: false };
    shop.runner.run(&shop.project(), &request, &Silent).await.unwrap();
    doubt("marts.a is of the past").await;
}

#[tokio::test]
async fn a_verdict_of_an_earlier_build_vouches_for_nothing_and_stops_nothing() {
    const AT: &str = "10T00:00";
    let shop = Shop::open().await;
    shop.file("sql/own/segment.sql", "SELECT 'ann' AS person_id FROM marts.a");
    let segment = "[[segment]]\nname = \"own\"\nsql = \"own/segment.sql\"\n";
    shop.pipeline("own", &[("a", "SELECT 1 AS n"), ("b", "SELECT 1 AS n")], segment);
    // As such a build left it: without the digest of what was checked.
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let then = TimestampMicrosecondArray::from(vec![time(AT).0]).with_timezone("UTC");
    let old = RecordBatch::try_from_iter([
        ("run_id", text("run_1")),
        ("pipeline", text("own")),
        ("check_name", text("few")),
        ("severity", text("error")),
        ("failures", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
        ("status", text("succeeded")),
        ("checked_at", Arc::new(then)),
        ("error", text("")),
    ])
    .unwrap();
    let at = Position { stage: "pipeline", version: 0 };
    shop.lake.append("ops.check_results", old.schema(), &[], vec![old], at).await.unwrap();
    shop.run(&["own"], AT, 1).await;
    assert_eq!(shop.doubt(AT).await, None, "there is no check");

    let one = "SELECT 1 AS n";
    guarded(&shop, (one, one), 2);
    let told = shop.doubt(AT).await.unwrap_or_default();
    assert!(told.contains("check \"few\" of own has not run on it yet"), "{told}");
    shop.run(&["own"], AT, 2).await;
    assert_eq!(shop.doubt(AT).await, None);
}
