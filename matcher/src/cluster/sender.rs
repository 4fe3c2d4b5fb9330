//! Sends a partition's outcomes, and its ticks.
//!
//! Invariant: what is not reported as delivered is unknown, never failed; after the first such report nothing more is
//! sent, and the replica begins again with a new sender.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pipeline::kafka::{Cluster, Topic, Voice, records::Encoded};
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer},
};

/// A broker that does not take a record for so long is away, and the replica has long begun again.
const DELIVERY: Duration = Duration::from_secs(20);
/// For room in the client's queue.
const ROOM: Duration = Duration::from_secs(5);

pub(super) struct Sender {
    producer: ThreadedProducer<Reports>,
    broken: Arc<AtomicBool>,
    events: String,
    outcomes: String,
    partition: i32,
}

/// Something that was sent may not be there.
#[derive(thiserror::Error, Debug)]
#[error("what was sent may not have arrived")]
pub(super) struct Unknown;

impl Sender {
    pub(super) fn open(cluster: &Cluster, partition: u16) -> Result<Self> {
        let broken = Arc::new(AtomicBool::new(false));
        let mut config = cluster.producer();
        config
            .set("delivery.timeout.ms", DELIVERY.as_millis().to_string())
            .set("linger.ms", "2")
            // One partition's share; what is under way is bounded by the replica as well.
            .set("queue.buffering.max.kbytes", "32768");
        let reports = Reports { broken: Arc::clone(&broken) };
        let producer = config.create_with_context(reports).context("the Kafka client cannot be set up")?;
        let (events, outcomes) = (cluster.topic(Topic::Events), cluster.topic(Topic::Outcomes));
        Ok(Self { producer, broken, events, outcomes, partition: i32::from(partition) })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(super) fn outcome(&self, record: &Encoded) -> Result<(), Unknown> {
        self.send(&self.outcomes, record)
    }

    pub(super) fn event(&self, record: &Encoded) -> Result<(), Unknown> {
        self.send(&self.events, record)
    }

    fn send(&self, topic: &str, record: &Encoded) -> Result<(), Unknown> {
        let until = Instant::now() + ROOM;
        let mut message = BaseRecord::to(topic)
            .partition(self.partition)
            .key(&record.key)
            .payload(&record.payload)
            .headers(record.headers.clone());
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
}

struct Reports {
    broken: Arc<AtomicBool>,
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
        if let Err((error, _)) = result
            && !self.broken.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(%error, "a record was not reported as delivered");
        }
    }
}
