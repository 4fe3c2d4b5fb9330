//! A small world for tests: steps of a story, told by proptest, become outcomes as the matcher would write them.

use std::{collections::BTreeMap, path::Path};

use pipeline::log::{Block, Log};
use proptest::prelude::*;
use schemas::{
    Amount, ClickId, ConversionId, Currency, EventId, Outcome, Reason, Time,
    chain::Position,
    event::Correction,
    outcome::{
        AdjustOutcome, Change, ClickData, ClickRef, Conversion, GoalOutcome, HitOutcome, HitRef, Kind,
        ReprocessOutcome, Status,
    },
    status::State,
    time::{DAY_MS, MINUTE_MS},
};

use crate::report::{AccountNames, Directory};

pub const START: i64 = 1_792_800_000_000;
pub const TENANT: &str = "default";

#[derive(Clone, Debug)]
pub enum Step {
    Click {
        account: u8,
        link: Option<u8>,
        values: [Option<u8>; 6],
        flag: bool,
        earlier_min: u16,
        imported: bool,
    },
    /// A hit on a click that makes a conversion.
    Convert {
        click: u8,
        goal: u8,
        state: u8,
        count: u8,
        earning: Option<i32>,
        usd: bool,
        tid: Option<u8>,
        later_min: u16,
    },
    Label {
        account: u8,
        label: u8,
        goal: u8,
        earning: Option<i32>,
    },
    /// A hit that changes a conversion.
    Update {
        conversion: u8,
        state: u8,
        earning: Option<i32>,
    },
    Adjust {
        conversion: u8,
        state: u8,
        earning: Option<i32>,
    },
    Reject {
        account: u8,
        reason: u8,
    },
    Wait {
        account: u8,
    },
    /// A click that wakes everything that waits for it.
    Wake {
        account: u8,
        link: Option<u8>,
    },
    Tick {
        expire: bool,
    },
    /// Withdraws a conversion, its hit being worthless now; or makes it again.
    Reprocess {
        conversion: u8,
        dry_run: bool,
    },
    Repeat,
}

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let value = || proptest::option::of(0u8..4);
    let values = [value(), value(), value(), value(), value(), value()];
    let money = || proptest::option::of(-5_000i32..50_000);
    let link = || proptest::option::of(0u8..3);
    let step = prop_oneof![
        6 => (0u8..3, link(), values, any::<bool>(), 0u16..4_000, any::<bool>()).prop_map(
            |(account, link, values, flag, earlier_min, imported)|
                Step::Click { account, link, values, flag: flag && imported, earlier_min, imported }),
        8 => (any::<u8>(), 0u8..4, 0u8..3, 1u8..4, money(), any::<bool>(), value(), 0u16..3_000).prop_map(
            |(click, goal, state, count, earning, usd, tid, later_min)|
                Step::Convert { click, goal, state, count, earning, usd, tid, later_min }),
        1 => (0u8..3, 0u8..3, 0u8..4, money()).prop_map(
            |(account, label, goal, earning)| Step::Label { account, label, goal, earning }),
        3 => (any::<u8>(), 0u8..3, money()).prop_map(|(conversion, state, earning)| Step::Update { conversion, state, earning }),
        1 => (any::<u8>(), 0u8..3, money()).prop_map(|(conversion, state, earning)| Step::Adjust { conversion, state, earning }),
        2 => (0u8..3, any::<u8>()).prop_map(|(account, reason)| Step::Reject { account, reason }),
        2 => (0u8..3).prop_map(|account| Step::Wait { account }),
        1 => (0u8..3, link()).prop_map(|(account, link)| Step::Wake { account, link }),
        1 => any::<bool>().prop_map(|expire| Step::Tick { expire }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(conversion, dry_run)| Step::Reprocess { conversion, dry_run }),
        1 => Just(Step::Repeat),
    ];
    proptest::collection::vec(step, count)
}

#[derive(Clone)]
struct Known {
    conversion: Conversion,
    account: String,
    click: Option<ClickRef>,
    label: Option<String>,
    hit: HitRef,
}

#[derive(Default)]
pub struct World {
    pub outcomes: Vec<Outcome>,
    pub clicks: Vec<ClickData>,
    pub hits: Vec<EventId>,
    conversions: Vec<Known>,
    waiting: BTreeMap<String, Vec<HitRef>>,
    now: i64,
    tenant: String,
    /// The number of the conversion that is made first.
    first: usize,
}

pub fn account(number: u8) -> String {
    format!("acc_{}", number % 3)
}

fn amount(cents: Option<i32>) -> Option<Amount> {
    cents.map(|cents| Amount::from_units(i128::from(cents) * 1_000_000).unwrap())
}

fn goal(number: u8) -> &'static str {
    ["signups", "firsttimedeposits", "deposits", "vip"][usize::from(number % 4)]
}

fn state(number: u8) -> State {
    State::ALL[usize::from(number % 3)]
}

impl World {
    pub fn of(steps: &[Step]) -> World {
        World::of_tenant(TENANT, 0, steps)
    }

    /// One of several in the same tables. `first`: the number of the conversion that is made first.
    pub fn of_tenant(tenant: &str, first: usize, steps: &[Step]) -> World {
        let mut world = World { now: START, tenant: tenant.to_owned(), first, ..World::default() };
        for step in steps {
            world.now += 37_000;
            world.step(step);
        }
        world
    }

    fn id(&self) -> EventId {
        EventId::new(Time::from_ms(self.now), 3, self.outcomes.len() as u64)
    }

    fn outcome(&self, kind: Kind) -> Outcome {
        Outcome::blank(self.id(), &self.tenant, Time::from_ms(self.now), kind)
    }

    fn hit_ref(&self) -> HitRef {
        HitRef {
            id: self.id(),
            time: Time::from_ms(self.now),
            method: Some("GET".to_owned()),
            raw: Some(format!("clickId={}&signups=1", self.outcomes.len())),
            body: None,
            remote: Some("192.0.2.0".to_owned()),
        }
    }

    fn hit(&self, account: &str, hit: HitRef, outcome: Status) -> HitOutcome {
        HitOutcome {
            hit,
            tenant: self.tenant.clone(),
            account: account.to_owned(),
            program: "generic".to_owned(),
            click: None,
            named: None,
            label: None,
            outcome,
            reason: None,
            hint: None,
            waiting_until: None,
            corrections: Vec::new(),
            goals: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        let outcome = match step {
            Step::Click { account: a, link, values, flag, earlier_min, imported } => {
                let earlier = i64::from(*earlier_min) * MINUTE_MS * i64::from(*imported);
                let click = self.click(&account(*a), *link, values, *flag, earlier);
                Outcome { click: Some(click), ..self.outcome(Kind::Click) }
            }
            Step::Convert { click, goal: g, state: s, count, earning, usd, tid, later_min } => {
                let Some(click) = pick(&self.clicks, *click).cloned() else { return };
                let conversion = Conversion {
                    count: u32::from(*count),
                    state: state(*s),
                    earning: amount(*earning),
                    currency: if *usd { Currency::USD } else { Currency::EUR },
                    tid: tid.map(|tid| format!("t{tid}")),
                    time: click.time.plus_ms(i64::from(*later_min) * MINUTE_MS),
                    ..self.conversion(goal(*g))
                };
                self.convert(&click.account, Some(reference(&click)), None, conversion)
            }
            Step::Label { account: a, label, goal: g, earning } => {
                let conversion = Conversion { earning: amount(*earning), ..self.conversion(goal(*g)) };
                self.convert(&account(*a), None, Some(format!("label{label}")), conversion)
            }
            Step::Update { conversion, state: s, earning } => {
                let Some(at) = self.live(*conversion) else { return };
                self.update(at, state(*s), amount(*earning))
            }
            Step::Adjust { conversion, state: s, earning } => {
                let Some(at) = self.live(*conversion) else { return };
                self.adjust(at, state(*s), amount(*earning))
            }
            Step::Reject { account: a, reason } => {
                let reason = Reason::ALL[usize::from(*reason) % Reason::ALL.len()];
                let corrections = vec![Correction { code: "trimmed".to_owned(), detail: "a space".to_owned() }];
                let named = Some(format!("Name{}", self.outcomes.len() % 5));
                let hit = self.hit(&account(*a), self.hit_ref(), Status::Rejected);
                let hit = HitOutcome { reason: Some(reason), corrections, named, ..hit };
                Outcome { hits: vec![hit], ..self.outcome(Kind::Hit) }
            }
            Step::Wait { account: a } => {
                let hit = self.hit_ref();
                self.waiting.entry(account(*a)).or_default().push(short(&hit));
                let until = Some(Time::from_ms(self.now + 7 * DAY_MS));
                let hit = HitOutcome { waiting_until: until, ..self.hit(&account(*a), hit, Status::Waiting) };
                Outcome { hits: vec![hit], ..self.outcome(Kind::Hit) }
            }
            Step::Wake { account: a, link } => self.wake(&account(*a), *link),
            Step::Tick { expire } => self.tick(*expire),
            Step::Reprocess { conversion, dry_run } => {
                let Some(known) = pick(&self.conversions, *conversion).cloned() else { return };
                self.reprocess(known, *dry_run)
            }
            Step::Repeat => self.outcome(Kind::Repeat),
        };
        self.hits.extend(outcome.hits.iter().map(|hit| hit.hit.id).filter(|id| *id == outcome.id));
        self.outcomes.push(outcome);
    }

    fn click(
        &mut self,
        account: &str,
        link: Option<u8>,
        values: &[Option<u8>; 6],
        flag: bool,
        earlier: i64,
    ) -> ClickData {
        let time = Time::from_ms(self.now - earlier);
        let id = ClickId::new(time, 5, self.outcomes.len() as u64);
        let [dyn_, sub1, sub2, sub3, sub4, sub5] = values.map(|value| value.map(|value| format!("V{value}")));
        let click = ClickData {
            id,
            time,
            account: account.to_owned(),
            program: "generic".to_owned(),
            link: link.map(|link| format!("lnk_{link}")),
            dyn_,
            foreign: (earlier > 0).then(|| format!("Foreign{}", self.outcomes.len())),
            sub1,
            sub2,
            sub3,
            sub4,
            sub5,
            flags: if flag { vec!["bot".to_owned(), "sub1_dropped".to_owned()] } else { Vec::new() },
        };
        self.clicks.push(click.clone());
        click
    }

    fn conversion(&self, goal: &str) -> Conversion {
        Conversion {
            id: nth_conversion(self.first + self.conversions.len()),
            version: 1,
            goal: goal.to_owned(),
            count: 1,
            state: State::Approved,
            earning: None,
            value: None,
            currency: Currency::EUR,
            tid: None,
            player: None,
            time: Time::from_ms(self.now),
            withdrawn: false,
        }
    }

    fn convert(
        &mut self,
        account: &str,
        click: Option<ClickRef>,
        label: Option<String>,
        conversion: Conversion,
    ) -> Outcome {
        let hit = self.hit_ref();
        let entry = HitOutcome {
            click: click.clone(),
            label: label.clone(),
            named: click.as_ref().map(|click| click.id.to_string()),
            goals: vec![made(&conversion, Status::Converted)],
            ..self.hit(account, hit.clone(), Status::Converted)
        };
        let known =
            Known { conversion: conversion.clone(), account: account.to_owned(), click, label, hit: short(&hit) };
        let changes = changes(&known, None, Some(&conversion));
        self.conversions.push(known);
        Outcome { hits: vec![entry], changes, ..self.outcome(Kind::Hit) }
    }

    fn live(&self, number: u8) -> Option<usize> {
        let live: Vec<usize> =
            (0..self.conversions.len()).filter(|at| !self.conversions[*at].conversion.withdrawn).collect();
        pick(&live, number).copied()
    }

    fn next_version(&mut self, at: usize, state: State, earning: Option<Amount>) -> (Known, Conversion) {
        let before = self.conversions[at].conversion.clone();
        let earning = earning.or(before.earning);
        let after = Conversion { version: before.version + 1, state, earning, ..before.clone() };
        self.conversions[at].conversion = after;
        (self.conversions[at].clone(), before)
    }

    fn update(&mut self, at: usize, state: State, earning: Option<Amount>) -> Outcome {
        let (known, before) = self.next_version(at, state, earning);
        let entry = HitOutcome {
            click: known.click.clone(),
            label: known.label.clone(),
            goals: vec![made(&known.conversion, Status::Updated)],
            ..self.hit(&known.account, self.hit_ref(), Status::Updated)
        };
        let changes = changes(&known, Some(&before), Some(&known.conversion));
        Outcome { hits: vec![entry], changes, ..self.outcome(Kind::Hit) }
    }

    fn adjust(&mut self, at: usize, state: State, earning: Option<Amount>) -> Outcome {
        let (known, before) = self.next_version(at, state, earning);
        let click = known.click.as_ref().and_then(|click| self.clicks.iter().find(|c| c.id == click.id)).cloned();
        let adjust = AdjustOutcome {
            account: known.account.clone(),
            outcome: Status::Updated,
            note: "as agreed".to_owned(),
            by: "key_1".to_owned(),
            program: click.as_ref().map(|click| click.program.clone()),
            label: known.label.clone(),
            conversion: Some(known.conversion.clone()),
        };
        let changes = changes(&known, Some(&before), Some(&known.conversion));
        Outcome { click, adjust: Some(adjust), changes, ..self.outcome(Kind::Adjust) }
    }

    fn wake(&mut self, account: &str, link: Option<u8>) -> Outcome {
        let click = self.click(account, link, &[None, Some(1), None, None, None, None], false, 0);
        let mut outcome = Outcome { click: Some(click.clone()), ..self.outcome(Kind::Click) };
        for hit in self.waiting.remove(account).unwrap_or_default() {
            let conversion = self.conversion("signups");
            let known = Known {
                conversion: conversion.clone(),
                account: account.to_owned(),
                click: Some(reference(&click)),
                label: None,
                hit: hit.clone(),
            };
            outcome.changes.extend(changes(&known, None, Some(&conversion)));
            self.conversions.push(known);
            outcome.hits.push(HitOutcome {
                click: Some(reference(&click)),
                goals: vec![made(&conversion, Status::Converted)],
                ..self.hit(account, hit, Status::Converted)
            });
        }
        outcome
    }

    fn tick(&mut self, expire: bool) -> Outcome {
        let mut outcome = Outcome { log_time: Some(Time::from_ms(self.now)), ..self.outcome(Kind::Tick) };
        outcome.tenant = String::new();
        if expire && let Some((account, hits)) = self.waiting.pop_first() {
            outcome.hits = hits
                .into_iter()
                .map(|hit| HitOutcome {
                    reason: Some(Reason::UnknownClick),
                    ..self.hit(&account, hit, Status::Rejected)
                })
                .collect();
        }
        outcome
    }

    fn reprocess(&mut self, known: Known, dry_run: bool) -> Outcome {
        let before = known.conversion.clone();
        let withdrawn = !before.withdrawn;
        let after = Conversion { version: before.version + 1, withdrawn, ..before.clone() };
        let goal_status = if withdrawn { Status::Withdrawn } else { Status::Converted };
        let entry = HitOutcome {
            // A hit that is worthless now names neither click nor label.
            click: known.click.clone().filter(|_| !withdrawn),
            label: known.label.clone().filter(|_| !withdrawn),
            goals: vec![made(&after, goal_status)],
            ..self.hit(&known.account, known.hit.clone(), goal_status)
        };
        let mut outcome = self.outcome(Kind::Reprocess);
        outcome.reprocess = Some(ReprocessOutcome {
            account: known.account.clone(),
            request: "rep_1".to_owned(),
            dry_run,
            changed: 1,
            clicks: known.click.iter().cloned().collect(),
            label: known.label.clone(),
        });
        if !dry_run {
            let live = |c: &Conversion| !c.withdrawn;
            outcome.changes = changes(&known, Some(&before).filter(|c| live(c)), Some(&after).filter(|c| live(c)));
            outcome.hits = vec![entry];
            let at = self.conversions.iter_mut().find(|other| other.conversion.id == before.id).unwrap();
            at.conversion = after;
        }
        outcome
    }
}

fn pick<T>(list: &[T], number: u8) -> Option<&T> {
    if list.is_empty() { None } else { list.get(usize::from(number) % list.len()) }
}

fn short(hit: &HitRef) -> HitRef {
    HitRef { method: None, raw: None, body: None, remote: None, ..hit.clone() }
}

pub fn reference(c: &ClickData) -> ClickRef {
    let [sub1, sub2, sub3, sub4, sub5] = [&c.sub1, &c.sub2, &c.sub3, &c.sub4, &c.sub5].map(Clone::clone);
    ClickRef { id: c.id, time: c.time, link: c.link.clone(), dyn_: c.dyn_.clone(), sub1, sub2, sub3, sub4, sub5 }
}

fn made(conversion: &Conversion, outcome: Status) -> GoalOutcome {
    GoalOutcome {
        goal: conversion.goal.clone(),
        count: conversion.count,
        outcome,
        reason: None,
        same_as: None,
        conversion: Some(conversion.clone()),
    }
}

/// The id of the conversion that a made-up history makes as its n-th.
pub fn nth_conversion(n: usize) -> ConversionId {
    ConversionId((n as u128).to_be_bytes())
}

fn changes(known: &Known, before: Option<&Conversion>, after: Option<&Conversion>) -> Vec<Change> {
    let change = |c: &Conversion, sign: i64| Change {
        conversion: c.id,
        account: known.account.clone(),
        click: known.click.as_ref().map(|click| click.id),
        click_time: known.click.as_ref().map_or(c.time, |click| click.time),
        time: c.time,
        goal: c.goal.clone(),
        state: c.state,
        currency: c.currency,
        count: sign * i64::from(c.count),
        earning: c.earning.map(|a| if sign < 0 { a.negated() } else { a }),
        value: None,
    };
    before.map(|c| change(c, -1)).into_iter().chain(after.map(|c| change(c, 1))).collect()
}

/// Writes outcomes into the log, in blocks of the given sizes (the last one goes on).
pub fn write(log: &mut Log, outcomes: &[Outcome], sizes: &[usize]) {
    let mut rest = outcomes;
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(7));
    while !rest.is_empty() {
        let (part, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        append(log, part);
        rest = after;
    }
}

pub fn append(log: &mut Log, outcomes: &[Outcome]) -> Position {
    let Position { next, chain } = log.position();
    let mut block = Block {
        first: next,
        count: outcomes.len() as u32,
        time: outcomes[0].time,
        events: Vec::new(),
        outcomes: Vec::new(),
        prev: chain,
        chain,
    };
    for outcome in outcomes {
        let payload = serde_json::to_vec(outcome).unwrap();
        block.chain = block.chain.next(&payload);
        block.outcomes.extend_from_slice(&payload);
        block.outcomes.push(b'\n');
        block.events.extend_from_slice(b"{}\n");
    }
    log.append(&[block], &[]).unwrap();
    log.position()
}

pub fn directory() -> Directory<'static> {
    Directory {
        accounts: Box::new(|| (0..3).map(account).collect()),
        account: Box::new(|id| {
            let program = if id == "acc_0" { "generic" } else { "other" };
            Some(AccountNames {
                name: format!("Account {id}"),
                program: program.to_owned(),
                timezone: "Europe/Malta".to_owned(),
            })
        }),
        program: Box::new(|id| Some(format!("Program {id}"))),
        link: Box::new(|id| Some(format!("Link {id}"))),
    }
}

/// A folder with a log.
pub fn folder(outcomes: &[Outcome], sizes: &[usize]) -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(dir.path());
    write(&mut log, outcomes, sizes);
    (dir, log)
}

pub fn open_log(dir: &Path) -> Log {
    Log::open(dir).unwrap()
}
