//! Views: SQL that a name stands for, planned when a query names it.
//!
//! A view is planned after those that it names, each once a session; a view that names itself, by whatever way round,
//! is reported with the way. The built-in ones are `sql/core/*.sql` and `sql/ops/*.sql`. One that has the name of a table of
//! facts stands before it, and sees it under [`STORED`].

use std::{collections::HashMap, sync::Arc};

use datafusion::datasource::ViewTable;
use futures::future::BoxFuture;

use super::{
    catalog::Catalog,
    error::{SqlError, explain},
    fence,
};

/// The schema under which built-in views see the tables of facts that they stand before, and no others.
pub(super) const STORED: &str = "stored";

/// A table of facts for which readers see `sql/core/with_discounts.sql`.
struct Discounted {
    table: &'static str,
    key: &'static str,
    /// When its row was so.
    at: &'static str,
}

const DISCOUNTED: [Discounted; 2] = [
    Discounted { table: "subscriptions", key: "subscription_id", at: "seen_at" },
    Discounted { table: "subscription_states", key: "subscription_state_id", at: "at" },
];

/// Tables that are computed from others, whatever pipelines there are.
pub(super) fn built_in() -> HashMap<String, String> {
    let discounted = DISCOUNTED.map(|Discounted { table, key, at }| {
        let sql = include_str!("../../sql/core/with_discounts.sql");
        let sql = sql.replace("{table}", table).replace("{key}", key).replace("{at}", at);
        (format!("core.{table}"), sql)
    });
    let others = [
        ("core.customers", include_str!("../../sql/core/customers.sql")),
        ("core.fee_details", include_str!("../../sql/core/fee_details.sql")),
        ("core.invoice_taxes", include_str!("../../sql/core/invoice_taxes.sql")),
        ("core.metrics", include_str!("../../sql/core/metrics.sql")),
        ("core.mrr_movements", include_str!("../../sql/core/mrr_movements.sql")),
        ("core.orders", include_str!("../../sql/core/orders.sql")),
        ("core.people", include_str!("../../sql/core/people.sql")),
        ("core.phones", include_str!("../../sql/core/phones.sql")),
        ("core.settled_rates", include_str!("../../sql/core/settled_rates.sql")),
        ("core.sessions", include_str!("../../sql/core/sessions.sql")),
        ("core.subscription_intervals", include_str!("../../sql/core/subscription_intervals.sql")),
        ("ops.webhook_deliveries", include_str!("../../sql/ops/webhook_deliveries.sql")),
    ]
    .map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    discounted.into_iter().chain(others).collect()
}

impl Catalog {
    /// Plans those of `names` that are views, and what they need.
    pub async fn plan_views(self: &Arc<Self>, names: &[String]) -> Result<(), SqlError> {
        for name in names {
            self.plan_view(name.clone(), Vec::new()).await?;
        }
        Ok(())
    }

    fn plan_view(self: &Arc<Self>, name: String, mut way: Vec<String>) -> BoxFuture<'static, Result<(), SqlError>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let Some(sql) = this.view(&name) else { return Ok(()) };
            if this.planned(&name).is_some() {
                return Ok(());
            }
            if way.contains(&name) {
                way.push(name);
                return Err(SqlError::user(format!("a view that names itself: {}", way.join(" → "))));
            }
            way.push(name.clone());
            let statement = fence::parse(sql).map_err(|e| e.in_view(&name))?;
            for named in fence::references(&statement)? {
                this.plan_view(named, way.clone()).await?;
            }
            let plan = this.state().statement_to_plan(statement).await;
            let plan = plan.map_err(|e| explain(&e, || this.suggestions(0)).in_view(&name))?;
            fence::verify(&plan).map_err(|e| e.in_view(&name))?;
            this.keep(&name, Arc::new(ViewTable::new(plan, Some(sql.to_owned()))));
            Ok(())
        })
    }
}
