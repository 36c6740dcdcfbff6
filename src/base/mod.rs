//! What every other module may use: events, money, phones, ids, times.
//!
//! Imports no other module of ours and does no I/O. Values are parsed once, at the edge; a value that exists is valid.

pub mod backoff;
pub mod decline;
pub mod digest;
pub mod envelope;
pub mod fx;
pub mod ids;
pub mod lately;
pub mod money;
pub mod phone;
pub mod progress;
pub mod pseudonym;
pub mod recurring;
pub mod suggest;
pub mod time;

pub use backoff::Backoff;
pub use digest::Digest;
pub use envelope::{Envelope, Identity, Logged, Source, Via};
pub use ids::{Offset, PersonId};
pub use lately::Lately;
pub use money::{Currency, Money};
pub use phone::E164;
pub use progress::Progress;
pub use pseudonym::{Pseudonymizer, SharedAddresses};
pub use time::Micros;
