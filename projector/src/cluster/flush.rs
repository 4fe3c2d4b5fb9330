//! Writes what was taken from one source partition, and then its positions.
//!
//! Owns: the order of the writes. Refuses: to move a position over a row that the database has not acknowledged.
//! Invariant: *visible* moves after every row and cell before it; *restart* is a place that was visible a minute ago, as a
//! node of the database may lose its last seconds. The place that is to be the next one stands in the database as well, so it
//! gets old also while one process after the other works on the partition.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use pipeline::kafka::{Met, Place as LogPlace};
use schemas::{
    ConversionId, EventId, Time,
    chain::{Chain, Position},
};
use scylla::{statement::prepared::PreparedStatement, value::CqlTimestamp};

use super::{
    cells::{CellKey, Cells, Place, StoredCell},
    lists::{List, PERIOD_DAYS, YEARS},
    store::{AT_ONCE, Store},
    writes::{AccountKey, Entry, Row, writes},
};
use crate::{
    fold::{Family, fold},
    tables::{Cell, decode, encode},
};

/// How long a place stays visible before it is one to begin from.
const SETTLED: Duration = Duration::from_secs(60);
/// Buckets that are known to be written down.
const BUCKETS: usize = 100_000;
/// Time stamps of rows of which the first one counts. They fall as the log grows, and are never in the future.
const FIRST_WINS: i64 = 1_000_000_000_000_000;

/// Up to where one source partition is in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    pub place: LogPlace,
    /// Receipt of the last event.
    pub time: Time,
    pub log_time: Time,
}

impl Stand {
    pub const START: Stand = Stand { place: LogPlace::START, time: Time::from_ms(0), log_time: Time::from_ms(0) };
}

/// A place to restart from.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub stand: Stand,
    /// How far the conversions on their topic had been read back then.
    pub read: u64,
}

impl Settled {
    fn next(&self) -> u64 {
        self.stand.place.position.next
    }
}

/// The writing side of one source partition.
pub struct Writer {
    store: Store,
    partition: u16,
    /// Where to begin again.
    restart: Settled,
    stand: Stand,
    /// Up to where everything is acknowledged.
    visible: Stand,
    cells: Cells,
    rows: Vec<(u64, Row)>,
    /// The highest number of each run since the last flush.
    runs: HashMap<EventId, u64>,
    buckets: LruCache<Bucket, ()>,
    /// Something was taken since the last flush.
    taken: bool,
    /// The next place to restart from, and when it is old enough.
    settling: Option<(Instant, Settled)>,
}

impl Writer {
    /// Begins at the place to restart from.
    pub async fn open(store: Store, partition: u16) -> Result<Writer> {
        let (restart, settling) = read_restart(&store, partition).await?;
        let buckets = NonZeroUsize::new(BUCKETS).context("a cache of nothing")?;
        Ok(Writer {
            store,
            partition,
            restart,
            stand: restart.stand,
            visible: restart.stand,
            cells: Cells::new()?,
            rows: Vec::new(),
            runs: HashMap::new(),
            buckets: LruCache::new(buckets),
            taken: false,
            settling,
        })
    }

    /// With another bound on the values of a day, as tables of so many take long to fill.
    #[cfg(test)]
    pub fn naming(self, values: usize) -> Result<Writer> {
        Ok(Writer { cells: Cells::with_limit(values)?, ..self })
    }

    pub fn stand(&self) -> Stand {
        self.stand
    }

    /// Rows and cells that wait for the flush.
    pub fn waiting(&self) -> usize {
        self.rows.len() + self.cells.changed()
    }

    pub fn restart(&self) -> Settled {
        self.restart
    }

    pub fn has_taken(&self) -> bool {
        self.taken
    }

    /// Takes the outcome that follows.
    pub fn take(&mut self, met: &Met) -> Result<()> {
        if met.src != self.stand.place.position.next {
            bail!("outcome {} does not follow: {} is next", met.src, self.stand.place.position.next);
        }
        self.taken = true;
        let folded = fold(&met.outcome);
        for row in writes(met.src, self.stand.log_time, &met.outcome, &folded)? {
            self.rows.push((met.src, row));
        }
        for delta in &folded.deltas {
            self.cells.add(met.src, &met.outcome.tenant, delta);
        }
        let n = self.runs.entry(met.number.from).or_default();
        *n = (*n).max(met.number.n);
        self.stand = Stand {
            place: met.place,
            time: self.stand.time.max(met.outcome.time),
            log_time: folded.log_time.unwrap_or(self.stand.log_time),
        };
        Ok(())
    }

    /// Writes everything that was taken, and gives the conversions that have a new version. After an error the writer is of
    /// no use: open it again.
    pub async fn flush(&mut self) -> Result<BTreeSet<ConversionId>> {
        if !self.taken {
            return Ok(BTreeSet::new());
        }
        let began = Instant::now();
        let changed = self.write_rows().await?;
        let cells = self.write_cells().await?;
        let runs = self
            .runs
            .drain()
            .map(|(run, n)| (i32::from(self.partition), run.bits().to_be_bytes().to_vec(), n as i64, n as i64 + 1));
        self.store.write_all(&self.store.statements.run, runs.collect::<Vec<_>>()).await?;
        self.write_visible().await?;
        metrics::counter!("clickback_projector_cells_written_total").increment(cells);
        metrics::histogram!("clickback_projector_flush_seconds").record(began.elapsed().as_secs_f64());
        (self.taken, self.visible) = (false, self.stand);
        Ok(changed)
    }

    /// The place to restart from moves to the one that is visible long enough. Says whether there is none that is getting
    /// old, so that the next one can be chosen.
    pub async fn settle(&mut self) -> Result<bool> {
        if let Some((old_enough, settled)) = self.settling
            && Instant::now() >= old_enough
        {
            self.write_place(&self.store.statements.restart, settled).await?;
            (self.restart, self.settling) = (settled, None);
        }
        Ok(self.settling.is_none() && self.visible != self.restart.stand)
    }

    /// Chooses what is visible now. Every conversion before it is on its topic, where all before `read` was read back.
    pub async fn choose(&mut self, read: u64) -> Result<()> {
        let chosen = Settled { stand: self.visible, read };
        self.write_place(&self.store.statements.settling, chosen).await?;
        self.settling = Some((Instant::now() + SETTLED, chosen));
        Ok(())
    }

    async fn write_place(&self, statement: &PreparedStatement, settled: Settled) -> Result<()> {
        let (stand, place) = (settled.stand, settled.stand.place);
        let values = (
            i32::from(self.partition),
            place.position.next as i64,
            place.position.chain.as_str(),
            place.offset as i64,
            stand.time.ms(),
            stand.log_time.ms(),
            settled.read as i64,
            place.position.next as i64,
        );
        let written = self.store.session.execute_unpaged(statement, values).await;
        written.map(drop).context("a position cannot be written")
    }

    async fn write_visible(&self) -> Result<()> {
        let (stand, place) = (self.stand, self.stand.place);
        let values = (
            i32::from(self.partition),
            place.position.next as i64,
            place.position.chain.as_str(),
            place.offset as i64,
            stand.time.ms(),
            stand.log_time.ms(),
            place.position.next as i64,
        );
        let written = self.store.session.execute_unpaged(&self.store.statements.visible, values).await;
        written.map(drop).context("a position cannot be written")
    }

    async fn write_rows(&mut self) -> Result<BTreeSet<ConversionId>> {
        let rows = std::mem::take(&mut self.rows);
        // Before the rows: a bucket that is written down and empty does no harm.
        self.write_buckets(rows.iter().filter_map(|(_, row)| bucket_of(row))).await?;
        let writes = rows.iter().map(|(src, row)| self.write_row(*src, row));
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(rows.iter().filter_map(|(_, row)| row.conversion()).collect())
    }

    async fn write_buckets(&mut self, buckets: impl Iterator<Item = Bucket>) -> Result<()> {
        let new: HashSet<Bucket> = buckets.filter(|key| !self.buckets.contains(key)).collect();
        let values = new.iter().flat_map(|(list, of, bucket)| {
            let (tenant, scope, year) = (of.tenant.as_str(), of.account.as_str(), list.year(*bucket));
            [(*list as i8, tenant, scope, YEARS, year), (*list as i8, tenant, scope, year, *bucket)]
        });
        self.store.write_all(&self.store.statements.bucket, values.collect::<Vec<_>>()).await?;
        for key in new {
            self.buckets.put(key, ());
        }
        Ok(())
    }

    async fn write_row(&self, src: u64, row: &Row) -> Result<()> {
        let (session, statements) = (&self.store.session, &self.store.statements);
        let (partition, src) = (i32::from(self.partition), src as i64);
        let stamp = src + 1;
        let done = match row {
            Row::Click { of, time, id, data } => {
                let (bucket, id) = (List::Clicks.bucket(*time), id.bits().to_be_bytes());
                let values = (&of.tenant, &of.account, bucket, time.ms(), &id[..], partition, src, &data[..], stamp);
                session.execute_unpaged(&statements.click, values).await
            }
            Row::Hit { of, time, id, received, decision } => {
                let (bucket, id) = (List::Hits.bucket(*time), id.bits().to_be_bytes());
                let values = (
                    (&of.tenant, &of.account, bucket, time.ms(), &id[..]),
                    (partition, src, &received[..], &decision[..], stamp),
                );
                let ((a, b, c, d, e), (f, g, h, i, j)) = values;
                session.execute_unpaged(&statements.hit, (a, b, c, d, e, f, g, h, i, j)).await
            }
            Row::Decision { of, time, id, decision, again } => {
                let (bucket, id) = (List::Hits.bucket(*time), id.bits().to_be_bytes());
                let (tenant, account, time) = (&of.tenant, &of.account, time.ms());
                if *again {
                    let values = (tenant, account, bucket, time, &id[..], &decision[..], src, stamp);
                    session.execute_unpaged(&statements.decision_again, values).await
                } else {
                    let values = (tenant, account, bucket, time, &id[..], &decision[..], stamp);
                    session.execute_unpaged(&statements.decision, values).await
                }
            }
            Row::Version { of, id, version, data } => {
                // A reprocess names what it leaves as it is, too: what a version was made by is what came first.
                let values =
                    (&id.0[..], *version as i32, &of.tenant, &of.account, partition, src, &data[..], FIRST_WINS - src);
                session.execute_unpaged(&statements.version, values).await
            }
            Row::Entry(entry) => return self.write_entry(partition, src, entry).await,
        };
        done.map(drop).context("a row cannot be written")
    }

    async fn write_entry(&self, partition: i32, src: i64, entry: &Entry) -> Result<()> {
        let values = (
            entry.list as i8,
            &entry.tenant,
            &entry.scope,
            entry.list.bucket(entry.time),
            entry.time.ms(),
            &entry.id[..],
            entry.version as i32,
            &entry.account,
            partition,
            src,
            src + 1,
        );
        let written = self.store.session.execute_unpaged(&self.store.statements.entry, values).await;
        written.map(drop).context("a list's entry cannot be written")
    }

    async fn write_cells(&mut self) -> Result<u64> {
        let places = self.cells.unknown_places();
        let named = stream::iter(places)
            .map(|place| self.named(place))
            .buffer_unordered(AT_ONCE)
            .try_collect::<HashMap<_, _>>()
            .await?;
        let unread = self.cells.resolve(named);
        let read = stream::iter(unread)
            .map(|key| self.read_cell(key))
            .buffer_unordered(AT_ONCE)
            .try_collect::<HashMap<_, _>>()
            .await?;
        let cells = self.cells.apply(read, self.stand.place.position.next)?;
        let days = cells.iter().map(|(key, _)| (List::Cells, key.place.of.clone(), key.place.day as i32));
        self.write_buckets(days).await?;
        let writes = cells.iter().map(|(key, cell)| self.write_cell(key, cell));
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(cells.len() as u64)
    }

    /// Since when each value of a free dimension is named by this source partition.
    async fn named(&self, place: Place) -> Result<(Place, HashMap<String, u64>)> {
        let (period, shard) = partition_key(place.family, place.day, self.partition);
        let of = &place.of;
        let values = (&of.tenant, &of.account, i16::from(place.family), period, shard, place.day as i32);
        let rows = self.store.session.execute_iter(self.store.statements.named.clone(), values).await?;
        let rows = rows.rows_stream::<(String, i64)>()?;
        let named = rows.map_ok(|(value, first)| (value, first as u64)).try_collect().await?;
        Ok((place, named))
    }

    async fn read_cell(&self, key: CellKey) -> Result<(CellKey, StoredCell)> {
        let (period, shard) = partition_key(key.place.family, key.place.day, self.partition);
        let of = &key.place.of;
        let values = (
            &of.tenant,
            &of.account,
            i16::from(key.place.family),
            period,
            shard,
            key.place.day as i32,
            &key.value,
            i32::from(self.partition),
        );
        let found = self.store.session.execute_unpaged(&self.store.statements.read_cell, values).await?;
        let row = found.into_rows_result()?.maybe_first_row::<(i64, i64, Vec<u8>, Vec<u8>)>()?;
        let Some((first, next, measures, quarters)) = row else { return Ok((key, StoredCell::default())) };
        let cell = StoredCell {
            measures: decode(&measures)?,
            cell: Cell::of_quarters(&quarters)?,
            first: first as u64,
            next: next as u64,
        };
        Ok((key, cell))
    }

    async fn write_cell(&self, key: &CellKey, cell: &StoredCell) -> Result<()> {
        let (period, shard) = partition_key(key.place.family, key.place.day, self.partition);
        let of = &key.place.of;
        let mut measures = Vec::new();
        encode(&cell.measures, &mut measures)?;
        let (whole, quarters) = cell.cell.encode_apart()?;
        let next = cell.next as i64;
        let values = (
            &of.tenant,
            &of.account,
            i16::from(key.place.family),
            period,
            shard,
            key.place.day as i32,
            &key.value,
            i32::from(self.partition),
            cell.first as i64,
            next,
            measures,
            whole,
            quarters,
            next,
        );
        let written = self.store.session.execute_unpaged(&self.store.statements.cell, values).await;
        written.map(drop).context("a cell cannot be written")
    }
}

/// Of a list, and of the scope that its buckets are written down under.
type Bucket = (List, AccountKey, i32);

fn bucket_of(row: &Row) -> Option<Bucket> {
    match row {
        Row::Click { of, time, .. } => Some((List::Clicks, of.clone(), List::Clicks.bucket(*time))),
        Row::Hit { of, time, .. } => Some((List::Hits, of.clone(), List::Hits.bucket(*time))),
        Row::Entry(Entry { list, tenant, scope, time, .. }) => {
            let of = AccountKey { tenant: tenant.clone(), account: list.index(scope)?.to_owned() };
            Some((*list, of, list.bucket(*time)))
        }
        Row::Decision { .. } | Row::Version { .. } => None,
    }
}

/// An account as a whole has few cells: those of a period stand together. Values can be many: a day of a source partition.
pub(super) fn partition_key(family: u8, day: i64, partition: u16) -> (i32, i32) {
    if family == Family::Account as u8 {
        return (day.div_euclid(PERIOD_DAYS) as i32, 0);
    }
    (day as i32, i32::from(partition))
}

type StandRow = (Option<i64>, Option<String>, Option<i64>, Option<i64>, Option<i64>);

type PlaceRow = (Option<i64>, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

/// Where to begin, and the place that gets old, if there is one, with the moment when it is old enough.
async fn read_restart(store: &Store, partition: u16) -> Result<(Settled, Option<(Instant, Settled)>)> {
    let place = async |statement: &PreparedStatement| {
        let found = store.session.execute_unpaged(statement, (i32::from(partition),)).await?;
        let row = found.into_rows_result()?.maybe_first_row::<PlaceRow>()?;
        row.map_or(Ok(None), |(next, chain, place, time, log_time, read)| {
            let stand = stand_of((next, chain, place, time, log_time))?;
            anyhow::Ok(stand.map(|stand| Settled { stand, read: read.unwrap_or_default() as u64 }))
        })
    };
    let statements = &store.statements;
    let restart = place(&statements.read_restart).await?.unwrap_or(Settled { stand: Stand::START, read: 0 });
    let settling = place(&statements.read_settling).await?;
    let Some(settling) = settling.filter(|settling| settling.next() > restart.next()) else {
        return Ok((restart, None));
    };
    let found = store.session.execute_unpaged(&statements.read_since, (i32::from(partition),)).await?;
    let (since, now) = found.into_rows_result()?.first_row::<(CqlTimestamp, CqlTimestamp)>()?;
    // Both are the database's own times, so it does not matter what this machine's clock says.
    let age = Duration::from_millis((now.0 - since.0).max(0).unsigned_abs());
    let young = SETTLED.saturating_sub(age);
    let begin = if young.is_zero() { settling } else { restart };
    Ok((begin, Some((Instant::now() + young, settling))))
}

/// `None`: nothing was written there yet.
pub(super) fn stand_of(row: StandRow) -> Result<Option<Stand>> {
    let (Some(next), Some(chain), Some(offset), Some(time), Some(log_time)) = row else { return Ok(None) };
    let chain = Chain::parse(&chain).context("a stored chain is not one")?;
    let place = LogPlace { offset: offset as u64, position: Position { next: next as u64, chain } };
    Ok(Some(Stand { place, time: Time::from_ms(time), log_time: Time::from_ms(log_time) }))
}

#[cfg(test)]
mod tests;
