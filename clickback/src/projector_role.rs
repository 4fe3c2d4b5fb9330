//! `clickback projector`: keeps the report tables of a cluster, and serves the API.
//!
//! Owns: the order of start and stop of this role.

use std::{net::SocketAddr, thread::JoinHandle};

use anyhow::anyhow;
use pipeline::{
    kafka::{Node, NodeConfig, NodeThreads},
    lifecycle::{CancellationToken, Health, stop_signal},
    telemetry::Metrics,
};
use projector::{
    api::{self, ApiConfig, ApiState},
    cluster::{self, Projector, past, store::Database},
    fresh::Freshness,
    report::Reports,
    reprocess::Source,
};
use schemas::bounds;
use serde_json::json;
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::{
    cli::{Common, LogFormat, ProjectorArgs},
    cluster::start_node,
    listener, out,
    serve::{DRAIN, LOOK, STUCK, admin_key, second_signal},
};

pub async fn run(common: &Common, args: ProjectorArgs) -> anyhow::Result<NodeThreads> {
    let listener = listener::bind(args.api, "--api").await?;
    let address = listener.local_addr()?;
    let metrics = Metrics::install()?;
    let health = Health::new(STUCK);
    let signal = stop_signal();
    let (stop, servers) = (CancellationToken::new(), TaskTracker::new());

    let beat = health.component("projector");
    let config = NodeConfig {
        cluster: args.kafka.cluster(),
        sealer: args.key.sealer()?,
        // Who sets something up waits for Kafka, and hears when it does not answer.
        spool: None,
        health: health.clone(),
    };
    let node = start_node(config, &beat).await?;
    let tables = cluster::start(cluster::Parts {
        cluster: args.kafka.cluster(),
        layout: node.layout.clone(),
        database: args.database(),
        beat,
        stop: stop.clone(),
    })
    .await?;
    let state = ApiState::new(ApiConfig {
        catalog: node.catalog.clone(),
        appender: node.appender.clone(),
        reports: Reports::cluster(tables.store.clone(), tables.positions.clone(), Handle::current()),
        fresh: Freshness::cluster(&args.kafka.cluster(), &node.layout, tables.store.clone(), tables.positions.clone())?,
        past: Source::Cluster(past::Source {
            cluster: args.kafka.cluster(),
            partitions: node.layout.partitions,
            store: tables.store.clone(),
            runtime: Handle::current(),
        }),
        public_url: public_url(&args),
        admin: admin_key(),
        health,
        metrics,
    });
    api::resume_reprocesses(&state);
    servers.spawn(listener::serve(listener, api::router(state), bounds::API_CONNECTIONS, stop.clone()));
    let ended = match greet(common, &args, address, &node) {
        Ok(()) => tokio::select! {
            signal = signal => signal,
            () = watch(&node, &tables.thread) => Ok(()),
        },
        unsaid => unsaid,
    };
    tracing::info!("stopping");
    tokio::spawn(second_signal());
    stop.cancel();
    servers.close();
    if tokio::time::timeout(DRAIN, servers.wait()).await.is_err() {
        tracing::warn!("requests that were still under way are cut off");
    }
    let Projector { thread, .. } = tables;
    spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the projector panicked"))??;
    ended.map(|()| node.threads())
}

/// Returns when a part has ended by itself.
async fn watch(node: &Node, thread: &JoinHandle<anyhow::Result<()>>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        if let Some(what) = node.has_ended() {
            tracing::error!("{what} ended");
            return;
        }
        if thread.is_finished() {
            tracing::error!("the projector ended");
            return;
        }
    }
}

/// Where `ingest` is reached; this process does not know by itself.
fn public_url(args: &ProjectorArgs) -> String {
    args.public_url.clone().unwrap_or_else(|| {
        let usual = "http://127.0.0.1:8080".to_owned();
        tracing::warn!("links and postback URLs begin with {usual}: set --public-url to where `ingest` is reached");
        usual
    })
}

fn greet(common: &Common, args: &ProjectorArgs, address: SocketAddr, node: &Node) -> anyhow::Result<()> {
    let (api, cluster) = (format!("http://{address}"), node.layout.id);
    if common.log_format == LogFormat::Json {
        return out::say_json(&json!({ "ready": true, "api": api, "cluster": cluster }));
    }
    out::say(&format!(
        "\
clickback {version} projector of the cluster {cluster}
  api      {api}   private: reports and setup
  tables   {keyspace} at {nodes}
ready",
        version = env!("CARGO_PKG_VERSION"),
        keyspace = args.database().keyspace,
        nodes = args.scylla.scylla,
    ))
}

impl ProjectorArgs {
    fn database(&self) -> Database {
        self.scylla.database(&self.kafka)
    }
}
