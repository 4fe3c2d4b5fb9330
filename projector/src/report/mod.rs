//! Answers from the report tables, those of a folder or those of a cluster. In a folder every call reads one snapshot or
//! several short ones, and none lasts over a second.
//!
//! Owns: what a question means, and which tables answer it.
//! Refuses: to write; to cut an answer short without saying so (there is a cursor, or the question is refused).
//! Invariant: cells and rows give the same figures.

mod by_cells;
mod by_rows;
pub(crate) mod conversions;
pub(crate) mod figures;
mod folder;
mod measures;
pub(crate) mod plan;
pub(crate) mod postbacks;
mod query;
mod range;
mod reader;
mod rows;
pub(crate) mod show;
pub(crate) mod source;
mod tally;
mod walk;
mod watch;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use conversions::at as conversion_at;
#[cfg(test)]
pub(crate) use figures::answer_by_rows;
use pipeline::View;
pub use query::{
    BadDimension, Basis, ClickName, ClickQuery, ConversionQuery, Decided, Dimension, Filter, Filters, Match, Moment,
    PostbackQuery, QueryError, ReportQuery,
};
pub(crate) use range::{Range, resolve as resolve_range, zone as time_zone};
pub(crate) use reader::{Live, Snapshot, TooLong};
pub use rows::{
    AsOf, ChangeRow, ClickRow, ConversionRow, Epc, GoalRow, Journey, Measures, MoneyRow, Page, PostbackRow, Rates,
    Report, ReportRow, StateCounts, Understood, What,
};
use schemas::{ClickId, EventId, bounds};
use tokio::{runtime::Handle, sync::watch::Receiver};
pub use watch::{AccountHealth, Figures, Habit, HealthProblem, HealthStatus, LookedAt, watch};

use crate::cluster::{positions::Positions, read::Reader, store::Store};

type Lookup<'a, T> = Box<dyn Fn(&str) -> Option<T> + 'a>;

/// Names and settings of accounts, links and programs, looked up when a question is answered.
/// `Directory::of(&view, tenant)` reads them from the catalog's view.
pub struct Directory<'a> {
    /// Ids of all accounts of the tenant.
    pub accounts: Box<dyn Fn() -> Vec<String> + 'a>,
    pub account: Lookup<'a, AccountNames>,
    pub program: Lookup<'a, String>,
    pub link: Lookup<'a, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountNames {
    pub name: String,
    pub program: String,
    pub timezone: String,
}

impl<'a> Directory<'a> {
    pub fn of(view: &'a View, tenant: &'a str) -> Self {
        Self {
            accounts: Box::new(move || view.accounts(tenant).map(|found| found.record.id.clone()).collect()),
            account: Box::new(move |id| {
                let found = view.account(tenant, id)?;
                Some(AccountNames {
                    name: found.record.name.clone(),
                    program: found.record.program.clone(),
                    timezone: found.settings.timezone.clone(),
                })
            }),
            program: Box::new(move |id| Some(view.program(tenant, id)?.name.clone())),
            link: Box::new(move |id| Some(view.link(id).filter(|link| link.tenant == tenant)?.record.name.clone())),
        }
    }
}

/// Reads the live generation of the tables. Cheap to clone. Every call blocks: use `spawn_blocking`.
#[derive(Clone, Debug)]
pub enum Reports {
    Folder(Arc<Live>),
    Cluster(Reader),
}

pub(crate) type Answer<T> = Result<T, QueryError>;

impl Reports {
    pub(crate) fn at(path: &Path) -> Self {
        Self::Folder(Arc::new(Live::new(path)))
    }

    /// Follows the live generation of a cluster's tables. `runtime`: where the database's driver runs.
    pub fn cluster(store: Receiver<Arc<Store>>, positions: Receiver<Arc<Positions>>, runtime: Handle) -> Self {
        Self::Cluster(Reader::new(store, positions, runtime))
    }

    /// For what reads the tables of a folder itself.
    pub(crate) fn live(&self) -> anyhow::Result<&Live> {
        match self {
            Self::Folder(live) => Ok(live),
            Self::Cluster(_) => anyhow::bail!("these tables are those of a cluster, and not of a folder"),
        }
    }

    /// The next `src` that is not in the tables yet. A cluster has one for every partition, and no other.
    pub fn position(&self) -> Answer<u64> {
        Ok(self.live()?.read(|snapshot| Ok::<_, anyhow::Error>(snapshot.as_of.next))?)
    }
    pub fn conversions_report(&self, directory: &Directory<'_>, query: &ReportQuery) -> Answer<Report> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| figures::answer(snapshot, directory, query)),
            Self::Cluster(reader) => reader.conversions_report(directory, query),
        }
    }
    pub fn postbacks(&self, query: &PostbackQuery) -> Answer<Page<PostbackRow>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| postbacks::page(snapshot, query)),
            Self::Cluster(reader) => reader.postbacks(query),
        }
    }
    pub fn hit(&self, tenant: &str, id: EventId) -> Answer<Option<PostbackRow>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| Ok(postbacks::one(snapshot, tenant, id)?)),
            Self::Cluster(reader) => reader.hit(tenant, id),
        }
    }
    pub fn clicks(&self, query: &ClickQuery) -> Answer<Page<ClickRow>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| conversions::clicks(snapshot, query)),
            Self::Cluster(reader) => reader.clicks(query),
        }
    }
    pub fn journey(&self, tenant: &str, click: ClickId) -> Answer<Option<Journey>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| Ok(conversions::journey(snapshot, tenant, click)?)),
            Self::Cluster(reader) => reader.journey(tenant, click),
        }
    }
    pub fn conversions(&self, query: &ConversionQuery) -> Answer<Page<ConversionRow>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| conversions::page(snapshot, query)),
            Self::Cluster(reader) => reader.conversions(query),
        }
    }
    /// With its changes.
    pub fn conversion(&self, tenant: &str, id: &str) -> Answer<Option<ConversionRow>> {
        match self {
            Self::Folder(live) => ask(live, |snapshot| Ok(conversions::one(snapshot, tenant, id)?)),
            Self::Cluster(reader) => reader.conversion(tenant, id),
        }
    }
}

/// Whoever asks has stopped waiting after that time, so nobody reads on.
fn ask<T>(live: &Live, question: impl FnOnce(&mut Snapshot<'_>) -> Answer<T>) -> Answer<T> {
    live.read_until(Some(Instant::now() + Duration::from_millis(bounds::API_READ_MS)), question)
}
