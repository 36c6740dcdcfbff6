//! What the events of an object leave open, so that it is to be asked for: an answer joins the set of what is known of it.

use super::observation::ObjectKey;
use crate::base::Micros;

/// What a payout pays out, by the payout's id: a list of balance transactions.
pub const PAID_OUT: &str = "payout.balance_transactions";
/// The type of our own word that this list was read to its end.
pub const LISTED: &str = "payout.listed";

/// What is known of `key` is to be of `since`, or later; of any time, where others only name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    pub key: ObjectKey,
    pub since: Micros,
    pub why: Why,
    /// The connected account whose object it is, where events name one: it is asked for in that account's name.
    pub account: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The events of that second leave open which came last.
    Undecided,
    /// An event names the object and does not show it. Its twin that does has the same id.
    NotShown { event_id: String },
    /// Others name the object, and any sight of it will do. `within`: the subscription that shows it to whoever asks, as it
    /// cannot be asked for itself.
    Named { within: Option<String> },
    /// A payout is reconciled: which movements it pays out stands nowhere but in a list of them.
    PaidOut,
}
