//! Matchers of one partition, and its log, under everything that can happen to both. Whatever it is, a reader takes one
//! outcome per event, and it is the one of embedded mode.

use pipeline::kafka::Topic;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use schemas::Event;

use crate::{
    one_partition::{World, without_ticks},
    support::{Log, steps},
};

/// The same random history each time.
fn history(length: usize) -> Vec<Event> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = prop::collection::vec(steps(), length).new_tree(&mut runner).unwrap().current();
    let log = Log::of(&steps);
    without_ticks(log.events.into_iter().map(|(_, event)| event))
}

#[test]
fn outcomes_are_those_of_embedded_mode() {
    let Some(world) = World::open() else { return };
    let events = history(2_000);
    let matcher = world.matcher();
    world.append(&events);
    world.append(&events[..100]);
    world.assert_exact();
    matcher.stop();
}

#[test]
fn a_killed_matcher_goes_on_where_it_was() {
    let Some(world) = World::open() else { return };
    let events = history(3_000);
    let (before, after) = events.split_at(events.len() / 2);
    let matcher = world.matcher();
    world.append(before);
    world.wait_for(before.len() / 3);
    matcher.kill();
    world.append(after);
    let _matcher = world.matcher();
    world.assert_exact();
}

#[test]
fn a_deleted_state_is_made_again() {
    let Some(world) = World::open() else { return };
    let events = history(1_000);
    let (before, after) = events.split_at(events.len() / 2);
    let matcher = world.matcher();
    world.append(before);
    world.assert_exact();
    matcher.stop();
    std::fs::remove_dir_all(world.state.path().join("one")).unwrap();
    world.append(after);
    let matcher = world.matcher();
    world.assert_exact();
    let records = world.records_of_outcomes();
    matcher.stop();
    assert_eq!(records, world.taken().len() + 1, "nothing was decided twice");
}

#[test]
fn a_saved_state_is_used_and_agrees() {
    let Some(world) = World::open() else { return };
    let events = history(3_000);
    for part in events.chunks(events.len() / 3) {
        world.append(part);
        let matcher = world.matcher();
        world.assert_exact();
        matcher.stop();
    }
}

#[test]
fn a_stopped_matcher_that_goes_on_does_no_harm() {
    let Some(world) = World::open() else { return };
    let events = history(3_000);
    let parts: Vec<&[Event]> = events.chunks(events.len() / 3).collect();
    let first = world.matcher_in("one");
    world.append(parts[0]);
    world.wait_for(10);
    first.signal("-STOP");
    world.append(parts[1]);
    let _second = world.matcher_in("two");
    world.assert_exact();
    first.signal("-CONT");
    parts[2..].iter().for_each(|part| world.append(part));
    world.assert_exact();
}

#[test]
fn outcomes_that_are_cut_off_are_made_again() {
    let Some(world) = World::open() else { return };
    let events = history(1_000);
    let matcher = world.matcher();
    world.append(&events[..600]);
    world.assert_exact();
    matcher.stop();
    let taken = world.taken();
    world.cut(Topic::Outcomes, taken.len() / 2);
    world.append(&events[600..]);
    let matcher = world.matcher();
    world.assert_exact();
    assert_eq!(world.taken()[..taken.len()], taken[..], "what was taken once is taken by all");
    matcher.stop();
}

#[test]
fn events_that_are_cut_off_are_an_alarm() {
    let Some(world) = World::open() else { return };
    let events = history(400);
    let matcher = world.matcher();
    world.append(&events[..200]);
    world.assert_exact();
    matcher.stop();
    let (taken, records) = (world.taken().len(), world.records_of_outcomes());
    world.cut(Topic::Events, 150);
    world.append(&events[200..]);
    let matcher = world.matcher();
    matcher.wait_for_alarm();
    assert_eq!((world.taken().len(), world.records_of_outcomes()), (taken, records), "nothing was decided on top");
}
