//! `clickback migrate`: what a folder holds, moved into the topics of an empty cluster.
//!
//! Owns: the order of the writing. Refuses: a folder in use, a cluster that holds anything else, a key that is not its.
//! Invariant: while a cluster has only a part of the folder, nobody can go on from it: the outcomes are written first, so a
//! matcher that is started too early finds decisions without their events, and stops; the catalog comes last, so ingest
//! knows no link and no token before.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use matcher::split::{Moved, Split};
use pipeline::{
    LogReader, Sealer,
    catalog::reseal::Open,
    kafka::{
        self, Cluster, Layout, Problem, Topic,
        fill::{self, Compare, Fill, Found, Print},
        records::{self, Encoded, Number},
    },
    log::FolderLock,
};
use schemas::catalog::Record;
use serde_json::json;

use crate::{
    cli::{Common, LogFormat, MigrateArgs},
    out,
};

/// What is read of the folder at once.
const READ_BYTES: usize = 4 * 1024 * 1024;
const CATALOG_PAGE: usize = 1_000;
const SAY_EVERY: Duration = Duration::from_secs(5);

pub fn run(common: &Common, args: &MigrateArgs) -> Result<()> {
    let log = LogReader::open(&args.data)?;
    let _lock = FolderLock::take(&args.data)?;
    let sealer = Sealer::open(&args.data)?
        .with_context(|| format!("there is no key in {}: its catalog cannot be read without", args.data.display()))?;
    let cluster = args.kafka.cluster();
    let layout = kafka::check(&cluster).context("the cluster is not ready")?;
    let theirs = if args.key.is_given() { args.key.sealer()? } else { reopen(&args.data)? };
    layout.check_key(&theirs).context("the secrets of the folder must be sealed with the key of the cluster")?;
    let folder = Folder { log, sealer, events: 0 };
    let mut migration = Migration { folder, cluster, layout, theirs };
    let (written, records) = migration.run()?;
    greet(common, &migration, written, records)
}

fn reopen(dir: &Path) -> Result<Sealer> {
    Sealer::open(dir)?.context("the key of the folder is gone")
}

fn greet(common: &Common, migration: &Migration, written: u64, catalog: u64) -> Result<()> {
    let (events, id) = (migration.folder.events, migration.layout.id);
    match common.log_format {
        LogFormat::Json => {
            out::say_json(&json!({ "cluster": id, "events": events, "catalog": catalog, "written": written }))
        }
        LogFormat::Text => out::say(&format!(
            "{events} events and {catalog} records of the catalog are in the cluster {id} ({written} records were written just now); start its roles"
        )),
    }
}

struct Folder {
    log: LogReader,
    sealer: Sealer,
    events: u64,
}

struct Migration {
    folder: Folder,
    cluster: Cluster,
    layout: Layout,
    theirs: Sealer,
}

impl Migration {
    /// How many records were written, and how many the catalog has.
    fn run(&mut self) -> Result<(u64, u64)> {
        let [outcomes, events, catalog] = self.find()?;
        if !(outcomes.is_empty() && events.is_empty() && catalog.is_empty()) {
            tracing::info!(
                outcomes = outcomes.records(),
                events = events.records(),
                catalog = catalog.records(),
                "the topics are not empty: they are compared with the folder"
            );
            // All of it, before anything is written to topics that may be somebody else's.
            self.compare([&outcomes, &events, &catalog])?;
        }
        let mut written = self.fill(Topic::Outcomes, outcomes)?;
        written += self.fill(Topic::Events, events)?;
        let (more, records) = self.fill_catalog(catalog)?;
        Ok((written + more, records))
    }

    fn find(&self) -> Result<[Found; 3]> {
        let (cluster, partitions) = (&self.cluster, self.layout.partitions);
        let outcomes = fill::find(cluster, Topic::Outcomes, partitions)?;
        let events = fill::find(cluster, Topic::Events, partitions)?;
        let catalog = fill::find_catalog(cluster, |offset, payload| self.print_of_record(offset, payload))?;
        let is_new = outcomes.is_empty() && events.is_empty() && catalog.is_empty();
        if is_new && !fill::find(cluster, Topic::Conversions, partitions)?.is_empty() {
            bail!(
                "{} is not empty: make a new cluster, under another --topic-prefix",
                cluster.topic(Topic::Conversions)
            );
        }
        Ok([outcomes, events, catalog])
    }

    fn print_of_record(&self, offset: i64, payload: &[u8]) -> Result<Print, Problem> {
        let open = || -> Result<Print> {
            let record: Record = serde_json::from_slice(payload)?;
            Open::of(record, &self.theirs)?.print()
        };
        open().map_err(|error| Problem::Wrong(format!("record {offset} of the catalog: {error:#}")))
    }

    fn compare(&mut self, [outcomes, events, catalog]: [&Found; 3]) -> Result<()> {
        let (mut of_outcomes, mut of_events) = (Compare::new(outcomes.clone()), Compare::new(events.clone()));
        walk(&mut self.folder, self.layout.partitions, "compared", |moved| {
            of_outcomes.is_missing(moved.partition, &fill::print(&outcome(moved)))?;
            of_events.is_missing(moved.partition, &fill::print(&event(moved)?))?;
            Ok(())
        })?;
        let mut of_catalog = Compare::new(catalog.clone());
        self.folder.catalog(|_, open| {
            of_catalog.is_missing(0, &open.print()?)?;
            Ok(())
        })?;
        [of_outcomes, of_events, of_catalog].iter().try_for_each(|compare| Ok(compare.end()?))
    }

    fn fill(&mut self, topic: Topic, found: Found) -> Result<u64> {
        tracing::info!("{} is written", self.cluster.topic(topic));
        let mut fill = Fill::begin(&self.cluster, found)?;
        walk(&mut self.folder, self.layout.partitions, "written", |moved| {
            let record = if topic == Topic::Events { event(moved)? } else { outcome(moved) };
            Ok(fill.put(moved.partition, &record, &fill::print(&record))?)
        })?;
        Ok(fill.finish()?)
    }

    fn fill_catalog(&mut self, found: Found) -> Result<(u64, u64)> {
        tracing::info!("{} is written", self.cluster.topic(Topic::Catalog));
        let mut fill = Fill::begin(&self.cluster, found)?;
        let theirs = &self.theirs;
        let records = self.folder.catalog(|record, open| {
            let payload = serde_json::to_vec(&open.sealed(theirs))?;
            Ok(fill.put(0, &fill::catalog_record(&record.body.thing(), payload), &open.print()?)?)
        })?;
        Ok((fill.finish()?, records))
    }
}

impl Folder {
    /// Gives every record of the catalog, sealed and open, in their order.
    fn catalog(&self, mut each: impl FnMut(&Record, &Open) -> Result<()>) -> Result<u64> {
        let mut next = 0;
        loop {
            let page = self.log.catalog(next, CATALOG_PAGE)?;
            if page.is_empty() {
                return Ok(next);
            }
            for (seq, record) in page {
                let open = Open::of(record.clone(), &self.sealer)
                    .with_context(|| format!("record {seq} of the folder's catalog"))?;
                each(&record, &open)?;
                next = seq + 1;
            }
        }
    }
}

/// Gives every event of the folder with its outcome, as they stand in the partitions of a cluster, in the order of the log.
fn walk(folder: &mut Folder, partitions: u16, what: &str, mut each: impl FnMut(&Moved) -> Result<()>) -> Result<()> {
    let end = folder.log.position()?;
    let (mut split, mut next, mut said) = (Split::new(partitions), 0, Instant::now());
    while next < end.next {
        let blocks = folder.log.blocks(next, READ_BYTES)?;
        for block in &blocks {
            block.verify()?;
            for (event, outcome) in block.events().zip(block.outcomes()) {
                let ((src, event), (_, payload)) = (event?, outcome?);
                let moved = split.next(event, payload).with_context(|| format!("event {src} of the folder"))?;
                moved.iter().try_for_each(&mut each)?;
                next = src + 1;
            }
        }
        if blocks.is_empty() {
            bail!("the log of the folder ends at event {next} instead of {}", end.next);
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            tracing::info!("{what}: {next} of {} events", end.next);
        }
    }
    folder.events = next;
    Ok(())
}

fn event(moved: &Moved) -> Result<Encoded> {
    records::encode_event(&moved.event, moved.shard, None).context("an event cannot be written")
}

fn outcome(moved: &Moved) -> Encoded {
    let number = Number { from: moved.event.from, n: moved.event.n };
    Encoded {
        key: moved.shard.to_string(),
        headers: records::outcome_headers(moved.kind.code(), number, &moved.link, None),
        payload: moved.outcome.clone(),
    }
}
