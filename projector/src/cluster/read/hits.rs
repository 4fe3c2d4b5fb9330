//! Hits, clicks, and the journey of a click.

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use schemas::{ClickId, EventId, Time, name::fold as fold_name};

use super::{
    ACCOUNTS_BY_LIST, Seen, conversions,
    walk::{Bounds, Chain, Found, Key, entries, hits, merged, page as walk},
};
use crate::{
    cluster::{
        lists::{List, scope},
        store::Store,
        writes::Received,
    },
    report::{
        Answer, ClickQuery, ClickRow, Journey, Page, PostbackQuery, PostbackRow, Range,
        conversions::{JOURNEY, WantedClick, is_on_journey},
        postbacks::{Wanted, range},
        show,
    },
    tables::{HitRow, StoredClick, decode},
};

/// A hit's row.
#[derive(Clone, Debug)]
pub struct StoredHit {
    pub received: Vec<u8>,
    pub decision: Vec<u8>,
    pub again: Option<i64>,
}

impl StoredHit {
    /// `None`: while it is being written, a part of it may be there before the other.
    pub fn of(received: Option<Vec<u8>>, decision: Option<Vec<u8>>, again: Option<i64>) -> Option<Self> {
        Some(Self { received: received?, decision: decision?, again })
    }

    pub fn row(&self, key: &Key) -> Result<HitRow<'_>> {
        let received: Received<'_> = decode(&self.received)?;
        Ok(HitRow {
            account: 0,
            id: EventId::from_bits(bits(&key.id)?),
            time: Time::from_ms(key.time),
            log_time: received.log_time,
            read_again: self.again.map(|src| src as u64),
            method: received.method,
            raw: received.raw,
            body: received.body,
            remote: received.remote,
            decision: decode(&self.decision)?,
        })
    }
}

pub fn bits(id: &[u8]) -> Result<u128> {
    Ok(u128::from_be_bytes(id.try_into().context("a stored id is too short or too long")?))
}

pub async fn page(seen: &Seen, query: &PostbackQuery) -> Answer<Page<PostbackRow>> {
    let store = &*seen.store;
    let range = range(query)?;
    let bounds = Bounds::after(range, query.cursor.as_deref())?;
    let wanted = Wanted::new(query, range);
    let of_names = names(query);
    let chains = match &of_names {
        Some(names) => names.iter().map(|(list, name)| entries(store, *list, &query.tenant, name, &bounds)).collect(),
        None => of_accounts(store, query, &bounds),
    };
    let (items, end) = walk(merged(chains), query.limit, async |found| {
        if !query.accounts.is_empty() && !query.accounts.contains(&found.account) {
            return Ok(None);
        }
        let Some(hit) = stored(store, &query.tenant, &found).await? else { return Ok(None) };
        let row = hit.row(&found.key)?;
        Ok(wanted.is(&row).then(|| show::postback(&found.account, &row)))
    })
    .await?;
    Ok(Page { items, cursor: end.map(|key| key.text()).transpose()?, as_of: seen.as_of })
}

/// The lists by name that have every hit that is meant.
fn names(query: &PostbackQuery) -> Option<Vec<(List, String)>> {
    if let Some(clicks) = query.click.positive() {
        let of_click = |text: &str| match ClickId::parse(text.as_bytes()) {
            Some(id) => (List::HitClick, id.to_string()),
            None => (List::HitName, fold_name(text)),
        };
        return Some(clicks.into_iter().map(of_click).collect());
    }
    for (list, filter) in [(List::HitTid, &query.tid), (List::HitPlayer, &query.player)] {
        if let Some(values) = filter.positive() {
            return Some(values.into_iter().map(|value| (list, value.to_owned())).collect());
        }
    }
    None
}

fn of_accounts<'s>(store: &'s Store, query: &'s PostbackQuery, bounds: &'s Bounds) -> Vec<Chain<'s, Found>> {
    if (1..=ACCOUNTS_BY_LIST).contains(&query.accounts.len()) {
        return query.accounts.iter().map(|account| hits(store, &query.tenant, account, bounds)).collect();
    }
    vec![entries(store, List::HitOfTenant, &query.tenant, "", bounds)]
}

async fn stored(store: &Store, tenant: &str, found: &Found) -> Result<Option<StoredHit>> {
    if found.hit.is_some() {
        return Ok(found.hit.clone());
    }
    let Key { time, id, .. } = &found.key;
    let values = (tenant, &found.account, List::Hits.bucket(Time::from_ms(*time)), *time, &id[..]);
    let read = store.session.execute_unpaged(&store.reads.hit, values).await?.into_rows_result()?;
    type Row = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);
    let row = read.maybe_first_row::<Row>()?;
    Ok(row.and_then(|(received, decision, again)| StoredHit::of(received, decision, again)))
}

pub async fn one(seen: &Seen, tenant: &str, id: EventId) -> Result<Option<PostbackRow>> {
    let (bounds, name) = (Bounds::of(Range::ALL), id.to_string());
    let mut found = entries(&seen.store, List::HitId, tenant, &name, &bounds);
    while let Some(found) = found.try_next().await? {
        if let Some(hit) = stored(&seen.store, tenant, &found).await? {
            return Ok(Some(show::postback(&found.account, &hit.row(&found.key)?)));
        }
    }
    Ok(None)
}

pub async fn clicks(seen: &Seen, query: &ClickQuery) -> Answer<Page<ClickRow>> {
    let (store, tenant) = (&*seen.store, &query.tenant);
    let bounds = Bounds::after(Range::ALL, query.cursor.as_deref())?;
    let wanted = WantedClick::of(&query.by);
    let (name, id) = (scope(&query.account, &wanted.name), wanted.ours.map(|id| id.to_string()));
    let mut chains = vec![entries(store, List::ClickName, tenant, &name, &bounds)];
    chains.extend(id.as_ref().map(|id| entries(store, List::ClickId, tenant, id, &bounds)));
    let (items, end) = walk(merged(chains), query.limit, async |found| {
        let Some(data) = click(store, tenant, &found).await?.filter(|_| found.account == query.account) else {
            return Ok(None);
        };
        let row: StoredClick<'_> = decode(&data)?;
        Ok(wanted.is(&row).then(|| show::click(&found.account, &row)))
    })
    .await?;
    Ok(Page { items, cursor: end.map(|key| key.text()).transpose()?, as_of: seen.as_of })
}

async fn click(store: &Store, tenant: &str, found: &Found) -> Result<Option<Vec<u8>>> {
    let Key { time, id, .. } = &found.key;
    let values = (tenant, &found.account, List::Clicks.bucket(Time::from_ms(*time)), *time, &id[..]);
    let read = store.session.execute_unpaged(&store.reads.click, values).await?.into_rows_result()?;
    Ok(read.maybe_first_row::<(Vec<u8>,)>()?.map(|(data,)| data))
}

/// Hits and conversions in the order in which they came.
pub async fn journey(seen: &Seen, tenant: &str, id: ClickId) -> Result<Option<Journey>> {
    let (store, name) = (&*seen.store, id.to_string());
    let everything = Bounds::of(Range::ALL);
    let mut found = entries(store, List::ClickId, tenant, &name, &everything);
    let click = loop {
        let Some(found) = found.try_next().await? else { return Ok(None) };
        if let Some(data) = click(store, tenant, &found).await? {
            break show::click(&found.account, &decode(&data)?);
        }
    };
    let hits = entries(store, List::HitClick, tenant, &name, &everything);
    let (mut hits, rest) = walk(hits, JOURNEY, async |found| {
        let Some(hit) = stored(store, tenant, &found).await? else { return Ok(None) };
        let row = hit.row(&found.key)?;
        Ok(is_on_journey(id, &row).then(|| show::postback(&found.account, &row)))
    })
    .await?;
    hits.reverse();
    let (conversions, more) = conversions::of_click(seen, tenant, id).await?;
    Ok(Some(Journey { click, hits, conversions, complete: rest.is_none() && more.is_none() }))
}
