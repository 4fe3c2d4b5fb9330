//! Answers from the tables in ScyllaDB.
//!
//! Owns: how the tables are read, and the pages of their lists. Refuses: to scan a table: every read names a partition,
//! which the index of buckets says is there.
//! Invariant: an answer shows at least what was visible when it was asked for, of every source partition, and nothing of
//! another tenant.

pub(super) mod conversions;
mod figures;
pub(super) mod hits;
mod statements;
pub(super) mod walk;

#[cfg(test)]
pub(super) mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use schemas::{ClickId, EventId, bounds};
pub use statements::Reads;
use tokio::{runtime::Handle, sync::watch};

use self::figures::Figures;
use super::{positions::Positions, store::Store};
use crate::report::{
    Answer, AsOf, ClickQuery, ClickRow, ConversionQuery, ConversionRow, Directory, Journey, Page, PostbackQuery,
    PostbackRow, QueryError, Report, ReportQuery, figures::answer,
};

/// Reads under way at once, per question.
const AT_ONCE: usize = 64;
/// With more accounts than this, the list of the tenant is looked through instead of each account's.
const ACCOUNTS_BY_LIST: usize = 8;

/// Follows the live generation. Cheap to clone. Every call blocks, outside of the runtime's own threads.
#[derive(Clone, Debug)]
pub struct Reader {
    store: watch::Receiver<Arc<Store>>,
    positions: watch::Receiver<Arc<Positions>>,
    runtime: Handle,
}

/// What one question is answered from.
pub(super) struct Seen {
    store: Arc<Store>,
    as_of: AsOf,
    /// Source partitions.
    shards: u16,
    /// Who asks waits no longer.
    until: Instant,
}

impl Reader {
    pub fn new(
        store: watch::Receiver<Arc<Store>>,
        positions: watch::Receiver<Arc<Positions>>,
        runtime: Handle,
    ) -> Self {
        Self { store, positions, runtime }
    }

    fn look(&self) -> Seen {
        let positions = Arc::clone(&self.positions.borrow());
        Seen {
            store: Arc::clone(&self.store.borrow()),
            as_of: AsOf { time: positions.time(), next: 0 },
            shards: positions.0.len() as u16,
            until: Instant::now() + Duration::from_millis(bounds::API_READ_MS),
        }
    }

    fn ask<T>(&self, question: impl AsyncFnOnce(&Seen) -> Answer<T>) -> Answer<T> {
        let seen = self.look();
        self.runtime.block_on(within(seen.until, question(&seen)))
    }

    pub fn conversions_report(&self, directory: &Directory<'_>, query: &ReportQuery) -> Answer<Report> {
        answer(&mut Figures::new(&self.runtime, self.look()), directory, query)
    }
    pub fn postbacks(&self, query: &PostbackQuery) -> Answer<Page<PostbackRow>> {
        self.ask(async |seen| hits::page(seen, query).await)
    }
    pub fn hit(&self, tenant: &str, id: EventId) -> Answer<Option<PostbackRow>> {
        self.ask(async |seen| Ok(hits::one(seen, tenant, id).await?))
    }
    pub fn clicks(&self, query: &ClickQuery) -> Answer<Page<ClickRow>> {
        self.ask(async |seen| hits::clicks(seen, query).await)
    }
    pub fn journey(&self, tenant: &str, click: ClickId) -> Answer<Option<Journey>> {
        self.ask(async |seen| Ok(hits::journey(seen, tenant, click).await?))
    }
    pub fn conversions(&self, query: &ConversionQuery) -> Answer<Page<ConversionRow>> {
        self.ask(async |seen| conversions::page(seen, query).await)
    }
    pub fn conversion(&self, tenant: &str, id: &str) -> Answer<Option<ConversionRow>> {
        self.ask(async |seen| Ok(conversions::one(seen, tenant, id).await?))
    }
}

async fn within<T>(until: Instant, answer: impl Future<Output = Answer<T>>) -> Answer<T> {
    // A timer that is over lets through what is ready within the same millisecond.
    if Instant::now() >= until {
        return Err(QueryError::TooLong);
    }
    tokio::time::timeout_at(until.into(), answer).await.unwrap_or(Err(QueryError::TooLong))
}
