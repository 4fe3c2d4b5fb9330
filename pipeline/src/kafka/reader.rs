//! One partition of one topic, read from where its reader says.
//!
//! Owns: a consumer that was told what to read; it is in no group and commits nothing.
//! Refuses: to jump. Where the log does not have the place that was asked for, or has it no more, that is `Gone`, and
//! what to do about it is for the reader to say.
//! Invariant: records come in the order of the log, without one left out.

use std::time::Duration;

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{Cluster, Topic, Voice, topics::Problem};

/// For a broker to say where a log ends.
const WAIT: Duration = Duration::from_secs(5);

pub struct PartitionReader {
    consumer: BaseConsumer<Voice>,
    topic: String,
    partition: u16,
    next: u64,
}

#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The log has no such place, or another record came there: it was cut off at its end or at its beginning.
    #[error("the log no longer has the place that was asked for: {0}")]
    Gone(String),
    /// The connection broke. What was read before may be gone when it is back.
    #[error("no broker answers: {0}")]
    Away(String),
}

impl PartitionReader {
    /// Reads nothing before `seek`. Bound: `kbytes` are fetched ahead at most.
    pub fn open(cluster: &Cluster, topic: Topic, partition: u16, kbytes: u32) -> Result<Self, Problem> {
        let mut config = cluster.reader();
        // An eighth at once: what the last answer brings comes on top.
        let at_once = (kbytes * 128).min(1 << 20);
        config
            .set("queued.max.messages.kbytes", kbytes.to_string())
            .set("fetch.message.max.bytes", at_once.to_string());
        let topic = cluster.topic(topic);
        let consumer =
            config.create_with_context(Voice).map_err(|error: KafkaError| Problem::asking(&topic, &error))?;
        Ok(Self { consumer, topic, partition, next: 0 })
    }

    /// First offset, and the one that the next record gets. After a change of leaders a broker answers only when it
    /// knows what was acknowledged before (KIP-207), so the end is never before a record that somebody has read.
    pub fn ends(&self) -> Result<(u64, u64), Problem> {
        let asked = self.consumer.fetch_watermarks(&self.topic, i32::from(self.partition), WAIT);
        let (first, end) = asked.map_err(|error| {
            // A client that began while the leader was gone, and was never connected to it, believes for minutes what it
            // was told then: librdkafka looks for new leaders when a connection breaks, and there was none.
            if let Err(error) = self.consumer.fetch_metadata(Some(&self.topic), WAIT) {
                tracing::debug!(%error, "nobody says who leads {}", self.topic);
            }
            Problem::asking(&self.topic, &error)
        })?;
        Ok((u64::try_from(first).unwrap_or_default(), u64::try_from(end).unwrap_or_default()))
    }

    /// The offset that is read next.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn seek(&mut self, next: u64) -> Result<(), Problem> {
        let asking = |error: KafkaError| Problem::asking(&self.topic, &error);
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, i32::from(self.partition), offset).map_err(asking)?;
        // Assigned anew, nothing that was fetched for the old place is given any more.
        self.consumer.unassign().map_err(asking)?;
        self.consumer.assign(&list).map_err(asking)?;
        self.next = next;
        Ok(())
    }

    /// `None`: nothing came in this time, which does not mean that there is nothing more.
    pub fn poll(&mut self, wait: Duration) -> Result<Option<BorrowedMessage<'_>>, ReadError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => {
                let offset = u64::try_from(message.offset()).unwrap_or_default();
                if offset != self.next {
                    return Err(ReadError::Gone(format!("record {} came instead of {}", offset, self.next)));
                }
                self.next += 1;
                Ok(Some(message))
            }
            Some(Err(error)) => Err(ReadError::of(&error)),
        }
    }
}

impl ReadError {
    fn of(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::LogTruncation
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition,
            ) => ReadError::Gone(error.to_string()),
            _ => ReadError::Away(error.to_string()),
        }
    }
}
