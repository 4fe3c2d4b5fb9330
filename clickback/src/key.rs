//! `clickback key create`: through the process that runs on the folder, else straight into its catalog; or into the
//! catalog of a cluster.

use std::path::Path;

use anyhow::{Context, bail};
use pipeline::{
    Applied, Catalog, Log, Sealer,
    kafka::{Cluster, Node, NodeConfig},
    lifecycle::Health,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cli::{Common, KeyCreateArgs, LogFormat},
    control::{KeyRequest, Running},
    keys::Grant,
    out, serve,
};

pub async fn create(common: &Common, args: KeyCreateArgs) -> anyhow::Result<()> {
    let request = KeyRequest { tenant: args.tenant, name: args.name, scope: args.scope };
    let key = match args.kafka {
        Some(kafka) => {
            let sealer = args.key.sealer()?;
            in_cluster(Cluster::with_prefix(&kafka, &args.topic_prefix), sealer, &request).await?
        }
        None => match Running::on(&args.data).await? {
            Some(running) => running.create_key(&request).await?.key,
            None => offline(&args.data, &request)?,
        },
    };
    match common.log_format {
        LogFormat::Json => out::say_json(&json!({ "tenant": request.tenant, "scope": request.scope, "key": key })),
        LogFormat::Text => out::say(&key),
    }
}

async fn in_cluster(cluster: Cluster, sealer: Sealer, request: &KeyRequest) -> anyhow::Result<String> {
    let config = NodeConfig { cluster, sealer, spool: None, health: Health::new(serve::STUCK) };
    let node = spawn_blocking(move || Node::start(config)).await??;
    let grant = Grant::new(&request.tenant, &request.name, request.scope);
    let key = grant.draw();
    let record = grant.record(&node.catalog.view(), &key);
    let applied = node.appender.append_catalog(record).await;
    spawn_blocking(move || node.threads().join()).await??;
    match applied.context("the key cannot be recorded")? {
        Applied::Current => Ok(key),
        Applied::Stale => bail!("the catalog did not take the key"),
    }
}

fn offline(data: &Path, request: &KeyRequest) -> anyhow::Result<String> {
    if !data.exists() {
        tracing::warn!(data = %data.display(), "the folder is new");
    }
    let mut log = Log::open(data)?;
    let catalog = serve::load_catalog(data, &log)?;
    append(&mut log, &catalog, &Grant::new(&request.tenant, &request.name, request.scope))
}

fn append(log: &mut Log, catalog: &Catalog, grant: &Grant) -> anyhow::Result<String> {
    let key = grant.draw();
    let record = grant.record(&catalog.view(), &key);
    log.append(&[], &[(log.catalog_next(), serde_json::to_vec(&record)?)]).context("the key cannot be recorded")?;
    match catalog.apply(&record) {
        Applied::Current => Ok(key),
        Applied::Stale => bail!("the catalog did not take the key"),
    }
}
