//! `clickback init`: the topics of a cluster.

use anyhow::{Context, bail};
use pipeline::{
    Sealer,
    kafka::{self, Cluster, Layout, Plan, Problem, Topic},
};
use serde_json::json;

use crate::{
    cli::{Common, InitArgs, LogFormat},
    out,
};

pub fn run(common: &Common, args: &InitArgs) -> anyhow::Result<()> {
    let cluster = args.kafka.cluster();
    if args.scylla.is_some() {
        tracing::warn!("--scylla is not used yet: only topics are made");
    }
    let sealer = sealer(args, &cluster)?;
    let plan = Plan { partitions: args.partitions, replication: args.replication };
    let layout = kafka::init(&cluster, plan, &sealer).context("the topics could not be made")?;
    greet(common, &cluster, &layout)
}

/// A key is made for a new cluster only: for one that is there, another key would be of no use.
fn sealer(args: &InitArgs, cluster: &Cluster) -> anyhow::Result<Sealer> {
    let Some(path) = args.key.key_file.as_deref().filter(|path| !path.exists()) else { return args.key.sealer() };
    match kafka::check(cluster) {
        Ok(layout) => bail!(
            "the cluster {} is there already, with the key that it was made with: give that one instead of {}, which does not exist",
            layout.id,
            path.display()
        ),
        Err(Problem::Unreachable(why)) => bail!("{why}"),
        Err(Problem::Wrong(_)) => {
            tracing::info!("the key file {} is made", path.display());
            Sealer::open_or_create_file(path)
        }
    }
}

fn greet(common: &Common, cluster: &Cluster, layout: &Layout) -> anyhow::Result<()> {
    let topics: Vec<String> = Topic::ALL.iter().map(|topic| cluster.topic(*topic)).collect();
    match common.log_format {
        LogFormat::Json => {
            let (id, partitions) = (layout.id, layout.partitions);
            out::say_json(&json!({ "cluster": id, "partitions": partitions, "topics": topics }))
        }
        LogFormat::Text => {
            out::say(&format!("cluster {} with {} partitions: {}", layout.id, layout.partitions, topics.join(", ")))
        }
    }
}
