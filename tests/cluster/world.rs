//! A cluster of its own for each test: topics with a prefix, a key, an account, and somebody who reads the topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pipeline::{
    Applied, Draft, Receipt, Sealer,
    kafka::{self, Node, NodeConfig, Topic},
    lifecycle::Health,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    message::{BorrowedMessage, Headers},
};
use schemas::{
    Event,
    catalog::{Body, Record},
    id,
};
use serde_json::json;
use system_tests::{Answer, Finished, Folder, Role, clickback};

/// For what a healthy cluster does at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who stops the broker is alone.
static BROKER: RwLock<()> = RwLock::new(());
static WORLDS: AtomicU32 = AtomicU32::new(0);

/// While this is held nobody stops the broker.
pub fn running_broker() -> RwLockReadGuard<'static, ()> {
    BROKER.read().unwrap_or_else(|e| e.into_inner())
}

/// The value of a variable, or `None` with a word about it; on a build server a missing one is a failure.
pub fn given(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set: nothing of the cluster would be tested");
        eprintln!("skipped: {variable} is not set");
    }
    value
}

pub struct World {
    pub kafka: String,
    pub prefix: String,
    pub folder: Folder,
    _broker: Guard,
}

#[expect(dead_code, reason = "held, not read")]
enum Guard {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// The broker stands still until this is dropped.
pub struct Stopped(String);

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

/// A record of `events` as it stands there.
#[derive(Debug)]
pub struct Stored {
    pub partition: u16,
    pub offset: u64,
    pub key: String,
    pub headers: BTreeMap<String, String>,
    pub payload: Vec<u8>,
    /// Of the log, where the topic says so.
    pub time: i64,
}

impl Stored {
    fn of(message: &BorrowedMessage<'_>) -> Stored {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Stored {
            partition: message.partition().try_into().unwrap(),
            offset: message.offset().try_into().unwrap(),
            key: text(message.key().unwrap()),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect(),
            payload: message.payload().unwrap().to_vec(),
            time: message.timestamp().to_millis().unwrap(),
        }
    }

    pub fn is_identity(&self) -> bool {
        self.headers["type"] == "identity"
    }

    pub fn event(&self) -> Event {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

impl World {
    /// Topics that nobody has made yet. `None`: there is no Kafka to test on.
    pub fn bare() -> Option<World> {
        let kafka = given("CLICKBACK_TEST_KAFKA")?;
        Some(World::on(kafka, Guard::Shared(running_broker())))
    }

    fn on(kafka: String, guard: Guard) -> World {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("test-{}-{}-{number}", pipeline::clock::now().ms(), std::process::id());
        World { kafka, prefix, folder: Folder::new(), _broker: guard }
    }

    pub fn new(partitions: u16) -> Option<World> {
        let world = World::bare()?;
        world.made(partitions);
        Some(world)
    }

    /// On a broker that this test alone uses, as it will stop it.
    pub fn alone(partitions: u16) -> Option<(World, impl Fn() -> Stopped)> {
        let kafka = given("CLICKBACK_TEST_KAFKA")?;
        // Of a broker that somebody else started nobody knows it, and it is not ours to stop.
        let Ok(pid) = std::env::var("CLICKBACK_TEST_KAFKA_PID") else {
            eprintln!("skipped: CLICKBACK_TEST_KAFKA_PID is not set");
            return None;
        };
        let world = World::on(kafka, Guard::Alone(BROKER.write().unwrap_or_else(|e| e.into_inner())));
        world.made(partitions);
        let stop = move || {
            signal("STOP", &pid);
            Stopped(pid.clone())
        };
        Some((world, stop))
    }

    fn made(&self, partitions: u16) {
        let made = self.init(&["--partitions", &partitions.to_string()]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        self.put_account();
    }

    pub fn cluster(&self) -> kafka::Cluster {
        kafka::Cluster::with_prefix(&self.kafka, &self.prefix)
    }

    pub fn key_file(&self) -> String {
        self.folder.path().join("key").to_str().unwrap().to_owned()
    }

    pub fn init(&self, args: &[&str]) -> Finished {
        clickback(&self.with_usual("init", &[], args).iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn try_ingest(&self, args: &[&str]) -> Result<Role, String> {
        let spool = self.folder.path().join("spool").to_str().unwrap().to_owned();
        let usual = [("--ingest", "127.0.0.1:0"), ("--admin", "127.0.0.1:0"), ("--spool", &spool)];
        Role::start(&self.with_usual("ingest", &usual, args).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What a test gives replaces what is usual.
    fn with_usual(&self, command: &str, more: &[(&str, &str)], args: &[&str]) -> Vec<String> {
        let key = self.key_file();
        let usual = [("--kafka", &*self.kafka), ("--topic-prefix", &*self.prefix), ("--key-file", &*key)];
        let usual = usual.iter().chain(more).filter(|(flag, _)| !args.contains(flag));
        let usual = usual.flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
        std::iter::once(command.to_owned()).chain(usual).chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    pub fn ingest(&self) -> Edge {
        self.ingest_with(&[])
    }

    pub fn ingest_with(&self, args: &[&str]) -> Edge {
        Edge { role: self.try_ingest(args).unwrap_or_else(|stderr| panic!("ingest did not start:\n{stderr}")) }
    }

    /// As the API writes to the catalog: answered once it was read back.
    pub fn put(&self, bodies: impl FnOnce(&Sealer) -> Vec<Body> + Send) {
        // Blocking, which a thread that drives asynchronous tests must not be.
        std::thread::scope(|scope| scope.spawn(|| self.put_blocking(bodies)).join().unwrap());
    }

    fn put_blocking(&self, bodies: impl FnOnce(&Sealer) -> Vec<Body>) {
        self.on_node(|runtime, node, sealer| {
            for body in bodies(sealer) {
                let now = pipeline::clock::now();
                let record = Record { v: 1, id: body.thing(), tenant: "default".into(), time: now, base: 0, body };
                assert_eq!(runtime.block_on(node.appender.append_catalog(record)), Ok(Applied::Current));
            }
        });
    }

    fn on_node(&self, work: impl FnOnce(&tokio::runtime::Runtime, &Node, &Sealer)) {
        let sealer = || Sealer::open_file(self.key_file().as_ref()).unwrap().unwrap();
        let health = Health::new(Duration::from_secs(60));
        let node = NodeConfig { cluster: self.cluster(), sealer: sealer(), spool: None, health };
        let node = Node::start(node).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        work(&runtime, &node, &sealer());
        node.threads().join().unwrap();
    }

    /// Events that do not come over the public edge, as the API appends them.
    pub fn append(&self, drafts: Vec<Draft>) {
        let append = || {
            self.on_node(|runtime, node, _| {
                runtime.block_on(node.appender.append_all(drafts)).unwrap();
            });
        };
        std::thread::scope(|scope| scope.spawn(append).join().unwrap());
    }

    pub fn put_account(&self) {
        self.put(|sealer| {
            vec![
                Body::Account(Box::new(account("acc_one", &sealer.seal(&token(1))))),
                Body::Link(serde_json::from_value(link("spring", "acc_one")).unwrap()),
            ]
        });
    }

    /// As `read` of its own topics.
    pub fn read(&self, topic: Topic, enough: impl FnMut(&Stored) -> bool) -> Vec<Stored> {
        read(&self.cluster(), topic, enough)
    }

    /// The events, once there are as many different ones.
    pub fn events(&self, count: usize) -> Vec<Stored> {
        let mut ids = BTreeSet::new();
        let all = self.read(Topic::Events, |stored| {
            if !stored.is_identity() {
                ids.insert(stored.event().id);
            }
            ids.len() >= count
        });
        all.into_iter().filter(|stored| !stored.is_identity()).collect()
    }
}

/// The records of a topic, in the order of each partition, up to the one that is `enough`.
pub fn read(cluster: &kafka::Cluster, topic: Topic, mut enough: impl FnMut(&Stored) -> bool) -> Vec<Stored> {
    let reader = cluster.open_reader().unwrap();
    let name = cluster.topic(topic);
    let metadata = reader.fetch_metadata(Some(&name), PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(&name, partition.id(), Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    let (mut all, until) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < until, "not enough on {name}: {} records", all.len());
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
            all.push(Stored::of(&message));
            if all.last().is_some_and(&mut enough) {
                return all;
            }
        }
    }
}

/// The event that a receipt names. On a machine that is busy any event may have gone through the spool.
pub fn at<'e>(events: &'e [Stored], receipt: &str) -> &'e Stored {
    let is_it = |stored: &&Stored| match receipt.parse().unwrap() {
        Receipt::Logged { partition, src } => (stored.partition, stored.offset) == (partition, src),
        Receipt::Spooled { partition, from, n } => {
            let event = stored.event();
            (stored.partition, event.from, event.n) == (partition, from, n)
        }
    };
    events.iter().find(is_it).unwrap_or_else(|| panic!("nothing is at {receipt}"))
}

pub fn token(n: u8) -> String {
    id::new_token(&[n; 28])
}

pub fn account(id: &str, sealed_token: &str) -> schemas::catalog::Account {
    serde_json::from_value(json!({
        "id": id, "name": id, "program": "generic", "token": sealed_token, "lookback_days": 90, "lifetime_days": 1825,
        "waiting_days": 7, "max_count": 100, "created": "2026-01-01T00:00:00.000Z",
    }))
    .unwrap()
}

pub fn link(id: &str, account: &str) -> serde_json::Value {
    json!({ "id": id, "account": account, "name": id, "destination": "https://casino.example/play",
            "created": "2026-01-01T00:00:00.000Z" })
}

/// A running `clickback ingest`.
pub struct Edge {
    pub role: Role,
}

impl Edge {
    pub async fn post_back(&self, query: &str) -> Answer {
        self.get(&format!("/post-back/{}?{query}", token(1))).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.role.http.get(format!("{}{path}", self.role.url("ingest")))).await
    }

    pub async fn admin(&self, path: &str) -> Answer {
        Answer::of(self.role.http.get(format!("{}{path}", self.role.url("admin")))).await
    }
}
