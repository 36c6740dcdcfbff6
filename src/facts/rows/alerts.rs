//! What was wrong with the shop's own tillstream.

use super::row;
use crate::base::Micros;

row! {
    /// One row a fault, from when it was found to when it was gone.
    Alert {
        alert_id: String,
        /// What was looked at, as `doctor` calls it.
        subject: String,
        /// When it was raised.
        found: String,
        remedy: String,
        raised_at: Micros,
        /// Null as long as it lasts.
        cleared_at: Option<Micros>,
    }
}
