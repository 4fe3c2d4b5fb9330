//! Single events of the log and their outcomes, by their place.
//!
//! Owns: readers of the partitions that were asked for, and the events read lately. Events asked for in the order of the
//! log are read in one go.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{Message, message::BorrowedMessage};
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
    events: Readers,
    outcomes: Readers,
    kept: BTreeMap<(u16, u64), Event>,
}

impl EventReader {
    pub fn new(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), events: Readers::new(), outcomes: Readers::new(), kept: BTreeMap::new() }
    }

    /// The event at a place that is known to have one. Blocking.
    pub fn get(&mut self, partition: u16, src: u64) -> Result<Event> {
        if let Some(known) = self.kept.get(&(partition, src)) {
            return Ok(known.clone());
        }
        let reader = open_in(&mut self.events, &self.cluster, Topic::Events, partition)?;
        // A reader that was never told where to begin is at 0, and gives nothing.
        if reader.next() == 0 || src < reader.next() || src > reader.next() + READ_OVER {
            reader.seek(src)?;
        }
        let kept = &mut self.kept;
        find(reader, &format!("event {partition}-{src}"), |message| {
            if records::is_identity(message.headers()) {
                return Ok(None);
            }
            let offset = u64::try_from(message.offset()).unwrap_or_default();
            let event = records::decode_event(message.payload())?;
            if kept.len() >= KEPT {
                kept.pop_first();
            }
            kept.insert((partition, offset), event.clone());
            Ok((offset == src).then_some(event))
        })
    }

    /// The outcome of an event that is known to have one. Several records may be of it; they all have the same bytes.
    /// Blocking.
    pub fn outcome(&mut self, partition: u16, src: u64) -> Result<Outcome> {
        let reader = open_in(&mut self.outcomes, &self.cluster, Topic::Outcomes, partition)?;
        // Each event has at least one outcome and the log begins with one record that is none, so it is not before.
        reader.seek(src)?;
        find(reader, &format!("the outcome of event {partition}-{src}"), |message| {
            if records::decode_link(message.headers())?.src != src {
                return Ok(None);
            }
            Ok(Some(serde_json::from_slice(message.payload().context("it has no payload")?)?))
        })
    }
}

type Readers = BTreeMap<u16, PartitionReader>;

fn open_in<'r>(
    readers: &'r mut Readers,
    cluster: &Cluster,
    topic: Topic,
    partition: u16,
) -> Result<&'r mut PartitionReader> {
    Ok(match readers.entry(partition) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(PartitionReader::open(cluster, topic, partition, FETCHED_KBYTES)?),
    })
}

/// Reads on until a record is the one that is meant.
fn find<T>(
    reader: &mut PartitionReader,
    place: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + ANSWER;
    while Instant::now() < until {
        match reader.poll(Duration::from_millis(100)) {
            Ok(None) => {}
            Ok(Some(message)) => {
                if let Some(found) = take(&message).with_context(|| place.to_owned())? {
                    return Ok(found);
                }
            }
            Err(ReadError::Gone(why)) => bail!("{place} is not in the log any more: {why}"),
            Err(ReadError::Away(why)) => return Err(Problem::Unreachable(why).into()),
        }
    }
    Err(Problem::Unreachable(format!("{place} is not given")).into())
}
