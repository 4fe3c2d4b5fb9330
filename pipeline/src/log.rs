//! The embedded log: `log.db`, an SQLite file in WAL mode with one writer.
//!
//! Owns: the order of events, their outcomes, and the catalog's records.
//! Refuses: a second writer, a block that does not continue the one before, a folder of a newer format.
//! Invariant: after `Ok` everything is on disk; after `NoRoom` nothing of it is in the log.

mod block;
mod checkpoint;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use block::Block;
pub use reader::LogReader;
use schemas::Outcome;
pub use schemas::chain::{Chain, Position};
pub(crate) use store::{create_folder, sync_folder};
pub use writer::{FolderLock, Log, LogError};

/// What the matcher hands on after it is committed.
#[derive(Clone, Debug)]
pub struct Batch {
    pub first: u64,
    pub end: Position,
    pub outcomes: Vec<Arc<Outcome>>,
}

/// The next `src` that is not committed yet. It moves only after a commit.
#[derive(Debug, Default)]
pub struct LogEnd(AtomicU64);

impl LogEnd {
    pub fn new(next: u64) -> Self {
        Self(AtomicU64::new(next))
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    pub fn set(&self, next: u64) {
        self.0.store(next, Ordering::Release);
    }
}
