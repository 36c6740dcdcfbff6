//! The tests of whole layers together: a module a subject.
//!
//! They are part of the crate, and no program of their own, so that the library is compiled and linked for one test program
//! and not for two. What starts the binary is in `tests/it`, but for tests that also look into its directory.

// A test that cannot go on has failed: that is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::let_underscore_must_use)]

mod abreast;
mod activate;
mod core_tables;
pub mod engine;
mod evolution;
pub mod facts;
mod histories;
mod hostile;
mod lake;
mod loading;
mod log;
mod lost_state;
mod models;
mod pipelines;
mod pruning;
mod quarantine;
mod receivers;
mod revenue;
// Of which `tests/it` uses the rest.
#[allow(dead_code)]
#[path = "../../tests/it/support/mod.rs"]
mod support;
mod tables;

use proptest::prelude::ProptestConfig;

/// How often a property is tried: `least` times, or more often where `PROPTEST_CASES` says so.
pub fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let asked = std::env::var_os("PROPTEST_CASES").map_or(0, |_| config.cases);
    ProptestConfig { cases: least.max(asked), ..config }
}
