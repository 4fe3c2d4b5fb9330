//! `clickback init`: the topics and tables of a cluster.

use anyhow::{Context, bail};
use pipeline::{
    Draft, Sealer, clock,
    kafka::{self, Cluster, Layout, Node, NodeConfig, Plan, Problem, Topic},
    lifecycle::Health,
    secrets::random_bits,
};
use projector::cluster::store::{self, Database};
use schemas::{EventBody, EventId};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cli::{Common, InitArgs, LogFormat},
    out, serve,
};

pub async fn run(common: &Common, args: InitArgs) -> anyhow::Result<()> {
    let cluster = args.kafka.cluster();
    let database = args.scylla.as_ref().map(|nodes| Database::new(nodes, &args.kafka.topic_prefix));
    let replication = args.replication.map(u32::from);
    let (rules, key) = (args.rules, args.key.clone());
    if let Some(unknown) = rules.filter(|rules| !matcher::RULES.contains(rules)) {
        bail!(
            "this build knows the rule versions up to {}, and not {unknown}: run `init --rules {unknown}` of a build that knows it",
            matcher::RULES.end()
        );
    }
    let asked = cluster.clone();
    let layout = spawn_blocking(move || topics(&args, &asked)).await??;
    if let Some(database) = &database {
        store::init(database, &layout.id.to_string(), replication).await?;
    }
    if let Some(rules) = rules {
        switch_rules(&cluster, key.sealer()?, &layout, rules).await?;
    }
    greet(common, &cluster, &layout, database.as_ref())
}

/// One event in each partition. A matcher that does not know the version leaves the partition there; one that had switched
/// before changes nothing.
async fn switch_rules(cluster: &Cluster, sealer: Sealer, layout: &Layout, rules: u32) -> anyhow::Result<()> {
    let config = NodeConfig { cluster: cluster.clone(), sealer, spool: None, health: Health::new(serve::STUCK) };
    let node = spawn_blocking(move || Node::start(config)).await??;
    let now = clock::now();
    let switch = |shard| Draft {
        id: EventId::new(now, shard, random_bits()),
        tenant: String::new(),
        time: now,
        shard,
        body: EventBody::Rules(rules),
    };
    let switched = node.appender.append_all((0..layout.partitions).map(switch).collect()).await;
    spawn_blocking(move || node.threads().join()).await??;
    switched.context("the rules could not be switched on in every partition: run it again")?;
    tracing::info!("rule version {rules} is on in {} partitions", layout.partitions);
    Ok(())
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
