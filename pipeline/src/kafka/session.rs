//! One Kafka client that sends events, from its making to its end.
//!
//! Refuses: to be made before Kafka has shown that it is still the same cluster.
//! Invariant: every event that was taken is reported once, delivered or not, unless the session is given up: then
//! whatever was not reported is unknown.
//!
//! Reports are asked for, by the loop that sends: a thread that waits for them would be woken for each answer of the
//! broker, only to wake the loop.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{Cluster, Layout, Problem, Voice, topics};

/// What the loop hears of the making of its next session. Unbounded: there is one for each that was asked for.
pub(super) enum Note {
    Connected(Session),
    Away(String),
    Wrong(String),
}

pub(super) struct Session {
    producer: BaseProducer<Reports>,
}

/// What became of the event of this key. `None` if Kafka has it, but not where: it was a repeat of a request whose answer
/// was lost.
pub(super) type Report = (usize, Result<Option<u64>, String>);

/// Those that were not asked for yet. There is one for each event under way at most, and those are bounded.
#[derive(Default)]
pub(super) struct Reports(Mutex<Vec<Report>>);

impl Reports {
    fn take_into(&self, reports: &mut Vec<Report>) -> bool {
        let mut mine = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let some = !mine.is_empty();
        reports.append(&mut mine);
        some
    }
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((key, result));
    }
}

impl Session {
    pub(super) fn open(cluster: &Cluster) -> Result<Session, KafkaError> {
        let mut config = cluster.producer();
        config
            // Without an end: what Kafka does not take now it takes when it is back, in the same order and once. Who
            // waits for it is answered from the spool meanwhile.
            .set("message.timeout.ms", "0")
            // The loop hands over what has come together, see `lanes`: this is time enough for it to become one request.
            .set("linger.ms", "0.5")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("request.timeout.ms", "10000");
        Ok(Session { producer: config.create_with_context(Reports::default())? })
    }

    /// What was reported since it was asked last. Does not wait.
    pub(super) fn reports(&self, reports: &mut Vec<Report>) {
        let context = self.producer.context();
        // Each poll gives the reports of one answer of the broker.
        loop {
            self.producer.poll(Duration::ZERO);
            if !context.take_into(reports) {
                break;
            }
        }
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
pub(super) fn connect(cluster: Cluster, layout: Layout, pause: Duration, verify: Verify, notes: UnboundedSender<Note>) {
    std::thread::spawn(move || {
        std::thread::sleep(pause);
        let checked = verify(&cluster, &layout);
        let note = match checked {
            Err(Problem::Unreachable(why)) => Note::Away(why),
            Err(Problem::Wrong(why)) => Note::Wrong(why),
            Ok(()) => match Session::open(&cluster) {
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
