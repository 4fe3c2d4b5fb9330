//! A replica by examples: one situation each, and what it says to do.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use matcher::replica::{Alarm, Checkpoint, Doubt, Ends, Head, Limits, Record, Replica, Step};
use schemas::{
    EventId, Time,
    chain::{Chain, Link, Position},
};

fn id(n: u64) -> EventId {
    EventId::new(Time::from_ms(1), 0, n)
}

fn event(src: u64) -> Head {
    Head { src, id: id(src), rules: None }
}

fn payload(src: u64) -> Vec<u8> {
    format!(r#"{{"id":"{}"}}"#, id(src)).into_bytes()
}

/// The position after this many outcomes.
fn after(count: u64) -> Position {
    (1..=count).fold(Checkpoint::EMPTY.state, |before, src| Position {
        next: src + 1,
        chain: before.chain.next(&payload(src)),
    })
}

fn outcome(src: u64) -> Record {
    let link = Link { src, prev: after(src - 1).chain, chain: after(src).chain };
    Record { offset: src, link: Some(link), payload: payload(src) }
}

fn begin(from: Checkpoint, events: u64, outcomes: u64) -> Replica {
    let limits = Limits { compared: 2, in_flight: 2, rules: 1..=1 };
    Replica::begin(from, Ends { events, outcomes }, limits)
}

/// Has taken this many outcomes from the logs.
fn recovered(count: u64) -> Replica {
    let mut replica = begin(Checkpoint::EMPTY, count + 1, count + 1);
    for src in 1..=count {
        assert_eq!(replica.step(Some(&event(src)), Some(&outcome(src)), false), Step::Apply);
    }
    replica
}

#[test]
fn what_was_decided_is_applied_and_the_rest_is_decided() {
    let mut replica = begin(Checkpoint::EMPTY, 3, 2);
    assert_eq!((replica.reads_events_from(), replica.reads_outcomes_from()), (1, 1));
    assert_eq!(replica.step(Some(&event(1)), None, false), Step::Wait, "its outcome is there and was not read yet");
    assert_eq!(replica.step(Some(&event(1)), Some(&outcome(1)), false), Step::Apply);
    assert_eq!(replica.step(Some(&event(2)), None, false), Step::Decide);
    assert_eq!(Some(replica.decided(&payload(2))), outcome(2).link);
}

#[test]
fn what_was_sent_is_met_and_may_then_be_saved() {
    let mut replica = recovered(3);
    replica.decided(&payload(4));
    let checkpoint = replica.checkpoint();
    assert_eq!(checkpoint.state, after(4));
    assert!(!replica.may_save(&checkpoint));
    assert_eq!(replica.step(None, Some(&outcome(4)), false), Step::Pass);
    assert!(replica.may_save(&checkpoint));
    assert!(checkpoint.anchor.position.next + 2 <= checkpoint.state.next, "reading begins some way before");
}

#[test]
fn what_is_not_met_in_time_is_a_doubt_and_an_idle_replica_has_none() {
    let mut replica = recovered(1);
    assert_eq!(replica.step(None, None, true), Step::Wait);
    replica.decided(&payload(2));
    assert_eq!(replica.step(None, None, false), Step::Wait);
    assert_eq!(replica.step(None, None, true), Step::Again(Doubt::Late));
}

#[test]
fn no_more_is_sent_than_may_be_in_flight() {
    let mut replica = recovered(1);
    for src in 2..=3 {
        assert_eq!(replica.step(Some(&event(src)), None, false), Step::Decide);
        replica.decided(&payload(src));
    }
    assert_eq!(replica.step(Some(&event(4)), None, false), Step::Wait);
}

#[test]
fn a_checkpoint_is_proven_before_it_is_used() {
    let from = recovered(4).checkpoint();
    let mut replica = begin(from, 6, 5);
    let first = replica.reads_outcomes_from();
    assert_eq!(replica.step(None, Some(&outcome(first)), false), Step::Pass, "the anchor itself");
    for src in first + 1..=4 {
        assert!(!replica.is_proven());
        assert_eq!(replica.step(Some(&event(src)), Some(&outcome(src)), false), Step::Agree);
    }
    assert!(replica.is_proven());
    assert_eq!(replica.step(Some(&event(5)), None, false), Step::Decide);
}

#[test]
fn a_checkpoint_ahead_of_the_outcomes_or_on_another_chain_is_dropped() {
    let from = recovered(4).checkpoint();
    let anchor = outcome(from.anchor.offset);
    let mut cut_off = begin(from, 6, anchor.offset + 1);
    assert_eq!(cut_off.step(None, Some(&anchor), false), Step::Pass);
    assert_eq!(cut_off.step(Some(&event(5)), None, false), Step::Drop(Doubt::Ahead));
    let mut gone = begin(from, 6, 1);
    assert_eq!(gone.step(None, None, false), Step::Drop(Doubt::Ahead));
    let other = Link { chain: Chain::FIRST.next(b"other"), ..anchor.link.clone().unwrap() };
    let other = Record { link: Some(other), ..anchor };
    assert!(matches!(begin(from, 6, 5).step(None, Some(&other), false), Step::Drop(Doubt::OtherChain(_))));
}

#[test]
fn another_event_in_the_place_of_one_that_was_decided_is_an_alarm() {
    let mut replica = begin(Checkpoint::EMPTY, 2, 2);
    let other = Head { id: id(99), ..event(1) };
    assert_eq!(replica.step(Some(&other), Some(&outcome(1)), false), Step::Halt(Alarm::LostEvents(1)));
    let mut shorter = begin(Checkpoint::EMPTY, 1, 2);
    assert_eq!(shorter.step(None, Some(&outcome(1)), false), Step::Halt(Alarm::LostEvents(1)));
}

#[test]
fn another_chain_is_an_alarm_and_what_is_no_outcome_is_passed_over() {
    let mut replica = recovered(1);
    let foreign = Record { offset: 2, link: None, payload: vec![] };
    assert_eq!(replica.step(None, Some(&foreign), false), Step::Pass);
    let link = Link { src: 2, prev: Chain::FIRST, chain: Chain::FIRST.next(&payload(2)) };
    let diverged = Record { offset: 3, link: Some(link), payload: payload(2) };
    assert_eq!(replica.step(Some(&event(2)), Some(&diverged), false), Step::Halt(Alarm::Diverged(2)));
}

#[test]
fn rules_that_are_not_known_release_the_partition() {
    let switch = Head { rules: Some(2), ..event(1) };
    assert_eq!(begin(Checkpoint::EMPTY, 2, 1).step(Some(&switch), None, false), Step::Release(2));
    assert_eq!(begin(Checkpoint::EMPTY, 2, 2).step(Some(&switch), Some(&outcome(1)), false), Step::Release(2));
}
