//! Filling a topic with a list that is known beforehand, once, however often it is begun.
//!
//! Owns: how far a topic is filled. Refuses: a topic that has anything else than the beginning of what it is to get.
//! Invariant: each record comes to the offset that it has in the list. So what is there is always a beginning of the list
//! in each partition, and who begins again goes on after it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use sha2::{Digest, Sha256};

use super::{
    Cluster, Topic, Voice, identity,
    records::{self, Encoded},
    topics::Problem,
};

/// For a broker to give the next record of what is there.
const READ: Duration = Duration::from_secs(30);
/// For what was sent to be acknowledged, and for room in the client's queue.
const DELIVERY: Duration = Duration::from_secs(60);

/// What tells a record from any other.
pub type Print = [u8; 32];

/// The print of a record of `events` or `outcomes`.
pub fn print(record: &Encoded) -> Print {
    print_of(record.key.as_bytes(), Some(&record.headers), &record.payload)
}

fn print_of(key: &[u8], headers: Option<&impl Headers>, payload: &[u8]) -> Print {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    put(key);
    for header in headers.into_iter().flat_map(Headers::iter) {
        put(header.key.as_bytes());
        put(header.value.unwrap_or_default());
    }
    put(payload);
    hash.finalize().into()
}

/// What a partition has, or what it was given so far: how many records after the identity, and a hash through them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Filled {
    count: u64,
    through: Print,
}

impl Filled {
    fn add(&mut self, print: &Print) {
        self.count += 1;
        self.through = Sha256::new().chain_update(self.through).chain_update(print).finalize().into();
    }
}

/// How far the partitions of a topic are filled, and with what.
#[derive(Clone, Debug)]
pub struct Found {
    name: String,
    partitions: Vec<Filled>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.partitions.iter().all(|filled| filled.count == 0)
    }

    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|filled| filled.count).sum()
    }
}

/// Reads all that stands in a topic of events or outcomes. Blocking.
pub fn find(cluster: &Cluster, topic: Topic, partitions: u16) -> Result<Found, Problem> {
    let print = |message: &BorrowedMessage<'_>| {
        print_of(message.key().unwrap_or_default(), message.headers(), message.payload().unwrap_or_default())
    };
    read(cluster, topic, partitions, |message| Ok(print(message)))
}

/// As `find` for the catalog, whose records are told apart by what they say: `print` is given offset and payload.
pub fn find_catalog(
    cluster: &Cluster,
    mut print: impl FnMut(i64, &[u8]) -> Result<Print, Problem>,
) -> Result<Found, Problem> {
    read(cluster, Topic::Catalog, 1, |message| print(message.offset(), message.payload().unwrap_or_default()))
}

fn read(
    cluster: &Cluster,
    topic: Topic,
    partitions: u16,
    mut print: impl FnMut(&BorrowedMessage<'_>) -> Result<Print, Problem>,
) -> Result<Found, Problem> {
    let name = cluster.topic(topic);
    let asking = |error: KafkaError| Problem::asking(&name, &error);
    let reader = cluster.open_reader().map_err(asking)?;
    let mut found = Found { name: name.clone(), partitions: vec![Filled::default(); usize::from(partitions)] };
    let (mut list, mut open) = (TopicPartitionList::new(), 0);
    let mut ends = vec![0; usize::from(partitions)];
    for partition in 0..partitions {
        let (low, high) = identity::watermarks(&reader, &name, partition)?;
        if low > 0 {
            return Err(other(&name, partition, "its beginning was deleted"));
        }
        if high > 0 {
            ends[usize::from(partition)] = high;
            list.add_partition_offset(&name, i32::from(partition), Offset::Offset(0)).map_err(asking)?;
            open += 1;
        }
    }
    reader.assign(&list).map_err(asking)?;
    let mut last = Instant::now();
    while open > 0 {
        let message = match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            _ if last.elapsed() > READ => {
                return Err(Problem::Unreachable(format!("{name} does not give its records")));
            }
            Some(Err(_)) | None => continue,
        };
        last = Instant::now();
        let at = usize::try_from(message.partition()).unwrap_or_default();
        let (Some(filled), Some(end)) = (found.partitions.get_mut(at), ends.get(at)) else { continue };
        match records::is_identity(message.headers()) {
            true if message.offset() == 0 => {}
            true => return Err(other(&name, message.partition(), "it has two identities")),
            false => filled.add(&print(&message)?),
        }
        open -= usize::from(message.offset() + 1 == *end);
    }
    Ok(found)
}

/// Goes through the list, and tells what is there from what is missing.
#[derive(Debug)]
pub struct Compare {
    found: Found,
    given: Vec<Filled>,
}

impl Compare {
    pub fn new(found: Found) -> Compare {
        let given = vec![Filled::default(); found.partitions.len()];
        Compare { found, given }
    }

    /// Whether the next record of the list is still to be written.
    pub fn is_missing(&mut self, partition: u16, print: &Print) -> Result<bool, Problem> {
        let at = usize::from(partition);
        let (there, given) = (&self.found.partitions[at], &mut self.given[at]);
        given.add(print);
        if given.count == there.count && given.through != there.through {
            return Err(other(&self.found.name, partition, "it has other records"));
        }
        Ok(given.count > there.count)
    }

    /// At the end of the list: nothing else is there.
    pub fn end(&self) -> Result<(), Problem> {
        let mut all = (0u16..).zip(self.found.partitions.iter().zip(&self.given));
        match all.find(|(_, (there, given))| there.count > given.count) {
            None => Ok(()),
            Some((partition, (there, given))) => {
                let surplus = there.count - given.count;
                Err(other(&self.found.name, partition, &format!("it has {surplus} records more")))
            }
        }
    }
}

fn other(name: &str, partition: impl std::fmt::Display, why: &str) -> Problem {
    Problem::Wrong(format!(
        "partition {partition} of {name} is not empty, and has something else than the beginning of what would be written: {why}"
    ))
}

/// Writes what is missing.
pub struct Fill {
    compare: Compare,
    producer: ThreadedProducer<Reports>,
    failed: Arc<OnceLock<String>>,
    cluster: Cluster,
    written: u64,
}

impl Fill {
    pub fn begin(cluster: &Cluster, found: Found) -> Result<Fill, Problem> {
        let failed = Arc::new(OnceLock::new());
        let mut config = cluster.producer();
        config.set("message.timeout.ms", DELIVERY.as_millis().to_string()).set("linger.ms", "5");
        let reports = Reports { failed: Arc::clone(&failed) };
        let producer = config.create_with_context(reports).map_err(|error| Problem::asking(&found.name, &error))?;
        Ok(Fill { compare: Compare::new(found), producer, failed, cluster: cluster.clone(), written: 0 })
    }

    /// The next record of the list. Waits where the brokers are slower.
    pub fn put(&mut self, partition: u16, record: &Encoded, print: &Print) -> Result<(), Problem> {
        if !self.compare.is_missing(partition, print)? {
            return Ok(());
        }
        // The identity stands before the first.
        let offset = self.compare.given[usize::from(partition)].count;
        let until = Instant::now() + DELIVERY;
        let mut message =
            BaseRecord::with_opaque_to(&self.compare.found.name, usize::try_from(offset).unwrap_or(usize::MAX))
                .partition(i32::from(partition))
                .key(&record.key)
                .payload(&record.payload)
                .headers(record.headers.clone());
        while let Err((error, back)) = self.producer.send(message) {
            self.check()?;
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() > until {
                return Err(Problem::asking(&self.compare.found.name, &error));
            }
            message = back;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.written += 1;
        self.check()
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    fn check(&self) -> Result<(), Problem> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(Problem::Unreachable(format!("{}: {why}", self.compare.found.name))),
        }
    }

    /// All is written and acknowledged, and nothing else is there. Gives how many records this call wrote.
    pub fn finish(self) -> Result<u64, Problem> {
        self.compare.end()?;
        let name = &self.compare.found.name;
        let asking = |error: KafkaError| Problem::asking(name, &error);
        self.producer.flush(DELIVERY + Duration::from_secs(5)).map_err(asking)?;
        self.check()?;
        let reader = self.cluster.open_reader().map_err(asking)?;
        for (partition, given) in (0..).zip(&self.compare.given) {
            let (_, end) = identity::watermarks(&reader, name, partition)?;
            if u64::try_from(end).ok() != Some(given.count + 1) {
                return Err(other(name, partition, "somebody else writes to it"));
            }
        }
        Ok(self.written)
    }
}

struct Reports {
    failed: Arc<OnceLock<String>>,
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

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let why = match result {
            // Without an offset it is a repeat of a request whose answer was lost; the end is looked at in the end.
            Ok(message) => match usize::try_from(message.offset()) {
                Ok(offset) if offset != due => {
                    format!("record {due} came to place {offset}: somebody else writes to it")
                }
                Ok(_) | Err(_) => return,
            },
            Err((error, _)) => format!("a record was not acknowledged: {error}"),
        };
        // The first one counts.
        self.failed.set(why).ok();
    }
}

/// Headers and key as a record of the catalog has them.
pub fn catalog_record(thing: &str, payload: Vec<u8>) -> Encoded {
    let kind = thing.split('/').next().unwrap_or_default();
    let headers: OwnedHeaders = records::typed(1, kind);
    Encoded { key: thing.to_owned(), headers, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(records: &[&str]) -> Vec<Print> {
        records.iter().map(|record| print_of(b"1", None::<&OwnedHeaders>, record.as_bytes())).collect()
    }

    fn found(partitions: &[&[&str]]) -> Found {
        let filled = |records: &[&str]| {
            let mut filled = Filled::default();
            list(records).iter().for_each(|print| filled.add(print));
            filled
        };
        Found { name: "t.events".into(), partitions: partitions.iter().map(|records| filled(records)).collect() }
    }

    #[test]
    fn what_is_there_is_passed_over_and_the_rest_is_missing() {
        let mut compare = Compare::new(found(&[&["a", "b"], &[]]));
        let missing: Vec<bool> =
            list(&["a", "b", "c"]).iter().map(|print| compare.is_missing(0, print).unwrap()).collect();
        assert_eq!(missing, [false, false, true]);
        assert!(compare.is_missing(1, &list(&["x"])[0]).unwrap());
        assert_eq!(compare.end(), Ok(()));
        assert!(!found(&[&["a"]]).is_empty() && found(&[&[], &[]]).is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        // Another record, the same ones in another order, and one too many.
        for there in [&["x"][..], &["b", "a"], &["a", "b", "c", "d"]] {
            let mut compare = Compare::new(found(&[there]));
            let refused = list(&["a", "b", "c"])
                .iter()
                .map(|print| compare.is_missing(0, print))
                .collect::<Result<Vec<_>, _>>()
                .and_then(|_| compare.end());
            let why = refused.unwrap_err().to_string();
            assert!(why.contains("partition 0 of t.events"), "{why}");
        }
    }

    #[test]
    fn key_and_headers_are_part_of_a_record() {
        let record = |key: &str, kind: &str| {
            print(&Encoded { key: key.into(), headers: records::typed(1, kind), payload: b"{}".to_vec() })
        };
        assert_eq!(record("1", "hit"), record("1", "hit"));
        assert!(record("1", "hit") != record("2", "hit") && record("1", "hit") != record("1", "tick"));
    }
}
