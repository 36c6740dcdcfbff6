//! What one event says of one object: a sight of the object's state, and what it adds to the object's totals.
//!
//! An observation is a function of one event alone. Nothing here depends on when or in which order events came.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Row, Table};
use crate::base::{Currency, Digest, Micros, PersonId};

/// The object that a row stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    pub table: Table,
    pub livemode: bool,
    pub id: String,
}

impl ObjectKey {
    /// As the key of a store: table, livemode, id. Objects of one table are neighbours.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.id.len() + 2);
        key.push(self.table as u8);
        key.push(u8::from(self.livemode));
        key.extend_from_slice(self.id.as_bytes());
        key
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub(super) key: ObjectKey,
    pub(super) sight: Option<Sight>,
    pub(super) marks: Vec<(Mark, Micros)>,
    pub(super) parts: Vec<Part>,
}

impl Observation {
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }
}

/// The object as one event shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    pub at: Micros,
    /// The event's own object; `false` is one that another object's event carried along.
    pub own: bool,
    /// All of the object; `false` is a hint of it, which any whole sight outweighs.
    pub whole: bool,
    pub step: Step,
    /// Of the event that was seen: its identity.
    pub event_id: String,
    pub event_digest: Digest,
    /// The account at the provider that the event names.
    pub account: Option<String>,
    /// Of the object as it was after the event …
    pub state: Digest,
    /// … and before it, where the event says.
    pub prior: Option<Digest>,
    pub row: Row,
}

/// Where in its object's life a sight stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Step {
    /// Sights of other lanes are not rivals but kept beside, the highest lane leading. Used by messages, whose records
    /// each hold a part of what is known.
    pub lane: u8,
    /// A higher one wins over any later time: what is settled stays settled.
    pub settled: u8,
    /// Of the sights in one second a lower phase comes first: the creation before all else.
    pub phase: u8,
    /// The status, as [`Step::may_precede`] knows it.
    pub status: Status,
    /// What only grows in the object's life, where the event says.
    pub progress: [Option<i64>; 3],
    /// Decides, with the event's id, where nothing else does.
    pub rank: u8,
}

/// The statuses whose order is limited. Everything else, and what is not known yet, is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Status {
    #[default]
    Other,
    RequiresMethod,
    /// Of a confirmation or another act of the customer's.
    RequiresInput,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
}

impl Step {
    /// Whether an object can have gone from this step to `next`, whatever lay between.
    pub fn may_precede(&self, next: &Step) -> bool {
        use Status::{Canceled, Processing, RequiresCapture, RequiresInput, RequiresMethod, Succeeded};
        let by_status = match (self.status, next.status) {
            // What fails goes back to wanting a payment method, never to an act half done; what is authorised is
            // captured or canceled.
            (Processing, RequiresInput) | (RequiresCapture, RequiresInput | RequiresMethod) => false,
            (Succeeded, to) => to == Succeeded,
            (Canceled, to) => to == Canceled,
            _ => true,
        };
        let grows = |(a, b): (&Option<i64>, &Option<i64>)| a.zip(*b).is_none_or(|(a, b)| a <= b);
        by_status && self.phase <= next.phase && self.progress.iter().zip(&next.progress).all(grows)
    }
}

/// A moment of an object's life. The earliest is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mark {
    Seen,
    Succeeded,
    Canceled,
    Captured,
    Failed,
    Completed,
    Expired,
    Deleted,
    Queued,
    Claimed,
    Sent,
    Settled,
    Finalized,
    Closed,
    Withdrawn,
    Reinstated,
    /// A checkout's payment that was not immediate came, or did not.
    PaidLater,
    FailedLater,
    /// Stripe took the money by itself: no request of the shop's or of the customer's was behind it.
    Automatic,
}

/// Of a part whose time nothing tells: later than any, until something does.
pub(super) const UNDATED: Micros = Micros(i64::MAX);

/// What another object adds to this one's row. Parts of one id are merged, so that a total is over distinct things.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub id: String,
    pub at: Micros,
    pub fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A try to pay an intent. `whole`: said by the charge itself.
    Attempt { whole: bool, failure: Option<Failure>, country: Option<String>, person: Option<(u8, PersonId)> },
    /// Who pays, said by a checkout session.
    Payer { country: Option<String>, person: Option<(u8, PersonId)> },
    /// A refund of a charge.
    Refund { amount: i64, failed_at: Option<Micros> },
    /// What a charge came to on the balance, said by its balance transaction.
    Settlement(Settlement),
    /// A payment is of the invoice that the part is named after.
    Invoiced,
    /// A movement on the balance is part of the payout that the part is named after.
    PaidOut,
    /// What a payout is made of was listed.
    Listed,
    /// An attempt was made within the checkout session that the part is named after.
    WithinSession,
    /// Which of its intent's attempts one is, counted from 1, at the part's time.
    Numbered(u32),
    /// A charge is contested, by more than an inquiry.
    Disputed,
}

/// Amounts in minor units of `currency`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settlement {
    pub fee: i64,
    pub net: i64,
    pub currency: Currency,
    pub exchange_rate: Option<f64>,
}

impl Settlement {
    fn place(&self) -> (i64, i64, Currency, Option<u64>) {
        (self.fee, self.net, self.currency, self.exchange_rate.map(f64::to_bits))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    pub code: Option<String>,
    pub decline_code: Option<String>,
}

impl Part {
    /// Where an attempt stands among those of its intent: of one second, in which Stripe tells no order, what failed comes before
    /// what did not.
    pub(super) fn place(&self) -> (Micros, &str) {
        let failed = matches!(self.fact, Fact::Attempt { failure: Some(_), .. });
        (Micros(self.at.0.saturating_add(i64::from(!failed))), &self.id)
    }

    /// Both parts are of one id. Commutative, associative and idempotent, so that no order matters.
    pub(super) fn merge(&mut self, other: Part) {
        let theirs = other.at.cmp(&self.at);
        self.at = self.at.min(other.at);
        match (&mut self.fact, other.fact) {
            (
                Fact::Attempt { whole, failure, country, person },
                Fact::Attempt { whole: w, failure: f, country: c, person: p },
            ) => {
                // What the charge says of its failure outweighs what the intent says of it.
                *failure = match (*whole).cmp(&w) {
                    Ordering::Less => f,
                    Ordering::Greater => failure.take(),
                    Ordering::Equal => failure.take().max(f),
                };
                *whole |= w;
                *country = country.take().max(c);
                *person = best_person(person.take(), p);
            }
            (Fact::Payer { country, person }, Fact::Payer { country: c, person: p }) => {
                *country = country.take().max(c);
                *person = best_person(person.take(), p);
            }
            (Fact::Refund { amount, failed_at }, Fact::Refund { amount: a, failed_at: f }) => {
                *amount = (*amount).max(a);
                *failed_at = failed_at.iter().chain(&f).min().copied();
            }
            (Fact::Settlement(mine), Fact::Settlement(other)) => {
                if other.place() > mine.place() {
                    *mine = other;
                }
            }
            // Times of attempts only fall, as more is learnt; so at one time of its own an attempt's number only grows.
            (Fact::Numbered(mine), Fact::Numbered(other)) => match theirs {
                Ordering::Less => *mine = other,
                Ordering::Equal => *mine = (*mine).max(other),
                Ordering::Greater => {}
            },
            (mine, other) => {
                // Ids of different kinds of things never meet (`ch_`, `cs_`, `re_`); if they did, one must still win.
                if kind(&other) > kind(mine) {
                    *mine = other;
                }
            }
        }
    }
}

fn kind(fact: &Fact) -> u8 {
    match fact {
        Fact::Attempt { .. } => 0,
        Fact::Payer { .. } => 1,
        Fact::Refund { .. } => 2,
        Fact::Settlement(_) => 3,
        Fact::Invoiced => 4,
        Fact::Disputed => 5,
        Fact::Numbered(_) => 6,
        Fact::PaidOut => 7,
        Fact::Listed => 8,
        Fact::WithinSession => 9,
    }
}

/// The person by the better kind of identifier: the lower rank.
pub(super) fn best_person(a: Option<(u8, PersonId)>, b: Option<(u8, PersonId)>) -> Option<(u8, PersonId)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
