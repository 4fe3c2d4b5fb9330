//! What only one process on one folder has, shown on the real binary: its commands, its files, its faults, its restarts.
//! What a user sees is in `tests/user`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod commands;
mod faults;
mod records;
mod restarts;
