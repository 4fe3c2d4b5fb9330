//! `clickback demo`: a process as `run` starts it, and around it a made-up world that speaks HTTP to it.
//!
//! Owns: the tenant `demo`. Refuses: every short cut; what the demo knows, it learned over the same listeners as
//! everybody else.

mod board;
mod client;
mod dice;
mod operator;
mod stage;
mod story;
mod traffic;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use pipeline::lifecycle::{CancellationToken, stop_signal};
use schemas::catalog::Scope;
use serde_json::{Value, json};

use self::{
    board::Board,
    client::{Client, reachable},
    dice::Dice,
    stage::Account,
    story::{OldClick, Teller},
    traffic::{Tally, Traffic},
};
use crate::{
    cli::{Common, DemoArgs, LogFormat},
    keys::Grant,
    out,
    serve::{Process, Start, Threads},
};

const TENANT: &str = "demo";
/// Every start replaces the key of the one before, so that keys do not pile up.
const KEY_ID: &str = "demo";
const OLD_CLICKS: u64 = 60;

pub async fn run(common: &Common, args: DemoArgs) -> anyhow::Result<Threads> {
    let process = Process::start(Start { data: &args.data, serve: &args.serve, first_key: false }).await?;
    let stop = CancellationToken::new();
    let played = tokio::select! {
        played = play(common, &args, &process, stop.clone()) => played,
        () = process.ended() => Ok(()),
    };
    stop.cancel();
    let threads = process.stop().await;
    played.map(|()| threads)
}

async fn play(common: &Common, args: &DemoArgs, process: &Process, stop: CancellationToken) -> anyhow::Result<()> {
    let key = process.inside.put_key(&Grant::fixed(TENANT, KEY_ID, "demo", Scope::Admin)).await?;
    let client = Arc::new(Client::new(process.ingest, process.api, &process.public_url, &key)?);
    let accounts = stage::set(&client).await.context("the demo's accounts")?;
    let mut dice = Dice::new(u64::from_be_bytes(pipeline::secrets::random::<8>()));
    let since = pipeline::clock::now();
    let old = import(&client, &accounts, &mut dice).await.context("the demo's imported clicks")?;
    greet(common, args, process, &key, &accounts)?;

    let tally = Arc::new(Tally::default());
    let traffic = Traffic::new(client.clone(), tally.clone(), Teller::new(accounts, old, dice));
    let playing = tokio::spawn(traffic.play(args.rate, stop.clone()));
    let mut board = Board::new(&client, &tally, since, common.log_format == LogFormat::Json);
    let shown = tokio::select! {
        shown = watch(&mut board) => shown,
        ended = ended(args.seconds) => ended,
    };
    stop.cancel();
    playing.await?;
    shown?;
    board.show().await?;
    if common.log_format == LogFormat::Text {
        out::say(&format!("\nThe demo ends. Its folder {} stays; delete it to begin anew.", args.data.display()))?;
    }
    Ok(())
}

async fn watch(board: &mut Board<'_>) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(board.pace());
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    look.tick().await;
    loop {
        look.tick().await;
        board.show().await?;
    }
}

/// A signal, or the time that was asked for.
async fn ended(seconds: u64) -> anyhow::Result<()> {
    if seconds == 0 {
        return stop_signal().await;
    }
    tokio::select! {
        signal = stop_signal() => signal,
        () = tokio::time::sleep(Duration::from_secs(seconds)) => Ok(()),
    }
}

/// Clicks of another tracker, from yesterday to long ago: late postbacks come for them.
async fn import(client: &Client, accounts: &[Account], dice: &mut Dice) -> anyhow::Result<Vec<OldClick>> {
    let (mut old, mut clicks) = (Vec::new(), Vec::new());
    let run = dice.word(6);
    let now = pipeline::clock::now();
    for n in 0..OLD_CLICKS {
        let account = dice.skewed(accounts.len());
        let id = format!("old-{run}-{n}");
        let time = now.plus_ms(-(dice.between(1, 130) as i64) * schemas::time::DAY_MS);
        clicks.push(json!({ "account": accounts[account].id, "id": id, "time": time, "sub1": "before" }));
        old.push(OldClick { account, id });
    }
    let answer: Value = client.post("/v1/clicks", &json!({ "clicks": clicks })).await?;
    anyhow::ensure!(answer["accepted"] == OLD_CLICKS, "not all were accepted: {answer}");
    Ok(old)
}

fn greet(common: &Common, args: &DemoArgs, process: &Process, key: &str, accounts: &[Account]) -> anyhow::Result<()> {
    let (ingest, api) = (reachable(process.ingest), reachable(process.api));
    if common.log_format == LogFormat::Json {
        return out::say_json(&json!({
            "ready": true, "ingest": format!("http://{ingest}"), "api": format!("http://{api}"),
            "public_url": process.public_url, "tenant": TENANT, "api_key": key,
        }));
    }
    let link = accounts.iter().flat_map(|a| &a.links).next().map_or("", String::as_str);
    let authorization = format!("-H 'Authorization: Bearer {key}'");
    out::say(&format!(
        "\
clickback demo on {data}
  ingest   http://{ingest}   public: links and postbacks
  api      http://{api}   private: reports and setup
  api key  {key}   admin of the tenant `{TENANT}`, until the next start

Try these in another terminal:
  curl -s {authorization} 'http://{api}/v1/reports/conversions?group_by=account'
  curl -s {authorization} 'http://{api}/v1/reports/postbacks?outcome=rejected&limit=5'
  curl -i '{link}?sub1=hello'

{count} accounts on as many programs, {rate} requests a second. Ctrl-C ends it; the folder stays.",
        data = args.data.display(),
        count = accounts.len(),
        rate = args.rate,
    ))
}
