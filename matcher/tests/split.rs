//! The log of a folder as the logs of partitions: every decision once, unchanged and where its hit lives, and matchers
//! that go on from there as the folder would have gone on.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use matcher::{
    Cause, State, apply, decide,
    split::{Moved, Split, SplitError},
    state::{Click, Key, Label, Named, Place, Waiting},
};
use proptest::prelude::*;
use schemas::{
    ClickId, Event, EventBody, EventId, Outcome, Reason, Time,
    chain::{Chain, Position, Verdict, judge},
    event::{self, Hit, Name, Raw, Reprocess, VERSION},
    goal::Dedup,
    id::alias_shard,
    outcome::{Kind, Status},
    time::DAY_MS,
};
use support::{
    ACCOUNTS, ALIASES, HitStep, Log, NameStep, OWN_CLICKS, START, Step, TENANT, histories, hit_settings, reading,
    requests,
};

/// Clicks as ingest makes them: the shard of an id is that of its alias, else any.
fn click_id(own: usize, account: usize, alias: usize) -> ClickId {
    let number = own * 6 + account * 3 + alias;
    let shard = match ALIASES.get(alias) {
        Some(alias) => alias_shard(TENANT, ACCOUNTS[account], alias),
        None => (number * 7) as u16,
    };
    ClickId::new(Time::from_ms(START + number as i64), shard, number as u64)
}

fn all_clicks() -> Vec<ClickId> {
    let all = (0..OWN_CLICKS).flat_map(|own| (0..2).map(move |account| (own, account)));
    all.flat_map(|(own, account)| (0..3).map(move |alias| click_id(own, account, alias))).collect()
}

/// Ids of events have the shard of what they concern.
fn push(log: &mut Log, shard: u16, body: EventBody) {
    let (n, now) = (log.events.len() as u64, log.now());
    let from = EventId::new(Time::from_ms(START), 0, 1);
    let event = Event { v: VERSION, id: EventId::new(now, shard, n), tenant: TENANT.into(), time: now, from, n, body };
    log.append(event);
}

fn push_click(log: &mut Log, own: usize, account: usize, alias: Option<usize>, ago_ms: i64) {
    let id = click_id(own, account, alias.unwrap_or(2));
    let alias = alias.map(|at| ALIASES[at].to_owned());
    let click = serde_json::json!({
        "id": id, "account": ACCOUNTS[account], "program": "generic", "link": "l1", "dyn": alias, "alias": alias,
        "time": log.now().plus_ms(-ago_ms), "lookback_days": 30, "lifetime_days": 60, "waiting_days": 7,
    });
    push(log, id.shard(), EventBody::Click(serde_json::from_value::<event::Click>(click).unwrap()));
}

fn push_hit(log: &mut Log, step: &HitStep) {
    let mut reading = reading(step, log.now(), |_, dedup| dedup);
    let account = ACCOUNTS[step.account];
    let shard = match &step.name {
        NameStep::Own(own) => {
            // Now and then a click of the other account.
            let of = if step.player == Some(1) { 1 - step.account } else { step.account };
            let id = click_id(*own, of, step.tid.map_or(0, |tid| usize::from(tid) + 1));
            reading.name = Some(Name::Click(id));
            id.shard()
        }
        NameStep::Alias(at) => alias_shard(TENANT, account, ALIASES[*at]),
        NameStep::Label => alias_shard(TENANT, account, "campaign"),
    };
    let raw = Raw { method: "GET".into(), query: "raw".into(), ..Raw::default() };
    let settings = hit_settings(step.waiting_days);
    push(
        log,
        shard,
        EventBody::Hit(Hit { account: account.into(), program: "generic".into(), raw, reading, settings }),
    );
}

fn play(log: &mut Log, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Click { own, account, alias, ago_ms } => {
                log.pass(1);
                push_click(log, *own, *account, *alias, *ago_ms);
            }
            Step::Hit(hit) => {
                log.pass(1);
                push_hit(log, hit);
            }
            Step::Tick | Step::Adjust { .. } | Step::Pass { .. } => log.step(step, |_, dedup| dedup),
        }
    }
}

/// A tick that had more to do than fits into one: what is left expires with the events after it, whatever they are of.
fn push_full_tick(log: &mut Log) {
    let (n, now) = (log.events.len() as u64, log.now());
    let (id, from) = (EventId::new(now, 0, n), EventId::new(Time::from_ms(START), 0, 1));
    let event = Event { v: VERSION, id, tenant: String::new(), time: now, from, n, body: EventBody::Tick };
    let cause = Cause { src: n, appended: now };
    let mut outcome = decide(&log.state, cause, &event).unwrap();
    outcome.hits.truncate(1);
    apply(&mut log.state, cause, &event, &outcome);
    log.events.push((cause, event));
    log.outcomes.push(outcome);
}

fn stricter(goal: &str, dedup: Dedup) -> Dedup {
    if goal == "bonus" { Dedup::Once } else { dedup }
}

/// Histories with everything in them: reading again in the middle, fresh and stale, and rules.
fn history(steps: &[Step]) -> Log {
    let mut log = Log::of(&[]);
    let (first, then) = steps.split_at(steps.len() / 2);
    play(&mut log, first);
    for _ in 0..9 {
        log.pass(DAY_MS);
        push_full_tick(&mut log);
    }
    play(&mut log, &first[..first.len() / 2]);
    log.push(EventBody::Tick);
    for (at, request) in requests(&log, false, stricter).into_iter().enumerate() {
        let position = if at % 3 == 2 { 1 } else { log.events.len() as u64 };
        log.push(EventBody::Reprocess(Reprocess { position, dry_run: at % 4 == 3, ..request }));
    }
    log.push(EventBody::Rules(1));
    play(&mut log, then);
    log.pass(DAY_MS);
    push_full_tick(&mut log);
    log
}

fn outcome(moved: &Moved) -> Outcome {
    serde_json::from_slice(&moved.outcome).unwrap()
}

fn split(log: &Log, partitions: u16) -> Vec<Vec<Moved>> {
    let mut split = Split::new(partitions);
    let mut lists = vec![Vec::new(); usize::from(partitions)];
    for ((_, event), payload) in log.events.iter().zip(log.bytes()) {
        for moved in split.next(event.clone(), payload.as_bytes()).unwrap() {
            lists[usize::from(moved.partition)].push(moved);
        }
    }
    lists
}

/// As a matcher recovers.
fn recover(list: &[Moved]) -> State {
    let mut state = State::default();
    for moved in list {
        apply(&mut state, Cause { src: moved.link.src, appended: Time::from_ms(0) }, &moved.event, &outcome(moved));
    }
    state
}

fn waiting(all: &[std::sync::Arc<Waiting>]) -> Vec<std::sync::Arc<Waiting>> {
    all.iter().map(|w| Waiting { arrived: 0, ..Waiting::clone(w) }.into()).collect()
}

/// What a state knows, positions aside: they are other ones in each log.
#[derive(Debug, Default, PartialEq)]
struct Known {
    clicks: BTreeMap<ClickId, Click>,
    names: BTreeMap<Key, Named>,
    labels: BTreeMap<Key, Label>,
    due: BTreeSet<(EventId, String)>,
}

impl Known {
    fn add(&mut self, state: &State) {
        for id in all_clicks() {
            if let Some(click) = state.clicks.get(&id) {
                let click = Click { touched: 0, waiting: waiting(&click.waiting), ..Click::clone(click) };
                assert_eq!(self.clicks.insert(id, click), None, "{id} is in two partitions");
            }
        }
        let of_account = |account| {
            let aliases = ALIASES.iter().map(move |alias| Key::alias(TENANT, account, alias));
            aliases.chain([Key::of(TENANT, account, &Name::Label("campaign".into()))])
        };
        let keys = ACCOUNTS.into_iter().flat_map(of_account).chain(all_clicks().into_iter().map(Key::Click));
        for key in keys {
            if let Some(named) = state.names.get(&key) {
                let named = Named { touched: 0, waiting: waiting(&named.waiting), ..Named::clone(named) };
                assert_eq!(self.names.insert(key.clone(), named), None, "{key:?} is in two partitions");
            }
            if let Some(label) = state.labels.get(&key) {
                let label = Label { touched: 0, waiting: waiting(&label.waiting), ..Label::clone(label) };
                assert_eq!(self.labels.insert(key.clone(), label), None, "{key:?} is in two partitions");
            }
        }
        let end = Time::from_ms(i64::MAX);
        self.due.extend(state.due(end).map(|(id, place): (EventId, &Place)| (id, format!("{place:?}"))));
    }
}

/// Everything that was said about each thing, in its order.
fn said<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for outcome in outcomes {
        for hit in &outcome.hits {
            all.entry(hit.hit.id.to_string()).or_default().push(serde_json::to_string(hit).unwrap());
        }
        for change in &outcome.changes {
            all.entry(change.conversion.to_string()).or_default().push(serde_json::to_string(change).unwrap());
        }
        if let Some(click) = &outcome.click {
            all.entry(click.id.to_string()).or_default().push(serde_json::to_string(&outcome.adjust).unwrap());
        }
    }
    all
}

proptest! {
    #[test]
    fn every_partition_has_a_list_that_a_reader_takes(steps in histories(), partitions in 1u16..9) {
        let log = history(&steps);
        let mut left: BTreeSet<EventId> = log.events.iter().map(|(_, event)| event.id).collect();
        for list in split(&log, partitions) {
            let mut position = Position { next: 1, chain: Chain::FIRST };
            for (n, moved) in (0u64..).zip(&list) {
                prop_assert_eq!(judge(&position, &moved.link, &moved.outcome), Verdict::Take);
                position = Position { next: moved.link.src + 1, chain: moved.link.chain };
                prop_assert_eq!(moved.event.n, n, "numbers of a run follow each other in a partition");
                prop_assert_eq!(outcome(moved).id, moved.event.id);
                prop_assert_eq!(moved.shard % partitions, moved.partition);
                left.remove(&moved.event.id);
            }
        }
        prop_assert!(left.is_empty(), "lost: {left:?}");
    }

    #[test]
    fn nothing_that_was_decided_changes(steps in histories(), partitions in 1u16..9) {
        let log = history(&steps);
        let lists = split(&log, partitions);
        let outcomes: Vec<Vec<Outcome>> = lists.iter().map(|list| list.iter().map(outcome).collect()).collect();
        prop_assert_eq!(said(outcomes.iter().flatten()), said(log.outcomes.iter()));
        for (partition, outcomes) in (0u16..).zip(&outcomes) {
            let hits = outcomes.iter().flat_map(|outcome| &outcome.hits);
            prop_assert!(hits.map(|hit| hit.hit.id.shard() % partitions).all(|at| at == partition));
        }
    }

    #[test]
    fn matchers_recover_what_the_folder_knew(steps in histories(), partitions in 1u16..9) {
        let log = history(&steps);
        let (mut folder, mut cluster) = (Known::default(), Known::default());
        folder.add(&log.state);
        for list in split(&log, partitions) {
            let state = recover(&list);
            prop_assert_eq!(state.meta, log.state.meta);
            cluster.add(&state);
        }
        prop_assert_eq!(cluster, folder);
    }

    /// And go on from there alike, reading again included, where positions count.
    #[test]
    fn matchers_go_on_as_the_folder(steps in histories(), then in histories(), partitions in 1u16..9) {
        let mut log = history(&steps);
        let lists = split(&log, partitions);
        let mut states: Vec<(State, u64)> =
            lists.iter().map(|list| (recover(list), list.len() as u64 + 1)).collect();
        let moved = log.events.len();
        play(&mut log, &then);
        log.push(EventBody::Tick);
        for request in requests(&log, false, stricter) {
            log.push(EventBody::Reprocess(Reprocess { position: log.events.len() as u64, ..request }));
        }
        let mut decided = Vec::new();
        for (cause, event) in &log.events[moved..] {
            let shard = Split::new(1).next(event.clone(), &outcome_of(&log, event.id)).unwrap()[0].shard;
            let everywhere = matches!(event.body, EventBody::Tick);
            for (at, (state, next)) in states.iter_mut().enumerate() {
                if !everywhere && usize::from(shard % partitions) != at {
                    continue;
                }
                let mut event = event.clone();
                if let EventBody::Reprocess(request) = &mut event.body {
                    request.position = *next;
                }
                // A number that no event of this partition has.
                event.from = EventId::new(event.time, 0, 2);
                let cause = Cause { src: *next, ..*cause };
                let outcome = decide(state, cause, &event).unwrap();
                apply(state, cause, &event, &outcome);
                *next += 1;
                decided.push(outcome);
            }
        }
        prop_assert_eq!(said(decided.iter()), said(log.outcomes[moved..].iter()));
    }
}

fn outcome_of(log: &Log, id: EventId) -> Vec<u8> {
    let at = log.events.iter().position(|(_, event)| event.id == id).unwrap();
    serde_json::to_vec(&log.outcomes[at]).unwrap()
}

fn hit_step(name: NameStep) -> HitStep {
    HitStep {
        account: 0,
        name,
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
    }
}

/// A hit that waits for a click of one partition expires with an event of another.
#[test]
fn what_expires_elsewhere_becomes_a_tick_there() {
    let mut log = Log::of(&[]);
    push_hit(&mut log, &hit_step(NameStep::Alias(0)));
    let waits = log.events[1].1.id;
    let partitions = 16;
    let home = waits.shard() % partitions;
    let elsewhere = (0..8).find(|own| click_id(*own, 1, 2).shard() % partitions != home).unwrap();
    // By hand, as in so small a log a tick would have taken it.
    push_click(&mut log, elsewhere, 1, None, 0);
    let mut expired = log.outcomes[1].hits[0].clone();
    (expired.outcome, expired.reason, expired.waiting_until) = (Status::Rejected, Some(Reason::UnknownClick), None);
    log.outcomes[2].hits.push(expired.clone());

    let lists = split(&log, partitions);
    let there = &lists[usize::from(home)];
    let last = outcome(there.last().unwrap());
    assert_eq!(there.len(), 3, "the first tick, the hit, and one more");
    assert_eq!((last.kind, last.log_time), (Kind::Tick, log.outcomes[0].log_time));
    assert_eq!((last.time, &last.hits), (log.outcomes[2].time, &vec![expired]));
    assert_eq!(there.last().unwrap().event.body, EventBody::Tick);
    assert!(recover(there).waiting(waits).is_none());
    let click = &lists[usize::from(log.events[2].1.id.shard() % partitions)];
    let outcome = outcome(click.last().unwrap());
    assert!(outcome.click.is_some() && outcome.hits.is_empty());
}

/// The histories above are of no use if nothing in them expires elsewhere.
#[test]
fn much_expires_elsewhere_in_these_histories() {
    let mut log = Log::of(&[]);
    for own in 0..OWN_CLICKS {
        for tid in [None, Some(0), Some(1)] {
            push_hit(&mut log, &HitStep { tid, ..hit_step(NameStep::Own(own)) });
        }
    }
    for _ in 0..9 {
        log.pass(DAY_MS);
        push_full_tick(&mut log);
    }
    let before: usize = split(&log, 8).iter().map(Vec::len).sum();
    push_click(&mut log, 0, 1, None, 0);
    let after: usize = split(&log, 8).iter().map(Vec::len).sum();
    assert!(after > before + 1, "{after} records after {before}");
}

#[test]
fn one_partition_is_the_folder_itself() {
    let mut log = Log::of(&[]);
    push_click(&mut log, 0, 0, Some(0), 0);
    push_hit(&mut log, &hit_step(NameStep::Alias(0)));
    let list = split(&log, 1).remove(0);
    assert_eq!(list.len(), log.events.len());
    for ((moved, (_, event)), payload) in list.iter().zip(&log.events).zip(log.bytes()) {
        assert_eq!((&moved.event, moved.outcome.as_slice()), (event, payload.as_bytes()));
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let mut log = Log::of(&[]);
    push_hit(&mut log, &hit_step(NameStep::Alias(0)));
    let (event, payload) = (&log.events[1].1, outcome_of(&log, log.events[1].1.id));
    let moved = |event: Event| Split::new(8).next(event, &payload).map(drop);
    assert!(moved(event.clone()).is_ok());

    let other = EventId::new(event.id.time(), event.id.shard() + 1, 7);
    let text = String::from_utf8(payload.clone()).unwrap().replace(&event.id.to_string(), &other.to_string());
    let misplaced = Split::new(8).next(Event { id: other, ..event.clone() }, text.as_bytes());
    assert!(matches!(misplaced, Err(SplitError::TwoPlaces(..))), "{misplaced:?}");
    let tick = log.events[0].1.clone();
    assert!(matches!(moved(tick), Err(SplitError::OtherEvent(..))));
    assert!(matches!(Split::new(8).next(event.clone(), b"{}"), Err(SplitError::Unreadable(..))));
}
