//! `clickback run`.

use pipeline::lifecycle::stop_signal;
use serde_json::json;

use crate::{
    cli::{Common, LogFormat, RunArgs},
    keys::DEFAULT_TENANT,
    out,
    serve::{Process, Start, Threads},
};

pub async fn run(common: &Common, args: RunArgs) -> anyhow::Result<Threads> {
    let process = Process::start(Start { data: &args.data, serve: &args.serve, first_key: true }).await?;
    let stop = stop_signal();
    let ended = match greet(common, &args, &process) {
        Ok(()) => tokio::select! {
            signal = stop => signal,
            () = process.ended() => Ok(()),
        },
        unsaid => unsaid,
    };
    let threads = process.stop().await;
    ended.map(|()| threads)
}

fn greet(common: &Common, args: &RunArgs, process: &Process) -> anyhow::Result<()> {
    let (ingest, api) = (format!("http://{}", process.ingest), format!("http://{}", process.api));
    if common.log_format == LogFormat::Json {
        if let Some(key) = &process.first_key {
            out::say_json(&json!({ "admin_key": key, "tenant": DEFAULT_TENANT }))?;
        }
        return out::say_json(
            &json!({ "ready": true, "ingest": ingest, "api": api, "public_url": process.public_url }),
        );
    }
    if let Some(key) = &process.first_key {
        out::say(&format!("admin key of the tenant `{DEFAULT_TENANT}`, shown only this once:\n  {key}\n"))?;
    }
    out::say(&format!(
        "\
clickback {version} on {data}
  ingest   {ingest}   public: links and postbacks, as {public_url}
  api      {api}   private: reports and setup
ready",
        version = env!("CARGO_PKG_VERSION"),
        data = args.data.display(),
        public_url = process.public_url,
    ))
}
