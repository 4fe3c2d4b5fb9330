//! One Apache Cassandra node, which stands in for ScyllaDB: the same CQL, the same driver.
//!
//! What it cannot show: shard-aware ports, tablets, ScyllaDB's timeouts and its speed. Tests keep to CQL that both have.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    connect,
    java::Java,
    ports,
    server::{Recipe, Server, wait_until_ready},
};

const POM: &str = "xtask/stack/cassandra-pom.xml";
const LOGGING: &str = "xtask/stack/cassandra-logback.xml";

/// What Cassandra 5.0 reaches into on Java 17.
const EXPORTS: [&str; 9] = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];
const OPENS: [&str; 15] = [
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

pub fn start(java: &Java, folder: &Path) -> Result<(String, Server)> {
    let class_path = super::java::class_path("cassandra", &crate::root().join(POM))?;
    let free = ports(3)?;
    let (native, storage, jmx) = (free[0], free[1], free[2]);
    let folder = folder.join("cassandra");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cassandra.yaml"), yaml(native, storage, &folder))?;
    let recipe = Recipe {
        name: "cassandra".to_owned(),
        program: java.program(),
        args: arguments(&folder, jmx, class_path),
        folder,
        remove: None,
    };
    let mut servers = [Server::start(recipe)?];
    let address = format!("127.0.0.1:{native}");
    wait_until_ready(&mut servers, || answers(&address).is_ok())?;
    let [server] = servers;
    Ok((address, server))
}

fn yaml(native: u16, storage: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "\
cluster_name: clickback-test
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10000ms
commitlog_disk_access_mode: legacy
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {storage}
native_transport_port: {native}
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"127.0.0.1:{storage}\"
data_file_directories: [\"{folder}/data\"]
commitlog_directory: \"{folder}/commitlog\"
saved_caches_directory: \"{folder}/saved_caches\"
hints_directory: \"{folder}/hints\"
cdc_raw_directory: \"{folder}/cdc_raw\"
memtable_heap_space: 128MiB
memtable_offheap_space: 128MiB
auto_snapshot: false
# Two cores that also compile and test.
read_request_timeout: 10000ms
range_request_timeout: 20000ms
write_request_timeout: 10000ms
"
    )
}

fn arguments(folder: &Path, jmx: u16, class_path: OsString) -> Vec<OsString> {
    let folder = folder.display();
    let mut args =
        ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"].map(str::to_owned).to_vec();
    args.extend([
        format!("-Dcassandra.config=file://{folder}/cassandra.yaml"),
        format!("-Dcassandra.storagedir={folder}"),
        format!("-Dcassandra.logdir={folder}"),
        format!("-Dcassandra.jmx.local.port={jmx}"),
        format!("-Dlogback.configurationFile={}", crate::root().join(LOGGING).display()),
    ]);
    let fixed = [
        "-Dcassandra-foreground=yes",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=1000",
        "-Dcassandra.superuser_setup_delay_ms=0",
        "-Djdk.attach.allowAttachSelf=true",
        // Java 18 to 23 have to be asked for it.
        "-Djava.security.manager=allow",
    ];
    args.extend(fixed.map(str::to_owned));
    args.extend(EXPORTS.map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
    args.extend(OPENS.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
    args.push("-cp".to_owned());
    let mut args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
    args.extend([class_path, "org.apache.cassandra.service.CassandraDaemon".into()]);
    args
}

/// Asks what the node supports, as every driver does first: a frame of protocol version 4 without a body.
pub fn answers(address: &str) -> io::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(&[0x04, 0, 0, 0, OPTIONS, 0, 0, 0, 0])?;
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    if header[0] & 0x80 == 0 || header[4] != SUPPORTED {
        return Err(io::Error::other("this speaks no CQL"));
    }
    Ok(())
}

const OPTIONS: u8 = 0x05;
const SUPPORTED: u8 = 0x06;

/// For an address that somebody gave.
pub fn must_answer(addresses: &str) -> Result<()> {
    addresses.split(',').try_for_each(|a| answers(a).with_context(|| format!("the database at {a} does not answer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    #[test]
    fn a_node_keeps_to_loopback_and_its_folder() {
        let text = yaml(1001, 1002, Path::new("/tmp/x"));
        for line in
            ["native_transport_port: 1001", "storage_port: 1002", "listen_address: 127.0.0.1", "rpc_address: 127.0.0.1"]
        {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("seeds: \"127.0.0.1:1002\""), "{text}");
        assert_eq!(text.matches("\"/tmp/x/").count(), 5);
    }

    #[test]
    fn the_class_comes_last_and_after_the_class_path() {
        let args = arguments(Path::new("/tmp/x"), 1003, "jars/*".into());
        let (class, before) = args.split_last().unwrap();
        assert_eq!(class, "org.apache.cassandra.service.CassandraDaemon");
        assert_eq!(before[before.len() - 2..], ["-cp", "jars/*"]);
        assert!(args.contains(&"-Dcassandra.config=file:///tmp/x/cassandra.yaml".into()));
        assert!(args.contains(&"--add-opens=java.base/sun.nio.ch=ALL-UNNAMED".into()));
    }

    fn answering(bytes: &'static [u8]) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).unwrap();
            stream.write_all(bytes).unwrap();
        });
        let answer = answers(&address);
        server.join().unwrap();
        answer
    }

    #[test]
    fn only_what_speaks_cql_is_ready() {
        assert!(answering(&[0x84, 0, 0, 0, SUPPORTED, 0, 0, 0, 0]).is_ok());
        assert!(answering(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        assert!(answering(&[0x84, 0, 0]).is_err());
    }
}
