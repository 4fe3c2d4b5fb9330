//! Recomputes what the tables show from the log, and compares.
//!
//! Owns: the list of differences. Refuses to write anything; it may run beside a live process.
//! Invariant: every row and cell is compared at one position: a piece of the tables is read in one snapshot, the
//! outcomes before that snapshot's position are taken in, then the piece is compared.

mod compare;
pub(crate) mod expected;

use std::path::Path;

use anyhow::{Context, Result, bail};
use pipeline::LogReader;

use crate::{report::Reports, tables::generation};
pub(crate) use compare::Comparison;
use expected::Expected;

/// Bytes read from the log at once.
const READ_BYTES: usize = 8 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Up to where log and tables were compared.
    pub position: u64,
    pub cells: u64,
    pub hits: u64,
    pub clicks: u64,
    pub conversions: u64,
    /// The first differences, each as one readable line.
    pub differences: Vec<String>,
    /// All of them.
    pub different: u64,
}

/// Only reads; may run beside a live process.
pub fn audit(dir: &Path) -> Result<Audit> {
    let log = LogReader::open(dir)?;
    let live =
        generation::live(dir)?.context("there are no report tables in this folder: start `clickback run` once")?;
    let reports = Reports::at(&live.path);
    let mut ledger = Ledger { log, expected: Expected::default() };
    let mut comparison = Comparison::default();
    compare::run(&reports, &mut ledger, &mut comparison)?;
    Ok(Audit { position: ledger.expected.next, ..comparison.audit })
}

/// The log, and what follows from it up to where it was read.
struct Ledger {
    log: LogReader,
    expected: Expected,
}

impl Ledger {
    /// Takes in every outcome before `to`, checking the chain on the way.
    fn read_to(&mut self, to: u64) -> Result<()> {
        while self.expected.next < to {
            let blocks = self.log.outcome_blocks(self.expected.next, READ_BYTES)?;
            if blocks.is_empty() {
                bail!("the tables are at {to}, but the log ends at {}", self.expected.next);
            }
            for block in blocks {
                block.verify()?;
                for line in block.outcomes() {
                    let (src, payload) = line?;
                    if (self.expected.next..to).contains(&src) {
                        let outcome =
                            serde_json::from_slice(payload).with_context(|| format!("outcome {src} of the log"))?;
                        self.expected.take(src, &outcome)?;
                    }
                }
            }
        }
        Ok(())
    }
}
