//! Rows on payments that are called into question: disputes, warnings of fraud, reviews.

use super::row;
use crate::base::{Currency, Micros};

row! {
    /// One row a dispute or an inquiry that may become one.
    Dispute {
        /// `charge_id:dispute` for one of the years before disputes had ids.
        dispute_id: String,
        charge_id: Option<String>,
        payment_intent_id: Option<String>,
        created_at: Option<Micros>,
        status: String,
        amount: i64,
        currency: Currency,
        reason: Option<String>,
        network_reason_code: Option<String>,
        card_brand: Option<String>,
        /// An inquiry moves no money.
        is_inquiry: bool,
        is_charge_refundable: Option<bool>,
        evidence_submissions: Option<i64>,
        due_by: Option<Micros>,
        closed_at: Option<Micros>,
        withdrawn_at: Option<Micros>,
        reinstated_at: Option<Micros>,
        /// In minor units of `settlement_currency`, as are `reinstated` and `fee`.
        withdrawn: Option<i64>,
        reinstated: Option<i64>,
        fee: Option<i64>,
        settlement_currency: Option<Currency>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a card network's warning that a charge may be fraud.
    EarlyFraudWarning {
        early_fraud_warning_id: String,
        charge_id: Option<String>,
        payment_intent_id: Option<String>,
        created_at: Option<Micros>,
        fraud_type: Option<String>,
        /// Neither refunded nor disputed yet.
        actionable: bool,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a payment set aside for a person to look at.
    Review {
        review_id: String,
        charge_id: Option<String>,
        payment_intent_id: Option<String>,
        created_at: Option<Micros>,
        open: bool,
        reason: Option<String>,
        opened_reason: Option<String>,
        closed_reason: Option<String>,
        closed_at: Option<Micros>,
        ip_hash: Option<String>,
        ip_country: Option<String>,
        order_ambiguous: bool,
    }
}
