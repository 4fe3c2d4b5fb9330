//! `clickback ingest`: the public edge of a cluster.
//!
//! Owns: the order of start and stop of this role. Refuses: to go on when a part has ended; the next start sends what the
//! spool holds.

use std::net::SocketAddr;

use ingest::IngestConfig;
use pipeline::{
    kafka::{Node, NodeConfig, NodeThreads, SpoolConfig},
    lifecycle::{Beat, CancellationToken, Health, stop_signal},
    telemetry::Metrics,
};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::{
    admin,
    cli::{Common, IngestArgs, LogFormat},
    cluster::start_node,
    listener, out,
    serve::{DRAIN, LOOK, STUCK, public_url, second_signal},
};

const MIB: u64 = 1024 * 1024;

pub async fn run(common: &Common, args: IngestArgs) -> anyhow::Result<NodeThreads> {
    let public = listener::bind(args.public.ingest, "--ingest").await?;
    let private = listener::bind(args.admin, "--admin").await?;
    let addresses = (public.local_addr()?, private.local_addr()?);
    let health = Health::new(STUCK);
    let beat = health.component("ingest");
    let (stop, servers) = (CancellationToken::new(), TaskTracker::new());
    let router = admin::router(health.clone(), Metrics::install()?);
    servers.spawn(listener::serve(private, router, admin::CONNECTIONS, stop.clone()));

    let signal = stop_signal();
    let node = start(&args, health, &beat).await?;
    let config = IngestConfig { trusted_proxies: args.public.trusted_proxy.clone(), ..IngestConfig::default() };
    let (catalog, appender) = (node.catalog.clone(), node.appender.clone());
    servers.spawn(ingest::serve(public, config, catalog, appender, stop.clone()));
    beat.set_ready(true);
    let ended = match greet(common, &args, addresses, &node) {
        Ok(()) => tokio::select! {
            signal = signal => signal,
            () = watch(&node, &beat) => Ok(()),
        },
        unsaid => unsaid,
    };
    tracing::info!("stopping");
    beat.set_ready(false);
    tokio::spawn(async {
        second_signal().await;
    });
    stop.cancel();
    servers.close();
    if tokio::time::timeout(DRAIN, servers.wait()).await.is_err() {
        tracing::warn!("requests that were still under way are cut off");
    }
    beat.finish();
    ended.map(|()| node.threads())
}

async fn start(args: &IngestArgs, health: Health, beat: &Beat) -> anyhow::Result<Node> {
    let config = NodeConfig {
        cluster: args.kafka.cluster(),
        sealer: args.key.sealer()?,
        spool: Some(SpoolConfig { dir: args.spool.clone(), max_bytes: args.spool_size * MIB }),
        health,
    };
    start_node(config, beat).await
}

/// Returns when a part has ended by itself.
async fn watch(node: &Node, beat: &Beat) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        beat.beat();
        if let Some(what) = node.has_ended() {
            tracing::error!("{what} ended");
            return;
        }
    }
}

fn greet(
    common: &Common,
    args: &IngestArgs,
    (public, private): (SocketAddr, SocketAddr),
    node: &Node,
) -> anyhow::Result<()> {
    let url = public_url(&args.public, public);
    let (ingest, admin) = (format!("http://{public}"), format!("http://{private}"));
    if common.log_format == LogFormat::Json {
        return out::say_json(&json!({ "ready": true, "ingest": ingest, "admin": admin, "public_url": url,
                                      "cluster": node.layout.id }));
    }
    out::say(&format!(
        "\
clickback {version} ingest of the cluster {cluster}
  ingest   {ingest}   public: links and postbacks, as {url}
  admin    {admin}   private: health and metrics
  spool    {spool}
ready",
        version = env!("CARGO_PKG_VERSION"),
        cluster = node.layout.id,
        spool = args.spool.display(),
    ))
}
