//! What the public edge writes to Kafka, and what it answers.

use std::collections::BTreeMap;

use crate::world::{World, account, at, token};
use pipeline::kafka::Topic;
use schemas::{ClickId, EventBody, catalog::Body, id::alias_shard};
use serde_json::json;
use system_tests::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_stands_on_the_topic() {
    let Some(world) = World::new(4) else { return };
    let edge = world.ingest();
    assert_eq!(edge.admin("/readyz").await.status, 200);
    assert_eq!(edge.admin("/livez").await.status, 200);

    let click = edge.get("/c/spring?dyn=Ab1").await.expect(302);
    let id: ClickId = click.header("x-clickback-click").unwrap().parse().unwrap();
    let by_id = edge.post_back(&format!("clickId={id}&signups=1")).await.expect(200);
    let by_alias = edge.post_back("dyn=aB1&deposits=2").await.expect(200);
    assert_eq!((by_id.said(), by_alias.said()), ("accepted".into(), "accepted".into()));

    let events = world.events(3);
    let shard = alias_shard("default", "acc_one", "ab1");
    for (answer, kind) in [(&click, "click"), (&by_id, "hit"), (&by_alias, "hit")] {
        let stored = at(&events, &answer.receipt());
        // A click and every hit that names it meet in one partition.
        assert_eq!((stored.partition, stored.key.as_str()), (shard % 4, shard.to_string().as_str()));
        let event = stored.event();
        let headers = BTreeMap::from([
            ("type".to_owned(), kind.to_owned()),
            ("from".to_owned(), event.from.to_string()),
            ("n".to_owned(), event.n.to_string()),
        ]);
        assert_eq!(stored.headers, headers);
        assert_eq!(stored.payload, serde_json::to_vec(&event).unwrap());
        match event.body {
            EventBody::Click(stored) => assert_eq!(stored.id, id),
            _ => assert_eq!(event.id.to_string(), answer.hit()),
        }
    }
    let metrics = edge.admin("/metrics").await.text();
    assert!(metrics.contains("clickback_log_events_total"), "{metrics}");
    assert!(edge.role.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_its_own_number_without_a_hole() {
    let Some(world) = World::new(3) else { return };
    let edge = world.ingest();
    let requests = (0..150).map(|n| {
        let request =
            edge.role.http.get(format!("{}/post-back/{}?dyn=d{n}&signups=1", edge.role.url("ingest"), token(1)));
        tokio::spawn(Answer::of(request))
    });
    let requests: Vec<_> = requests.collect();
    let mut answered = Vec::new();
    for request in requests {
        let answer = request.await.unwrap().expect(200);
        answered.push((answer.hit(), answer.receipt()));
    }
    let array: Vec<_> = (0..100).map(|n| json!({ "dyn": format!("a{n}"), "signups": 1 })).collect();
    let url = format!("{}/post-back/{}", edge.role.url("ingest"), token(1));
    let many = Answer::of(edge.role.http.post(url).json(&array)).await.expect(200);
    for hit in many.json()["hits"].as_array().unwrap() {
        let text = |name: &str| hit[name].as_str().unwrap().to_owned();
        answered.push((text("hit"), text("receipt")));
    }
    assert!(many.receipt().contains(','), "it names the last of each partition");

    let events = world.events(250);
    for (hit, receipt) in &answered {
        assert_eq!(at(&events, receipt).event().id.to_string(), *hit);
    }
    for partition in 0..3 {
        let numbers: Vec<u64> = events.iter().filter(|e| e.partition == partition).map(|e| e.event().n).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    }
    let runs: std::collections::BTreeSet<_> = events.iter().map(|stored| stored.event().from).collect();
    assert_eq!(runs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_has_confirmed_works_at_once() {
    let Some(world) = World::new(1) else { return };
    let edge = world.ingest();
    for n in 2..5 {
        let hit = format!("/post-back/{}?dyn=a&signups=1", token(n));
        assert_eq!(edge.get(&hit).await.expect(404).json()["reason"], "unknown_token");
        let id = format!("acc_{n}");
        world.put(|sealer| vec![Body::Account(Box::new(account(&id, &sealer.seal(&token(n)))))]);
        edge.get(&hit).await.expect(200);
    }
    edge.get("/post-back/garbage").await.expect(404);
    edge.get("/c/nowhere").await.expect(404);
}

#[test]
fn a_key_is_made_for_all() {
    let Some(world) = World::new(1) else { return };
    let (kafka, prefix, file) = (world.kafka.as_str(), world.prefix.as_str(), world.key_file());
    let made = system_tests::clickback(&[
        "key",
        "create",
        "--kafka",
        kafka,
        "--topic-prefix",
        prefix,
        "--key-file",
        &file,
        "--tenant",
        "t",
        "--scope",
        "read",
    ]);
    assert!(made.code == Some(0) && made.stdout.starts_with("cbk_"), "{made:?}");
    let all = world.read(Topic::Catalog, |stored| stored.headers["type"] == "key");
    let key = all.last().unwrap();
    assert!(!String::from_utf8_lossy(&key.payload).contains(made.stdout.trim()), "only its hash is kept");
}
