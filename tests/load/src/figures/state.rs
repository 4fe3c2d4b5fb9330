//! The matcher with a large state: its throughput against a small one, bytes per click, and how soon it works again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::matcher::{LINKS, check, life, send};
use crate::{
    Options, Place,
    clickback::clicks,
    cluster::{Cluster, Servers, state_bytes, topics},
    median,
    page::{Section, number},
    workload,
};

/// Clicks of the small state; the large one has 100 times as many.
const SMALL: usize = 2_000;
const TIMES: usize = 100;
const HITS: usize = 40_000;

struct Run {
    clicks: usize,
    bytes_per_click: f64,
    ready: Duration,
    events_per_cpu_second: f64,
}

pub async fn measure(options: &Options, place: &Place) -> Result<Section> {
    let servers = Servers::start(false)?;
    let mut runs = Vec::new();
    for run in 0..options.state_runs {
        for clicks in [SMALL, SMALL * TIMES] {
            let done = once(options, place, &servers, clicks).await?;
            eprintln!(
                "run {}, {clicks} clicks: {} events per CPU-second, {} B per click, first event after {} ms",
                run + 1,
                number(done.events_per_cpu_second),
                number(done.bytes_per_click),
                done.ready.as_millis()
            );
            runs.push(done);
        }
    }
    Ok(section(options, &runs))
}

async fn once(options: &Options, place: &Place, servers: &Servers, count: usize) -> Result<Run> {
    let (cluster, account) = Cluster::with_account(place, servers, options.partitions, LINKS).await?;
    let mut ingest = cluster.ingest()?;
    let address = ingest.address("ingest")?;
    let links: Vec<usize> = (0..count).map(|n| n % LINKS).collect();
    let ids = clicks(&address, &account, &links, options.connections).await?;
    life(servers, &cluster)?;
    let bytes = state_bytes(&cluster.matcher_state())?;

    // One more click while the matcher starts: in each partition, so that all of them have to work again.
    let outcomes = cluster.topic("outcomes");
    let mut wanted = topics::ends(&servers.kafka, &outcomes)?;
    let start = Instant::now();
    let mut matcher = cluster.matcher()?;
    let more = clicks(&address, &account, &vec![0; usize::from(options.partitions) * 16], 8).await?;
    wanted.iter_mut().for_each(|end| *end += 1);
    topics::wait_until(&servers.kafka, &outcomes, &wanted)?;
    let ready = start.elapsed();
    let all = topics::ends(&servers.kafka, &cluster.topic("events"))?;
    topics::wait_until(&servers.kafka, &outcomes, &all)?;
    matcher.server.stop("TERM")?;

    let hits = workload::hits(HITS, count);
    send(options, &address, &account, &hits, &ids).await?;
    ingest.server.stop("TERM")?;
    let cpu = life(servers, &cluster)?.whole;
    let events = ids.len() + more.len() + hits.len();
    check(servers, &cluster, events, &workload::expected(&hits))?;
    ensure!(!cpu.is_zero(), "no CPU time was used");
    Ok(Run {
        clicks: count,
        bytes_per_click: bytes as f64 / count as f64,
        ready,
        events_per_cpu_second: HITS as f64 / cpu.as_secs_f64(),
    })
}

fn section(options: &Options, runs: &[Run]) -> Section {
    let of = |clicks: usize, figure: fn(&Run) -> f64| {
        median(&runs.iter().filter(|run| run.clicks == clicks).map(figure).collect::<Vec<_>>())
    };
    let rate = |clicks| of(clicks, |run| run.events_per_cpu_second);
    let large = SMALL * TIMES;
    let row = |clicks: usize| {
        vec![
            number(clicks as f64),
            number(rate(clicks)),
            number(of(clicks, |run| run.bytes_per_click)),
            number(of(clicks, |run| run.ready.as_secs_f64() * 1_000.0)),
        ]
    };
    Section {
        title: "Matcher with a large state".to_owned(),
        head: ["clicks in the state", "events per CPU-second", "state bytes per click", "restart → first events, ms"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![row(SMALL), row(large)],
        results: vec![
            format!(
                "**{TIMES} × the state ÷ small state: {:.2}** (at least 0.6, aim 0.8); {} postbacks on random clicks of the state, by a matcher that starts with it, {} run(s) of each, alternating. The large state still fits the machine's memory.",
                rate(large) / rate(SMALL),
                number(HITS as f64),
                options.state_runs
            ),
            format!(
                "**state: {:.0} B per click** of {} clicks (at most 160 B, aim 80 B), before any postback",
                of(large, |run| run.bytes_per_click),
                number(large as f64)
            ),
            "Restart → first events: from the start of the process until each of its partitions has decided an event that came after the start. Each answer was compared with the oracle's.".to_owned(),
        ],
    }
}
