//! The sample shop's Stripe events, decoded and folded: totals that must agree with one another.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::loaded;
use crate::{
    base::Source,
    facts::{ObjectKey, Row},
    synth::Shop,
};

static ROWS: LazyLock<BTreeMap<ObjectKey, Row>> = LazyLock::new(|| {
    let shop = Shop { customers: 700, days: 120, seed: 5, sources: vec![Source::Stripe], ..Shop::default() };
    let events: Vec<Value> = shop.generate().map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect();
    loaded(&events)
});

/// Sums of live rows, by currency.
fn sums(of: impl Fn(&Row) -> Option<(String, i64)>) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for (currency, amount) in ROWS.iter().filter(|(key, _)| key.livemode).filter_map(|(_, row)| of(row)) {
        *sums.entry(currency).or_default() += amount;
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

/// What is paid in crowns comes to euros.
fn is_as_it_was_paid((currency, _): &(String, i64)) -> bool {
    !["sek", "eur"].contains(&currency.as_str())
}

/// Gross less refunds, disputes and fees is what moved the balance, to the minor unit.
#[test]
fn the_balance_moved_by_what_charges_refunds_and_disputes_came_to() {
    let moved = sums(|row| match row {
        Row::BalanceTransaction(row) if !row.r#type.as_ref()?.starts_with("payout") => {
            Some((row.currency.into(), row.net)).filter(is_as_it_was_paid)
        }
        _ => None,
    });
    let earned = sums(|row| match row {
        // What was taken a moment before the end is not on the balance yet.
        Row::Charge(row) => Some((row.currency.into(), row.amount_captured - row.fee?)).filter(is_as_it_was_paid),
        Row::Refund(row) if row.status != "failed" => {
            Some((row.currency.into(), -row.amount)).filter(is_as_it_was_paid)
        }
        Row::Dispute(row) => {
            Some((row.currency.into(), row.reinstated? - row.withdrawn? - row.fee?)).filter(is_as_it_was_paid)
        }
        _ => None,
    });
    assert!(moved.len() > 3, "{moved:?}");
    assert_eq!(moved, earned);
}

#[test]
fn fees_are_the_details_of_their_transactions() {
    for row in ROWS.values() {
        if let Row::BalanceTransaction(row) = row {
            let details: Value = row.fee_details.as_deref().map_or(Value::Null, |d| serde_json::from_str(d).unwrap());
            let sum: i64 = details.as_array().into_iter().flatten().map(|d| d["amount"].as_i64().unwrap()).sum();
            assert_eq!((sum, row.net), (row.fee, row.amount - row.fee), "{row:?}");
        }
    }
}

#[test]
fn what_was_paid_out_had_come_in() {
    let paid_out = sums(|row| match row {
        Row::Payout(row) if row.status != "failed" => Some((row.currency.into(), row.amount)),
        _ => None,
    });
    let gone = sums(|row| match row {
        Row::BalanceTransaction(row) if row.r#type.as_ref()?.starts_with("payout") => {
            Some((row.currency.into(), -row.net))
        }
        _ => None,
    });
    assert!(!paid_out.is_empty());
    assert_eq!(paid_out, gone);
}

#[test]
fn what_was_converted_is_what_was_captured_at_its_rate() {
    let mut converted = 0;
    for row in ROWS.values() {
        let Row::Charge(row) = row else { continue };
        let (Some(rate), Some(into), Some(net), Some(fee)) =
            (row.exchange_rate, row.settlement_currency, row.net, row.fee)
        else {
            continue;
        };
        assert_eq!((row.currency.to_string().as_str(), into.to_string().as_str()), ("sek", "eur"));
        assert!((row.amount_captured as f64 * rate - (net + fee) as f64).abs() <= 0.5 + 1e-6, "{row:?}");
        converted += 1;
    }
    assert!(converted > 10, "{converted} charges");
}

/// The list of what a payout is made of comes to its amount.
#[test]
fn a_payout_is_the_sum_of_its_parts() {
    let mut parts: BTreeMap<&str, i64> = BTreeMap::new();
    let mut returned: BTreeMap<String, i64> = BTreeMap::new();
    for row in ROWS.values() {
        let Row::BalanceTransaction(row) = row else { continue };
        match (row.r#type.as_deref(), &row.payout_id) {
            (Some("payout"), _) => {}
            (Some("payout_failure"), _) => *returned.entry(row.currency.into()).or_default() += row.net,
            (_, Some(payout)) => *parts.entry(payout).or_default() += row.net,
            (_, None) => {}
        }
    }
    let mut whole = 0;
    for row in ROWS.values() {
        let Row::Payout(row) = row else { continue };
        let Some(sum) = parts.get(row.payout_id.as_str()) else { continue };
        // What came back goes out again, and is told of as the payout that it was of.
        let missing = row.amount - sum;
        if missing == 0 {
            whole += 1;
            continue;
        }
        let left = returned.get_mut(&row.currency.to_string()).unwrap();
        *left -= missing;
        assert!(missing > 0 && *left >= 0, "{row:?} of {sum}");
    }
    assert!(whole > 20, "{whole} payouts");
}

#[test]
fn invoices_are_paid_by_their_payments() {
    let invoiced = sums(|row| match row {
        Row::Invoice(row) => Some((row.currency.into(), row.amount_paid?)),
        _ => None,
    });
    let paid = sums(|row| match row {
        Row::InvoicePayment(row) => Some((row.currency.into(), row.amount_paid?)),
        _ => None,
    });
    let received = sums(|row| match row {
        Row::PaymentIntent(row) if row.invoice_id.is_some() => Some((row.currency.into(), row.amount_received)),
        _ => None,
    });
    let captured = sums(|row| match row {
        Row::Charge(row) if row.invoice_id.is_some() => Some((row.currency.into(), row.amount_captured)),
        _ => None,
    });
    assert!(!invoiced.is_empty());
    assert_eq!((&invoiced, &invoiced, &invoiced), (&paid, &received, &captured));
}

#[test]
fn no_row_of_the_shop_is_ambiguous_and_the_shop_has_every_table() {
    for row in ROWS.values() {
        let ambiguous = match row {
            Row::Dispute(row) => row.order_ambiguous,
            Row::Invoice(row) => row.order_ambiguous,
            Row::Subscription(row) => row.order_ambiguous,
            Row::SubscriptionState(row) => row.order_ambiguous,
            Row::Payout(row) => row.order_ambiguous,
            Row::Review(row) => row.order_ambiguous,
            Row::EarlyFraudWarning(row) => row.order_ambiguous,
            _ => false,
        };
        assert!(!ambiguous, "{row:?}");
    }
    let mut tables: Vec<&str> = ROWS.keys().map(|key| key.table.name()).collect();
    tables.dedup();
    for table in [
        "disputes",
        "invoices",
        "invoice_payments",
        "subscriptions",
        "payouts",
        "balance_transactions",
        "early_fraud_warnings",
        "reviews",
    ] {
        assert!(tables.contains(&format!("core.{table}").as_str()), "{table} of {tables:?}");
    }
}
