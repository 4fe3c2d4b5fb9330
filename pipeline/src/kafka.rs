//! The log on Kafka: four topics, who may call them ours, and how records stand on them.
//!
//! Owns: names and settings of the topics, the identity of a cluster, and every setting of the Kafka client.
//! Refuses: to use topics that `clickback init` did not make, or that were made for another cluster; Kafka
//! transactions and consumer-group offsets, which nothing here depends on.
//! Invariant: only a delivery report, or an fsync of the spool, says that something is durable.
//!
//! Everything that asks the brokers and waits is blocking: call it from a thread of its own or from `spawn_blocking`.

mod answer;
mod catalog;
mod copy;
mod ends;
mod events;
pub mod fill;
mod group;
mod identity;
mod lanes;
mod node;
mod outbox;
mod outcomes;
mod producer;
mod reader;
pub mod records;
mod sender;
mod session;
mod spool;
pub mod topics;
mod workers;

pub use ends::LogEnds;
pub use events::EventReader;
pub use node::{Node, NodeConfig, NodeThreads, SpoolConfig};
pub use outcomes::{Diverged, Met, OutcomeReader, Place};
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
};
pub use reader::{PartitionReader, ReadError};
pub use sender::{Sender, Unknown};
pub use topics::{Identity, Layout, MAX_PARTITIONS, Plan, Problem, Topic, check, init};
pub use workers::{Work, share};

/// Where the brokers are, and what the names of our topics begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `HOST:PORT,…`
    pub brokers: String,
    pub prefix: String,
}

impl Cluster {
    pub const PREFIX: &str = "clickback";

    pub fn new(brokers: &str) -> Self {
        Self::with_prefix(brokers, Self::PREFIX)
    }

    pub fn with_prefix(brokers: &str, prefix: &str) -> Self {
        Self { brokers: brokers.to_owned(), prefix: prefix.to_owned() }
    }

    pub fn topic(&self, topic: Topic) -> String {
        format!("{}.{}", self.prefix, topic.name())
    }

    /// What every client has in common.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "clickback")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A broker that is back is to be noticed soon: the default waits up to 10 s.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false");
        config
    }

    /// A producer whose delivery reports mean: on all in-sync replicas, once, in the order of sending.
    ///
    /// Memory: librdkafka's own defaults are 100,000 messages and 1 GiB. Who sends has to bound what is under way.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.max.bytes", topics::MESSAGE_BYTES.to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("compression.type", "lz4");
        config
    }

    /// A consumer that is told what to read and from where. It commits nothing and never jumps: where the log no longer
    /// has what was asked for, that is an error and not another place.
    ///
    /// Memory: the defaults are 100,000 messages per partition and 64 MiB altogether.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", format!("{}-reader", self.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("allow.auto.create.topics", "false")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "50");
        config
    }

    /// As `reader`, made.
    pub fn open_reader(&self) -> KafkaResult<BaseConsumer<Voice>> {
        self.reader().create_with_context(Voice)
    }
}

/// What librdkafka says goes into our logs at `debug`: a broker that is away is one line a second there, and whoever uses
/// the client reports the trouble that it means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice;

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!("librdkafka: {facility} {message}");
            }
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => tracing::debug!("librdkafka: {facility} {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Voice {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_begin_with_the_prefix() {
        assert_eq!(Cluster::new("a:1").topic(Topic::Events), "clickback.events");
        assert_eq!(Cluster::with_prefix("a:1", "t7").topic(Topic::Catalog), "t7.catalog");
    }

    /// A setting that librdkafka does not know, or that does not go with another, fails here and not at a start.
    #[test]
    fn the_settings_are_taken() {
        let cluster = Cluster::new("127.0.0.1:1");
        cluster.open_reader().unwrap();
        let producer: KafkaResult<rdkafka::producer::BaseProducer> = cluster.producer().create();
        producer.unwrap();
    }
}
