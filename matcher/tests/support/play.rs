//! Short words for tests of one rule: a plain hit of a goal, and what a log says in the end.

use schemas::{
    EventBody, Outcome, Reason,
    outcome::{Change, HitOutcome, Status},
    status::State,
};

use super::{HitStep, Log, NameStep, Step};

pub const SIGNUPS: usize = 0;
pub const DEPOSITS: usize = 1;
pub const SALES: usize = 2;
pub const BONUS: usize = 3;

pub fn hit(name: NameStep, goal: usize) -> HitStep {
    HitStep {
        account: 0,
        name,
        goals: vec![(goal, 1)],
        state: None,
        unmapped: false,
        earning: None,
        value: None,
        usd: false,
        tid: None,
        player: None,
        ts_ago_ms: None,
        waiting_days: 7,
    }
}

pub fn own(goal: usize) -> HitStep {
    hit(NameStep::Own(0), goal)
}

pub fn alias(goal: usize) -> HitStep {
    hit(NameStep::Alias(0), goal)
}

pub fn status(state: State) -> HitStep {
    HitStep { goals: vec![], state: Some(state), ..own(SALES) }
}

impl Log {
    pub fn click(&mut self, number: usize, alias: Option<usize>) -> &mut Self {
        self.step(&Step::Click { own: number, account: 0, alias, ago_ms: 0 }, |_, dedup| dedup);
        self
    }
    pub fn hit(&mut self, step: HitStep) -> HitOutcome {
        self.step(&Step::Hit(step), |_, dedup| dedup);
        self.outcomes.last().unwrap().hits[0].clone()
    }
    pub fn tick_after(&mut self, ms: i64) -> Outcome {
        self.pass(ms);
        self.push(EventBody::Tick);
        self.outcomes.last().unwrap().clone()
    }
}

pub fn start() -> Log {
    Log::of(&[])
}

pub fn result(hit: &HitOutcome) -> (Status, Option<Reason>) {
    (hit.outcome, hit.reason)
}

pub fn last(log: &Log) -> &Outcome {
    log.outcomes.last().unwrap()
}

pub fn total(log: &Log, of: impl Fn(&Change) -> Option<(i64, Option<schemas::Amount>)>) -> (i64, String) {
    let mut sum = (0, schemas::Amount::ZERO);
    for (count, earning) in log.outcomes.iter().flat_map(|o| &o.changes).filter_map(of) {
        sum.0 += count;
        sum.1 = sum.1.plus(earning.unwrap_or_default()).unwrap();
    }
    (sum.0, sum.1.to_string())
}

pub fn in_state(log: &Log, state: State) -> (i64, String) {
    total(log, |c| (c.state == state).then_some((c.count, c.earning)))
}
