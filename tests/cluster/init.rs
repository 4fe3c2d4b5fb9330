//! `clickback init`, and what every role refuses to start on.

use crate::world::World;
use pipeline::kafka::{Identity, Topic};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

fn cluster_of(stdout: &str) -> String {
    stdout.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn it_may_be_repeated_and_every_partition_says_whose_it_is() {
    let Some(world) = World::bare() else { return };
    let first = world.init(&["--partitions", "3"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let second = world.init(&[]);
    assert_eq!((second.code, &second.stdout), (Some(0), &first.stdout), "{}", second.stderr);
    for (topic, partitions) in [(Topic::Events, 3), (Topic::Outcomes, 3), (Topic::Conversions, 3), (Topic::Catalog, 1)]
    {
        let mut left = partitions;
        let all = world.read(topic, |_| {
            left -= 1;
            left == 0
        });
        assert_eq!(all.len(), partitions);
        for stored in all {
            let identity: Identity = serde_json::from_slice(&stored.payload).unwrap();
            assert!(stored.is_identity() && stored.offset == 0);
            assert_eq!((identity.partition, identity.partitions), (stored.partition, 3));
            assert_eq!(identity.topic, world.cluster().topic(topic));
            assert_eq!(identity.cluster.to_string(), cluster_of(&first.stdout));
        }
    }
}

#[test]
fn two_at_once_make_one_cluster() {
    let Some(world) = World::bare() else { return };
    // The key has to be the same for both: two machines that start at the same moment are given it.
    std::fs::write(world.key_file(), "ab".repeat(32)).unwrap();
    std::fs::set_permissions(world.key_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| world.init(&["--partitions", "2"]))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!((made[0].code, made[1].code), (Some(0), Some(0)), "{}\n{}", made[0].stderr, made[1].stderr);
    assert_eq!(cluster_of(&made[0].stdout), cluster_of(&made[1].stdout));
    let mut partitions = BTreeSet::new();
    let identities = world.read(Topic::Events, |stored| {
        partitions.insert(stored.partition);
        partitions.len() == 2
    });
    assert_eq!(identities.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let Some(world) = World::new(2) else { return };
    let refused = |args: &[&str], word: &str| {
        let run = world.init(args);
        assert!(run.code == Some(1) && run.stderr.contains(word), "{args:?}: {:?} {}", run.code, run.stderr);
    };
    refused(&["--partitions", "4"], "--partitions 2");
    refused(&["--replication", "9"], "--replication");
    let missing = world.folder.path().join("another-key");
    refused(&["--key-file", missing.to_str().unwrap()], "does not exist");
    assert!(!missing.exists(), "no key is made that would be of no use");
    std::fs::write(&missing, "cd".repeat(32)).unwrap();
    std::fs::set_permissions(&missing, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused(&["--key-file", missing.to_str().unwrap()], "not the key of this cluster");
}

#[test]
fn ingest_ends_at_once_on_bad_configuration() {
    let Some(world) = World::bare() else { return };
    std::fs::write(world.key_file(), "ab".repeat(32)).unwrap();
    std::fs::set_permissions(world.key_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let refused = |args: &[&str], word: &str| {
        let stderr = world.try_ingest(args).err().expect("it started");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    };
    refused(&[], "clickback init");
    refused(&["--kafka", "127.0.0.1:1"], "--kafka");
    refused(&["--key-file", "/nowhere/key"], "/nowhere/key");
    assert_eq!(world.init(&[]).code, Some(0));
    std::fs::write(world.key_file(), "cd".repeat(32)).unwrap();
    refused(&[], "--key-file");
}

#[test]
fn topics_of_somebody_else_are_not_touched() {
    let Some(world) = World::bare() else { return };
    let name = world.cluster().topic(Topic::Events);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.kafka);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = NewTopic::new(&name, 2, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    let producer: BaseProducer = config.create().unwrap();
    producer.send(BaseRecord::to(&name).partition(1).key("k").payload("of somebody else")).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    let refused = world.init(&["--partitions", "2"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains(&name) && refused.stderr.contains("--topic-prefix"), "{}", refused.stderr);
    let refused = world.init(&["--partitions", "3"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("2"), "{}", refused.stderr);
    let left = world.read(Topic::Events, |stored| stored.partition == 1);
    assert!(
        left.iter().all(|stored| serde_json::from_slice::<Value>(&stored.payload).is_err() || stored.partition == 0)
    );
}
