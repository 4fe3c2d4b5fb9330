//! Topics with one partition for the tests of the matcher: events in, outcomes out, and what they have to be.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{
        RwLockReadGuard,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use ::matcher::{Cause, State, apply, decide, replica::Checkpoint};
use pipeline::{
    Sealer,
    kafka::{
        self, Cluster, PartitionReader, Plan, Topic,
        records::{self, Encoded},
    },
};
use rdkafka::{
    Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use schemas::{
    Event, EventBody, Time,
    chain::{Position, Verdict, judge},
};

use crate::world::{given, running_broker};

/// For everything that a broker or a matcher has to bring about.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub cluster: Cluster,
    pub state: tempfile::TempDir,
    producer: BaseProducer<MustArrive>,
    _broker: RwLockReadGuard<'static, ()>,
}

struct MustArrive;

impl rdkafka::ClientContext for MustArrive {}

impl ProducerContext for MustArrive {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a record of the test did not arrive");
    }
}

/// A record as it stands on a topic.
#[derive(Clone)]
struct Raw {
    key: Vec<u8>,
    headers: OwnedHeaders,
    payload: Vec<u8>,
    time: i64,
}

impl World {
    /// New topics with one partition. `None`, with a message, where no broker is given.
    pub fn open() -> Option<World> {
        let brokers = given("CLICKBACK_TEST_KAFKA")?;
        let broker = running_broker();
        let random: [u8; 6] = pipeline::secrets::random();
        let cluster = Cluster::with_prefix(&brokers, &format!("test-{}", schemas::id::base32(&random)));
        let state = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(state.path()).unwrap();
        kafka::init(&cluster, Plan { partitions: Some(1), replication: Some(1) }, &sealer).unwrap();
        let producer = cluster.producer().create_with_context(MustArrive).unwrap();
        Some(World { cluster, state, producer, _broker: broker })
    }

    pub fn matcher(&self) -> Matcher {
        self.matcher_in("one")
    }

    pub fn matcher_in(&self, folder: &str) -> Matcher {
        let state = self.state.path().join(folder);
        let mut command = system_tests::command(&[
            "matcher",
            "--kafka",
            &self.cluster.brokers,
            "--topic-prefix",
            &self.cluster.prefix,
            "--state",
            state.to_str().unwrap(),
            "--admin",
            "127.0.0.1:0",
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (lines, said) = channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                eprintln!("{line}");
                // Nobody may listen any more.
                lines.send(line).ok();
            }
        });
        Matcher { child, said }
    }

    pub fn append(&self, events: &[Event]) {
        for event in events {
            let Encoded { key, headers, payload } = records::encode_event(event, 0, None).unwrap();
            self.send(Topic::Events, key.as_bytes(), headers, &payload);
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn send(&self, topic: Topic, key: &[u8], headers: OwnedHeaders, payload: &[u8]) {
        let topic = self.cluster.topic(topic);
        let mut record = BaseRecord::to(&topic).partition(0).key(key).payload(payload).headers(headers);
        while let Err((_, back)) = self.producer.send(record) {
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
    }

    fn read(&self, topic: Topic) -> Vec<Raw> {
        let mut reader = PartitionReader::open(&self.cluster, topic, 0, 8_192).unwrap();
        let (first, end) = reader.ends().unwrap();
        reader.seek(first).unwrap();
        let (mut found, until) = (Vec::new(), Instant::now() + PATIENCE);
        while (found.len() as u64) < end - first {
            assert!(Instant::now() < until, "the records do not come");
            let Some(message) = reader.poll(Duration::from_millis(100)).unwrap() else { continue };
            found.push(Raw {
                key: message.key().unwrap_or_default().to_vec(),
                headers: message.headers().unwrap().detach(),
                payload: message.payload().unwrap().to_vec(),
                time: message.timestamp().to_millis().unwrap(),
            });
        }
        found
    }

    /// Waits until a reader has an outcome of all events that are there now.
    pub fn settle(&self) -> usize {
        let events = self.read(Topic::Events).len();
        self.wait_for(events - 1);
        events
    }

    /// Waits until a reader took this many outcomes.
    pub fn wait_for(&self, outcomes: usize) {
        let until = Instant::now() + PATIENCE;
        while self.taken().len() < outcomes {
            assert!(Instant::now() < until, "{} of {outcomes} outcomes", self.taken().len());
        }
    }

    /// What a reader takes.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        let (mut position, mut taken) = (Checkpoint::EMPTY.state, Vec::new());
        for record in self.read(Topic::Outcomes) {
            let Ok(link) = records::decode_link(Some(&record.headers)) else { continue };
            match judge(&position, &link, &record.payload) {
                Verdict::Take => {
                    position = Position { next: link.src + 1, chain: link.chain };
                    taken.push(record.payload);
                }
                Verdict::Skip | Verdict::Hole => {}
                Verdict::Diverged => panic!("outcome {} diverges", link.src),
            }
        }
        taken
    }

    /// Every event has one outcome, byte for byte the one that embedded mode gives it.
    pub fn assert_exact(&self) {
        let until = self.settle();
        let (mut state, mut expected) = (State::default(), Vec::new());
        for (src, record) in self.read(Topic::Events).into_iter().enumerate().take(until).skip(1) {
            let event: Event = serde_json::from_slice(&record.payload).unwrap();
            let cause = Cause { src: src as u64, appended: Time::from_ms(record.time) };
            let outcome = decide(&state, cause, &event).unwrap();
            apply(&mut state, cause, &event, &outcome);
            expected.push(serde_json::to_string(&outcome).unwrap());
        }
        let taken = self.taken();
        for (at, expected) in expected.iter().enumerate() {
            assert_eq!(std::str::from_utf8(&taken[at]).unwrap(), expected, "outcome of event {}", at + 1);
        }
    }

    pub fn records_of_outcomes(&self) -> usize {
        self.read(Topic::Outcomes).len()
    }

    /// The broker has only the first records of a topic left. A real one loses its end by a crash; here the topic is
    /// made anew with what is left.
    pub fn cut(&self, topic: Topic, left: usize) {
        let kept: Vec<Raw> = self.read(topic).into_iter().take(left).collect();
        let name = self.cluster.topic(topic);
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", &self.cluster.brokers);
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        runtime.block_on(admin.delete_topics(&[&name], &options)).unwrap();
        let until = Instant::now() + PATIENCE;
        let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1))
            .set("message.timestamp.type", if topic == Topic::Events { "LogAppendTime" } else { "CreateTime" })
            .set("retention.ms", "-1");
        // The old one goes in its own time.
        while runtime.block_on(admin.create_topics([&new], &options)).unwrap()[0].is_err() {
            assert!(Instant::now() < until, "{name} cannot be made anew");
        }
        kept.into_iter().for_each(|record| self.send(topic, &record.key, record.headers, &record.payload));
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// `clickback matcher`; killed at the end of the test.
pub struct Matcher {
    child: Child,
    said: Receiver<String>,
}

impl Matcher {
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it has to end well.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }

    pub fn wait_for_alarm(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.said.recv_timeout(until - Instant::now()).unwrap().contains("ALARM") {}
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Matcher {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// What is left out of a history: ticks are the matcher's own here.
pub fn without_ticks(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.into_iter().filter(|event| !matches!(event.body, EventBody::Tick)).collect()
}
