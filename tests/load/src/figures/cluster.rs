//! A whole cluster under a skewed load: how long a postback takes until it is in the report, and how many cells of the
//! report are written for each conversion.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::latency::{Probe, SECONDS};
use crate::{
    Options, Place,
    clickback::{check, clicks, totals},
    cluster::{Cluster, Servers},
    load::{self, Plan},
    median,
    page::{Section, number},
    workload::{self, Dice, Expected},
};

const LINKS: usize = 10_000;
const CLICKS: usize = 20_000;
/// Probes side by side.
const PROBES: usize = 8;
const CELLS: &str = "clickback_projector_cells_written_total";
const BATCHES: usize = 3;

/// Links with Zipf's exponent 1: the first one twice as often as the second.
fn skewed(count: usize) -> Vec<usize> {
    let mut sums = Vec::with_capacity(LINKS);
    let mut sum = 0.0;
    for rank in 1..=LINKS {
        sum += 1.0 / rank as f64;
        sums.push(sum);
    }
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut draw = || dice.below(1 << 32) as f64 / (1u64 << 32) as f64 * sum;
    (0..count)
        .map(|_| {
            let at = draw();
            sums.partition_point(|sum| *sum < at).min(LINKS - 1)
        })
        .collect()
}

struct Batch {
    rate: f64,
    visible: Vec<f64>,
    cells: f64,
    conversions: f64,
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let servers = Servers::start(true)?;
    let (cluster, account) = Cluster::with_account(place, &servers, options.partitions, LINKS).await?;
    let (ingest, _matcher) = (cluster.ingest()?, cluster.matcher()?);
    let projector = cluster.projector(&ingest)?;
    let (address, api) = (ingest.address("ingest")?, projector.private("api")?);
    let ids = clicks(&address, &account, &skewed(CLICKS), options.connections).await?;
    let shown = totals(&api).await?;
    ensure!(shown["clicks"].as_u64() == Some(CLICKS as u64), "{shown}");

    let mut batches = Vec::new();
    let mut expected = Expected { conversions: 0, cents: 0 };
    for batch in 0..BATCHES {
        let mut hits = workload::hits((options.cluster_rate * SECONDS) as usize, CLICKS);
        hits.iter_mut().for_each(|hit| hit.tid += (batch + 1) * 10_000_000);
        let requests = Arc::new(workload::postbacks(&account.token, &hits, &ids));
        let plan = Plan {
            address: &address,
            connections: options.connections,
            rate: Some(options.cluster_rate),
            status: "HTTP/1.1 200",
        };
        let before = api.counter(CELLS).await?;
        let probes = (0..PROBES).map(|n| {
            let probe = Probe {
                ingest: address.clone(),
                api: api.clone(),
                token: account.token.clone(),
                click: ids[n].clone(),
                name: format!("probe{batch}x{n}x"),
            };
            tokio::spawn(probe.run())
        });
        let probes: Vec<_> = probes.collect();
        let outcome = load::send(&plan, requests, Arc::new(|_, _| ())).await?;
        let mut visible = Vec::new();
        for probe in probes {
            visible.extend(probe.await??);
        }
        let of_hits = workload::expected(&hits);
        expected.conversions += of_hits.conversions + visible.len() as u64;
        expected.cents += of_hits.cents + 100 * visible.len() as u64;
        check(&api, &expected).await?;
        let cells = api.counter(CELLS).await? - before;
        let conversions = of_hits.conversions as f64 + visible.len() as f64;
        eprintln!(
            "batch {batch}: {}/s, {} cells per conversion",
            number(outcome.per_second()),
            number(cells / conversions)
        );
        batches.push(Batch { rate: outcome.per_second(), visible, cells, conversions });
    }
    Ok(section(options, &batches))
}

fn section(options: &Options, batches: &[Batch]) -> Section {
    let quantile = |times: &[f64], share: usize| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * share / 100).copied().unwrap_or(f64::NAN)
    };
    let row = |batch: &Batch| {
        vec![
            number(batch.rate),
            number(quantile(&batch.visible, 50)),
            number(quantile(&batch.visible, 99)),
            batch.visible.len().to_string(),
            number(batch.cells / batch.conversions),
        ]
    };
    let of = |figure: &dyn Fn(&Batch) -> f64| median(&batches.iter().map(figure).collect::<Vec<_>>());
    Section {
        title: "Whole cluster under a skewed load".to_owned(),
        head: ["postbacks/s", "in the report: p50 ms", "p99 ms", "probes", "cells written per conversion"]
            .map(str::to_owned)
            .to_vec(),
        rows: batches.iter().map(row).collect(),
        results: vec![
            format!(
                "Zipf 1.0 over {} links, {} clicks, {} postbacks/s wanted for {SECONDS} s, {} times; one process of each role, {} partitions, **Cassandra in ScyllaDB's place**, and all of it with the load generator on this machine. The report's conversions and money were the oracle's after each.",
                number(LINKS as f64),
                number(CLICKS as f64),
                number(options.cluster_rate),
                batches.len(),
                options.partitions
            ),
            format!(
                "**accepted → in the report, p99: {} ms** (at most 2 000 ms, aim 1 000 ms)",
                number(of(&|batch| quantile(&batch.visible, 99)))
            ),
            format!(
                "**report-cell writes per conversion: {:.2}** (at most 0.3, aim 0.1)",
                of(&|batch| batch.cells / batch.conversions)
            ),
        ],
    }
}
