//! Rows on the merchant's balance with the provider: what moved it, and what left it.
//!
//! Every amount is in minor units of the `currency` beside it, here the one that is settled in.

use super::row;
use crate::base::{Currency, Micros};

row! {
    /// One row a movement of the balance.
    BalanceTransaction {
        balance_transaction_id: String,
        /// The charge, refund, dispute, payout, … behind it.
        source_id: Option<String>,
        created_at: Option<Micros>,
        available_on: Option<Micros>,
        status: Option<String>,
        /// `charge`, `refund`, `adjustment`, `payout`, …
        r#type: Option<String>,
        reporting_category: Option<String>,
        balance_type: Option<String>,
        /// Negative where money left.
        amount: i64,
        fee: i64,
        net: i64,
        currency: Currency,
        /// What a unit of the payment's currency came to, where it was converted.
        exchange_rate: Option<f64>,
        /// The payout that it is part of, or whose own movement it is.
        payout_id: Option<String>,
        /// A JSON text, its keys sorted: `core.fee_details` is the table of it.
        fee_details: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a payout to the bank.
    Payout {
        payout_id: String,
        created_at: Option<Micros>,
        status: String,
        /// Negative where it was drawn from the bank.
        amount: i64,
        currency: Currency,
        arrives_at: Option<Micros>,
        automatic: Option<bool>,
        method: Option<String>,
        source_type: Option<String>,
        destination_id: Option<String>,
        balance_transaction_id: Option<String>,
        paid_at: Option<Micros>,
        failed_at: Option<Micros>,
        canceled_at: Option<Micros>,
        failure_code: Option<String>,
        failure_balance_transaction_id: Option<String>,
        reconciliation_status: Option<String>,
        order_ambiguous: bool,
    }
}
