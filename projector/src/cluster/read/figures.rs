//! Cells and rows for the figures of a conversions report.

use std::{collections::HashMap, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use schemas::{Time, time::DAY_MS};
use tokio::runtime::Handle;

use super::{
    AT_ONCE, Seen,
    conversions::{Version, current, is_shown_at, latest, versions},
    walk::{Bounds, Chain, Key, buckets, entries},
    within,
};
use crate::{
    cluster::{cells::StoredMeasure, flush::partition_key, lists::List, store::Store},
    fold::Family,
    report::{
        AsOf, Directory, QueryError, Range, TooLong,
        plan::{Account, Plan},
        source::{Days, Piece, Row, Rows, SeeCell, SeeRow, Source, Want},
    },
    tables::{OTHER, decode, stored_entries},
};

/// Values that one statement may name.
const VALUES_AT_ONCE: usize = 100;

/// Accounts whose lists are read at once; what stands in the lists is read `AT_ONCE`.
const LISTS_AT_ONCE: usize = 8;

pub struct Figures<'r> {
    runtime: &'r Handle,
    seen: Seen,
    codes: Codes,
}

/// One number for each measure of this question: in the tables every cell has its own.
#[derive(Default)]
struct Codes {
    measures: Vec<StoredMeasure>,
    /// By the stored form of a cell's measures.
    of_cells: HashMap<Vec<u8>, Arc<[u32]>>,
}

impl Codes {
    fn of(&mut self, stored: Vec<u8>) -> Result<Arc<[u32]>> {
        if let Some(known) = self.of_cells.get(&stored) {
            return Ok(Arc::clone(known));
        }
        let measures: Vec<StoredMeasure> = decode(&stored)?;
        let codes: Arc<[u32]> = measures.into_iter().map(|measure| self.number(measure)).collect();
        self.of_cells.insert(stored, Arc::clone(&codes));
        Ok(codes)
    }

    fn number(&mut self, measure: StoredMeasure) -> u32 {
        let known = self.measures.iter().position(|known| *known == measure);
        let number = known.unwrap_or_else(|| {
            self.measures.push(measure);
            self.measures.len() - 1
        });
        number as u32
    }
}

/// One read of cells, of one partition of their table.
struct Read<'a> {
    /// Which of the wants it is for.
    want: usize,
    account: &'a str,
    family: u8,
    period: i32,
    shard: i32,
    is_whole: bool,
    first: i32,
    last: i32,
    /// Of the first day.
    values: Option<&'a [String]>,
}

/// What a read gives: for which want, day, value, measures, entries.
type CellRow = (usize, i32, String, Vec<u8>, Vec<u8>);

/// Days on which each account has cells, the newest first.
type DaysOf = HashMap<String, Vec<i32>>;

impl<'r> Figures<'r> {
    pub fn new(runtime: &'r Handle, seen: Seen) -> Self {
        Self { runtime, seen, codes: Codes::default() }
    }
}

impl Source for Figures<'_> {
    fn as_of(&self) -> AsOf {
        self.seen.as_of
    }

    fn accounts(&self, directory: &Directory<'_>, _: &str) -> Vec<String> {
        (directory.accounts)()
    }

    fn has_other(&mut self, plan: &Plan, family: Family, days: (i64, i64)) -> Result<bool, QueryError> {
        let seen = &self.seen;
        self.runtime.block_on(within(seen.until, async {
            let days_of = days_of(&seen.store, plan, days).await?;
            let shards = seen.shards;
            let reads = plan.accounts.iter().flat_map(|account| {
                let days = days_of.get(&account.name).map(Vec::as_slice).unwrap_or_default();
                days.iter().flat_map(move |day| of_day(0, account, family as u8 | OTHER, *day, shards, true, None))
            });
            let found = stream::iter(reads).map(|read| any_cell(&seen.store, &plan.tenant, read));
            let mut found = found.buffer_unordered(AT_ONCE);
            while let Some(found) = found.try_next().await? {
                if found {
                    return Ok(true);
                }
            }
            Ok(false)
        }))
    }

    fn cells(
        &mut self,
        plan: &Plan,
        wants: &[Want<'_>],
        days: &Days<'_>,
        see: &mut SeeCell<'_>,
    ) -> Result<(), QueryError> {
        let Self { runtime, seen, codes } = self;
        runtime.block_on(within(seen.until, async {
            let days_of = days_of(&seen.store, plan, (days.first, days.last)).await?;
            let reads = wants.iter().enumerate().flat_map(|(at, want)| {
                let of_account = days_of.get(&want.account.name).map(Vec::as_slice).unwrap_or_default();
                reads(at, want, of_account, seen.shards, days.is_whole)
            });
            let rows = stream::iter(reads).map(|read| cells(&seen.store, &plan.tenant, read));
            let mut rows = rows.flatten_unordered(AT_ONCE);
            while let Some((at, day, value, measures, entries)) = rows.try_next().await? {
                in_time(seen.until)?;
                let of_cell = codes.of(measures)?;
                let mut entries = stored_entries(&entries).map(|entry| {
                    let (slot, place, sums) = entry?;
                    let code = of_cell.get(place as usize).context("a cell has a measure that it does not name")?;
                    Ok((slot, *code, sums))
                });
                let known = &codes.measures;
                let measure = |code: u32| known.get(code as usize).map(StoredMeasure::measure);
                let piece = Piece { day: i64::from(day), value: &value, entries: &mut entries, measure: &measure };
                see(&wants[at], piece)?;
            }
            Ok(())
        }))
    }

    fn rows(&mut self, plan: &Plan, what: Rows, range: Range, see: &mut SeeRow<'_>) -> Result<(), QueryError> {
        let seen = &self.seen;
        self.runtime.block_on(within(seen.until, async {
            match what {
                Rows::Clicks => {
                    let bounds = Bounds::of(range);
                    let mut rows = clicks(seen, plan, range, &bounds);
                    while let Some((account, data)) = rows.try_next().await? {
                        in_time(seen.until)?;
                        see(Some(account), Row::Click(&decode(&data)?))?;
                    }
                }
                Rows::Conversions => {
                    let bounds = Bounds::of(Range { to: Range::ALL.to, ..range });
                    let mut rows = conversions(seen, plan, range.from, &bounds);
                    while let Some((account, versions)) = rows.try_next().await? {
                        in_time(seen.until)?;
                        see(Some(account), Row::Conversion(&current(&versions)?))?;
                    }
                }
            }
            Ok(())
        }))
    }
}

/// Rows that are at hand already leave no room for a timer.
fn in_time(until: Instant) -> Result<()> {
    if Instant::now() >= until { Err(TooLong.into()) } else { Ok(()) }
}

async fn days_of(store: &Store, plan: &Plan, (first, last): (i64, i64)) -> Result<DaysOf> {
    let start = |day: i64| Time::from_ms(day.saturating_mul(DAY_MS));
    let bounds = Bounds::of(Range { from: start(first), to: start(last) });
    let of_accounts = plan.accounts.iter().map(|account| {
        let days = buckets(store, List::Cells, &plan.tenant, &account.name, &bounds);
        async move { anyhow::Ok((account.name.clone(), days.try_collect::<Vec<_>>().await?)) }
    });
    stream::iter(of_accounts).buffer_unordered(AT_ONCE).try_collect().await
}

/// The reads that a want comes down to, on the days on which its account has cells.
fn reads<'a>(
    at: usize,
    want: &'a Want<'a>,
    days: &'a [i32],
    shards: u16,
    is_whole: &'a dyn Fn(i64) -> bool,
) -> Box<dyn Iterator<Item = Read<'a>> + 'a> {
    if want.family == Family::Account as u8 {
        return Box::new(of_periods(at, want.account, days, is_whole).into_iter());
    }
    Box::new(days.iter().flat_map(move |day| {
        let whole = is_whole(i64::from(*day));
        of_day(at, want.account, want.family, *day, shards, whole, want.values)
    }))
}

/// Of an account as a whole the days of a period stand together.
fn of_periods<'a>(at: usize, account: &'a Account, days: &[i32], is_whole: &dyn Fn(i64) -> bool) -> Vec<Read<'a>> {
    let mut runs: Vec<Read<'a>> = Vec::new();
    for day in days.iter().copied() {
        let (period, shard) = partition_key(Family::Account as u8, i64::from(day), 0);
        let is_whole = is_whole(i64::from(day));
        match runs.last_mut() {
            Some(run) if (run.period, run.is_whole) == (period, is_whole) => run.first = day,
            _ => runs.push(Read {
                want: at,
                account: &account.name,
                family: Family::Account as u8,
                period,
                shard,
                is_whole,
                first: day,
                last: day,
                values: None,
            }),
        }
    }
    runs
}

/// Of values, every source partition has its own.
fn of_day<'a>(
    at: usize,
    account: &'a Account,
    family: u8,
    day: i32,
    shards: u16,
    is_whole: bool,
    values: Option<&'a [String]>,
) -> impl Iterator<Item = Read<'a>> {
    let parts: Vec<Option<&[String]>> = match values {
        None => vec![None],
        Some(values) => values.chunks(VALUES_AT_ONCE).map(Some).collect(),
    };
    (0..shards).flat_map(move |partition| {
        let (period, shard) = partition_key(family, i64::from(day), partition);
        parts.clone().into_iter().map(move |values| Read {
            want: at,
            account: &account.name,
            family,
            period,
            shard,
            is_whole,
            first: day,
            last: day,
            values,
        })
    })
}

fn cells<'s>(store: &'s Store, tenant: &'s str, read: Read<'s>) -> Chain<'s, CellRow> {
    let rows = async move {
        let reads = &store.reads;
        let of = (tenant, read.account, i16::from(read.family), read.period, read.shard);
        let (tenant, account, family, period, shard) = of;
        let rows = match read.values {
            None => {
                let statement = if read.is_whole { &reads.whole } else { &reads.quarters };
                let values = (tenant, account, family, period, shard, read.first, read.last);
                store.session.execute_iter(statement.clone(), values).await?
            }
            Some(named) => {
                let statement = if read.is_whole { &reads.whole_of } else { &reads.quarters_of };
                let values = (tenant, account, family, period, shard, read.first, named);
                store.session.execute_iter(statement.clone(), values).await?
            }
        };
        let rows = rows.rows_stream::<(i32, String, Vec<u8>, Vec<u8>)>()?.map_err(anyhow::Error::from);
        anyhow::Ok(rows.map_ok(move |(day, value, measures, entries)| (read.want, day, value, measures, entries)))
    };
    stream::once(rows).try_flatten().boxed_local()
}

async fn any_cell(store: &Store, tenant: &str, read: Read<'_>) -> Result<bool> {
    let family = i16::from(read.family);
    let values = (tenant, read.account, family, read.period, read.shard, read.first, read.last);
    let rows = store.session.execute_unpaged(&store.reads.any_cell, values).await?.into_rows_result()?;
    Ok(rows.maybe_first_row::<(i32,)>()?.is_some())
}

/// The rows of clicks in the buckets of a range.
fn clicks<'s>(seen: &'s Seen, plan: &'s Plan, range: Range, bounds: &'s Bounds) -> Chain<'s, (&'s Account, Vec<u8>)> {
    let store = &*seen.store;
    let of = move |account: &'s Account| {
        let buckets = buckets(store, List::Clicks, &plan.tenant, &account.name, bounds);
        buckets.map_ok(move |bucket| (account, bucket))
    };
    let read = move |bucket: Result<(&'s Account, i32)>| async move {
        let (account, bucket) = bucket?;
        let values = (&plan.tenant, &account.name, bucket, range.from.ms(), range.to.ms());
        let rows = store.session.execute_iter(store.reads.clicks.clone(), values).await?;
        let rows = rows.rows_stream::<(Vec<u8>,)>()?.map_err(anyhow::Error::from);
        anyhow::Ok(rows.map_ok(move |(data,)| (account, data)).boxed_local())
    };
    let buckets = stream::iter(&plan.accounts).map(of).flatten_unordered(LISTS_AT_ONCE);
    buckets.map(read).buffer_unordered(AT_ONCE).try_flatten_unordered(AT_ONCE).boxed_local()
}

/// Every conversion that can have a time from then on, once.
fn conversions<'s>(
    seen: &'s Seen,
    plan: &'s Plan,
    from: Time,
    bounds: &'s Bounds,
) -> Chain<'s, (&'s Account, Vec<Version>)> {
    let store = &*seen.store;
    let of = move |account: &'s Account| {
        let found = entries(store, List::ChangedOfAccount, &plan.tenant, &account.name, bounds);
        found.map_ok(move |found| (account, found.key))
    };
    let read = move |found: Result<(&'s Account, Key)>| async move {
        let (account, key) = found?;
        let versions = versions(store, &key.id).await?;
        let is_shown = is_shown_at(&versions, &key, |version| latest(version) >= from)?;
        anyhow::Ok(is_shown.then_some((account, versions)))
    };
    let found = stream::iter(&plan.accounts).map(of).flatten_unordered(LISTS_AT_ONCE);
    found.map(read).buffer_unordered(AT_ONCE).try_filter_map(|row| async { Ok(row) }).boxed_local()
}
