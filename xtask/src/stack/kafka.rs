//! Apache Kafka nodes (KRaft; each is broker and controller), and the question whether they are ready.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    connect,
    java::Java,
    ports,
    server::{Recipe, Server, wait_until_ready},
};
use crate::attend;

const QUIET: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
const POM: &str = "xtask/stack/kafka-pom.xml";
/// 16 bytes in base64, as the storage tool wants it.
const CLUSTER: &str = "clickback-test-cluster";

#[derive(Clone, Copy)]
struct Ports {
    clients: u16,
    controller: u16,
}

/// Starts so many nodes on free ports. They are ready when all of them know all of them.
pub fn start(java: &Java, folder: &Path, nodes: usize) -> Result<(String, Vec<Server>)> {
    let class_path = super::java::class_path("kafka", &crate::root().join(POM))?;
    let free = ports(2 * nodes)?;
    let ports: Vec<Ports> = free.chunks_exact(2).map(|p| Ports { clients: p[0], controller: p[1] }).collect();
    let mut formatting = Vec::new();
    for node in 0..nodes {
        let data = folder.join(format!("kafka-{}", node + 1));
        fs::create_dir_all(&data)?;
        fs::write(data.join("server.properties"), properties(&ports, node, &data.join("data")))?;
        let mut format = Command::new(java.program());
        format.args([QUIET, "-cp"]).arg(&class_path).args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]);
        format.arg(data.join("server.properties")).stdout(Stdio::null());
        formatting.push((data, format));
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = formatting.iter_mut().map(|(_, tool)| scope.spawn(|| attend::succeed(tool))).collect();
        running.into_iter().try_for_each(|tool| tool.join().unwrap_or_else(|_| bail!("the storage tool panicked")))
    })?;
    let mut servers = Vec::new();
    for (node, (data, _)) in formatting.iter().enumerate() {
        let mut args = vec!["-Xms512m".into(), "-Xmx512m".into(), "-XX:+UseSerialGC".into()];
        args.extend([QUIET.into(), "-cp".into(), class_path.clone()]);
        args.extend(["kafka.Kafka".into(), "server.properties".into()]);
        let name = format!("kafka-{}", node + 1);
        servers.push(Server::start(Recipe {
            name,
            program: java.program(),
            args,
            folder: data.clone(),
            remove: None,
        })?);
    }
    let addresses: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{}", p.clients)).collect();
    wait_until_ready(&mut servers, || addresses.iter().all(|a| brokers_known(a).is_ok_and(|known| known >= nodes)))?;
    Ok((addresses.join(","), servers))
}

/// A broker's settings as they go to a file, or to a container's environment.
pub fn settings(nodes: usize) -> Vec<(&'static str, String)> {
    let replication = nodes.min(3);
    let in_sync = if replication == 3 { 2 } else { 1 };
    vec![
        ("process.roles", "broker,controller".to_owned()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("default.replication.factor", replication.to_string()),
        ("min.insync.replicas", in_sync.to_string()),
        ("offsets.topic.replication.factor", replication.to_string()),
        // Fifty partitions of positions and fifty of transactions are for larger clusters.
        ("offsets.topic.num.partitions", "3".to_owned()),
        ("transaction.state.log.replication.factor", replication.to_string()),
        ("transaction.state.log.min.isr", in_sync.to_string()),
        ("transaction.state.log.num.partitions", "3".to_owned()),
        // A quarter of the heap, otherwise.
        ("log.cleaner.dedupe.buffer.size", "8388608".to_owned()),
    ]
}

fn properties(ports: &[Ports], node: usize, data: &Path) -> String {
    let Ports { clients, controller } = ports[node];
    let voters: Vec<_> =
        ports.iter().enumerate().map(|(i, p)| format!("{}@127.0.0.1:{}", i + 1, p.controller)).collect();
    let mut lines = vec![
        format!("node.id={}", node + 1),
        format!("listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{clients}"),
        format!("controller.quorum.voters={}", voters.join(",")),
        // A back slash would begin an escape.
        format!("log.dirs={}", data.display().to_string().replace('\\', "/")),
    ];
    lines.extend(settings(ports.len()).iter().map(|(key, value)| format!("{key}={value}")));
    lines.join("\n") + "\n"
}

/// How many brokers the broker at this address knows to be at work: a metadata request, version 1, about no topic.
pub fn brokers_known(address: &str) -> io::Result<usize> {
    let mut stream = connect(address)?;
    stream.write_all(&METADATA_REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > 1 << 20 {
        return Err(io::Error::other("this is not Kafka"));
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer)?;
    brokers_in(&answer).ok_or_else(|| io::Error::other("this is not Kafka"))
}

const METADATA_REQUEST: [u8; 18] = [
    0, 0, 0, 14, // length of the rest
    0, 3, 0, 1, // metadata, version 1
    0, 0, 0, 7, // correlation id
    255, 255, // no client id
    0, 0, 0, 0, // no topics
];

/// Correlation id, then the number of brokers.
fn brokers_in(answer: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    (number(0)? == 7).then_some(())?;
    usize::try_from(number(4)?).ok()
}

/// In a container: one broker, as several would need a network of their own.
pub fn container_environment(port: u16) -> Vec<String> {
    let mut variables = vec![
        ("node.id", "1".to_owned()),
        ("listeners", format!("PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("controller.quorum.voters", "1@127.0.0.1:9093".to_owned()),
    ];
    variables.extend(settings(1));
    variables.into_iter().map(|(k, v)| format!("KAFKA_{}={v}", k.replace('.', "_").to_uppercase())).collect()
}

/// For an address that somebody gave.
pub fn must_answer(addresses: &str) -> Result<()> {
    let known = addresses.split(',').map(|a| brokers_known(a).with_context(|| format!("Kafka at {a} does not answer")));
    known.into_iter().try_for_each(|broker| broker.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [Ports; 3] = [
        Ports { clients: 1001, controller: 1002 },
        Ports { clients: 1003, controller: 1004 },
        Ports { clients: 1005, controller: 1006 },
    ];

    #[test]
    fn a_node_of_three_can_lose_one_in_sync_replica() {
        let text = properties(&THREE, 1, Path::new("/tmp/x"));
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        has("node.id=2");
        has("listeners=PLAINTEXT://127.0.0.1:1003,CONTROLLER://127.0.0.1:1004");
        has("advertised.listeners=PLAINTEXT://127.0.0.1:1003");
        has("controller.quorum.voters=1@127.0.0.1:1002,2@127.0.0.1:1004,3@127.0.0.1:1006");
        has("default.replication.factor=3");
        has("offsets.topic.replication.factor=3");
        has("min.insync.replicas=2");
        has("log.dirs=/tmp/x");
    }

    #[test]
    fn a_lone_node_waits_for_nobody() {
        let text = properties(&THREE[..1], 0, Path::new("/tmp/x"));
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:1002\n"), "{text}");
        assert!(
            text.contains("\nmin.insync.replicas=1\n") && text.contains("\ndefault.replication.factor=1\n"),
            "{text}"
        );
    }

    #[test]
    fn settings_as_a_container_wants_them() {
        let variables = container_environment(9099);
        assert!(variables.contains(&"KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:9099".to_owned()));
        assert!(variables.contains(&"KAFKA_PROCESS_ROLES=broker,controller".to_owned()));
    }

    #[test]
    fn an_answer_tells_how_many_brokers_there_are() {
        assert_eq!(brokers_in(&[0, 0, 0, 7, 0, 0, 0, 3, 0, 0]), Some(3));
        assert_eq!(brokers_in(&[0, 0, 0, 8, 0, 0, 0, 3]), None);
        assert_eq!(brokers_in(b"HTTP"), None);
        assert_eq!(METADATA_REQUEST.len(), 4 + usize::from(METADATA_REQUEST[3]));
    }
}
