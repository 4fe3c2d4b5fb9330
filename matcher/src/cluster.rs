//! The matcher of a cluster: `replica` on Kafka, one thread per partition.
//!
//! Owns: which partitions this process works on, their folders, their threads, and the end of the process.
//! Refuses: to believe in being the only one. The consumer group says who should work on a partition; its offsets are
//! neither committed nor read, and nothing is fetched by it. Two processes on one partition do no harm.
//! Invariant: whatever happens to a partition here, its state is a function of `events[p]` and `outcomes[p]`.

mod group;
mod partition;
mod sender;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use pipeline::{
    kafka::{Cluster, Layout},
    lifecycle::{Beat, CancellationToken},
};

use self::{
    group::{Group, Move},
    partition::{End, Partition},
};
use crate::UnknownRules;

const POLL: Duration = Duration::from_millis(100);

pub struct Parts {
    pub cluster: Cluster,
    pub layout: Layout,
    /// Folder of the state; it can be deleted while nobody works on it.
    pub state: PathBuf,
    pub beat: Beat,
    pub stop: CancellationToken,
}

/// Takes the folder, joins the group and starts the thread. It ends after `stop`, or with what ended it.
pub fn start(parts: Parts) -> Result<JoinHandle<Result<()>>> {
    // Topics that are made anew have a new id, and so a state that begins anew.
    let dir = parts.state.join(parts.layout.id.to_string());
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let lock = lock(&parts.state)?;
    std::thread::Builder::new()
        .name("matcher".to_owned())
        .spawn(move || {
            let _lock = lock;
            let (moves, moved) = channel();
            let group = Group::join(&parts.cluster, moves)?;
            let mut matcher = Matcher { parts, dir, moved, working: BTreeMap::new(), leaving: Vec::new() };
            let result = matcher.run(&group);
            // The others take over at once, and do not have to wait until this process is missed.
            drop(group);
            let left = matcher.leave();
            matcher.parts.beat.finish();
            result.and(left)
        })
        .context("cannot start the matcher's thread")
}

/// Of two processes with one folder, each would save over the other's state.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("another matcher works on the folder {}: give each one its own --state", dir.display()),
    }
}

struct Worker {
    stop: CancellationToken,
    thread: JoinHandle<Result<End>>,
}

struct Matcher {
    parts: Parts,
    dir: PathBuf,
    moved: Receiver<Move>,
    working: BTreeMap<u16, Worker>,
    /// Of partitions that were taken away, while they save what they have.
    leaving: Vec<(u16, Worker)>,
}

impl Matcher {
    fn run(&mut self, group: &Group) -> Result<()> {
        self.parts.beat.set_ready(true);
        while !self.parts.stop.is_cancelled() {
            self.parts.beat.beat();
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
        // It may just be leaving; its folder has room for one.
        while let Some(at) = self.leaving.iter().position(|(leaving, _)| *leaving == number) {
            let (_, worker) = self.leaving.swap_remove(at);
            ended(number, worker)?;
        }
        tracing::info!(partition = number, "works on a partition");
        let stop = CancellationToken::new();
        let dir = self.dir.join(number.to_string());
        let partition = Partition::open(&self.parts.cluster, number, dir, stop.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("matcher-{number}"))
            .spawn(move || partition.run())
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
                ended(number, worker)?;
            }
        }
        let (gone, leaving) = self.leaving.drain(..).partition(|(_, worker)| worker.thread.is_finished());
        self.leaving = leaving;
        let gone: Vec<(u16, Worker)> = gone;
        gone.into_iter().try_for_each(|(number, worker)| ended(number, worker))
    }

    fn leave(&mut self) -> Result<()> {
        let all: Vec<(u16, Worker)> =
            std::mem::take(&mut self.working).into_iter().chain(self.leaving.drain(..)).collect();
        all.iter().for_each(|(_, worker)| worker.stop.cancel());
        all.into_iter().map(|(number, worker)| ended(number, worker)).fold(Ok(()), Result::and)
    }
}

/// What the end of one partition's thread means for the process.
fn ended(number: u16, worker: Worker) -> Result<()> {
    let Ok(end) = worker.thread.join() else { bail!("the thread of partition {number} failed") };
    match end.with_context(|| format!("partition {number}"))? {
        End::Stopped | End::Halted => Ok(()),
        End::Released(version) => Err(UnknownRules(version).into()),
    }
}
