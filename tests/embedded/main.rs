//! The contract of embedded mode, shown on the real binary: one module per part of DESIGN §5 to §8.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod accounts;
mod answers;
mod api;
mod clicks;
mod commands;
mod faults;
mod hostile;
mod journeys;
mod matching;
mod postbacks;
mod programs;
mod records;
mod reports;
mod reprocess;
mod seed;
