//! What the projector of a cluster keeps: tables that are built anew, and the topic of conversions. What its reports say is
//! shown in `tests/user`, what they bear in `tests/chaos`.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLockReadGuard},
};

use pipeline::kafka::Topic;
use serde_json::{Value, json};
use system_tests::{Answer, Role, Server, clickback, cluster::Cluster};

use crate::world::{World, given, running_broker};

/// On a broker that nobody stops meanwhile.
struct Calm {
    cluster: Arc<Cluster>,
    _broker: RwLockReadGuard<'static, ()>,
}

fn calm() -> Option<Calm> {
    given("CLICKBACK_TEST_KAFKA")?;
    given("CLICKBACK_TEST_SCYLLA")?;
    let broker = running_broker();
    Some(Calm { cluster: Arc::new(Cluster::start()), _broker: broker })
}

/// A few conversions, one of them changed.
async fn traffic(server: &Server) -> Answer {
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "sub1=a").await;
    for query in ["signups=1", "event=sale&tid=1&earning=10&status=pending", "event=sale&tid=2&earning=3"] {
        server.accepted(&account, &format!("clickId={}&{query}", click.id)).await;
    }
    server.accepted(&account, &format!("clickId={}&event=sale&tid=1&status=approved", click.id)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_built_anew_while_they_are_read() {
    let Some(calm) = calm() else { return };
    let cluster = &calm.cluster;
    let server = Server::of(cluster);
    traffic(&server).await;
    let before = server.conversions_report("group_by=link").await;
    assert_eq!(before["totals"]["conversions"]["approved"], 3, "{before}");
    for _ in 0..2 {
        let rebuilt = cluster.command("rebuild");
        assert_eq!(rebuilt.code, Some(0), "{}", rebuilt.stderr);
    }
    cluster.projector.says("generation 3 of");
    let after = server.conversions_report("group_by=link").await;
    assert_eq!((&after["rows"], &after["totals"]), (&before["rows"], &before["totals"]));
    // They go on being written.
    traffic(&server).await;
    let more = server.conversions_report("").await;
    assert_eq!(more["totals"]["conversions"]["approved"], 6, "{more}");
    let audit = cluster.audit();
    assert_eq!(audit.code, Some(0), "{}\n{}", audit.stdout, audit.stderr);
    assert!(audit.stdout.contains("hits 8, clicks 2, conversions 6; no difference"), "{}", audit.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_of_conversions_ends_as_the_tables() {
    let Some(calm) = calm() else { return };
    let cluster = &calm.cluster;
    let server = Server::of(cluster);
    traffic(&server).await;
    let listed = server.latest("/v1/conversions").await;
    let listed = listed["items"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    let version = |row: &Value| (row["id"].as_str().unwrap().to_owned(), row["version"].as_u64().unwrap());
    let expected: BTreeMap<String, u64> = listed.iter().map(version).collect();
    assert_eq!(expected.values().sum::<u64>(), 4, "one was changed");

    let mut newest: BTreeMap<String, Value> = BTreeMap::new();
    let topics = pipeline::kafka::Cluster::with_prefix(&cluster.kafka, &cluster.prefix);
    crate::world::read(&topics, Topic::Conversions, |stored| {
        if !stored.is_identity() {
            let record: Value = serde_json::from_slice(&stored.payload).unwrap();
            assert_eq!(record["id"], stored.key);
            let known = newest.entry(stored.key.clone()).or_insert_with(|| record.clone());
            if record["version"].as_u64() > known["version"].as_u64() {
                *known = record;
            }
        }
        newest.values().map(version).collect::<BTreeMap<_, _>>() == expected
    });
    for row in listed {
        let record = &newest[row["id"].as_str().unwrap()];
        for (name, value) in row.as_object().unwrap() {
            // What counts for nothing says so, all else is silent.
            let silent = name == "withdrawn" && *value == json!(false) && record.get(name).is_none();
            assert!(silent || record.get(name) == Some(value), "{name}: {value} is not in {record}");
        }
    }
}

/// The receipt of an event that waited in the spool names no place in the log, and is waited for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_went_through_the_spool() {
    let Some(scylla) = given("CLICKBACK_TEST_SCYLLA") else { return };
    let Some((world, stop)) = World::alone(2) else { return };
    let made = world.init(&["--scylla", &scylla]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let (kafka, prefix, key) = (world.kafka.clone(), world.prefix.clone(), world.key_file());
    let usual = ["--kafka", &kafka, "--topic-prefix", &prefix];
    let admin = ["key", "create", "--tenant", "default", "--scope", "read", "--key-file", &key];
    let admin = clickback(&[&admin[..], &usual].concat());
    assert_eq!(admin.code, Some(0), "{}", admin.stderr);
    let start = |role: &[&str]| {
        Role::start(&[role, &usual].concat()).unwrap_or_else(|stderr| panic!("{role:?} did not start:\n{stderr}"))
    };
    let state = world.folder.path().join("state").to_str().unwrap().to_owned();
    let _matcher = start(&["matcher", "--state", &state, "--admin", "127.0.0.1:0"]);
    let projector = start(&["projector", "--scylla", &scylla, "--key-file", &key, "--api", "127.0.0.1:0"]);
    let edge = world.ingest();
    edge.post_back("dyn=before&signups=1").await.expect(200);

    let stopped = stop();
    let answer = edge.post_back("dyn=meanwhile&signups=1").await.expect(200);
    assert_eq!(answer.receipt().split('-').count(), 3, "it went through the spool: {}", answer.receipt());
    drop(stopped);
    let path = format!("/v1/hits/{}?after={}&wait=30s", answer.hit(), answer.receipt());
    let seen = projector.http.get(format!("{}{path}", projector.url("api"))).bearer_auth(admin.stdout.trim());
    let seen = Answer::of(seen).await.expect(200).json();
    assert_eq!((&seen["hit"], &seen["outcome"]), (&json!(answer.hit()), &json!("waiting")));
}

#[test]
fn a_database_that_is_not_right_is_said_at_once() {
    let (Some(world), Some(scylla)) = (World::new(1), given("CLICKBACK_TEST_SCYLLA")) else { return };
    let (kafka, prefix, key) = (world.kafka.clone(), world.prefix.clone(), world.key_file());
    let at = |scylla: &str| {
        let started = ["--kafka", &kafka, "--topic-prefix", &prefix, "--key-file", &key, "--scylla", scylla];
        clickback(&[&["projector", "--api", "127.0.0.1:0"][..], &started].concat())
    };
    let away = at("127.0.0.1:1");
    assert_eq!(away.code, Some(1));
    assert!(away.stderr.contains("is --scylla right?"), "{}", away.stderr);
    let empty = at(&scylla);
    assert_eq!(empty.code, Some(1));
    assert!(empty.stderr.contains("clickback init --scylla"), "{}", empty.stderr);
}
