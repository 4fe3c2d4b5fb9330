//! Lists that stand in buckets of time, read from the newest entry to the oldest, and cut into pages.
//!
//! Invariant: over all pages of a list every entry is shown once, as its place in the list never changes.

use std::{
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, LocalBoxStream, Peekable},
};
use schemas::Time;
use serde::{Deserialize, Serialize};

use super::hits::StoredHit;
use crate::{
    cluster::{
        lists::{List, YEARS},
        store::Store,
    },
    report::{Answer, Range, postbacks::no_cursor},
    tables::{decode, encode},
};

/// Rows that are read ahead while a page is made.
const AHEAD: usize = 32;
/// Buckets that are read ahead. Most of those of a list by name are empty.
const BUCKETS: usize = 8;
/// After this time a page ends where it is; its cursor goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// Where something stands in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub time: i64,
    pub id: Vec<u8>,
    pub version: i32,
}

impl Key {
    /// Before everything of this instant.
    fn at(time: Time) -> Self {
        Key { time: time.ms(), id: Vec::new(), version: 0 }
    }

    pub fn text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        encode(self, &mut bytes)?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn parse(text: &str) -> Answer<Key> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let key = bytes.and_then(|bytes| decode::<Key>(&bytes).ok());
        key.filter(|key| !key.id.is_empty()).ok_or_else(no_cursor)
    }
}

/// The part of a list that is asked for.
#[derive(Clone, Debug)]
pub struct Bounds {
    from: Key,
    /// Exclusive.
    below: Key,
}

impl Bounds {
    pub fn of(range: Range) -> Self {
        Self { from: Key::at(range.from), below: Key::at(range.to) }
    }

    /// What a page has left to show.
    pub fn after(range: Range, cursor: Option<&str>) -> Answer<Self> {
        let Self { from, below } = Self::of(range);
        let cursor = cursor.map(Key::parse).transpose()?;
        Ok(Self { from, below: cursor.map_or(below.clone(), |cursor| cursor.min(below)) })
    }

    fn buckets(&self, list: List) -> (i32, i32) {
        (list.bucket(Time::from_ms(self.from.time)), list.bucket(Time::from_ms(self.below.time)))
    }
}

#[derive(Clone, Debug)]
pub struct Found {
    pub key: Key,
    pub account: String,
    /// Where the list is one of rows.
    pub hit: Option<StoredHit>,
}

pub type Chain<'s, T> = LocalBoxStream<'s, Result<T>>;

/// The buckets of a list that are there, the newest first.
pub fn buckets<'s>(store: &'s Store, list: List, tenant: &'s str, scope: &'s str, bounds: &Bounds) -> Chain<'s, i32> {
    let Some(index) = list.index(scope) else { return stream::once(async { Ok(0) }).boxed_local() };
    let (first, last) = bounds.buckets(list);
    let of_year = move |year, first, last| of_year(store, (list, tenant, index, year), (first, last));
    let years = stream::once(of_year(YEARS, list.year(first), list.year(last))).try_flatten();
    years.and_then(move |year| of_year(year, first, last)).try_flatten().boxed_local()
}

async fn of_year<'s>(
    store: &'s Store,
    (list, tenant, index, year): (List, &'s str, &'s str, i32),
    (first, last): (i32, i32),
) -> Result<impl Stream<Item = Result<i32>> + use<'s>> {
    let values = (list as i8, tenant, index, year, first, last);
    let rows = store.session.execute_iter(store.reads.buckets.clone(), values).await?;
    Ok(rows.rows_stream::<(i32,)>()?.map_ok(|(bucket,)| bucket).map_err(anyhow::Error::from))
}

/// The entries of a list.
pub fn entries<'s>(
    store: &'s Store,
    list: List,
    tenant: &'s str,
    scope: &'s str,
    bounds: &'s Bounds,
) -> Chain<'s, Found> {
    let read = move |bucket: Result<i32>| async move {
        let Bounds { from, below } = bounds;
        let values = (
            (list as i8, tenant, scope, bucket?),
            (from.time, &from.id[..], from.version),
            (below.time, &below.id[..], below.version),
        );
        let ((a, b, c, d), (e, f, g), (h, i, j)) = values;
        let values = (a, b, c, d, e, f, g, h, i, j);
        let rows = store.session.execute_iter(store.reads.entries.clone(), values).await?;
        let rows = rows.rows_stream::<(i64, Vec<u8>, i32, String)>()?.map_err(anyhow::Error::from);
        anyhow::Ok(rows.map_ok(|(time, id, version, account)| Found {
            key: Key { time, id, version },
            account,
            hit: None,
        }))
    };
    buckets(store, list, tenant, scope, bounds).map(read).buffered(BUCKETS).try_flatten().boxed_local()
}

/// The hits of an account.
pub fn hits<'s>(store: &'s Store, tenant: &'s str, account: &'s str, bounds: &'s Bounds) -> Chain<'s, Found> {
    let read = move |bucket: Result<i32>| async move {
        let Bounds { from, below } = bounds;
        let values = (tenant, account, bucket?, from.time, &from.id[..], below.time, &below.id[..]);
        let rows = store.session.execute_iter(store.reads.hits.clone(), values).await?;
        type Row = (i64, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);
        let rows = rows.rows_stream::<Row>()?.map_err(anyhow::Error::from);
        anyhow::Ok(rows.try_filter_map(move |(time, id, received, decision, again)| async move {
            let hit = StoredHit::of(received, decision, again);
            let key = Key { time, id, version: 0 };
            Ok(hit.map(|hit| Found { key, account: account.to_owned(), hit: Some(hit) }))
        }))
    };
    buckets(store, List::Hits, tenant, account, bounds).map(read).buffered(2).try_flatten().boxed_local()
}

type Chains<'s> = Vec<Pin<Box<Peekable<Chain<'s, Found>>>>>;

/// Several lists as one, without what stands in two of them.
pub fn merged(chains: Vec<Chain<'_, Found>>) -> Chain<'_, Found> {
    let chains: Chains<'_> = chains.into_iter().map(|chain| Box::pin(chain.peekable())).collect();
    stream::try_unfold((chains, None), |(mut chains, last): (Chains<'_>, Option<Key>)| async move {
        loop {
            let Some(at) = newest(&mut chains).await else { return Ok(None) };
            let Some(found) = chains[at].next().await.transpose()? else { return Ok(None) };
            if last.as_ref() != Some(&found.key) {
                let last = Some(found.key.clone());
                return Ok(Some((found, (chains, last))));
            }
        }
    })
    .boxed_local()
}

/// The chain whose next entry is the newest, or an error.
async fn newest(chains: &mut Chains<'_>) -> Option<usize> {
    let mut newest: Option<(usize, Key)> = None;
    for (at, chain) in chains.iter_mut().enumerate() {
        match chain.as_mut().peek().await {
            None => {}
            Some(Err(_)) => return Some(at),
            Some(Ok(found)) if newest.as_ref().is_some_and(|(_, key)| found.key <= *key) => {}
            Some(Ok(found)) => newest = Some((at, found.key.clone())),
        }
    }
    newest.map(|(at, _)| at)
}

/// Makes a page of what `row` gives for each entry. The cursor is where it ended before the list did.
pub async fn page<T>(
    found: Chain<'_, Found>,
    limit: usize,
    row: impl AsyncFn(Found) -> Result<Option<T>>,
) -> Result<(Vec<T>, Option<Key>)> {
    let began = Instant::now();
    let read = |found: Result<Found>| async {
        let found = found?;
        let key = found.key.clone();
        anyhow::Ok((key, row(found).await?))
    };
    let mut rows = pin!(found.map(read).buffered(AHEAD));
    let mut items = Vec::new();
    while let Some((key, item)) = rows.try_next().await? {
        items.extend(item);
        if items.len() >= limit || began.elapsed() > LONGEST {
            return Ok((items, Some(key)));
        }
    }
    Ok((items, None))
}
