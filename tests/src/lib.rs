//! What the whole-system tests share: the real binary as a child process, and the actions of its users.
//!
//! Owns: starting, stopping and killing `clickback`, and requests in the words of a user. Refuses: to look inside the
//! process, to sleep, to try again. A test that needs to see its own write passes the receipt of that write on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod actions;
pub mod cluster;
mod command;
mod role;
mod server;

pub use actions::{Account, Answer, Click, Link};
pub use command::{Finished, clickback, clickback_with, command, finish, newer_command};
pub use role::Role;
pub use server::{ADMIN_KEY, Folder, Server, Setup};

/// How often a random test repeats: `short` in an ordinary run, `long` with `cargo xtask test --long`.
pub fn repetitions(short: usize, long: usize) -> usize {
    if std::env::var_os("CLICKBACK_LONG").is_some() { long } else { short }
}
