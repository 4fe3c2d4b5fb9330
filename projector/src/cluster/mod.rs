//! The projector of a cluster: the same fold, kept in ScyllaDB.
//!
//! Owns: the tables of a keyspace, which can be built again from the topics at any time.
//! Refuses: to believe in being the only one. Two processes on one source partition write the same rows with the same time
//! stamps, and the one that is behind loses.
//! Invariant: what the tables show of a source partition at its *visible* position is the fold of exactly the outcomes
//! before it.

mod cells;
mod flush;
mod lists;
pub mod positions;
pub mod store;
mod writes;
