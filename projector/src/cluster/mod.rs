//! The projector of a cluster: the same fold, kept in ScyllaDB.
//!
//! Owns: the tables of a keyspace, which can be built again from the topics at any time.
//! Refuses: to believe in being the only one. Two processes on one source partition write the same rows with the same time
//! stamps, and the one that is behind loses.
//! Invariant: what the tables show of a source partition at its *visible* position is the fold of exactly the outcomes
//! before it.

pub mod audit;
mod cells;
mod conversions;
mod flush;
mod lists;
mod partition;
pub mod past;
pub mod positions;
pub mod read;
pub mod rebuild;
pub mod store;
mod writes;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context, Result};
use pipeline::{
    kafka::{self, Layout, Work, share},
    lifecycle::{Beat, CancellationToken},
};
use tokio::{runtime::Handle, sync::watch};

use self::{
    partition::{End, Partition},
    positions::Positions,
    store::{Database, Store},
};

/// How often it is asked which generation is live.
const GENERATION: Duration = Duration::from_secs(1);

pub struct Parts {
    pub cluster: kafka::Cluster,
    pub layout: Layout,
    pub database: Database,
    pub beat: Beat,
    pub stop: CancellationToken,
}

/// A running projector of a cluster.
pub struct Projector {
    pub store: watch::Receiver<Arc<Store>>,
    pub positions: watch::Receiver<Arc<Positions>>,
    pub thread: JoinHandle<Result<()>>,
}

/// Opens the tables and begins to share the work on them. It ends after `stop`, or with what ended it.
pub async fn start(parts: Parts) -> Result<Projector> {
    let Parts { cluster, layout, database, beat, stop } = parts;
    let id = layout.id.to_string();
    let store = Store::open(&database, &id).await?;
    let positions = positions::read(&store, layout.partitions).await?;
    let (live, store) = watch::channel(Arc::new(store));
    let (seen, positions) = watch::channel(Arc::new(positions));
    tokio::spawn(positions::follow(store.clone(), layout.partitions, seen, stop.clone()));
    tokio::spawn(follow_live(live, stop.clone()));
    let (runtime, follows) = (Handle::current(), store.clone());
    let thread = std::thread::Builder::new()
        .name("projector".to_owned())
        .spawn(move || {
            let open = |number: u16, stop| -> Result<Work<End>> {
                let (cluster, store, runtime) = (cluster.clone(), follows.clone(), runtime.clone());
                let partition = Partition { cluster, number, store, runtime, stop };
                Ok(Box::new(move || partition.run()))
            };
            share(&cluster, "projector", (beat, &stop), open, |_, _: End| Ok(()))
        })
        .context("cannot start the projector's thread")?;
    Ok(Projector { store, positions, thread })
}

/// Switches to another generation when that becomes the live one.
async fn follow_live(live: watch::Sender<Arc<Store>>, stop: CancellationToken) {
    let mut look = tokio::time::interval(GENERATION);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let known = Arc::clone(&live.borrow());
        match known.newer().await {
            Ok(None) => {}
            Ok(Some(newer)) => {
                tracing::info!(tables = ?newer, "other tables are live from now on");
                live.send_replace(Arc::new(newer));
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "it cannot be asked which tables are live"),
        }
    }
}
