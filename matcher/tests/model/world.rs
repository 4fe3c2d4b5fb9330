//! The world of the model: two logs that lose their ends, writers that nobody fences, one reader.
//!
//! What is modelled is what surrounds `Replica`: reading, sending, saving, crashing. The decisions are of a small
//! machine whose every payload shows the whole state that it was made on, so that a wrong state never goes unseen.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use matcher::replica::{Alarm, Checkpoint, Doubt, Ends, Head, Limits, Record, Replica, Step};
use schemas::{
    EventId, Time,
    chain::{Chain, Link, Position, Verdict, judge},
};

/// An event is the number of its id; 0 is the identity record at the start of a topic.
pub type Event = u8;
/// Switches to the second version of the rules.
pub const RULES: Event = 200;

pub fn id_of(event: Event) -> EventId {
    EventId::new(Time::from_ms(1), 0, u64::from(event))
}

/// The state that decisions are made on: which events were seen, and the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    seen: u128,
    rules: u32,
}

impl State {
    pub const EMPTY: State = State { seen: 0, rules: 1 };

    /// A build that does not know the rules would decide by those that it knows.
    fn decide(self, knows: u32, event: Event) -> Vec<u8> {
        let bit = 1u128 << (event % 128);
        let kind = if self.seen & bit == 0 { "new" } else { "repeat" };
        let (seen, rules) = (self.seen, self.rules.min(knows));
        format!(r#"{{"id":"{}","kind":"{kind}","on":"{seen:x}","rules":{rules}}}"#, id_of(event)).into_bytes()
    }

    /// Believes the payload and not itself: what was decided stays decided.
    pub fn apply(&mut self, event: Event, payload: &[u8]) {
        let is_new = payload.windows(5).any(|part| part == br#""new""#);
        if is_new {
            self.seen |= 1 << (event % 128);
            self.rules = if event == RULES { 2 } else { self.rules };
        }
    }
}

/// The one list: what a reader has in the end, when these are the events.
pub fn truth(events: &[Event]) -> Arc<Vec<Position>> {
    thread_local!(static KNOWN: RefCell<HashMap<Vec<Event>, Arc<Vec<Position>>>> = RefCell::default());
    KNOWN.with_borrow_mut(|known| match known.get(events) {
        Some(list) => Arc::clone(list),
        None => Arc::clone(known.entry(events.to_vec()).or_insert_with(|| Arc::new(make_truth(events)))),
    })
}

fn make_truth(events: &[Event]) -> Vec<Position> {
    let (mut state, mut position) = (State::EMPTY, Checkpoint::EMPTY.state);
    let mut list = vec![position];
    for event in &events[1..] {
        let payload = state.decide(2, *event);
        state.apply(*event, &payload);
        position = Position { next: position.next + 1, chain: position.chain.next(&payload) };
        list.push(position);
    }
    list
}

/// Mistakes that an implementation could make around the replica; the model has to find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A replica goes on as if nothing had happened when its own outcomes do not come back.
    NeverLate,
    /// A replica that is told of a broken connection does not look again.
    IgnoresNotices,
    /// A reader takes the next record whatever `prev` says.
    IgnoresPrev,
    /// A reader takes a later record when one is missing.
    TakesAfterHole,
    /// A reader whose log got another end goes on from its old offset.
    NeverGoesBack,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    link: Link,
    payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    replica: Replica,
    began_from: Checkpoint,
    state: State,
    next_event: u64,
    next_outcome: u64,
    /// Kept in memory until it may be saved.
    kept: Option<(Checkpoint, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writing {
    Goes,
    Alarm,
    /// Met a version of the rules that it does not know.
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    knows: u32,
    in_flight: usize,
    pub live: Option<Live>,
    /// The newest last.
    disk: Vec<(Checkpoint, State)>,
    /// On its way to the broker, also when the sender is no longer sure of it.
    pub sent: VecDeque<Arc<Sent>>,
    /// It lost its connection and has not heard of that yet.
    pub notice: bool,
    pub writing: Writing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Logs {
    pub events: Vec<Event>,
    /// From offset 1 on.
    pub outcomes: Vec<Arc<Record>>,
}

impl Logs {
    fn ends(&self) -> Ends {
        Ends { events: self.events.len() as u64, outcomes: self.outcomes.len() as u64 + 1 }
    }
    fn outcome(&self, offset: u64) -> Option<&Arc<Record>> {
        self.outcomes.get(offset as usize - 1)
    }
    pub fn append(&mut self, sent: &Sent) {
        let offset = self.outcomes.len() as u64 + 1;
        self.outcomes.push(Arc::new(Record { offset, link: Some(sent.link.clone()), payload: sent.payload.clone() }));
    }
}

impl Writer {
    pub fn new(knows: u32, in_flight: usize) -> Self {
        let (disk, sent) = (Vec::new(), VecDeque::new());
        Self { knows, in_flight, live: None, disk, sent, notice: false, writing: Writing::Goes }
    }

    pub fn begin(&mut self, logs: &Logs) {
        let (from, state) = self.disk.last().copied().unwrap_or((Checkpoint::EMPTY, State::EMPTY));
        if state.rules > self.knows {
            self.writing = Writing::Released;
            return;
        }
        let limits = Limits { compared: 2, in_flight: self.in_flight, rules: 1..=self.knows };
        let replica = Replica::begin(from, logs.ends(), limits);
        self.notice = false;
        self.live = Some(Live {
            next_event: replica.reads_events_from(),
            next_outcome: replica.reads_outcomes_from(),
            began_from: from,
            replica,
            state,
            kept: None,
        });
    }

    pub fn crash(&mut self) {
        self.live = None;
        self.sent.clear();
        self.notice = false;
    }

    pub fn keep(&mut self) {
        if let Some(live) = &mut self.live {
            live.kept = Some((live.replica.checkpoint(), live.state));
        }
    }

    pub fn save(&mut self) {
        let Some(live) = &mut self.live else { return };
        if let Some(saved) = live.kept.filter(|(checkpoint, _)| live.replica.may_save(checkpoint)) {
            live.kept = None;
            self.disk.retain(|known| *known != saved);
            self.disk.push(saved);
            if self.disk.len() > 2 {
                self.disk.remove(0);
            }
        }
    }

    /// Takes in what is there, and decides one event at most. False if there was nothing to do.
    pub fn work(&mut self, logs: &Logs, waited: bool, mistake: Mistake) -> bool {
        let mut worked = false;
        while let Some(live) = self.live.as_mut().filter(|_| self.writing == Writing::Goes) {
            let ends = logs.ends();
            if live.next_event > ends.events || live.next_outcome > ends.outcomes {
                // The broker says that there is no such offset.
                self.begin(logs);
                return true;
            }
            let event = logs.events.get(live.next_event as usize).copied();
            let head = event.map(|event| Head {
                src: live.next_event,
                id: id_of(event),
                rules: (event == RULES).then_some(2),
            });
            let record = logs.outcome(live.next_outcome).cloned();
            let step = live.replica.step(head.as_ref(), record.as_deref(), waited && mistake != Mistake::NeverLate);
            match (step, event, record) {
                (Step::Pass, _, _) => live.next_outcome += 1,
                (Step::Agree, _, _) => {
                    live.next_outcome += 1;
                    live.next_event += 1;
                }
                (Step::Apply, Some(event), Some(record)) => {
                    live.state.apply(event, &record.payload);
                    live.next_outcome += 1;
                    live.next_event += 1;
                }
                (Step::Decide, Some(event), _) => {
                    let payload = live.state.decide(self.knows, event);
                    live.state.apply(event, &payload);
                    let link = live.replica.decided(&payload);
                    live.next_event += 1;
                    self.sent.push_back(Arc::new(Sent { link, payload }));
                    return true;
                }
                (Step::Wait, _, _) => return worked,
                (Step::Again(_), _, _) => {
                    self.begin(logs);
                    return true;
                }
                (Step::Drop(Doubt::Ahead | Doubt::OtherChain(_) | Doubt::Late), _, _) => {
                    let dropped = live.began_from;
                    self.disk.retain(|(checkpoint, _)| *checkpoint != dropped);
                    self.begin(logs);
                    return true;
                }
                (Step::Halt(Alarm::Diverged(_) | Alarm::LostEvents(_) | Alarm::Unreadable(_)), _, _) => {
                    self.writing = Writing::Alarm;
                }
                (Step::Release(_), _, _) => self.writing = Writing::Released,
                (Step::Apply | Step::Decide, _, _) => unreachable!("there is nothing to apply or to decide"),
            }
            worked = true;
        }
        worked
    }
}

/// A reader of outcomes, for example a projector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    pub position: Position,
    /// Everything that it took, told by the chain over its payloads, whatever the records say of themselves.
    list: Chain,
    offset: u64,
    pub hole: bool,
    pub alarm: bool,
}

impl Reader {
    pub fn new() -> Self {
        Self { position: Checkpoint::EMPTY.state, list: Chain::FIRST, offset: 1, hole: false, alarm: false }
    }

    /// What it took, as one value.
    pub fn taken(&self) -> Position {
        Position { next: self.position.next, chain: self.list }
    }

    /// A hole stayed for too long: what is missing is looked for behind.
    pub fn go_back(&mut self) {
        (self.offset, self.hole) = (1, false);
    }

    pub fn read(&mut self, logs: &Logs, mistake: Mistake) {
        if self.offset > logs.ends().outcomes && mistake != Mistake::NeverGoesBack {
            self.go_back();
        }
        while let Some(record) = logs.outcome(self.offset).filter(|_| !self.alarm) {
            let Some(link) = &record.link else { continue };
            let mut verdict = judge(&self.position, link, &record.payload);
            match (mistake, verdict) {
                (Mistake::IgnoresPrev, Verdict::Diverged) | (Mistake::TakesAfterHole, Verdict::Hole) => {
                    verdict = Verdict::Take;
                }
                _ => {}
            }
            match verdict {
                Verdict::Take => {
                    self.position = Position { next: link.src + 1, chain: link.chain };
                    self.list = self.list.next(&record.payload);
                    self.hole = false;
                }
                Verdict::Hole => self.hole = true,
                Verdict::Skip => {}
                Verdict::Diverged => self.alarm = true,
            }
            self.offset += 1;
        }
    }
}
