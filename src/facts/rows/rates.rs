//! What one currency was worth in another.

use chrono::NaiveDate;

use super::row;
use crate::base::{Currency, Micros};

row! {
    /// One row a day and pair of currencies.
    FxRate {
        /// `base:currency:day`.
        rate_id: String,
        day: NaiveDate,
        base: Currency,
        currency: Currency,
        /// Major units of `currency` that one major unit of `base` was worth.
        rate: f64,
        /// `ecb`, `file` or `stripe`.
        origin: Option<String>,
        fetched_at: Micros,
    }
}
