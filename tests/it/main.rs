//! The tests of the program from outside: they start the binary. One program of them, a module a subject.
//!
//! The tests of whole layers are in `src/tests`: so the library is compiled and linked for one test program, not for two.

// A test that cannot go on has failed: that is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::let_underscore_must_use)]

mod architecture;
mod backfill;
mod bad_input;
mod crash;
mod disk;
mod doubt;
mod erase;
mod hot_tail;
#[cfg(feature = "kafka")]
mod kafka;
mod main_job;
mod phones;
mod rates;
mod strangers;
mod support;
mod webhooks;
