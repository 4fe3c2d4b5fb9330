//! The loop on the client library's own mock of a broker, which can be told to fail.

use std::{path::PathBuf, thread::JoinHandle, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use schemas::{EventBody, Time};
use tempfile::TempDir;

use super::*;
use crate::{Appender, Draft, append::written_channel, lifecycle::Health};

const PARTITIONS: u16 = 2;

struct World {
    mock: MockCluster<'static, DefaultProducerContext>,
    cluster: Cluster,
    dir: TempDir,
    stop: CancellationToken,
    patience: Duration,
}

impl World {
    fn new() -> World {
        let mock = MockCluster::new(1).unwrap();
        let cluster = Cluster::new(&mock.bootstrap_servers());
        mock.create_topic(&cluster.topic(Topic::Events), i32::from(PARTITIONS), 1).unwrap();
        let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        World { mock, cluster, dir, stop, patience: Duration::from_secs(60) }
    }

    fn spool(&self) -> Option<Spool> {
        Some(Spool::open(self.dir.path(), 1024 * 1024).unwrap())
    }

    fn start(&self, spool: Option<Spool>) -> (Appender, JoinHandle<Result<()>>) {
        let (appender, requests) = written_channel(1_000);
        let layout = Layout { id: new_run(), partitions: PARTITIONS, key: String::new() };
        let health = Health::new(Duration::from_secs(60));
        let parts = Parts {
            cluster: self.cluster.clone(),
            layout,
            confirmed: true,
            requests,
            spool,
            catalog: CatalogWriter::closed(),
            beat: health.component("log"),
            stop: self.stop.clone(),
            patience: self.patience,
            verify: |_, _| Ok(()),
        };
        (appender, start(parts).unwrap())
    }

    fn fail(&self, error: RDKafkaRespErr) {
        self.mock.request_errors(RDKafkaApiKey::Produce, &[error]);
    }

    fn spool_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "spool")).collect()
    }

    /// (partition, n, id) of the events that stand on the topic, once there are so many different ones.
    fn events(&self, count: usize) -> Vec<(u16, u64, EventId)> {
        let reader = self.cluster.open_reader().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let topic = self.cluster.topic(Topic::Events);
            list.add_partition_offset(&topic, i32::from(partition), Offset::Beginning).unwrap();
        }
        reader.assign(&list).unwrap();
        let mut found: Vec<(u16, u64, EventId)> = Vec::new();
        let until = Instant::now() + Duration::from_secs(30);
        let different = |found: &[(u16, u64, EventId)]| {
            found.iter().map(|(_, _, id)| *id).collect::<std::collections::BTreeSet<_>>().len()
        };
        while different(&found) < count {
            assert!(Instant::now() < until, "{found:?}");
            if let Some(Ok(message)) = reader.poll(Duration::from_millis(50)) {
                let event = records::decode_event(message.payload()).unwrap();
                let number = records::decode_number(message.headers()).unwrap();
                assert_eq!(number, Number { from: event.from, n: event.n });
                found.push((message.partition() as u16, event.n, event.id));
            }
        }
        found
    }
}

fn draft(n: u16) -> Draft {
    let time = Time::from_ms(1_000);
    let id = EventId::new(time, n, u64::from(n));
    Draft { id, tenant: "t".into(), time, shard: n, body: EventBody::Tick }
}

fn id(n: u16) -> EventId {
    draft(n).id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_answered_with_its_place() {
    let world = World::new();
    let (appender, thread) = world.start(world.spool());
    let receipts = appender.append_all((0..6).map(draft).collect()).await.unwrap();
    let places: Vec<_> = receipts.iter().map(|receipt| (receipt.partition(), receipt.src().unwrap())).collect();
    assert_eq!(places, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
    assert_eq!(appender.append(draft(7)).await, Ok(Receipt::Logged { partition: 1, src: 3 }));
    drop(appender);
    thread.join().unwrap().unwrap();
    let mut events = world.events(7);
    events.sort_unstable();
    let expected =
        [(0, 0, id(0)), (0, 1, id(2)), (0, 2, id(4)), (1, 0, id(1)), (1, 1, id(3)), (1, 2, id(5)), (1, 3, id(7))];
    assert_eq!(events, expected);
}

/// An error in a delivery report means that it is not known whether Kafka has the event: it is kept, answered from the
/// spool, and sent again under the same number by a new client.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_reported_as_failed_is_kept_and_sent_again() {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
    ] {
        let world = World::new();
        let (appender, thread) = world.start(world.spool());
        appender.append(draft(0)).await.unwrap();
        world.fail(error);
        let receipt = appender.append(draft(2)).await.unwrap();
        appender.append(draft(4)).await.unwrap();
        let events = world.events(3);
        let n = |wanted: EventId| events.iter().find(|(_, _, id)| *id == wanted).unwrap().1;
        assert_eq!((n(id(0)), n(id(2)), n(id(4))), (0, 1, 2), "{error:?}");
        assert!(matches!(receipt, Receipt::Spooled { partition: 0, n: 1, .. }), "{error:?} {receipt}");
        drop(appender);
        thread.join().unwrap().unwrap();
        assert_eq!(world.spool_files(), Vec::<PathBuf>::new(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_what_is_unknown_is_said_so() {
    let world = World::new();
    let (appender, thread) = world.start(None);
    appender.append(draft(0)).await.unwrap();
    world.fail(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert!(matches!(appender.append(draft(2)).await, Err(Unavailable::NotDurable(_))));
    // Until a new client is there.
    let again = loop {
        match appender.append(draft(4)).await {
            Ok(receipt) => break receipt,
            Err(refused) => assert!(matches!(refused, Unavailable::NotDurable(_)), "{refused:?}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(again.src().is_some());
    drop(appender);
    thread.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spool_still_holds_is_sent_before_anything_new() {
    let world = World { patience: Duration::from_millis(100), ..World::new() };
    world.mock.broker_down(-1).unwrap();
    let (appender, thread) = world.start(world.spool());
    for n in 0..5 {
        assert!(matches!(appender.append(draft(2 * n)).await, Ok(Receipt::Spooled { .. })));
    }
    // As a crash would leave it: the loop ends without Kafka.
    world.stop.cancel();
    thread.join().unwrap().unwrap();
    assert_eq!(world.spool_files().len(), 1);

    world.mock.broker_up(-1).unwrap();
    let world = World { stop: CancellationToken::new(), patience: Duration::from_secs(60), ..world };
    let (appender, thread) = world.start(world.spool());
    appender.append(draft(10)).await.unwrap();
    let order: Vec<EventId> = world.events(6).into_iter().map(|(_, _, id)| id).collect();
    assert_eq!(order, [id(0), id(2), id(4), id(6), id(8), id(10)]);
    drop(appender);
    thread.join().unwrap().unwrap();
    assert_eq!(world.spool_files(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_larger_than_a_record_is_refused_alone() {
    let world = World::new();
    let (appender, thread) = world.start(world.spool());
    let large = Draft { tenant: "x".repeat(RECORD_BYTES), ..draft(0) };
    assert!(matches!(appender.append(large).await, Err(Unavailable::NotDurable(_))));
    assert_eq!(appender.append(draft(2)).await, Ok(Receipt::Logged { partition: 0, src: 0 }));
    drop(appender);
    thread.join().unwrap().unwrap();
}
