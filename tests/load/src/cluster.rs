//! The product in cluster mode: real servers, topics of its own for each run, and the roles as processes.
//!
//! The servers are those of `cargo xtask stack`: one broker, so each append is an fsync there, and Apache Cassandra in
//! ScyllaDB's place. Neither their CPU time nor ours counts.

pub mod topics;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::TempDir;
use xtask::stack::Stack;

use crate::{
    Place,
    clickback::{Account, Clickback, KEY},
    http::Api,
    process::Server,
};

pub struct Servers {
    pub kafka: String,
    scylla: Option<String>,
    _stack: Stack,
}

impl Servers {
    pub fn start(with_database: bool) -> Result<Servers> {
        let stack = Stack::own(1, with_database)?;
        let kafka = stack.kafka.as_ref().map_err(|error| anyhow!("no Kafka: {error:#}"))?.addresses.clone();
        let scylla = match &stack.scylla {
            Ok(service) => Some(service.addresses.clone()),
            Err(error) if with_database => return Err(anyhow!("no database: {error:#}")),
            Err(_) => None,
        };
        Ok(Servers { kafka, scylla, _stack: stack })
    }
}

pub struct Cluster {
    binary: PathBuf,
    kafka: String,
    scylla: Option<String>,
    prefix: String,
    folder: TempDir,
}

impl Cluster {
    /// Empty topics.
    pub fn make(place: &Place, servers: &Servers, partitions: u16) -> Result<Cluster> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let cluster = Cluster {
            binary: place.clickback.clone(),
            kafka: servers.kafka.clone(),
            scylla: servers.scylla.clone(),
            prefix: format!("bench{number}"),
            folder: tempfile::tempdir_in(&place.folder)?,
        };
        let mut init = cluster.command("init");
        init.args(["--partitions", &partitions.to_string(), "--key-file"]).arg(cluster.data().join("key"));
        if let Some(scylla) = &cluster.scylla {
            init.args(["--scylla", scylla]);
        }
        std::fs::create_dir_all(cluster.data())?;
        ended_well(&mut init)?;
        Ok(cluster)
    }

    /// Topics with an account. It is made in a folder and moved, so that a projector is not needed for it.
    pub async fn with_account(
        place: &Place,
        servers: &Servers,
        partitions: u16,
        links: usize,
    ) -> Result<(Cluster, Account)> {
        let cluster = Cluster::make(place, servers, partitions)?;
        let data = cluster.folder.path().join("folder");
        let mut clickback = Clickback::start(&place.clickback, &data)?;
        let account = clickback.account(links).await?;
        clickback.server.stop("TERM")?;
        let mut migrate = cluster.command("migrate");
        ended_well(migrate.arg("--data").arg(&data).arg("--key-file").arg(cluster.data().join("key")))?;
        Ok((cluster, account))
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub fn ingest(&self) -> Result<Role> {
        let mut command = self.command("ingest");
        command.args(["--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--spool"]).arg(self.data().join("spool"));
        Role::start(command.arg("--key-file").arg(self.data().join("key")))
    }

    pub fn matcher(&self) -> Result<Role> {
        let mut command = self.command("matcher");
        Role::start(command.args(["--admin", "127.0.0.1:0", "--state"]).arg(self.matcher_state()))
    }

    pub fn matcher_state(&self) -> PathBuf {
        self.data().join("state")
    }

    pub fn projector(&self, ingest: &Role) -> Result<Role> {
        let mut command = self.command("projector");
        command.env("CLICKBACK_ADMIN_KEY", KEY);
        command.args(["--scylla", self.scylla.as_deref().context("there is no database")?, "--api", "127.0.0.1:0"]);
        command.args(["--public-url", &format!("http://{}", ingest.address("ingest")?)]);
        Role::start(command.arg("--key-file").arg(self.data().join("key")))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("roles")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args([name, "--log-format", "json", "--kafka", &self.kafka, "--topic-prefix", &self.prefix]);
        command
    }
}

fn ended_well(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// One running role.
pub struct Role {
    pub server: Server,
    greeting: Value,
}

impl Role {
    fn start(command: &mut Command) -> Result<Role> {
        let server = Server::start(command.stderr(Stdio::null()), 1)?;
        let greeting = serde_json::from_str(&server.greeting[0])?;
        Ok(Role { server, greeting })
    }

    pub fn address(&self, listener: &str) -> Result<String> {
        let url = self.greeting[listener].as_str();
        url.map(|url| url.replace("http://", "")).with_context(|| format!("no {listener} in {}", self.greeting))
    }

    /// Its private listener.
    pub fn private(&self, listener: &str) -> Result<Api> {
        Ok(Api { address: self.address(listener)?, key: KEY.to_owned() })
    }
}

/// Bytes of all state files of a matcher that has ended, with their write-ahead logs folded in.
pub fn state_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += state_bytes(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "db") {
            bytes += crate::process::file_bytes(&path)?;
        }
    }
    Ok(bytes)
}
