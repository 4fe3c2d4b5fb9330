//! Where the log ends now.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Cluster, Layout, Topic, Voice, topics::Problem};

const WAIT: Duration = Duration::from_secs(5);

/// Asks for the ends of `events`.
pub struct LogEnds {
    consumer: BaseConsumer<Voice>,
    topic: String,
    partitions: u16,
}

impl LogEnds {
    pub fn open(cluster: &Cluster, layout: &Layout) -> Result<Self> {
        let consumer = cluster.open_reader().context("the Kafka client cannot be set up")?;
        Ok(Self { consumer, topic: cluster.topic(Topic::Events), partitions: layout.partitions })
    }

    /// By partition, the offset that the next event gets: everything that was acknowledged is before it. Blocking.
    pub fn ask(&self) -> Result<Vec<u64>, Problem> {
        let end = |partition: u16| {
            let asked = self.consumer.fetch_watermarks(&self.topic, i32::from(partition), WAIT);
            let (_, end) = asked.map_err(|error| Problem::asking(&self.topic, &error))?;
            Ok(u64::try_from(end).unwrap_or_default())
        };
        (0..self.partitions).map(end).collect()
    }
}
