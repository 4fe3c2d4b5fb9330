//! A Kafka and a database for the tests: given, in containers, or as plain processes on free loopback ports.
//!
//! Owns: where they come from, that they answer, and that they are gone afterwards. Refuses: to touch servers that were
//! given, and to listen on anything but loopback. Invariant: what a [`Stack`] started has ended when it is dropped.

use std::{
    env, io,
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

pub mod cassandra;
mod container;
pub mod java;
pub mod kafka;
pub mod server;

use container::Engine;
use java::Java;
use server::Server;

/// Addresses for the tests, and from somebody who has servers already.
pub const KAFKA: &str = "CLICKBACK_TEST_KAFKA";
pub const SCYLLA: &str = "CLICKBACK_TEST_SCYLLA";
const ANSWER: Duration = Duration::from_secs(2);

/// One of the two.
pub struct Service {
    /// `HOST:PORT`, or several with commas between.
    pub addresses: String,
    /// What was started for it. Nothing, where the addresses were given.
    pub servers: Vec<Server>,
    pub from: &'static str,
}

pub struct Stack {
    /// Or why there is none.
    pub kafka: Result<Service>,
    pub scylla: Result<Service>,
    // Last: the servers end before their folder goes.
    _folder: TempDir,
}

impl Stack {
    /// Brings both up, side by side, and waits until they answer.
    pub fn start(brokers: usize) -> Result<Stack> {
        if !(1..=3).contains(&brokers) {
            bail!("--brokers is 1 to 3");
        }
        let given = (given(KAFKA, kafka::must_answer)?, given(SCYLLA, cassandra::must_answer)?);
        let folder = tempfile::Builder::new().prefix("clickback-stack-").tempdir()?;
        let sources = match &given {
            (Some(_), Some(_)) => Sources { engine: Err(anyhow!("not asked")), java: Err(anyhow!("not asked")) },
            _ => Sources { engine: Engine::find(), java: Java::find() },
        };
        let (kafka, scylla) = thread::scope(|scope| {
            let kafka = scope.spawn(|| given.0.map_or_else(|| sources.kafka(folder.path(), brokers), Ok));
            let scylla = given.1.map_or_else(|| sources.scylla(folder.path()), Ok);
            (kafka.join().unwrap_or_else(|_| bail!("a panic while Kafka was started")), scylla)
        });
        Ok(Stack { kafka, scylla, _folder: folder })
    }

    /// Plain processes, whatever else is at hand: for tests that kill them and reach into their folders.
    pub fn own(brokers: usize, with_database: bool) -> Result<Stack> {
        let java = Java::find()?;
        let folder = tempfile::Builder::new().prefix("clickback-stack-").tempdir()?;
        let service = |addresses, servers| Service { addresses, servers, from: "with Java" };
        let (kafka, scylla) = thread::scope(|scope| {
            let kafka = scope.spawn(|| kafka::start(&java, folder.path(), brokers));
            let scylla = match with_database {
                true => cassandra::start(&java, folder.path()).map(|(address, server)| service(address, vec![server])),
                false => Err(anyhow!("not asked for")),
            };
            (kafka.join().unwrap_or_else(|_| bail!("a panic while Kafka was started")), scylla)
        });
        Ok(Stack { kafka: kafka.map(|(addresses, servers)| service(addresses, servers)), scylla, _folder: folder })
    }

    pub fn services(&self) -> [(&'static str, &'static str, &Result<Service>); 2] {
        [("Kafka", KAFKA, &self.kafka), ("database", SCYLLA, &self.scylla)]
    }

    /// Servers that ended by themselves, with the last that they said.
    pub fn ended(&mut self) -> Vec<String> {
        let services = [&mut self.kafka, &mut self.scylla];
        let servers = services.into_iter().flatten().flat_map(|service| &mut service.servers);
        let ended = servers.filter_map(|server| {
            let status = server.ended()?;
            Some(format!("{} has ended ({status}):\n{}", server.name(), server.log_tail()))
        });
        ended.collect()
    }
}

struct Sources {
    engine: Result<Engine>,
    java: Result<Java>,
}

impl Sources {
    fn kafka(&self, folder: &Path, brokers: usize) -> Result<Service> {
        let contained = match &self.engine {
            Ok(_) if brokers > 1 => Err(anyhow!("several brokers do not run in containers here")),
            Ok(engine) => container::kafka(*engine, folder).map(|(addresses, server)| (addresses, vec![server])),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        first_of(contained, || kafka::start(self.java()?, folder, brokers))
    }

    fn scylla(&self, folder: &Path) -> Result<Service> {
        let one = |(addresses, server)| (addresses, vec![server]);
        let contained = match &self.engine {
            Ok(engine) => container::scylla(*engine, folder).map(one),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        first_of(contained, || cassandra::start(self.java()?, folder).map(one))
    }

    fn java(&self) -> Result<&Java> {
        self.java.as_ref().map_err(|error| anyhow!("{error:#}"))
    }
}

type Started = (String, Vec<Server>);

fn first_of(contained: Result<Started>, with_java: impl FnOnce() -> Result<Started>) -> Result<Service> {
    let first = match contained {
        Ok((addresses, servers)) => return Ok(Service { addresses, servers, from: "in a container" }),
        Err(error) => error,
    };
    match with_java() {
        Ok((addresses, servers)) => Ok(Service { addresses, servers, from: "with Java" }),
        Err(second) => bail!("{first:#}; {second:#}"),
    }
}

/// Who gives an address means it: one that does not answer is an error, and nothing else is tried.
fn given(variable: &str, must_answer: fn(&str) -> Result<()>) -> Result<Option<Service>> {
    let Some(addresses) = env::var(variable).ok().filter(|addresses| !addresses.is_empty()) else { return Ok(None) };
    must_answer(&addresses).with_context(|| variable.to_owned())?;
    Ok(Some(Service { addresses, servers: Vec::new(), from: "as given" }))
}

/// A connection with a limit on every wait for an answer.
fn connect(address: &str) -> io::Result<TcpStream> {
    let address = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no such host"))?;
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// So many different free ports of the loopback. They are held together, as the system may give a freed one again.
fn ports(wanted: usize) -> Result<Vec<u16>> {
    let held: std::io::Result<Vec<_>> = (0..wanted).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    held?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_differ_and_are_free() {
        let found = ports(20).unwrap();
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 20);
        for port in found {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_given_address_that_does_not_answer_is_an_error_that_names_it() {
        let free = format!("127.0.0.1:{}", ports(1).unwrap()[0]);
        for error in [kafka::must_answer(&free).unwrap_err(), cassandra::must_answer(&free).unwrap_err()] {
            assert!(format!("{error:#}").contains(&free), "{error:#}");
        }
    }

    #[test]
    fn both_reasons_are_told_where_neither_source_works() {
        let error = first_of(Err(anyhow!("no engine")), || bail!("there is no Java")).err().unwrap();
        assert_eq!(format!("{error:#}"), "no engine; there is no Java");
    }
}
