//! The page that `demo` ends with: what came in, what it says, who would be written to, where to look next.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    activate::{State, TriggerSummary},
    base::{Currency, Micros, Money, money::grouped},
    engine::{Session, SqlError},
    ops::Ingested,
};

#[derive(Debug, Serialize)]
pub struct Page {
    pub as_of: String,
    pub sources: Vec<SourceIn>,
    pub tables: Vec<TableRows>,
    pub orders: Vec<Orders>,
    pub funnel: Vec<Step>,
    pub rates: Vec<Rates>,
    pub failures: Vec<Failure>,
    pub segments: Vec<RfmSegment>,
    pub triggers: Vec<TriggerSummary>,
}

#[derive(Debug, Serialize)]
pub struct SourceIn {
    pub source: String,
    #[serde(flatten)]
    pub ingested: Ingested,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TableRows {
    pub table: String,
    pub rows: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    pub currency: String,
    pub customers: u64,
    pub orders: u64,
    pub amount: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Step {
    pub step_name: String,
    pub people: u64,
    pub of_first: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Rates {
    pub attempts: u64,
    pub raw_success: Option<f64>,
    pub network_authorisation: Option<f64>,
    pub deduplicated_success: Option<f64>,
    pub by_intent_success: Option<f64>,
    pub technical_success: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    pub category: String,
    pub decline_code: String,
    pub attempts: u64,
    pub share: f64,
    pub next_step: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RfmSegment {
    pub segment: String,
    pub customers: u64,
    pub median_recency_days: f64,
    pub median_orders: f64,
}

/// Tables whose rows the page shows, in the order of the way of the data.
const TABLES: [&str; 24] = [
    "raw.events",
    "raw.quarantine",
    "core.page_views",
    "core.product_views",
    "core.cart_events",
    "core.checkouts",
    "core.payment_intents",
    "core.payment_attempts",
    "core.charges",
    "core.refunds",
    "core.disputes",
    "core.early_fraud_warnings",
    "core.reviews",
    "core.balance_transactions",
    "core.payouts",
    "core.customers",
    "core.subscriptions",
    "core.invoices",
    "core.invoice_payments",
    "core.orders",
    "core.message_events",
    "core.consents",
    "core.profiles",
    "core.people",
];

impl Page {
    pub async fn read(
        session: &Session,
        as_of: Micros,
        sources: Vec<SourceIn>,
        triggers: Vec<TriggerSummary>,
    ) -> Result<Page, SqlError> {
        let counts: Vec<String> =
            TABLES.iter().map(|t| format!("SELECT '{t}' AS \"table\", count(*) AS rows FROM {t}")).collect();
        let mut tables: Vec<TableRows> = session.rows(&counts.join(" UNION ALL ")).await?;
        tables.sort_by_key(|t| TABLES.iter().position(|name| *name == t.table));
        Ok(Page {
            as_of: as_of.to_string(),
            sources,
            tables,
            orders: session.rows(ORDERS).await?,
            funnel: session.rows(FUNNEL).await?,
            rates: session.rows(RATES).await?,
            failures: session.rows(FAILURES).await?,
            segments: session.rows(SEGMENTS).await?,
            triggers,
        })
    }

    pub fn text(&self, data: &Path) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let written = self.write(&mut page, data);
        debug_assert!(written.is_ok());
        page
    }

    fn write(&self, page: &mut String, data: &Path) -> std::fmt::Result {
        writeln!(page, "\nEVENTS IN, as of {}", self.as_of)?;
        for SourceIn { source, ingested: i } in &self.sources {
            let (read, new) = (thousands(i.read), thousands(i.accepted));
            let (known, aside) = (thousands(i.duplicates), thousands(i.quarantined));
            writeln!(page, "  {source:<12}{read:>10} read {new:>10} new {known:>8} duplicates {aside:>6} set aside")?;
        }
        writeln!(page, "\nROWS")?;
        for pair in self.tables.chunks(3) {
            let cells: Vec<String> = pair.iter().map(|t| format!("{:<26}{:>9}", t.table, thousands(t.rows))).collect();
            writeln!(page, "  {}", cells.join("   "))?;
        }
        writeln!(page, "\nORDERS, before refunds")?;
        for o in &self.orders {
            let amount = Currency::parse(&o.currency).map(|currency| Money { minor: o.amount, currency }.to_string());
            let amount = amount.unwrap_or_else(|_| format!("{} {}", o.amount, o.currency));
            writeln!(
                page,
                "  {:>10} orders by {:>7} customers {amount:>24}",
                thousands(o.orders),
                thousands(o.customers)
            )?;
        }
        self.write_funnel(page)?;
        self.write_payments(page)?;
        self.write_people(page)?;
        self.write_next(page, data)
    }

    fn write_funnel(&self, page: &mut String) -> std::fmt::Result {
        if self.funnel.is_empty() {
            return Ok(());
        }
        writeln!(page, "\nFUNNEL, people a day summed over all days")?;
        for step in &self.funnel {
            let share = step.of_first;
            writeln!(
                page,
                "  {:<18}{:>10}  {:>5.1}%  {}",
                step.step_name,
                thousands(step.people),
                share * 100.0,
                bar(share)
            )?;
        }
        Ok(())
    }

    fn write_payments(&self, page: &mut String) -> std::fmt::Result {
        for r in self.rates.iter().filter(|r| r.attempts > 0) {
            writeln!(page, "\nPAYMENTS, {} attempts", thousands(r.attempts))?;
            for (name, rate) in [
                ("raw success", r.raw_success),
                ("network authorisation", r.network_authorisation),
                ("success, retries as one", r.deduplicated_success),
                ("success by intent", r.by_intent_success),
                ("technical success", r.technical_success),
            ] {
                if let Some(rate) = rate {
                    writeln!(page, "  {name:<26}{:>6.2}%", rate * 100.0)?;
                }
            }
        }
        if !self.failures.is_empty() {
            writeln!(page, "\nWHY PAYMENTS FAIL, and what to do")?;
        }
        for f in &self.failures {
            let step = f.next_step.as_deref().unwrap_or("look at it in Stripe");
            let (code, kind) = (&f.decline_code, &f.category);
            writeln!(page, "  {:>5.1}%  {:>6}  {code:<28} {kind:<17} {step}", f.share * 100.0, thousands(f.attempts))?;
        }
        Ok(())
    }

    fn write_people(&self, page: &mut String) -> std::fmt::Result {
        let all: u64 = self.segments.iter().map(|s| s.customers).sum();
        if all > 0 {
            writeln!(page, "\nCUSTOMERS by recency, frequency and money, {} in all", thousands(all))?;
        }
        for s in &self.segments {
            let share = s.customers as f64 / all.max(1) as f64;
            writeln!(
                page,
                "  {:<20}{:>8}  {:>5.1}%  last order {:>4.0} days ago, {:>3.0} orders  {}",
                s.segment,
                thousands(s.customers),
                share * 100.0,
                s.median_recency_days,
                s.median_orders,
                bar(share)
            )?;
        }
        writeln!(page, "\nMESSAGES")?;
        for t in &self.triggers {
            let told: u64 = t
                .messages
                .iter()
                .filter(|(state, _)| !matches!(state, State::Skipped | State::Failed))
                .map(|(_, n)| *n as u64)
                .sum();
            let medium = t.medium.as_str();
            let verb = if t.provider == "outbox" { "would be written to (recorded in the outbox)" } else { "messages" };
            writeln!(page, "  {:<16}{:<7}{:>8} {verb}: {}", t.name, medium, thousands(told), describe(t))?;
            let mut reasons: Vec<(&String, &usize)> = t.reasons.iter().collect();
            reasons.sort_by_key(|(why, n)| (std::cmp::Reverse(**n), *why));
            for (why, n) in reasons.into_iter().take(4) {
                writeln!(page, "  {:<23}{:>8} not: {why}", "", thousands(*n as u64))?;
            }
        }
        Ok(())
    }

    fn write_next(&self, page: &mut String, data: &Path) -> std::fmt::Result {
        // As it was called: it need not be on the path.
        let program = std::env::args().next().unwrap_or_else(|| "tillstream".to_owned());
        let tillstream = format!("{program} --data {}", data.display());
        writeln!(page, "\nWHERE TO LOOK NEXT")?;
        writeln!(page, "  {tillstream} sql                          a prompt; \\d lists the tables")?;
        writeln!(page, "  {tillstream} sql \"SELECT * FROM marts.funnel_daily ORDER BY day DESC, step LIMIT 12\"")?;
        writeln!(page, "  {tillstream} segments list                who is in which segment")?;
        writeln!(page, "  {tillstream} triggers preview cart_reminder")?;
        writeln!(page, "  {tillstream} serve                        webhooks and queries on http://127.0.0.1:8700")
    }
}

fn describe(trigger: &TriggerSummary) -> &'static str {
    match trigger.segment.as_str() {
        "cart_abandoned" => "a cart and no payment for half an hour",
        "payment_recoverable" => "the last try failed for a reason they can mend",
        "lapsed_champions" => "bought often, not lately",
        _ => "a segment of yours",
    }
}

fn bar(share: f64) -> String {
    "█".repeat((share.clamp(0.0, 1.0) * 30.0).round() as usize)
}

fn thousands(n: u64) -> String {
    grouped(&n.to_string())
}

const ORDERS: &str = "
SELECT currency, count(DISTINCT person_id) AS customers, count(*) AS orders, sum(amount) AS amount
FROM core.orders GROUP BY currency ORDER BY orders DESC, currency";

const FUNNEL: &str = "
SELECT step_name, sum(people) AS people,
       sum(people) / CAST(first_value(sum(people)) OVER (ORDER BY step) AS DOUBLE) AS of_first
FROM marts.funnel_daily GROUP BY step, step_name HAVING sum(people) > 0 ORDER BY step";

const RATES: &str = "
SELECT sum(attempts) AS attempts,
       sum(raw_success * attempts) / sum(attempts) AS raw_success,
       sum(network_authorisation * attempts) / sum(attempts) AS network_authorisation,
       sum(deduplicated_success * attempts) / sum(attempts) AS deduplicated_success,
       sum(by_intent_success * attempts) / sum(attempts) AS by_intent_success,
       sum(technical_success * attempts) / sum(attempts) AS technical_success
FROM marts.payment_rates_daily HAVING sum(attempts) > 0";

const FAILURES: &str = "
SELECT f.category, f.decline_code, sum(f.attempts) AS attempts,
       sum(f.attempts) / CAST(sum(sum(f.attempts)) OVER () AS DOUBLE) AS share,
       max(d.next_step) AS next_step
FROM marts.failure_reasons_daily AS f
LEFT JOIN ref.decline_codes AS d ON d.code = f.decline_code AND d.category = f.category
GROUP BY f.category, f.decline_code
ORDER BY attempts DESC, f.decline_code
LIMIT 8";

const SEGMENTS: &str = "
SELECT segment, count(*) AS customers, CAST(median(recency_days) AS DOUBLE) AS median_recency_days,
       CAST(median(frequency) AS DOUBLE) AS median_orders
FROM marts.rfm_scores GROUP BY segment ORDER BY customers DESC, segment";

/// The sources' names in the order in which the page shows them.
pub fn by_source(ingested: BTreeMap<String, Ingested>) -> Vec<SourceIn> {
    ingested.into_iter().map(|(source, ingested)| SourceIn { source, ingested }).collect()
}
