//! Reads stored hits again with today's settings: one event per name that they concern.
//!
//! Owns: which hits are read again, and the events that carry their history to the matcher. Refuses to decide what
//! becomes of them. Invariant: an event is complete up to its position; what changed meanwhile the matcher calls stale,
//! and it is read and sent again.

mod history;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use history::{Again, Events, History, TooLong, Touched};
use pipeline::{Appender, Catalog, Draft, Unavailable, View, clock, log::LogReader, receipt::Receipt, secrets};
use schemas::{
    EventBody, EventId, Reason, Time,
    catalog::ReprocessRequest,
    event::{Name, Reprocess},
    id::alias_shard,
};

use crate::{
    fresh::{Freshness, Wanted},
    report::{Reports, Snapshot},
    tables::{HitRow, Kind, Order, decode, ranges, term},
};

/// Names sent at once.
const NAMES_AT_ONCE: usize = 64;
/// How often a name that changes all the time is read again.
const ATTEMPTS: u32 = 20;
/// Rows looked up at once.
const CHUNK: usize = 2_048;
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
    pub dir: PathBuf,
    pub reports: Reports,
    pub fresh: Freshness,
    pub appender: Appender,
    pub catalog: Arc<Catalog>,
}

/// Runs one request to its end; may be run again from the start after a crash. The caller records `done`.
pub async fn run(context: Context, tenant: &str, request: &ReprocessRequest) -> Result<Progress> {
    let job = Arc::new(Job { context, tenant: tenant.to_owned(), request: request.clone() });
    let mut progress = Progress::default();
    // Everything that the log acknowledged before this request is read.
    let end = blocking(&job, |job| Ok(LogReader::open(&job.context.dir)?.position()?.next)).await?;
    job.shows(end).await?;
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
    names: BTreeMap<Name, BTreeSet<u64>>,
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
    async fn shows(&self, next: u64) -> Result<()> {
        let mut wanted = Wanted::default();
        wanted.add_before(0, next);
        self.context.fresh.shows(&wanted).await
    }

    fn with_settings<T>(&self, work: impl FnOnce(&View, &Again<'_>) -> Result<T>) -> Result<T> {
        let view = self.context.catalog.view();
        let account = view.account(&self.tenant, &self.request.account).context("the account is not there")?;
        let again = Again { tenant: &self.tenant, account: &self.request.account, settings: &account.settings };
        work(&view, &again)
    }

    fn events(&self) -> Result<Events> {
        Ok(Events::new(LogReader::open(&self.context.dir)?))
    }

    fn find(&self) -> Result<Found> {
        let mut found = Found::default();
        let mut events = self.events()?;
        self.with_settings(|_, again| {
            let touched = self.context.reports.live()?.read(|snapshot| self.touched(snapshot, &mut events, again))?;
            found.hits = touched.len() as u64;
            for hit in touched {
                if let Some(name) = hit.name {
                    found.names.entry(name).or_default().insert(hit.src);
                }
            }
            Ok(found)
        })
    }

    /// Every hit of the account in the range that the request is about.
    fn touched(&self, snapshot: &mut Snapshot<'_>, events: &mut Events, again: &Again<'_>) -> Result<Vec<Touched>> {
        let names = snapshot.names();
        let account = names.tenant(again.tenant).and_then(|tenant| names.account(tenant, again.account));
        let Some(account) = account else { return Ok(Vec::new()) };
        let of_account = term(Kind::HitOfAccount, account, b"");
        let mut touched = Vec::new();
        for (first, mut last) in ranges(snapshot.conn(), Order::Hits, self.request.from, self.request.to)? {
            loop {
                let rows = snapshot.segments().rows(snapshot.conn(), of_account, first, last, CHUNK)?;
                for row in &rows {
                    if self.is_meant(snapshot, *row)? {
                        touched.push(self.touch(snapshot, events, again, *row as u64)?);
                    }
                }
                match rows.last() {
                    Some(lowest) if rows.len() == CHUNK && *lowest > first => last = lowest - 1,
                    _ => break,
                }
                snapshot.breathe()?;
            }
        }
        Ok(touched)
    }

    fn is_meant(&self, snapshot: &Snapshot<'_>, row: i64) -> Result<bool> {
        let mut read = snapshot.conn().prepare_cached("SELECT data FROM hits WHERE src = ?")?;
        let mut rows = read.query([row])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let hit: HitRow<'_> = decode(row.get_ref(0)?.as_blob()?)?;
        let in_range = self.request.from <= hit.time && hit.time < self.request.to;
        let code = |reason: Option<Reason>| reason.map(Reason::code);
        let has_reason = self.request.reason.as_deref().is_none_or(|wanted| {
            let of_goals = hit.decision.goals.iter().map(|goal| goal.reason);
            of_goals.chain([hit.decision.reason]).any(|reason| code(reason) == Some(wanted))
        });
        Ok(in_range && has_reason)
    }

    fn touch(&self, snapshot: &Snapshot<'_>, events: &mut Events, again: &Again<'_>, src: u64) -> Result<Touched> {
        let event = events.get(src)?;
        let EventBody::Hit(hit) = &event.body else { bail!("event {src} is no hit") };
        let (reading, _) = again.read(&event, hit);
        let name = match reading.name {
            Some(name) => history::home(snapshot, events, again, name)?,
            None => None,
        };
        Ok(Touched { src, name })
    }

    /// Builds, sends and waits, until none of the names is stale.
    async fn send(self: &Arc<Self>, mut names: Vec<(Name, BTreeSet<u64>)>, progress: &mut Progress) -> Result<()> {
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
            self.shows(last.src().context("an event has no position in the log yet")? + 1).await?;
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

    fn build(&self, names: &[(Name, BTreeSet<u64>)]) -> Result<Vec<Built>> {
        let mut events = self.events()?;
        self.with_settings(|_, again| {
            self.context.reports.live()?.read(|snapshot| {
                let mut built = Vec::with_capacity(names.len());
                for (name, range) in names {
                    // Each history is of one snapshot, whose position it carries.
                    let position = snapshot.position()?;
                    let items = History { snapshot, events: &mut events, again }.items(name, range);
                    built.push(match items {
                        Ok(items) => Built::Draft(Box::new(self.draft(name, position, items))),
                        Err(error) if error.is::<TooLong>() => Built::Problem(format!("{}: {error}", text(name))),
                        Err(error) => return Err(error),
                    });
                    snapshot.breathe()?;
                }
                Ok(built)
            })
        })
    }

    fn draft(&self, name: &Name, position: u64, items: Vec<schemas::event::Item>) -> Draft {
        let account = &self.request.account;
        let shard = match name {
            Name::Click(id) => id.shard(),
            Name::Alias(text) | Name::Label(text) => alias_shard(&self.tenant, account, text),
        };
        let now: Time = clock::now();
        let body = EventBody::Reprocess(Reprocess {
            account: account.clone(),
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
        sent: Vec<(Name, BTreeSet<u64>)>,
        receipts: Vec<Receipt>,
        progress: &mut Progress,
    ) -> Result<Vec<(Name, BTreeSet<u64>)>> {
        let outcomes = blocking(self, move |job| {
            let log = LogReader::open(&job.context.dir)?;
            let outcome = |receipt: &Receipt| {
                let src = receipt.src().context("an event has no position in the log yet")?;
                log.outcome(src)?.context("an outcome is not in the log")
            };
            receipts.iter().map(outcome).collect::<Result<Vec<_>>>()
        })
        .await?;
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
