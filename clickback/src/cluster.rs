//! What the commands of a cluster have in common: where it is, and its key.

use anyhow::{Context, bail};
use pipeline::{
    Sealer,
    kafka::{self, Cluster, Layout, Node, NodeConfig},
    lifecycle::Beat,
};
use projector::cluster::store::Database;
use tokio::task::spawn_blocking;

use crate::{
    cli::{KafkaArgs, KeyFileArgs, MaybeClusterArgs, ScyllaArgs},
    serve::LOOK,
};

const KEY: &str = "CLICKBACK_KEY";

impl KafkaArgs {
    pub fn cluster(&self) -> Cluster {
        Cluster::with_prefix(&self.kafka, &self.topic_prefix)
    }
}

impl MaybeClusterArgs {
    /// Where the cluster is, if one is meant. Fails if its topics are not right.
    pub async fn cluster(&self) -> anyhow::Result<Option<(Cluster, Layout, Database)>> {
        let (Some(kafka), Some(scylla)) = (&self.kafka, &self.scylla) else { return Ok(None) };
        let cluster = Cluster::with_prefix(kafka, &self.topic_prefix);
        let asked = cluster.clone();
        let layout = spawn_blocking(move || kafka::check(&asked)).await??;
        Ok(Some((cluster, layout, Database::new(scylla, &self.topic_prefix))))
    }
}

impl ScyllaArgs {
    pub fn database(&self, kafka: &KafkaArgs) -> Database {
        Database::new(&self.scylla, &kafka.topic_prefix)
    }
}

impl KeyFileArgs {
    /// Whether a key was given in any way.
    pub fn is_given(&self) -> bool {
        self.key_file.is_some() || configured().is_some()
    }

    /// The key in the file, else the one in the environment.
    pub fn sealer(&self) -> anyhow::Result<Sealer> {
        match (&self.key_file, configured()) {
            (Some(path), _) => match Sealer::open_file(path)? {
                Some(sealer) => Ok(sealer),
                None => bail!(
                    "there is no key file {}: copy the one that `clickback init` was run with, on this machine too",
                    path.display()
                ),
            },
            (None, Some(key)) => Sealer::from_text(key.trim()).with_context(|| format!("the variable {KEY}")),
            (None, None) => bail!(
                "the key of the cluster is missing: name its file with --key-file, or set {KEY}; `clickback init` makes one"
            ),
        }
    }
}

/// Starts the writing side of a process. Reading a large catalog takes its time, and is no standstill.
pub async fn start_node(config: NodeConfig, beat: &Beat) -> anyhow::Result<Node> {
    let mut starting = spawn_blocking(move || Node::start(config));
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            started = &mut starting => return started.context("the start was interrupted")?,
            _ = look.tick() => beat.beat(),
        }
    }
}

fn configured() -> Option<String> {
    std::env::var(KEY).ok().filter(|key| !key.is_empty())
}
