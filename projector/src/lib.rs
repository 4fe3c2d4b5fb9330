//! Report tables and the private listener: the fold of the outcomes, kept in tables, and answers from them.
//!
//! Owns: `tables.db`, which can be deleted at any time; the API and the console.
//! Refuses: to decide anything; to change the log other than through the `Appender`.
//! Invariant: what the tables show at position P is the fold of exactly the outcomes before P.

pub mod api;
pub mod audit;
pub mod cluster;
pub mod fold;
pub mod fresh;
pub mod report;
pub mod reprocess;
pub mod run;
#[cfg(test)]
mod story;
pub mod tables;
#[cfg(test)]
mod testing;
