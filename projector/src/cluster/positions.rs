//! How far the tables are, of every source partition, whoever writes them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use pipeline::lifecycle::CancellationToken;
use schemas::Time;
use tokio::sync::watch;

use super::{
    flush::{Stand, stand_of},
    store::Store,
};

/// How often the positions are read.
const LOOK: Duration = Duration::from_millis(100);

/// By partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(pub Vec<Option<Stand>>);

impl Positions {
    /// The next `src` of a partition that the tables do not show yet.
    pub fn next(&self, partition: u16) -> u64 {
        let stand = self.0.get(usize::from(partition)).copied().flatten();
        stand.unwrap_or(Stand::START).place.position.next
    }

    /// Everything that was received up to then is in the tables: that of the partition that is behind the most. One that
    /// has never had an event is behind nobody.
    pub fn time(&self) -> Time {
        self.0.iter().flatten().map(|stand| stand.time).min().unwrap_or_default()
    }
}

pub async fn read(store: &Store, partitions: u16) -> Result<Positions> {
    type Row = (i32, Option<i64>, Option<String>, Option<i64>, Option<i64>, Option<i64>);
    let text = format!("SELECT partition, next, chain, place, time, log_time FROM {}", store.table("positions"));
    let rows = store.session.query_iter(text, ()).await.context("the positions cannot be read")?;
    let mut rows = rows.rows_stream::<Row>()?;
    let mut positions = Positions(vec![None; usize::from(partitions)]);
    while let Some((partition, next, chain, place, time, log_time)) = rows.try_next().await? {
        let stand = stand_of((next, chain, place, time, log_time))?;
        if let Some(known) = usize::try_from(partition).ok().and_then(|at| positions.0.get_mut(at)) {
            *known = stand;
        }
    }
    Ok(positions)
}

/// Reads them again and again, until `stop`. While the database is away they stay what they were.
pub async fn follow(
    store: watch::Receiver<Arc<Store>>,
    partitions: u16,
    seen: watch::Sender<Arc<Positions>>,
    stop: CancellationToken,
) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let live = Arc::clone(&store.borrow());
        match read(&live, partitions).await {
            Ok(positions) => {
                seen.send_if_modified(|known| {
                    let moved = **known != positions;
                    *known = Arc::new(positions);
                    moved
                });
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the tables' positions cannot be read"),
        }
    }
}
