//! Conversions: one with its changes, and lists of them.
//!
//! A conversion stands in a list once for each version, and is shown where the first of them stands that the list is
//! about. So it keeps its place while it changes, and pages neither repeat nor lose it.

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use schemas::{ClickId, ConversionId, Time};

use super::{
    ACCOUNTS_BY_LIST, Seen,
    walk::{Bounds, Chain, Found, Key, entries, merged, page as walk},
};
use crate::{
    cluster::{lists::List, store::Store},
    report::{
        Answer, ConversionQuery, ConversionRow, Page, Range,
        conversions::{JOURNEY, is_wanted, range},
        show,
    },
    tables::{StoredConversion, decode},
};

/// One version of a conversion.
pub struct Version {
    pub number: i32,
    pub tenant: String,
    pub account: String,
    pub data: Vec<u8>,
}

/// The first one first.
pub async fn versions(store: &Store, id: &[u8]) -> Result<Vec<Version>> {
    let rows = store.session.execute_iter(store.reads.versions.clone(), (id,)).await?;
    let rows = rows.rows_stream::<(i32, String, String, Vec<u8>)>()?.map_err(anyhow::Error::from);
    rows.map_ok(|(number, tenant, account, data)| Version { number, tenant, account, data }).try_collect().await
}

/// As it stands now.
pub fn current(versions: &[Version]) -> Result<StoredConversion<'_>> {
    let (first, later) = versions.split_first().context("a conversion without a version")?;
    let first: StoredConversion<'_> = decode(&first.data)?;
    later.last().map_or(Ok(first.clone()), |last| Ok(first.becomes(decode(&last.data)?)))
}

/// Whether this entry is the one at which the conversion is shown: of the first version that the list is about.
pub fn is_shown_at(
    versions: &[Version],
    entry: &Key,
    is_about: impl Fn(&StoredConversion<'_>) -> bool,
) -> Result<bool> {
    for version in versions {
        if is_about(&decode(&version.data)?) {
            return Ok(version.number == entry.version);
        }
    }
    Ok(false)
}

/// What the lists of changes are sorted by.
pub fn latest(version: &StoredConversion<'_>) -> Time {
    version.updated.max(version.click_time).max(version.time)
}

/// The list that is walked, and which versions it is about.
enum Lists<'q> {
    Made,
    Changed { since: Time },
    Tids(Vec<&'q str>),
    Players(Vec<&'q str>),
}

impl<'q> Lists<'q> {
    fn of(query: &'q ConversionQuery, range: Range) -> Self {
        if let Some(values) = query.tid.positive() {
            return Lists::Tids(values);
        }
        if let Some(values) = query.player.positive() {
            return Lists::Players(values);
        }
        match (range, query.updated_after) {
            (Range::ALL, None) => Lists::Made,
            (range, after) => Lists::Changed { since: range.from.max(after.unwrap_or(range.from)) },
        }
    }

    fn is_about(&self, version: &StoredConversion<'_>) -> bool {
        match self {
            Lists::Made => true,
            Lists::Changed { since } => latest(version) >= *since,
            Lists::Tids(values) => version.tid.is_some_and(|tid| values.contains(&tid)),
            Lists::Players(values) => version.player.is_some_and(|player| values.contains(&player)),
        }
    }

    fn range(&self) -> Range {
        match self {
            Lists::Changed { since } => Range { from: *since, ..Range::ALL },
            Lists::Made | Lists::Tids(_) | Lists::Players(_) => Range::ALL,
        }
    }

    fn chains<'s>(&'s self, store: &'s Store, query: &'s ConversionQuery, bounds: &'s Bounds) -> Vec<Chain<'s, Found>> {
        let of_names = |list: List, names: &'s [&'q str]| -> Vec<Chain<'s, Found>> {
            names.iter().map(|name| entries(store, list, &query.tenant, name, bounds)).collect()
        };
        let (of_tenant, of_account) = match self {
            Lists::Tids(values) => return of_names(List::ConversionTid, values),
            Lists::Players(values) => return of_names(List::ConversionPlayer, values),
            Lists::Made => (List::MadeOfTenant, List::MadeOfAccount),
            Lists::Changed { .. } => (List::ChangedOfTenant, List::ChangedOfAccount),
        };
        if !(1..=ACCOUNTS_BY_LIST).contains(&query.accounts.len()) {
            return vec![entries(store, of_tenant, &query.tenant, "", bounds)];
        }
        query.accounts.iter().map(|account| entries(store, of_account, &query.tenant, account, bounds)).collect()
    }
}

/// Last made first; with a range of time, by the latest of the times of the version that first lies in it.
pub async fn page(seen: &Seen, query: &ConversionQuery) -> Answer<Page<ConversionRow>> {
    let range = range(query)?;
    let lists = Lists::of(query, range);
    let bounds = Bounds::after(lists.range(), query.cursor.as_deref())?;
    let chains = lists.chains(&seen.store, query, &bounds);
    let (items, end) = walk(merged(chains), query.limit, async |found| {
        if !query.accounts.is_empty() && !query.accounts.contains(&found.account) {
            return Ok(None);
        }
        let versions = versions(&seen.store, &found.key.id).await?;
        if versions.is_empty() || !is_shown_at(&versions, &found.key, |version| lists.is_about(version))? {
            return Ok(None);
        }
        let row = current(&versions)?;
        Ok(is_wanted(query, range, &row).then(|| show::conversion(&found.account, &row)))
    })
    .await?;
    Ok(Page { items, cursor: end.map(|key| key.text()).transpose()?, as_of: seen.as_of })
}

pub async fn one(seen: &Seen, tenant: &str, id: &str) -> Result<Option<ConversionRow>> {
    let Some(id) = ConversionId::parse(id.as_bytes()) else { return Ok(None) };
    let versions = versions(&seen.store, &id.0).await?;
    of_tenant(&versions, tenant)
}

fn of_tenant(versions: &[Version], tenant: &str) -> Result<Option<ConversionRow>> {
    versions.first().filter(|first| first.tenant == tenant).map(|_| with_changes(versions)).transpose()
}

/// As it stands now, and how it came to that.
pub fn with_changes(versions: &[Version]) -> Result<ConversionRow> {
    let row = current(versions)?;
    let account = versions.first().map(|first| first.account.as_str()).unwrap_or_default();
    let changes = versions.iter().map(|version| {
        let row: StoredConversion<'_> = decode(&version.data)?;
        Ok(show::change(&row.first))
    });
    let changes = Some(changes.collect::<Result<_>>()?);
    Ok(ConversionRow { changes, ..show::conversion(account, &row) })
}

/// What came of a click, the first one first; and whether there is more.
pub async fn of_click(seen: &Seen, tenant: &str, click: ClickId) -> Result<(Vec<ConversionRow>, Option<Key>)> {
    let (bounds, name) = (Bounds::of(Range::ALL), click.to_string());
    let found = entries(&seen.store, List::ConversionClick, tenant, &name, &bounds);
    let (mut rows, more) = walk(found, JOURNEY, async |found| {
        let versions = versions(&seen.store, &found.key.id).await?;
        if !is_shown_at(&versions, &found.key, |version| version.click == Some(click))? {
            return Ok(None);
        }
        of_tenant(&versions, tenant)
    })
    .await?;
    rows.reverse();
    Ok((rows, more))
}
