//! What stands on the topics of a world, as a reader of them sees it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pipeline::kafka::{PartitionReader, Topic};
use rdkafka::consumer::Consumer;
use schemas::{
    Amount, ConversionId, EventId, Outcome,
    chain::{Chain, Link, Position, Verdict, judge},
    outcome::{Conversion, HitOutcome},
};
use system_tests::Role;

use crate::world::{Stored, World};

const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// Records of a partition, its identity among them.
    pub fn end(&self, topic: Topic, partition: u16) -> u64 {
        PartitionReader::open(&self.cluster(), topic, partition, 64).unwrap().ends().unwrap().1
    }

    /// Records of a topic, and one identity in each partition.
    pub fn records(&self, topic: Topic) -> usize {
        let partitions = if topic == Topic::Catalog { 1 } else { self.partitions() };
        (0..partitions).map(|partition| self.end(topic, partition) as usize).sum()
    }

    pub fn partitions(&self) -> u16 {
        let reader = self.cluster().open_reader().unwrap();
        let name = self.cluster().topic(Topic::Events);
        let metadata = reader.fetch_metadata(Some(&name), PATIENCE).unwrap();
        metadata.topics()[0].partitions().len().try_into().unwrap()
    }

    /// All that stands on a topic now, partition by partition.
    pub fn all(&self, topic: Topic) -> Vec<Stored> {
        let (mut left, mut all) = (self.records(topic), Vec::new());
        if left > 0 {
            all = self.read(topic, |_| {
                left -= 1;
                left == 0
            });
        }
        all.sort_by_key(|stored| (stored.partition, stored.offset));
        all
    }

    /// The outcomes that a reader takes, by partition.
    pub fn taken(&self) -> Vec<Vec<Outcome>> {
        let first = Position { next: 1, chain: Chain::FIRST };
        let mut partitions = vec![(first, Vec::new()); usize::from(self.partitions())];
        for stored in self.all(Topic::Outcomes) {
            if stored.is_identity() {
                continue;
            }
            let (position, taken) = &mut partitions[usize::from(stored.partition)];
            let chain = |name: &str| Chain::parse(&stored.headers[name]).unwrap();
            let link = Link { src: stored.headers["src"].parse().unwrap(), prev: chain("prev"), chain: chain("chain") };
            match judge(position, &link, &stored.payload) {
                Verdict::Take => {
                    *position = Position { next: link.src + 1, chain: link.chain };
                    taken.push(serde_json::from_slice(&stored.payload).unwrap());
                }
                Verdict::Skip | Verdict::Hole => {}
                Verdict::Diverged => panic!("outcome {} of partition {} diverges", link.src, stored.partition),
            }
        }
        partitions.into_iter().map(|(_, taken)| taken).collect()
    }

    /// The outcome that was decided for a hit last, once there is one after these many.
    pub fn decided(&self, hit: &str, after: usize) -> HitOutcome {
        let id: EventId = hit.parse().unwrap();
        let mut seen = 0;
        let all = self.read(Topic::Outcomes, |stored| {
            if !stored.is_identity() {
                let outcome: Outcome = serde_json::from_slice(&stored.payload).unwrap();
                seen += outcome.hits.iter().filter(|entry| entry.hit.id == id).count();
            }
            seen > after
        });
        let outcome: Outcome = serde_json::from_slice(&all.last().unwrap().payload).unwrap();
        outcome.hits.into_iter().rfind(|entry| entry.hit.id == id).unwrap()
    }

    /// Waits until every event that is there now has its outcome.
    pub fn settle(&self) {
        let until = Instant::now() + PATIENCE;
        for partition in 0..self.partitions() {
            let events = self.end(Topic::Events, partition) as usize - 1;
            while self.taken()[usize::from(partition)].len() < events {
                assert!(Instant::now() < until, "partition {partition} has outcomes of less than {events} events");
            }
        }
    }

    pub fn matcher(&self, folder: &str) -> Role {
        let state = self.folder.path().join(folder);
        let args = ["matcher", "--kafka", &self.kafka, "--topic-prefix", &self.prefix];
        let more = ["--state", state.to_str().unwrap(), "--admin", "127.0.0.1:0"];
        let args: Vec<&str> = args.iter().chain(&more).copied().collect();
        Role::start(&args).unwrap_or_else(|stderr| panic!("the matcher did not start:\n{stderr}"))
    }
}

/// What the outcomes come to: the current outcome of each hit, each conversion as it stands, and the sums of its changes.
#[derive(Debug, Default, PartialEq)]
pub struct Books {
    pub hits: BTreeMap<EventId, HitOutcome>,
    pub conversions: BTreeMap<ConversionId, Conversion>,
    pub sums: BTreeMap<(ConversionId, String, String), (i64, Amount, Amount)>,
    pub clicks: BTreeMap<String, u64>,
}

impl Books {
    pub fn of<'o>(outcomes: impl IntoIterator<Item = &'o Outcome>) -> Books {
        let mut books = Books::default();
        outcomes.into_iter().for_each(|outcome| books.add(outcome));
        books
    }

    fn add(&mut self, outcome: &Outcome) {
        for change in &outcome.changes {
            let cell = (change.conversion, change.state.code().to_owned(), change.currency.code().to_owned());
            let sum = self.sums.entry(cell).or_default();
            sum.0 += change.count;
            sum.1 = sum.1.plus(change.earning.unwrap_or_default()).unwrap();
            sum.2 = sum.2.plus(change.value.unwrap_or_default()).unwrap();
        }
        let of_hits = outcome.hits.iter().flat_map(|entry| &entry.goals).filter_map(|goal| goal.conversion.as_ref());
        let by_hand = outcome.adjust.iter().filter_map(|adjust| adjust.conversion.as_ref());
        for conversion in of_hits.chain(by_hand) {
            match self.conversions.get(&conversion.id) {
                Some(known) if known.version >= conversion.version => {}
                _ => drop(self.conversions.insert(conversion.id, conversion.clone())),
            }
        }
        self.hits.extend(outcome.hits.iter().map(|entry| (entry.hit.id, entry.clone())));
        if let (schemas::outcome::Kind::Click, Some(click), None) = (outcome.kind, &outcome.click, outcome.reason) {
            *self.clicks.entry(click.account.clone()).or_default() += 1;
        }
    }
}
