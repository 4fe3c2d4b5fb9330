//! `clickback init`: the topics and tables of a cluster.

use anyhow::{Context, bail};
use pipeline::{
    Sealer,
    kafka::{self, Cluster, Layout, Plan, Problem, Topic},
};
use projector::cluster::store::{self, Database};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cli::{Common, InitArgs, LogFormat},
    out,
};

pub async fn run(common: &Common, args: InitArgs) -> anyhow::Result<()> {
    let cluster = args.kafka.cluster();
    let database = args.scylla.as_ref().map(|nodes| Database::new(nodes, &args.kafka.topic_prefix));
    let replication = args.replication.map(u32::from);
    let asked = cluster.clone();
    let layout = spawn_blocking(move || topics(&args, &asked)).await??;
    if let Some(database) = &database {
        store::init(database, &layout.id.to_string(), replication).await?;
    }
    greet(common, &cluster, &layout, database.as_ref())
}

fn topics(args: &InitArgs, cluster: &Cluster) -> anyhow::Result<Layout> {
    let sealer = sealer(args, cluster)?;
    let plan = Plan { partitions: args.partitions, replication: args.replication };
    kafka::init(cluster, plan, &sealer).context("the topics could not be made")
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

fn greet(common: &Common, cluster: &Cluster, layout: &Layout, database: Option<&Database>) -> anyhow::Result<()> {
    let topics: Vec<String> = Topic::ALL.iter().map(|topic| cluster.topic(*topic)).collect();
    match common.log_format {
        LogFormat::Json => {
            let (id, partitions) = (layout.id, layout.partitions);
            let keyspace = database.map(|database| &database.keyspace);
            out::say_json(&json!({ "cluster": id, "partitions": partitions, "topics": topics, "keyspace": keyspace }))
        }
        LogFormat::Text => {
            let tables = database.map(|database| format!("; tables in {}", database.keyspace)).unwrap_or_default();
            let (id, partitions) = (layout.id, layout.partitions);
            out::say(&format!("cluster {id} with {partitions} partitions: {}{tables}", topics.join(", ")))
        }
    }
}
