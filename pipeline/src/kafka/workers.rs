//! The partitions that this process works on: a thread each, begun and ended as the group says.
//!
//! Owns: the threads. Refuses: to believe in being the only one; what a thread does must be harmless when another process
//! does the same.
//! Invariant: at most one thread of this process works on a partition.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    Cluster,
    group::{Group, Move},
};
use crate::lifecycle::{Beat, CancellationToken};

const POLL: Duration = Duration::from_millis(100);

/// What a role does with one partition, until its token is cancelled.
pub type Work<E> = Box<dyn FnOnce() -> Result<E> + Send>;

/// Works on the partitions that the group gives, until `stop`. Blocking.
///
/// `open` is called for each partition that is given, with the token that will end its work; `ended` says what the end of
/// a piece of work means: an error ends the process.
pub fn share<E: Send + 'static>(
    cluster: &Cluster,
    role: &'static str,
    (beat, stop): (Beat, &CancellationToken),
    open: impl FnMut(u16, CancellationToken) -> Result<Work<E>>,
    ended: fn(u16, E) -> Result<()>,
) -> Result<()> {
    let (moves, moved) = channel();
    let group = Group::join(cluster, role, moves)?;
    let mut workers = Workers { role, open, ended, moved, working: BTreeMap::new(), leaving: Vec::new() };
    let result = workers.run(&group, &beat, stop);
    // The others take over at once, and do not have to wait until this process is missed.
    drop(group);
    let left = workers.leave();
    beat.finish();
    result.and(left)
}

struct Worker<E> {
    stop: CancellationToken,
    thread: JoinHandle<Result<E>>,
}

struct Workers<E, O> {
    role: &'static str,
    open: O,
    ended: fn(u16, E) -> Result<()>,
    moved: Receiver<Move>,
    working: BTreeMap<u16, Worker<E>>,
    /// Of partitions that were taken away, while they finish.
    leaving: Vec<(u16, Worker<E>)>,
}

impl<E: Send + 'static, O: FnMut(u16, CancellationToken) -> Result<Work<E>>> Workers<E, O> {
    fn run(&mut self, group: &Group, beat: &Beat, stop: &CancellationToken) -> Result<()> {
        beat.set_ready(true);
        while !stop.is_cancelled() {
            beat.beat();
            group.poll(POLL)?;
            while let Ok(moved) = self.moved.try_recv() {
                match moved {
                    Move::Given(partitions) => partitions.into_iter().try_for_each(|number| self.begin(number))?,
                    Move::Taken(partitions) => partitions.into_iter().for_each(|number| self.end(number)),
                }
            }
            self.look_after()?;
        }
        Ok(())
    }

    fn begin(&mut self, number: u16) -> Result<()> {
        if self.working.contains_key(&number) {
            return Ok(());
        }
        // It may just be leaving, and what it leaves behind has room for one.
        while let Some(at) = self.leaving.iter().position(|(leaving, _)| *leaving == number) {
            let (_, worker) = self.leaving.swap_remove(at);
            self.finish(number, worker)?;
        }
        tracing::info!(partition = number, "works on a partition");
        let stop = CancellationToken::new();
        let work = (self.open)(number, stop.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("{}-{number}", self.role))
            .spawn(work)
            .context("cannot start a partition's thread")?;
        self.working.insert(number, Worker { stop, thread });
        Ok(())
    }

    fn end(&mut self, number: u16) {
        if let Some(worker) = self.working.remove(&number) {
            tracing::info!(partition = number, "leaves a partition");
            worker.stop.cancel();
            self.leaving.push((number, worker));
        }
    }

    /// A partition that halted stays with its thread gone: nobody else could do better.
    fn look_after(&mut self) -> Result<()> {
        let finished: Vec<u16> =
            self.working.iter().filter(|(_, worker)| worker.thread.is_finished()).map(|(number, _)| *number).collect();
        for number in finished {
            if let Some(worker) = self.working.remove(&number) {
                self.finish(number, worker)?;
            }
        }
        let (gone, leaving) = self.leaving.drain(..).partition(|(_, worker)| worker.thread.is_finished());
        self.leaving = leaving;
        let gone: Vec<(u16, Worker<E>)> = gone;
        gone.into_iter().try_for_each(|(number, worker)| self.finish(number, worker))
    }

    fn leave(&mut self) -> Result<()> {
        let all: Vec<(u16, Worker<E>)> =
            std::mem::take(&mut self.working).into_iter().chain(self.leaving.drain(..)).collect();
        all.iter().for_each(|(_, worker)| worker.stop.cancel());
        all.into_iter().map(|(number, worker)| self.finish(number, worker)).fold(Ok(()), Result::and)
    }

    fn finish(&self, number: u16, worker: Worker<E>) -> Result<()> {
        let Ok(end) = worker.thread.join() else { bail!("the thread of partition {number} failed") };
        (self.ended)(number, end.with_context(|| format!("partition {number}"))?)
    }
}
