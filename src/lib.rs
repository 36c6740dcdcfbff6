//! Tillstream: a merchant's payment and marketing events, streamed into tables, analysed in SQL and acted upon.
//!
//! The modules are the stages of the way of the data. A module imports only from lower lines of this list, never from
//! its own line; `tests/it/architecture.rs` holds the rule. `ARCHITECTURE.md` draws the whole.
//!
//!  1. `base`       events, money, phones, ids, times: no I/O
//!  2. `config`     file and environment -> validated settings
//!  3. `telemetry`  logs and metrics
//!  4. `facts`      payload -> typed rows; the fold: a set of events -> one row an object. Pure
//!     `net`        the one HTTP client
//!     `store`      embedded keyed state, and the vault for personal data
//!  5. `log`        the durable event log
//!     `lake`       Delta tables
//!  6. `sources`    bytes in -> verified envelopes
//!     `load`       log -> facts -> lake
//!     `engine`     SQL over the lake
//!     `synth`      a sample shop, its events and their truth
//!  7. `pipeline`   models, checks, and when they run
//!  8. `activate`   segments, triggers, the outbox and its channels
//!  9. `ops`        the opened data directory, doctor
//! 10. `server`     HTTP and the local socket
//! 11. `cli`        one file a command

pub mod activate;
pub mod base;
pub mod cli;
pub mod config;
pub mod engine;
pub mod facts;
pub mod lake;
pub mod load;
pub mod log;
pub mod net;
pub mod ops;
pub mod pipeline;
pub mod server;
pub mod sources;
pub mod store;
pub mod synth;
pub mod telemetry;
#[cfg(test)]
mod tests;
