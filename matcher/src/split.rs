//! One log as the log of many partitions: how what a folder decided becomes what the partitions of a cluster decided.
//!
//! Owns: which partition an event belongs to, and which part of its outcome. Refuses to decide: every decision is the one
//! that was made, in the order in which it was made.
//! Invariant: a matcher that applies a partition's list has for its names, clicks and waiting hits the state that the folder
//! had; every decision on a hit stands once, in the list of the partition where the hit stands.
//!
//! A folder is one partition, so an outcome may also hold what became of hits of other names: those that expired. Each
//! such part becomes a tick of its own where its hits live. It leaves log time where it is.

use std::collections::{BTreeMap, HashMap};

use schemas::{
    Event, EventBody, EventId, Outcome, Reason, Time,
    chain::{Chain, Link, Position},
    event::{Hit, Name},
    id::alias_shard,
    outcome::{HitOutcome, Kind},
};

/// A record of `events` and the one of `outcomes` that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    pub partition: u16,
    pub shard: u16,
    pub event: Event,
    pub kind: Kind,
    /// The outcome as it is chained.
    pub outcome: Vec<u8>,
    pub link: Link,
}

#[derive(thiserror::Error, Debug)]
pub enum SplitError {
    #[error("the outcome of event {0} cannot be read: {1}")]
    Unreadable(EventId, serde_json::Error),
    #[error("event {0} has the outcome of event {1}: the log was changed")]
    OtherEvent(EventId, EventId),
    #[error("event {0} concerns names of two partitions, {1} and {2}")]
    TwoPlaces(EventId, u16, u16),
    #[error("the time of the log is not known where a hit of event {0} expires")]
    NoTime(EventId),
}

pub struct Split {
    partitions: u16,
    log_time: Option<Time>,
    ends: Vec<Position>,
    /// Next number per run and partition. In a cluster they are counted per partition, and a matcher remembers them as
    /// ranges: with the folder's own numbers each range would have one number.
    numbers: HashMap<EventId, Vec<u64>>,
}

impl Split {
    pub fn new(partitions: u16) -> Split {
        let partitions = partitions.max(1);
        // Offset 0 of each partition is the identity.
        let first = Position { next: 1, chain: Chain::FIRST };
        let ends = vec![first; usize::from(partitions)];
        Split { partitions, log_time: None, ends, numbers: HashMap::new() }
    }

    /// What the partitions hold so far.
    pub fn ends(&self) -> &[Position] {
        &self.ends
    }

    /// The next event of the folder and its outcome. Of one partition there is one record at most.
    pub fn next(&mut self, event: Event, payload: &[u8]) -> Result<Vec<Moved>, SplitError> {
        let outcome: Outcome =
            serde_json::from_slice(payload).map_err(|error| SplitError::Unreadable(event.id, error))?;
        if outcome.id != event.id {
            return Err(SplitError::OtherEvent(event.id, outcome.id));
        }
        if outcome.kind == Kind::Tick {
            self.log_time = outcome.log_time.or(self.log_time);
        }
        match &event.body {
            EventBody::Tick | EventBody::Rules(_) => self.everywhere(&event, &outcome),
            EventBody::Click(_) | EventBody::Hit(_) | EventBody::Adjust(_) | EventBody::Reprocess(_) => {
                self.at_home(event, outcome, payload)
            }
        }
    }

    /// Log time and rules are those of every partition. Each has the part of what expired that is its own.
    fn everywhere(&mut self, event: &Event, outcome: &Outcome) -> Result<Vec<Moved>, SplitError> {
        let mut parts = self.by_partition(&outcome.hits);
        let mut moved = Vec::with_capacity(usize::from(self.partitions));
        for partition in 0..self.partitions {
            let id = if partition == 0 { event.id } else { renamed(event.id, partition) };
            let event = Event { id, ..event.clone() };
            let hits = parts.remove(&partition).unwrap_or_default();
            let outcome = Outcome { id, hits, ..outcome.clone() };
            moved.push(self.place(partition, partition, event, &outcome, None)?);
        }
        Ok(moved)
    }

    fn at_home(&mut self, event: Event, mut outcome: Outcome, payload: &[u8]) -> Result<Vec<Moved>, SplitError> {
        let shard = shard_of(&event);
        let home = self.partition(shard);
        // The parts of an outcome go by the ids of their hits, so an id must lead to where its name leads.
        let other = match &event.body {
            EventBody::Hit(_) => event.id.shard(),
            EventBody::Click(click) => match &click.alias {
                Some(alias) => alias_shard(&event.tenant, &click.account, alias),
                None => shard,
            },
            EventBody::Tick | EventBody::Adjust(_) | EventBody::Reprocess(_) | EventBody::Rules(_) => shard,
        };
        if self.partition(other) != home {
            return Err(SplitError::TwoPlaces(event.id, home, self.partition(other)));
        }
        let mut parts = self.by_partition(&outcome.hits);
        let own = parts.remove(&home).unwrap_or_default();
        let mut extra = Vec::with_capacity(parts.len());
        if let Some(at) = parts.keys().next()
            && matches!(event.body, EventBody::Reprocess(_))
        {
            return Err(SplitError::TwoPlaces(event.id, home, *at));
        }
        for (partition, hits) in parts {
            extra.push(self.expiry(partition, &event, outcome.time, hits)?);
        }
        let unchanged = own.len() == outcome.hits.len();
        outcome.hits = own;
        let event = with_position(event, &outcome, self.ends[usize::from(home)].next);
        let moved = self.place(home, shard, event, &outcome, unchanged.then_some(payload))?;
        extra.insert(0, moved);
        Ok(extra)
    }

    /// A tick that only lets these hits expire.
    fn expiry(&mut self, partition: u16, by: &Event, time: Time, hits: Vec<HitOutcome>) -> Result<Moved, SplitError> {
        let id = renamed(by.id, partition);
        let log_time = self.log_time.ok_or(SplitError::NoTime(by.id))?;
        let event = Event { v: by.v, id, tenant: String::new(), time, from: by.from, n: by.n, body: EventBody::Tick };
        let outcome = Outcome { log_time: Some(log_time), hits, ..Outcome::blank(id, "", time, Kind::Tick) };
        self.place(partition, partition, event, &outcome, None)
    }

    /// `payload`: the outcome as it was written, where it stays as it was.
    fn place(
        &mut self,
        partition: u16,
        shard: u16,
        mut event: Event,
        outcome: &Outcome,
        payload: Option<&[u8]>,
    ) -> Result<Moved, SplitError> {
        // A repeat keeps its number: it is that of another event.
        if outcome.kind != Kind::Repeat {
            event.n = self.number(event.from, partition);
        }
        let outcome_bytes = match payload {
            Some(payload) => payload.to_vec(),
            None => serde_json::to_vec(outcome).map_err(|error| SplitError::Unreadable(event.id, error))?,
        };
        let end = &mut self.ends[usize::from(partition)];
        let link = Link { src: end.next, prev: end.chain, chain: end.chain.next(&outcome_bytes) };
        *end = Position { next: link.src + 1, chain: link.chain };
        Ok(Moved { partition, shard, event, kind: outcome.kind, outcome: outcome_bytes, link })
    }

    fn number(&mut self, from: EventId, partition: u16) -> u64 {
        let partitions = usize::from(self.partitions);
        let numbers = self.numbers.entry(from).or_insert_with(|| vec![0; partitions]);
        let next = &mut numbers[usize::from(partition)];
        *next += 1;
        *next - 1
    }

    fn partition(&self, shard: u16) -> u16 {
        shard % self.partitions
    }

    /// The shard of a hit's id is the one of its name.
    fn by_partition(&self, hits: &[HitOutcome]) -> BTreeMap<u16, Vec<HitOutcome>> {
        let mut parts = BTreeMap::<u16, Vec<HitOutcome>>::new();
        for entry in hits {
            parts.entry(self.partition(entry.hit.id.shard())).or_default().push(entry.clone());
        }
        parts
    }
}

/// The same id for another partition. No event of that partition has it: ids of its events have its own shards, and their
/// random bits.
fn renamed(id: EventId, partition: u16) -> EventId {
    EventId::new(id.time(), partition, id.bits() as u64)
}

fn shard_of(event: &Event) -> u16 {
    let of = |account: &str, name: &Name| match name {
        Name::Click(id) => id.shard(),
        Name::Alias(text) | Name::Label(text) => alias_shard(&event.tenant, account, text),
    };
    match &event.body {
        EventBody::Click(click) => click.id.shard(),
        EventBody::Hit(Hit { account, reading, .. }) => {
            reading.name.as_ref().map_or(event.id.shard(), |name| of(account, name))
        }
        EventBody::Adjust(adjust) => of(&adjust.account, &adjust.on),
        EventBody::Reprocess(request) => of(&request.account, &request.name),
        EventBody::Tick | EventBody::Rules(_) => event.id.shard(),
    }
}

/// A reprocess event says up to which position of the log it is complete. Positions of the folder mean nothing in a
/// partition, and what was found is known: nothing that it concerns was touched since then, or something was.
fn with_position(mut event: Event, outcome: &Outcome, at: u64) -> Event {
    if let EventBody::Reprocess(request) = &mut event.body {
        request.position = if outcome.reason == Some(Reason::Stale) { 0 } else { at };
    }
    event
}
