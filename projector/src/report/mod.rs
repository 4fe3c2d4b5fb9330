//! Answers from the report tables: every call reads one snapshot or several short ones, and none lasts over a second.
//!
//! Owns: what a question means, and which tables answer it.
//! Refuses: to write; to cut an answer short without saying so (there is a cursor, or the question is refused).
//! Invariant: cells and rows give the same figures.

mod by_cells;
mod by_rows;
mod conversions;
mod figures;
mod measures;
mod plan;
mod postbacks;
mod query;
mod range;
mod reader;
mod rows;
pub(crate) mod show;
mod tally;
mod walk;

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
pub(crate) use range::{resolve as resolve_range, zone as time_zone};
pub(crate) use reader::{Live, Snapshot};
pub use rows::{
    AsOf, ChangeRow, ClickRow, ConversionRow, Epc, GoalRow, Journey, Measures, MoneyRow, Page, PostbackRow, Rates,
    Report, ReportRow, StateCounts, Understood, What,
};
use schemas::{ClickId, EventId, bounds};

type Lookup<'a, T> = Box<dyn Fn(&str) -> Option<T> + 'a>;

/// Names and settings of accounts, links and programs, looked up when a question is answered.
/// `Directory::of(&view, tenant)` reads them from the catalog's view.
pub struct Directory<'a> {
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
pub struct Reports {
    pub(crate) live: Arc<Live>,
}

type Answer<T> = Result<T, QueryError>;

impl Reports {
    pub(crate) fn at(path: &Path) -> Self {
        Self { live: Arc::new(Live::new(path)) }
    }

    /// Whoever asks has stopped waiting after that time, so nobody reads on.
    fn read<T>(&self, ask: impl FnOnce(&mut Snapshot<'_>) -> Answer<T>) -> Answer<T> {
        self.live.read_until(Some(Instant::now() + Duration::from_millis(bounds::API_READ_MS)), ask)
    }

    /// The next `src` that is not in the tables yet.
    pub fn position(&self) -> Answer<u64> {
        self.read(|snapshot| Ok(snapshot.as_of.next))
    }
    pub fn conversions_report(&self, directory: &Directory<'_>, query: &ReportQuery) -> Answer<Report> {
        self.read(|snapshot| figures::answer(snapshot, directory, query))
    }
    pub fn postbacks(&self, query: &PostbackQuery) -> Answer<Page<PostbackRow>> {
        self.read(|snapshot| postbacks::page(snapshot, query))
    }
    pub fn hit(&self, tenant: &str, id: EventId) -> Answer<Option<PostbackRow>> {
        self.read(|snapshot| Ok(postbacks::one(snapshot, tenant, id)?))
    }
    pub fn clicks(&self, query: &ClickQuery) -> Answer<Page<ClickRow>> {
        self.read(|snapshot| conversions::clicks(snapshot, query))
    }
    pub fn journey(&self, tenant: &str, click: ClickId) -> Answer<Option<Journey>> {
        self.read(|snapshot| Ok(conversions::journey(snapshot, tenant, click)?))
    }
    pub fn conversions(&self, query: &ConversionQuery) -> Answer<Page<ConversionRow>> {
        self.read(|snapshot| conversions::page(snapshot, query))
    }
    /// With its changes.
    pub fn conversion(&self, tenant: &str, id: &str) -> Answer<Option<ConversionRow>> {
        self.read(|snapshot| Ok(conversions::one(snapshot, tenant, id)?))
    }
}
