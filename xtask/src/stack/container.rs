//! The servers as containers, where an engine is at hand.
//!
//! Written from the manuals of the two images; it was never run, as no engine was at hand when it was written. Where a
//! container does not become ready, the next source is taken.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use super::{
    cassandra, kafka, ports,
    server::{Recipe, Server, wait_until_ready},
};
use crate::attend;

const KAFKA: &str = "apache/kafka:4.1.0";
const SCYLLA: &str = "scylladb/scylla:2025.1";

#[derive(Clone, Copy, Debug)]
pub struct Engine(&'static str);

impl Engine {
    /// One that answers; that its command is there is not enough.
    pub fn find() -> Result<Engine> {
        let works = |name: &&'static str| {
            attend::output(Command::new(name).arg("info"), Duration::from_secs(10)).is_ok_and(|o| o.status.success())
        };
        match ["docker", "podman"].into_iter().find(works) {
            Some(name) => Ok(Engine(name)),
            None => bail!("no container engine answers (docker, podman)"),
        }
    }

    /// The image, if it is not there yet: apart from the start, as it may take long.
    fn pull(self, image: &str) -> Result<()> {
        let known = attend::output(Command::new(self.0).args(["image", "inspect", image]), Duration::from_secs(20))?;
        if known.status.success() {
            return Ok(());
        }
        attend::succeed(Command::new(self.0).args(["pull", "--quiet", image]))
    }

    fn recipe(self, folder: &Path, service: &str, port: u16, inner: u16, rest: Vec<String>) -> Recipe {
        let name = format!("clickback-test-{service}-{port}");
        let mut args: Vec<String> = ["run", "--rm", "--name", &name, "--publish"].map(str::to_owned).to_vec();
        args.push(format!("127.0.0.1:{port}:{inner}"));
        args.extend(rest);
        Recipe {
            program: self.0.into(),
            args: args.into_iter().map(Into::into).collect(),
            folder: folder.to_owned(),
            remove: Some([self.0, "rm", "--force", "--volumes", &name].map(Into::into).to_vec()),
            name,
        }
    }
}

pub fn kafka(engine: Engine, folder: &Path) -> Result<(String, Server)> {
    engine.pull(KAFKA)?;
    let port = ports(1)?[0];
    let mut rest: Vec<String> =
        kafka::container_environment(port).into_iter().flat_map(|v| ["--env".to_owned(), v]).collect();
    rest.extend(["--env", "KAFKA_HEAP_OPTS=-Xmx512m", KAFKA].map(str::to_owned));
    let mut servers = [Server::start(engine.recipe(folder, "kafka", port, port, rest))?];
    let address = format!("127.0.0.1:{port}");
    wait_until_ready(&mut servers, || kafka::brokers_known(&address).is_ok_and(|known| known >= 1))?;
    let [server] = servers;
    Ok((address, server))
}

pub fn scylla(engine: Engine, folder: &Path) -> Result<(String, Server)> {
    engine.pull(SCYLLA)?;
    let port = ports(1)?[0];
    let rest = [SCYLLA, "--developer-mode", "1", "--smp", "1", "--memory", "512M", "--overprovisioned", "1"];
    let recipe = engine.recipe(folder, "scylla", port, 9042, rest.map(str::to_owned).to_vec());
    let mut servers = [Server::start(recipe)?];
    let address = format!("127.0.0.1:{port}");
    wait_until_ready(&mut servers, || cassandra::answers(&address).is_ok())?;
    let [server] = servers;
    Ok((address, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_published_on_loopback_only_and_taken_away_by_name() {
        let recipe = Engine("docker").recipe(Path::new("/tmp"), "scylla", 1001, 9042, vec!["image".to_owned()]);
        assert_eq!(
            recipe.args,
            ["run", "--rm", "--name", "clickback-test-scylla-1001", "--publish", "127.0.0.1:1001:9042", "image"]
        );
        let remove = recipe.remove.unwrap();
        assert_eq!(remove, ["docker", "rm", "--force", "--volumes", "clickback-test-scylla-1001"]);
    }
}
