//! The whole pipeline (durable, matched, deduplicated, in the report) in requests per CPU-second, against a bare axum
//! handler and against the same job on axum and PostgreSQL.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    Options, Place,
    clickback::Clickback,
    load::{self, Outcome, Plan},
    median,
    page::{Section, number},
    postgres::Postgres,
    process::Server,
    workload::{self, Hit},
};

/// One run of one side.
pub struct Run {
    pub outcome: Outcome,
    pub cpu: Duration,
}

impl Run {
    pub fn per_cpu_second(&self) -> f64 {
        self.outcome.requests as f64 / self.cpu.as_secs_f64()
    }
}

pub async fn full_speed(options: &Options, address: &str, requests: Vec<String>) -> Result<Outcome> {
    let plan = Plan { address, connections: options.connections, rate: None, status: "HTTP/1.1 200" };
    load::send(&plan, Arc::new(requests), Arc::new(|_, _| ())).await
}

pub async fn bare(options: &Options, place: &Place, requests: Vec<String>) -> Result<Run> {
    let server = Server::start(&mut Command::new(&place.bare), 1)?;
    let before = server.cpu()?;
    let outcome = full_speed(options, &server.greeting[0], requests).await?;
    Ok(Run { outcome, cpu: server.cpu()? - before })
}

async fn ours(options: &Options, place: &Place, hits: &[Hit]) -> Result<Run> {
    let folder = tempfile::tempdir_in(&place.folder)?;
    let clickback = Clickback::start(&place.clickback, &folder.path().join("data"))?;
    let account = clickback.account(100).await?;
    let clicks = clickback.clicks(&account, options.clicks, options.connections).await?;
    clickback.totals().await?;
    let requests = workload::postbacks(&account.token, hits, &clicks);
    let before = clickback.server.cpu()?;
    let outcome = full_speed(options, &clickback.ingest, requests).await?;
    // Until the report shows everything, so that nothing that was put off is left out.
    clickback.totals().await?;
    let cpu = clickback.server.cpu()? - before;
    clickback.check(&workload::expected(hits)).await?;
    Ok(Run { outcome, cpu })
}

async fn postgres(options: &Options, place: &Place, database: &Postgres, hits: &[Hit]) -> Result<Run> {
    let clicks: Vec<String> = (0..options.clicks).map(|n| format!("06h04h78035{n:015}")).collect();
    database.prepare(&clicks).await?;
    let server = database.serve(&place.postgres_peer, options.postgres_connections)?;
    let requests = workload::postbacks("token", hits, &clicks);
    let before = server.cpu()?;
    let outcome = full_speed(options, &server.greeting[0], requests).await?;
    let cpu = server.cpu()? - before;
    database.check(hits).await?;
    Ok(Run { outcome, cpu })
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let hits = workload::hits(options.hits, options.clicks);
    let nobodys: Vec<String> = (0..options.clicks).map(|n| format!("06h04h78035{n:015}")).collect();
    let database = Postgres::start(&place.folder)?;
    database.connect().await?;
    let (mut bares, mut oursides, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=options.runs {
        bares.push(bare(options, place, workload::postbacks("token", &hits, &nobodys)).await?);
        oursides.push(ours(options, place, &hits).await?);
        peers.push(postgres(options, place, &database, &hits).await?);
        eprintln!(
            "run {run}: bare {}, clickback {}, PostgreSQL {} per CPU-second",
            number(bares[run - 1].per_cpu_second()),
            number(oursides[run - 1].per_cpu_second()),
            number(peers[run - 1].per_cpu_second())
        );
    }
    Ok(section(
        options,
        &[("bare axum handler", bares), ("clickback run", oursides), ("axum + PostgreSQL, batched", peers)],
    ))
}

fn section(options: &Options, sides: &[(&str, Vec<Run>); 3]) -> Section {
    let of = |side: usize, figure: fn(&Run) -> f64| median(&sides[side].1.iter().map(figure).collect::<Vec<_>>());
    let ratio = |a: usize, b: usize| of(a, Run::per_cpu_second) / of(b, Run::per_cpu_second);
    let rows = (0..3).map(|side| {
        let runs: Vec<String> = sides[side].1.iter().map(|r| number(r.per_cpu_second())).collect();
        vec![
            sides[side].0.to_owned(),
            number(of(side, Run::per_cpu_second)),
            runs.join(", "),
            number(of(side, |r| r.outcome.per_second())),
            number(of(side, |r| r.outcome.quantile_ms(0.5))),
            number(of(side, |r| r.outcome.quantile_ms(0.99))),
        ]
    });
    Section {
        title: "Whole pipeline per CPU-second".to_owned(),
        head: ["", "requests per CPU-second (median)", "runs", "requests/s (wall)", "p50 ms", "p99 ms"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        results: vec![
            format!(
                "{} postbacks on {} clicks per run, {} connections, {} runs, alternating; every result equals the oracle's.",
                number(options.hits as f64),
                number(options.clicks as f64),
                options.connections,
                options.runs
            ),
            format!("**clickback ÷ bare axum: {:.2}** (at least 0.35, aim 0.50)", ratio(1, 0)),
            format!("axum + PostgreSQL ÷ bare axum: {:.2}", ratio(2, 0)),
            format!("**clickback ÷ axum + PostgreSQL: {:.2} ×** (at least 1.4 ×, aim 2 ×)", ratio(1, 2)),
        ],
    }
}
