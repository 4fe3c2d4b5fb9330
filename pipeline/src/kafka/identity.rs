//! The first record of every partition: which cluster it belongs to.
//!
//! Refuses: to believe any identity but the one at the beginning of a partition; of two that were written at once, the
//! first in the log counts, for everybody.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use schemas::EventId;
use serde::{Deserialize, Serialize};

use super::{
    Cluster, Voice,
    records::{self, IDENTITY},
    topics::{Problem, WAIT},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub v: u32,
    /// The cluster's id, drawn by the first `init`.
    pub cluster: EventId,
    pub topic: String,
    pub partition: u16,
    /// Partitions of `events`, and so of everything that goes with it.
    pub partitions: u16,
    /// Tells the key that the catalog's secrets are sealed with from any other, but not what it is.
    pub key: String,
}

/// What stands at the beginning of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Empty,
    /// Records were deleted from its beginning.
    Shortened,
    Ours {
        identity: Identity,
        /// The next record is an identity as well: two `init`s ran at once.
        twice: bool,
    },
    /// Something that `init` did not write.
    Foreign,
}

/// What stands at the beginning of each partition of a topic.
pub(super) fn beginnings(
    reader: &BaseConsumer<Voice>,
    topic: &str,
    partitions: u16,
) -> Result<Vec<Beginning>, Problem> {
    let mut found = vec![Beginning::Empty; usize::from(partitions)];
    let mut list = TopicPartitionList::new();
    // What is still to come: from this partition the records before this offset.
    let mut open = BTreeMap::new();
    for partition in 0..partitions {
        let (low, high) = watermarks(reader, topic, partition)?;
        if low > 0 {
            found[usize::from(partition)] = Beginning::Shortened;
        } else if high > low {
            open.insert(i32::from(partition), high.min(low + 2));
            list.add_partition_offset(topic, i32::from(partition), Offset::Offset(low))
                .map_err(|error| Problem::asking(topic, &error))?;
        }
    }
    reader.assign(&list).map_err(|error| Problem::asking(topic, &error))?;
    let read = read_beginnings(reader, topic, open, &mut found);
    reader.unassign().map_err(|error| Problem::asking(topic, &error))?;
    read.map(|()| found)
}

/// First offset, and the one that the next record gets. A partition that was just made has no leader for a moment.
pub(super) fn watermarks(reader: &BaseConsumer<Voice>, topic: &str, partition: u16) -> Result<(i64, i64), Problem> {
    let until = Instant::now() + WAIT;
    loop {
        match reader.fetch_watermarks(topic, i32::from(partition), WAIT) {
            Ok(marks) => return Ok(marks),
            Err(error) if is_in_the_making(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(Problem::asking(&format!("partition {partition} of {topic}"), &error)),
        }
    }
}

fn is_in_the_making(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn read_beginnings(
    reader: &BaseConsumer<Voice>,
    topic: &str,
    mut open: BTreeMap<i32, i64>,
    found: &mut [Beginning],
) -> Result<(), Problem> {
    let until = Instant::now() + WAIT;
    while !open.is_empty() {
        if Instant::now() > until {
            return Err(Problem::Unreachable(format!(
                "{topic} did not give its first records in {} s",
                WAIT.as_secs()
            )));
        }
        let message = match reader.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                tracing::debug!(%error, "while the identity of {topic} is read");
                continue;
            }
        };
        let Some(slot) = usize::try_from(message.partition()).ok().and_then(|at| found.get_mut(at)) else { continue };
        take(slot, message.offset(), message.headers(), message.payload());
        if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            open.remove(&message.partition());
        }
    }
    Ok(())
}

fn take(slot: &mut Beginning, offset: i64, headers: Option<&impl rdkafka::message::Headers>, payload: Option<&[u8]>) {
    let is_identity = records::is_identity(headers);
    match slot {
        Beginning::Ours { twice, .. } => *twice |= is_identity && offset == 1,
        Beginning::Empty => {
            let identity = payload.filter(|_| is_identity).and_then(|payload| serde_json::from_slice(payload).ok());
            *slot = identity.map_or(Beginning::Foreign, |identity| Beginning::Ours { identity, twice: false });
        }
        Beginning::Shortened | Beginning::Foreign => {}
    }
}

/// Delivery reports of records that are sent a few at a time.
#[derive(Default)]
pub(super) struct Reports(Mutex<Vec<Result<(), String>>>);

impl Reports {
    /// Whether these many were delivered; forgets them.
    pub(super) fn all_delivered(&self, count: usize) -> Result<(), String> {
        let reports = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let missing = count.saturating_sub(reports.len());
        reports.into_iter().collect::<Result<(), String>>()?;
        if missing == 0 { Ok(()) } else { Err(format!("{missing} records were not acknowledged in time")) }
    }
}

impl rdkafka::ClientContext for Reports {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        Voice.log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        Voice.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        let said = result.as_ref().map(drop).map_err(|(error, _)| error.to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }
}

/// Writes identities and waits for their delivery.
pub(super) fn write(cluster: &Cluster, identities: &[Identity]) -> Result<(), Problem> {
    let mut config = cluster.producer();
    config.set("message.timeout.ms", WAIT.as_millis().to_string());
    let producer: BaseProducer<Reports> =
        config.create_with_context(Reports::default()).map_err(|error| Problem::asking("a producer", &error))?;
    for identity in identities {
        let payload = serde_json::to_vec(identity).map_err(|error| Problem::Wrong(error.to_string()))?;
        let record = BaseRecord::to(&identity.topic)
            .partition(i32::from(identity.partition))
            // A compacted topic keeps the last record of a key and takes none without.
            .key(IDENTITY)
            .headers(records::typed(1, IDENTITY))
            .payload(&payload);
        producer.send(record).map_err(|(error, _)| Problem::asking(&identity.topic, &error))?;
    }
    producer.flush(WAIT + Duration::from_secs(2)).map_err(|error| Problem::asking("the identities", &error))?;
    producer.context().all_delivered(identities.len()).map_err(|error| {
        Problem::Unreachable(format!("the identity records could not be written: {error}; run init again"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::OwnedHeaders;
    use schemas::Time;

    fn identity() -> Identity {
        let cluster = EventId::new(Time::from_ms(1), 0, 1);
        Identity { v: 1, cluster, topic: "clickback.events".into(), partition: 0, partitions: 4, key: "h:x".into() }
    }

    #[test]
    fn the_first_record_says_whose_it_is() {
        let payload = serde_json::to_vec(&identity()).unwrap();
        let headers = records::typed(1, IDENTITY);
        let none: Option<&OwnedHeaders> = None;

        let mut slot = Beginning::Empty;
        take(&mut slot, 0, Some(&headers), Some(&payload));
        assert_eq!(slot, Beginning::Ours { identity: identity(), twice: false });
        take(&mut slot, 1, none, Some(b"{}"));
        assert_eq!(slot, Beginning::Ours { identity: identity(), twice: false });
        take(&mut slot, 1, Some(&headers), Some(b"another"));
        assert_eq!(slot, Beginning::Ours { identity: identity(), twice: true });

        for (headers, payload) in [(None, &payload[..]), (Some(&headers), b"{}"), (Some(&headers), b"")] {
            let mut slot = Beginning::Empty;
            take(&mut slot, 0, headers, Some(payload));
            assert_eq!(slot, Beginning::Foreign);
        }
    }
}
