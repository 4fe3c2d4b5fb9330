//! Reads and writes topics from outside, as anybody could: what is on them is compared with what was sent.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Headers, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const WAIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    key: Vec<u8>,
    headers: OwnedHeaders,
    pub payload: Vec<u8>,
}

impl Stored {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.key == name)?.value
    }

    pub fn is(&self, kind: &str) -> bool {
        self.header("type") == Some(kind.as_bytes())
    }
}

/// Where each partition ends.
pub fn ends(kafka: &str, topic: &str) -> Result<Vec<i64>> {
    Ends::of(kafka, topic)?.now()
}

struct Ends {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Ends {
    fn of(kafka: &str, topic: &str) -> Result<Ends> {
        let consumer: BaseConsumer = crate::kafka::reader(kafka).create()?;
        let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
        let found = metadata.topics().first().context("no such topic")?.partitions().len();
        Ok(Ends { consumer, topic: topic.to_owned(), partitions: i32::try_from(found)? })
    }

    fn now(&self) -> Result<Vec<i64>> {
        let end = |partition| Ok(self.consumer.fetch_watermarks(&self.topic, partition, WAIT)?.1);
        (0..self.partitions).map(end).collect()
    }
}

/// Returns when each partition is at least so long.
pub fn wait_until(kafka: &str, topic: &str, wanted: &[i64]) -> Result<()> {
    wait(kafka, topic, |ends| ends.iter().zip(wanted).all(|(end, wanted)| end >= wanted))
}

/// Returns when all partitions together are at least so long.
pub fn wait_until_together(kafka: &str, topic: &str, wanted: i64) -> Result<()> {
    wait(kafka, topic, |ends| ends.iter().sum::<i64>() >= wanted)
}

fn wait(kafka: &str, topic: &str, enough: impl Fn(&[i64]) -> bool) -> Result<()> {
    let (ends, begun) = (Ends::of(kafka, topic)?, Instant::now());
    while !enough(&ends.now()?) {
        ensure!(begun.elapsed() < PATIENCE, "{topic} does not become long enough: {:?}", ends.now()?);
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What stands between these offsets, but for the records that say whose topic it is, and what a transaction took back.
pub fn read(kafka: &str, topic: &str, from: &[i64], to: &[i64]) -> Result<Vec<Stored>> {
    let mut config = crate::kafka::reader(kafka);
    // The offsets of transactions' marks are never given, so the number of records says nothing.
    let consumer: BaseConsumer =
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true").create()?;
    let mut list = TopicPartitionList::new();
    let mut unread = BTreeSet::new();
    for (partition, (from, to)) in (0..).zip(from.iter().zip(to)) {
        if from < to {
            list.add_partition_offset(topic, partition, Offset::Offset(*from))?;
            unread.insert(partition);
        }
    }
    consumer.assign(&list)?;
    let (mut all, begun) = (Vec::new(), Instant::now());
    while !unread.is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "records of partitions {unread:?} of {topic} are not given");
        let message = match consumer.poll(WAIT) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
                continue;
            }
            Some(message) => message?,
        };
        let to = to[usize::try_from(message.partition())?];
        if message.offset() + 1 >= to {
            unread.remove(&message.partition());
        }
        if message.offset() >= to {
            continue;
        }
        let stored = Stored {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            headers: message.headers().map(rdkafka::message::BorrowedHeaders::detach).unwrap_or_default(),
            payload: message.payload().unwrap_or_default().to_vec(),
        };
        if !stored.is("identity") {
            all.push(stored);
        }
    }
    Ok(all)
}

/// Puts the same records into the same partitions of another topic.
pub fn copy(kafka: &str, topic: &str, records: &[Stored]) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = crate::kafka::writer(kafka).create()?;
    for stored in records {
        let mut record = BaseRecord::to(topic)
            .partition(stored.partition)
            .key(&stored.key)
            .payload(&stored.payload)
            .headers(stored.headers.clone());
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(LOOK);
                }
                Err((error, _)) => bail!("{topic}: {error}"),
            }
        }
    }
    producer.flush(PATIENCE)?;
    Ok(())
}
