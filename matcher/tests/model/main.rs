//! The protocol of one partition, explored in every order of steps within small bounds, with the replica and the
//! reader's rule that run in production.
//!
//! From every state that can be reached, the run is also brought to its end in two ways: each time one old writer is
//! left alone. Then every event must have one outcome, and every reader must have taken one and the same list, without
//! any alarm; where acknowledged events were lost, an alarm is as good.
//!
//! `CLICKBACK_LONG=1` explores larger bounds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by the one, and shows its size by the other"
)]

mod world;

use stateright::{Checker, HasDiscoveries, Model, Property};

use world::{Event, Logs, Mistake, RULES, Reader, Writer, Writing, truth};

/// How often each thing may happen in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    crashes: u8,
    lates: u8,
    /// Records that were sent and never arrive.
    unsent: u8,
    saves: u8,
    lost_outcomes: u8,
    lost_events: u8,
    /// New ones in the place of lost ones.
    events: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    left: Budget,
    logs: Logs,
    writers: [Writer; 2],
    reader: Reader,
    next_id: Event,
    /// How long the events ever were; some were lost if that is more than what was appended since.
    longest: usize,
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Append,
    Begin(usize),
    Work(usize),
    /// A record arrives at the broker.
    Arrive(usize),
    /// It never does.
    Vanish(usize),
    /// Five seconds passed without what this writer waits for.
    Late(usize),
    Keep(usize),
    Save(usize),
    Crash(usize),
    /// A writer hears of its broken connection.
    Notice(usize),
    LoseOutcome(Before),
    LoseEvent(Before),
    Read,
    GoBack,
}

/// Between losses the logs only grow, so what a reader takes before a loss is told by whether it read everything or
/// nothing; and an event that a writer does not look at yet is as good as one that comes later. This keeps the runs few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    HasRead,
    HasNot,
}

struct Bounds {
    events: &'static [&'static [Event]],
    budget: Budget,
    in_flight: usize,
    mistake: Mistake,
}

impl World {
    fn append(&mut self, event: Event) {
        self.logs.events.push(event);
        self.longest = self.longest.max(self.logs.events.len());
    }

    fn append_new(&mut self) {
        self.append(self.next_id);
        self.next_id += 1;
    }

    /// Brings the run to its end with one writer alone, and tells what is wrong then.
    fn end_with(&self, alone: usize, mistake: Mistake) -> Result<(), String> {
        let mut world = self.clone();
        world.settle(alone, mistake);
        // A partition gets a tick every minute, so its log grows past whatever it was.
        while world.logs.events.len() <= self.longest + 1 {
            world.append_new();
        }
        world.settle(alone, mistake);
        if world.writers[alone].writing == Writing::Released {
            // Only a newer build can go on here.
            world.writers[1].live = None;
            world.settle(1, mistake);
        }
        let mut fresh = Reader::new();
        let mut readers = [world.reader.clone(), world.reader.clone()];
        readers[1].go_back();
        for reader in readers.iter_mut().chain([&mut fresh]) {
            reader.read(&world.logs, mistake);
            if reader.hole && mistake != Mistake::NeverGoesBack {
                reader.go_back();
                reader.read(&world.logs, mistake);
            }
        }
        let alarm = world.writers.iter().any(|w| w.writing == Writing::Alarm)
            || readers.iter().chain([&fresh]).any(|reader| reader.alarm);
        if alarm {
            return if world.lost { Ok(()) } else { Err("an alarm, and nothing was lost".to_owned()) };
        }
        let expected = truth(&world.logs.events).last().copied().unwrap();
        for reader in readers.iter().chain([&fresh]) {
            if reader.taken() != expected {
                return Err(format!("{reader:?} should be at {expected:?}"));
            }
        }
        Ok(())
    }

    /// One writer works until nothing happens any more.
    fn settle(&mut self, alone: usize, mistake: Mistake) {
        // Each round is progress with one event at least; a run that needs more rounds than this is stuck.
        for _ in 0..60 {
            let writer = &mut self.writers[alone];
            if writer.live.is_none() || (writer.notice && mistake != Mistake::IgnoresNotices) {
                writer.begin(&self.logs);
            }
            let mut worked = writer.work(&self.logs, false, mistake);
            while let Some(sent) = writer.sent.pop_front() {
                self.logs.append(&sent);
                worked = true;
            }
            if !worked && !self.writers[alone].work(&self.logs, true, mistake) {
                return;
            }
        }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let world = |events: &&[Event]| World {
            left: self.budget,
            logs: Logs { events: [&[0], *events].concat(), outcomes: vec![] },
            // The first is an older build.
            writers: [1, 2].map(|knows| Writer::new(knows, self.in_flight)),
            reader: Reader::new(),
            next_id: 100,
            longest: 1 + events.len(),
            lost: false,
        };
        self.events.iter().map(world).collect()
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let (all, left) = (&self.budget, &world.left);
        let was_lost = (left.lost_outcomes, left.lost_events) != (all.lost_outcomes, all.lost_events);
        let mut may = |act, yes: bool| {
            if yes {
                acts.push(act);
            }
        };
        may(Act::Append, world.lost && left.events > 0);
        for before in [Before::HasRead, Before::HasNot] {
            may(Act::LoseOutcome(before), left.lost_outcomes > 0 && !world.logs.outcomes.is_empty());
            may(Act::LoseEvent(before), left.lost_events > 0 && world.logs.events.len() > 1);
        }
        may(Act::Read, was_lost);
        may(Act::GoBack, was_lost && world.reader.hole && self.mistake != Mistake::NeverGoesBack);
        for (at, writer) in world.writers.iter().enumerate() {
            let (goes, lives) = (writer.writing == Writing::Goes, writer.live.is_some());
            may(Act::Begin(at), goes && !lives);
            may(Act::Work(at), goes && lives);
            may(Act::Arrive(at), !writer.sent.is_empty());
            may(Act::Vanish(at), !writer.sent.is_empty() && left.unsent > 0);
            may(Act::Late(at), goes && lives && left.lates > 0);
            may(Act::Keep(at), goes && lives && left.saves > 0);
            may(Act::Save(at), goes && lives);
            may(Act::Crash(at), lives && left.crashes > 0);
            may(Act::Notice(at), goes && lives && writer.notice && self.mistake != Mistake::IgnoresNotices);
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        let mistake = self.mistake;
        match act {
            Act::Append => {
                world.left.events -= 1;
                world.append_new();
            }
            Act::Begin(at) => world.writers[at].begin(&world.logs),
            Act::Work(at) => {
                world.writers[at].work(&world.logs, false, mistake);
            }
            Act::Arrive(at) => {
                let sent = world.writers[at].sent.pop_front()?;
                world.logs.append(&sent);
            }
            Act::Vanish(at) => {
                world.left.unsent -= 1;
                world.writers[at].sent.pop_front()?;
            }
            Act::Late(at) => {
                world.left.lates -= 1;
                world.writers[at].work(&world.logs, true, mistake);
            }
            Act::Keep(at) => {
                world.left.saves -= 1;
                world.writers[at].keep();
            }
            Act::Save(at) => world.writers[at].save(),
            Act::Crash(at) => {
                world.left.crashes -= 1;
                world.writers[at].crash();
            }
            Act::Notice(at) => world.writers[at].begin(&world.logs),
            Act::LoseOutcome(read) => {
                world.left.lost_outcomes -= 1;
                world.read_if(read, mistake);
                world.logs.outcomes.pop();
                world.break_connections();
            }
            Act::LoseEvent(read) => {
                world.left.lost_events -= 1;
                world.read_if(read, mistake);
                world.logs.events.pop();
                world.lost = true;
                world.break_connections();
            }
            Act::Read => world.reader.read(&world.logs, mistake),
            Act::GoBack => world.reader.go_back(),
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a reader never takes anything but the one list", |_, world: &World| {
                let reader = &world.reader;
                let expected = truth(&world.logs.events);
                world.lost || expected.get(reader.position.next as usize - 1) == Some(&reader.taken()) && !reader.alarm
            }),
            Property::always("an old writer left alone brings everything to its end", |model, world: &World| {
                world.end_with(0, model.mistake).is_ok()
            }),
            Property::always("so does a newer one", |model, world: &World| world.end_with(1, model.mistake).is_ok()),
        ]
    }
}

impl World {
    fn read_if(&mut self, before: Before, mistake: Mistake) {
        if before == Before::HasRead {
            self.reader.read(&self.logs, mistake);
        }
    }

    /// A broker that lost something was away: whoever was connected hears of it, sooner or later.
    fn break_connections(&mut self) {
        self.writers.iter_mut().for_each(|writer| writer.notice = writer.live.is_some());
    }
}

fn is_long() -> bool {
    std::env::var_os("CLICKBACK_LONG").is_some_and(|value| value == "1")
}

/// Explores everything within the bounds, prints how much that was, and gives the shortest way to each fault.
fn explore(name: &str, bounds: Bounds) -> Vec<(&'static str, Vec<Act>)> {
    let started = std::time::Instant::now();
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let (states, seconds) = (checker.unique_state_count(), started.elapsed().as_secs_f32());
    eprintln!("{name}: {states} states, {} steps, {seconds:.1} s", checker.state_count());
    checker.discoveries().into_iter().map(|(property, path)| (property, path.into_actions())).collect()
}

fn holds(name: &str, events: &'static [&'static [Event]], in_flight: usize, budget: Budget) {
    let found = explore(name, Bounds { events, budget, in_flight, mistake: Mistake::None });
    assert!(found.is_empty(), "{found:#?}");
}

/// The model has to find this mistake, and so it can fail.
fn finds(mistake: Mistake, events: &'static [&'static [Event]], budget: Budget) {
    let found = explore(&format!("{mistake:?}"), Bounds { events, budget, in_flight: 2, mistake });
    assert!(!found.is_empty(), "{mistake:?} was not noticed");
}

const ONE: &[&[Event]] = &[&[1]];
const TWO: &[&[Event]] = &[&[1, 2]];
const REPEATED: &[&[Event]] = &[&[1, 1], &[1, 2, 1]];
const SWITCHED: &[&[Event]] = &[&[RULES, 1], &[1, RULES, 1]];

#[test]
fn crashes_and_late_answers() {
    let budget = Budget { crashes: 1, lates: 1, saves: 1, ..Budget::default() };
    holds("crashes, late answers, checkpoints", TWO, 2, budget);
    let budget = Budget { crashes: 1, unsent: 1, ..Budget::default() };
    holds("crashes, records that never arrive", TWO, 2, budget);
    let budget = Budget { crashes: 1, lates: 1, ..Budget::default() };
    holds("crashes and late answers with repeated events", REPEATED, 1, budget);
    holds("the same with a switch of rules", SWITCHED, 1, budget);
    if is_long() {
        let budget = Budget { crashes: 2, lates: 2, saves: 2, ..Budget::default() };
        holds("more of all", &[&[1, 2, 1], &[1, RULES, 2]], 2, budget);
    }
}

#[test]
fn lost_outcomes() {
    holds("lost outcomes", TWO, 1, Budget { lost_outcomes: 1, ..Budget::default() });
    let budget = Budget { lost_outcomes: 1, crashes: 1, saves: 1, ..Budget::default() };
    holds("lost outcomes, checkpoints, crashes", ONE, 1, budget);
    if is_long() {
        holds("two lost outcomes", TWO, 1, Budget { lost_outcomes: 2, ..Budget::default() });
        holds("lost outcomes, checkpoints, crashes", TWO, 1, budget);
    }
}

#[test]
fn lost_events() {
    holds("lost events", ONE, 2, Budget { lost_events: 1, events: 1, ..Budget::default() });
    let budget = Budget { lost_events: 1, saves: 1, events: 1, ..Budget::default() };
    holds("lost events, checkpoints", ONE, 1, budget);
    let budget = Budget { lost_events: 1, lost_outcomes: 1, events: 1, ..Budget::default() };
    holds("lost events and outcomes", ONE, 1, budget);
    if is_long() {
        let budget = Budget { crashes: 1, saves: 1, ..budget };
        holds("lost events and outcomes, checkpoints, crashes", ONE, 1, budget);
        holds("lost events", TWO, 2, Budget { lost_events: 1, events: 1, ..Budget::default() });
        holds("two lost events", TWO, 1, Budget { lost_events: 2, events: 2, ..Budget::default() });
    }
}

#[test]
fn mistakes_are_found() {
    let loss = Budget { lost_outcomes: 1, ..Budget::default() };
    finds(Mistake::NeverLate, TWO, Budget { unsent: 1, ..Budget::default() });
    finds(Mistake::IgnoresNotices, TWO, loss);
    finds(Mistake::IgnoresPrev, ONE, Budget { lost_events: 1, events: 1, ..loss });
    finds(Mistake::TakesAfterHole, TWO, loss);
    finds(Mistake::NeverGoesBack, TWO, loss);
}
