//! `clickback matcher`: one of the processes that share a cluster's partitions.

use anyhow::anyhow;
use matcher::cluster::{self, Parts};
use pipeline::{
    kafka,
    lifecycle::{CancellationToken, Health, stop_signal},
    telemetry::Metrics,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    admin,
    cli::{Common, LogFormat, MatcherArgs},
    listener, out,
    serve::{LOOK, STUCK},
};

pub async fn run(common: &Common, args: MatcherArgs) -> anyhow::Result<()> {
    without_huge_pages();
    let stopped = stop_signal();
    let listener = listener::bind(args.admin, "--admin").await?;
    let address = listener.local_addr()?;
    let metrics = Metrics::install()?;
    let health = Health::new(STUCK);
    let cluster = args.kafka.cluster();
    let (asked, beat) = (cluster.clone(), health.component("matcher"));
    let layout = spawn_blocking(move || kafka::check(&asked)).await??;
    let stop = CancellationToken::new();
    let id = layout.id;
    let thread = cluster::start(Parts { cluster, layout, state: args.state.clone(), beat, stop: stop.clone() })?;
    let router = admin::router(health, metrics);
    let served = tokio::spawn(listener::serve(listener, router, admin::CONNECTIONS, stop.clone()));
    let admin = format!("http://{address}");
    if common.log_format == LogFormat::Json {
        out::say_json(&json!({ "ready": true, "admin": admin, "cluster": id }))?;
    } else {
        out::say(&format!(
            "\
clickback {version} matcher of the cluster {id}
  admin    {admin}   private: health and metrics
  state    {state}
ready",
            version = env!("CARGO_PKG_VERSION"),
            state = args.state.display(),
        ))?;
    }
    let signal = tokio::select! {
        signal = stopped => signal,
        () = finished(&thread) => Ok(()),
    };
    stop.cancel();
    served.await?;
    spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the matcher panicked"))??;
    signal
}

/// The clients of each partition have a dozen threads, and each thread a little memory of its own in many places. The
/// allocator asks for huge pages, so that twice the memory would be used, and cleared first.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay as they are");
    }
}

async fn finished(thread: &std::thread::JoinHandle<anyhow::Result<()>>) {
    let mut look = tokio::time::interval(LOOK);
    while !thread.is_finished() {
        look.tick().await;
    }
}
