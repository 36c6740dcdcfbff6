//! The integration tests: one binary, a module a subject.

// A test that cannot go on has failed: that is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::let_underscore_must_use)]

mod abreast;
mod activate;
mod architecture;
mod backfill;
mod bad_input;
mod core_tables;
mod crash;
mod disk;
mod engine;
mod evolution;
mod facts;
mod hostile;
mod hot_tail;
#[cfg(feature = "kafka")]
mod kafka;
mod lake;
mod loading;
mod log;
mod lost_state;
mod main_job;
mod models;
mod pipelines;
mod quarantine;
mod receivers;
mod strangers;
mod support;
mod tables;
mod webhooks;
