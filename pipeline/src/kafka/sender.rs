//! Sends what a stage derives from one partition: outcomes, ticks, conversions.
//!
//! Owns: what the client does not get yet. An idempotent librdkafka that has more for a partition than it may send turns in
//! a loop until it may (see `lanes`), so it gets the next records when it has none: together, as one request.
//! Invariant: what is not reported as delivered is unknown, never failed; after the first such report nothing more is
//! sent, and the stage begins again with a new sender.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::{Cluster, Topic, Voice, lanes::how_many, records::Encoded};

/// A broker that does not take a record for so long is away, and the stage has long begun again.
const DELIVERY: Duration = Duration::from_secs(20);
/// For room in the client's queue.
const ROOM: Duration = Duration::from_secs(5);

pub struct Sender {
    producer: ThreadedProducer<Reports>,
    broken: Arc<AtomicBool>,
    /// Records that are not reported yet.
    with_client: Arc<AtomicUsize>,
    /// In their order.
    waiting: Mutex<Vec<(Topic, Encoded)>>,
    cluster: Cluster,
    partition: i32,
}

/// Something that was sent may not be there.
#[derive(thiserror::Error, Debug)]
#[error("what was sent may not have arrived")]
pub struct Unknown;

impl Sender {
    pub fn open(cluster: &Cluster, partition: u16) -> Result<Self> {
        let (broken, with_client) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut config = cluster.producer();
        config
            .set("delivery.timeout.ms", DELIVERY.as_millis().to_string())
            .set("linger.ms", "2")
            // One partition's share; who sends bounds what is under way as well.
            .set("queue.buffering.max.kbytes", "32768");
        let reports = Reports { broken: Arc::clone(&broken), with_client: Arc::clone(&with_client) };
        let producer = config.create_with_context(reports).context("the Kafka client cannot be set up")?;
        let waiting = Mutex::default();
        Ok(Self { producer, broken, with_client, waiting, cluster: cluster.clone(), partition: i32::from(partition) })
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// To the sender's partition of a topic; at the latest at the next `go_on` after all before it are reported.
    pub fn send(&self, topic: Topic, record: Encoded) -> Result<(), Unknown> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((topic, record));
        self.go_on()
    }

    /// Who sends calls this again and again, as long as something is not reported.
    pub fn go_on(&self) -> Result<(), Unknown> {
        if self.is_broken() {
            return Err(Unknown);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = how_many(self.with_client.load(Ordering::Acquire), waiting.len());
        waiting.drain(..count).try_for_each(|(topic, record)| self.hand_over(topic, record))
    }

    /// All that waits, to the client: for somebody who sends nothing more for a while.
    pub fn push(&self) -> Result<(), Unknown> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.drain(..).try_for_each(|(topic, record)| self.hand_over(topic, record))
    }

    fn hand_over(&self, topic: Topic, record: Encoded) -> Result<(), Unknown> {
        let until = Instant::now() + ROOM;
        let topic = self.cluster.topic(topic);
        let mut message = BaseRecord::to(&topic)
            .partition(self.partition)
            .key(&record.key)
            .payload(&record.payload)
            .headers(record.headers);
        self.with_client.fetch_add(1, Ordering::AcqRel);
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < until => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => {
                    tracing::warn!(%error, "a record cannot be sent");
                    self.broken.store(true, Ordering::Release);
                    return Err(Unknown);
                }
            }
        }
    }

    /// Whether everything that was sent is delivered, within this time.
    pub fn is_delivered(&self, wait: Duration) -> bool {
        // A queue that is empty says nothing about a report that was bad.
        self.push().is_ok() && self.producer.flush(wait).is_ok() && !self.is_broken()
    }
}

struct Reports {
    broken: Arc<AtomicBool>,
    with_client: Arc<AtomicUsize>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Voice.log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        Voice.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.with_client.fetch_sub(1, Ordering::AcqRel);
        if let Err((error, _)) = result
            && !self.broken.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(%error, "a record was not reported as delivered");
        }
    }
}
