//! The projector's thread: batches in, flushed tables out.
//!
//! Owns: the live generation of the tables and its position. Refuses to stand in the matcher's way: a batch that does
//! not come is read from the log.
//! Invariant: `visible` moves only after the commit that makes it true, and its heart beats only where that position
//! moves or has nowhere to go: a thread that tries the same thing for ever counts as stuck.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use pipeline::{
    lifecycle::Beat,
    log::{Batch, LogEnd, LogReader},
};
use schemas::{Outcome, chain::Position};
use tokio::sync::{broadcast, oneshot, watch};

use crate::{
    report::{Decided, Reports},
    tables::{
        Tables,
        generation::{self, Generation, OfTheLog},
    },
};

/// The longest time that something taken waits for its flush.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Between two flushes lies at least this many times what the last one took, so that small flushes stay cheap.
const WAIT_PER_FLUSH: u32 = 20;
/// How often the thread looks at the log's end and at requests while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// Outcomes of one flush.
const FLUSH_OUTCOMES: u64 = 32_768;
/// Bytes read from the log at once.
const READ_BYTES: usize = 4 * 1024 * 1024;
/// How long the log is read before batches, requests and the end are looked at again.
const READ_FOR: Duration = Duration::from_millis(200);
/// How long the log is read at the end. What is left then is read at the next start.
const LAST_READ_FOR: Duration = Duration::from_secs(2);
/// How long to wait after an error, as while the disk is full.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// A rebuild is switched to when it is this near to the end.
const NEAR: u64 = 4_096;
/// Decided hits that a slow listener may be behind.
const LISTENER_QUEUE: usize = 1_024;

type Done = oneshot::Sender<Result<()>>;

/// A running projector. Dropping the batch sender ends its thread after a last flush.
pub struct Projector {
    /// The next `src` that the tables do not show yet. Moves after a commit only; closes when the thread ends.
    pub visible: watch::Receiver<u64>,
    pub reports: Reports,
    /// Hits as they are decided, after they are visible. A slow listener loses the oldest.
    pub decided: broadcast::Sender<Arc<Vec<Decided>>>,
    control: mpsc::Sender<Done>,
    thread: thread::JoinHandle<Result<()>>,
}

/// Opens (or rebuilds) the tables in `dir` and follows the log. Returns at once; `visible` says how far it is.
///
/// It is ready from the start: postbacks are taken and reports are answered while the tables are behind, and what must
/// not be behind asks with `after`.
pub fn spawn(
    dir: &Path,
    log: LogReader,
    batches: Receiver<Arc<Batch>>,
    end: Arc<LogEnd>,
    beat: Beat,
) -> Result<Projector> {
    let (generation, tables) = generation::open(dir, &log)?;
    let reports = Reports::at(&generation.path);
    let (visible, seen) = watch::channel(tables.position().next);
    let (decided, _) = broadcast::channel(LISTENER_QUEUE);
    let (control, requests) = mpsc::channel();
    beat.set_ready(true);
    let links = Links { reports: reports.clone(), visible, decided: decided.clone(), requests, beat };
    let follower = Follower::new(dir, log, end, (generation, tables), links);
    let thread = thread::Builder::new()
        .name("projector".to_owned())
        .spawn(move || follower.run(&batches))
        .context("cannot start the projector's thread")?;
    Ok(Projector { visible: seen, reports, decided, control, thread })
}

/// What the thread shares with its `Projector`.
struct Links {
    reports: Reports,
    visible: watch::Sender<u64>,
    decided: broadcast::Sender<Arc<Vec<Decided>>>,
    requests: Receiver<Done>,
    beat: Beat,
}

impl Projector {
    /// Builds new tables beside the live ones, and switches when they are complete. Answers after the switch.
    pub async fn rebuild(&self) -> Result<()> {
        let (answer, done) = oneshot::channel();
        self.control.send(answer).map_err(|_| anyhow!("the projector has ended"))?;
        done.await.context("the projector ended before the new tables were complete")?
    }
    /// Waits for the end of the thread, which follows the end of the batches.
    pub fn join(self) -> Result<()> {
        self.thread.join().map_err(|_| anyhow!("the projector's thread panicked"))?
    }
}

struct Follower {
    dir: PathBuf,
    log: LogReader,
    end: Arc<LogEnd>,
    generation: Generation,
    tables: Tables,
    links: Links,
    /// Hits decided since the last flush; kept only while somebody listens.
    news: Vec<Decided>,
    /// The end of what was taken since the last flush.
    taken: Option<Position>,
    flushed: Instant,
    /// The position at the last beat, in this generation.
    beaten: u64,
    /// How long to gather before the next flush.
    wait: Duration,
    building: Option<Building>,
    /// The highest number that a file of tables had, of those that are being built, too.
    number: u32,
    /// More is in the log than could be read at once; batches are left alone until it is read.
    behind: bool,
    /// Nobody sends batches any more.
    ended: bool,
}

/// A generation that is being built on a thread of its own.
struct Building {
    done: Done,
    built: Receiver<Result<(Generation, Tables)>>,
}

impl Follower {
    fn new(
        dir: &Path,
        log: LogReader,
        end: Arc<LogEnd>,
        (generation, tables): (Generation, Tables),
        links: Links,
    ) -> Follower {
        Follower {
            number: generation.number,
            beaten: tables.position().next,
            dir: dir.to_owned(),
            log,
            end,
            generation,
            tables,
            links,
            news: Vec::new(),
            taken: None,
            flushed: Instant::now(),
            wait: Duration::ZERO,
            building: None,
            behind: false,
            ended: false,
        }
    }

    fn run(mut self, batches: &Receiver<Arc<Batch>>) -> Result<()> {
        loop {
            let turn = self.turn(batches);
            if self.has_moved(turn.is_ok()) {
                self.links.beat.beat();
            }
            match turn {
                Ok(Turn::On) => {}
                Ok(Turn::Ended) => {
                    self.links.beat.finish();
                    return Ok(());
                }
                Err(error) => {
                    metrics::counter!("clickback_projector_errors_total").increment(1);
                    if self.ended {
                        // Nothing is lost: the next start reads it from the log. A stop must not wait for room.
                        return Err(error.context("the last outcomes are not in the tables yet"));
                    }
                    tracing::error!(error = format!("{error:#}"), "the projector cannot go on; it tries again");
                    thread::sleep(AFTER_ERROR);
                    self.reopen(&error);
                }
            }
        }
    }

    /// Whether the last turn made progress, or there was none to be made. What a flush did not commit does not count: an
    /// error takes it back.
    fn has_moved(&mut self, went_well: bool) -> bool {
        let next = self.tables.position().next;
        let moved = next > self.beaten || (went_well && next >= self.end.get());
        self.beaten = next;
        moved
    }

    /// One wait, everything that came meanwhile, and a flush if it is time.
    fn turn(&mut self, batches: &Receiver<Arc<Batch>>) -> Result<Turn> {
        let wait = match self.taken {
            _ if self.behind => Duration::ZERO,
            Some(_) => self.wait.saturating_sub(self.flushed.elapsed()),
            None => LOOK,
        };
        match batches.recv_timeout(wait) {
            Ok(batch) => {
                self.take(&batch)?;
                loop {
                    match batches.try_recv() {
                        Ok(batch) => self.take(&batch)?,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            self.ended = true;
                            break;
                        }
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.ended = true,
        }
        if self.ended {
            self.catch_up(u64::MAX, LAST_READ_FOR)?;
        } else if self.behind || (self.taken.is_none() && self.tables.next() < self.end.get()) {
            self.catch_up(u64::MAX, READ_FOR)?;
        }
        if self.ended || self.flushed.elapsed() >= self.wait {
            self.flush()?;
        }
        self.rebuilds()?;
        if self.ended {
            if self.behind {
                tracing::info!(next = self.tables.next(), "the tables are behind; the next start goes on from here");
            }
            self.tables.checkpoint()?;
            return Ok(Turn::Ended);
        }
        Ok(Turn::On)
    }

    fn take(&mut self, batch: &Batch) -> Result<()> {
        if batch.first > self.tables.next() {
            if !self.behind {
                self.catch_up(batch.first, READ_FOR)?;
            }
            if batch.first > self.tables.next() {
                // It is in the log, too.
                return Ok(());
            }
        }
        // What was read from the log meanwhile is not taken twice.
        let known = self.tables.next().saturating_sub(batch.first);
        if batch.end.next <= self.tables.next() {
            return Ok(());
        }
        let outcomes = batch.outcomes.iter().skip(known as usize).map(|outcome| &**outcome);
        self.listen(outcomes.clone());
        self.tables.take(batch.first + known, outcomes)?;
        self.taken = Some(batch.end);
        self.flush_if_full()
    }

    /// Reads the log up to `to`, or to its end, as long as there is time.
    fn catch_up(&mut self, to: u64, time: Duration) -> Result<()> {
        let began = Instant::now();
        self.behind = false;
        while self.tables.next() < to {
            if began.elapsed() >= time {
                self.behind = true;
                return Ok(());
            }
            let Some(end) = take_from_log(&self.log, &mut self.tables)? else { return Ok(()) };
            self.taken = Some(end);
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<()> {
        let unflushed = self.tables.next() - self.tables.position().next;
        if unflushed >= FLUSH_OUTCOMES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(end) = self.taken else { return Ok(()) };
        let began = Instant::now();
        self.tables.flush(end)?;
        let took = began.elapsed();
        self.taken = None;
        self.links.visible.send_replace(end.next);
        if !self.news.is_empty() {
            // Nobody listening is no error.
            drop(self.links.decided.send(Arc::new(std::mem::take(&mut self.news))));
        }
        metrics::histogram!("clickback_projector_flush_seconds").record(took.as_secs_f64());
        metrics::gauge!("clickback_projector_position").set(end.next as f64);
        if self.tables.needs_checkpoint() {
            self.tables.checkpoint()?;
        }
        self.flushed = Instant::now();
        self.wait = (took * WAIT_PER_FLUSH).min(LONGEST_WAIT);
        Ok(())
    }

    fn listen<'o>(&mut self, outcomes: impl Iterator<Item = &'o Outcome>) {
        if self.links.decided.receiver_count() == 0 {
            return;
        }
        for hit in outcomes.flat_map(|outcome| &outcome.hits) {
            let (tenant, account) = (hit.tenant.clone(), hit.account.clone());
            self.news.push(Decided { tenant, account, hit: hit.hit.id });
        }
    }

    /// After an error the writer's memory is not to be trusted: the file is opened again, or built again.
    fn reopen(&mut self, error: &anyhow::Error) {
        (self.taken, self.wait) = (None, Duration::ZERO);
        self.news.clear();
        let same =
            if generation::is_broken(error) { Ok(None) } else { generation::reopen(&self.generation, &self.log) };
        let number = self.new_number();
        let opened = same.and_then(|same| match same {
            Some(tables) => Ok((self.generation.clone(), tables)),
            None => generation::create(&self.dir, number, true),
        });
        if let Err(error) = opened.and_then(|(generation, tables)| self.switch(generation, tables)) {
            tracing::error!(error = format!("{error:#}"), "the tables cannot be opened");
        }
    }

    fn new_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn switch(&mut self, generation: Generation, tables: Tables) -> Result<()> {
        let old = std::mem::replace(&mut self.generation, generation);
        self.tables = tables;
        if old != self.generation {
            self.links.reports.live()?.switch(&self.generation.path);
            if let Err(error) = old.delete() {
                tracing::warn!(error = format!("{error:#}"), "old tables stay behind until the next start");
            }
        }
        self.links.visible.send_replace(self.tables.position().next);
        Ok(())
    }

    fn rebuilds(&mut self) -> Result<()> {
        if let Some(building) = &self.building {
            match building.built.try_recv() {
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.answer(Err(anyhow!("the rebuild's thread ended"))),
                Ok(built) => {
                    let switched = built.and_then(|(generation, tables)| self.finish(generation, tables));
                    self.answer(switched);
                }
            }
        } else if let Ok(done) = self.links.requests.try_recv() {
            let (sender, built) = mpsc::channel();
            let (dir, number, end) = (self.dir.clone(), self.new_number(), Arc::clone(&self.end));
            thread::Builder::new().name("rebuild".to_owned()).spawn(move || {
                // The projector has ended if nobody takes it; the file is deleted at the next start.
                drop(sender.send(build(&dir, number, &end)));
            })?;
            self.building = Some(Building { done, built });
        }
        Ok(())
    }

    fn answer(&mut self, result: Result<()>) {
        if let Some(building) = self.building.take() {
            // The asker may have gone.
            drop(building.done.send(result));
        }
    }

    /// Brings new tables to where the live ones and the log are, and makes them the live ones.
    fn finish(&mut self, generation: Generation, mut tables: Tables) -> Result<()> {
        self.flush()?;
        let mut end = tables.position();
        let to = self.tables.next().max(self.end.get());
        while tables.next() < to {
            end = take_from_log(&self.log, &mut tables)?.context("the log is shorter than the tables")?;
        }
        tables.flush(end)?;
        tables.set_live()?;
        self.switch(generation, tables)
    }
}

enum Turn {
    On,
    Ended,
}

/// Takes the next piece of the log; gives the position after it. `None`: there is no more.
fn take_from_log(log: &LogReader, tables: &mut Tables) -> Result<Option<Position>> {
    let blocks = log.outcome_blocks(tables.next(), READ_BYTES).context(OfTheLog)?;
    let mut end = None;
    for block in blocks {
        let mut outcomes = Vec::with_capacity(block.count as usize);
        let first = tables.next();
        for line in block.outcomes() {
            let (src, payload) = line?;
            if src >= first {
                outcomes.push(serde_json::from_slice(payload).with_context(|| format!("outcome {src} of the log"))?);
            }
        }
        tables.take(first, &outcomes)?;
        end = Some(Position { next: block.end(), chain: block.chain });
    }
    Ok(end)
}

fn build(dir: &Path, number: u32, end: &LogEnd) -> Result<(Generation, Tables)> {
    let log = LogReader::open(dir)?;
    let (generation, mut tables) = generation::create(dir, number, false)?;
    loop {
        let position = take_from_log(&log, &mut tables)?;
        if let Some(position) = position {
            tables.flush(position)?;
            if tables.needs_checkpoint() {
                tables.checkpoint()?;
            }
        }
        if position.is_none() || tables.next() + NEAR >= end.get() {
            return Ok((generation, tables));
        }
    }
}

#[cfg(test)]
pub fn catch_up_for_tests(log: &LogReader, tables: &mut Tables) {
    while let Some(end) = take_from_log(log, tables).unwrap() {
        tables.flush(end).unwrap();
    }
}

#[cfg(test)]
mod tests;
