//! `clickback matcher` against an in-memory floor on the same events: events per CPU-second of the whole life of the
//! process, from its start until its state is saved and it has ended.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    Options, Place,
    clickback::{Account, clicks},
    cluster::{
        Cluster, Servers,
        topics::{self, Stored},
    },
    load::{self, Plan},
    median,
    page::{Section, number},
    process::{Server, ended_children_cpu},
    workload::{self, Expected, Hit},
};

pub const LINKS: usize = 100;

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let servers = Servers::start(false)?;
    let hits = workload::hits(options.hits.min(options.cluster_hits), options.cluster_clicks);
    let events = events(options, place, &servers, &hits).await?;
    let expected = workload::expected(&hits);
    let (mut ours_cpu, mut floor_cpu) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        let cluster = fresh(options, place, &servers, &events)?;
        floor_cpu.push(floor(place, &servers, &cluster, events.len())?.as_secs_f64());
        check(&servers, &cluster, events.len(), &expected)?;
        let cluster = fresh(options, place, &servers, &events)?;
        ours_cpu.push(life(&servers, &cluster)?.as_secs_f64());
        check(&servers, &cluster, events.len(), &expected)?;
        eprintln!(
            "run {run}: floor {}, matcher {} events per CPU-second",
            number(events.len() as f64 / floor_cpu[run - 1]),
            number(events.len() as f64 / ours_cpu[run - 1])
        );
    }
    Ok(section(options, (events.len(), hits.len()), &ours_cpu, &floor_cpu))
}

/// Clicks and hits as `ingest` writes them.
async fn events(options: &Options, place: &Place, servers: &Servers, hits: &[Hit]) -> Result<Vec<Stored>> {
    let (cluster, account) = Cluster::with_account(place, servers, options.partitions, LINKS).await?;
    let mut ingest = cluster.ingest()?;
    let address = ingest.address("ingest")?;
    let links: Vec<usize> = (0..options.cluster_clicks).map(|n| n % LINKS).collect();
    let clicks = clicks(&address, &account, &links, options.connections).await?;
    send(options, &address, &account, hits, &clicks).await?;
    ingest.server.stop("TERM")?;
    let topic = cluster.topic("events");
    let ends = topics::ends(&servers.kafka, &topic)?;
    let mut all = topics::read(&servers.kafka, &topic, &vec![0; ends.len()], &ends)?;
    // The folder's own ticks came with the account.
    all.retain(is_sent);
    ensure!(all.len() == clicks.len() + hits.len(), "{} events: did some go through the spool?", all.len());
    Ok(all)
}

/// Somebody sent it; ticks and the like are the cluster's own.
fn is_sent(record: &Stored) -> bool {
    record.is("click") || record.is("hit")
}

pub async fn send(
    options: &Options,
    address: &str,
    account: &Account,
    hits: &[Hit],
    clicks: &[String],
) -> Result<load::Outcome> {
    let plan = Plan { address, connections: options.connections, rate: None, status: "HTTP/1.1 200" };
    let requests = workload::postbacks(&account.token, hits, clicks);
    load::send(&plan, requests.into(), std::sync::Arc::new(|_, _| ())).await
}

fn fresh(options: &Options, place: &Place, servers: &Servers, events: &[Stored]) -> Result<Cluster> {
    let cluster = Cluster::make(place, servers, options.partitions)?;
    topics::copy(&servers.kafka, &cluster.topic("events"), events)?;
    Ok(cluster)
}

/// CPU time of a matcher that decides all that is there, saves its state and ends.
pub fn life(servers: &Servers, cluster: &Cluster) -> Result<Duration> {
    let wanted = topics::ends(&servers.kafka, &cluster.topic("events"))?;
    let before = ended_children_cpu()?;
    let mut matcher = cluster.matcher()?;
    topics::wait_until(&servers.kafka, &cluster.topic("outcomes"), &wanted)?;
    matcher.server.stop("TERM")?;
    Ok(ended_children_cpu()? - before)
}

fn floor(place: &Place, servers: &Servers, cluster: &Cluster, events: usize) -> Result<Duration> {
    let mut command = Command::new(beside(&place.bare, "floor"));
    command.args([&servers.kafka, &cluster.topic("events"), &cluster.topic("outcomes"), &events.to_string()]);
    let before = ended_children_cpu()?;
    Server::start(&mut command, 1)?.wait()?;
    Ok(ended_children_cpu()? - before)
}

fn beside(binary: &Path, name: &str) -> std::path::PathBuf {
    binary.with_file_name(name)
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    count: u64,
    earning: Option<String>,
}

/// Each event has one outcome, and together they have the conversions and the money of the oracle.
pub fn check(servers: &Servers, cluster: &Cluster, events: usize, expected: &Expected) -> Result<()> {
    let topic = cluster.topic("outcomes");
    let ends = topics::ends(&servers.kafka, &topic)?;
    let mut found = Expected { conversions: 0, cents: 0 };
    let mut places = BTreeSet::new();
    for record in topics::read(&servers.kafka, &topic, &vec![0; ends.len()], &ends)? {
        if !is_sent(&record) {
            continue;
        }
        let src = std::str::from_utf8(record.header("src").context("an outcome without src")?)?.parse::<u64>()?;
        ensure!(places.insert((record.partition, src)), "two outcomes of event {}-{src}", record.partition);
        let outcome: Outcome = serde_json::from_slice(&record.payload)?;
        for change in outcome.changes {
            found.conversions += change.count;
            let cents = change.earning.unwrap_or_default().replace('.', "");
            found.cents += cents.parse::<u64>().with_context(|| format!("the earning is {cents}"))?;
        }
    }
    ensure!(places.len() == events, "{} outcomes of {events} events", places.len());
    ensure!(found == *expected, "the outcomes have {found:?} and should have {expected:?}");
    Ok(())
}

fn section(options: &Options, (events, hits): (usize, usize), ours: &[f64], floor: &[f64]) -> Section {
    let rate = |cpu: &f64| events as f64 / cpu;
    let rates = |cpu: &[f64]| cpu.iter().map(rate).collect::<Vec<_>>();
    let row = |name: &str, cpu: &[f64]| {
        let each: Vec<String> = rates(cpu).into_iter().map(number).collect();
        vec![name.to_owned(), number(median(&rates(cpu))), each.join(", ")]
    };
    Section {
        title: "Matcher on Kafka per CPU-second".to_owned(),
        head: ["", "events per CPU-second (median)", "runs"].map(str::to_owned).to_vec(),
        rows: vec![row("in-memory floor", floor), row("clickback matcher", ours)],
        results: vec![
            format!(
                "{} events per run ({} clicks, then {} postbacks), {} runs, alternating; {} partitions on one broker. CPU time of the whole process, from its start until its state is saved and it has ended. After every run each event had exactly one outcome, and conversions and money were the oracle's.",
                number(events as f64),
                number((events - hits) as f64),
                number(hits as f64),
                options.runs,
                options.partitions
            ),
            format!(
                "**matcher ÷ in-memory floor: {:.2}** (at least 0.35, aim 0.55)",
                median(&rates(ours)) / median(&rates(floor))
            ),
            "÷ Kafka Streams, exactly-once v2: not measured, as this peer is not part of the harness yet (at least 2 ×)."
                .to_owned(),
        ],
    }
}
