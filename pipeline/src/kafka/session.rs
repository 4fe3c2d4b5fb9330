//! One Kafka client that sends events, from its making to its end.
//!
//! Refuses: to be made before Kafka has shown that it is still the same cluster.
//! Invariant: every event that was taken is reported once, delivered or not, unless the session is given up: then
//! whatever was not reported is unknown.

use std::time::Duration;

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::OwnedHeaders,
    producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{Cluster, Layout, Problem, Voice, topics};

/// What the loop hears from its session. Unbounded, as there is one for each event under way, and those are bounded.
pub(super) enum Note {
    Delivered {
        session: u32,
        key: usize,
        /// `None` if Kafka has it, but not where: it was a repeat of a request whose answer was lost.
        result: Result<Option<u64>, String>,
    },
    Connected(Session),
    Away(String),
    Wrong(String),
}

pub(super) struct Session {
    pub(super) number: u32,
    producer: ThreadedProducer<Reports>,
}

pub(super) struct Reports {
    session: u32,
    notes: UnboundedSender<Note>,
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
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, key: usize) {
        let result = match result {
            Ok(message) => Ok(u64::try_from(message.offset()).ok()),
            Err((error, _)) => Err(error.to_string()),
        };
        // The loop is gone when the process ends.
        self.notes.send(Note::Delivered { session: self.session, key, result }).ok();
    }
}

impl Session {
    pub(super) fn open(cluster: &Cluster, number: u32, notes: UnboundedSender<Note>) -> Result<Session, KafkaError> {
        let mut config = cluster.producer();
        config
            // Without an end: what Kafka does not take now it takes when it is back, in the same order and once. Who
            // waits for it is answered from the spool meanwhile.
            .set("message.timeout.ms", "0")
            // The loop hands over what has come together, see `lanes`: this is time enough for it to become one request.
            .set("linger.ms", "0.5")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("request.timeout.ms", "10000");
        Ok(Session { number, producer: config.create_with_context(Reports { session: number, notes })? })
    }

    /// `Err`: it was not taken, and the session is of no more use.
    pub(super) fn send(
        &self,
        topic: &str,
        place: (u16, u16),
        headers: OwnedHeaders,
        payload: &[u8],
        key: usize,
    ) -> Result<(), String> {
        let (partition, shard) = place;
        let shard = shard.to_string();
        let record = BaseRecord::with_opaque_to(topic, key)
            .partition(i32::from(partition))
            .key(&shard)
            .headers(headers)
            .payload(payload);
        self.producer.send(record).map_err(|(error, _)| error.to_string())
    }

    /// What was not reported is unknown from now on. Ending a client waits for its threads, so another thread does it.
    pub(super) fn give_up(self) {
        std::thread::spawn(move || drop(self));
    }
}

pub(super) type Verify = fn(&Cluster, &Layout) -> Result<(), Problem>;

/// Makes a session in a thread of its own, after a pause, and says so with a note.
pub(super) fn connect(
    cluster: Cluster,
    layout: Layout,
    number: u32,
    pause: Duration,
    verify: Verify,
    notes: UnboundedSender<Note>,
) {
    std::thread::spawn(move || {
        std::thread::sleep(pause);
        let checked = verify(&cluster, &layout);
        let note = match checked {
            Err(Problem::Unreachable(why)) => Note::Away(why),
            Err(Problem::Wrong(why)) => Note::Wrong(why),
            Ok(()) => match Session::open(&cluster, number, notes.clone()) {
                Ok(session) => Note::Connected(session),
                Err(error) => Note::Wrong(format!("the Kafka client cannot be set up: {error}")),
            },
        };
        notes.send(note).ok();
    });
}

pub(super) fn same_cluster(cluster: &Cluster, layout: &Layout) -> Result<(), Problem> {
    let found = topics::check(cluster)?;
    if found == *layout {
        return Ok(());
    }
    Err(Problem::Wrong(format!(
        "the topics at {} are of the cluster {} with {} partitions, but this process belongs to {} with {}: start it with another --spool, or give it the right --kafka",
        cluster.brokers, found.id, found.partitions, layout.id, layout.partitions
    )))
}
