//! What a process of a cluster that writes needs: the catalog's view and an `Appender`, over Kafka.
//!
//! Owns: the order of start and stop of the threads behind them. Refuses: to start on topics that are not right, with a key
//! that is not the cluster's, or without Kafka where there is no copy to start from.

use std::{
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use schemas::bounds;

use super::{
    Cluster, Layout, Problem, catalog, copy, copy::Found, producer, session::same_cluster, spool::Spool, topics,
};
use crate::{
    Appender, Catalog, Sealer, append,
    lifecycle::{CancellationToken, Health},
};

/// For the catalog to be read at the start.
const FIRST_READING: Duration = Duration::from_secs(60);

pub struct NodeConfig {
    pub cluster: Cluster,
    pub sealer: Sealer,
    pub spool: Option<SpoolConfig>,
    pub health: Health,
}

/// Where events wait for Kafka, beside a copy of the catalog.
pub struct SpoolConfig {
    pub dir: PathBuf,
    pub max_bytes: u64,
}

pub struct Node {
    pub layout: Layout,
    pub catalog: Arc<Catalog>,
    pub appender: Appender,
    threads: NodeThreads,
}

/// The threads that end once nobody sends them anything any more.
#[must_use]
pub struct NodeThreads {
    writing: JoinHandle<Result<()>>,
    reading: Vec<JoinHandle<Result<()>>>,
    stop_writing: CancellationToken,
    stop_reading: CancellationToken,
}

impl Node {
    /// Blocking, until the topics are checked and the catalog is read.
    pub fn start(config: NodeConfig) -> Result<Node> {
        let NodeConfig { cluster, sealer, spool, health } = config;
        let found = spool.as_ref().map(|spool| copy::read(&spool.dir)).transpose()?.flatten();
        let (layout, confirmed) = layout(&cluster, found.as_ref())?;
        layout.check_key(&sealer)?;
        let store = spool.as_ref().map(|spool| Spool::open(&spool.dir, spool.max_bytes)).transpose()?;
        let found = fitting(found, store.as_ref(), &cluster, &layout)?;
        let catalog = Arc::new(Catalog::new(Arc::new(sealer)));
        let (stop_writing, stop_reading) = (CancellationToken::new(), CancellationToken::new());
        let (writer, reading) = catalog::start(catalog::Parts {
            cluster: cluster.clone(),
            layout: layout.clone(),
            confirmed,
            catalog: Arc::clone(&catalog),
            copy: spool.map(|spool| (spool.dir, found)),
            beat: health.component("catalog"),
            stop: stop_reading.clone(),
        })?;
        let (appender, requests) = append::written_channel(bounds::APPEND_QUEUE);
        let writing = producer::start(producer::Parts {
            cluster,
            layout: layout.clone(),
            confirmed,
            requests,
            patience: if store.is_some() { producer::PATIENCE } else { producer::PATIENCE_WITHOUT_SPOOL },
            spool: store,
            catalog: writer,
            beat: health.component("log"),
            stop: stop_writing.clone(),
            verify: same_cluster,
        })?;
        let threads = NodeThreads { writing, reading, stop_writing, stop_reading };
        let node = Node { layout, catalog, appender, threads };
        if confirmed {
            node.read_catalog()?;
        }
        Ok(node)
    }

    /// What was there before the start is there when it ends.
    fn read_catalog(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let until = Instant::now() + FIRST_READING;
        while runtime.block_on(self.catalog.catch_up()).is_err() {
            if Instant::now() > until {
                bail!("the catalog could not be read in {} s", FIRST_READING.as_secs());
            }
            if let Some(what) = self.has_ended() {
                bail!("{what} ended");
            }
        }
        Ok(())
    }

    /// A thread that ended by itself; why stands in what `NodeThreads::join` gives.
    pub fn has_ended(&self) -> Option<&'static str> {
        if self.threads.writing.is_finished() {
            return Some("the log's writer");
        }
        self.threads.reading.iter().any(JoinHandle::is_finished).then_some("the catalog's reader")
    }

    pub fn threads(self) -> NodeThreads {
        self.threads
    }
}

/// From Kafka, else from the copy; and whether Kafka has confirmed it.
fn layout(cluster: &Cluster, found: Option<&Found>) -> Result<(Layout, bool)> {
    match (topics::check(cluster), found) {
        (Ok(layout), _) => Ok((layout, true)),
        (Err(Problem::Unreachable(why)), Some(found)) => {
            tracing::warn!("{why}; starting from the copy of the catalog");
            Ok((found.layout.clone(), false))
        }
        (Err(Problem::Unreachable(why) | Problem::Wrong(why)), _) => bail!("{why}"),
    }
}

/// The copy, if it is of this cluster. Events of another cluster must never get here.
fn fitting(found: Option<Found>, store: Option<&Spool>, cluster: &Cluster, layout: &Layout) -> Result<Option<Found>> {
    let Some(copy) = found else { return Ok(None) };
    if copy.layout == *layout {
        return Ok(Some(copy));
    }
    if store.is_some_and(|store| !store.is_empty()) {
        bail!(
            "the spool holds events of the cluster {}, and at {} is the cluster {}: start it once with that one, or choose another --spool",
            copy.layout.id,
            cluster.brokers,
            layout.id
        );
    }
    Ok(None)
}

impl NodeThreads {
    /// What was appended before is answered or on disk when it returns. Call it when the runtime is gone.
    pub fn join(self) -> Result<()> {
        self.stop_writing.cancel();
        let written = self.writing.join().map_err(|_| anyhow!("the log's writer panicked")).flatten();
        self.stop_reading.cancel();
        let mut read = Ok(());
        for thread in self.reading {
            let ended = thread.join().map_err(|_| anyhow!("a thread of the catalog panicked")).flatten();
            read = read.and(ended);
        }
        written.context("the log's writer ended")?;
        read.context("the catalog's reader ended")
    }
}
