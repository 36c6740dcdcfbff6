//! Single objects, asked for by their ids because their events leave open what they are.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    DAY, now,
    provider::{Fault, Provider},
    till,
};
use crate::support::{Serving, Till, wait};

fn customer(id: &str, balance: i64) -> Value {
    json!({"id": id, "object": "customer", "created": now() - DAY, "livemode": false, "balance": balance})
}

fn charge(id: &str) -> Value {
    json!({"id": id, "object": "charge", "created": now() - 600, "livemode": false, "amount": 1200,
        "currency": "eur", "status": "succeeded", "paid": true, "captured": true, "amount_captured": 1200})
}

fn event(n: i64, kind: &str, object: Value) -> Value {
    json!({"id": format!("evt_{n}"), "object": "event", "type": kind, "created": now() - 600, "livemode": false,
        "data": {"object": object}})
}

fn thin(n: i64, twin: Option<&str>, charge: &str) -> Value {
    json!({"id": format!("evt_thin_{n}"), "object": "v2.core.event", "type": "v1.charge.succeeded", "livemode": false,
        "created": chrono::DateTime::from_timestamp(now() - 600, 0).unwrap().to_rfc3339(), "snapshot_event": twin,
        "related_object": {"id": charge, "type": "charge", "url": format!("/v1/charges/{charge}")}})
}

/// Of two of three customers nobody knows which of two changes in one second was the last; of three charges thin events tell,
/// of one of them its twin too. Of both kinds Stripe has one that is open, and not the other.
fn left_open(provider: &Provider) -> Vec<Value> {
    let mut events = vec![event(0, "customer.updated", customer("cus_sure", 1))];
    for (n, id) in [(1, "cus_open"), (3, "cus_gone")] {
        events.extend([5, 7].map(|balance| event(n + balance / 7, "customer.updated", customer(id, balance))));
    }
    events.extend([thin(1, None, "ch_thin"), thin(2, Some("evt_9"), "ch_twin"), thin(3, None, "ch_gone")]);
    events.push(event(9, "charge.succeeded", charge("ch_twin")));
    provider.book().objects.extend([
        ("/v1/customers/cus_open".to_owned(), customer("cus_open", 5)),
        ("/v1/charges/ch_thin".to_owned(), charge("ch_thin")),
    ]);
    events
}

/// Whether the doctor says that something is open. It asks the API itself, for as little as can be asked.
fn is_open(till: &Till) -> bool {
    let findings = till.json(&["doctor"])["findings"].clone();
    findings.as_array().unwrap().iter().any(|finding| finding["subject"] == "open objects")
}

#[test]
fn what_events_leave_open_is_asked_for_once() {
    let provider = Provider::start();
    let till = till(&provider);
    let lines: String = left_open(&provider).iter().map(|event| format!("{event}\n")).collect();
    let file = till.write("open.ndjson", lines);
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let ambiguous = "SELECT customer_id FROM core.customers WHERE order_ambiguous ORDER BY customer_id";
    assert_eq!(till.sql(ambiguous).len(), 2);
    assert!(is_open(&till));

    let asked = |end: &str| provider.book().asked.iter().filter(|a| a.path.ends_with(end)).count();
    let counts = || ["/cus_open", "/cus_gone", "/ch_thin", "/ch_gone", "/ch_twin", "/cus_sure"].map(asked);
    let serving = Serving::start(&till);
    wait("the poll is over", Duration::from_secs(30), || asked("/balance_transactions") > 0);
    provider.fail([Fault::Fails, Fault::TooMany { retry_after: None }]);
    wait("all was asked for", Duration::from_secs(60), || counts().iter().sum::<usize>() >= 6);
    wait("all is answered", Duration::from_secs(60), || !is_open(&till));
    wait("the answers are in the tables", Duration::from_secs(30), || {
        till.sql(ambiguous).len() == 1 && till.sql("SELECT charge_id FROM core.charges").len() == 2
    });
    assert_eq!(till.sql(ambiguous)[0]["customer_id"], "cus_gone", "nobody knows more of it");
    let balances = till.sql("SELECT customer_id, balance FROM core.customers ORDER BY customer_id");
    assert_eq!(balances[1], json!({"customer_id": "cus_open", "balance": 5}));
    let once = counts();
    assert_eq!(once.iter().sum::<usize>(), 4 + 2, "each once, and again after each of the failures: {once:?}");
    assert_eq!(once[4..], [0, 0], "of these all is known");
    drop(serving);

    // Folded again, what was met is not asked for again; what nobody knew is, once more.
    till.json(&["rebuild"]);
    let serving = Serving::start(&till);
    wait("the rest was asked for", Duration::from_secs(60), || !is_open(&till));
    let [open, gone, thin, gone_too, ..] = once;
    assert_eq!(counts(), [open, gone + 1, thin, gone_too + 1, 0, 0]);
    drop(serving);
}

/// Of connected accounts it is asked in their name, since the platform's own account has no such objects. One that the key is not
/// let into stands in the way of none.
#[test]
fn objects_of_connected_accounts_are_asked_for_in_their_name() {
    let provider = Provider::start();
    let till = till(&provider);
    let of = |account: &str, mut event: Value| {
        event["account"] = json!(account);
        event
    };
    let events = [("acct_no", "cus_a"), ("acct_1", "cus_b")].into_iter().enumerate().flat_map(|(n, (account, id))| {
        [5, 7].map(|balance| of(account, event(2 * n as i64 + balance / 7, "customer.updated", customer(id, balance))))
    });
    let file = till.write("connected.ndjson", events.map(|event| format!("{event}\n")).collect::<String>());
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    provider.book().objects.insert("acct_1/v1/customers/cus_b".to_owned(), customer("cus_b", 5));
    provider.book().refused = Some(("acct_no", StatusCode::FORBIDDEN));
    let serving = Serving::start(&till);
    let open = "SELECT customer_id FROM core.customers WHERE order_ambiguous";
    wait("the one is told of", Duration::from_secs(60), || till.sql(open) == [json!({"customer_id": "cus_a"})]);
    let told = till.sql("SELECT source_account, balance FROM core.customers WHERE customer_id = 'cus_b'");
    assert_eq!(told, [json!({"source_account": "acct_1", "balance": 5})]);
    let asked = provider.asked("/v1/customers/cus_b");
    assert!(!asked.is_empty() && asked.iter().all(|a| a.account.as_deref() == Some("acct_1")), "{asked:?}");
    wait("the other is a finding", Duration::from_secs(30), || {
        finding(&till).is_some_and(|found| found["found"].to_string().contains("acct_no"))
    });
    drop(serving);
}

/// A subscription's event names its discount; Stripe shows that within the subscription, and its coupon by its id.
#[test]
fn what_a_discount_takes_off_is_asked_for() {
    let provider = Provider::start();
    let till = till(&provider);
    let subscription = |discounts: Value| {
        json!({"id": "sub_1", "object": "subscription", "created": now() - DAY, "livemode": false, "customer": "cus_1",
            "status": "active", "currency": "eur", "discounts": discounts, "items": {"data": [{"id": "si_1", "quantity": 1,
                "price": {"id": "price_1", "currency": "eur", "unit_amount": 2000, "recurring": {"interval": "month"}}}]}})
    };
    let whole = json!([{"id": "di_1", "object": "discount", "customer": "cus_1", "subscription": "sub_1", "end": null,
        "start": now() - DAY, "source": {"type": "coupon", "coupon": "QUARTER"}}]);
    let coupon = json!({"id": "QUARTER", "object": "coupon", "created": now() - DAY, "livemode": false, "percent_off": 25,
        "duration": "forever"});
    provider.book().objects.extend([
        ("/v1/subscriptions/sub_1".to_owned(), subscription(whole)),
        ("/v1/coupons/QUARTER".to_owned(), coupon),
    ]);
    let event = event(1, "customer.subscription.updated", subscription(json!(["di_1"])));
    let file = till.write("named.ndjson", format!("{event}\n"));
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let brings = "SELECT mrr_micros, mrr_is_known FROM core.subscription_intervals";
    assert_eq!(till.sql(brings), [json!({"mrr_micros": 20_000_000, "mrr_is_known": false})]);
    let serving = Serving::start(&till);
    let known = [json!({"mrr_micros": 15_000_000, "mrr_is_known": true})];
    wait("its share is known", Duration::from_secs(60), || till.sql(brings) == known);
    let asked = provider.asked("/v1/subscriptions/sub_1");
    assert!(asked.len() == 1 && asked[0].query["expand[]"].contains("discounts"), "its discounts are to be shown");
    let moved = till.sql("SELECT kind, amount_micros FROM core.mrr_movements");
    assert_eq!(moved, [json!({"kind": "new", "amount_micros": 15_000_000})], "and was so from the first day");
    wait("nothing is open", Duration::from_secs(60), || !is_open(&till));
    drop(serving);
}

/// A payout's event says how much goes to the bank; which payments that is made of, only a list of them.
#[test]
fn what_a_payout_pays_out_is_asked_for() {
    let movement = |id: &str, source: &str| {
        json!({"id": id, "object": "balance_transaction", "created": now() - DAY, "amount": 900, "fee": 56, "net": 844,
            "currency": "eur", "type": "charge", "source": source, "status": "available"})
    };
    let provider =
        Provider::start().with("/v1/balance_transactions", [movement("txn_1", "ch_1"), movement("txn_2", "ch_2")]);
    provider.book().page_limit = 1;
    let till = till(&provider);
    let payout = json!({"id": "po_1", "object": "payout", "created": now() - DAY, "amount": 1688, "currency": "eur",
        "livemode": false, "status": "paid", "automatic": true, "reconciliation_status": "completed"});
    let file = till.write("payout.ndjson", format!("{}\n", event(1, "payout.reconciliation_completed", payout)));
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    assert!(is_open(&till));
    let serving = Serving::start(&till);
    let paid_out =
        "SELECT balance_transaction_id, payout_id FROM core.balance_transactions ORDER BY balance_transaction_id";
    let known = ["txn_1", "txn_2"].map(|id| json!({"balance_transaction_id": id, "payout_id": "po_1"}));
    wait("it is known", Duration::from_secs(60), || till.sql(paid_out) == known);
    wait("nothing is open", Duration::from_secs(60), || !is_open(&till));
    let pages = || provider.asked("/v1/balance_transactions").iter().filter(|a| a.query.contains_key("payout")).count();
    assert_eq!(pages(), 2, "each page once");
    drop(serving);
    // Folded again, and told again of the payout, it is known.
    till.json(&["rebuild"]);
    let again = json!({"id": "po_1", "object": "payout", "created": now() - DAY, "amount": 1688, "currency": "eur",
        "livemode": false, "status": "paid", "automatic": true, "reconciliation_status": "completed", "trace_id": "t"});
    let unknown = json!({"id": "po_2", "object": "payout", "created": now() - DAY, "amount": 5, "currency": "eur",
        "livemode": false, "status": "paid", "automatic": true, "reconciliation_status": "completed"});
    provider.book().no_payouts = vec!["po_2".to_owned()];
    let lines =
        [event(2, "payout.updated", again), event(3, "payout.paid", unknown)].map(|e| format!("{e}\n")).concat();
    let file = till.write("again.ndjson", lines);
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let serving = Serving::start(&till);
    wait("the other is asked for, of which Stripe knows nothing", Duration::from_secs(60), || pages() > 2);
    wait("nothing is open", Duration::from_secs(60), || !is_open(&till));
    assert_eq!(pages(), 3);
    drop(serving);
}

/// What the doctor says of open objects, if there are any.
fn finding(till: &Till) -> Option<Value> {
    let printed: Value = serde_json::from_slice(&till.try_run(&["--json", "--quiet", "doctor"]).stdout).unwrap();
    printed["findings"].as_array().unwrap().iter().find(|finding| finding["subject"] == "open objects").cloned()
}

/// A shop whose charges are refused so, once Stripe has told all else.
fn with_refused_charges(provider: &Provider, status: StatusCode) -> (Till, Serving) {
    let till = till(provider);
    let lines: String = left_open(provider).iter().map(|event| format!("{event}\n")).collect();
    provider.book().refused = Some(("/v1/charges/", status));
    let file = till.write("open.ndjson", lines);
    till.json(&["ingest", "stripe", file.to_str().unwrap()]);
    let serving = Serving::start(&till);
    let ambiguous = || till.sql("SELECT customer_id FROM core.customers WHERE order_ambiguous").len();
    wait("customers are told of", Duration::from_secs(60), || ambiguous() == 1);
    wait("the failure is a finding", Duration::from_secs(30), || finding(&till).is_some_and(|f| f["ok"] == false));
    (till, serving)
}

#[test]
fn what_the_key_may_not_read_holds_nothing_up_and_is_a_finding() {
    let provider = Provider::start();
    let (till, serving) = with_refused_charges(&provider, StatusCode::FORBIDDEN);
    let found = finding(&till).unwrap()["found"].to_string();
    assert!(found.contains("2 in test mode") && found.contains("charge ch_") && found.contains("api_key"), "{found}");
    provider.book().refused = None;
    wait("what may be read now is asked for", Duration::from_secs(90), || finding(&till).is_none());
    drop(serving);
}

#[test]
fn what_is_put_off_stays_a_finding_and_is_not_asked_for_meanwhile() {
    let provider = Provider::start();
    // No 404 of Stripe's own: it says not of what.
    let (till, serving) = with_refused_charges(&provider, StatusCode::NOT_FOUND);
    let asked = || ["/v1/charges/ch_thin", "/v1/charges/ch_gone"].map(|path| provider.asked(path).len());
    wait("both were asked for", Duration::from_secs(30), || asked() == [1, 1]);
    // Longer than between two looks.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(finding(&till).unwrap()["ok"], false);
    assert_eq!(asked(), [1, 1]);
    drop(serving);
}
