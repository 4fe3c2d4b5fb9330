//! A PostgreSQL of its own in a temporary folder, and the peer on top of it.
//!
//! Needs the server programs of PostgreSQL (Debian: `apt-get install postgresql-15`). It never runs as root: started
//! by root, it runs as the user `postgres`, else as `nobody`.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls};

use crate::{
    process::Server,
    workload::{self, Hit},
};

const TABLES: &str = "
CREATE TABLE clicks (id text PRIMARY KEY, account int NOT NULL, link int NOT NULL, day date NOT NULL,
    dyn text, sub1 text, sub2 text, sub3 text);
CREATE TABLE hits (id text PRIMARY KEY, click text NOT NULL, raw text NOT NULL, at bigint NOT NULL, outcome text NOT NULL);
CREATE TABLE conversions (click text NOT NULL, goal text NOT NULL, tid text NOT NULL, hit text NOT NULL, cents bigint NOT NULL,
    account int NOT NULL, link int NOT NULL, day date NOT NULL, PRIMARY KEY (click, goal, tid));
CREATE TABLE report (account int, link int, day date, goal text, conversions bigint NOT NULL, cents bigint NOT NULL,
    PRIMARY KEY (account, link, day, goal));
";

/// What everybody sets who cares; durability is left as it comes: fsync, synchronous_commit and full_page_writes on.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = '1GB'
max_wal_size = '4GB'
wal_compression = on
";

pub struct Postgres {
    postmaster: Server,
    _folder: tempfile::TempDir,
    url: String,
}

fn program(name: &str) -> Result<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    places.extend((13..=18).rev().map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin"))));
    let found = places.into_iter().map(|p| p.join(name)).find(|p| p.exists());
    found.with_context(|| format!("`{name}` is not installed (Debian: apt-get install postgresql-15)"))
}

fn number(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The user to run as, when we are root.
fn other_user() -> Option<(u32, u32)> {
    if number(&["-u"]) != Some(0) {
        return None;
    }
    let of = |name: &str| Some((number(&["-u", name])?, number(&["-g", name])?));
    of("postgres").or_else(|| of("nobody"))
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) -> &mut Command {
    match user {
        Some((user, group)) => command.uid(user).gid(group),
        None => command,
    }
}

impl Postgres {
    pub fn start(parent: &Path) -> Result<Postgres> {
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        let folder = tempfile::tempdir_in(parent)?;
        let user = other_user();
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group))?;
        }
        let data = folder.path().join("data");
        let mut init = Command::new(initdb);
        init.args(["--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
        let made = as_user(init.current_dir(folder.path()), user).stdout(Stdio::null()).status()?;
        if !made.success() {
            bail!("initdb failed");
        }
        let config = data.join("postgresql.conf");
        fs::write(&config, fs::read_to_string(&config)? + SETTINGS)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut run = Command::new(postgres);
        run.arg("-D").arg(&data).args(["-p", &port.to_string()]).stderr(Stdio::null()).current_dir(folder.path());
        let postmaster = Server::start(as_user(&mut run, user), 0)?;
        let url = format!("host=127.0.0.1 port={port} user=bench dbname=postgres");
        Ok(Postgres { postmaster, _folder: folder, url })
    }

    pub async fn connect(&self) -> Result<Client> {
        for _ in 0..600 {
            if let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await {
                tokio::spawn(connection);
                return Ok(client);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("PostgreSQL does not start")
    }

    /// Empty tables with the clicks in them, checkpointed.
    pub async fn prepare(&self, clicks: &[String]) -> Result<()> {
        let client = self.connect().await?;
        client.batch_execute("DROP TABLE IF EXISTS clicks, hits, conversions, report").await?;
        client.batch_execute(TABLES).await?;
        for (part, ids) in clicks.chunks(10_000).enumerate() {
            let links: Vec<i32> = (0..ids.len()).map(|n| ((part * 10_000 + n) % 100) as i32).collect();
            let insert = "INSERT INTO clicks SELECT id, 1, link, current_date, 'campaign-x-123456789', 'source-12345',
                'zone-1234567', 'creative-123' FROM unnest($1::text[], $2::int[]) AS t(id, link)";
            client.execute(insert, &[&ids, &links]).await?;
        }
        client.batch_execute("VACUUM ANALYZE clicks").await?;
        client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// The web server of this side; its CPU time is that of both.
    pub fn serve(&self, binary: &Path, connections: usize) -> Result<Server> {
        let mut command = Command::new(binary);
        command.arg(&self.url).arg(connections.to_string());
        Ok(Server::start(&mut command, 1)?.with(self.postmaster.pid()))
    }

    pub async fn check(&self, hits: &[Hit]) -> Result<()> {
        let client = self.connect().await?;
        let count = async |sql: &str| -> Result<(i64, i64)> {
            let row = client.query_one(sql, &[]).await?;
            Ok((row.get(0), row.get(1)))
        };
        let expected = workload::expected(hits);
        let expected = (expected.conversions as i64, expected.cents as i64);
        let report = count("SELECT sum(conversions)::bigint, sum(cents)::bigint FROM report").await?;
        let rows = count("SELECT count(*), sum(cents)::bigint FROM conversions").await?;
        let (stored, _) = count("SELECT count(*), 0::bigint FROM hits").await?;
        if (report, rows, stored) != (expected, expected, hits.len() as i64) {
            bail!("PostgreSQL shows {report:?}, {rows:?} and {stored} hits; expected {expected:?} and {}", hits.len());
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGKILL to the postmaster alone would leave its children behind for a moment; SIGTERM waits for clients.
        self.postmaster.stop("INT").ok();
    }
}
