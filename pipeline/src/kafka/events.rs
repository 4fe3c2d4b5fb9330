//! Single events of the log, by their place.
//!
//! Owns: readers of the partitions that were asked for, and the events read lately. Events asked for in the order of the
//! log are read in one go.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::Message;
use schemas::{Event, Outcome};

use super::{Cluster, PartitionReader, Problem, ReadError, Topic, records};

const FETCHED_KBYTES: u32 = 4_096;
/// Events kept.
const KEPT: usize = 4_096;
/// Places that are read over rather than jumped over.
const READ_OVER: u64 = 512;
const ANSWER: Duration = Duration::from_secs(10);

pub struct EventReader {
    cluster: Cluster,
    readers: BTreeMap<u16, PartitionReader>,
    kept: BTreeMap<(u16, u64), Event>,
}

impl EventReader {
    pub fn new(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), readers: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// The event at a place that is known to have one. Blocking.
    pub fn get(&mut self, partition: u16, src: u64) -> Result<Event> {
        if let Some(known) = self.kept.get(&(partition, src)) {
            return Ok(known.clone());
        }
        let place = || format!("event {partition}-{src}");
        let reader = match self.readers.entry(partition) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(PartitionReader::open(&self.cluster, Topic::Events, partition, FETCHED_KBYTES)?)
            }
        };
        // A reader that was never told where to begin is at 0, and gives nothing.
        if reader.next() == 0 || src < reader.next() || src > reader.next() + READ_OVER {
            reader.seek(src)?;
        }
        let until = Instant::now() + ANSWER;
        while Instant::now() < until {
            match reader.poll(Duration::from_millis(100)) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or_default();
                    if records::is_identity(message.headers()) {
                        continue;
                    }
                    let event = records::decode_event(message.payload()).with_context(place)?;
                    if self.kept.len() >= KEPT {
                        self.kept.pop_first();
                    }
                    self.kept.insert((partition, offset), event.clone());
                    if offset == src {
                        return Ok(event);
                    }
                }
                Err(ReadError::Gone(why)) => bail!("{} is not in the log any more: {why}", place()),
                Err(ReadError::Away(why)) => return Err(Problem::Unreachable(why).into()),
            }
        }
        Err(Problem::Unreachable(format!("{} is not given", place())).into())
    }
}

/// The outcome of an event that is known to have one. Several records may be of it; they all have the same bytes. Blocking.
pub fn outcome(cluster: &Cluster, partition: u16, src: u64) -> Result<Outcome> {
    let place = || format!("the outcome of event {partition}-{src}");
    let mut reader = PartitionReader::open(cluster, Topic::Outcomes, partition, FETCHED_KBYTES)?;
    // Each event has at least one outcome and the log begins with one record that is none, so it is not before.
    reader.seek(src)?;
    let until = Instant::now() + ANSWER;
    while Instant::now() < until {
        match reader.poll(Duration::from_millis(100)) {
            Ok(None) => {}
            Ok(Some(message)) => {
                let link = records::decode_link(message.headers()).with_context(place)?;
                if link.src == src {
                    let payload = message.payload().with_context(place)?;
                    return serde_json::from_slice(payload).with_context(place);
                }
            }
            Err(ReadError::Gone(why)) => bail!("{} is not in the log any more: {why}", place()),
            Err(ReadError::Away(why)) => return Err(Problem::Unreachable(why).into()),
        }
    }
    Err(Problem::Unreachable(format!("{} is not given", place())).into())
}
