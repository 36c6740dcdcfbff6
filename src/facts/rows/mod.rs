//! The typed rows, one struct a table, and the batches of them.
//!
//! A struct is the one list of a table's columns, in their order; every stored table ends with `merchant_id`,
//! `livemode` and `log_offset`, which the batch adds, as it does `source_account`. No row holds an address, a phone or a name in
//! clear.

pub mod alerts;
pub mod balance;
pub mod behaviour;
pub mod billing;
pub mod column;
pub mod payments;
pub mod people;
pub mod rates;
pub mod risk;
mod unpack;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field},
    error::ArrowError,
};
use serde::{Deserialize, Serialize, de::SeqAccess};

pub use self::{alerts::*, balance::*, behaviour::*, billing::*, payments::*, people::*, rates::*, risk::*};
use super::Table;
use crate::base::Offset;

/// What the `row!` macro gives every row's struct.
pub trait Record: Sized {
    const COLUMNS: &'static [&'static str];
    fn fields() -> Vec<Field>;
    fn arrays(rows: &[&Self]) -> Vec<ArrayRef>;
    /// A row from its columns in their order.
    fn unpack<'de, A: SeqAccess<'de>>(columns: &mut A) -> Result<Self, A::Error>;
}

/// A struct that is also a table's schema.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[$about])* pub $field: $type,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::unpack::row(deserializer)
            }
        }

        impl super::Record for $name {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn fields() -> Vec<arrow::datatypes::Field> {
                // A column may be a word of Rust's, as `r#type`.
                vec![$(<$type as super::column::Column>::field(stringify!($field).trim_start_matches("r#")),)*]
            }

            fn arrays(rows: &[&Self]) -> Vec<arrow::array::ArrayRef> {
                vec![$(<$type as super::column::Column>::of_rows(rows, |row| &row.$field),)*]
            }

            fn unpack<'de, A: serde::de::SeqAccess<'de>>(columns: &mut A) -> Result<Self, A::Error> {
                Ok($name { $($field: super::unpack::column(columns, stringify!($field))?,)* })
            }
        }
    };
}
use row;

/// Ties every table to its row: the enum, and the ways from a table to what its struct knows.
macro_rules! rows {
    ($($table:ident: $row:ident,)*) => {
        /// A row of any table.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum Row {
            $($row(Box<$row>),)*
        }

        impl Row {
            pub fn table(&self) -> Table {
                match self {
                    $(Row::$row(_) => Table::$table,)*
                }
            }
        }

        $(impl From<$row> for Row {
            fn from(row: $row) -> Row {
                Row::$row(Box::new(row))
            }
        })*

        pub(super) fn fields(table: Table) -> Vec<Field> {
            match table {
                $(Table::$table => $row::fields(),)*
            }
        }

        fn arrays(table: Table, rows: &[Stamped]) -> Vec<ArrayRef> {
            match table {
                $(Table::$table => {
                    let own: Vec<&$row> = rows
                        .iter()
                        .filter_map(|s| match &s.row {
                            Row::$row(row) => Some(&**row),
                            _ => None,
                        })
                        .collect();
                    $row::arrays(&own)
                })*
            }
        }
    };
}

rows! {
    PaymentIntents: PaymentIntent,
    PaymentAttempts: PaymentAttempt,
    Charges: Charge,
    Refunds: Refund,
    Customers: Customer,
    Checkouts: Checkout,
    ImportedOrders: ImportedOrder,
    CartEvents: CartEvent,
    PageViews: PageView,
    ProductViews: ProductView,
    MessageEvents: MessageEvent,
    Consents: Consent,
    Suppressions: Suppression,
    Identities: Identity,
    PersonMerges: PersonMerge,
    Messages: Message,
    Disputes: Dispute,
    Invoices: Invoice,
    InvoicePayments: InvoicePayment,
    Subscriptions: Subscription,
    SubscriptionStates: SubscriptionState,
    Payouts: Payout,
    BalanceTransactions: BalanceTransaction,
    EarlyFraudWarnings: EarlyFraudWarning,
    Reviews: Review,
    FxRates: FxRate,
    Coupons: Coupon,
    Discounts: Discount,
    MetricEvents: MetricEvent,
    Profiles: Profile,
    Alerts: Alert,
}

/// A row, the world it belongs to, and the last log offset that it is true to.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    pub row: Row,
    /// Of the provider's accounts the one that it is of, where its events name one.
    pub account: Option<String>,
    pub livemode: bool,
    pub offset: Offset,
}

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("a row of {found} was put among those of {wanted}: group rows by Row::table() first")]
    OtherTable { wanted: &'static str, found: &'static str },
    #[error("log offset {0} does not fit the log_offset column, a signed 64-bit integer")]
    Offset(Offset),
    #[error("no batch of {table} can be made: {source}")]
    Arrow { table: &'static str, source: ArrowError },
}

/// The columns that end every stored table; those of the payment provider's objects have the account that they are of before them.
pub(super) fn common_fields(table: Table) -> impl Iterator<Item = Field> {
    let account = table.is_of_stripe().then(|| Field::new("source_account", DataType::Utf8, true));
    account.into_iter().chain([
        Field::new("merchant_id", DataType::Utf8, false),
        Field::new("livemode", DataType::Boolean, false),
        Field::new("log_offset", DataType::Int64, false),
    ])
}

/// The rows as one batch of `table.schema()`, in their order.
pub fn batch(table: Table, merchant_id: &str, rows: &[Stamped]) -> Result<RecordBatch, BatchError> {
    if let Some(other) = rows.iter().map(|s| s.row.table()).find(|t| *t != table) {
        return Err(BatchError::OtherTable { wanted: table.name(), found: other.name() });
    }
    let offsets: Vec<i64> = rows
        .iter()
        .map(|s| i64::try_from(s.offset.0).map_err(|_| BatchError::Offset(s.offset)))
        .collect::<Result<_, _>>()?;
    let mut columns = arrays(table, rows);
    if table.is_of_stripe() {
        columns.push(Arc::new(StringArray::from_iter(rows.iter().map(|s| s.account.as_deref()))));
    }
    columns.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|_| merchant_id))));
    columns.push(Arc::new(BooleanArray::from_iter(rows.iter().map(|s| Some(s.livemode)))));
    columns.push(Arc::new(Int64Array::from(offsets)));
    RecordBatch::try_new(table.schema(), columns).map_err(|source| BatchError::Arrow { table: table.name(), source })
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, AsArray},
        datatypes::{Int64Type, TimestampMicrosecondType},
    };

    use super::*;
    use crate::base::Micros;

    fn stamped(offset: u64, reason: Option<&str>) -> Stamped {
        let row = Suppression {
            suppression_id: "sms:d:tillstream".to_owned(),
            event_id: format!("e{offset}"),
            channel: "sms".to_owned(),
            destination_hash: "d".to_owned(),
            reason: reason.map(str::to_owned),
            at: Micros(-7),
            source: "tillstream".to_owned(),
            lifted: false,
        };
        Stamped { row: row.into(), account: None, livemode: offset.is_multiple_of(2), offset: Offset(offset) }
    }

    #[test]
    fn rows_become_columns_in_their_order() {
        let made = batch(Table::Suppressions, "m1", &[stamped(3, None), stamped(4, Some("stop"))]).unwrap();
        let text = |name: &str, i| made.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
        assert_eq!(
            (text("event_id", 0), text("event_id", 1), text("merchant_id", 1)),
            ("e3".into(), "e4".into(), "m1".into())
        );
        let reasons = made.column_by_name("reason").unwrap();
        assert!(reasons.is_null(0) && text("reason", 1) == "stop");
        assert_eq!(made.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>().value(0), -7);
        assert_eq!(made.column_by_name("log_offset").unwrap().as_primitive::<Int64Type>().values(), &[3, 4]);
        assert!(!made.column_by_name("livemode").unwrap().as_boolean().value(0));
        assert_eq!(batch(Table::Charges, "m1", &[]).unwrap().schema(), Table::Charges.schema());
    }

    #[test]
    fn a_row_among_anothers_is_refused() {
        let error = batch(Table::Charges, "m1", &[stamped(3, None)]).unwrap_err().to_string();
        assert!(error.contains("ops.suppressions") && error.contains("core.charges"), "{error}");
        assert!(batch(Table::Suppressions, "m1", &[stamped(u64::MAX, None)]).is_err());
    }
}
