//! Which rows stand for an object that Stripe's API gives by its id (`docs.stripe.com/api`), and what it calls the object.

use crate::facts::{
    observation::ObjectKey,
    table::Table,
    want::{PAID_OUT, Want, Why},
};

/// A table of objects, and the type of each of them.
/// An invoice's payment is not among them: its row goes by its invoice and intent.
const OBJECTS: [(Table, &str); 13] = [
    (Table::PaymentIntents, "payment_intent"),
    (Table::Charges, "charge"),
    (Table::Refunds, "refund"),
    (Table::Customers, "customer"),
    (Table::Checkouts, "checkout.session"),
    (Table::Disputes, "dispute"),
    (Table::Invoices, "invoice"),
    (Table::Subscriptions, "subscription"),
    (Table::Payouts, "payout"),
    (Table::BalanceTransactions, "balance_transaction"),
    (Table::EarlyFraudWarnings, "radar.early_fraud_warning"),
    (Table::Reviews, "review"),
    (Table::Coupons, "coupon"),
];

/// The table of a type of objects; `None` where we have none.
pub(super) fn table_of(kind: &str) -> Option<Table> {
    OBJECTS.iter().find(|(_, name)| *name == kind).map(|(table, _)| *table)
}

impl Want {
    /// What to ask Stripe's API for to meet it; see [`ObjectKey::asked_for`].
    pub fn asked_for(&self) -> Option<(&'static str, &str)> {
        match &self.why {
            Why::Named { within: Some(subscription) } => named(Table::Subscriptions, subscription),
            Why::PaidOut => self.key.asked_for().map(|(_, payout)| (PAID_OUT, payout)),
            _ => self.key.asked_for(),
        }
    }
}

impl ObjectKey {
    /// What to ask Stripe's API for to learn what this row should say by now: a type of objects, and an id. `None` where no
    /// answer could tell: of what is not Stripe's, of a moment that is past, and of what we named ourselves.
    pub fn asked_for(&self) -> Option<(&'static str, &str)> {
        let (table, id) = match self.table {
            // An attempt is named after its charge. One that made none is nowhere but in its event.
            Table::PaymentAttempts => (Table::Charges, self.id.as_str()),
            table => (table, self.id.as_str()),
        };
        named(table, id)
    }
}

fn named(table: Table, id: &str) -> Option<(&'static str, &str)> {
    let is_stripes = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let (_, kind) = OBJECTS.iter().find(|(of, _)| *of == table && is_stripes)?;
    Some((kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_asked_for_as_the_object_that_it_stands_for() {
        let asked = |table, id: &str| {
            let key = ObjectKey { table, livemode: true, id: id.to_owned() };
            key.asked_for().map(|(kind, id)| format!("{kind} {id}"))
        };
        assert_eq!(asked(Table::Checkouts, "cs_test_a1").as_deref(), Some("checkout.session cs_test_a1"));
        assert_eq!(asked(Table::PaymentAttempts, "ch_1").as_deref(), Some("charge ch_1"));
        assert_eq!(asked(Table::PaymentAttempts, "pi_1:req_1"), None);
        assert_eq!(asked(Table::Refunds, "ch_1:refunded"), None, "a refund that no event named");
        assert_eq!(asked(Table::Charges, "../customers/cus_1"), None);
        assert_eq!(asked(Table::Charges, ""), None);
        assert_eq!(asked(Table::SubscriptionStates, "sub_1"), None);
        assert_eq!(asked(Table::Messages, "m1"), None);
    }
}
