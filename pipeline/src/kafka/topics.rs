//! The four topics: their settings, how `init` makes them, and what every role checks before it uses them.
//!
//! Owns: the number of partitions and the identity of a cluster. Refuses: topics with other partitions or settings than
//! the records need, topics without our identity, and to change anything about topics that are there already.
//! Invariant: what stands at offset 0 counts. Two `init`s at once end with one identity, or with an error.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use schemas::{EventId, bounds::RECORD_BYTES};

pub use super::identity::Identity;
use super::{
    Cluster, Voice,
    identity::{self, Beginning},
};
use crate::{Sealer, clock, secrets};

/// For one answer of a broker.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// For the first answer of all.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Another `init` that has just made a topic writes its identity within this time.
const GRACE: Duration = Duration::from_secs(3);
/// A record of the greatest size with its key, headers and framing.
pub(super) const MESSAGE_BYTES: usize = RECORD_BYTES + 256 * 1024;
const PARTITIONS: u16 = 8;
pub const MAX_PARTITIONS: u16 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Events,
    Outcomes,
    Conversions,
    Catalog,
}

impl Topic {
    /// The catalog first: its identity is the cluster's.
    pub const ALL: [Topic; 4] = [Topic::Catalog, Topic::Events, Topic::Outcomes, Topic::Conversions];

    pub fn name(self) -> &'static str {
        match self {
            Topic::Events => "events",
            Topic::Outcomes => "outcomes",
            Topic::Conversions => "conversions",
            Topic::Catalog => "catalog",
        }
    }

    fn partitions(self, of_events: u16) -> u16 {
        match self {
            Topic::Catalog => 1,
            Topic::Events | Topic::Outcomes | Topic::Conversions => of_events,
        }
    }

    /// Settings without which records would be lost or could not be read in order.
    fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Log time is the append time of ticks.
            Topic::Events => &[("cleanup.policy", "delete"), ("message.timestamp.type", "LogAppendTime")],
            Topic::Outcomes | Topic::Catalog => &[("cleanup.policy", "delete")],
            Topic::Conversions => &[("cleanup.policy", "compact")],
        }
    }

    fn settings(self, replication: u16) -> Vec<(&'static str, String)> {
        let mut settings: Vec<_> = self.needs().iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        settings.push(("retention.ms", "-1".to_owned()));
        settings.push(("retention.bytes", "-1".to_owned()));
        settings.push(("max.message.bytes", MESSAGE_BYTES.to_string()));
        settings.push(("min.insync.replicas", in_sync(replication).to_string()));
        settings.push(("unclean.leader.election.enable", "false".to_owned()));
        if replication == 1 {
            // There is no other copy: an acknowledged record must not be in the page cache only.
            settings.push(("flush.messages", "1".to_owned()));
        }
        settings
    }
}

/// Replicas that must have a record before it is acknowledged.
fn in_sync(replication: u16) -> u16 {
    if replication >= 3 { 2 } else { 1 }
}

/// What `init` is asked for. `None` = as it is there already, else a default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub partitions: Option<u16>,
    pub replication: Option<u16>,
}

/// What every role needs to know of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    pub id: EventId,
    pub partitions: u16,
    /// See `Identity::key`.
    pub key: String,
}

impl Layout {
    pub fn partition(&self, shard: u16) -> u16 {
        super::records::partition(shard, self.partitions)
    }

    /// Refuses a key that the catalog's secrets were not sealed with.
    pub fn check_key(&self, sealer: &Sealer) -> Result<(), Problem> {
        if key_print(sealer, self.id) == self.key {
            return Ok(());
        }
        let advice = "give every role the key file that `clickback init` was run with (--key-file)";
        Err(Problem::Wrong(format!("the key is not the key of this cluster ({}): {advice}", self.id)))
    }
}

fn key_print(sealer: &Sealer, cluster: EventId) -> String {
    sealer.keyed_hash("cluster", &cluster.chars())
}

#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nobody answers just now. It may be better later.
    #[error("{0}")]
    Unreachable(String),
    /// It will be the same later: somebody has to do something.
    #[error("{0}")]
    Wrong(String),
}

impl Problem {
    pub(super) fn asking(what: &str, error: &KafkaError) -> Problem {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication,
            ) => {
                Problem::Wrong(format!("Kafka refuses access to {what}: {error}; give this user rights on our topics"))
            }
            _ => Problem::Unreachable(format!("Kafka does not answer about {what}: {error}")),
        }
    }
}

/// How a topic stands there.
struct Found {
    partitions: u16,
    /// The least of its partitions.
    replication: u16,
}

struct Client<'a> {
    cluster: &'a Cluster,
    reader: BaseConsumer<Voice>,
    admin: AdminClient<Voice>,
    runtime: tokio::runtime::Runtime,
}

/// Makes the topics and writes their identities; what is there already is checked and left alone. Safe to repeat, also
/// after an interruption. Blocking.
pub fn init(cluster: &Cluster, plan: Plan, sealer: &Sealer) -> Result<Layout, Problem> {
    let client = Client::open(cluster)?;
    let brokers = client.brokers()?;
    let known = client.find(Topic::Catalog)?.is_some().then(|| client.identity_of_catalog()).transpose()?.flatten();
    if let (Some(known), Some(asked)) = (&known, plan.partitions)
        && known.partitions != asked
    {
        return Err(other_partitions(cluster, known.partitions, asked));
    }
    let partitions = known.map(|known| known.partitions).or(plan.partitions).unwrap_or(PARTITIONS);
    let usual = if brokers >= 3 { 3 } else { 1 };
    let replication = plan.replication.unwrap_or(usual);
    if usize::from(replication) > brokers {
        return Err(Problem::Wrong(format!(
            "replication {replication} needs as many brokers, and there are {brokers}: start more, or ask for less with --replication"
        )));
    }
    // All that could be refused is refused before anything is made.
    for topic in Topic::ALL {
        if let Some(found) = client.find(topic)? {
            client.check_partitions(topic, &found, partitions)?;
            client.check_settings(topic, &found)?;
            client.refuse_foreign(topic, partitions)?;
        }
    }
    let id = EventId::new(clock::now(), 0, secrets::random_bits());
    let mut layout = Layout { id, partitions, key: key_print(sealer, id) };
    for topic in Topic::ALL {
        let made = client.ensure(topic, &layout, plan.replication, replication)?;
        client.identify(topic, &layout, made)?;
        if topic == Topic::Catalog {
            layout = client.layout_of_catalog()?;
            layout.check_key(sealer)?;
        }
    }
    client.check()
}

/// What every role runs at its start. Blocking.
pub fn check(cluster: &Cluster) -> Result<Layout, Problem> {
    let client = Client::open(cluster)?;
    client.brokers()?;
    client.check()
}

impl<'a> Client<'a> {
    fn open(cluster: &'a Cluster) -> Result<Self, Problem> {
        let wrong = |error: KafkaError| Problem::Wrong(format!("the Kafka client cannot be set up: {error}"));
        let mut reader = cluster.reader();
        // One topic is read after the other, and a fetch that waits for more of the one would hold up the next.
        reader.set("fetch.wait.max.ms", "10");
        let reader = reader.create_with_context(Voice).map_err(wrong)?;
        let admin = cluster.client().create_with_context(Voice).map_err(wrong)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Problem::Wrong(format!("the runtime cannot be started: {error}")))?;
        Ok(Self { cluster, reader, admin, runtime })
    }

    fn brokers(&self) -> Result<usize, Problem> {
        match self.reader.fetch_metadata(Some(&self.cluster.topic(Topic::Catalog)), FIRST_WAIT) {
            Ok(metadata) => Ok(metadata.brokers().len()),
            Err(error) => Err(Problem::Unreachable(format!(
                "no Kafka broker answers at {} ({error}): check the addresses of --kafka and that Kafka is running",
                self.cluster.brokers
            ))),
        }
    }

    fn find(&self, topic: Topic) -> Result<Option<Found>, Problem> {
        let name = self.cluster.topic(topic);
        let metadata = self.reader.fetch_metadata(Some(&name), WAIT).map_err(|error| Problem::asking(&name, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else { return Ok(None) };
        if let Some(error) = found.error() {
            return match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                code => Err(Problem::asking(&name, &KafkaError::MetadataFetch(code))),
            };
        }
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        Ok(Some(Found { partitions: count(found.partitions().len()), replication: count(replicas) }))
    }

    /// True if this call made the topic.
    fn ensure(&self, topic: Topic, layout: &Layout, asked: Option<u16>, replication: u16) -> Result<bool, Problem> {
        let made = match self.find(topic)? {
            Some(_) => false,
            None => self.create(topic, layout.partitions, replication)?,
        };
        let name = self.cluster.topic(topic);
        let found = self.wait_for(topic)?;
        self.check_partitions(topic, &found, layout.partitions)?;
        match asked {
            Some(asked) if asked != found.replication => Err(Problem::Wrong(format!(
                "{name} has replication {} and not {asked}: change it with Kafka's own tools, and min.insync.replicas with it, or run init with --replication {}",
                found.replication, found.replication
            ))),
            _ => Ok(made),
        }
    }

    /// False if somebody else made it at the same time.
    fn create(&self, topic: Topic, partitions: u16, replication: u16) -> Result<bool, Problem> {
        let name = self.cluster.topic(topic);
        let settings = topic.settings(replication);
        let new = NewTopic::new(
            &name,
            i32::from(topic.partitions(partitions)),
            TopicReplication::Fixed(i32::from(replication)),
        );
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let options = AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT));
        let results = self
            .runtime
            .block_on(self.admin.create_topics([&new], &options))
            .map_err(|error| Problem::asking(&name, &error))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(Problem::Wrong(format!("Kafka does not create {name}: {code}"))),
            None => Err(Problem::Unreachable(format!("Kafka said nothing about the creation of {name}"))),
        }
    }

    /// A topic that was just made is not known to all brokers at once.
    fn wait_for(&self, topic: Topic) -> Result<Found, Problem> {
        let until = std::time::Instant::now() + WAIT;
        loop {
            if let Some(found) = self.find(topic)? {
                return Ok(found);
            }
            if std::time::Instant::now() > until {
                return Err(Problem::Unreachable(format!("{} does not appear", self.cluster.topic(topic))));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Writes the identities that are missing. A topic that we did not make just now may be one that another `init` is at
    /// work on: it is given some time first.
    fn identify(&self, topic: Topic, layout: &Layout, made: bool) -> Result<(), Problem> {
        let name = self.cluster.topic(topic);
        let count = topic.partitions(layout.partitions);
        let beginnings = || identity::beginnings(&self.reader, &name, count);
        let mut found = beginnings()?;
        let until = std::time::Instant::now() + GRACE + Duration::from_millis(u64::from(secrets::random::<1>()[0]) * 8);
        while !made && found.contains(&Beginning::Empty) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(200));
            found = beginnings()?;
        }
        let missing = (0..count).zip(&found).filter(|(_, beginning)| **beginning == Beginning::Empty);
        let identities: Vec<Identity> = missing.map(|(partition, _)| layout.identity(&name, partition)).collect();
        if identities.is_empty() { Ok(()) } else { identity::write(self.cluster, &identities) }
    }

    fn refuse_foreign(&self, topic: Topic, partitions: u16) -> Result<(), Problem> {
        let name = self.cluster.topic(topic);
        let found = identity::beginnings(&self.reader, &name, topic.partitions(partitions))?;
        match (0..).zip(found).find(|(_, beginning)| *beginning == Beginning::Foreign) {
            Some((partition, _)) => Err(foreign(&name, partition)),
            None => Ok(()),
        }
    }

    fn identity_of_catalog(&self) -> Result<Option<Identity>, Problem> {
        let name = self.cluster.topic(Topic::Catalog);
        match identity::beginnings(&self.reader, &name, 1)?.into_iter().next() {
            Some(Beginning::Ours { identity, .. }) => Ok(Some(identity)),
            Some(Beginning::Foreign) => Err(foreign(&name, 0)),
            Some(Beginning::Shortened) => Err(Problem::Wrong(format!(
                "the beginning of {name} was deleted, and with it accounts and links: restore the topic from a back-up; its retention must stay unlimited"
            ))),
            Some(Beginning::Empty) | None => Ok(None),
        }
    }

    fn layout_of_catalog(&self) -> Result<Layout, Problem> {
        let name = self.cluster.topic(Topic::Catalog);
        let identity = self.identity_of_catalog()?.ok_or_else(|| unfinished(&name))?;
        if identity.topic != name {
            return Err(foreign(&name, 0));
        }
        Ok(Layout { id: identity.cluster, partitions: identity.partitions, key: identity.key })
    }

    fn check(&self) -> Result<Layout, Problem> {
        for topic in Topic::ALL {
            if self.find(topic)?.is_none() {
                let name = self.cluster.topic(topic);
                return Err(Problem::Wrong(format!(
                    "there is no topic {name} at {}: run `clickback init --kafka {}` first",
                    self.cluster.brokers, self.cluster.brokers
                )));
            }
        }
        let layout = self.layout_of_catalog()?;
        for topic in Topic::ALL {
            let found = self.wait_for(topic)?;
            self.check_partitions(topic, &found, layout.partitions)?;
            self.check_settings(topic, &found)?;
            self.check_identities(topic, &layout)?;
        }
        Ok(layout)
    }

    fn check_partitions(&self, topic: Topic, found: &Found, of_events: u16) -> Result<(), Problem> {
        let wanted = topic.partitions(of_events);
        if found.partitions == wanted {
            return Ok(());
        }
        let name = self.cluster.topic(topic);
        Err(Problem::Wrong(format!(
            "{name} has {} partitions instead of {wanted}. The number is fixed for life: undo the change, or make a new cluster under another --topic-prefix",
            found.partitions
        )))
    }

    fn check_settings(&self, topic: Topic, found: &Found) -> Result<(), Problem> {
        let name = self.cluster.topic(topic);
        let options = AdminOptions::new().request_timeout(Some(WAIT));
        let resource = ResourceSpecifier::Topic(&name);
        let asked = self.admin.describe_configs([&resource], &options);
        let described = self.runtime.block_on(asked).map_err(|error| Problem::asking(&name, &error))?;
        let entries = match described.into_iter().next() {
            Some(Ok(described)) => described,
            // Reading settings is a right of its own, and not needed for anything else.
            Some(Err(code)) => {
                tracing::warn!("the settings of {name} cannot be checked: {code}");
                return Ok(());
            }
            None => return Ok(()),
        };
        let value = |setting: &str| entries.get(setting).and_then(|entry| entry.value.clone());
        for (setting, needed) in topic.needs() {
            if let Some(value) = value(setting)
                && value != *needed
            {
                return Err(Problem::Wrong(format!("{name} has {setting}={value}: it must be {needed}")));
            }
        }
        let needed = in_sync(found.replication);
        let in_sync = value("min.insync.replicas").and_then(|value| value.parse::<u16>().ok());
        if in_sync.is_some_and(|in_sync| in_sync < needed) {
            return Err(Problem::Wrong(format!(
                "{name} has replication {} but min.insync.replicas below {needed}: an acknowledged record could be lost with one broker; set it to {needed}",
                found.replication
            )));
        }
        if topic != Topic::Conversions && value("retention.ms").is_some_and(|value| value != "-1") {
            tracing::warn!(
                "{name} does not keep its records for ever: what is deleted can never be rebuilt or audited"
            );
        }
        Ok(())
    }

    fn check_identities(&self, topic: Topic, layout: &Layout) -> Result<(), Problem> {
        let name = self.cluster.topic(topic);
        let found = identity::beginnings(&self.reader, &name, topic.partitions(layout.partitions))?;
        for (partition, beginning) in (0..).zip(found) {
            match beginning {
                Beginning::Ours { identity, twice } => {
                    if identity != layout.identity(&name, partition) {
                        return Err(Problem::Wrong(format!(
                            "partition {partition} of {name} belongs to the cluster {} with {} partitions, and the catalog to {} with {}: topics of two clusters are mixed",
                            identity.cluster, identity.partitions, layout.id, layout.partitions
                        )));
                    }
                    if twice && topic == Topic::Events {
                        return Err(Problem::Wrong(format!(
                            "two `init`s wrote partition {partition} of {name} at once: while it is still without events, delete {name} and run init again, alone"
                        )));
                    }
                }
                Beginning::Foreign => return Err(foreign(&name, partition)),
                Beginning::Empty => return Err(unfinished(&name)),
                // Events and outcomes may be kept for a shorter time; compaction moves nothing.
                Beginning::Shortened => tracing::warn!("the beginning of partition {partition} of {name} was deleted"),
            }
        }
        Ok(())
    }
}

impl Layout {
    fn identity(&self, topic: &str, partition: u16) -> Identity {
        Identity {
            v: 1,
            cluster: self.id,
            topic: topic.to_owned(),
            partition,
            partitions: self.partitions,
            key: self.key.clone(),
        }
    }
}

fn foreign(name: &str, partition: u16) -> Problem {
    Problem::Wrong(format!(
        "partition {partition} of {name} does not begin with a record of `clickback init`: somebody else uses this topic; choose other names with --topic-prefix, or another Kafka"
    ))
}

fn unfinished(name: &str) -> Problem {
    Problem::Wrong(format!("{name} has no identity yet: `clickback init` was interrupted; run it again"))
}

fn other_partitions(cluster: &Cluster, known: u16, asked: u16) -> Problem {
    Problem::Wrong(format!(
        "the cluster of {} has {known} partitions and not {asked}. The number is fixed for life: run init with --partitions {known}, or make a new cluster under another --topic-prefix",
        cluster.topic(Topic::Events)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Time;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn setting(topic: Topic, replication: u16, name: &str) -> Option<String> {
        topic.settings(replication).into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    #[test]
    fn settings_follow_replication() {
        for topic in Topic::ALL {
            let get = |replication, name| setting(topic, replication, name);
            assert_eq!(get(1, "flush.messages").as_deref(), Some("1"));
            assert_eq!((get(2, "flush.messages"), get(3, "flush.messages")), (None, None));
            assert_eq!(get(2, "min.insync.replicas").as_deref(), Some("1"));
            assert_eq!(get(3, "min.insync.replicas").as_deref(), Some("2"));
            assert_eq!(get(1, "retention.ms").as_deref(), Some("-1"));
        }
        assert_eq!(setting(Topic::Events, 3, "message.timestamp.type").as_deref(), Some("LogAppendTime"));
        assert_eq!(setting(Topic::Outcomes, 3, "message.timestamp.type"), None);
        assert_eq!(setting(Topic::Conversions, 3, "cleanup.policy").as_deref(), Some("compact"));
    }

    #[test]
    fn a_cluster_knows_its_key() {
        let sealer = Sealer::from_text(KEY).unwrap();
        let id = EventId::new(Time::from_ms(1), 0, 1);
        let layout = Layout { id, partitions: 4, key: key_print(&sealer, id) };
        assert_eq!(layout.check_key(&sealer), Ok(()));
        let other = Sealer::from_text(&KEY.replace("00", "ff")).unwrap();
        assert!(layout.check_key(&other).unwrap_err().to_string().contains("--key-file"));
        assert_eq!((layout.partition(7), layout.partition(8)), (3, 0));
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let cluster = Cluster::new("127.0.0.1:1");
        let Err(Problem::Unreachable(text)) = check(&cluster) else { panic!("nobody listens there") };
        assert!(text.contains("127.0.0.1:1") && text.contains("--kafka"), "{text}");
    }
}
