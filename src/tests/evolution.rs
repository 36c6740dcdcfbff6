//! A directory that a build with fewer columns wrote: it opens, what is new is null for what is old, and a rebuild fills it.

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::{
    lake::Lake,
    tests::support::{Serving, Till, post, signature, wait},
};

fn charge(id: &str, refunded: bool) -> String {
    json!({
        "id": format!("evt_{id}_{refunded}"), "object": "event", "created": 1_782_000_000 + i64::from(refunded),
        "type": if refunded { "charge.refunded" } else { "charge.succeeded" }, "livemode": true,
        "data": {"object": {"id": format!("ch_{id}"), "object": "charge", "created": 1_782_000_000, "amount": 500,
            "amount_captured": 500, "amount_refunded": if refunded { 500 } else { 0 }, "refunded": refunded,
            "currency": "usd", "status": "succeeded", "paid": true, "captured": true, "customer": "cus_1"}}
    })
    .to_string()
}

fn ingest(till: &Till, name: &str, events: &[String]) {
    let file = till.write(name, events.join("\n"));
    till.run(&["--quiet", "ingest", "stripe", file.to_str().unwrap()]);
}

/// Writes the tables again without some columns, as the build did that did not know them.
fn without(till: &Till, narrowed: &[(&str, &[&str])]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lake = Lake::open(&till.data().join("lake")).await.unwrap();
        for (table, dropped) in narrowed {
            let rows = SessionContext::new().read_table(lake.snapshot().provider(table).unwrap()).unwrap();
            let rows = rows.drop_columns(dropped).unwrap();
            let batches: Vec<RecordBatch> = rows.collect().await.unwrap();
            lake.replace(table, batches[0].schema(), batches, None).await.unwrap();
        }
    });
}

fn charges(till: &Till) -> Vec<Value> {
    till.sql("SELECT charge_id, amount_refunded, customer_id FROM core.charges ORDER BY 1")
}

#[test]
fn a_table_of_fewer_columns_opens_grows_and_is_filled_by_a_rebuild() {
    let till = Till::new().set("STRIPE__WEBHOOK_SECRETS", "whsec_1");
    let serving = Serving::start(&till);
    for event in [charge("a", false), charge("b", false)] {
        assert_eq!(post(&serving, &event, &signature("whsec_1", &event)), 200);
    }
    wait("both are seen", std::time::Duration::from_secs(5), || till.count("raw.events") == 2);
    drop(serving);
    till.run(&["--quiet", "sql", "SELECT 1"]);
    without(
        &till,
        &[("core.charges", &["amount_refunded", "customer_id"]), ("raw.events", &["load_offset", "account"])],
    );
    let old = |id: &str| json!({"charge_id": format!("ch_{id}"), "amount_refunded": null, "customer_id": null});
    assert_eq!(charges(&till), [old("a"), old("b")]);
    assert_eq!(till.count("raw.events WHERE load_offset IS NULL"), 2);
    let statuses = till.sql("SELECT status, loaded_at FROM ops.webhook_deliveries");
    assert_eq!(statuses, vec![json!({"status": "loaded", "loaded_at": null}); 2]);

    // New events bring the columns: a new object to the base, a change of an old one beside it.
    let serving = Serving::start(&till);
    ingest(&till, "second.ndjson", &[charge("a", true), charge("c", false)]);
    let new = |id: &str, refunded: i64| json!({"charge_id": format!("ch_{id}"), "amount_refunded": refunded, "customer_id": "cus_1"});
    wait("the new rows are seen", std::time::Duration::from_secs(5), || charges(&till).len() == 3);
    assert_eq!(charges(&till), [new("a", 500), old("b"), new("c", 0)]);
    drop(serving);
    assert_eq!(charges(&till), [new("a", 500), old("b"), new("c", 0)]);

    till.run(&["--quiet", "rebuild"]);
    assert_eq!(charges(&till), [new("a", 500), new("b", 0), new("c", 0)]);
    let clean = Till::new();
    ingest(&clean, "all.ndjson", &[charge("a", false), charge("b", false), charge("a", true), charge("c", false)]);
    assert_eq!(charges(&clean), charges(&till));
}
