//! What a user sees, whatever it runs on: the same tests on a folder and on a cluster. `CLICKBACK_TEST_MODE=cluster` is
//! set by `cargo xtask test` for the second run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod accounts;
mod answers;
mod api;
mod clicks;
mod hostile;
mod journeys;
mod matching;
mod postbacks;
mod programs;
mod reports;
mod reprocess;
mod seed;
