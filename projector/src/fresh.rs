//! Whether the tables show what a reader asks to see.
//!
//! Invariant: what `shows` has waited for is in every answer that is read afterwards.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, anyhow};
use pipeline::{
    LogEnd, Receipt,
    kafka::{Cluster, Layout, LogEnds},
};
use schemas::EventId;
use tokio::sync::watch;

use crate::cluster::{positions::Positions, store::Store};

/// The events that a reader waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By partition: everything before this `src`.
    logged: BTreeMap<u16, u64>,
    /// Partition, run and number of events whose place in the log was not known yet.
    spooled: Vec<(u16, EventId, u64)>,
}

impl Wanted {
    pub fn add(&mut self, receipt: &Receipt) {
        match receipt {
            Receipt::Logged { partition, src } => self.add_before(*partition, src.saturating_add(1)),
            Receipt::Spooled { partition, from, n } => self.spooled.push((*partition, *from, *n)),
        }
    }

    pub fn add_before(&mut self, partition: u16, next: u64) {
        let known = self.logged.entry(partition).or_default();
        *known = next.max(*known);
    }
}

#[derive(Clone)]
pub enum Freshness {
    Folder {
        /// The next `src` that the tables do not show yet.
        visible: watch::Receiver<u64>,
        /// The next `src` that the log has not acknowledged yet.
        end: Arc<LogEnd>,
    },
    Cluster(Arc<OfCluster>),
}

pub struct OfCluster {
    store: watch::Receiver<Arc<Store>>,
    positions: watch::Receiver<Arc<Positions>>,
    ends: LogEnds,
    partitions: u16,
}

impl Freshness {
    pub fn cluster(
        cluster: &Cluster,
        layout: &Layout,
        store: watch::Receiver<Arc<Store>>,
        positions: watch::Receiver<Arc<Positions>>,
    ) -> Result<Self> {
        let ends = LogEnds::open(cluster, layout)?;
        Ok(Freshness::Cluster(Arc::new(OfCluster { store, positions, ends, partitions: layout.partitions })))
    }

    /// Whether such a receipt can have been given.
    pub fn knows(&self, receipt: &Receipt) -> bool {
        match self {
            Freshness::Folder { .. } => matches!(receipt, Receipt::Logged { partition: 0, .. }),
            Freshness::Cluster(of) => receipt.partition() < of.partitions,
        }
    }

    /// Adds everything that the log has acknowledged by now.
    pub async fn add_latest(&self, wanted: &mut Wanted) -> Result<()> {
        match self {
            Freshness::Folder { end, .. } => wanted.add_before(0, end.get()),
            Freshness::Cluster(of) => {
                let of = Arc::clone(of);
                let ends = tokio::task::spawn_blocking(move || of.ends.ask()).await??;
                (0..).zip(ends).for_each(|(partition, end)| wanted.add_before(partition, end));
            }
        }
        Ok(())
    }

    /// Returns once all of it is in the tables. An error: there is nobody any more who would bring it there.
    pub async fn shows(&self, wanted: &Wanted) -> Result<()> {
        match self {
            Freshness::Folder { visible, .. } => {
                let next = wanted.logged.get(&0).copied().unwrap_or_default();
                let mut visible = visible.clone();
                visible.wait_for(|seen| *seen >= next).await.map(drop).map_err(|_| anyhow!("the projector has ended"))
            }
            Freshness::Cluster(of) => of.shows(wanted).await,
        }
    }
}

impl OfCluster {
    async fn shows(&self, wanted: &Wanted) -> Result<()> {
        let mut positions = self.positions.clone();
        let is_there = |positions: &Arc<Positions>| {
            wanted.logged.iter().all(|(partition, next)| positions.next(*partition) >= *next)
        };
        positions.wait_for(is_there).await.map_err(|_| anyhow!("the projector has ended"))?;
        for (partition, from, n) in &wanted.spooled {
            while !self.has_run(*partition, *from, *n).await? {
                positions.changed().await.map_err(|_| anyhow!("the projector has ended"))?;
            }
        }
        Ok(())
    }

    /// A run's events of one partition reach the log in the order of their numbers.
    async fn has_run(&self, partition: u16, from: EventId, n: u64) -> Result<bool> {
        let store = Arc::clone(&self.store.borrow());
        let values = (i32::from(partition), from.bits().to_be_bytes().to_vec());
        let found = store.session.execute_unpaged(&store.reads.run, values).await.context("the runs cannot be read")?;
        let row = found.into_rows_result()?.maybe_first_row::<(i64,)>()?;
        Ok(row.is_some_and(|(seen,)| seen as u64 >= n))
    }
}
