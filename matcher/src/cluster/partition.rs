//! One partition: reads both logs, does what the replica says, saves the state.
//!
//! Owns: the two readers, the sender, the folder of the state.
//! Refuses: to save a state that is ahead of the outcomes that it met; to go on after an alarm.
//! Invariant: after any doubt, error or broken connection it begins again from the saved state. Nothing in memory
//! outlives a doubt.

mod life;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use metrics::{counter, gauge};
use pipeline::{
    kafka::{Cluster, PartitionReader, Problem, Sender, Topic},
    lifecycle::CancellationToken,
};
use schemas::chain::Position;

use self::life::{Life, Turn};
use crate::{
    RULES,
    replica::{Checkpoint, Ends, Limits, Replica},
    store::{self, BadCache},
};

/// Records that are fetched ahead, per topic and partition.
const FETCHED_KBYTES: u32 = 2_048;
/// Events before a checkpoint that are compared with their outcomes.
const COMPARED: u64 = 1_000;
/// Outcomes that are sent and not met yet.
const IN_FLIGHT: usize = 4_096;
/// Between two beginnings, when something is wrong with Kafka.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) enum End {
    Stopped,
    /// An alarm was raised: nobody can go on before somebody has looked at it.
    Halted,
    Released(u32),
}

pub(super) struct Partition {
    cluster: Cluster,
    number: u16,
    dir: PathBuf,
    events: PartitionReader,
    outcomes: PartitionReader,
    stop: CancellationToken,
}

impl Partition {
    pub(super) fn open(cluster: &Cluster, number: u16, dir: PathBuf, stop: CancellationToken) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let reader = |topic| PartitionReader::open(cluster, topic, number, FETCHED_KBYTES);
        let (events, outcomes) = (reader(Topic::Events)?, reader(Topic::Outcomes)?);
        Ok(Self { cluster: cluster.clone(), number, dir, events, outcomes, stop })
    }

    pub(super) fn run(mut self) -> Result<End> {
        let label = self.number.to_string();
        gauge!("clickback_matcher_halted", "partition" => label.clone()).set(0.0);
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            match self.live() {
                Ok(Turn::Stopped) => break,
                Ok(Turn::Again(doubt)) => tracing::warn!(partition = self.number, "begins again: {doubt}"),
                Ok(Turn::Drop(doubt)) => {
                    tracing::warn!(partition = self.number, "the saved state is dropped: {doubt}");
                    if !store::step_back(&self.dir)? {
                        store::delete(&self.dir)?;
                    }
                }
                Ok(Turn::Halt(alarm)) => {
                    gauge!("clickback_matcher_halted", "partition" => label.clone()).set(1.0);
                    tracing::error!(partition = self.number, "ALARM, the partition is halted: {alarm}");
                    return Ok(End::Halted);
                }
                Ok(Turn::Release(version)) => return Ok(End::Released(version)),
                Err(error) if error.is::<BadCache>() => {
                    tracing::error!(partition = self.number, "{error:#}; the state is rebuilt from the log");
                    store::delete(&self.dir)?;
                }
                Err(error) => match error.downcast_ref::<Problem>() {
                    Some(Problem::Unreachable(why)) => tracing::warn!(partition = self.number, "{why}"),
                    _ => return Err(error),
                },
            }
            counter!("clickback_matcher_beginnings_total", "partition" => label.clone()).increment(1);
            while began.elapsed() < PAUSE && !self.stop.is_cancelled() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(End::Stopped)
    }

    /// From a saved state, or from nothing, to the next doubt.
    fn live(&mut self) -> Result<Turn> {
        // In this order, so that every outcome up to its end has its event before the other end.
        let (first_outcome, outcomes) = self.outcomes.ends()?;
        let (first_event, events) = self.events.ends()?;
        let ends = Ends { events, outcomes };
        let (reader, mut writer, state, position) = store::open(&self.dir)?;
        writer.keep_history()?;
        let checkpoint = match reader.anchor()? {
            Some(anchor) => Checkpoint { state: position, anchor },
            None if position == Position::START => Checkpoint::EMPTY,
            None => return Err(anyhow::Error::from(BadCache)),
        };
        if !RULES.contains(&state.meta.rules) {
            return Ok(Turn::Release(state.meta.rules));
        }
        let limits = Limits { compared: COMPARED, in_flight: IN_FLIGHT, rules: RULES };
        let replica = Replica::begin(checkpoint, ends, limits);
        let (from_event, from_outcome) = (replica.reads_events_from(), replica.reads_outcomes_from());
        if from_event < first_event || from_outcome < first_outcome {
            bail!(
                "event {from_event} or outcome {from_outcome} was deleted, and there is no later state to begin from: bring back the state's folder or the topics from a back-up"
            );
        }
        self.events.seek(from_event)?;
        // Of outcomes that end before the state there is nothing to read; the replica says what that means.
        let readable = from_outcome <= outcomes;
        if readable {
            self.outcomes.seek(from_outcome)?;
        }
        tracing::info!(
            partition = self.number,
            state = checkpoint.state.next,
            from_event,
            from_outcome,
            events,
            outcomes,
            "begins"
        );
        let sender = Sender::open(&self.cluster, self.number)?;
        Life::new(self, replica, (reader, writer, state), sender, readable).run()
    }
}
