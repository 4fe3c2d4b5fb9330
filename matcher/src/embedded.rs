//! The loop of embedded mode: one thread decides, appends and answers.
//!
//! Owns: the order of events, group commit, what happens when a commit fails, recovery, ticks, and when the state
//! cache is saved.
//! Refuses: to answer before the batch is on disk; to keep anything in memory of a batch that is not.
//! Invariant: events and their outcomes are appended in one transaction, so every event in the log has its outcome.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pipeline::{
    append::{Applied, Draft, Request, Unavailable},
    catalog::Catalog,
    clock,
    lifecycle::{Beat, CancellationToken},
    log::{Batch, Block, Log, LogEnd, LogError},
    receipt::Receipt,
    secrets::random_bits,
};
use schemas::{
    Event, EventBody, EventId, Outcome, Time,
    bounds::{BATCH_EVENTS, RUN_LENGTH_MS},
    catalog::Record,
    chain::{Chain, Position},
    time::MINUTE_MS,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    apply::apply,
    decide::{Cause, RULES, UnknownRules, decide},
    state::State,
    store::{self, BadCache, Dirty, Reader, Writer},
};

/// Events of one row of the log: few enough that reading one event reads little else.
const BLOCK_EVENTS: usize = 64;
/// Records that may be changed and unsaved; a crash replays what they were made of.
const DIRTY_RECORDS: usize = 200_000;
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Clean clicks and names that stay in memory.
const CACHED_RECORDS: usize = 200_000;
const RECOVERY_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for a request, so that ticks and saves happen on an idle system too.
const IDLE: Duration = Duration::from_millis(500);

/// What the loop is given; it runs until every `Appender` is gone, or until `stop`.
pub struct Parts {
    pub dir: PathBuf,
    pub log: Log,
    pub requests: mpsc::Receiver<Request>,
    pub catalog: Arc<Catalog>,
    /// To the projector. A batch that does not fit is dropped there; the projector reads it from the log.
    pub batches: SyncSender<Arc<Batch>>,
    pub end: Arc<LogEnd>,
    pub beat: Beat,
    /// From here on nothing new is taken; what was sent before is still answered. Somebody may hold an `Appender`
    /// for as long as a reading of the whole log takes, and a stop must not wait for that.
    pub stop: CancellationToken,
}

/// Recovers the state, then starts the thread. Fails if the folder's log and this build do not fit.
pub fn start(parts: Parts) -> Result<JoinHandle<Result<()>>> {
    let (state, reader, saver) = recover(&parts.dir, &parts.log, &parts.beat)?;
    std::thread::Builder::new()
        .name("matcher".to_owned())
        .spawn(move || Matcher::new(parts, state, reader, saver)?.run())
        .context("cannot start the matcher's thread")
}

/// A cache that cannot be read is deleted, and the whole log is read.
fn recover(dir: &Path, log: &Log, beat: &Beat) -> Result<(State, Reader, Writer)> {
    match recover_from_cache(dir, log, beat) {
        Err(error) if error.is::<BadCache>() => {
            tracing::error!("{error:#}; it is rebuilt from the log");
            store::delete(dir)?;
            recover_from_cache(dir, log, beat)
        }
        recovered => recovered,
    }
}

/// State from the cache if it fits the log, else from nothing; then the tail of the log on top.
fn recover_from_cache(dir: &Path, log: &Log, beat: &Beat) -> Result<(State, Reader, Writer)> {
    let log_reader = log.reader()?;
    let (mut reader, mut writer, mut state, mut position) = store::open(dir)?;
    if log_reader.chain_at(position.next)? != Some(position.chain) {
        tracing::warn!(next = position.next, "the state cache is not of this log; it is rebuilt from the log");
        drop((reader, writer));
        store::delete(dir)?;
        (reader, writer, state, position) = store::open(dir)?;
    }
    let target = log.position();
    while position.next < target.next {
        // Not ready yet, but not stuck either.
        beat.beat();
        let blocks = log_reader.blocks(position.next, RECOVERY_BYTES)?;
        if blocks.is_empty() {
            bail!("the log ends at event {} instead of {}", position.next, target.next);
        }
        for block in &blocks {
            // Nothing here is ever taken back, so nothing is kept for it.
            state.begin();
            position = replay_block(&mut state, &mut reader, block, position)?;
        }
        if state.dirty_len() > DIRTY_RECORDS {
            let dirty = Dirty::take(&mut state, position);
            match writer.save(&dirty) {
                Ok(()) => evict(&mut state),
                Err(error) => {
                    tracing::warn!("the state cache could not be saved and is tried again: {error:#}");
                    dirty.put_back(&mut state);
                }
            }
        }
    }
    state.begin();
    if position != target {
        bail!(
            "the chain of the log ends in {:?}, but its outcomes lead to {:?}: the log was changed",
            target,
            position
        );
    }
    Ok((state, reader, writer))
}

/// Applies what was decided; nothing is decided again.
fn replay_block(state: &mut State, reader: &mut Reader, block: &Block, from: Position) -> Result<Position> {
    let mut position = from;
    for (event, outcome) in block.events().zip(block.outcomes()) {
        let ((src, event), (_, payload)) = (event?, outcome?);
        if src < position.next {
            continue;
        }
        let outcome: Outcome = serde_json::from_slice(payload).with_context(|| format!("outcome {src} of the log"))?;
        reader.load(state, &event)?;
        apply(state, Cause { src, appended: block.time }, &event, &outcome);
        position = Position { next: src + 1, chain: position.chain.next(payload) };
    }
    Ok(position)
}

pub(crate) fn evict(state: &mut State) {
    state.clicks.evict(CACHED_RECORDS, |_, click| click.is_some_and(|c| !c.waiting.is_empty()));
    state.names.evict(CACHED_RECORDS, |_, named| named.is_some_and(|n| !n.waiting.is_empty()));
    state.labels.evict(CACHED_RECORDS, |_, label| label.is_some_and(|l| !l.waiting.is_empty()));
}

type EventsAnswer = oneshot::Sender<Result<Vec<Receipt>, Unavailable>>;
type CatalogAnswer = oneshot::Sender<Result<Applied, Unavailable>>;
type SaveResult = std::result::Result<(), Dirty>;

struct Matcher {
    parts: Parts,
    state: State,
    reader: Reader,
    position: Position,
    run: EventId,
    n: u64,
    next_tick: Time,
    runtime: tokio::runtime::Runtime,
    save_jobs: SyncSender<Dirty>,
    save_results: Receiver<SaveResult>,
    saving: bool,
    last_save: Instant,
    saver: JoinHandle<()>,
}

/// Requests that are committed together.
#[derive(Default)]
struct Pending {
    answers: Vec<(EventsAnswer, usize)>,
    events: Vec<Event>,
    catalog: Vec<(Record, CatalogAnswer)>,
}

/// A batch that was decided and not yet committed.
struct Decided {
    blocks: Vec<Block>,
    outcomes: Vec<Arc<Outcome>>,
    end: Position,
}

impl Matcher {
    fn new(parts: Parts, state: State, reader: Reader, writer: Writer) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (save_jobs, jobs) = sync_channel::<Dirty>(1);
        let (results, save_results) = sync_channel(1);
        let saver = std::thread::Builder::new()
            .name("state-saver".to_owned())
            .spawn(move || save_all(writer, &jobs, &results))?;
        let position = parts.log.position();
        let run = new_run(clock::now(), state.meta.log_time);
        parts.end.set(position.next);
        Ok(Self {
            parts,
            state,
            reader,
            position,
            run,
            n: 0,
            next_tick: Time::from_ms(0),
            runtime,
            save_jobs,
            save_results,
            saving: false,
            last_save: Instant::now(),
            saver,
        })
    }

    fn run(mut self) -> Result<()> {
        self.switch_rules()?;
        self.parts.beat.set_ready(true);
        loop {
            self.parts.beat.beat();
            let mut pending = Pending::default();
            let open = self.collect(&mut pending);
            self.add_tick(&mut pending);
            if !pending.events.is_empty() || !pending.catalog.is_empty() {
                self.commit(pending)?;
            }
            self.save_if_due(!open);
            if !open {
                break;
            }
        }
        drop(self.save_jobs);
        if self.saver.join().is_err() {
            bail!("the thread that saves the state failed");
        }
        self.parts.beat.finish();
        Ok(())
    }

    /// One folder has one build at a time, so the newest rules that it knows are on from its start.
    fn switch_rules(&mut self) -> Result<()> {
        let (on, newest) = (self.state.meta.rules, *RULES.end());
        if on > newest {
            return Err(UnknownRules(on).into());
        }
        if on < newest {
            tracing::info!(from = on, to = newest, "new rules are switched on");
            let event = self.own_event(clock::now(), EventBody::Rules(newest));
            self.commit(Pending { events: vec![event], ..Pending::default() })?;
        }
        Ok(())
    }

    /// Waits for a request and takes what else is there. False when nobody can send any more.
    fn collect(&mut self, pending: &mut Pending) -> bool {
        if self.parts.stop.is_cancelled() {
            self.parts.requests.close();
        }
        let requests = &mut self.parts.requests;
        let first = match requests.try_recv() {
            Ok(request) => Some(request),
            Err(_) => match self.runtime.block_on(async { tokio::time::timeout(IDLE, requests.recv()).await }) {
                Ok(Some(request)) => Some(request),
                Ok(None) => return false,
                Err(_) => None,
            },
        };
        let mut next = first;
        while let Some(request) = next {
            self.take(pending, request);
            if pending.events.len() + pending.catalog.len() >= BATCH_EVENTS {
                break;
            }
            next = self.parts.requests.try_recv().ok();
        }
        true
    }

    fn take(&mut self, pending: &mut Pending, request: Request) {
        match request {
            Request::Events { events, answer, .. } => {
                pending.answers.push((answer, events.len()));
                for draft in events {
                    let event = self.number(draft);
                    pending.events.push(event);
                }
            }
            Request::Catalog { record, answer, .. } => pending.catalog.push((*record, answer)),
        }
    }

    fn number(&mut self, draft: Draft) -> Event {
        let event = draft.into_event(self.run, self.n);
        self.n += 1;
        event
    }

    /// Of nobody's making but the log's own.
    fn own_event(&mut self, now: Time, body: EventBody) -> Event {
        let id = EventId::new(now, 0, random_bits());
        self.number(Draft { id, tenant: String::new(), time: now, shard: 0, body })
    }

    /// One tick a minute. The numbers of a run are remembered for its silence, so a new run begins in time.
    fn add_tick(&mut self, pending: &mut Pending) {
        let now = clock::now();
        if !is_due(self.next_tick, now) {
            return;
        }
        self.next_tick = now.plus_ms(MINUTE_MS);
        let event = self.own_event(now, EventBody::Tick);
        pending.events.push(event);
        if now.since(self.run.time()) > RUN_LENGTH_MS {
            (self.run, self.n) = (new_run(now, self.state.meta.log_time), 0);
        }
    }

    fn commit(&mut self, pending: Pending) -> Result<()> {
        let Pending { answers, events, catalog } = pending;
        let started = Instant::now();
        self.state.begin();
        let first = self.position.next;
        let decided = match self.decide_all(&events) {
            Err(error) if error.is::<BadCache>() => {
                // The next start must not meet the same file again.
                store::delete(&self.parts.dir)?;
                return Err(error.context("the process ends, and the next start rebuilds the state from the log"));
            }
            decided => decided?,
        };
        let first_record = self.parts.log.catalog_next();
        let records = catalog.iter().enumerate().map(|(at, (record, _))| {
            Ok((first_record + at as u64, serde_json::to_vec(record).context("a catalog record cannot be written")?))
        });
        let records: Vec<(u64, Vec<u8>)> = records.collect::<Result<_>>()?;
        match self.parts.log.append(&decided.blocks, &records) {
            Ok(()) => {}
            Err(LogError::NoRoom(why)) => {
                // Nothing of the batch is in the log, so nothing of it may stay in memory.
                self.state.rollback();
                metrics::counter!("clickback_log_refused_batches_total").increment(1);
                tracing::error!("the log cannot be written: {why}");
                refuse(answers, catalog, &Unavailable::NotDurable(why));
                return Ok(());
            }
            Err(LogError::Fatal(why)) => {
                refuse(answers, catalog, &Unavailable::NotDurable(why.clone()));
                bail!("the log failed in a way that only a restart can judge: {why}");
            }
        }
        self.position = decided.end;
        self.parts.end.set(decided.end.next);
        self.answer(first, answers, catalog);
        metrics::histogram!("clickback_log_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("clickback_log_events_total").increment(events.len() as u64);
        if !decided.outcomes.is_empty() {
            let batch = Arc::new(Batch { first, end: decided.end, outcomes: decided.outcomes });
            if let Err(TrySendError::Disconnected(_)) = self.parts.batches.try_send(batch) {
                tracing::debug!("no projector takes batches");
            }
        }
        Ok(())
    }

    fn decide_all(&mut self, events: &[Event]) -> Result<Decided> {
        let appended = clock::now();
        let mut position = self.position;
        let mut blocks = Vec::with_capacity(events.len().div_ceil(BLOCK_EVENTS));
        let mut outcomes = Vec::with_capacity(events.len());
        for chunk in events.chunks(BLOCK_EVENTS) {
            let mut block = Block {
                first: position.next,
                count: chunk.len() as u32,
                time: appended,
                events: Vec::with_capacity(chunk.len() * 1024),
                outcomes: Vec::with_capacity(chunk.len() * 1024),
                prev: position.chain,
                chain: position.chain,
            };
            for event in chunk {
                let cause = Cause { src: position.next, appended };
                self.reader.load(&mut self.state, event)?;
                let outcome = decide(&self.state, cause, event)?;
                apply(&mut self.state, cause, event, &outcome);
                serde_json::to_writer(&mut block.events, event).context("an event cannot be written")?;
                block.events.push(b'\n');
                let from = block.outcomes.len();
                serde_json::to_writer(&mut block.outcomes, &outcome).context("an outcome cannot be written")?;
                let chain: Chain = position.chain.next(&block.outcomes[from..]);
                block.outcomes.push(b'\n');
                position = Position { next: position.next + 1, chain };
                outcomes.push(Arc::new(outcome));
            }
            block.chain = position.chain;
            blocks.push(block);
        }
        Ok(Decided { blocks, outcomes, end: position })
    }

    fn answer(&self, first: u64, answers: Vec<(EventsAnswer, usize)>, catalog: Vec<(Record, CatalogAnswer)>) {
        let mut src = first;
        for (answer, count) in answers {
            let receipts = (src..src + count as u64).map(|src| Receipt::Logged { partition: 0, src }).collect();
            src += count as u64;
            // Somebody who no longer waits is not an error: the event is in the log.
            answer.send(Ok(receipts)).ok();
        }
        for (record, answer) in catalog {
            let applied = self.parts.catalog.apply(&record);
            answer.send(Ok(applied)).ok();
        }
    }

    /// Hands changed records to the saving thread, at most one save at a time.
    fn save_if_due(&mut self, last: bool) {
        if self.saving {
            let result = if last { self.save_results.recv().ok() } else { self.save_results.try_recv().ok() };
            match result {
                None => return,
                Some(Ok(())) => evict(&mut self.state),
                Some(Err(dirty)) => dirty.put_back(&mut self.state),
            }
            self.saving = false;
        }
        let dirty = self.state.dirty_len();
        if last || dirty >= DIRTY_RECORDS || (self.last_save.elapsed() >= SAVE_EVERY && self.state.runs.dirty_len() > 0)
        {
            self.last_save = Instant::now();
            self.saving = self.save_jobs.send(Dirty::take(&mut self.state, self.position)).is_ok();
        }
    }
}

fn save_all(mut writer: Writer, jobs: &Receiver<Dirty>, results: &SyncSender<SaveResult>) {
    while let Ok(dirty) = jobs.recv() {
        let result = match writer.save(&dirty) {
            Ok(()) => Ok(()),
            Err(error) => {
                // The cache may be behind for as long as it has to: the log has everything.
                tracing::warn!("the state cache could not be saved and is tried again: {error:#}");
                Err(dirty)
            }
        };
        if results.send(result).is_err() {
            return;
        }
    }
}

fn refuse(answers: Vec<(EventsAnswer, usize)>, catalog: Vec<(Record, CatalogAnswer)>, why: &Unavailable) {
    for (answer, _) in answers {
        answer.send(Err(why.clone())).ok();
    }
    for (_, answer) in catalog {
        answer.send(Err(why.clone())).ok();
    }
}

/// A run must not begin before the log time, which a clock that was wrong may have moved ahead: its events would be
/// taken for those of a run that is long forgotten.
pub(crate) fn new_run(now: Time, log_time: Time) -> EventId {
    EventId::new(now.max(log_time), 0, random_bits())
}

/// A clock that was set back must not stop the ticks until it is there again.
pub(crate) fn is_due(next_tick: Time, now: Time) -> bool {
    now >= next_tick || next_tick.since(now) > MINUTE_MS
}

#[cfg(test)]
mod tests;
