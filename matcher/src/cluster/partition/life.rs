//! From one beginning to the next doubt.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use metrics::{Counter, Gauge, counter, gauge, histogram};
use pipeline::{
    Draft, clock,
    kafka::{
        ReadError, Sender, Topic,
        records::{self, Encoded, Number},
    },
    secrets::random_bits,
};
use rdkafka::{Message, message::BorrowedMessage};
use schemas::{Event, EventBody, EventId, Outcome, Time, bounds::RUN_LENGTH_MS, time::MINUTE_MS};

use super::Partition;
use crate::{
    apply,
    decide::{Cause, UnknownRules, decide},
    embedded::{evict, is_due, new_run},
    replica::{Checkpoint, Head, Record, Replica, Step},
    state::State,
    store::{Dirty, Reader, Writer},
};

/// What was sent has to be met within this time.
const LATE: Duration = Duration::from_secs(5);
/// Records that wait here for their turn, per topic.
const QUEUE: usize = 1_024;
const IDLE: Duration = Duration::from_millis(5);
const DIRTY_RECORDS: usize = 20_000;
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// For what is under way to be met, when the partition is left.
const LEAVE: Duration = Duration::from_secs(3);
const LAG_EVERY: Duration = Duration::from_secs(10);
/// Steps between looks at what does not have to be done at once.
const STEPS: u32 = 256;

/// How a life ended; the texts are for people.
pub(super) enum Turn {
    Stopped,
    Again(String),
    Drop(String),
    Halt(String),
    Release(u32),
}

/// An event as it waits for its turn.
struct Pending {
    head: Head,
    cause: Cause,
    event: Box<Event>,
    key: String,
    traceparent: Option<String>,
}

struct Meters {
    decided: Counter,
    applied: Counter,
    passed: Counter,
    in_flight: Gauge,
    lag: Gauge,
    log_time: Gauge,
}

pub(super) struct Life<'a> {
    of: &'a mut Partition,
    replica: Replica,
    reader: Reader,
    writer: Writer,
    state: State,
    sender: Sender,
    readable: bool,
    events: VecDeque<Pending>,
    outcomes: VecDeque<Record>,
    /// A copy of what changed, until the replica has met all that it is made of.
    kept: Option<(Dirty, Checkpoint)>,
    last_save: Instant,
    /// Since when the replica waits for the same thing.
    waits: (u64, Instant),
    run: EventId,
    n: u64,
    next_tick: Time,
    last_lag: Option<Instant>,
    leaving: Option<Instant>,
    meters: Meters,
}

impl<'a> Life<'a> {
    pub(super) fn new(
        of: &'a mut Partition,
        replica: Replica,
        (reader, writer, state): (Reader, Writer, State),
        sender: Sender,
        readable: bool,
    ) -> Self {
        let label = of.number.to_string();
        let count = |what: &'static str| counter!("clickback_matcher_records_total", "partition" => label.clone(), "what" => what);
        let meters = Meters {
            decided: count("decided"),
            applied: count("applied"),
            passed: count("passed"),
            in_flight: gauge!("clickback_matcher_in_flight", "partition" => label.clone()),
            lag: gauge!("clickback_matcher_lag_events", "partition" => label.clone()),
            log_time: gauge!("clickback_matcher_log_time_seconds", "partition" => label.clone()),
        };
        let now = Instant::now();
        let run = new_run(clock::now(), state.meta.log_time);
        Self {
            waits: (replica.met(), now),
            of,
            replica,
            reader,
            writer,
            state,
            sender,
            readable,
            events: VecDeque::new(),
            outcomes: VecDeque::new(),
            kept: None,
            last_save: now,
            run,
            n: 0,
            next_tick: Time::from_ms(0),
            last_lag: None,
            leaving: None,
            meters,
        }
    }

    pub(super) fn run(mut self) -> Result<Turn> {
        // Steps until the next look at what does not have to be done at once.
        let mut left = 0;
        loop {
            if self.sender.is_broken() {
                return Ok(Turn::Again("what was sent may not have arrived".to_owned()));
            }
            if left == 0 {
                if self.is_done()? {
                    return Ok(Turn::Stopped);
                }
                left = STEPS;
            }
            left -= 1;
            let step = match self.step(false) {
                Step::Wait if self.waited() => self.step(true),
                step => step,
            };
            match step {
                Step::Pass => {
                    self.outcomes.pop_front();
                    self.meters.passed.increment(1);
                }
                Step::Agree => {
                    self.outcomes.pop_front();
                    self.events.pop_front();
                }
                Step::Apply => self.apply()?,
                Step::Decide => {
                    if let Some(turn) = self.decide()? {
                        return Ok(turn);
                    }
                }
                Step::Wait => {
                    if let Some(turn) = self.wait()? {
                        return Ok(turn);
                    }
                    left = 0;
                }
                Step::Again(doubt) => return Ok(Turn::Again(doubt.to_string())),
                Step::Drop(doubt) => return Ok(Turn::Drop(doubt.to_string())),
                Step::Halt(alarm) => return Ok(Turn::Halt(alarm.to_string())),
                Step::Release(version) => return Ok(Turn::Release(version)),
            }
        }
    }

    fn step(&mut self, waited: bool) -> Step {
        // Who leaves decides nothing new, but meets what is under way.
        let new = self.events.front().filter(|_| self.leaving.is_none() || !self.outcomes.is_empty());
        self.replica.step(new.map(|event| &event.head), self.outcomes.front(), waited)
    }

    /// Whether nothing of what is awaited was met for too long. Progress is what was met, not what was sent: events that
    /// go on coming must not hide that nothing comes back.
    fn waited(&mut self) -> bool {
        let met = self.replica.met();
        let begun = self.replica.in_flight() > 0 || !self.outcomes.is_empty() || !self.replica.is_caught_up();
        if met != self.waits.0 || !begun {
            self.waits = (met, Instant::now());
        }
        self.waits.1.elapsed() > LATE
    }

    fn apply(&mut self) -> Result<()> {
        let (Some(pending), Some(record)) = (self.events.pop_front(), self.outcomes.pop_front()) else { return Ok(()) };
        let outcome: Outcome = serde_json::from_slice(&record.payload)
            .with_context(|| format!("the outcome of event {} cannot be read", pending.head.src))?;
        self.state.begin();
        self.reader.load(&mut self.state, &pending.event)?;
        apply(&mut self.state, pending.cause, &pending.event, &outcome);
        self.meters.applied.increment(1);
        Ok(())
    }

    fn decide(&mut self) -> Result<Option<Turn>> {
        let Some(Pending { cause, event, key, traceparent, .. }) = self.events.pop_front() else { return Ok(None) };
        self.state.begin();
        self.reader.load(&mut self.state, &event)?;
        let outcome = match decide(&self.state, cause, &event) {
            Ok(outcome) => outcome,
            Err(UnknownRules(version)) => return Ok(Some(Turn::Release(version))),
        };
        apply(&mut self.state, cause, &event, &outcome);
        let payload = serde_json::to_vec(&outcome).context("an outcome cannot be written")?;
        let link = self.replica.decided(&payload);
        let number = Number { from: event.from, n: event.n };
        let headers = records::outcome_headers(outcome.kind.code(), number, &link, traceparent.as_deref());
        self.meters.decided.increment(1);
        let sent = self.sender.send(Topic::Outcomes, Encoded { key, headers, payload });
        Ok(sent.err().map(|unknown| Turn::Again(unknown.to_string())))
    }

    /// Takes in what has come, and looks after everything that is not urgent.
    fn wait(&mut self) -> Result<Option<Turn>> {
        if let Err(unknown) = self.sender.go_on() {
            return Ok(Some(Turn::Again(unknown.to_string())));
        }
        let before = self.events.len() + self.outcomes.len();
        let filled = self.fill_outcomes(Duration::ZERO).and_then(|()| self.fill_events(Duration::ZERO));
        let filled = match filled {
            Ok(()) if self.events.len() + self.outcomes.len() > before => Ok(()),
            // Nothing yet: wait where something is expected, but not for long, as the other may come.
            Ok(()) if self.replica.is_caught_up() && self.replica.in_flight() == 0 => self.fill_events(IDLE),
            Ok(()) => self.fill_outcomes(IDLE),
            Err(error) => Err(error),
        };
        match filled {
            Ok(()) => {}
            Err(Trouble::Read(error)) => return Ok(Some(Turn::Again(error.to_string()))),
            Err(Trouble::Event(src, why)) => {
                return Ok(Some(Turn::Halt(format!("event {src} cannot be read: {why}"))));
            }
        }
        self.measure();
        Ok(self.tick()?.map(|unknown| Turn::Again(unknown.to_string())))
    }

    fn fill_outcomes(&mut self, mut wait: Duration) -> Result<(), Trouble> {
        while self.readable && self.outcomes.len() < QUEUE {
            let Some(message) = self.of.outcomes.poll(wait)? else { break };
            self.outcomes.push_back(record_of(&message));
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn fill_events(&mut self, mut wait: Duration) -> Result<(), Trouble> {
        while self.events.len() < QUEUE {
            let Some(message) = self.of.events.poll(wait)? else { break };
            self.events.push_back(pending_of(&message)?);
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Saves when it is time, and says when there is nothing more to do.
    fn is_done(&mut self) -> Result<bool> {
        self.save_if_due(false)?;
        if !self.of.stop.is_cancelled() {
            return Ok(false);
        }
        let leaving = *self.leaving.get_or_insert_with(Instant::now);
        if self.replica.in_flight() > 0 && leaving.elapsed() < LEAVE {
            return Ok(false);
        }
        // Also of a recovery that did not come to its end: whoever has this folder next goes on from here.
        self.save_if_due(true)?;
        Ok(true)
    }

    fn save_if_due(&mut self, last: bool) -> Result<()> {
        let due = last || self.state.dirty_len() >= DIRTY_RECORDS || self.last_save.elapsed() >= SAVE_EVERY;
        if self.kept.is_none() && due && self.replica.is_proven() && self.state.runs.dirty_len() > 0 {
            let checkpoint = self.replica.checkpoint();
            let mut dirty = Dirty::take(&mut self.state, checkpoint.state);
            dirty.anchor = Some(checkpoint.anchor);
            self.kept = Some((dirty, checkpoint));
            self.last_save = Instant::now();
        }
        let Some((dirty, checkpoint)) = self.kept.take() else { return Ok(()) };
        if !self.replica.may_save(&checkpoint) {
            self.kept = Some((dirty, checkpoint));
            return Ok(());
        }
        let started = Instant::now();
        match self.writer.save(&dirty) {
            Ok(()) => evict(&mut self.state),
            Err(error) => {
                tracing::warn!(partition = self.of.number, "the state cannot be saved and is tried again: {error:#}");
                dirty.put_back(&mut self.state);
            }
        }
        histogram!("clickback_matcher_save_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn measure(&mut self) {
        self.meters.in_flight.set(self.replica.in_flight() as f64);
        if self.last_lag.is_some_and(|last| last.elapsed() < LAG_EVERY) {
            return;
        }
        self.last_lag = Some(Instant::now());
        self.meters.log_time.set(self.state.meta.log_time.ms() as f64 / 1_000.0);
        if let Ok((_, end)) = self.of.events.ends() {
            self.meters.lag.set(end.saturating_sub(self.replica.met()) as f64);
        }
    }

    /// One a minute, by whoever works on the partition. Surplus ones are harmless.
    fn tick(&mut self) -> Result<Option<pipeline::kafka::Unknown>> {
        let now = clock::now();
        if !self.replica.is_caught_up() || self.leaving.is_some() || !is_due(self.next_tick, now) {
            return Ok(None);
        }
        self.next_tick = now.plus_ms(MINUTE_MS);
        if now.since(self.run.time()) > RUN_LENGTH_MS {
            (self.run, self.n) = (new_run(now, self.state.meta.log_time), 0);
        }
        let (id, shard) = (EventId::new(now, self.of.number, random_bits()), self.of.number);
        let draft = Draft { id, tenant: String::new(), time: now, shard, body: EventBody::Tick };
        let event = draft.into_event(self.run, self.n);
        self.n += 1;
        let encoded = records::encode_event(&event, shard, None).context("a tick cannot be written")?;
        Ok(self.sender.send(Topic::Events, encoded).err())
    }
}

enum Trouble {
    Read(ReadError),
    Event(i64, String),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Trouble::Read(error)
    }
}

/// A record that has no place in the chain is passed over, whoever wrote it.
fn record_of(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        link: records::decode_link(message.headers()).ok(),
        payload: message.payload().unwrap_or_default().to_vec(),
    }
}

fn pending_of(message: &BorrowedMessage<'_>) -> Result<Pending, Trouble> {
    let event = records::decode_event(message.payload())
        .map_err(|error| Trouble::Event(message.offset(), error.to_string()))?;
    let src = u64::try_from(message.offset()).unwrap_or_default();
    let rules = match event.body {
        EventBody::Rules(version) => Some(version),
        EventBody::Click(_) | EventBody::Hit(_) | EventBody::Tick | EventBody::Adjust(_) | EventBody::Reprocess(_) => {
            None
        }
    };
    Ok(Pending {
        head: Head { src, id: event.id, rules },
        cause: Cause { src, appended: Time::from_ms(message.timestamp().to_millis().unwrap_or_default()) },
        event: Box::new(event),
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        traceparent: records::traceparent(message.headers()).map(str::to_owned),
    })
}
