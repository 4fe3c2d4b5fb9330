//! `clickback matcher` against an in-memory floor and a Kafka Streams application on the same events: events per
//! CPU-second of the whole life of the process, from its start until its state is saved and it has ended, and of its last
//! third, when a JVM is warm.

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
    streams::{self, Peer},
    workload::{self, Expected, Hit},
};

pub const LINKS: usize = 100;
const FLOOR: &str = "in-memory floor";
const OURS: &str = "clickback matcher";
const STREAMS: &str = "Kafka Streams, exactly-once v2";

/// CPU time that a side used.
pub struct Spent {
    /// From the start of its process to its end.
    pub whole: Duration,
    /// Since two thirds of the outcomes were there.
    pub last_third: Duration,
}

struct Side {
    name: &'static str,
    runs: Vec<Spent>,
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let servers = Servers::start(false)?;
    let peer = match streams::tools() {
        Ok(java) => Ok(Peer::build(java, place)?),
        Err(missing) => Err(missing),
    };
    let hits = workload::hits(options.hits.min(options.cluster_hits), options.cluster_clicks);
    let events = events(options, place, &servers, &hits).await?;
    let expected = workload::expected(&hits);
    let mut sides = [FLOOR, OURS, STREAMS].map(|name| Side { name, runs: Vec::new() });
    for run in 1..=options.runs {
        for side in &mut sides {
            let cluster = fresh(options, place, &servers, &events)?;
            let spent = match (side.name, &peer) {
                (FLOOR, _) => floor(place, &servers, &cluster, events.len())?,
                (STREAMS, Ok(peer)) => on_streams(peer, &servers, &cluster, events.len())?,
                (STREAMS, Err(_)) => continue,
                _ => life(&servers, &cluster)?,
            };
            check(&servers, &cluster, events.len(), &expected)?;
            let (whole, last_third) = (per_second(events.len(), &spent.whole), last_third(events.len(), &spent));
            eprintln!(
                "run {run}: {}, events per CPU-second: {}, in its last third {}",
                side.name,
                number(whole),
                number(last_third)
            );
            side.runs.push(spent);
        }
    }
    Ok(section(options, (events.len(), hits.len()), &sides, peer.err()))
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

/// A matcher that decides all that is there, saves its state and ends.
pub fn life(servers: &Servers, cluster: &Cluster) -> Result<Spent> {
    follow(servers, cluster, cluster.matcher()?.server, |server| server.stop("TERM"))
}

fn floor(place: &Place, servers: &Servers, cluster: &Cluster, events: usize) -> Result<Spent> {
    let mut command = Command::new(beside(&place.bare, "floor"));
    command.args([&servers.kafka, &cluster.topic("events"), &cluster.topic("outcomes"), &events.to_string()]);
    follow(servers, cluster, Server::start(&mut command, 1)?, Server::wait)
}

fn on_streams(peer: &Peer, servers: &Servers, cluster: &Cluster, events: usize) -> Result<Spent> {
    let topics = (cluster.topic("events"), cluster.topic("outcomes"));
    let mut command = peer.command(&servers.kafka, (&topics.0, &topics.1), events);
    follow(servers, cluster, Server::start(&mut command, 1)?, Server::wait)
}

fn follow(
    servers: &Servers,
    cluster: &Cluster,
    mut server: Server,
    end: impl FnOnce(&mut Server) -> Result<()>,
) -> Result<Spent> {
    let before = ended_children_cpu()?;
    let (wanted, outcomes) = (topics::ends(&servers.kafka, &cluster.topic("events"))?, cluster.topic("outcomes"));
    topics::wait_until_together(&servers.kafka, &outcomes, wanted.iter().sum::<i64>() * 2 / 3)?;
    let two_thirds = server.cpu()?;
    topics::wait_until(&servers.kafka, &outcomes, &wanted)?;
    end(&mut server)?;
    let whole = ended_children_cpu()? - before;
    Ok(Spent { whole, last_third: whole.saturating_sub(two_thirds) })
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

fn per_second(events: usize, cpu: &Duration) -> f64 {
    events as f64 / cpu.as_secs_f64()
}

fn last_third(events: usize, spent: &Spent) -> f64 {
    per_second(events - events * 2 / 3, &spent.last_third)
}

impl Side {
    fn rates(&self, events: usize) -> (Vec<f64>, Vec<f64>) {
        let whole = self.runs.iter().map(|spent| per_second(events, &spent.whole));
        (whole.collect(), self.runs.iter().map(|spent| last_third(events, spent)).collect())
    }
}

fn section(
    options: &Options,
    (events, hits): (usize, usize),
    sides: &[Side; 3],
    missing: Option<anyhow::Error>,
) -> Section {
    let each = |rates: &[f64]| rates.iter().copied().map(number).collect::<Vec<_>>().join(", ");
    let row = |side: &Side| {
        let (whole, last) = side.rates(events);
        vec![side.name.to_owned(), number(median(&whole)), each(&whole), number(median(&last)), each(&last)]
    };
    let [floor, ours, streams] = sides.each_ref().map(|side| {
        let (whole, last) = side.rates(events);
        (median(&whole), median(&last))
    });
    let mut results = vec![
        format!(
            "{} events per run ({} clicks, then {} postbacks), {} runs, alternating; {} partitions on one broker. CPU time of the whole process, from its start until its state is saved and it has ended, and from two thirds of the outcomes until that end. After every run each event had exactly one outcome, and conversions and money were the oracle's.",
            number(events as f64),
            number((events - hits) as f64),
            number(hits as f64),
            options.runs,
            options.partitions
        ),
        format!("**matcher ÷ in-memory floor: {:.2}** (at least 0.35, aim 0.55)", ours.0 / floor.0),
    ];
    results.push(match missing {
        Some(missing) => format!("÷ {STREAMS}: left out, as {missing:#} (at least 2 ×)."),
        None => format!(
            "**matcher ÷ {STREAMS}: {:.2} ×** (at least 2 ×, aim 3.5 ×); in the last third, when the JVM is warm, {:.2} ×",
            ours.0 / streams.0,
            ours.1 / streams.1
        ),
    });
    Section {
        title: "Matcher on Kafka per CPU-second".to_owned(),
        head: ["", "events per CPU-second (median)", "runs", "in the last third (median)", "runs"]
            .map(str::to_owned)
            .to_vec(),
        rows: sides.iter().filter(|side| !side.runs.is_empty()).map(row).collect(),
        results,
    }
}
