//! Kafka is away: nothing that was answered is lost, nothing is out of order, and nobody waits for long.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{Edge, Stored, World, at, token};
use pipeline::Receipt;
use schemas::EventId;

/// Answers 200 and gives back the hit.
async fn hit(edge: &Edge, name: &str) -> (EventId, Receipt) {
    let answer = edge.post_back(&format!("dyn={name}&signups=1")).await.expect(200);
    (answer.hit().parse().unwrap(), answer.receipt().parse().unwrap())
}

fn is_spooled(receipt: &Receipt) -> bool {
    matches!(receipt, Receipt::Spooled { .. })
}

/// Every event once by (`from`, `n`), and its first copies in the order of their numbers.
fn assert_in_order(events: &[Stored], expected: &[EventId]) {
    let mut first: BTreeMap<(u16, EventId), Vec<u64>> = BTreeMap::new();
    let mut seen: BTreeMap<(u16, EventId, u64), EventId> = BTreeMap::new();
    for stored in events {
        let event = stored.event();
        match seen.insert((stored.partition, event.from, event.n), event.id) {
            Some(before) => assert_eq!(before, event.id, "a number was given twice"),
            None => first.entry((stored.partition, event.from)).or_default().push(event.n),
        }
    }
    for ((partition, run), numbers) in first {
        assert!(numbers.is_sorted(), "partition {partition}, run {run}: {numbers:?}");
    }
    let ids: BTreeSet<EventId> = seen.values().copied().collect();
    assert_eq!(ids.len(), seen.len(), "an event has two numbers");
    assert_eq!(ids, expected.iter().copied().collect());
}

/// What a receipt says is where the event is.
fn assert_receipts(events: &[Stored], answered: &[(EventId, Receipt)]) {
    for (id, receipt) in answered {
        assert_eq!(at(events, &receipt.to_string()).event().id, *id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_answers_and_is_sent_in_order() {
    let Some((world, stop_broker)) = World::alone(3) else { return };
    let edge = world.ingest();
    let mut answered = Vec::new();
    for n in 0..10 {
        answered.push(hit(&edge, &format!("before{n}")).await);
    }
    let stopped = stop_broker();
    for n in 0..60 {
        answered.push(hit(&edge, &format!("during{n}")).await);
    }
    assert!(answered[10..].iter().all(|(_, receipt)| is_spooled(receipt)));
    // Whether a token exists is not known now; that it is garbage is.
    edge.get(&format!("/post-back/{}?dyn=a&signups=1", token(9))).await.expect(503);
    edge.get("/post-back/garbage?dyn=a&signups=1").await.expect(404);
    edge.get("/c/spring?dyn=x").await.expect(302);
    assert_eq!(edge.admin("/readyz").await.status, 200);
    drop(stopped);
    world.events(answered.len() + 1);
    let mut after = 0;
    while after < 10 {
        let (id, receipt) = hit(&edge, "after").await;
        after += usize::from(!is_spooled(&receipt));
        answered.push((id, receipt));
    }
    let events = world.events(answered.len() + 1);
    assert_receipts(&events, &answered);
    let click = events.iter().find(|stored| stored.headers["type"] == "click").unwrap().event().id;
    let all: Vec<EventId> = answered.iter().map(|(id, _)| *id).chain([click]).collect();
    assert_in_order(&events, &all);
    assert!(edge.role.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_kafka_is_away_loses_nothing() {
    let Some((world, stop_broker)) = World::alone(2) else { return };
    let edge = world.ingest();
    let mut answered = vec![hit(&edge, "first").await];
    let stopped = stop_broker();
    for n in 0..40 {
        answered.push(hit(&edge, &format!("one{n}")).await);
    }
    edge.role.kill();
    // It starts from its copy of the catalog, as nobody else can be asked.
    let edge = world.ingest();
    for n in 0..20 {
        answered.push(hit(&edge, &format!("two{n}")).await);
    }
    edge.role.kill();
    drop(stopped);
    let edge = world.ingest();
    let mut last = hit(&edge, "last").await;
    answered.push(last);
    while is_spooled(&last.1) {
        last = hit(&edge, "last").await;
        answered.push(last);
    }
    let events = world.events(answered.len());
    assert_receipts(&events, &answered);
    assert_in_order(&events, &answered.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert!(edge.role.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_says_so() {
    let Some((world, stop_broker)) = World::alone(1) else { return };
    let edge = world.ingest_with(&["--spool-size", "1"]);
    let stopped = stop_broker();
    let (mut answered, large) = (Vec::new(), "x".repeat(10_000));
    let refused = loop {
        let answer = edge.post_back(&format!("dyn=a&signups=1&junk={large}")).await;
        match answer.status {
            200 => answered.push(answer.hit().parse().unwrap()),
            _ => break answer,
        }
    };
    let refused = refused.expect(503);
    assert_eq!(edge.admin("/readyz").await.status, 503);
    assert!(refused.header("retry-after").is_some() && answered.len() > 50, "{}", answered.len());
    // A visitor goes on, without an id that nobody would know.
    let redirect = edge.get("/c/spring?dyn=x").await.expect(302);
    assert!(
        redirect.header("x-clickback-click").is_some() || !redirect.header("location").unwrap().contains("click_id")
    );
    drop(stopped);
    let events = world.events(answered.len());
    let ids: BTreeSet<EventId> = events.iter().map(|stored| stored.event().id).collect();
    assert!(answered.iter().all(|id| ids.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_what_kafka_has_not_taken_for_the_next_start() {
    let Some((world, stop_broker)) = World::alone(1) else { return };
    let edge = world.ingest();
    let stopped = stop_broker();
    let mut answered = Vec::new();
    for n in 0..5 {
        answered.push(hit(&edge, &format!("d{n}")).await);
    }
    assert!(edge.role.stop().success());
    drop(stopped);
    let edge = world.ingest();
    let events = world.events(answered.len());
    assert_in_order(&events, &answered.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert!(edge.role.stop().success());
}
