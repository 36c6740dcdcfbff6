//! Rows folded from payment objects. Every amount is in minor units of the `currency` beside it.

use super::row;
use crate::base::{Currency, Micros, PersonId};

row! {
    /// One row a payment intent: what the customer was asked to pay, and how that ended.
    PaymentIntent {
        payment_intent_id: String,
        created_at: Option<Micros>,
        status: String,
        amount: i64,
        amount_received: i64,
        amount_capturable: i64,
        currency: Currency,
        capture_method: Option<String>,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        country: Option<String>,
        invoice_id: Option<String>,
        /// The checkout session that it is paid in.
        session_id: Option<String>,
        payment_method_type: Option<String>,
        latest_charge_id: Option<String>,
        latest_attempt_id: Option<String>,
        /// How many distinct attempts are known.
        attempts: i64,
        first_attempt_at: Option<Micros>,
        succeeded_at: Option<Micros>,
        canceled_at: Option<Micros>,
        cancellation_reason: Option<String>,
        /// Of the last attempt that failed; kept when a later one succeeds.
        last_error_code: Option<String>,
        last_decline_code: Option<String>,
        cart_id: Option<String>,
        order_ref: Option<String>,
        external_ref: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a try to take the money: a charge, or a failure that came before one could be made.
    PaymentAttempt {
        attempt_id: String,
        payment_intent_id: Option<String>,
        charge_id: Option<String>,
        invoice_id: Option<String>,
        /// Which of the attempts to pay its intent it is, in the order of their times, from 1. Of one second what failed comes first.
        attempt_no: Option<i64>,
        created_at: Option<Micros>,
        amount: i64,
        currency: Currency,
        /// `authorised`, `issuer_declined`, `blocked`, `auth_failed`, `invalid` or `pending`.
        outcome: String,
        failure_code: Option<String>,
        decline_code: Option<String>,
        category: Option<String>,
        retry_advice: Option<String>,
        is_technical: bool,
        network_status: Option<String>,
        advice_code: Option<String>,
        network_advice_code: Option<String>,
        network_decline_code: Option<String>,
        risk_level: Option<String>,
        risk_score: Option<i64>,
        payment_method_type: Option<String>,
        wallet: Option<String>,
        card_brand: Option<String>,
        card_country: Option<String>,
        card_fingerprint: Option<String>,
        card_funding: Option<String>,
        card_bin: Option<String>,
        card_last4: Option<String>,
        cvc_check: Option<String>,
        postal_code_check: Option<String>,
        address_check: Option<String>,
        three_ds_result: Option<String>,
        three_ds_reason: Option<String>,
        three_ds_flow: Option<String>,
        three_ds_eci: Option<String>,
        three_ds_exemption: Option<String>,
        /// Who began it: `true`, the merchant, where Stripe took the money by itself, as for a renewal; `false`, the customer,
        /// where the intent is paid within a checkout session, or their bank asked them meanwhile; else it is not known.
        is_off_session: Option<bool>,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        phone_hash: Option<String>,
        ip_hash: Option<String>,
        billing_country: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a charge, failed ones too.
    Charge {
        charge_id: String,
        created_at: Option<Micros>,
        captured_at: Option<Micros>,
        status: String,
        amount: i64,
        amount_captured: i64,
        amount_refunded: i64,
        currency: Currency,
        /// Fee and net are in minor units of `settlement_currency`; known where the balance transaction is.
        fee: Option<i64>,
        net: Option<i64>,
        settlement_currency: Option<Currency>,
        exchange_rate: Option<f64>,
        balance_transaction_id: Option<String>,
        captured: bool,
        refunded: bool,
        disputed: bool,
        failure_code: Option<String>,
        payment_intent_id: Option<String>,
        invoice_id: Option<String>,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        billing_country: Option<String>,
        cart_id: Option<String>,
        order_ref: Option<String>,
        external_ref: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a refund. `charge_id:refunded` stands for what a charge says was refunded beyond the refunds known; once
    /// they are all known it is `superseded`, with amount 0.
    Refund {
        refund_id: String,
        /// The order that was paid back: its payment intent, else its charge, else the imported order.
        order_id: Option<String>,
        charge_id: Option<String>,
        payment_intent_id: Option<String>,
        amount: i64,
        currency: Currency,
        status: String,
        reason: Option<String>,
        failure_reason: Option<String>,
        created_at: Option<Micros>,
        succeeded_at: Option<Micros>,
        failed_at: Option<Micros>,
        balance_transaction_id: Option<String>,
        customer_ref: Option<String>,
        person_id: Option<PersonId>,
        order_ref: Option<String>,
        source: String,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a checkout session.
    Checkout {
        session_id: String,
        created_at: Option<Micros>,
        expires_at: Option<Micros>,
        status: Option<String>,
        payment_status: Option<String>,
        mode: Option<String>,
        amount_subtotal: Option<i64>,
        amount_total: Option<i64>,
        amount_tax: Option<i64>,
        amount_discount: Option<i64>,
        amount_shipping: Option<i64>,
        currency: Option<Currency>,
        /// What the customer saw, where that is another currency than the shop's.
        presentment_amount: Option<i64>,
        presentment_currency: Option<Currency>,
        customer_id: Option<String>,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        phone_hash: Option<String>,
        country: Option<String>,
        payment_intent_id: Option<String>,
        subscription_id: Option<String>,
        invoice_id: Option<String>,
        recovered_from: Option<String>,
        cart_id: Option<String>,
        order_ref: Option<String>,
        external_ref: Option<String>,
        completed_at: Option<Micros>,
        expired_at: Option<Micros>,
        /// `succeeded` or `failed`, of a payment whose answer came after the session.
        async_result: Option<String>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row a customer of the payment provider.
    Customer {
        customer_id: String,
        created_at: Option<Micros>,
        deleted_at: Option<Micros>,
        person_id: Option<PersonId>,
        email_hash: Option<String>,
        phone_hash: Option<String>,
        country: Option<String>,
        locale: Option<String>,
        currency: Option<Currency>,
        /// Minor units of `currency`; negative is a credit of the customer.
        balance: Option<i64>,
        tax_exempt: Option<String>,
        default_payment_method: Option<String>,
        delinquent: Option<bool>,
        order_ambiguous: bool,
    }
}

row! {
    /// One row an order of the past, imported from a file.
    ImportedOrder {
        order_id: String,
        external_ref: Option<String>,
        customer_ref: Option<String>,
        person_id: Option<PersonId>,
        ordered_at: Micros,
        amount: i64,
        currency: Currency,
        country: Option<String>,
        /// How many lines the order has, and how many things.
        lines: i64,
        quantity: i64,
        source: String,
        order_ambiguous: bool,
    }
}
