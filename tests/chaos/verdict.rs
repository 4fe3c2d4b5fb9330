//! The end of a run: traffic stops, everything comes up, and what the topics say is compared with what was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use pipeline::kafka::{Cluster, PartitionReader, Topic};
use rdkafka::Message;
use serde_json::Value;
use system_tests::Answer;

use crate::{
    live::{Live, end},
    oracle::{conversions, totals},
    reader::{Taking, Warehouse, header},
    reports,
    stage::{Kind, Stage},
    traffic::{Ledger, Line, Told, Traffic, What},
};

/// For a spool to be sent.
const PATIENCE: Duration = Duration::from_secs(90);

/// What stands on the events topic, by partition.
struct Events {
    ids: Vec<Vec<String>>,
    /// Requests whose event is there, by their line's number.
    arrived: BTreeSet<usize>,
    /// Clicks and hits, by id.
    known: BTreeSet<String>,
    /// Copies of events that are there already.
    again: usize,
}

/// All roles have to be up. Whatever was sent is settled, and compared.
pub fn compare(name: &str, mut stage: Stage, traffic: Traffic, live: Live) {
    let ledger = traffic.end();
    stage.assert_all_run();
    stage.numbers(Kind::Ingest).into_iter().for_each(|number| wait_for_an_empty_spool(&stage, number));
    stage.stop_all(Kind::Ingest);
    live.settle();
    stage.stop_all(Kind::Matcher);
    let (cluster, partitions) = (stage.cluster.clone(), stage.partitions);
    let events = read_events(&cluster, partitions);
    let (warehouse, taken, skipped) = read_outcomes(&cluster, partitions, &events);
    let live = live.end();
    for (partition, (live, taken)) in live.iter().zip(&taken).enumerate() {
        let both = live.chains.len().min(taken.len());
        assert_eq!(live.chains[..both], taken[..both], "two readers of partition {partition} took different lists");
    }
    assert_durable(&ledger, &events);
    assert_hits(&ledger, &warehouse);
    let made = assert_conversions(&ledger.lines, &events.arrived, &warehouse);
    let reports = stage.database().is_some().then(|| reports::compare(&stage, &ledger, &warehouse));
    stage.stop_all(Kind::Projector);
    let maybe: Vec<usize> =
        (0..ledger.lines.len()).filter(|number| ledger.lines[*number].told == Told::Maybe).collect();
    let there = maybe.iter().filter(|number| events.arrived.contains(number)).count();
    eprintln!(
        "{name}: {} requests ({} without an answer, {} refused; of these {there} are on the topic), {} events, \
         {} copies of them, {skipped} outcomes written again, readers began {} times anew; {made}",
        ledger.lines.len(),
        ledger.unanswered,
        ledger.refused,
        events.ids.iter().map(Vec::len).sum::<usize>(),
        events.again,
        live.iter().map(|taken| taken.restarts).sum::<u32>(),
    );
    if let Some(reports) = reports {
        eprintln!("{name}: {reports}");
    }
}

/// Asks until nothing waits any more for Kafka. What was not answered may be in there, too.
pub fn wait_for_an_empty_spool(stage: &Stage, number: usize) {
    let role = stage.role(Kind::Ingest, number);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = Answer::of(role.http.get(format!("{}/metrics", role.url("admin"))));
        let text = runtime.block_on(asked).text();
        let waiting = text.lines().find_map(|line| line.strip_prefix("clickback_spool_events "));
        if waiting.expect("the spool is measured").parse::<f64>().unwrap() == 0.0 {
            return;
        }
        assert!(Instant::now() < until, "ingest {number} does not get rid of its spool");
    }
}

fn read(cluster: &Cluster, topic: Topic, partition: u16, mut each: impl FnMut(&rdkafka::message::BorrowedMessage<'_>)) {
    let end = end(cluster, topic, partition);
    let mut reader = PartitionReader::open(cluster, topic, partition, 8_192).unwrap();
    reader.seek(0).unwrap();
    let (mut read, until) = (0, Instant::now() + PATIENCE);
    while read < end {
        assert!(Instant::now() < until, "{topic:?} {partition} cannot be read");
        if let Some(message) = reader.poll(Duration::from_millis(100)).unwrap() {
            each(&message);
            read += 1;
        }
    }
}

fn read_events(cluster: &Cluster, partitions: u16) -> Events {
    let mut events = Events { ids: Vec::new(), arrived: BTreeSet::new(), known: BTreeSet::new(), again: 0 };
    let mut numbers: BTreeMap<(u16, String, u64), String> = BTreeMap::new();
    for partition in 0..partitions {
        let mut ids = Vec::new();
        read(cluster, Topic::Events, partition, |message| {
            if header(message, "type") == Some("identity") {
                return;
            }
            let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
            let id = event["id"].as_str().unwrap().to_owned();
            ids.push(id.clone());
            let number = (partition, event["from"].as_str().unwrap().to_owned(), event["n"].as_u64().unwrap());
            if let Some(before) = numbers.insert(number, id.clone()) {
                assert_eq!(before, id, "two events have one number");
                events.again += 1;
            }
            let (click, hit) = (&event["body"]["click"], &event["body"]["hit"]);
            if let Some(line) = click["sub2"].as_str() {
                events.arrived.insert(line.strip_prefix("chaos").unwrap().parse().unwrap());
                events.known.insert(click["id"].as_str().unwrap().to_owned());
            }
            if let Some(query) = hit["raw"]["query"].as_str() {
                let line = query.split('&').find_map(|pair| pair.strip_prefix("chaos=")).unwrap();
                events.arrived.insert(line.parse().unwrap());
                events.known.insert(id);
            }
        });
        events.ids.push(ids);
    }
    events
}

/// Every event has exactly one outcome that a reader takes, in the same order.
fn read_outcomes(cluster: &Cluster, partitions: u16, events: &Events) -> (Warehouse, Vec<Vec<String>>, u64) {
    let (mut warehouse, mut all, mut skipped) = (Warehouse::default(), Vec::new(), 0);
    for partition in 0..partitions {
        let mut taking = Taking::new();
        let before = warehouse.events.len();
        read(cluster, Topic::Outcomes, partition, |message| {
            if taking.take(message) {
                warehouse.add(message.payload().unwrap());
            }
        });
        let ids = &events.ids[usize::from(partition)];
        let of = &warehouse.events[before..];
        assert_eq!(of, &ids[..of.len()], "outcomes of partition {partition} are not those of its events");
        // A matcher that ends may leave its own last tick to the next one.
        assert!(ids.len() - of.len() <= 3, "{} events of partition {partition} have no outcome", ids.len() - of.len());
        skipped += taking.skipped;
        all.push(taking.chains);
    }
    (warehouse, all, skipped)
}

/// What was answered with 2xx is there.
fn assert_durable(ledger: &Ledger, events: &Events) {
    for (number, line) in ledger.lines.iter().enumerate().filter(|(_, line)| line.told == Told::Durable) {
        assert!(events.arrived.contains(&number) && events.known.contains(&line.id), "answered and lost: {line:?}");
    }
}

/// Every hit that was answered with 2xx has exactly one current outcome.
fn assert_hits(ledger: &Ledger, warehouse: &Warehouse) {
    let clicked = warehouse.clicked();
    for line in ledger.lines.iter().filter(|line| line.told == Told::Durable) {
        if line.what == What::Click {
            assert!(clicked.contains(line.id.as_str()), "a click without an outcome: {line:?}");
            continue;
        }
        let became = warehouse.hits.get(&line.id).unwrap_or_else(|| panic!("a hit without an outcome: {line:?}"));
        let last = match became.as_slice() {
            [only] => only,
            [first, last] if first == "waiting" => last,
            _ => panic!("{became:?} became of {line:?}"),
        };
        assert!(["converted", "updated", "duplicate", "waiting", "rejected"].contains(&last.as_str()));
    }
}

fn assert_conversions(lines: &[Line], arrived: &BTreeSet<usize>, warehouse: &Warehouse) -> String {
    let (expected, made) = (conversions(lines, arrived), warehouse.conversions());
    let ratio = made.len() as f64 / expected.len().max(1) as f64;
    for (key, worth) in &expected {
        assert_eq!(made.get(key), Some(worth), "{key:?}; conversions ÷ oracle = {ratio:.6}");
    }
    for key in made.keys() {
        assert!(expected.contains_key(key), "{key:?} was made of nothing; conversions ÷ oracle = {ratio:.6}");
    }
    let converted = warehouse.hits.values().filter(|became| became.last().is_some_and(|last| last == "converted"));
    assert_eq!(converted.count(), made.len(), "each conversion is one hit's");
    let sums = (totals(expected.values()), totals(made.values()));
    assert_eq!(sums.0, sums.1);
    assert!(!expected.is_empty());
    format!(
        "conversions ÷ oracle = {ratio:.6} ({} of {}; counts {}, money {}.{:02} EUR); outcomes {:?}",
        made.len(),
        expected.len(),
        sums.1.0,
        sums.1.1 / 100,
        sums.1.1 % 100,
        warehouse.kinds
    )
}
