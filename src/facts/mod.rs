//! What events say, as typed rows: decoding payloads, and folding the set of an object's events into its one row.
//!
//! Pure: every result is a function of the events alone, whatever order they came in, however often, in whatever
//! batches. No I/O, no clock. Rows hold hashes; clear texts leave here only as [`Contact`]s for the vault.
//!
//! For each logged event: [`Decoder::decode`]; its observations go by [`ObjectKey`] into [`ObjectState`]s, which give
//! the rows of folded tables; its rows are appended as they are; its claims join [`identity::Component`]s. [`batch`]
//! makes a table's rows into Arrow.

pub mod alerts;
mod complete;
mod decimal;
mod decode;
pub mod erasure;
mod fold;
pub mod identity;
mod json;
mod key;
pub mod klaviyo;
pub mod loads;
mod observation;
mod orders;
mod own;
mod people;
pub mod provider;
mod rates;
pub mod raw;
mod redact;
pub mod replay;
pub mod rows;
mod state;
mod storefront;
mod stripe;
mod suppression;
mod table;
mod want;

pub use self::{
    decode::{Contact, DecodeError, Decoded, Decoder, strings_of},
    key::partition_key,
    observation::{ObjectKey, Observation},
    redact::{Texts, Whose},
    rows::{BatchError, Row, Stamped, batch},
    state::{ObjectState, StateError},
    table::Table,
    want::{LISTED, PAID_OUT, Want, Why},
};
