//! A broker that lost events which it had acknowledged: an alarm, and the repair that docs/operations.md describes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    alone,
    live::{Live, end},
    seed,
    stage::{Kind, Plan, Stage},
    traffic::Traffic,
    verdict::compare,
};
use pipeline::kafka::{Cluster, PartitionReader, Topic};
use rdkafka::{
    Message,
    message::OwnedHeaders,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const PATIENCE: Duration = Duration::from_secs(60);
const DAMAGED: u16 = 0;

#[test]
fn lost_events_are_an_alarm_and_can_be_put_back() {
    let _alone = alone();
    let plan = Plan { brokers: 1, partitions: 2, ingests: 1, matchers: 1, projectors: 0 };
    let seed = seed();
    let Some(mut stage) = Stage::open(&plan) else { return };
    let live = Live::begin(&stage.cluster, stage.partitions);
    let traffic = Traffic::begin(seed, stage.edges.clone());
    traffic.go_on(600);
    live.settle();

    stage.broker(0).kill();
    let folder = stage.partition_folder(Topic::Events, DAMAGED);
    let backup = stage.broker(0).folder().join("backup");
    copy(&folder, &backup);
    stage.cut(Topic::Events, DAMAGED, 100_000);
    stage.start_broker(0);
    stage.wait_for_brokers();
    wait_for_alarm(&stage, &traffic);
    let halted = live.next(DAMAGED);
    traffic.go_on(300);
    // The others go on; in the damaged one nothing is decided on top of what is missing.
    live.settle_of(&[1]);
    assert_eq!(live.next(DAMAGED), halted);

    // The repair. Nobody writes any more; what the damaged log has is kept aside, the back-up takes its place, and what was
    // kept is sent again: what the back-up has, too, is known by its number and changes nothing.
    stage.stop(Kind::Ingest, 0);
    stage.stop(Kind::Matcher, 0);
    let kept = records(&stage.cluster);
    stage.broker(0).kill();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&backup, &folder).unwrap();
    stage.start_broker(0);
    stage.wait_for_brokers();
    let whole = end(&stage.cluster, Topic::Events, DAMAGED);
    assert!(whole >= halted, "the back-up has everything that was decided: {whole} of {halted}");
    eprintln!("lost events: the back-up has {whole} records; {} of the damaged log are sent again", kept.len());
    send(&stage.cluster, &kept);
    stage.start(Kind::Ingest, 0);
    stage.start(Kind::Matcher, 0);
    traffic.go_on(200);
    live.settle();
    assert!(live.next(DAMAGED) > halted);
    compare("lost events", stage, traffic, live);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn wait_for_alarm(stage: &Stage, traffic: &Traffic) {
    let until = Instant::now() + PATIENCE;
    while !stage.role(Kind::Matcher, 0).stderr().contains("ALARM") {
        assert!(Instant::now() < until, "no alarm: {}", stage.role(Kind::Matcher, 0).stderr());
        traffic.go_on(10);
    }
}

struct Kept {
    key: Vec<u8>,
    headers: OwnedHeaders,
    payload: Vec<u8>,
}

/// All but the first, which says whose topic it is.
fn records(cluster: &Cluster) -> Vec<Kept> {
    let end = end(cluster, Topic::Events, DAMAGED);
    let mut reader = PartitionReader::open(cluster, Topic::Events, DAMAGED, 8_192).unwrap();
    reader.seek(1).unwrap();
    let (mut kept, until) = (Vec::new(), Instant::now() + PATIENCE);
    while (kept.len() as u64) < end - 1 {
        assert!(Instant::now() < until, "the damaged log cannot be read");
        let Some(message) = reader.poll(Duration::from_millis(100)).unwrap() else { continue };
        kept.push(Kept {
            key: message.key().unwrap().to_vec(),
            headers: message.headers().unwrap().detach(),
            payload: message.payload().unwrap().to_vec(),
        });
    }
    kept
}

fn send(cluster: &Cluster, records: &[Kept]) {
    let producer: ThreadedProducer<DefaultProducerContext> = cluster.producer().create().unwrap();
    let topic = cluster.topic(Topic::Events);
    for Kept { key, headers, payload } in records {
        let record = BaseRecord::to(&topic).partition(i32::from(DAMAGED)).key(key).payload(payload);
        producer.send(record.headers(headers.clone())).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}
