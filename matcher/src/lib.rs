//! The matcher: turns events into outcomes.
//!
//! Owns the decisions (`decide` → `credit`, `replay`), the state they are made on (`state`, `ledger`, `apply`), its
//! cache on disk (`store`), the loop that runs them in one process (`embedded`), and those of a cluster: `replica` says
//! what to do, `cluster` does it on Kafka.
//! Refuses: HTTP, reports, reading raw postbacks.
//! Invariant: outcomes are a function of the log. Who decides, how often, and from which saved state changes nothing.

pub mod apply;
pub mod changes;
pub mod click;
pub mod cluster;
pub mod credit;
pub mod decide;
pub mod embedded;
pub mod hit;
pub mod ledger;
pub mod replay;
pub mod replica;
pub mod split;
pub mod state;
pub mod store;

pub use apply::apply;
pub use decide::{Cause, RULES, UnknownRules, decide};
pub use state::State;
