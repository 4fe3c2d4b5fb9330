//! The answer's p99 at half of the top load, against one fdatasync on the same disk and the bare handler's p99 at that
//! load; and how long a postback takes until it is in the report.

use std::{process::Command, sync::Arc, time::Instant};

use anyhow::Result;

use super::pipeline::full_speed;
use crate::{
    Options, Place,
    clickback::Clickback,
    http::Api,
    load::{self, Plan},
    median,
    page::{Section, number},
    process::{Server, fdatasync_ms},
    workload,
};

/// Seconds of load per run.
pub const SECONDS: f64 = 10.0;

struct Run {
    rate: f64,
    ours: load::Outcome,
    bare: load::Outcome,
    fdatasync: f64,
    visible: Vec<f64>,
}

impl Run {
    fn ratio(&self) -> f64 {
        self.ours.quantile_ms(0.99) / (self.fdatasync + self.bare.quantile_ms(0.99))
    }
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        runs.push(once(options, place).await?);
        let last = &runs[run - 1];
        eprintln!(
            "run {run}: p99 {} ms at {}/s, ratio {}",
            number(last.ours.quantile_ms(0.99)),
            number(last.rate),
            number(last.ratio())
        );
    }
    Ok(section(&runs))
}

async fn once(options: &Options, place: &Place) -> Result<Run> {
    let folder = tempfile::tempdir_in(&place.folder)?;
    let clickback = Clickback::start(&place.clickback, &folder.path().join("data"))?;
    let account = clickback.account(100).await?;
    let clicks = clickback.clicks(&account, options.clicks, options.connections).await?;

    // The top load, with transactions of their own.
    let hits = workload::hits(options.hits.min(100_000), options.clicks);
    let top = full_speed(options, &clickback.ingest, workload::postbacks(&account.token, &hits, &clicks)).await?;
    let rate = top.per_second() / 2.0;
    clickback.totals().await?;

    let mut paced = workload::hits((rate * SECONDS) as usize, options.clicks);
    paced.iter_mut().for_each(|h| h.tid += 10_000_000);
    let requests = Arc::new(workload::postbacks(&account.token, &paced, &clicks));
    let before = fdatasync_ms(&place.folder)?;
    let at_rate = plan(options, &clickback.ingest, rate);
    let ours = load::send(&at_rate, requests.clone(), Arc::new(|_, _| ()));
    let probe = Probe {
        ingest: clickback.ingest.clone(),
        api: clickback.api.clone(),
        token: account.token,
        click: clicks[0].clone(),
        name: "probe".to_owned(),
    };
    let (ours, visible) = tokio::join!(ours, probe.run());
    let ours = ours?;
    let fdatasync = (before + fdatasync_ms(&place.folder)?) / 2.0;
    drop(clickback);

    let server = Server::start(&mut Command::new(&place.bare), 1)?;
    let bare = load::send(&plan(options, &server.greeting[0], rate), requests, Arc::new(|_, _| ())).await?;
    Ok(Run { rate, ours, bare, fdatasync, visible: visible? })
}

fn plan<'a>(options: &Options, address: &'a str, rate: f64) -> Plan<'a> {
    Plan { address, connections: options.connections, rate: Some(rate), status: "HTTP/1.1 200" }
}

/// While the load runs: sends a postback and asks for the report with it, again and again.
pub struct Probe {
    pub ingest: String,
    pub api: Api,
    pub token: String,
    pub click: String,
    /// Begins its transaction ids.
    pub name: String,
}

impl Probe {
    /// Milliseconds from each answer until its postback was in the report.
    pub async fn run(self) -> Result<Vec<f64>> {
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed().as_secs_f64() < SECONDS * 0.9 {
            let query = format!("clickId={}&event=deposit&tid={}{}&earning=1", self.click, self.name, times.len());
            let hit = workload::request(&format!("/post-back/{}", self.token), &query);
            let plan = Plan { address: &self.ingest, connections: 1, rate: None, status: "HTTP/1.1 200" };
            let (_, receipts) = load::send_for_header(&plan, Arc::new(vec![hit]), "x-clickback-receipt").await?;
            let accepted = Instant::now();
            self.api.get(&format!("/v1/reports/postbacks?limit=1&after={}&wait=30s", receipts[0])).await?;
            times.push(accepted.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(times)
    }
}

fn section(runs: &[Run]) -> Section {
    let of = |figure: fn(&Run) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let rows = runs.iter().map(|r| {
        vec![
            number(r.rate),
            number(r.ours.quantile_ms(0.5)),
            number(r.ours.quantile_ms(0.99)),
            number(r.ours.quantile_ms(0.999)),
            number(r.bare.quantile_ms(0.99)),
            number(r.fdatasync),
            number(r.ratio()),
        ]
    });
    let mut visible: Vec<f64> = runs.iter().flat_map(|r| r.visible.iter().copied()).collect();
    visible.sort_by(f64::total_cmp);
    let p99 = visible.get(visible.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Section {
        title: "Answer at half of the top load".to_owned(),
        head: [
            "requests/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "bare p99 ms",
            "fdatasync ms",
            "p99 ÷ (fdatasync + bare p99)",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
        results: vec![
            format!(
                "**p99 ÷ (one fdatasync + bare p99): {:.1}**, median of {} runs of {SECONDS} s (at most 4, aim 2)",
                of(Run::ratio),
                runs.len()
            ),
            format!(
                "accepted → in the report under that load: median {} ms, **p99 {} ms** of {} probes (at most 2 000 ms, aim 1 000 ms)",
                number(median(&visible)),
                number(p99),
                visible.len()
            ),
        ],
    }
}
