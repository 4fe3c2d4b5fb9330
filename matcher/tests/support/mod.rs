//! Random histories of one partition: clicks, hits, ticks and adjustments on a small universe of names, so that
//! they meet often.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod play;

use std::collections::{BTreeMap, BTreeSet};

use matcher::{Cause, State, apply, decide};
use proptest::prelude::*;
use schemas::{
    Amount, ClickId, Currency, Event, EventBody, EventId, Outcome, Time,
    event::{
        Adjust, Click, GoalReading, Hit, HitSettings, Item, ItemBody, Money, Name, Raw, Reading, Reprocess, VERSION,
    },
    goal::Dedup,
    status::State as ConversionState,
    time::{DAY_MS, MINUTE_MS},
};

pub const START: i64 = 1_767_225_600_000;
pub const TENANT: &str = "t1";
pub const ACCOUNTS: [&str; 2] = ["a1", "a2"];
pub const ALIASES: [&str; 2] = ["x", "y"];
pub const OWN_CLICKS: usize = 3;

/// One step of a history; times are differences to the step before.
#[derive(Clone, Debug)]
pub enum Step {
    Click {
        own: usize,
        account: usize,
        alias: Option<usize>,
        ago_ms: i64,
    },
    Hit(HitStep),
    Tick,
    /// Hand correction of the n-th conversion made so far.
    Adjust {
        pick: usize,
        state: Option<ConversionState>,
        earning: Option<i64>,
    },
    Pass {
        ms: i64,
    },
}

#[derive(Clone, Debug)]
pub struct HitStep {
    pub account: usize,
    pub name: NameStep,
    pub goals: Vec<(usize, u32)>,
    pub state: Option<ConversionState>,
    pub unmapped: bool,
    pub earning: Option<i64>,
    pub value: Option<i64>,
    pub usd: bool,
    pub tid: Option<u8>,
    pub player: Option<u8>,
    pub ts_ago_ms: Option<i64>,
    pub waiting_days: u16,
}

#[derive(Clone, Debug)]
pub enum NameStep {
    Own(usize),
    Alias(usize),
    Label,
}

pub const GOALS: [(&str, Dedup); 4] = [
    ("signups", Dedup::Once),
    ("deposits", Dedup::PerTransaction),
    ("sales", Dedup::PerTransaction),
    ("bonus", Dedup::Every),
];

fn states() -> impl Strategy<Value = Option<ConversionState>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(ConversionState::Pending)),
        2 => Just(Some(ConversionState::Approved)),
        1 => Just(Some(ConversionState::Rejected)),
    ]
}

fn amounts() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![2 => Just(None), 2 => Just(Some(50)), 1 => Just(Some(70)), 1 => Just(Some(-20))]
}

pub fn hit_steps() -> impl Strategy<Value = HitStep> {
    let name = prop_oneof![
        3 => (0..OWN_CLICKS).prop_map(NameStep::Own),
        3 => (0..ALIASES.len()).prop_map(NameStep::Alias),
        1 => Just(NameStep::Label),
    ];
    let goals = prop_oneof![
        1 => Just(vec![]),
        4 => (0..GOALS.len()).prop_map(|g| vec![(g, 1)]),
        1 => Just(vec![(0, 1), (1, 2)]),
    ];
    let tid = prop_oneof![2 => Just(None), 1 => (0u8..2).prop_map(Some)];
    let player = prop_oneof![4 => Just(None), 1 => (0u8..2).prop_map(Some)];
    let ts = prop_oneof![3 => Just(None), 1 => prop_oneof![Just(0), Just(MINUTE_MS), Just(3 * DAY_MS)].prop_map(Some)];
    let account = prop_oneof![5 => Just(0usize), 1 => Just(1usize)];
    let waiting = prop_oneof![4 => Just(7u16), 1 => Just(0u16)];
    (
        (account, name, goals, states(), prop::bool::weighted(0.1)),
        (amounts(), amounts(), prop::bool::weighted(0.1), tid, player, ts, waiting),
    )
        .prop_map(
            |((account, name, goals, state, unmapped), (earning, value, usd, tid, player, ts_ago_ms, waiting_days))| {
                // A status alone has a state; an unmapped word has none and stands beside a goal.
                let state = if goals.is_empty() { state.or(Some(ConversionState::Approved)) } else { state };
                let unmapped = unmapped && !goals.is_empty() && state.is_none();
                HitStep {
                    account,
                    name,
                    goals,
                    state,
                    unmapped,
                    earning,
                    value,
                    usd,
                    tid,
                    player,
                    ts_ago_ms,
                    waiting_days,
                }
            },
        )
}

pub fn steps() -> impl Strategy<Value = Step> {
    let account = prop_oneof![5 => Just(0usize), 1 => Just(1usize)];
    let alias = prop_oneof![1 => Just(None), 2 => (0..ALIASES.len()).prop_map(Some)];
    let ago = prop_oneof![3 => Just(0), 1 => Just(5 * MINUTE_MS), 1 => Just(-20 * MINUTE_MS)];
    let pass = prop_oneof![Just(1), Just(30_000), Just(9 * MINUTE_MS), Just(DAY_MS), Just(40 * DAY_MS)];
    prop_oneof![
        3 => (0..OWN_CLICKS, account, alias, ago)
            .prop_map(|(own, account, alias, ago_ms)| Step::Click { own, account, alias, ago_ms }),
        8 => hit_steps().prop_map(Step::Hit),
        2 => Just(Step::Tick),
        1 => (0usize..6, states(), amounts()).prop_map(|(pick, state, earning)| Step::Adjust { pick, state, earning }),
        3 => pass.prop_map(|ms| Step::Pass { ms }),
    ]
}

pub fn histories() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(steps(), 1..40)
}

/// The own click with this number, always the same id.
pub fn own_click(number: usize) -> ClickId {
    ClickId::new(Time::from_ms(START + number as i64), 0, number as u64)
}

fn money(amount: Option<i64>) -> Option<Amount> {
    amount.map(|a| a.to_string().parse().unwrap())
}

pub fn hit_settings(waiting_days: u16) -> HitSettings {
    HitSettings {
        lookback_days: 30,
        lifetime_days: 60,
        waiting_days,
        default_goal: "sales".to_owned(),
        default_dedup: Dedup::PerTransaction,
        default_repeat_window_s: 600,
    }
}

pub fn reading(step: &HitStep, now: Time, policy: impl Fn(&str, Dedup) -> Dedup) -> Reading {
    let goal_money = Money { earning: money(step.earning), value: money(step.value), problem: None };
    let deepest = step.goals.iter().map(|(g, _)| *g).max();
    Reading {
        name: Some(match step.name {
            NameStep::Own(n) => Name::Click(own_click(n)),
            NameStep::Alias(n) => Name::Alias(ALIASES[n].to_owned()),
            NameStep::Label => Name::Label("campaign".to_owned()),
        }),
        goals: step
            .goals
            .iter()
            .map(|(g, count)| GoalReading {
                goal: GOALS[*g].0.to_owned(),
                count: *count,
                dedup: policy(GOALS[*g].0, GOALS[*g].1),
                repeat_window_s: 600,
                money: if Some(*g) == deepest { goal_money.clone() } else { Money::default() },
            })
            .collect(),
        state: step.state,
        unmapped: step.unmapped,
        money: if step.goals.is_empty() { goal_money } else { Money::default() },
        currency: Some(if step.usd { Currency::USD } else { Currency::EUR }),
        tid: step.tid.map(|t| format!("t{t}")),
        player: step.player.map(|p| format!("p{p}")),
        ts: step.ts_ago_ms.map(|ago| now.plus_ms(-ago)),
        ..Reading::default()
    }
}

/// A log: events with their append times, as the steps make them. `outcomes` are decided on the way, as an
/// adjustment needs a conversion that exists.
#[derive(Default)]
pub struct Log {
    pub events: Vec<(Cause, Event)>,
    pub outcomes: Vec<Outcome>,
    pub state: State,
    now_ms: i64,
    made: Vec<(String, Name, String)>,
}

impl Log {
    pub fn of(steps: &[Step]) -> Log {
        Self::with_policy(steps, |_, dedup| dedup)
    }

    pub fn with_policy(steps: &[Step], policy: impl Fn(&str, Dedup) -> Dedup + Copy) -> Log {
        let mut log = Log { now_ms: START, ..Log::default() };
        log.push(EventBody::Tick);
        for step in steps {
            log.step(step, policy);
        }
        log
    }

    pub fn now(&self) -> Time {
        Time::from_ms(self.now_ms)
    }

    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
    }

    pub fn step(&mut self, step: &Step, policy: impl Fn(&str, Dedup) -> Dedup) {
        self.now_ms += 1;
        let now = self.now();
        match step {
            Step::Pass { ms } => self.now_ms += ms,
            Step::Tick => self.push(EventBody::Tick),
            Step::Click { own, account, alias, ago_ms } => {
                let alias = alias.map(|a| ALIASES[a].to_owned());
                self.push(EventBody::Click(Click {
                    id: own_click(*own),
                    account: ACCOUNTS[*account].to_owned(),
                    program: "generic".to_owned(),
                    link: Some("l1".to_owned()),
                    time: now.plus_ms(-ago_ms),
                    dyn_: alias.clone(),
                    foreign: None,
                    sub1: Some("s".to_owned()),
                    sub2: None,
                    sub3: None,
                    sub4: None,
                    sub5: None,
                    flags: vec![],
                    agent: None,
                    referrer: None,
                    alias,
                    lookback_days: 30,
                    lifetime_days: 60,
                    waiting_days: 7,
                }));
            }
            Step::Hit(hit) => self.push(EventBody::Hit(Hit {
                account: ACCOUNTS[hit.account].to_owned(),
                program: "generic".to_owned(),
                raw: Raw { method: "GET".to_owned(), query: "raw".to_owned(), ..Raw::default() },
                reading: reading(hit, now, policy),
                settings: hit_settings(hit.waiting_days),
            })),
            Step::Adjust { pick, state, earning } => {
                let Some((account, on, conversion)) = self.made.get(*pick).cloned() else { return };
                self.push(EventBody::Adjust(Adjust {
                    account,
                    conversion,
                    on,
                    state: *state,
                    earning: money(*earning),
                    value: None,
                    reason: "by hand".to_owned(),
                    by: "k1".to_owned(),
                }));
            }
        }
    }

    pub fn push(&mut self, body: EventBody) {
        let n = self.events.len() as u64;
        let now = self.now();
        let event = Event {
            v: VERSION,
            id: EventId::new(now, 0, n),
            tenant: TENANT.to_owned(),
            time: now,
            from: EventId::new(Time::from_ms(START), 0, 1),
            n,
            body,
        };
        self.append(event);
    }

    pub fn append(&mut self, event: Event) {
        let cause = Cause { src: self.events.len() as u64, appended: self.now() };
        let outcome = decide(&self.state, cause, &event).unwrap();
        apply(&mut self.state, cause, &event, &outcome);
        for hit in &outcome.hits {
            let on = match (&hit.click, &hit.label) {
                (Some(click), _) => Name::Click(click.id),
                (None, Some(label)) => Name::Label(label.clone()),
                (None, None) => continue,
            };
            for conversion in hit.goals.iter().filter_map(|g| g.conversion.as_ref()).filter(|c| c.version == 1) {
                self.made.push((hit.account.clone(), on.clone(), conversion.id.to_string()));
            }
        }
        self.events.push((cause, event));
        self.outcomes.push(outcome);
    }

    pub fn bytes(&self) -> Vec<String> {
        self.outcomes.iter().map(|o| serde_json::to_string(o).unwrap()).collect()
    }
}

/// One reprocess event per name cluster, as the projector's job makes them.
pub fn requests(log: &Log, dry_run: bool, policy: impl Fn(&str, Dedup) -> Dedup + Copy) -> Vec<Reprocess> {
    let mut clusters: BTreeMap<(String, Name), Vec<Item>> = BTreeMap::new();
    let mut cluster_of: BTreeMap<ClickId, (String, Name)> = BTreeMap::new();
    for (_, event) in &log.events {
        if let EventBody::Click(click) = &event.body
            && !cluster_of.contains_key(&click.id)
        {
            let name = click.alias.clone().map_or(Name::Click(click.id), Name::Alias);
            cluster_of.insert(click.id, (click.account.clone(), name));
        }
    }
    let mut log_time = Time::from_ms(0);
    let mut arrived = BTreeSet::new();
    for ((_, event), outcome) in log.events.iter().zip(&log.outcomes) {
        let (cluster, what) = match &event.body {
            EventBody::Click(click) if arrived.insert(click.id) => {
                (cluster_of[&click.id].clone(), ItemBody::Click(click.id))
            }
            EventBody::Hit(hit) => {
                let own = (hit.account.clone(), hit.reading.name.clone().unwrap());
                let cluster = match hit.reading.name.as_ref().unwrap() {
                    Name::Click(id) => {
                        cluster_of.get(id).filter(|(account, _)| *account == hit.account).cloned().unwrap_or(own)
                    }
                    _ => own,
                };
                let mut reading = hit.reading.clone();
                for goal in &mut reading.goals {
                    let default = GOALS.iter().find(|(name, _)| *name == goal.goal).unwrap().1;
                    goal.dedup = policy(&goal.goal, default);
                }
                let what = ItemBody::Hit { program: hit.program.clone(), reading, settings: hit.settings.clone() };
                (cluster, what)
            }
            EventBody::Adjust(adjust) => {
                let own = (adjust.account.clone(), adjust.on.clone());
                let cluster = match &adjust.on {
                    Name::Click(id) => cluster_of.get(id).cloned().unwrap_or(own),
                    _ => own,
                };
                (cluster, ItemBody::Adjust(adjust.clone()))
            }
            _ => {
                log_time = outcome.log_time.unwrap_or(log_time);
                continue;
            }
        };
        clusters.entry(cluster).or_default().push(Item { id: event.id, time: event.time, log_time, what });
    }
    clusters
        .into_iter()
        .map(|((account, name), items)| Reprocess {
            account,
            request: "r1".to_owned(),
            dry_run,
            name,
            position: 0,
            items,
        })
        .collect()
}
