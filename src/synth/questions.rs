//! The totals of the truth file: each with the SQL that a pipeline answers it with, over the tables that users see.
//!
//! Rows are sorted by their key columns, nulls first. A total is asked only where the sources it needs were generated.

use serde_json::{Value, json};

use super::{
    Shop,
    truth::{Cell, Truth},
};
use crate::base::Source;

struct Question {
    name: &'static str,
    needs: &'static [Source],
    sql: &'static str,
    columns: &'static [&'static str],
    /// How many of the columns are keys; the others are sums.
    keys: usize,
}

const STRIPE: &[Source] = &[Source::Stripe];
const KLAVIYO: &[Source] = &[Source::Klaviyo];
const SHOP: &[Source] = &[Source::Storefront];

const QUESTIONS: &[Question] = &[
    Question {
        name: "events_by_source",
        needs: &[],
        sql: "SELECT source, count(*) AS events FROM raw.events WHERE source IN ('klaviyo', 'storefront', 'stripe') GROUP BY source ORDER BY source",
        columns: &["source", "events"],
        keys: 1,
    },
    Question {
        name: "events",
        needs: &[],
        sql: "SELECT source, type, count(*) AS events FROM raw.events WHERE source IN ('klaviyo', 'storefront', 'stripe') GROUP BY source, type ORDER BY source, type",
        columns: &["source", "type", "events"],
        keys: 2,
    },
    Question {
        name: "intents",
        needs: STRIPE,
        sql: "SELECT livemode, currency, status, count(*) AS intents, sum(amount) AS amount, sum(amount_received) AS amount_received FROM core.payment_intents GROUP BY livemode, currency, status ORDER BY livemode, currency, status",
        columns: &["livemode", "currency", "status", "intents", "amount", "amount_received"],
        keys: 3,
    },
    Question {
        name: "attempts",
        needs: STRIPE,
        sql: "SELECT livemode, outcome, count(*) AS attempts FROM core.payment_attempts GROUP BY livemode, outcome ORDER BY livemode, outcome",
        columns: &["livemode", "outcome", "attempts"],
        keys: 2,
    },
    Question {
        name: "declines",
        needs: STRIPE,
        sql: "SELECT livemode, category, decline_code, count(*) AS attempts FROM core.payment_attempts WHERE outcome = 'issuer_declined' GROUP BY livemode, category, decline_code ORDER BY livemode, category, decline_code",
        columns: &["livemode", "category", "decline_code", "attempts"],
        keys: 3,
    },
    Question {
        name: "attempts_per_intent",
        needs: STRIPE,
        sql: "SELECT livemode, attempts, count(*) AS intents FROM core.payment_intents GROUP BY livemode, attempts ORDER BY livemode, attempts",
        columns: &["livemode", "attempts", "intents"],
        keys: 2,
    },
    Question {
        name: "attempt_numbers",
        needs: STRIPE,
        sql: "SELECT livemode, attempt_no, count(*) AS attempts FROM core.payment_attempts WHERE attempt_no IS NOT NULL GROUP BY livemode, attempt_no ORDER BY livemode, attempt_no",
        columns: &["livemode", "attempt_no", "attempts"],
        keys: 2,
    },
    Question {
        name: "technical",
        needs: STRIPE,
        sql: "SELECT livemode, count(*) AS attempts FROM core.payment_attempts WHERE is_technical GROUP BY livemode ORDER BY livemode",
        columns: &["livemode", "attempts"],
        keys: 1,
    },
    Question {
        name: "risk_levels",
        needs: STRIPE,
        sql: "SELECT livemode, risk_level, count(*) AS attempts FROM core.payment_attempts WHERE outcome <> 'auth_failed' GROUP BY livemode, risk_level ORDER BY livemode, risk_level",
        columns: &["livemode", "risk_level", "attempts"],
        keys: 2,
    },
    Question {
        name: "three_ds",
        needs: STRIPE,
        sql: "SELECT livemode, three_ds_result, three_ds_flow, count(*) AS attempts FROM core.payment_attempts WHERE outcome <> 'auth_failed' AND three_ds_result IS NOT NULL GROUP BY livemode, three_ds_result, three_ds_flow ORDER BY livemode, three_ds_result, three_ds_flow NULLS FIRST",
        columns: &["livemode", "three_ds_result", "three_ds_flow", "attempts"],
        keys: 3,
    },
    Question {
        name: "methods",
        needs: STRIPE,
        sql: "SELECT livemode, payment_method_type, wallet, count(*) AS attempts FROM core.payment_attempts WHERE outcome = 'authorised' GROUP BY livemode, payment_method_type, wallet ORDER BY livemode, payment_method_type, wallet NULLS FIRST",
        columns: &["livemode", "payment_method_type", "wallet", "attempts"],
        keys: 3,
    },
    Question {
        name: "charges",
        needs: STRIPE,
        sql: "SELECT livemode, currency, status, count(*) AS charges, sum(amount) AS amount, sum(amount_captured) AS amount_captured FROM core.charges GROUP BY livemode, currency, status ORDER BY livemode, currency, status",
        columns: &["livemode", "currency", "status", "charges", "amount", "amount_captured"],
        keys: 3,
    },
    Question {
        name: "charges_disputed",
        needs: STRIPE,
        sql: "SELECT livemode, count(*) AS charges FROM core.charges WHERE disputed GROUP BY livemode ORDER BY livemode",
        columns: &["livemode", "charges"],
        keys: 1,
    },
    Question {
        name: "refunds",
        needs: STRIPE,
        sql: "SELECT livemode, currency, status, count(*) AS refunds, sum(amount) AS amount FROM core.refunds GROUP BY livemode, currency, status ORDER BY livemode, currency, status",
        columns: &["livemode", "currency", "status", "refunds", "amount"],
        keys: 3,
    },
    Question {
        name: "checkouts",
        needs: STRIPE,
        sql: "SELECT livemode, status, payment_status, count(*) AS checkouts FROM core.checkouts GROUP BY livemode, status, payment_status ORDER BY livemode, status, payment_status",
        columns: &["livemode", "status", "payment_status", "checkouts"],
        keys: 3,
    },
    Question {
        name: "customers",
        needs: STRIPE,
        sql: "SELECT livemode, count(*) AS customers, count(deleted_at) AS deleted FROM core.customers GROUP BY livemode ORDER BY livemode",
        columns: &["livemode", "customers", "deleted"],
        keys: 1,
    },
    Question {
        name: "charges_settled",
        needs: STRIPE,
        sql: "SELECT livemode, currency, count(*) AS charges, sum(fee) AS fee, sum(net) AS net FROM core.charges WHERE fee IS NOT NULL GROUP BY livemode, currency ORDER BY livemode, currency",
        columns: &["livemode", "currency", "charges", "fee", "net"],
        keys: 2,
    },
    Question {
        name: "off_session",
        needs: STRIPE,
        sql: "SELECT livemode, is_off_session, count(*) AS attempts FROM core.payment_attempts WHERE is_off_session IS NOT NULL GROUP BY livemode, is_off_session ORDER BY livemode, is_off_session",
        columns: &["livemode", "is_off_session", "attempts"],
        keys: 2,
    },
    Question {
        name: "disputes",
        needs: STRIPE,
        sql: "SELECT livemode, currency, status, count(*) AS disputes, sum(amount) AS amount, sum(withdrawn - reinstated) AS withdrawn FROM core.disputes GROUP BY livemode, currency, status ORDER BY livemode, currency, status",
        columns: &["livemode", "currency", "status", "disputes", "amount", "withdrawn"],
        keys: 3,
    },
    Question {
        name: "early_fraud_warnings",
        needs: STRIPE,
        sql: "SELECT actionable, count(*) AS warnings FROM core.early_fraud_warnings GROUP BY actionable ORDER BY actionable",
        columns: &["actionable", "warnings"],
        keys: 1,
    },
    Question {
        name: "reviews",
        needs: STRIPE,
        sql: "SELECT livemode, open, count(*) AS reviews FROM core.reviews GROUP BY livemode, open ORDER BY livemode, open",
        columns: &["livemode", "open", "reviews"],
        keys: 2,
    },
    Question {
        name: "balance_transactions",
        needs: STRIPE,
        sql: "SELECT livemode, currency, type, count(*) AS transactions, sum(amount) AS amount, sum(fee) AS fee FROM core.balance_transactions GROUP BY livemode, currency, type ORDER BY livemode, currency, type",
        columns: &["livemode", "currency", "type", "transactions", "amount", "fee"],
        keys: 3,
    },
    Question {
        name: "fee_details",
        needs: STRIPE,
        sql: "SELECT livemode, currency, count(*) AS fees, sum(amount) AS amount FROM core.fee_details GROUP BY livemode, currency ORDER BY livemode, currency",
        columns: &["livemode", "currency", "fees", "amount"],
        keys: 2,
    },
    Question {
        name: "payouts",
        needs: STRIPE,
        sql: "SELECT currency, status, count(*) AS payouts, sum(amount) AS amount FROM core.payouts GROUP BY currency, status ORDER BY currency, status",
        columns: &["currency", "status", "payouts", "amount"],
        keys: 2,
    },
    Question {
        name: "payout_parts",
        needs: STRIPE,
        sql: "SELECT currency, type, count(*) AS transactions, sum(amount) AS amount, sum(fee) AS fee FROM core.balance_transactions WHERE payout_id IS NOT NULL AND type NOT LIKE 'payout%' GROUP BY currency, type ORDER BY currency, type",
        columns: &["currency", "type", "transactions", "amount", "fee"],
        keys: 2,
    },
    Question {
        name: "settled_rates",
        needs: STRIPE,
        sql: "SELECT base, currency, count(*) AS days, sum(CAST(round(rate * 1000) AS BIGINT)) AS thousandths FROM core.settled_rates GROUP BY base, currency ORDER BY base, currency",
        columns: &["base", "currency", "days", "thousandths"],
        keys: 2,
    },
    Question {
        name: "subscriptions",
        needs: STRIPE,
        sql: "SELECT currency, status, count(*) AS subscriptions, sum(mrr_micros) AS mrr_micros FROM core.subscriptions GROUP BY currency, status ORDER BY currency, status",
        columns: &["currency", "status", "subscriptions", "mrr_micros"],
        keys: 2,
    },
    Question {
        name: "mrr_movements",
        needs: STRIPE,
        sql: "SELECT currency, kind, count(*) AS movements, sum(amount_micros) AS amount_micros FROM core.mrr_movements GROUP BY currency, kind ORDER BY currency, kind",
        columns: &["currency", "kind", "movements", "amount_micros"],
        keys: 2,
    },
    Question {
        name: "subscription_intervals",
        needs: STRIPE,
        sql: "SELECT status, count(*) AS intervals FROM core.subscription_intervals GROUP BY status ORDER BY status",
        columns: &["status", "intervals"],
        keys: 1,
    },
    Question {
        name: "invoice_taxes",
        needs: STRIPE,
        sql: "SELECT currency, count(*) AS taxes, sum(tax) AS tax, sum(taxable_amount) AS taxable_amount FROM core.invoice_taxes GROUP BY currency ORDER BY currency",
        columns: &["currency", "taxes", "tax", "taxable_amount"],
        keys: 1,
    },
    Question {
        name: "invoices",
        needs: STRIPE,
        sql: "SELECT currency, status, count(*) AS invoices, sum(total) AS total, sum(amount_paid) AS amount_paid FROM core.invoices GROUP BY currency, status ORDER BY currency, status",
        columns: &["currency", "status", "invoices", "total", "amount_paid"],
        keys: 2,
    },
    Question {
        name: "invoices_recovered",
        needs: STRIPE,
        sql: "SELECT currency, count(*) AS invoices FROM core.invoices WHERE recovered_at IS NOT NULL GROUP BY currency ORDER BY currency",
        columns: &["currency", "invoices"],
        keys: 1,
    },
    Question {
        name: "invoice_payments",
        needs: STRIPE,
        sql: "SELECT currency, count(*) AS payments, sum(amount_paid) AS amount_paid FROM core.invoice_payments GROUP BY currency ORDER BY currency",
        columns: &["currency", "payments", "amount_paid"],
        keys: 1,
    },
    Question {
        name: "orders",
        needs: STRIPE,
        sql: "SELECT currency, count(*) AS orders, sum(amount) AS amount FROM core.orders WHERE livemode AND source = 'stripe' GROUP BY currency ORDER BY currency",
        columns: &["currency", "orders", "amount"],
        keys: 1,
    },
    Question {
        name: "page_views",
        needs: SHOP,
        sql: "SELECT count(*) AS views FROM core.page_views",
        columns: &["views"],
        keys: 0,
    },
    Question {
        name: "product_views",
        needs: SHOP,
        sql: "SELECT count(*) AS views FROM core.product_views",
        columns: &["views"],
        keys: 0,
    },
    Question {
        name: "cart_events",
        needs: SHOP,
        sql: "SELECT kind, count(*) AS events FROM core.cart_events GROUP BY kind ORDER BY kind",
        columns: &["kind", "events"],
        keys: 1,
    },
    Question {
        name: "sessions",
        needs: SHOP,
        sql: "SELECT count(*) AS sessions FROM core.sessions",
        columns: &["sessions"],
        keys: 0,
    },
    Question {
        name: "message_events",
        needs: KLAVIYO,
        sql: "SELECT channel, kind, count(*) AS events FROM core.message_events GROUP BY channel, kind ORDER BY channel, kind",
        columns: &["channel", "kind", "events"],
        keys: 2,
    },
    Question {
        name: "metrics",
        needs: KLAVIYO,
        sql: "SELECT metric, sum(events) AS events FROM core.metrics GROUP BY metric ORDER BY metric",
        columns: &["metric", "events"],
        keys: 1,
    },
    Question {
        name: "consents",
        needs: KLAVIYO,
        sql: "WITH latest AS (SELECT channel, state, row_number() OVER (PARTITION BY person_id, channel ORDER BY at DESC, state) AS n FROM core.consents WHERE purpose = 'marketing') SELECT channel, state, count(*) AS people FROM latest WHERE n = 1 GROUP BY channel, state ORDER BY channel, state",
        columns: &["channel", "state", "people"],
        keys: 2,
    },
    Question {
        name: "profiles",
        needs: KLAVIYO,
        sql: "SELECT email_consent, sms_consent, count(*) AS profiles FROM core.profiles GROUP BY email_consent, sms_consent ORDER BY email_consent, sms_consent",
        columns: &["email_consent", "sms_consent", "profiles"],
        keys: 2,
    },
    Question {
        name: "people",
        needs: &[],
        sql: "SELECT livemode, count(*) AS people FROM core.people GROUP BY livemode ORDER BY livemode",
        columns: &["livemode", "people"],
        keys: 1,
    },
    Question {
        name: "unmerged",
        needs: &[],
        sql: "SELECT (SELECT count(*) FROM core.identities) - (SELECT count(*) FROM core.people) - count(*) AS unmerged FROM core.person_merges",
        columns: &["unmerged"],
        keys: 0,
    },
    Question {
        name: "shared_phones",
        needs: &[],
        sql: "SELECT livemode, people, count(*) AS phones FROM core.phones WHERE people > 1 GROUP BY livemode, people ORDER BY livemode, people",
        columns: &["livemode", "people", "phones"],
        keys: 2,
    },
    Question {
        name: "identities",
        needs: &[],
        sql: "SELECT livemode, kind, count(*) AS identities FROM core.identities WHERE kind <> 'order_ref' GROUP BY livemode, kind ORDER BY livemode, kind",
        columns: &["livemode", "kind", "identities"],
        keys: 2,
    },
];

/// How many people came how far, by the tables they appear in; a line a step.
fn reached_sql(shop: &Shop) -> String {
    let from_shop = [
        ("1 page", "SELECT person_id FROM core.page_views WHERE livemode"),
        ("2 product", "SELECT person_id FROM core.product_views WHERE livemode"),
        ("3 cart", "SELECT person_id FROM core.cart_events WHERE livemode AND kind = 'added'"),
        ("4 checkout", "SELECT person_id FROM core.cart_events WHERE livemode AND kind = 'checkout_started'"),
    ];
    let from_stripe = [
        ("5 attempted", "SELECT person_id FROM core.payment_attempts WHERE livemode"),
        ("6 paid", "SELECT person_id FROM core.payment_attempts WHERE livemode AND outcome = 'authorised'"),
    ];
    let steps = from_shop.iter().filter(|_| shop.has(Source::Storefront));
    let steps = steps.chain(from_stripe.iter().filter(|_| shop.has(Source::Stripe)));
    let selects: Vec<String> = steps
        .map(|(step, people)| format!("SELECT '{step}' AS step, count(DISTINCT person_id) AS people FROM ({people})"))
        .collect();
    format!("SELECT step, people FROM ({}) WHERE people > 0 ORDER BY step", selects.join(" UNION ALL "))
}

const RATES: &str = "SELECT count(*) AS attempts, count(*) FILTER (WHERE outcome = 'authorised') AS authorised, count(*) FILTER (WHERE outcome NOT IN ('auth_failed', 'blocked')) AS seen_by_network, count(*) FILTER (WHERE is_technical) AS technical FROM core.payment_attempts WHERE livemode AND outcome <> 'invalid'";

const RATE_BY_INTENT: &str = "SELECT count(*) FILTER (WHERE status IN ('succeeded', 'requires_capture')) AS won, count(*) AS tried FROM core.payment_intents WHERE livemode AND attempts > 0";

const RATE_DEDUPLICATED: &str = "WITH tries AS (SELECT coalesce(customer_id, card_fingerprint, attempt_id) AS who, amount, currency, created_at, attempt_id, outcome FROM core.payment_attempts WHERE livemode AND outcome <> 'invalid' AND payment_method_type IS DISTINCT FROM 'sepa_debit'), gaps AS (SELECT *, lag(created_at) OVER (PARTITION BY who, amount, currency ORDER BY created_at, attempt_id) AS before FROM tries), runs AS (SELECT *, sum(CASE WHEN before IS NULL OR created_at > before + INTERVAL '24' HOUR THEN 1 ELSE 0 END) OVER (PARTITION BY who, amount, currency ORDER BY created_at, attempt_id) AS run FROM gaps), lasts AS (SELECT outcome, row_number() OVER (PARTITION BY who, amount, currency, run ORDER BY created_at DESC, attempt_id DESC) AS n FROM runs) SELECT count(*) AS groups, count(*) FILTER (WHERE outcome = 'authorised') AS won FROM lasts WHERE n = 1";

const RECOVERABLE: &str = "WITH tries AS (SELECT payment_intent_id, created_at, outcome, category, row_number() OVER (PARTITION BY payment_intent_id ORDER BY created_at DESC, attempt_id DESC) AS n FROM core.payment_attempts WHERE livemode) SELECT i.payment_intent_id FROM core.payment_intents i JOIN tries t ON t.payment_intent_id = i.payment_intent_id AND t.n = 1 WHERE i.livemode AND i.status = 'requires_payment_method' AND (t.outcome = 'auth_failed' OR (t.outcome = 'issuer_declined' AND t.category IN ('funds_or_limit', 'card_data', 'authentication', 'lpm_limit', 'lpm_account'))) AND NOT EXISTS (SELECT 1 FROM core.payment_intents p WHERE p.livemode AND p.status = 'succeeded' AND p.person_id = i.person_id AND p.succeeded_at > t.created_at) ORDER BY i.payment_intent_id";

impl Truth {
    /// The truth file's document. People must have been counted.
    pub fn document(&self, shop: &Shop) -> Value {
        let mut totals: Vec<Value> = QUESTIONS
            .iter()
            .filter(|q| q.needs.iter().all(|source| shop.has(*source)))
            .map(|q| total(q.name, q.sql, q.columns, self.rows(q)))
            .collect();
        totals.push(total("reached", &reached_sql(shop), &["step", "people"], self.keyed("reached", 1, 1)));
        if shop.has(Source::Stripe) {
            totals.extend(self.rates());
            let ids = self.recoverable().into_iter().map(|id| json!([id])).collect();
            totals.push(total("recoverable_payments", RECOVERABLE, &["payment_intent_id"], ids));
        }
        if shop.has(Source::Storefront) {
            let carts = self.abandoned_carts(shop.end.0).into_iter().map(|id| json!([id])).collect();
            totals.push(total("abandoned_carts", &abandoned_sql(shop), &["cart_id"], carts));
        }
        json!({
            "seed": shop.seed,
            "customers": shop.customers,
            "days": shop.days,
            "end": shop.end.to_string(),
            "sources": shop.sources.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
            "lines": self.lines,
            "duplicates": self.duplicates,
            "totals": totals,
        })
    }

    fn rows(&self, q: &Question) -> Vec<Value> {
        self.keyed(q.name, q.keys, q.columns.len() - q.keys)
    }

    fn keyed(&self, name: &str, keys: usize, values: usize) -> Vec<Value> {
        let tally = self.tally(name);
        // A bare count is one row, be it nought.
        if keys == 0 && tally.is_empty() {
            return vec![json!([0])];
        }
        tally
            .iter()
            .map(|(key, sums)| {
                let keys = key.iter().take(keys).map(|cell| cell.json());
                keys.chain(sums.iter().take(values).map(|n| json!(n))).collect()
            })
            .collect()
    }

    fn rates(&self) -> [Value; 3] {
        let attempts = |outcome| self.sum("attempts", &[true.into(), outcome]);
        let valid: i64 = ["authorised", "issuer_declined", "blocked", "auth_failed", "pending"]
            .into_iter()
            .map(|o| attempts(Cell::Text(o)))
            .sum();
        let seen = valid - attempts("auth_failed".into()) - attempts("blocked".into());
        let technical = self.sum("technical_of_tried", &[true.into()]);
        let row = json!([valid, attempts("authorised".into()), seen, technical]);
        let tried: i64 = self
            .tally("attempts_per_intent")
            .iter()
            .filter(|(key, _)| key[0] == Cell::Bool(true) && key[1] > Cell::Int(0))
            .map(|(_, sums)| sums[0])
            .sum();
        let groups = self.tally("groups").values().next().copied().unwrap_or_default();
        [
            total("rates", RATES, &["attempts", "authorised", "seen_by_network", "technical"], vec![row]),
            total(
                "rate_by_intent",
                RATE_BY_INTENT,
                &["won", "tried"],
                vec![json!([self.sum("intents_won", &[]), tried])],
            ),
            total("rate_deduplicated", RATE_DEDUPLICATED, &["groups", "won"], vec![json!([groups[0], groups[1]])]),
        ]
    }

    fn sum(&self, name: &str, keys: &[Cell]) -> i64 {
        self.tally(name).iter().filter(|(key, _)| key.starts_with(keys)).map(|(_, sums)| sums[0]).sum()
    }
}

impl Cell {
    fn json(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Bool(yes) => yes.into(),
            Cell::Int(number) => number.into(),
            Cell::Text(text) => text.into(),
        }
    }
}

fn abandoned_sql(shop: &Shop) -> String {
    let end = shop.end;
    format!(
        "SELECT cart_id FROM core.cart_events WHERE cart_id IS NOT NULL GROUP BY cart_id HAVING count(*) FILTER (WHERE kind = 'added') > 0 AND count(*) FILTER (WHERE kind = 'ordered') = 0 AND max(occurred_at) <= TIMESTAMP '{end}' - INTERVAL '30' MINUTE AND max(occurred_at) > TIMESTAMP '{end}' - INTERVAL '48' HOUR ORDER BY cart_id"
    )
}

fn total(name: &str, sql: &str, columns: &[&str], rows: Vec<Value>) -> Value {
    json!({"name": name, "sql": sql, "columns": columns, "rows": rows})
}
