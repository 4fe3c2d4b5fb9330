//! The servers and the roles of one run: what is up just now, under which address, and what it said.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use pipeline::{
    Applied, Sealer,
    kafka::{Cluster, Node, NodeConfig, Topic},
    lifecycle::Health,
};
use schemas::{
    catalog::{Body, Record},
    id,
};
use serde_json::json;
use system_tests::{Finished, Role, clickback, finish, newer_command};
use xtask::stack::{
    Stack, cassandra,
    kafka::brokers_known,
    server::{Server, wait_until_ready},
};

pub const ACCOUNTS: u32 = 3;

/// For a role to come up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ingest,
    Matcher,
    Projector,
}

pub struct Plan {
    pub brokers: usize,
    pub partitions: u16,
    pub ingests: usize,
    pub matchers: usize,
    /// With a database, where there are any.
    pub projectors: usize,
}

pub struct Stage {
    stack: Stack,
    pub cluster: Cluster,
    pub partitions: u16,
    folder: tempfile::TempDir,
    /// Where each ingest listens now, or did last.
    pub edges: Arc<RwLock<Vec<String>>>,
    /// What is up.
    roles: BTreeMap<(Kind, usize), Role>,
    /// Matchers are of a build that knows a rule version more.
    pub newer: bool,
    /// What roles said that have ended.
    said: String,
}

pub fn token(account: u32) -> String {
    id::new_token(&[account as u8 + 1; 28])
}

pub fn link(account: u32) -> String {
    format!("link{account}")
}

impl Stage {
    /// `None`, with a message, where no servers can be had; on a build server that is a failure.
    pub fn open(plan: &Plan) -> Option<Stage> {
        let stack = match Stack::own(plan.brokers, plan.projectors > 0) {
            Ok(stack) if stack.kafka.is_ok() && (plan.projectors == 0 || stack.scylla.is_ok()) => stack,
            failed => {
                let why = failed.and_then(|stack| stack.kafka.and(stack.scylla).map(drop)).unwrap_err();
                assert!(std::env::var_os("CI").is_none(), "there are no servers to break: {why:#}");
                eprintln!("skipped: there are no servers to break: {why:#}");
                return None;
            }
        };
        let addresses = stack.kafka.as_ref().unwrap().addresses.clone();
        let mut stage = Stage {
            stack,
            cluster: Cluster::with_prefix(&addresses, "chaos"),
            partitions: plan.partitions,
            folder: tempfile::tempdir().unwrap(),
            edges: Arc::default(),
            roles: BTreeMap::new(),
            newer: false,
            said: String::new(),
        };
        stage.init();
        (0..plan.ingests).for_each(|number| stage.start(Kind::Ingest, number));
        (0..plan.matchers).for_each(|number| stage.start(Kind::Matcher, number));
        (0..plan.projectors).for_each(|number| stage.start(Kind::Projector, number));
        Some(stage)
    }

    fn init(&self) {
        let (kafka, partitions) = (&self.cluster.brokers, self.partitions.to_string());
        let key = self.path("key");
        let usual = ["init", "--kafka", kafka, "--topic-prefix", "chaos", "--key-file", &key];
        let database = self.database().map(|address| ["--scylla", address]);
        let database = database.as_ref().map_or(&[][..], |args| args);
        let made = clickback(&[&usual[..], &["--partitions", &partitions], database].concat());
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let sealer = || Sealer::open_file(key.as_ref()).unwrap().unwrap();
        let health = Health::new(Duration::from_secs(60));
        let node = NodeConfig { cluster: self.cluster.clone(), sealer: sealer(), spool: None, health };
        let node = Node::start(node).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for body in (0..ACCOUNTS).flat_map(|number| settings(number, &sealer())) {
            let now = pipeline::clock::now();
            let record = Record { v: 1, id: body.thing(), tenant: "default".into(), time: now, base: 0, body };
            assert_eq!(runtime.block_on(node.appender.append_catalog(record)), Ok(Applied::Current));
        }
        node.threads().join().unwrap();
    }

    /// Switches the second rule version on, as an operator does it.
    pub fn switch_rules(&self) {
        let (kafka, key) = (&self.cluster.brokers, self.path("key"));
        let args = ["init", "--kafka", kafka, "--topic-prefix", "chaos", "--key-file", &key, "--rules", "2"];
        let refused = clickback(&args);
        assert_eq!((refused.code, refused.stderr.contains("and not 2")), (Some(1), true), "{}", refused.stderr);
        let made = finish(&mut newer_command(&args));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }

    /// Of a role that does not know the rules: it has to end by itself and say why.
    pub fn ends_over_rules(&mut self, kind: Kind, number: usize) {
        let (code, said) = self.roles.remove(&(kind, number)).unwrap().ends();
        assert_eq!((code, said.contains("rule version 2")), (Some(1), true), "{said}");
        self.said += &said;
    }

    /// Where there is one.
    pub fn database(&self) -> Option<&str> {
        self.stack.scylla.as_ref().ok().map(|service| service.addresses.as_str())
    }

    /// SIGKILL, and up again on the same data.
    pub fn restart_database(&mut self) {
        let address = self.database().unwrap().to_owned();
        let servers = &mut self.stack.scylla.as_mut().unwrap().servers;
        servers[0].restart().unwrap();
        wait_until_ready(servers, || cassandra::must_answer(&address).is_ok()).unwrap();
    }

    /// A key to read the reports with.
    pub fn key(&self) -> String {
        let (kafka, file) = (&self.cluster.brokers, self.path("key"));
        let usual = ["key", "create", "--tenant", "default", "--scope", "read"];
        let made =
            clickback(&[&usual[..], &["--kafka", kafka, "--topic-prefix", "chaos", "--key-file", &file]].concat());
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        made.stdout.trim().to_owned()
    }

    /// Every cell and every outcome, computed again from the topics.
    pub fn audit(&self) -> Finished {
        let (kafka, database) = (&self.cluster.brokers, self.database().unwrap());
        clickback(&["audit", "--kafka", kafka, "--topic-prefix", "chaos", "--scylla", database])
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// On the same folder as before, if it ran before.
    pub fn start(&mut self, kind: Kind, number: usize) {
        self.try_start(kind, number).unwrap_or_else(|said| panic!("{kind:?} {number} did not start:\n{said}"));
    }

    /// As a supervisor does it: a role that cannot ask Kafka at its start ends with a message, and is started again.
    pub fn supervise(&mut self, kind: Kind, number: usize) {
        let until = Instant::now() + PATIENCE;
        while let Err(said) = self.try_start(kind, number) {
            eprintln!("{kind:?} {number} is started again: {}", said.trim_end());
            assert!(Instant::now() < until, "{kind:?} {number} does not start");
        }
    }

    fn try_start(&mut self, kind: Kind, number: usize) -> Result<(), String> {
        let folder = self.path(&format!("{kind:?}-{number}"));
        let key = self.path("key");
        let (listen, scylla) = ("127.0.0.1:0", self.database().unwrap_or_default());
        let own = match kind {
            Kind::Ingest => {
                vec!["ingest", "--ingest", listen, "--admin", listen, "--spool", &folder, "--key-file", &key]
            }
            Kind::Matcher => vec!["matcher", "--admin", listen, "--state", &folder],
            Kind::Projector => vec!["projector", "--api", listen, "--scylla", scylla, "--key-file", &key],
        };
        let usual = ["--kafka", &self.cluster.brokers, "--topic-prefix", "chaos"];
        let args = [&own[..], &usual].concat();
        let newer = self.newer && kind == Kind::Matcher;
        let role = if newer { Role::start_newer(&args) } else { Role::start(&args) }?;
        if kind == Kind::Ingest {
            let mut edges = self.edges.write().unwrap();
            let all = edges.len().max(number + 1);
            edges.resize(all, String::new());
            edges[number] = role.url("ingest");
        }
        assert!(self.roles.insert((kind, number), role).is_none(), "{kind:?} {number} is up");
        Ok(())
    }

    pub fn role(&self, kind: Kind, number: usize) -> &Role {
        &self.roles[&(kind, number)]
    }

    /// The numbers of those that are up.
    pub fn numbers(&self, kind: Kind) -> Vec<usize> {
        self.roles.keys().filter(|(other, _)| *other == kind).map(|(_, number)| *number).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, kind: Kind, number: usize) {
        self.leave(kind, number).kill();
    }

    /// SIGTERM; it has to end well.
    pub fn stop(&mut self, kind: Kind, number: usize) {
        assert!(self.leave(kind, number).stop().success(), "{kind:?} {number} did not end well");
    }

    pub fn stop_all(&mut self, kind: Kind) {
        self.numbers(kind).into_iter().for_each(|number| self.stop(kind, number));
    }

    pub fn delete_folder(&self, kind: Kind, number: usize) {
        std::fs::remove_dir_all(self.path(&format!("{kind:?}-{number}"))).unwrap();
    }

    fn leave(&mut self, kind: Kind, number: usize) -> Role {
        let role = self.roles.remove(&(kind, number)).unwrap();
        self.said.push_str(&format!("\n== {kind:?} {number}, to be ended\n{}", role.stderr()));
        role
    }

    /// Nobody ends by himself, whatever is broken around him.
    pub fn assert_all_run(&mut self) {
        for (who, role) in &mut self.roles {
            assert!(!role.has_ended(), "{who:?} ended by itself:\n{}", role.stderr());
        }
    }

    pub fn broker(&mut self, number: usize) -> &mut Server {
        &mut self.stack.kafka.as_mut().unwrap().servers[number]
    }

    /// SIGSTOP, SIGCONT.
    pub fn signal_broker(&mut self, number: usize, name: &str) {
        let id = self.broker(number).own_pid().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub fn start_broker(&mut self, number: usize) {
        self.broker(number).restart().unwrap();
    }

    pub fn wait_for_brokers(&mut self) {
        let addresses: Vec<String> = self.cluster.brokers.split(',').map(str::to_owned).collect();
        let all = addresses.len();
        let kafka = &mut self.stack.kafka.as_mut().unwrap().servers;
        wait_until_ready(kafka, || addresses.iter().all(|a| brokers_known(a).is_ok_and(|known| known >= all))).unwrap();
    }

    /// The broker's folder of one partition.
    pub fn partition_folder(&mut self, topic: Topic, partition: u16) -> PathBuf {
        let name = format!("{}-{partition}", self.cluster.topic(topic));
        self.broker(0).folder().join("data").join(name)
    }

    /// Takes the end of a partition's log away, while the broker is down. Gives the bytes that are gone.
    pub fn cut(&mut self, topic: Topic, partition: u16, most: u64) -> u64 {
        let segment = last_segment(&self.partition_folder(topic, partition));
        let length = segment.metadata().unwrap().len();
        let left = length.saturating_sub(most).max(length / 2);
        std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(left).unwrap();
        length - left
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut said = std::mem::take(&mut self.said);
        for (who, role) in &self.roles {
            said.push_str(&format!("\n== {who:?}, at the end\n{}", role.stderr()));
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}.log", std::process::id()));
        std::fs::write(&file, said).ok();
        eprintln!("what the roles said is in {}", file.display());
    }
}

fn last_segment(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap()
}

fn settings(number: u32, sealer: &Sealer) -> Vec<Body> {
    let (account, created) = (format!("acc_{number}"), "2026-01-01T00:00:00.000Z");
    let one = json!({
        "id": account, "name": account, "program": "generic", "token": sealer.seal(&token(number)), "lookback_days": 90,
        "lifetime_days": 1825, "waiting_days": 7, "max_count": 100, "created": created,
    });
    let link = json!({ "id": link(number), "account": account, "name": "A link", "created": created,
                       "destination": "https://casino.example/play" });
    vec![
        Body::Account(Box::new(serde_json::from_value(one).unwrap())),
        Body::Link(serde_json::from_value(link).unwrap()),
    ]
}
