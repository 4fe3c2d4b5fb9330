//! `clickback rebuild`: new report tables from the log, in the running process or without one.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use pipeline::{Log, LogEnd, lifecycle::Health};
use serde_json::json;

use crate::{
    cli::{Common, LogFormat, RebuildArgs},
    control::Running,
    out,
};

pub async fn run(common: &Common, args: RebuildArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (outcomes, online) = match args.cluster.cluster().await? {
        Some((cluster, layout, database)) => {
            (projector::cluster::rebuild::rebuild(&cluster, &layout, &database).await?, true)
        }
        None => match Running::on(&args.data).await? {
            Some(running) => (running.rebuild().await?.outcomes, true),
            None => (offline(&args.data).await?, false),
        },
    };
    let seconds = begun.elapsed().as_secs_f64();
    match common.log_format {
        LogFormat::Json => out::say_json(&json!({ "outcomes": outcomes, "seconds": seconds, "online": online })),
        LogFormat::Text => {
            let how = if online { "while serving" } else { "with no process running on the folder" };
            out::say(&format!("rebuilt from {outcomes} outcomes in {seconds:.1} s, {how}; the new tables are in use"))
        }
    }
}

async fn offline(data: &Path) -> anyhow::Result<u64> {
    anyhow::ensure!(data.exists(), "there is no folder {}", data.display());
    // Held to the end, so that no process starts on the tables meanwhile.
    let log = Log::open(data)?;
    let end = Arc::new(LogEnd::new(log.position().next));
    let (batches, taken) = mpsc::sync_channel(1);
    let beat = Health::new(Duration::MAX).component("projector");
    let projector = projector::run::spawn(data, log.reader()?, taken, end, beat)?;
    projector.rebuild().await?;
    let outcomes = *projector.visible.borrow();
    drop(batches);
    projector.join()?;
    Ok(outcomes)
}
