//! Who should work on which partition: a consumer group that is used for nothing else.
//!
//! Its consumer fetches nothing and commits nothing, so that it does not matter what the group believes.

use std::{sync::mpsc::Sender, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Cluster, Topic, Voice};

pub(super) enum Move {
    Given(Vec<u16>),
    Taken(Vec<u16>),
}

pub(super) struct Group {
    role: &'static str,
    consumer: BaseConsumer<Moves>,
}

impl Group {
    /// `role` is who works: each role shares the partitions of `events` among its own processes.
    pub(super) fn join(cluster: &Cluster, role: &'static str, moves: Sender<Move>) -> Result<Self> {
        let mut config = cluster.reader();
        config
            .set("group.id", format!("{}-{role}", cluster.prefix))
            // Partitions that stay where they are go on while others move.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000");
        let consumer: BaseConsumer<Moves> = config
            .create_with_context(Moves { moves })
            .with_context(|| format!("the {role}'s group cannot be joined"))?;
        consumer
            .subscribe(&[&cluster.topic(Topic::Events)])
            .with_context(|| format!("the {role}'s group cannot be joined"))?;
        Ok(Self { role, consumer })
    }

    /// Serves the group's callbacks; they are called nowhere else.
    pub(super) fn poll(&self, wait: Duration) -> Result<()> {
        if let Some(Err(error)) = self.consumer.poll(wait) {
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    bail!("Kafka does not let this user join the {}'s group: {error}", self.role)
                }
                _ => tracing::debug!(%error, "the {}'s group", self.role),
            }
        }
        Ok(())
    }
}

struct Moves {
    moves: Sender<Move>,
}

impl ClientContext for Moves {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Voice.log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        Voice.error(error, reason);
    }
}

impl ConsumerContext for Moves {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.tell(Move::Taken(numbers(list)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "the group's partitions cannot be paused");
            }
            self.tell(Move::Given(numbers(list)));
        }
    }
}

impl Moves {
    fn tell(&self, what: Move) {
        if self.moves.send(what).is_err() {
            tracing::debug!("who worked on the partitions has ended");
        }
    }
}

fn numbers(list: &TopicPartitionList) -> Vec<u16> {
    list.elements().iter().filter_map(|element| u16::try_from(element.partition()).ok()).collect()
}
