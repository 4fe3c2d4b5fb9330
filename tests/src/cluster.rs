//! A whole cluster for the tests of what a user sees: topics and tables of its own, and one process of each role.
//!
//! Tests that run side by side share one, each with a tenant of its own; the last one ends it.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Answer, Finished, Role, clickback};

/// Few, so that every partition has something, and more than one.
const PARTITIONS: &str = "3";
const PATIENCE: Duration = Duration::from_secs(60);
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NAMES: AtomicU32 = AtomicU32::new(0);

/// Whether the tests of what a user sees run on a cluster this time.
pub fn is_meant() -> bool {
    std::env::var("CLICKBACK_TEST_MODE").is_ok_and(|mode| mode == "cluster")
}

pub struct Cluster {
    pub kafka: String,
    pub scylla: String,
    pub prefix: String,
    dir: tempfile::TempDir,
    pub ingest: Role,
    pub matcher: Role,
    pub projector: Role,
}

impl Cluster {
    pub fn shared() -> Arc<Cluster> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.upgrade() {
            return known;
        }
        let cluster = Arc::new(Cluster::start());
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// One that no other test uses.
    pub fn start() -> Cluster {
        let given =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use cargo xtask test"));
        let (kafka, scylla) = (given("CLICKBACK_TEST_KAFKA"), given("CLICKBACK_TEST_SCYLLA"));
        let dir = tempfile::tempdir().unwrap();
        let (number, process) = (NAMES.fetch_add(1, Ordering::Relaxed), std::process::id());
        // Of a folder that nobody else has.
        let place = dir.path().file_name().unwrap().to_str().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let prefix = format!("user{place}x{process}x{number}");
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (key, spool, state) = (path("key"), path("spool"), path("state"));
        let usual = ["--kafka", &kafka, "--topic-prefix", &prefix];
        let with = |command: &str, args: &[&str]| -> Vec<String> {
            let all = [&[command][..], &usual, args].concat();
            all.into_iter().map(str::to_owned).collect()
        };
        let made = run(&with("init", &["--scylla", &scylla, "--key-file", &key, "--partitions", PARTITIONS]));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let listen = "127.0.0.1:0";
        let ingest = ["--key-file", &key, "--ingest", listen, "--admin", listen, "--spool", &spool];
        let ingest = role(&with("ingest", &ingest));
        let matcher = role(&with("matcher", &["--admin", listen, "--state", &state]));
        let url = ingest.url("ingest");
        let projector = ["--scylla", &scylla, "--key-file", &key, "--api", listen, "--public-url", &url];
        let projector = role(&with("projector", &projector));
        Cluster { kafka, scylla, prefix, dir, ingest, matcher, projector }
    }

    /// What says where it is, for commands that need only its topics.
    pub fn topics(&self) -> Vec<String> {
        ["--kafka", &self.kafka, "--topic-prefix", &self.prefix].map(str::to_owned).to_vec()
    }

    pub fn key_file(&self) -> String {
        self.dir.path().join("key").to_str().unwrap().to_owned()
    }

    /// A setting holds for hits from a second after its answer; this waits until it does.
    pub async fn until_in_force(&self, http: &reqwest::Client) {
        let wanted = catalog_position(http, &self.projector.url("api")).await;
        let until = Instant::now() + PATIENCE;
        while catalog_position(http, &self.ingest.url("admin")).await < wanted {
            assert!(Instant::now() < until, "ingest does not read the catalog");
        }
    }

    pub fn audit(&self) -> Finished {
        self.command("audit")
    }

    /// A command on its topics and tables.
    pub fn command(&self, command: &str) -> Finished {
        let topics = self.topics();
        run(&[&[command.to_owned()][..], &topics, &["--scylla".to_owned(), self.scylla.clone()]].concat())
    }

    /// A tenant that no other test has.
    pub fn new_tenant() -> String {
        format!("tenant-{}", NAMES.fetch_add(1, Ordering::Relaxed))
    }
}

async fn catalog_position(http: &reqwest::Client, address: &str) -> u64 {
    let metrics = Answer::of(http.get(format!("{address}/metrics"))).await.expect(200).text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("clickback_catalog_position "));
    line.map_or(0, |position| position.parse().unwrap())
}

fn run(args: &[String]) -> Finished {
    clickback(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn role(args: &[String]) -> Role {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Role::start(&args).unwrap_or_else(|stderr| panic!("{} did not start:\n{stderr}", args[0]))
}
