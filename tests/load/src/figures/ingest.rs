//! `clickback ingest` on Kafka, answered after the delivery report, against a bare axum handler: requests per
//! CPU-second of that process.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::pipeline::Run;
use crate::{
    Options, Place,
    clickback::{Account, clicks},
    cluster::{Cluster, Servers, topics},
    load::{self, Plan},
    median,
    page::{Section, number},
    process::Server,
    workload::{self, Hit},
};

const CONNECTIONS: [usize; 2] = [64, 512];
const CLICKS: usize = 5_000;
const LINKS: usize = 100;

#[derive(Default)]
struct Side {
    bare: Vec<Run>,
    ours: Vec<Run>,
    /// Events that went through the spool.
    spooled: f64,
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let servers = Servers::start(false)?;
    let (cluster, account) = Cluster::with_account(place, &servers, options.partitions, LINKS).await?;
    let hits = workload::hits(options.hits.min(options.cluster_hits), CLICKS);
    let mut sides = CONNECTIONS.map(|_| Side::default());
    for run in 1..=options.runs {
        for (side, connections) in sides.iter_mut().zip(CONNECTIONS) {
            side.bare.push(bare(place, &hits, connections).await?);
            let (ours, spooled) = ours(&servers, (&cluster, &account), &hits, connections).await?;
            side.ours.push(ours);
            side.spooled += spooled;
            eprintln!(
                "run {run}, {connections} connections: bare {}, ingest {} per CPU-second, {spooled} through the spool",
                number(side.bare[run - 1].per_cpu_second()),
                number(side.ours[run - 1].per_cpu_second()),
            );
        }
    }
    Ok(section(options, hits.len(), &sides))
}

fn plan(address: &str, connections: usize) -> Plan<'_> {
    Plan { address, connections, rate: None, status: "HTTP/1.1 200" }
}

async fn bare(place: &Place, hits: &[Hit], connections: usize) -> Result<Run> {
    let nobodys: Vec<String> = (0..CLICKS).map(|n| format!("06h04h78035{n:015}")).collect();
    let requests = workload::postbacks("token", hits, &nobodys);
    let server = Server::start(&mut Command::new(&place.bare), 1)?;
    let before = server.cpu()?;
    let plan = plan(&server.greeting[0], connections);
    let (outcome, _) = load::send_for_header(&plan, Arc::new(requests), "x-clickback-receipt").await?;
    Ok(Run { outcome, cpu: server.cpu()? - before })
}

/// And how many events went through the spool.
async fn ours(
    servers: &Servers,
    (cluster, account): (&Cluster, &Account),
    hits: &[Hit],
    connections: usize,
) -> Result<(Run, f64)> {
    let mut ingest = cluster.ingest()?;
    let (address, private) = (ingest.address("ingest")?, ingest.private("admin")?);
    let links: Vec<usize> = (0..CLICKS).map(|n| n % LINKS).collect();
    let clicks = clicks(&address, account, &links, connections).await?;
    let requests = Arc::new(workload::postbacks(&account.token, hits, &clicks));
    let events = cluster.topic("events");
    let (from, spooled) = (topics::ends(&servers.kafka, &events)?, private.counter(SPOOLED).await?);
    let before = ingest.server.cpu()?;
    let sent = load::send_for_header(&plan(&address, connections), requests.clone(), "x-clickback-receipt").await?;
    let (outcome, receipts) = sent;
    let cpu = ingest.server.cpu()? - before;
    let spooled = private.counter(SPOOLED).await? - spooled;
    // What is in the spool is sent before the end.
    ingest.server.stop("TERM")?;
    let to = topics::ends(&servers.kafka, &events)?;
    check(&requests, &receipts, &topics::read(&servers.kafka, &events, &from, &to)?)?;
    Ok((Run { outcome, cpu }, spooled))
}

const SPOOLED: &str = "clickback_spooled_events_total";

#[derive(Deserialize)]
struct Event {
    from: String,
    n: u64,
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    hit: Option<HitBody>,
}

#[derive(Deserialize)]
struct HitBody {
    raw: Raw,
}

#[derive(Deserialize)]
struct Raw {
    query: String,
}

/// Each answer names one event, which is its request's, and there are no others. Through the spool an event may come
/// twice; readers take it once, by `from` and `n`.
fn check(requests: &[String], receipts: &[String], stored: &[topics::Stored]) -> Result<()> {
    let mut queries = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for record in stored {
        let event: Event = serde_json::from_slice(&record.payload)?;
        let Some(hit) = event.body.hit else { continue };
        let number = format!("{}-{}-{}", record.partition, event.from, event.n);
        queries.insert(format!("{}-{}", record.partition, record.offset), hit.raw.query.clone());
        queries.insert(number.clone(), hit.raw.query);
        numbers.insert(number);
    }
    ensure!(numbers.len() == requests.len(), "{} events of {} requests", numbers.len(), requests.len());
    ensure!(receipts.iter().collect::<BTreeSet<_>>().len() == requests.len(), "two requests have one receipt");
    for (request, receipt) in requests.iter().zip(receipts) {
        let found = queries.get(receipt).with_context(|| format!("nothing is at {receipt}"))?;
        ensure!(request.contains(&format!("?{found} HTTP")), "at {receipt} is {found}, sent was {request}");
    }
    Ok(())
}

fn section(options: &Options, hits: usize, sides: &[Side; 2]) -> Section {
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let mut rows = Vec::new();
    let mut results = vec![format!(
        "{} postbacks per run, {} runs, alternating; {} partitions on one broker with replication 1, where each append is an fsync. Only the CPU time of `clickback ingest` counts, not the broker's. After every run each answered postback was found on the topic, once, at the place that its receipt names.",
        number(hits as f64),
        options.runs,
        options.partitions
    )];
    for (side, connections) in sides.iter().zip(CONNECTIONS) {
        for (name, runs) in [("bare axum handler", &side.bare), ("clickback ingest", &side.ours)] {
            let each: Vec<String> = runs.iter().map(|run| number(run.per_cpu_second())).collect();
            rows.push(vec![
                format!("{name}, {connections} connections"),
                number(of(runs, Run::per_cpu_second)),
                each.join(", "),
                number(of(runs, |run| run.outcome.per_second())),
                number(of(runs, |run| run.outcome.quantile_ms(0.5))),
                number(of(runs, |run| run.outcome.quantile_ms(0.99))),
            ]);
        }
        results.push(format!(
            "**ingest ÷ bare axum, {connections} connections: {:.2}** (at least 0.50, aim 0.65); {} of its events went through the spool",
            of(&side.ours, Run::per_cpu_second) / of(&side.bare, Run::per_cpu_second),
            number(side.spooled)
        ));
    }
    Section {
        title: "Ingest on Kafka per CPU-second".to_owned(),
        head: ["", "requests per CPU-second (median)", "runs", "requests/s (wall)", "p50 ms", "p99 ms"]
            .map(str::to_owned)
            .to_vec(),
        rows,
        results,
    }
}
