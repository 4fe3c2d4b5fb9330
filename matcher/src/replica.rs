//! One partition of a cluster's matcher, without Kafka: what to do next, from the next event and the next outcome.
//!
//! Anybody may write to `outcomes[p]`, and nobody is fenced. So a replica reads `events[p]` and `outcomes[p]` side by
//! side, as two lists that belong together by `src`, and `step` says what to do with their heads:
//!
//! ```text
//!   events   … 7 8 9 ┐
//!                    ├─► step ─► an outcome is there: apply it       none is there: decide, send, and meet it later
//!   outcomes … 7 8   ┘
//! ```
//!
//! Owns: the order of recovery, the reader's rule, when a checkpoint may be used and when one may be saved, and the
//! alarms. Refuses: I/O, clocks and the state itself; its caller applies and decides when told to.
//! Invariant: the state holds what every reader of `outcomes[p]` takes, and beyond it only what this replica decided on
//! top. Whatever is in doubt is dropped and made again from a checkpoint; that is the one reaction to every fault.

use std::{collections::VecDeque, ops::RangeInclusive};

use schemas::{
    EventId,
    chain::{Chain, Link, Position, Verdict, judge},
};
use serde::Deserialize;

/// The next event that is not used yet, as far as a replica looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub src: u64,
    pub id: EventId,
    /// The version that a `rules` event switches on.
    pub rules: Option<u32>,
}

/// A record of `outcomes[p]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub offset: u64,
    /// `None`: it is no outcome, but for example the identity of the topic.
    pub link: Option<Link>,
    pub payload: Vec<u8>,
}

/// What a state is saved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    pub state: Position,
    /// Reading begins here, some way before the state, so that both logs are compared with what it was made of.
    pub anchor: Anchor,
}

/// The record at this offset of `outcomes[p]` brought a reader to this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Anchor {
    pub offset: u64,
    pub position: Position,
}

impl Checkpoint {
    /// The empty state. Offset 0 of both topics holds the identity record, so the first event is number 1.
    pub const EMPTY: Checkpoint = {
        let position = Position { next: 1, chain: Chain::FIRST };
        Checkpoint { state: position, anchor: Anchor { offset: 0, position } }
    };
}

/// Where both logs ended when the replica began. Those of `outcomes` must be asked for first: then every outcome that
/// was there has its event before the end of `events`, unless events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub events: u64,
    pub outcomes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Events before a checkpoint whose ids are compared with the outcomes.
    pub compared: u64,
    /// Outcomes that may be sent and not met yet.
    pub in_flight: usize,
    /// The rule versions that this build knows.
    pub rules: RangeInclusive<u32>,
}

/// What to do next. A head is given again until a step says that it is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Done with the record: it is nothing new.
    Pass,
    /// Done with record and event: the state has them already, and both logs agree.
    Agree,
    /// Apply the record to the event, then done with both.
    Apply,
    /// Decide the event and apply that; done with the event. `decided` says what to send.
    Decide,
    /// Come again when there is more, or when the wait was too long.
    Wait,
    /// Drop the state, and begin again from the newest checkpoint.
    Again(Doubt),
    /// Delete the checkpoint that this began from, and begin again from an older one, or from nothing.
    Drop(Doubt),
    /// Stop this partition until somebody has looked at it.
    Halt(Alarm),
    /// Leave this partition to a newer build.
    Release(u32),
}

#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    #[error("what was sent or awaited did not come in time")]
    Late,
    #[error("the outcomes end before the state does")]
    Ahead,
    #[error("the outcomes have another chain at {0} than the state")]
    OtherChain(u64),
}

#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    #[error("outcome {0} continues another chain than the one before it: two writers decided differently")]
    Diverged(u64),
    #[error("event {0} is not the one that its outcome was made of: brokers lost events that they had acknowledged")]
    LostEvents(u64),
    #[error("outcome {0} cannot be read")]
    Unreadable(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    limits: Limits,
    ends: Ends,
    /// Next offset of `outcomes[p]`.
    offset: u64,
    /// Outcomes up to here were met there: the one list that every reader takes.
    met: Position,
    /// What the state is true of. Ahead of `met` by what was sent, or by what a checkpoint holds.
    state: Position,
    /// Chains of the last events that the state holds and that are not met, as far as they are known.
    ahead: VecDeque<Chain>,
    /// The outcomes were found to lead to the checkpoint that this began from.
    proven: bool,
    /// The anchor's record was found in its place.
    anchored: bool,
    /// Where checkpoints may begin; the first is far enough back.
    anchors: VecDeque<Anchor>,
}

impl Replica {
    /// With the state of `from` loaded, events have to be read from `reads_events_from`, outcomes from
    /// `reads_outcomes_from`.
    pub fn begin(from: Checkpoint, ends: Ends, limits: Limits) -> Self {
        let proven = from.state == from.anchor.position;
        let anchored = from.anchor == Checkpoint::EMPTY.anchor;
        Self {
            limits,
            ends,
            offset: from.anchor.offset + u64::from(anchored),
            met: from.anchor.position,
            state: from.state,
            ahead: if proven { VecDeque::new() } else { VecDeque::from([from.state.chain]) },
            proven,
            anchored,
            anchors: VecDeque::from([from.anchor]),
        }
    }

    pub fn reads_outcomes_from(&self) -> u64 {
        self.offset
    }

    /// No further than `events[p]` reaches: if it is too short, the outcomes tell.
    pub fn reads_events_from(&self) -> u64 {
        self.met.next.min(self.ends.events)
    }

    /// What to do with the next event and the next record of outcomes, as far as they have come. `waited`: nothing came
    /// and nothing could be done for 5 s.
    pub fn step(&mut self, event: Option<&Head>, record: Option<&Record>, waited: bool) -> Step {
        let reading = self.offset < self.ends.outcomes;
        let step = match record {
            Some(record) => self.meet(event, record),
            // What others decided counts, so it is read to the end before anything is decided here.
            None if reading => Step::Wait,
            None if !self.proven => Step::Drop(Doubt::Ahead),
            None => self.go_on(event),
        };
        let idle = event.is_none() && record.is_none() && self.ahead.is_empty() && !reading;
        match step {
            Step::Wait if waited && !idle => Step::Again(Doubt::Late),
            step => step,
        }
    }

    /// After `Decide`: how the outcome has to be sent.
    pub fn decided(&mut self, payload: &[u8]) -> Link {
        let prev = self.state.chain;
        let link = Link { src: self.state.next, prev, chain: prev.next(payload) };
        self.state = Position { next: link.src + 1, chain: link.chain };
        self.ahead.push_back(link.chain);
        link
    }

    /// The state as it is now. It may be kept in memory at once, and be saved when `may_save` says so.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { state: self.state, anchor: self.anchors[0] }
    }

    /// A saved state must not be ahead of what is in `outcomes[p]`: what was sent may never arrive there.
    pub fn may_save(&self, checkpoint: &Checkpoint) -> bool {
        self.proven && checkpoint.state.next <= self.met.next
    }

    /// Whether the outcomes were found to lead to the checkpoint that this began from. Before that, its state may be
    /// dropped at any time, and there is nothing to save.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The next event that was not met in `outcomes[p]`.
    pub fn met(&self) -> u64 {
        self.met.next
    }

    /// Whether all outcomes were read that were there at the beginning.
    pub fn is_caught_up(&self) -> bool {
        self.proven && self.offset >= self.ends.outcomes
    }

    /// Outcomes that were sent and not met yet.
    pub fn in_flight(&self) -> usize {
        if self.proven { self.ahead.len() } else { 0 }
    }

    fn meet(&mut self, event: Option<&Head>, record: &Record) -> Step {
        if !self.anchored {
            let before = self.met.next - 1;
            if record.link.as_ref().is_none_or(|link| (link.src, link.chain) != (before, self.met.chain)) {
                return Step::Drop(Doubt::OtherChain(before));
            }
            if before >= self.ends.events {
                return Step::Halt(Alarm::LostEvents(before));
            }
            self.anchored = true;
        }
        let Some(link) = &record.link else { return self.pass(record) };
        match judge(&self.met, link, &record.payload) {
            Verdict::Take => self.take(event, link, record),
            // What is missing before a hole is decided and sent again, and then what comes after it, too.
            Verdict::Skip | Verdict::Hole => self.pass(record),
            Verdict::Diverged if self.proven => Step::Halt(Alarm::Diverged(link.src)),
            Verdict::Diverged => Step::Drop(Doubt::OtherChain(link.src)),
        }
    }

    fn pass(&mut self, record: &Record) -> Step {
        self.offset = record.offset + 1;
        Step::Pass
    }

    fn take(&mut self, event: Option<&Head>, link: &Link, record: &Record) -> Step {
        let src = link.src;
        if self.chain_at(src).is_some_and(|chain| chain != link.chain) {
            let doubt = Doubt::OtherChain(src);
            return if self.proven { Step::Again(doubt) } else { Step::Drop(doubt) };
        }
        if self.proven && src < self.state.next {
            self.ahead.pop_front();
            self.advance(link, record.offset);
            return Step::Pass;
        }
        let Some(event) = event else {
            let lost = record.offset < self.ends.outcomes && src >= self.ends.events;
            return if lost { Step::Halt(Alarm::LostEvents(src)) } else { Step::Wait };
        };
        match event_id(&record.payload) {
            None => return Step::Halt(Alarm::Unreadable(src)),
            Some(id) if (event.src, event.id) != (src, id) => return Step::Halt(Alarm::LostEvents(src)),
            Some(_) => {}
        }
        if src < self.state.next {
            self.advance(link, record.offset);
            self.proven = self.met == self.state;
            if self.proven {
                self.ahead.clear();
            }
            return Step::Agree;
        }
        if let Some(unknown) = self.unknown_rules(event) {
            return Step::Release(unknown);
        }
        self.advance(link, record.offset);
        self.state = self.met;
        Step::Apply
    }

    fn go_on(&self, event: Option<&Head>) -> Step {
        match event {
            None => Step::Wait,
            Some(_) if self.ahead.len() >= self.limits.in_flight => Step::Wait,
            Some(event) if event.src != self.state.next => Step::Halt(Alarm::LostEvents(self.state.next)),
            Some(event) => self.unknown_rules(event).map_or(Step::Decide, Step::Release),
        }
    }

    fn unknown_rules(&self, event: &Head) -> Option<u32> {
        event.rules.filter(|version| !self.limits.rules.contains(version))
    }

    /// What the state has there, if that is known.
    fn chain_at(&self, src: u64) -> Option<Chain> {
        let first = self.state.next - self.ahead.len() as u64;
        self.ahead.get(usize::try_from(src.checked_sub(first)?).ok()?).copied()
    }

    fn advance(&mut self, link: &Link, offset: u64) {
        self.offset = offset + 1;
        self.met = Position { next: link.src + 1, chain: link.chain };
        let (met, compared) = (self.met.next, self.limits.compared.max(1));
        if self.anchors.back().is_none_or(|last| last.position.next + compared <= met) {
            self.anchors.push_back(Anchor { offset, position: self.met });
        }
        while self.anchors.get(1).is_some_and(|second| second.position.next + compared <= met) {
            self.anchors.pop_front();
        }
    }
}

fn event_id(payload: &[u8]) -> Option<EventId> {
    #[derive(Deserialize)]
    struct Named {
        id: EventId,
    }
    serde_json::from_slice::<Named>(payload).ok().map(|named| named.id)
}
