//! Reads stored hits again with today's settings: one event per name that they concern.
//!
//! Owns: which hits are read again, and the events that carry their history to the matcher. Refuses to decide what
//! becomes of them. Invariant: an event is complete up to its position; what changed meanwhile the matcher calls stale,
//! and it is read and sent again.

mod folder;
pub(crate) mod history;
pub(crate) mod past;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use folder::{Events, OfFolder};
use history::{Again, History, TooLong};
use past::{Past, PastHit};
use pipeline::{
    Appender, Catalog, Draft, Unavailable, View, clock, kafka::records::partition, log::LogReader, receipt::Receipt,
    secrets,
};
use schemas::{
    EventBody, EventId, Outcome, Reason, Time,
    catalog::ReprocessRequest,
    event::{Name, Reprocess},
    id::alias_shard,
};

use crate::{
    cluster::past::OfCluster,
    fresh::{Freshness, Wanted},
    report::Reports,
    tables::Decision,
};

/// Names sent at once.
const NAMES_AT_ONCE: usize = 64;
/// How often a name that changes all the time is read again.
const ATTEMPTS: u32 = 20;
const BUSY: Duration = Duration::from_millis(50);
/// Problems that are listed one by one.
const PROBLEMS: usize = 100;

/// What a reprocess did, for `ReprocessRequest`'s fields `hits`, `changed`, `receipt`, `problems`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub hits: u64,
    pub changed: u64,
    pub receipt: Option<String>,
    pub problems: Vec<String>,
}

impl Progress {
    fn problem(&mut self, text: String) {
        match self.problems.len() {
            0..PROBLEMS => self.problems.push(text),
            PROBLEMS => self.problems.push("… and more".to_owned()),
            _ => {}
        }
    }
}

/// Everything that a reprocess reads and sends through.
#[derive(Clone)]
pub struct Context {
    pub past: Source,
    pub reports: Reports,
    pub fresh: Freshness,
    pub appender: Appender,
    pub catalog: Arc<Catalog>,
}

/// Where the past is read.
#[derive(Clone)]
pub enum Source {
    /// The folder of the log.
    Folder(PathBuf),
    Cluster(crate::cluster::past::Source),
}

impl Source {
    fn partitions(&self) -> u16 {
        match self {
            Source::Folder(_) => 1,
            Source::Cluster(of) => of.partitions,
        }
    }

    /// What became of events that are visible.
    fn outcomes(&self, receipts: &[Receipt]) -> Result<Vec<Outcome>> {
        let places = receipts.iter().map(|receipt| {
            let src = receipt.src().context("an event has no position in the log yet")?;
            anyhow::Ok((receipt.partition(), src))
        });
        let places: Vec<_> = places.collect::<Result<_>>()?;
        match self {
            Source::Folder(dir) => {
                let log = LogReader::open(dir)?;
                let outcome = |(_, src)| log.outcome(src)?.context("an outcome is not in the log");
                places.into_iter().map(outcome).collect()
            }
            Source::Cluster(of) => of.outcomes(&places),
        }
    }
}

/// Runs one request to its end; may be run again from the start after a crash. The caller records `done`.
pub async fn run(context: Context, tenant: &str, request: &ReprocessRequest) -> Result<Progress> {
    let job = Arc::new(Job { context, tenant: tenant.to_owned(), request: request.clone() });
    let mut progress = Progress::default();
    // Everything that the log acknowledged before this request is read.
    let mut all = Wanted::default();
    job.context.fresh.add_latest(&mut all).await?;
    job.context.fresh.shows(&all).await?;
    let found = blocking(&job, |job| job.find()).await?;
    progress.hits = found.hits;
    let names: Vec<_> = found.names.into_iter().collect();
    for part in names.chunks(NAMES_AT_ONCE) {
        job.send(part.to_vec(), &mut progress).await?;
    }
    Ok(progress)
}

struct Job {
    context: Context,
    tenant: String,
    request: ReprocessRequest,
}

/// Hits in the range, by the name whose history they are part of.
#[derive(Default)]
struct Found {
    hits: u64,
    names: BTreeMap<Name, BTreeSet<PastHit>>,
}

/// What came of building a name's event.
enum Built {
    Draft(Box<Draft>),
    Problem(String),
}

async fn blocking<T: Send + 'static>(
    job: &Arc<Job>,
    work: impl FnOnce(&Job) -> Result<T> + Send + 'static,
) -> Result<T> {
    let job = Arc::clone(job);
    tokio::task::spawn_blocking(move || work(&job)).await.map_err(|error| anyhow!(error))?
}

impl Job {
    fn with_settings<T>(&self, work: impl FnOnce(&Again<'_>, &mut dyn Past) -> Result<T>) -> Result<T> {
        let view: Arc<View> = self.context.catalog.view();
        let (tenant, account) = (self.tenant.as_str(), self.request.account.as_str());
        let entry = view.account(tenant, account).context("the account is not there")?;
        let again = Again { tenant, account, settings: &entry.settings };
        match &self.context.past {
            Source::Folder(dir) => {
                let events = Events::new(LogReader::open(dir)?);
                self.context
                    .reports
                    .live()?
                    .read(|snapshot| work(&again, &mut OfFolder { snapshot, events, tenant, account }))
            }
            Source::Cluster(of) => work(&again, &mut OfCluster::new(of, tenant, account)),
        }
    }

    fn find(&self) -> Result<Found> {
        self.with_settings(|again, past| {
            let mut found = Found::default();
            let (from, to) = (self.request.from, self.request.to);
            for touched in past.hits_between(from, to, &|decision| self.is_meant(decision))? {
                found.hits += 1;
                let event = past.event(touched.at)?;
                let EventBody::Hit(hit) = &event.body else { bail!("event {:?} is no hit", touched.at) };
                let (reading, _) = again.read(&event, hit);
                let Some(name) = reading.name else { continue };
                if let Some(name) = history::home(past, name)? {
                    found.names.entry(name).or_default().insert(touched);
                }
            }
            Ok(found)
        })
    }

    fn is_meant(&self, decision: &Decision<'_>) -> bool {
        let code = |reason: Option<Reason>| reason.map(Reason::code);
        self.request.reason.as_deref().is_none_or(|wanted| {
            let of_goals = decision.goals.iter().map(|goal| goal.reason);
            of_goals.chain([decision.reason]).any(|reason| code(reason) == Some(wanted))
        })
    }

    /// Builds, sends and waits, until none of the names is stale.
    async fn send(self: &Arc<Self>, mut names: Vec<(Name, BTreeSet<PastHit>)>, progress: &mut Progress) -> Result<()> {
        for attempt in 1.. {
            let asked = names.clone();
            let built = blocking(self, move |job| job.build(&asked)).await?;
            let mut sent = Vec::new();
            let mut drafts = Vec::new();
            for (name, built) in names.into_iter().zip(built) {
                match built {
                    Built::Problem(problem) => progress.problem(problem),
                    Built::Draft(draft) => {
                        drafts.push(*draft);
                        sent.push(name);
                    }
                }
            }
            let receipts = self.append(drafts).await?;
            let Some(last) = receipts.iter().max() else { return Ok(()) };
            progress.receipt = Some(last.to_string());
            let mut all = Wanted::default();
            receipts.iter().for_each(|receipt| all.add(receipt));
            self.context.fresh.shows(&all).await?;
            names = self.results(sent, receipts, progress).await?;
            if names.is_empty() {
                return Ok(());
            }
            if attempt == ATTEMPTS {
                let texts = names.iter().map(|(name, _)| format!("{}: it changes all the time", text(name)));
                texts.for_each(|problem| progress.problem(problem));
                return Ok(());
            }
        }
        Ok(())
    }

    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>> {
        loop {
            match self.context.appender.append_all(drafts.clone()).await {
                Err(Unavailable::Busy) => tokio::time::sleep(BUSY).await,
                answer => return Ok(answer?),
            }
        }
    }

    fn build(&self, names: &[(Name, BTreeSet<PastHit>)]) -> Result<Vec<Built>> {
        self.with_settings(|again, past| {
            let mut built = Vec::with_capacity(names.len());
            for (name, range) in names {
                let shard = self.shard(name);
                // Each history is complete up to the position that it carries.
                let position = past.position(partition(shard, self.context.past.partitions()))?;
                let items = History { past, again }.items(name, range, position);
                built.push(match items {
                    Ok(items) => Built::Draft(Box::new(self.draft(name, shard, position, items))),
                    Err(error) if error.is::<TooLong>() => Built::Problem(format!("{}: {error}", text(name))),
                    Err(error) => return Err(error),
                });
                past.breathe()?;
            }
            Ok(built)
        })
    }

    fn shard(&self, name: &Name) -> u16 {
        match name {
            Name::Click(id) => id.shard(),
            Name::Alias(text) | Name::Label(text) => alias_shard(&self.tenant, &self.request.account, text),
        }
    }

    fn draft(&self, name: &Name, shard: u16, position: u64, items: Vec<schemas::event::Item>) -> Draft {
        let now: Time = clock::now();
        let body = EventBody::Reprocess(Reprocess {
            account: self.request.account.clone(),
            request: self.request.id.clone(),
            dry_run: self.request.dry_run,
            name: name.clone(),
            position,
            items,
        });
        let id = EventId::new(now, shard, secrets::random_bits());
        Draft { id, tenant: self.tenant.clone(), time: now, shard, body }
    }

    /// Reads what became of each event; gives back the names that were stale.
    async fn results(
        self: &Arc<Self>,
        sent: Vec<(Name, BTreeSet<PastHit>)>,
        receipts: Vec<Receipt>,
        progress: &mut Progress,
    ) -> Result<Vec<(Name, BTreeSet<PastHit>)>> {
        let outcomes = blocking(self, move |job| job.context.past.outcomes(&receipts)).await?;
        let mut stale = Vec::new();
        for (name, outcome) in sent.into_iter().zip(outcomes) {
            match outcome.reason {
                None => progress.changed += u64::from(outcome.reprocess.map_or(0, |reprocess| reprocess.changed)),
                Some(Reason::Stale) => stale.push(name),
                Some(reason) => progress.problem(format!("{}: {}", text(&name.0), reason.code())),
            }
        }
        Ok(stale)
    }
}

fn text(name: &Name) -> String {
    match name {
        Name::Click(id) => format!("click {id}"),
        Name::Alias(alias) => format!("dyn or foreign id {alias:?}"),
        Name::Label(label) => format!("label {label:?}"),
    }
}
