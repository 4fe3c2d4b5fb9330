//! The matcher against a second implementation of its rules, on random histories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by it")]

#[path = "oracle/mod.rs"]
mod model;
mod support;

use std::collections::BTreeMap;

use model::{GoalSeen, HitSeen, Names, Oracle, OracleOutcome, Shown};
use proptest::prelude::*;
use schemas::{
    Amount, ClickId, Currency, Outcome,
    goal::Dedup,
    outcome::{Conversion, HitOutcome},
    status::State,
};
use support::{Log, NameStep, Step, histories, steps};

fn shown(c: &Conversion) -> Shown {
    Shown {
        version: c.version,
        goal: c.goal.clone(),
        count: c.count,
        state: c.state,
        earning: c.earning,
        value: c.value,
        currency: c.currency,
        tid: c.tid.clone(),
        player: c.player.clone(),
        time: c.time,
    }
}

fn hit_seen(hit: &HitOutcome) -> HitSeen {
    let goals = hit.goals.iter().map(|g| GoalSeen {
        outcome: g.outcome,
        reason: g.reason,
        conversion: g.conversion.as_ref().map(shown),
    });
    HitSeen {
        id: hit.hit.id,
        outcome: hit.outcome,
        reason: hit.reason,
        click: hit.click.as_ref().map(|c| c.id),
        label: hit.label.clone(),
        waiting_until: hit.waiting_until,
        goals: goals.collect(),
    }
    .plain()
}

fn seen(outcome: &Outcome) -> OracleOutcome {
    let mut hits: Vec<HitSeen> = vec![];
    for hit in &outcome.hits {
        hits.retain(|h| h.id != hit.hit.id);
        hits.push(hit_seen(hit));
    }
    hits.sort_by_key(|hit| hit.id);
    let adjusted = outcome.adjust.as_ref().map(|a| (a.outcome, a.conversion.as_ref().map(shown)));
    OracleOutcome { reason: outcome.reason, log_time: outcome.log_time, hits, adjusted }
}

/// Account, click (none for labels), goal, state, currency.
type Cell = (String, Option<ClickId>, String, State, Currency);
type Sums = (i64, Amount, Amount);

fn add(report: &mut BTreeMap<Cell, Sums>, cell: Cell, count: i64, earning: Option<Amount>, value: Option<Amount>) {
    let sums = report.entry(cell).or_default();
    sums.0 += count;
    sums.1 = sums.1.plus(earning.unwrap_or_default()).unwrap();
    sums.2 = sums.2.plus(value.unwrap_or_default()).unwrap();
}

fn folded(outcomes: &[Outcome]) -> BTreeMap<Cell, Sums> {
    let mut report = BTreeMap::new();
    for c in outcomes.iter().flat_map(|o| &o.changes) {
        let cell = (c.account.clone(), c.click, c.goal.clone(), c.state, c.currency);
        add(&mut report, cell, c.count, c.earning, c.value);
    }
    report.retain(|_, sums| *sums != Sums::default());
    report
}

fn expected(oracle: &Oracle) -> BTreeMap<Cell, Sums> {
    let mut report = BTreeMap::new();
    for conversion in &oracle.conversions {
        let (c, click) = (&conversion.shown, oracle.click_of(conversion));
        let cell = (conversion.account.clone(), click, c.goal.clone(), c.state, c.currency);
        add(&mut report, cell, i64::from(c.count), c.earning, c.value);
    }
    report.retain(|_, sums| *sums != Sums::default());
    report
}

fn names(outcomes: &[Outcome]) -> Names {
    let hits = outcomes.iter().flat_map(|o| &o.hits);
    let made = hits.flat_map(|h| h.goals.iter().filter_map(move |g| Some((h.hit.id, g.conversion.as_ref()?))));
    made.filter(|(_, c)| c.version == 1).map(|(hit, c)| (c.id.to_string(), hit, c.goal.clone())).collect()
}

fn compare(log: &Log) -> Result<(), TestCaseError> {
    let events: Vec<_> = log.events.iter().map(|(cause, event)| (cause.appended, event.clone())).collect();
    let (outcomes, oracle) = Oracle::run(&events, &names(&log.outcomes));
    for (n, (ours, theirs)) in outcomes.iter().zip(&log.outcomes).enumerate() {
        let theirs = seen(theirs);
        prop_assert!(
            *ours == theirs,
            "event {n}: {:?}\noracle:  {ours:#?}\nmatcher: {theirs:#?}",
            log.events[n].1.body
        );
    }
    prop_assert_eq!(expected(&oracle), folded(&log.outcomes), "the report (left: oracle, right: matcher)");
    Ok(())
}

/// The same steps on one or two clicks of one account, so that nearly every hit meets an earlier one.
fn crowded(mut steps: Vec<Step>, label: bool) -> Vec<Step> {
    for step in &mut steps {
        match step {
            Step::Click { own, account, alias, .. } => {
                (*own, *account) = (*own % 2, 0);
                *alias = alias.map(|_| 0);
            }
            Step::Hit(hit) => {
                hit.account = 0;
                hit.name = match hit.name {
                    _ if label => NameStep::Label,
                    NameStep::Own(_) => NameStep::Own(0),
                    NameStep::Alias(_) | NameStep::Label => NameStep::Alias(0),
                };
            }
            Step::Tick | Step::Adjust { .. } | Step::Pass { .. } => {}
        }
    }
    steps
}

fn policies() -> impl Strategy<Value = Option<Dedup>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(Dedup::Once)),
        2 => Just(Some(Dedup::PerTransaction)),
    ]
}

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: 4 * usual.cases, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_matcher_decides_as_the_oracle(steps in histories()) {
        compare(&Log::of(&steps))?;
    }

    #[test]
    fn the_matcher_decides_as_the_oracle_where_all_meet(
        steps in prop::collection::vec(steps(), 1..80),
        label in prop::bool::weighted(0.3),
        policy in policies(),
    ) {
        compare(&Log::with_policy(&crowded(steps, label), |_, dedup| policy.unwrap_or(dedup)))?;
    }
}
