//! What a sender says about one conversion, in any order of arrival, late and repeated: the last word by its time holds,
//! and there is one conversion.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use proptest::prelude::*;
use schemas::{
    Time,
    status::State,
    time::{DAY_MS, MINUTE_MS},
};
use support::{
    HitStep, Log, START,
    play::{DEPOSITS, in_state, own, start, status},
};

/// The day on which the statement of this index was made.
fn day(index: usize) -> Time {
    Time::from_ms(START).plus_ms(DAY_MS * (1 + index as i64))
}

/// Every index below `n` at least once, some again, in any order.
fn arrivals(n: usize) -> impl Strategy<Value = Vec<(usize, i64)>> {
    let gap = prop::sample::select(vec![1, MINUTE_MS, 11 * MINUTE_MS, 2 * DAY_MS]);
    let order = prop::collection::vec(0..n, 0..4).prop_flat_map(move |again| {
        let all: Vec<usize> = (0..n).chain(again).collect();
        Just(all).prop_shuffle()
    });
    order.prop_flat_map(move |order| {
        let len = order.len();
        prop::collection::vec(gap.clone(), len).prop_map(move |gaps| order.iter().copied().zip(gaps).collect())
    })
}

fn play(statements: &[State], arrivals: &[(usize, i64)], hit: impl Fn(State) -> HitStep) -> Log {
    let mut log = start();
    log.click(0, None).pass(15 * DAY_MS);
    for (index, gap) in arrivals {
        log.pass(*gap);
        let ts_ago_ms = Some(log.now().plus_ms(1).since(day(*index)));
        log.hit(HitStep { ts_ago_ms, ..hit(statements[*index]) });
    }
    log
}

/// How many conversions stand in each state.
fn counts(log: &Log) -> Vec<(State, i64)> {
    let counts = State::ALL.into_iter().map(|state| (state, in_state(log, state).0));
    counts.filter(|(_, count)| *count != 0).collect()
}

/// A conversion as it goes: at first perhaps pending, then decided one way and perhaps the other.
fn courses() -> impl Strategy<Value = Vec<State>> {
    use State::{Approved, Pending, Rejected};
    prop::sample::select(vec![
        vec![Pending, Approved],
        vec![Pending, Rejected],
        vec![Pending, Approved, Rejected],
        vec![Pending, Rejected, Approved],
        vec![Approved, Rejected],
        vec![Rejected, Approved],
    ])
}

proptest! {
    #[test]
    fn of_a_transaction_the_last_word_by_its_time_holds(
        (course, arrivals) in courses().prop_flat_map(|course| { let n = course.len(); (Just(course), arrivals(n)) }),
        earning in prop::option::of(Just(50)),
    ) {
        let hit = |state| HitStep { state: Some(state), tid: Some(0), earning, ..own(DEPOSITS) };
        let log = play(&course, &arrivals, hit);
        prop_assert_eq!(counts(&log), [(*course.last().unwrap(), 1)], "{:?} {:?}", course, arrivals);
    }

    #[test]
    fn states_alone_make_one_conversion_whatever_comes_first(
        (course, arrivals) in prop::sample::select(vec![
            vec![State::Pending, State::Approved],
            vec![State::Pending, State::Rejected],
            vec![State::Approved, State::Rejected],
            vec![State::Pending, State::Approved, State::Rejected],
        ]).prop_flat_map(|course| { let n = course.len(); (Just(course), arrivals(n)) }),
    ) {
        let log = play(&course, &arrivals, status);
        prop_assert_eq!(counts(&log), [(*course.last().unwrap(), 1)], "{:?} {:?}", course, arrivals);
    }
}
