//! Every shipped model and segment on a few rows that one can work out by hand.
//!
//! Tables stand as text, in and out: see `tables`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use chrono_tz::Tz;
use datafusion::{arrow::array::RecordBatch, catalog::TableProvider, datasource::MemTable};

use crate::{
    base::{Micros, Pseudonymizer},
    engine::{Engine, Limits, SessionOptions, Settings, Tables},
    pipeline::{self, Project},
    tests::tables::{batch, lines, same, time},
};

/// A shop's tables in memory, and the business time.
struct Shop {
    tables: BTreeMap<String, (Arc<MemTable>, usize)>,
    as_of: Micros,
    zone: Tz,
}

impl Tables for Shop {
    fn names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        self.tables.get(table).map(|(t, _)| Arc::clone(t) as Arc<dyn TableProvider>)
    }

    fn is_empty(&self, table: &str) -> bool {
        self.tables.get(table).is_none_or(|(_, rows)| *rows == 0)
    }
}

impl Shop {
    fn at(as_of: &str) -> Shop {
        Shop { tables: BTreeMap::new(), as_of: time(as_of), zone: Tz::UTC }
    }

    /// With a table of facts; `livemode` is true where the rows do not say.
    fn with(mut self, table: &str, rows: &str) -> Shop {
        self.put(table, batch(table, rows));
        self
    }

    fn put(&mut self, table: &str, batch: RecordBatch) {
        let rows = batch.num_rows();
        let memory = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        self.tables.insert(table.to_owned(), (Arc::new(memory), rows));
    }

    /// The answer to a query, a line a row.
    async fn ask(self, sql: &str) -> Vec<String> {
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::new(Settings::new(spill.path())).unwrap();
        let project = Project::load(None).unwrap_or_else(|p| panic!("{p}"));
        let views = pipeline::views(&project, |table| self.tables.contains_key(table));
        let session = engine
            .session(SessionOptions {
                as_of: self.as_of,
                zone: self.zone,
                tables: Arc::new(self),
                views: Arc::new(views),
                names: Pseudonymizer::new(&[7; 32]),
                default_region: None,
                money: Default::default(),
                limits: Limits::default(),
            })
            .unwrap();
        let answer = session.query(sql).await.unwrap_or_else(|e| panic!("{e}\n{sql}"));
        let batches = answer.collect().await.unwrap_or_else(|e| panic!("{e}\n{sql}"));
        batches.iter().flat_map(lines).collect()
    }

    /// The rows that a shipped SQL file makes.
    async fn run(self, path: &str) -> Vec<String> {
        let sql = std::fs::read_to_string(format!("sql/{path}")).unwrap();
        self.ask(&sql).await
    }
}

/// ann goes all the way within a day; bob pays two days after he looked; cat comes back the next day; dan's cart comes
/// before his product; eve never saw a page.
fn visits() -> Shop {
    Shop::at("10T00:00")
        .with(
            "core.page_views",
            "event_id person_id occurred_at
             e1       ann       01T23:00
             e2       bob       01T10:00
             e3       cat       01T10:00
             e4       cat       02T10:00
             e5       dan       01T10:00
             e6       -         01T10:00
             e7       ann       12T10:00",
        )
        .with(
            "core.product_views",
            "event_id person_id occurred_at
             e1       ann       01T23:01
             e2       bob       01T10:01
             e3       cat       02T10:05
             e4       dan       01T10:30
             e5       eve       01T10:30",
        )
        .with(
            "core.cart_events",
            "event_id person_id kind             occurred_at
             e1       ann       added            01T23:02
             e2       ann       checkout_started 02T00:30
             e3       bob       added            01T10:02
             e4       dan       added            01T10:10
             e5       bob       viewed           01T10:03",
        )
        .with(
            "core.payment_attempts",
            "attempt_id person_id created_at outcome
             a1         ann       02T00:31   issuer_declined
             a2         ann       02T00:33   authorised
             a3         bob       03T10:00   authorised",
        )
        .with(
            "core.payment_intents",
            "payment_intent_id person_id created_at succeeded_at status    livemode
             p1                ann       02T00:31   02T00:33     succeeded true
             p2                bob       03T10:00   03T10:00     succeeded true
             p3                dan       01T10:40   01T10:40     succeeded false",
        )
}

#[tokio::test]
async fn the_funnel_counts_people_by_the_day_their_visit_began() {
    same(
        &visits().run("conversion/funnel_daily.sql").await,
        "2026-01-01 1 page              4 1.000 1.000
         2026-01-01 2 product           3 0.750 0.750
         2026-01-01 3 cart              2 0.500 0.667
         2026-01-01 4 checkout          1 0.250 0.500
         2026-01-01 5 payment_attempted 1 0.250 1.000
         2026-01-01 6 paid              1 0.250 1.000
         2026-01-02 1 page              1 1.000 1.000
         2026-01-02 2 product           1 1.000 1.000
         2026-01-02 3 cart              0 0.000 0.000
         2026-01-02 4 checkout          0 0.000 -
         2026-01-02 5 payment_attempted 0 0.000 -
         2026-01-02 6 paid              0 0.000 -",
    );
}

#[tokio::test]
async fn a_day_is_the_merchants() {
    let mut shop = visits();
    // An hour ahead of UTC: ann's visit of 23:00 is of the next day.
    shop.zone = Tz::Europe__Paris;
    let found = shop.run("conversion/funnel_daily.sql").await;
    assert_eq!(found[5], "2026-01-01 6 paid 0 0.000 -");
    assert_eq!(found[11], "2026-01-02 6 paid 1 0.500 1.000");
}

fn attempts() -> Shop {
    Shop::at("10T00:00")
        .with(
            "core.payment_attempts",
            "attempt_id payment_intent_id invoice_id customer_id card_fingerprint created_at amount currency outcome         decline_code       failure_code  category       is_technical livemode
             a1         p1                -          c1          f1               01T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit false        true
             a2         p1                -          c1          f2               01T10:05   1000   eur      authorised      -                  -             -              false        true
             a3         p2                -          -           f3               01T11:00   500    eur      issuer_declined do_not_honor       card_declined issuer_generic false        true
             a4         p3                -          -           f3               02T10:00   500    eur      authorised      -                  -             -              false        true
             a5         p4                -          -           f3               03T10:01   500    eur      blocked         -                  -             -              false        true
             a6         p5                in1        -           f4               01T12:00   700    eur      auth_failed     -                  payment_intent_authentication_failure authentication false true
             a7         p5                in1        -           f4               05T12:00   700    eur      authorised      -                  -             -              false        true
             a8         p6                -          -           -                01T13:00   900    eur      invalid         -                  -             -              false        true
             a9         p7                -          c2          -                01T14:00   900    usd      issuer_declined processing_error   card_declined issuer_temporary true       true
             b1         p8                -          c2          -                01T14:00   900    usd      authorised      -                  -             -              false        true
             b2         p9                -          c2          -                01T15:00   999    usd      authorised      -                  -             -              false        false
             b3         q1                -          c1          f1               11T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit false        true",
        )
        .with(
            "core.payment_intents",
            "payment_intent_id created_at status                  amount currency attempts first_attempt_at succeeded_at
             p1                01T09:59   succeeded               1000   eur      2        01T10:00         01T10:05
             p2                01T11:00   requires_payment_method 500    eur      1        01T11:00         -
             p3                02T10:00   requires_capture        500    eur      1        02T10:00         -
             p4                03T10:01   requires_payment_method 500    eur      1        03T10:01         -
             p5                01T12:00   succeeded               700    eur      2        01T12:00         12T12:00
             p6                01T13:00   requires_payment_method 900    eur      0        -                -
             p7                01T14:00   succeeded               900    usd      1        01T14:00         01T14:00",
        )
}

#[tokio::test]
async fn reasons_for_failure_are_counted_by_code_and_currency() {
    same(
        &attempts().run("failures/failure_reasons_daily.sql").await,
        "2026-01-01 authentication   payment_intent_authentication_failure eur 1 700  0.250
         2026-01-01 funds_or_limit   insufficient_funds                    eur 1 1000 0.250
         2026-01-01 issuer_generic   do_not_honor                          eur 1 500  0.250
         2026-01-01 unknown          invalid                               eur 1 900  0.250
         2026-01-01 issuer_temporary processing_error                      usd 1 900  1.000
         2026-01-03 unknown          blocked                               eur 1 500  1.000",
    );
}

/// On the 1st in EUR there are four valid attempts (a1, a2, a3, a6), one authorised, one failed in 3D Secure. They are
/// the starts of three payments: a1-a2 (paid), a3-a4 (23 hours apart, paid), a6-a7 (one invoice, paid). a5 comes more
/// than a day after a4. Intents first tried that day: p1 paid, p2 not, p5 only after as_of().
#[tokio::test]
async fn five_rates_say_five_things() {
    same(
        &attempts().run("failures/payment_rates_daily.sql").await,
        "2026-01-01 eur 4 0.250 0.333 1.000 0.333 1.000
         2026-01-01 usd 2 0.500 0.500 1.000 1.000 0.500
         2026-01-02 eur 1 1.000 1.000 -     1.000 1.000
         2026-01-03 eur 1 0.000 -     0.000 0.000 1.000
         2026-01-05 eur 1 1.000 1.000 -     -     1.000",
    );
}

/// Orders of imported customers 1 to 5, so that every quintile holds one: recency 0, 1, 3, 5 and 8 days.
fn orders() -> Shop {
    Shop::at("10T00:00").with(
        "core.imported_orders",
        "order_id customer_ref person_id ordered_at amount currency
         o1       1            ann       10T00:00   100    gbp
         o2       1            ann       01T00:00   100    gbp
         o3       10           bob       08T12:00   150    gbp
         o4       10           bob       08T11:00   50     eur
         o5       10           bob       08T10:00   50     gbp
         o6       9            cat       06T12:00   300    gbp
         o7       9            cat       06T11:00   100    gbp
         o8       x            dan       04T18:00   300    gbp
         o9       5            eve       01T12:00   500    gbp
         o10      5            eve       10T00:01   900    gbp",
    )
}

/// F: dan and eve have one order, eve's number 5 comes before dan's x; ann and cat have two, 1 before 9; bob has three.
/// M of 200 (ann, and bob's GBP only), 300 (dan), 400 (cat) and 500 (eve): edges 200, 260, 340, 420. R of 0, 1, 3, 5 and 8
/// days: edges 0.8, 2.2, 3.8, 5.6.
#[tokio::test]
async fn scores_are_quintiles_and_money_is_of_one_currency() {
    same(
        &orders().run("customers/rfm_scores.sql").await,
        "ann 10T00:00 0 2 200 gbp 5 3 1 potential_loyalists
         bob 10T00:00 1 3 200 gbp 4 5 1 loyal
         cat 10T00:00 3 2 400 gbp 3 4 4 loyal
         dan 10T00:00 5 1 300 gbp 2 2 3 hibernating
         eve 10T00:00 8 1 500 gbp 1 1 5 hibernating",
    );
}

#[tokio::test]
async fn one_buyer_alone_has_scores_too() {
    let shop = Shop::at("10T00:00").with(
        "core.imported_orders",
        "order_id customer_ref person_id ordered_at amount currency
         o1       1            ann       09T00:00   100    jpy",
    );
    same(&shop.run("customers/rfm_scores.sql").await, "ann 10T00:00 1 1 100 jpy 5 1 1 new");
}

#[tokio::test]
async fn nobody_has_scores_where_nobody_bought() {
    same(&Shop::at("10T00:00").run("customers/rfm_scores.sql").await, "");
}

/// ann left a cart; bob's is not due yet; cat emptied hers; dan paid; eve's is too old; fay's was paid by another
/// person; gus ordered and then filled it again.
#[tokio::test]
async fn a_cart_is_abandoned_after_half_an_hour_without_a_payment() {
    let shop = Shop::at("03T12:00")
        .with(
            "core.cart_events",
            "event_id cart_id person_id kind             quantity price currency occurred_at
             e01      k1      ann       added            2        1250  usd      03T10:00
             e02      k1      ann       added            1        500   usd      03T10:05
             e03      k1      ann       removed          1        1250  usd      03T10:06
             e04      k1      ann       viewed           -        -     -        03T10:20
             e05      k2      bob       added            1        500   jpy      03T11:45
             e06      k3      cat       added            1        100   usd      03T10:00
             e07      k3      cat       removed          1        100   usd      03T10:01
             e08      k4      dan       added            1        100   usd      03T10:00
             e09      k4      dan       viewed           -        -     -        03T11:00
             e10      k5      eve       added            1        100   usd      01T11:59
             e11      k6      fay       added            1        100   usd      03T10:00
             e12      k7      gus       added            1        100   usd      03T09:00
             e13      k7      gus       ordered          -        -     -        03T09:05
             e14      k7      gus       added            1        1234  kwd      03T09:10
             e15      k8      ann       added            1        100   usd      03T12:01",
        )
        .with(
            "core.payment_intents",
            "payment_intent_id person_id cart_id created_at succeeded_at status    amount amount_received currency
             p1                dan       -       03T10:30   03T10:30     succeeded 100    100             usd
             p2                hal       k6      03T10:30   03T10:30     succeeded 100    100             usd
             p3                gus       k7      03T09:05   03T09:05     succeeded 100    100             usd",
        );
    let sql = std::fs::read_to_string("sql/segments/cart_abandoned.sql").unwrap();
    same(
        &shop.ask(&format!("SELECT * FROM (\n{sql}\n) ORDER BY person_id")).await,
        "ann k1 03T10:50 k1 2 usd 17.50 03T10:20
         bob k2 03T12:15 k2 1 jpy 500   03T11:45
         gus k7 03T09:40 k7 1 kwd 1.234 03T09:10",
    );
}

/// ann's card had no funds, twice: the last counts; bob's was stolen; cat has paid since; dan broke off 3D Secure; eve's
/// intent is canceled; fay's failed long ago; gus's retry was authorised in the same second; hal was blocked.
#[tokio::test]
async fn a_payment_can_be_recovered_where_its_payer_can_mend_it() {
    let shop = Shop::at("10T00:00")
        .with(
            "core.payment_attempts",
            "attempt_id payment_intent_id person_id created_at amount currency outcome         decline_code       failure_code  category
             a1         p1                ann       08T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit
             a2         p2                ann       08T11:00   2050   eur      issuer_declined -                  expired_card  card_data
             b1         p3                bob       08T10:00   1000   eur      issuer_declined stolen_card        card_declined fraud
             c1         p4                cat       08T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit
             d1         p6                dan       08T10:00   1000   jpy      auth_failed     -                  payment_intent_authentication_failure authentication
             e1         p7                eve       08T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit
             f1         p8                fay       02T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit
             g1         p9                gus       08T10:00   1000   eur      authorised      -                  -             -
             g2         p9                gus       08T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit
             h1         q1                hal       08T10:00   1000   eur      blocked         -                  -             -
             i1         q2                -         08T10:00   1000   eur      issuer_declined insufficient_funds card_declined funds_or_limit",
        )
        .with(
            "core.payment_intents",
            "payment_intent_id person_id created_at succeeded_at status                  amount amount_received currency
             p1                ann       08T10:00   -            requires_payment_method 1000   0               eur
             p2                ann       08T11:00   -            requires_payment_method 2050   0               eur
             p3                bob       08T10:00   -            requires_payment_method 1000   0               eur
             p4                cat       08T10:00   -            requires_payment_method 1000   0               eur
             p5                cat       08T10:30   08T10:30     succeeded               1000   1000            eur
             p6                dan       08T10:00   -            requires_payment_method 1000   0               jpy
             p7                eve       08T10:00   -            canceled                1000   0               eur
             p8                fay       02T10:00   -            requires_payment_method 1000   0               eur
             p9                gus       08T10:00   -            requires_payment_method 1000   0               eur
             q1                hal       08T10:00   -            requires_payment_method 1000   0               eur
             q2                -         08T10:00   -            requires_payment_method 1000   0               eur",
        );
    let sql = std::fs::read_to_string("sql/segments/payment_recoverable.sql").unwrap();
    same(
        &shop.ask(&format!("SELECT * FROM (\n{sql}\n) ORDER BY person_id")).await,
        "ann p2 p2 eur 20.50 card_data      expired_card                          08T11:00
         dan p6 p6 jpy 1000  authentication payment_intent_authentication_failure 08T10:00",
    );
}

#[tokio::test]
async fn a_champion_has_lapsed_when_only_recency_is_low() {
    let shop = Shop::at("10T00:00")
        .with(
            "marts.rfm_scores",
            "person_id as_of    recency_days frequency monetary currency r f m segment
             ann       10T00:00 8            9         90000    gbp      1 5 5 cant_loose
             bob       10T00:00 8            9         90000    gbp      2 4 3 at_risk
             cat       10T00:00 1            9         90000    gbp      5 5 5 champions",
        )
        .with(
            "core.imported_orders",
            "order_id customer_ref person_id ordered_at amount currency
             o1       1            ann       01T00:00   100    gbp
             o2       1            ann       02T00:00   100    gbp
             o3       1            ann       11T00:00   100    gbp
             o4       3            cat       09T00:00   100    gbp",
        );
    same(&shop.run("segments/lapsed_champions.sql").await, "ann o2 8 9 gbp 900.00 cant_loose 02T00:00");
}

/// The published segments of the UCI Online Retail customers, person by person with pandas' quintiles.
#[tokio::test]
async fn the_segments_of_a_real_shop_are_those_published() {
    let reference = std::env::var("TILLSTREAM_REFERENCE").unwrap_or_else(|_| "../shared/reference".to_owned());
    let file = PathBuf::from(reference).join("rfm/online_retail.parquet");
    if !file.exists() {
        assert!(std::env::var("CI").is_err(), "no reference data in {}", file.display());
        println!("skipped: no reference data");
        return;
    }
    let context = datafusion::prelude::SessionContext::new();
    context.register_parquet("lines", file.to_str().unwrap(), Default::default()).await.unwrap();
    let orders = context
        .sql(
            r#"SELECT CAST("InvoiceNo" AS VARCHAR) AS order_id, CAST(CAST("CustomerID" AS BIGINT) AS VARCHAR) AS customer_ref,
                CAST(CAST("CustomerID" AS BIGINT) AS VARCHAR) AS person_id,
                arrow_cast(max("InvoiceDate"), 'Timestamp(Microsecond, Some("UTC"))') AS ordered_at,
                CAST(round(sum("Quantity" * "UnitPrice") * 100) AS BIGINT) AS amount, 'gbp' AS currency, true AS livemode
            FROM lines WHERE "CustomerID" IS NOT NULL AND "Quantity" > 0 AND "UnitPrice" > 0
            GROUP BY "InvoiceNo", "CustomerID""#,
        )
        .await
        .unwrap();
    let batches = orders.collect().await.unwrap();
    let mut shop = Shop::at("2011-12-11");
    shop.put(
        "core.imported_orders",
        datafusion::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap(),
    );
    let scores = std::fs::read_to_string("sql/customers/rfm_scores.sql").unwrap();
    let sql = format!(
        "SELECT segment, count(*) AS people, sum(frequency), sum(monetary) FROM (\n{scores}\n) GROUP BY segment ORDER BY people DESC"
    );
    let found = shop.ask(&sql).await;
    let counts: Vec<String> = found.iter().map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    same(
        &counts,
        "hibernating 1071
         loyal 819
         champions 633
         at_risk 593
         potential_loyalists 484
         about_to_sleep 352
         need_attention 187
         promising 94
         cant_loose 63
         new 42",
    );
    let sum =
        |column: usize| found.iter().map(|l| l.split(' ').nth(column).unwrap().parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!((sum(2), sum(3)), (18_532, 891_140_790));
}
