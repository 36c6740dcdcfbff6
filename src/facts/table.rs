//! The tables that facts become: their names, keys and schemas.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::rows;

/// See the module. The order is part of stored keys: add at the end only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Table {
    PaymentIntents,
    PaymentAttempts,
    Charges,
    Refunds,
    Customers,
    Checkouts,
    ImportedOrders,
    CartEvents,
    PageViews,
    ProductViews,
    MessageEvents,
    Consents,
    Suppressions,
    Identities,
    PersonMerges,
    Messages,
    Disputes,
    Invoices,
    InvoicePayments,
    Subscriptions,
    SubscriptionStates,
    Payouts,
    BalanceTransactions,
    EarlyFraudWarnings,
    Reviews,
    FxRates,
    Coupons,
    Discounts,
    MetricEvents,
    Profiles,
    Alerts,
}

static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
    let schema = |table: Table| {
        let fields: Vec<_> = rows::fields(table).into_iter().chain(rows::common_fields(table)).collect();
        Arc::new(Schema::new(fields))
    };
    Table::ALL.into_iter().map(schema).collect()
});

impl Table {
    pub const ALL: [Table; 31] = [
        Table::PaymentIntents,
        Table::PaymentAttempts,
        Table::Charges,
        Table::Refunds,
        Table::Customers,
        Table::Checkouts,
        Table::ImportedOrders,
        Table::CartEvents,
        Table::PageViews,
        Table::ProductViews,
        Table::MessageEvents,
        Table::Consents,
        Table::Suppressions,
        Table::Identities,
        Table::PersonMerges,
        Table::Messages,
        Table::Disputes,
        Table::Invoices,
        Table::InvoicePayments,
        Table::Subscriptions,
        Table::SubscriptionStates,
        Table::Payouts,
        Table::BalanceTransactions,
        Table::EarlyFraudWarnings,
        Table::Reviews,
        Table::FxRates,
        Table::Coupons,
        Table::Discounts,
        Table::MetricEvents,
        Table::Profiles,
        Table::Alerts,
    ];

    /// With its schema, as SQL names it.
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// The column that, with `livemode`, names one row of a folded table and one event of another.
    pub fn key(self) -> &'static str {
        self.about().1
    }

    /// The column that says when it was.
    pub fn time_column(self) -> &'static str {
        self.about().2
    }

    /// Whether a newer row of a key takes the place of the older; where not, rows are only ever appended.
    pub fn is_folded(self) -> bool {
        !matches!(
            self,
            Table::CartEvents
                | Table::PageViews
                | Table::ProductViews
                | Table::MessageEvents
                | Table::Consents
                | Table::MetricEvents
        )
    }

    /// Whether its rows stand for objects of the payment provider.
    pub(super) fn is_of_stripe(self) -> bool {
        use Table::{
            BalanceTransactions, Charges, Checkouts, Coupons, Customers, Discounts, Disputes, EarlyFraudWarnings,
            InvoicePayments, Invoices, PaymentAttempts, PaymentIntents, Payouts, Refunds, Reviews, SubscriptionStates,
            Subscriptions,
        };
        matches!(
            self,
            BalanceTransactions
                | Charges
                | Checkouts
                | Coupons
                | Customers
                | Discounts
                | Disputes
                | EarlyFraudWarnings
                | InvoicePayments
                | Invoices
                | PaymentAttempts
                | PaymentIntents
                | Payouts
                | Refunds
                | Reviews
                | SubscriptionStates
                | Subscriptions
        )
    }

    /// A SQL condition for the rows that readers should see, where that is not all: a row that was written and then
    /// turned out to stand for nothing cannot be taken back, only emptied.
    pub fn visible(self) -> Option<&'static str> {
        match self {
            Table::Refunds => Some("status <> 'superseded'"),
            Table::Suppressions => Some("NOT lifted"),
            _ => None,
        }
    }

    /// The stored columns, `merchant_id`, `livemode` and `log_offset` last.
    pub fn schema(self) -> SchemaRef {
        Arc::clone(&SCHEMAS[self as usize])
    }

    fn about(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Table::PaymentIntents => ("core.payment_intents", "payment_intent_id", "created_at"),
            Table::PaymentAttempts => ("core.payment_attempts", "attempt_id", "created_at"),
            Table::Charges => ("core.charges", "charge_id", "created_at"),
            Table::Refunds => ("core.refunds", "refund_id", "created_at"),
            Table::Customers => ("core.customers", "customer_id", "created_at"),
            Table::Checkouts => ("core.checkouts", "session_id", "created_at"),
            Table::ImportedOrders => ("core.imported_orders", "order_id", "ordered_at"),
            Table::CartEvents => ("core.cart_events", "event_id", "occurred_at"),
            Table::PageViews => ("core.page_views", "event_id", "occurred_at"),
            Table::ProductViews => ("core.product_views", "event_id", "occurred_at"),
            Table::MessageEvents => ("core.message_events", "event_id", "occurred_at"),
            Table::Consents => ("core.consents", "event_id", "at"),
            Table::Suppressions => ("ops.suppressions", "suppression_id", "at"),
            Table::Identities => ("core.identities", "identity_id", "first_seen_at"),
            Table::PersonMerges => ("core.person_merges", "old", "merged_at"),
            Table::Messages => ("ops.messages", "message_key", "queued_at"),
            Table::Disputes => ("core.disputes", "dispute_id", "created_at"),
            Table::Invoices => ("core.invoices", "invoice_id", "created_at"),
            Table::InvoicePayments => ("core.invoice_payments", "invoice_payment_id", "created_at"),
            Table::Subscriptions => ("core.subscriptions", "subscription_id", "created_at"),
            Table::SubscriptionStates => ("core.subscription_states", "subscription_state_id", "at"),
            Table::Payouts => ("core.payouts", "payout_id", "created_at"),
            Table::BalanceTransactions => ("core.balance_transactions", "balance_transaction_id", "created_at"),
            Table::EarlyFraudWarnings => ("core.early_fraud_warnings", "early_fraud_warning_id", "created_at"),
            Table::Reviews => ("core.reviews", "review_id", "created_at"),
            Table::FxRates => ("ref.fx_rates", "rate_id", "fetched_at"),
            Table::Coupons => ("core.coupons", "coupon_id", "created_at"),
            Table::Discounts => ("core.discounts", "discount_id", "created_at"),
            Table::MetricEvents => ("core.metric_events", "event_id", "occurred_at"),
            Table::Profiles => ("core.profiles", "profile_id", "updated_at"),
            Table::Alerts => ("ops.alerts", "alert_id", "raised_at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_key_and_time_and_the_common_columns_last() {
        for (i, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, i);
            let schema = table.schema();
            assert!(schema.field_with_name(table.key()).is_ok(), "{table:?}");
            let time = schema.field_with_name(table.time_column()).unwrap();
            assert_eq!(time.data_type(), &rows::column::timestamp(), "{table:?}");
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            assert!(names.ends_with(&["merchant_id", "livemode", "log_offset"]), "{table:?}");
            assert!(names.iter().all(|n| names.iter().filter(|m| m == &n).count() == 1), "{table:?}");
        }
    }

    #[test]
    fn the_contracts_columns_are_there() {
        let wanted = [
            (
                Table::PaymentIntents,
                "payment_intent_id created_at status amount amount_received currency customer_id person_id latest_attempt_id attempts first_attempt_at succeeded_at canceled_at last_decline_code order_ambiguous",
            ),
            (
                Table::PaymentAttempts,
                "attempt_id payment_intent_id invoice_id created_at amount currency outcome failure_code decline_code category retry_advice is_technical network_status risk_level risk_score payment_method_type wallet card_brand card_country card_fingerprint three_ds_result three_ds_flow customer_id person_id email_hash phone_hash ip_hash",
            ),
            (
                Table::Charges,
                "charge_id created_at captured_at amount amount_captured currency fee net settlement_currency exchange_rate disputed",
            ),
            (
                Table::Refunds,
                "refund_id order_id charge_id payment_intent_id amount currency status reason failure_reason created_at",
            ),
            (
                Table::ImportedOrders,
                "order_id external_ref customer_ref person_id ordered_at amount currency country source",
            ),
            (Table::MessageEvents, "message_id person_id channel kind campaign variant occurred_at"),
            (Table::CartEvents, "cart_id kind product_id quantity price currency occurred_at person_id"),
            (Table::Consents, "person_id channel purpose state source wording at"),
            (Table::Suppressions, "channel destination_hash reason at"),
            (Table::Identities, "kind value_hash person_id"),
            (Table::PersonMerges, "old new merged_at"),
            (
                Table::Messages,
                "message_key person_id trigger channel state provider_id queued_at sent_at settled_at reason",
            ),
            (
                Table::Disputes,
                "dispute_id charge_id payment_intent_id amount currency reason network_reason_code status is_inquiry created_at due_by closed_at withdrawn reinstated fee order_ambiguous",
            ),
            (
                Table::Invoices,
                "invoice_id subscription_id customer_id status billing_reason amount_due amount_paid amount_remaining total_excl_tax total_tax attempt_count next_payment_attempt finalized_at paid_at first_failed_at recovered_at",
            ),
            (Table::InvoicePayments, "invoice_payment_id invoice_id payment_intent_id charge_id amount_paid status"),
            (
                Table::Subscriptions,
                "subscription_id created_at status mrr_micros currency items discounts cancel_at_period_end cancel_reason",
            ),
            (Table::Payouts, "payout_id created_at status amount currency paid_at failed_at"),
            (
                Table::BalanceTransactions,
                "balance_transaction_id source_id type reporting_category amount fee net currency exchange_rate available_on payout_id",
            ),
            (Table::EarlyFraudWarnings, "early_fraud_warning_id charge_id fraud_type actionable created_at"),
            (Table::Reviews, "review_id charge_id open reason closed_reason created_at"),
        ];
        for (table, columns) in wanted {
            for column in columns.split(' ') {
                assert!(table.schema().field_with_name(column).is_ok(), "{}.{column}", table.name());
            }
        }
    }
}
