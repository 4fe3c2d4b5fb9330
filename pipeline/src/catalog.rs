//! The catalog's current view: accounts, links, programs and keys, in memory.
//!
//! Owns: which version of a thing is current, and the resolved settings of every account.
//! Refuses: a record whose base is not the current version; of two writers the first in the log wins.
//! Invariant: the view is a function of the catalog's records in their order, so every process that has read the
//! same records has the same view.

mod entry;
pub mod reseal;
mod resolve;
#[cfg(test)]
mod tests;
mod view;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc::SyncSender};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
pub use entry::{AccountEntry, ClickPlace, LinkEntry};
use schemas::catalog::Record;
use tokio::sync::oneshot;
pub use view::View;

pub use crate::append::Applied;
use crate::{log::LogReader, secrets::Sealer};

/// Records that one read takes from the log.
const PAGE: usize = 2_000;

pub struct Catalog {
    view: ArcSwap<View>,
    /// Records are applied one after the other.
    applying: Mutex<()>,
    sealer: Arc<Sealer>,
    /// Where the records come from another process: who reads on to their end when asked.
    reading: OnceLock<SyncSender<CatchUp>>,
}

/// A request to read to the end of the records.
pub type CatchUp = oneshot::Sender<Result<(), Behind>>;

#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("the catalog cannot be read to its end just now")]
pub struct Behind;

impl Catalog {
    /// Without any record yet.
    pub fn new(sealer: Arc<Sealer>) -> Catalog {
        Self::with(View::default(), sealer)
    }

    fn with(view: View, sealer: Arc<Sealer>) -> Catalog {
        let view = ArcSwap::from_pointee(view);
        Catalog { view, applying: Mutex::new(()), sealer, reading: OnceLock::new() }
    }

    /// Reads all records of the log.
    pub fn load(reader: &LogReader, sealer: Arc<Sealer>) -> Result<Catalog> {
        let mut view = View::default();
        let mut next = 0;
        loop {
            let records = reader.catalog(next, PAGE)?;
            let Some((last, _)) = records.last() else { break };
            next = last + 1;
            for (seq, record) in &records {
                // A record that was stale when it came is stale again, and changes nothing again.
                let (_, problem) = view.apply(record, &sealer);
                if let Some(problem) = problem {
                    return Err(problem).with_context(|| {
                        format!("record {seq} of the catalog: is this the key that the folder was made with?")
                    });
                }
            }
        }
        Ok(Self::with(view, sealer))
    }

    /// The view of now. Hold it for one request, not longer.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Applies a record that is durable, in the order of the log.
    pub fn apply(&self, record: &Record) -> Applied {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        // A copy shares all that does not change.
        let mut view = View::clone(&self.view.load());
        let (applied, problem) = view.apply(record, &self.sealer);
        if let Some(problem) = problem {
            metrics::counter!("clickback_catalog_problems_total").increment(1);
            let problem = format!("{problem:#}");
            tracing::error!(
                tenant = record.tenant,
                record = record.id,
                problem,
                "a catalog record cannot be used fully"
            );
        }
        // Also after a stale one: its time may have ended what is kept for a while.
        self.view.store(Arc::new(view));
        applied
    }

    /// From now on `catch_up` asks there. Only the first call counts.
    pub fn read_on_by(&self, reading: SyncSender<CatchUp>) {
        self.reading.set(reading).ok();
    }

    /// Returns when the view has everything that anybody was told before this call. Ask before you say of something that
    /// it does not exist. In one process that is so already; elsewhere it may take up to a few seconds.
    pub async fn catch_up(&self) -> Result<(), Behind> {
        let Some(reading) = self.reading.get() else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        reading.try_send(answer).map_err(|_| Behind)?;
        answered.await.unwrap_or(Err(Behind))
    }

    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }
}
