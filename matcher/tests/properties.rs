//! Same input, same bytes: whatever the state was rebuilt from, and however often.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeMap;

use matcher::{State, apply, decide, store, store::Dirty};
use proptest::prelude::*;
use schemas::{
    Amount, ClickId, EventBody, EventId, Outcome,
    chain::{Chain, Position},
    event::Reprocess,
    goal::Dedup,
    outcome::{Conversion, Kind, Status},
    status::State as ConversionState,
};
use support::{ALIASES, HitStep, Log, NameStep, OWN_CLICKS, Step, histories, hit_steps, own_click, reading, requests};

fn json(outcome: &Outcome) -> String {
    serde_json::to_string(outcome).unwrap()
}

/// Conversions as the outcomes show them, by id: the last version of each.
fn conversions(outcomes: &[Outcome]) -> BTreeMap<String, Conversion> {
    let mut all = BTreeMap::<String, Conversion>::new();
    for outcome in outcomes {
        let shown = outcome.hits.iter().flat_map(|h| &h.goals).filter_map(|g| g.conversion.as_ref());
        let adjusted = outcome.adjust.iter().filter_map(|a| a.conversion.as_ref());
        for conversion in shown.chain(adjusted) {
            match all.get(&conversion.id.to_string()) {
                Some(known) if known.version > conversion.version => {}
                _ => drop(all.insert(conversion.id.to_string(), conversion.clone())),
            }
        }
    }
    all
}

fn live_without_version(outcomes: &[Outcome]) -> BTreeMap<String, Conversion> {
    let all = conversions(outcomes).into_iter().filter(|(_, c)| !c.withdrawn);
    all.map(|(id, c)| (id, Conversion { version: 0, ..c })).collect()
}

type Cell = (String, ConversionState, &'static str);

fn report(outcomes: &[Outcome]) -> BTreeMap<Cell, (i64, Amount, Amount)> {
    let mut cells = BTreeMap::<Cell, (i64, Amount, Amount)>::new();
    for change in outcomes.iter().flat_map(|o| &o.changes) {
        let cell = cells.entry((change.goal.clone(), change.state, change.currency.code())).or_default();
        cell.0 += change.count;
        cell.1 = cell.1.plus(change.earning.unwrap_or_default()).unwrap();
        cell.2 = cell.2.plus(change.value.unwrap_or_default()).unwrap();
    }
    cells.retain(|_, cell| *cell != (0, Amount::ZERO, Amount::ZERO));
    cells
}

fn report_of_conversions(conversions: &BTreeMap<String, Conversion>) -> BTreeMap<Cell, (i64, Amount, Amount)> {
    let mut cells = BTreeMap::<Cell, (i64, Amount, Amount)>::new();
    for c in conversions.values().filter(|c| !c.withdrawn) {
        let cell = cells.entry((c.goal.clone(), c.state, c.currency.code())).or_default();
        cell.0 += i64::from(c.count);
        cell.1 = cell.1.plus(c.earning.unwrap_or_default()).unwrap();
        cell.2 = cell.2.plus(c.value.unwrap_or_default()).unwrap();
    }
    cells.retain(|_, cell| *cell != (0, Amount::ZERO, Amount::ZERO));
    cells
}

proptest! {
    #[test]
    fn replaying_any_prefix_gives_the_same_bytes(steps in histories(), cut in 0usize..60) {
        let log = Log::of(&steps);
        let mut state = State::default();
        for (at, (cause, event)) in log.events.iter().enumerate() {
            if at >= cut {
                let again = decide(&state, *cause, event).unwrap();
                prop_assert_eq!(json(&again), json(&log.outcomes[at]));
            }
            // Up to the cut the outcomes come from the log, through JSON, as in recovery.
            let stored: Outcome = serde_json::from_str(&json(&log.outcomes[at])).unwrap();
            prop_assert_eq!(&stored, &log.outcomes[at]);
            apply(&mut state, *cause, event, &stored);
        }
    }

    #[test]
    fn a_failed_batch_leaves_nothing_behind(steps in histories(), every in 1usize..5) {
        let log = Log::of(&steps);
        let mut state = State::default();
        for (at, batch) in log.events.chunks(every).enumerate() {
            for attempt in 0..2 {
                state.begin();
                for (i, (cause, event)) in batch.iter().enumerate() {
                    let outcome = decide(&state, *cause, event).unwrap();
                    prop_assert_eq!(json(&outcome), json(&log.outcomes[at * every + i]));
                    apply(&mut state, *cause, event, &outcome);
                }
                if attempt == 0 {
                    state.rollback();
                }
            }
        }
    }

    #[test]
    fn a_state_that_was_saved_and_loaded_decides_the_same(steps in histories(), every in 1usize..6) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::of(&steps);
        let (mut reader, mut writer, mut state, start) = store::open(dir.path()).unwrap();
        prop_assert_eq!(start, Position::START);
        for (at, (cause, event)) in log.events.iter().enumerate() {
            if at % every == every - 1 {
                let position = Position { next: cause.src, chain: Chain::FIRST };
                writer.save(&Dirty::take(&mut state, position)).unwrap();
                drop((reader, writer));
                let stored;
                (reader, writer, state, stored) = store::open(dir.path()).unwrap();
                prop_assert_eq!(stored, position);
            }
            reader.load(&mut state, event).unwrap();
            let outcome = decide(&state, *cause, event).unwrap();
            prop_assert_eq!(json(&outcome), json(&log.outcomes[at]));
            apply(&mut state, *cause, event, &outcome);
        }
    }

    #[test]
    fn the_sum_of_changes_is_the_conversions(steps in histories()) {
        let log = Log::of(&steps);
        prop_assert_eq!(report(&log.outcomes), report_of_conversions(&conversions(&log.outcomes)));
    }

    #[test]
    fn repeated_events_change_nothing(steps in histories(), repeats in prop::collection::vec((0usize..60, 0usize..60), 0..10)) {
        let plain = Log::of(&steps);
        let mut order: Vec<usize> = (0..plain.events.len()).collect();
        for (what, gap) in repeats {
            let what = what % plain.events.len();
            let first = order.iter().position(|at| *at == what).unwrap();
            let at = (first + 1 + gap).min(order.len());
            order.insert(at, what);
        }
        let mut state = State::default();
        let mut done = vec![false; plain.events.len()];
        for (src, at) in order.into_iter().enumerate() {
            let (cause, event) = &plain.events[at];
            let outcome = decide(&state, *cause, event).unwrap();
            apply(&mut state, matcher::Cause { src: src as u64, ..*cause }, event, &outcome);
            if done[at] {
                prop_assert_eq!(outcome.kind, Kind::Repeat);
                prop_assert!(outcome.hits.is_empty() && outcome.changes.is_empty() && outcome.click.is_none());
            } else {
                prop_assert_eq!(json(&outcome), json(&plain.outcomes[at]));
            }
            done[at] = true;
        }
    }

    #[test]
    fn hits_before_or_after_their_click_end_in_the_same_conversions(
        hits in prop::collection::vec(hit_steps(), 1..8),
        at in 0usize..8,
        by_alias in any::<bool>(),
    ) {
        let click = Step::Click { own: 0, account: 0, alias: Some(0), ago_ms: 0 };
        let hits: Vec<Step> = hits
            .into_iter()
            .map(|hit| {
                let name = if by_alias { NameStep::Alias(0) } else { NameStep::Own(0) };
                // The click must not be older or younger than its hits by more than the rules allow.
                Step::Hit(HitStep { name, account: 0, ts_ago_ms: None, waiting_days: 7, ..hit })
            })
            .collect();
        let run = |click_at: usize| {
            let mut steps = hits.clone();
            steps.insert(click_at.min(steps.len()), click.clone());
            let mut log = Log::default();
            for step in &steps {
                log.step(step, |_, dedup| dedup);
            }
            // Times differ by the shift of one step; what counts is what the conversions are.
            let found = live_without_version(&log.outcomes);
            found
                .into_values()
                .map(|c| (c.goal, c.count, c.state, c.earning, c.value, c.currency, c.tid, c.player))
                .collect::<Vec<_>>()
        };
        let sorted = |mut list: Vec<_>| { list.sort(); list };
        prop_assert_eq!(sorted(run(0)), sorted(run(at)));
    }

    #[test]
    fn reading_again_equals_having_had_the_settings_from_the_start(steps in histories(), dry_run in any::<bool>()) {
        let other = |goal: &str, dedup: Dedup| match goal {
            "deposits" => Dedup::Once,
            "signups" => Dedup::Every,
            "bonus" => Dedup::PerTransaction,
            _ => dedup,
        };
        // An adjustment names a conversion by an id that the policy decides, so only its absence can be compared.
        let steps: Vec<Step> = steps.into_iter().filter(|s| !matches!(s, Step::Adjust { .. })).collect();
        let mut log = Log::of(&steps);
        let wanted = Log::with_policy(&steps, other);
        let before = report(&log.outcomes);
        for request in requests(&log, dry_run, other) {
            // A click id that two accounts wait for is touched by both.
            let request = Reprocess { position: log.events.len() as u64, ..request };
            log.push(EventBody::Reprocess(request));
            prop_assert_eq!(log.outcomes.last().unwrap().reason, None);
        }
        if dry_run {
            prop_assert_eq!(report(&log.outcomes), before);
        } else {
            prop_assert_eq!(report(&log.outcomes), report_of_conversions(&conversions(&log.outcomes)));
            prop_assert_eq!(live_without_version(&log.outcomes), live_without_version(&wanted.outcomes));
            prop_assert_eq!(hit_results(&log.outcomes), hit_results(&wanted.outcomes));
        }
    }

    #[test]
    fn reading_again_with_the_same_settings_changes_nothing_also_not_adjustments(steps in histories()) {
        let mut log = Log::of(&steps);
        let before = conversions(&log.outcomes);
        for request in requests(&log, false, |_, dedup| dedup) {
            let request = Reprocess { position: log.events.len() as u64, ..request };
            log.push(EventBody::Reprocess(request));
            let outcome = log.outcomes.last().unwrap();
            prop_assert_eq!(outcome.reprocess.as_ref().unwrap().changed, 0);
            prop_assert!(outcome.changes.is_empty());
        }
        prop_assert_eq!(conversions(&log.outcomes), before);
    }
}

/// The current outcome of every hit, without what a repeat of the reading may change.
fn hit_results(outcomes: &[Outcome]) -> BTreeMap<EventId, (Status, Option<ClickId>)> {
    let mut all = BTreeMap::new();
    for hit in outcomes.iter().flat_map(|o| &o.hits) {
        let status = if hit.outcome == Status::Withdrawn { Status::Rejected } else { hit.outcome };
        all.insert(hit.hit.id, (status, hit.click.as_ref().map(|c| c.id)));
    }
    all
}

#[test]
fn the_universe_is_small_enough_to_meet() {
    assert!(ALIASES.len() + OWN_CLICKS < 8 && own_click(0) != own_click(1));
    let step = HitStep {
        account: 0,
        name: NameStep::Own(0),
        goals: vec![(0, 1)],
        state: None,
        unmapped: false,
        earning: Some(50),
        value: None,
        usd: false,
        tid: None,
        player: None,
        ts_ago_ms: None,
        waiting_days: 7,
    };
    let read = reading(&step, schemas::Time::from_ms(support::START), |_, dedup| dedup);
    assert_eq!(read.goals[0].money.earning.unwrap().to_string(), "50.00");
}
