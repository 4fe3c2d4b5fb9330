//! The loop behind the `Appender` of a cluster: it numbers events, sends them, and answers when they are durable.
//!
//! Owns: the numbers of this process's events, what is under way, and when the spool is used.
//! Refuses: to answer before a delivery report or an fsync says so; to forget an event of which it is not known whether
//! Kafka has it.
//! Invariant: events of one partition reach Kafka in the order in which they were taken, or again in that order. Of what
//! comes twice readers take the first, by (`from`, `n`), so repeats change nothing.
//!
//! Usually an event goes to Kafka and is answered with its delivery report. When a report takes too long, everybody who
//! waits is answered from the spool, and from then on every event goes through the spool first: on disk, answered, then
//! sent from there. That ends when all of the spool is sent and Kafka acknowledges at once again. Events that are under
//! way stay with the client meanwhile, which sends them again by itself; only an error that it reports makes a new client,
//! and then the spool is sent from its first unacknowledged event on.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use schemas::{
    Event, EventId,
    bounds::{RECORD_BYTES, RUN_LENGTH_MS},
};
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Cluster, Layout,
    answer::Answer,
    catalog::CatalogWriter,
    lanes::Lanes,
    outbox::{Outbox, Slot},
    records::{self, Number},
    session::{Note, Report, Session, Verify, connect},
    spool::{Entry, Spool, SpoolError},
    topics::Topic,
};
use crate::{
    Receipt, Unavailable,
    append::{Request, Written},
    clock,
    lifecycle::{Beat, CancellationToken},
    secrets,
};

/// Events under way whose senders wait. They take at most this much memory, once here and once in the client.
const UNDER_WAY: usize = 32_768;
const UNDER_WAY_BYTES: usize = 48 * 1024 * 1024;
/// Events under way from the spool.
const SHIPPED: usize = 8_192;
const SHIPPED_BYTES: usize = 16 * 1024 * 1024;
const SHIP_AT_ONCE: usize = 256;
const REQUESTS_AT_ONCE: usize = 1_024;
/// A report that takes longer sends everybody to the spool. Less than a visitor waits for a redirect.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Without a spool there is nothing else to do but to wait for Kafka.
pub(super) const PATIENCE_WITHOUT_SPOOL: Duration = Duration::from_secs(8);
/// Kafka is well again when nothing is under way for longer.
const CALM: Duration = Duration::from_millis(500);
/// While events are under way the loop looks at this part of the time that a report usually takes, and nobody wakes it: what
/// has come meanwhile is sent together, and what was reported is answered together.
const LOOKS_PER_REPORT: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_millis(50);
const RECONNECT: Duration = Duration::from_secs(1);
/// What is wrong with the topics for so long is not a broker that has not caught up yet.
const WRONG_FOR: Duration = Duration::from_secs(30);
/// The trouble that every process begins with.
const NOT_YET: &str = "Kafka is not connected yet";
/// For the spool to become empty at the end.
const LAST_SHIPMENT: Duration = Duration::from_secs(2);

pub(super) struct Parts {
    pub(super) cluster: Cluster,
    pub(super) layout: Layout,
    /// The layout was read from Kafka just now, and not from a copy.
    pub(super) confirmed: bool,
    pub(super) requests: mpsc::Receiver<Request<Written>>,
    pub(super) spool: Option<Spool>,
    pub(super) catalog: CatalogWriter,
    pub(super) beat: Beat,
    /// From here on nothing new is taken.
    pub(super) stop: CancellationToken,
    /// How long a report may take before the spool is used.
    pub(super) patience: Duration,
    /// Asked before a new client sends anything: are these still our topics?
    pub(super) verify: Verify,
}

/// The thread ends when every `Appender` is gone, or after `stop`; or with an error that only a restart can mend.
pub(super) fn start(parts: Parts) -> Result<JoinHandle<Result<()>>> {
    std::thread::Builder::new()
        .name("kafka-producer".to_owned())
        .spawn(move || Loop::new(parts)?.run())
        .context("cannot start the producer's thread")
}

/// An event whose sender waits for its delivery report.
#[derive(Debug)]
struct Direct {
    answer: Answer,
    partition: u16,
    number: Number,
    entry: Entry,
}

impl Direct {
    fn spooled(&self) -> Receipt {
        Receipt::Spooled { partition: self.partition, from: self.number.from, n: self.number.n }
    }
}

struct Loop {
    parts: Parts,
    topic: String,
    runtime: tokio::runtime::Runtime,
    tick: Interval,
    notes: mpsc::UnboundedReceiver<Note>,
    noting: mpsc::UnboundedSender<Note>,
    outbox: Outbox<Direct>,
    /// Keys and kinds of those that the client is still to get.
    lanes: Lanes<(usize, &'static str)>,
    session: Option<Session>,
    /// Why the spool is used, and what was reported that ends the session.
    trouble: Option<String>,
    broken: Option<String>,
    /// The last events could not be kept: nobody should send more here.
    refuses: bool,
    wrong: Option<Instant>,
    run: EventId,
    numbers: Vec<u64>,
    /// How long a report takes, lately.
    usual: Duration,
    /// Nobody sends any more, since then.
    closed: Option<Instant>,
    meters: Meters,
}

struct Meters {
    events: Counter,
    ack: Histogram,
    spool_events: Gauge,
    spool_bytes: Gauge,
}

impl Meters {
    fn new() -> Self {
        describe_counter!("clickback_log_events_total", "Events that Kafka has acknowledged to this process");
        describe_histogram!(
            "clickback_log_ack_seconds",
            "From sending to acknowledgement, of the oldest event under way"
        );
        describe_gauge!("clickback_spool_events", "Events on disk that Kafka has not acknowledged");
        describe_gauge!("clickback_spool_bytes", "Bytes of the spool's files");
        describe_counter!("clickback_spooled_events_total", "Events that went through the spool");
        describe_counter!("clickback_spool_refused_events_total", "Events answered 503, as the spool is full");
        describe_counter!("clickback_kafka_troubles_total", "Times that Kafka did not acknowledge in time");
        describe_counter!("clickback_kafka_resets_total", "Times that the Kafka client was made anew");
        Self {
            events: counter!("clickback_log_events_total"),
            ack: histogram!("clickback_log_ack_seconds"),
            spool_events: gauge!("clickback_spool_events"),
            spool_bytes: gauge!("clickback_spool_bytes"),
        }
    }
}

impl Loop {
    fn new(parts: Parts) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut tick = {
            let _inside = runtime.enter();
            interval(TICK)
        };
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (noting, notes) = mpsc::unbounded_channel();
        let numbers = vec![0; usize::from(parts.layout.partitions)];
        Ok(Self {
            topic: parts.cluster.topic(Topic::Events),
            runtime,
            tick,
            notes,
            noting,
            outbox: Outbox::new(),
            lanes: Lanes::new(parts.layout.partitions),
            session: None,
            trouble: Some(NOT_YET.to_owned()),
            broken: None,
            refuses: false,
            wrong: None,
            run: new_run(),
            numbers,
            usual: Duration::ZERO,
            closed: None,
            meters: Meters::new(),
            parts,
        })
    }

    fn run(mut self) -> Result<()> {
        if let Some(spool) = &self.parts.spool
            && !spool.is_empty()
        {
            tracing::warn!(events = spool.len(), "the spool still holds events; they are sent first");
        }
        self.begin()?;
        self.parts.beat.set_ready(true);
        let (mut notes, mut requests, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.wait(&mut notes, &mut requests);
            self.parts.beat.beat();
            notes.drain(..).try_for_each(|note| self.hear(note))?;
            self.hear_reports(&mut reports);
            self.take(requests.drain(..))?;
            let turns = self.lanes.turns();
            self.send(turns);
            self.look()?;
            if self.is_over() {
                break;
            }
        }
        self.parts.beat.finish();
        Ok(())
    }

    /// With topics that were checked just now the first event may go to Kafka already.
    fn begin(&mut self) -> Result<()> {
        if !self.parts.confirmed {
            self.connect(Duration::ZERO);
            return Ok(());
        }
        self.session = Some(Session::open(&self.parts.cluster).context("the Kafka client cannot be set up")?);
        if self.parts.spool.as_ref().is_none_or(Spool::is_empty) {
            self.trouble = None;
        }
        Ok(())
    }

    /// Until something happens, or for a pause while reports are awaited. What is there then is taken together.
    fn wait(&mut self, notes: &mut Vec<Note>, requests: &mut Vec<Request<Written>>) {
        if self.parts.stop.is_cancelled() {
            self.parts.requests.close();
        }
        let fits = self.outbox.len() < UNDER_WAY && self.outbox.bytes() < UNDER_WAY_BYTES;
        // In trouble nothing that is taken is under way: it is on disk or refused.
        let takes = self.closed.is_none() && (fits || self.trouble.is_some());
        let mut ended = false;
        if self.session.is_some() && self.trouble.is_none() && self.outbox.len() > 0 {
            std::thread::sleep((self.usual / LOOKS_PER_REPORT).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        } else {
            self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = self.notes.recv_many(notes, 1) => {}
                    count = self.parts.requests.recv_many(requests, REQUESTS_AT_ONCE), if takes => ended = count == 0,
                    _ = self.tick.tick() => {}
                }
            });
        }
        while let Ok(note) = self.notes.try_recv() {
            notes.push(note);
        }
        while takes && requests.len() < REQUESTS_AT_ONCE {
            match self.parts.requests.try_recv() {
                Ok(request) => requests.push(request),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            self.closed.get_or_insert_with(Instant::now);
        }
    }

    fn hear(&mut self, note: Note) -> Result<()> {
        match note {
            Note::Connected(session) => {
                tracing::info!("connected to Kafka");
                self.wrong = None;
                self.parts.confirmed = true;
                self.session = Some(session);
            }
            Note::Away(why) => {
                tracing::warn!("{why}");
                self.connect(RECONNECT);
            }
            Note::Wrong(why) => {
                let since = *self.wrong.get_or_insert_with(Instant::now);
                if !self.parts.confirmed || since.elapsed() > WRONG_FOR {
                    bail!("{why}");
                }
                tracing::error!("{why}");
                self.connect(RECONNECT);
            }
        }
        Ok(())
    }

    fn hear_reports(&mut self, reports: &mut Vec<Report>) {
        let Some(session) = &self.session else { return };
        session.reports(reports);
        if let (Some(at), false) = (self.outbox.oldest(), reports.is_empty()) {
            let took = at.elapsed();
            self.usual = (self.usual * 7 + took) / 8;
            self.meters.ack.record(took.as_secs_f64());
        }
        for (key, result) in reports.drain(..) {
            match result {
                Ok(src) => self.delivered(key, src),
                Err(why) => self.broken = Some(why),
            }
        }
    }

    fn delivered(&mut self, key: usize, src: Option<u64>) {
        let Some(slot) = self.outbox.done(key) else { return };
        self.meters.events.increment(1);
        if let Slot::Direct(direct) = slot {
            self.lanes.done(direct.partition);
            let receipt = match src {
                Some(src) => Receipt::Logged { partition: direct.partition, src },
                None => direct.spooled(),
            };
            direct.answer.give(Ok(receipt));
        }
    }

    fn take(&mut self, requests: impl ExactSizeIterator<Item = Request<Written>>) -> Result<()> {
        if requests.len() == 0 {
            return Ok(());
        }
        self.renew_run();
        let mut directs = Vec::with_capacity(requests.len());
        for request in requests {
            match request {
                Request::Catalog { record, answer, .. } => self.parts.catalog.put(*record, answer),
                Request::Events { events, answer, .. } => {
                    let answers = Answer::split(answer, events.len());
                    for (event, answer) in events.into_iter().zip(answers) {
                        directs.extend(self.prepare(event, answer));
                    }
                }
            }
        }
        let now = Instant::now();
        match self.trouble {
            None => directs.into_iter().for_each(|direct| self.put(direct, now)),
            Some(_) if !directs.is_empty() => self.store(directs)?,
            Some(_) => {}
        }
        Ok(())
    }

    fn renew_run(&mut self) {
        if clock::now().since(self.run.time()) > RUN_LENGTH_MS {
            self.run = new_run();
            self.numbers.fill(0);
        }
    }

    /// Numbers an event. One that is larger than a record may be is refused.
    fn prepare(&mut self, written: Written, answer: Answer) -> Option<(Direct, &'static str)> {
        let Written { shard, event } = written;
        let partition = self.parts.layout.partition(shard);
        let next = self.numbers.get_mut(usize::from(partition))?;
        let number = Number { from: self.run, n: *next };
        let payload = event.number(number.from, number.n);
        if payload.len() > RECORD_BYTES {
            let why = format!("an event of {} bytes is larger than a record may be", payload.len());
            answer.give(Err(Unavailable::NotDurable(why)));
            return None;
        }
        *next += 1;
        let entry = Entry { shard, payload };
        Some((Direct { answer, partition, number, entry }, event.kind()))
    }

    fn put(&mut self, (direct, kind): (Direct, &'static str), now: Instant) {
        self.lanes.put(direct.partition, (self.outbox.next_key(), kind));
        let bytes = direct.entry.payload.len();
        self.outbox.put(Slot::Direct(direct), bytes, now);
    }

    /// To the client. What it does not take stays under way: whoever sent it waits, and what is broken is mended for all.
    fn send(&mut self, turns: Vec<(usize, &'static str)>) {
        for (key, kind) in turns {
            let (Some(session), None, Some(direct)) = (&self.session, &self.broken, self.outbox.direct(key)) else {
                continue;
            };
            let headers = records::event_headers(kind, direct.number, None);
            let place = (direct.partition, direct.entry.shard);
            if let Err(why) = session.send(&self.topic, place, headers, &direct.entry.payload, key) {
                self.broken = Some(why);
            }
        }
    }

    /// Straight to disk; they are sent from there.
    fn store(&mut self, directs: Vec<(Direct, &'static str)>) -> Result<()> {
        let refusal = self.spool(directs.iter().map(|(direct, _)| &direct.entry))?;
        self.refuse(refusal.is_some());
        for (direct, _) in directs {
            let receipt = direct.spooled();
            direct.answer.give(refusal.clone().map_or(Ok(receipt), Err));
        }
        Ok(())
    }

    fn refuse(&mut self, refuses: bool) {
        if self.refuses != refuses {
            self.refuses = refuses;
            self.parts.beat.set_ready(!refuses);
        }
    }

    /// Why they are not on disk now, if they are not.
    fn spool<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) -> Result<Option<Unavailable>> {
        let Some(spool) = self.parts.spool.as_mut() else {
            let why = self.trouble.clone().unwrap_or_default();
            return Ok(Some(Unavailable::NotDurable(why)));
        };
        let entries: Vec<&Entry> = entries.collect();
        match spool.append(&entries) {
            Ok(()) => {
                counter!("clickback_spooled_events_total").increment(entries.len() as u64);
                Ok(None)
            }
            Err(SpoolError::Full(why)) => {
                counter!("clickback_spool_refused_events_total").increment(entries.len() as u64);
                Ok(Some(Unavailable::NotDurable(why)))
            }
            Err(SpoolError::Broken(why)) => bail!("{why}; the next start reads what is on disk"),
        }
    }

    /// What time brings about.
    fn look(&mut self) -> Result<()> {
        if let Some(why) = self.broken.take() {
            self.mend(why)?;
        }
        let waited = self.outbox.oldest().map(|at| at.elapsed()).unwrap_or_default();
        if self.trouble.is_none() && waited > self.parts.patience {
            self.enter_trouble(format!("Kafka has acknowledged nothing for {} ms", waited.as_millis()))?;
        }
        self.ship()?;
        if let Some(spool) = self.parts.spool.as_mut() {
            spool.release(self.outbox.released())?;
            self.meters.spool_events.set(spool.len() as f64);
            self.meters.spool_bytes.set(spool.bytes() as f64);
        }
        let all_sent = self.parts.spool.as_ref().is_none_or(|spool| spool.next() == spool.end());
        let is_well = self.session.is_some() && all_sent && waited < CALM;
        if is_well && let Some(why) = self.trouble.take() {
            self.refuse(false);
            if why != NOT_YET {
                tracing::info!("Kafka acknowledges again");
            }
        }
        Ok(())
    }

    /// Everybody who waits is answered from the spool. What is under way stays so: it stands in the spool as sent.
    fn enter_trouble(&mut self, why: String) -> Result<()> {
        tracing::warn!("{why}; events go through the spool");
        counter!("clickback_kafka_troubles_total").increment(1);
        self.trouble = Some(why);
        // The spool has them as sent.
        let turns = self.lanes.clear();
        self.send(turns);
        let waiting: Vec<Entry> = self.outbox.directs().map(|direct| direct.entry.clone()).collect();
        let mut index = self.parts.spool.as_ref().map_or(0, Spool::end);
        let refusal = if waiting.is_empty() { None } else { self.spool(waiting.iter())? };
        self.outbox.convert(|direct| match &refusal {
            Some(refusal) => {
                direct.answer.give(Err(refusal.clone()));
                Slot::Forgotten
            }
            None => {
                let receipt = direct.spooled();
                direct.answer.give(Ok(receipt));
                index += 1;
                Slot::Spooled(index - 1)
            }
        });
        if let (Some(spool), None) = (self.parts.spool.as_mut(), refusal) {
            spool.skip_to_end();
        }
        Ok(())
    }

    /// The client reported an event as not delivered, which means: unknown. It is given up with all that it has, and the
    /// next one sends everything again that is not acknowledged.
    fn mend(&mut self, why: String) -> Result<()> {
        counter!("clickback_kafka_resets_total").increment(1);
        // Not to the client that is given up: they would stand before the one that it did not take.
        drop(self.lanes.clear());
        match self.trouble {
            None => self.enter_trouble(format!("Kafka did not take an event: {why}"))?,
            Some(_) => tracing::warn!("Kafka did not take an event: {why}"),
        }
        if let Some(session) = self.session.take() {
            session.give_up();
        }
        self.outbox.reset();
        if let Some(spool) = self.parts.spool.as_mut() {
            spool.release(self.outbox.released())?;
            spool.rewind()?;
        }
        self.connect(RECONNECT);
        Ok(())
    }

    fn connect(&mut self, pause: Duration) {
        let (cluster, layout) = (self.parts.cluster.clone(), self.parts.layout.clone());
        connect(cluster, layout, pause, self.parts.verify, self.noting.clone());
    }

    /// From the spool to Kafka.
    fn ship(&mut self) -> Result<()> {
        let (Some(spool), Some(session)) = (self.parts.spool.as_mut(), &self.session) else { return Ok(()) };
        while spool.next() < spool.end() && self.outbox.len() < SHIPPED && self.outbox.bytes() < SHIPPED_BYTES {
            for (index, entry) in (spool.next()..).zip(spool.read(SHIP_AT_ONCE)?) {
                let event: Event = serde_json::from_slice(&entry.payload).context("an event of the spool")?;
                let number = Number { from: event.from, n: event.n };
                let headers = records::event_headers(event.body.kind(), number, None);
                let place = (self.parts.layout.partition(entry.shard), entry.shard);
                let key = self.outbox.next_key();
                if let (None, Err(why)) = (&self.broken, session.send(&self.topic, place, headers, &entry.payload, key))
                {
                    self.broken = Some(why);
                }
                self.outbox.put(Slot::Spooled(index), entry.payload.len(), Instant::now());
            }
        }
        Ok(())
    }

    /// Nobody sends and nobody waits any more, and the spool is empty or has to wait for the next start.
    fn is_over(&self) -> bool {
        let Some(closed) = self.closed else { return false };
        if self.outbox.directs().next().is_some() {
            return false;
        }
        let spool_waits = self.parts.spool.as_ref().is_some_and(|spool| !spool.is_empty());
        !spool_waits || closed.elapsed() > LAST_SHIPMENT
    }
}

fn new_run() -> EventId {
    EventId::new(clock::now(), 0, secrets::random_bits())
}

#[cfg(test)]
mod tests;
