//! The reader's rule: with several writers, zombies, crashes and lost records, every reader takes the same list of
//! outcomes, or stops with an alarm where acknowledged events were lost.
//!
//! The model has an events log and an outcomes log that anybody may append to. Writers decide with the real rules;
//! nothing fences them. Readers judge with the real rule.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use matcher::{Cause, State, apply, decide};
use proptest::prelude::*;
use schemas::{
    Event, Outcome,
    chain::{Chain, Link, Position, Verdict, judge},
};
use support::{Log, histories};

#[derive(Clone)]
struct Record {
    link: Link,
    payload: Vec<u8>,
}

#[derive(Default)]
struct World {
    events: Vec<(Cause, Event)>,
    outcomes: Vec<Record>,
}

/// A reader of outcomes: how far it took them, and what it took.
#[derive(Clone)]
struct Reader {
    position: Position,
    taken: Vec<Vec<u8>>,
    alarm: bool,
}

impl Reader {
    fn new() -> Self {
        Reader { position: Position::START, taken: Vec::new(), alarm: false }
    }

    /// Reads from `from`; records after a hole are passed over, as they are written again behind it.
    fn read(&mut self, log: &[Record], from: usize, mut take: impl FnMut(&Record)) {
        for record in log.iter().skip(from) {
            match judge(&self.position, &record.link, &record.payload) {
                _ if self.alarm => return,
                Verdict::Take => {
                    self.position = Position { next: record.link.src + 1, chain: record.link.chain };
                    self.taken.push(record.payload.clone());
                    take(record);
                }
                Verdict::Skip | Verdict::Hole => {}
                Verdict::Diverged => self.alarm = true,
            }
        }
    }
}

/// A matcher: its own state, and whether it still looks at what others write.
struct Writer {
    state: State,
    reader: Reader,
}

impl Writer {
    fn new() -> Self {
        Writer { state: State::default(), reader: Reader::new() }
    }

    /// Takes over what was decided already. State changes only through `apply`.
    fn follow(&mut self, world: &World) {
        let state = &mut self.state;
        let mut lost = false;
        self.reader.read(&world.outcomes, 0, |record| {
            let outcome: Outcome = serde_json::from_slice(&record.payload).unwrap();
            match world.events.get(record.link.src as usize) {
                Some((cause, event)) if event.id == outcome.id => apply(state, *cause, event, &outcome),
                // Decided once, and now gone or another one: the log lost what it had acknowledged.
                _ => lost = true,
            }
        });
        self.reader.alarm |= lost;
    }

    fn work(&mut self, world: &mut World, steps: usize) {
        (0..steps).all(|_| self.write(world));
    }

    /// Decides the next event and appends its outcome. `false` when there is none.
    fn write(&mut self, world: &mut World) -> bool {
        let src = self.reader.position.next;
        let Some((cause, event)) = world.events.get(src as usize).filter(|_| !self.reader.alarm) else { return false };
        let outcome = decide(&self.state, *cause, event).unwrap();
        apply(&mut self.state, *cause, event, &outcome);
        let payload = serde_json::to_vec(&outcome).unwrap();
        let prev = self.reader.position.chain;
        let link = Link { src, prev, chain: prev.next(&payload) };
        self.reader.position = Position { next: src + 1, chain: link.chain };
        self.reader.taken.push(payload.clone());
        world.outcomes.push(Record { link, payload });
        true
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Writer `0` reads what is there, then decides a few.
    Work(usize, usize),
    /// A writer that does not look decides a few: a zombie.
    Zombie(usize, usize),
    /// A writer loses its state.
    Crash(usize),
    /// The broker loses the last outcomes.
    LoseOutcomes(usize),
    /// A reader reads; one restarts from nothing first.
    Read(usize, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(
        prop_oneof![
            4 => (0usize..3, 1usize..6).prop_map(|(w, n)| Act::Work(w, n)),
            3 => (0usize..3, 1usize..6).prop_map(|(w, n)| Act::Zombie(w, n)),
            1 => (0usize..3).prop_map(Act::Crash),
            1 => (1usize..6).prop_map(Act::LoseOutcomes),
            2 => (0usize..2, any::<bool>()).prop_map(|(r, fresh)| Act::Read(r, fresh)),
        ],
        1..40,
    )
}

fn play(world: &mut World, acts: &[Act], writers: &mut [Writer], readers: &mut [Reader]) {
    for act in acts {
        match act {
            Act::Work(w, n) => {
                writers[*w].follow(world);
                writers[*w].work(world, *n);
            }
            Act::Zombie(w, n) => writers[*w].work(world, *n),
            Act::Crash(w) => writers[*w] = Writer::new(),
            Act::LoseOutcomes(n) => world.outcomes.truncate(world.outcomes.len().saturating_sub(*n)),
            Act::Read(r, fresh) => {
                if *fresh {
                    readers[*r] = Reader::new();
                }
                readers[*r].read(&world.outcomes, 0, |_| {});
            }
        }
    }
}

proptest! {
    #[test]
    fn every_reader_takes_the_same_single_list(steps in histories(), acts in acts()) {
        let truth = Log::of(&steps);
        let mut world = World { events: truth.events.clone(), outcomes: vec![] };
        let mut writers: Vec<_> = (0..3).map(|_| Writer::new()).collect();
        let mut readers = vec![Reader::new(), Reader::new()];
        play(&mut world, &acts, &mut writers, &mut readers);

        // An old writer is left alone first, then one that starts from nothing heals what is missing.
        while writers[0].write(&mut world) {}
        let mut healer = Writer::new();
        healer.follow(&world);
        while healer.write(&mut world) {}

        readers.push(Reader::new());
        let expected: Vec<Vec<u8>> = truth.bytes().into_iter().map(String::into_bytes).collect();
        for reader in &mut readers {
            reader.read(&world.outcomes, 0, |_| {});
            prop_assert!(!reader.alarm);
            prop_assert_eq!(&reader.taken, &expected);
        }
    }

    #[test]
    fn lost_events_end_in_an_alarm_or_in_one_list(steps in histories(), acts in acts(), lost in 1usize..10, more in histories()) {
        let before = Log::of(&steps);
        let mut world = World { events: before.events.clone(), outcomes: vec![] };
        let mut writers: Vec<_> = (0..3).map(|_| Writer::new()).collect();
        let mut readers = vec![Reader::new(), Reader::new()];
        play(&mut world, &acts, &mut writers, &mut readers);

        // The broker loses acknowledged events, and other events take their places.
        let kept = world.events.len().saturating_sub(lost).max(1);
        world.events.truncate(kept);
        let mut after = Log::of(&more);
        // The new log grows past the old one, else nobody could see from the outcomes alone that it differs.
        (0..=lost + 1).for_each(|_| after.push(schemas::EventBody::Tick));
        after.events.drain(..1);
        let shifted = after.events.into_iter().enumerate().map(|(i, (cause, event))| {
            let (from, id) = (schemas::EventId::new(event.from.time(), 1, 9), schemas::EventId::new(event.time, 1, i as u64));
            let event = Event { from, id, ..event };
            (Cause { src: (kept + i) as u64, ..cause }, event)
        });
        world.events.extend(shifted);
        let mut fresh = Writer::new();
        fresh.follow(&world);
        while fresh.write(&mut world) {}
        for reader in &mut readers {
            reader.read(&world.outcomes, 0, |_| {});
        }
        // Without any alarm everybody took the same records; a matcher's alarm halts the partition for all.
        let calm: Vec<_> = readers.iter().filter(|r| !r.alarm && !fresh.reader.alarm).collect();
        for pair in calm.windows(2) {
            let common = pair[0].taken.len().min(pair[1].taken.len());
            prop_assert_eq!(&pair[0].taken[..common], &pair[1].taken[..common]);
        }
        // What was taken is one chain from the start.
        for reader in &readers {
            let chain = reader.taken.iter().fold(Chain::FIRST, |chain, payload| chain.next(payload));
            prop_assert_eq!(chain, reader.position.chain);
        }
    }
}

#[test]
fn another_record_in_the_place_of_a_taken_one_is_skipped_and_its_successor_is_an_alarm() {
    let link = |src, prev: Chain, payload: &[u8]| Link { src, prev, chain: prev.next(payload) };
    let first = link(0, Chain::FIRST, b"a");
    let other = link(0, Chain::FIRST, b"b");
    let position = Position { next: 1, chain: first.chain };
    assert_eq!(judge(&Position::START, &first, b"a"), Verdict::Take);
    assert_eq!(judge(&position, &other, b"b"), Verdict::Skip);
    assert_eq!(judge(&position, &link(1, other.chain, b"c"), b"c"), Verdict::Diverged);
    assert_eq!(judge(&position, &link(2, first.chain, b"c"), b"c"), Verdict::Hole);
    assert_eq!(judge(&position, &Link { chain: first.chain, ..link(1, first.chain, b"c") }, b"c"), Verdict::Diverged);
}
