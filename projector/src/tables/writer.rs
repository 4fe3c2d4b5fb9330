//! Takes outcomes in order and writes what they fold to.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use lru::LruCache;
use rapidhash::v3::rapidhash_v3;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use schemas::{
    ConversionId, EventId, Outcome, Time,
    chain::{Chain, Position},
    name,
    outcome::{self, ClickData, HitOutcome, Status},
};

use super::{
    cells::Cells,
    index,
    names::Names,
    rows::{Decision, HitRow, StoredChange, StoredClick, StoredConversion, decode, encode},
    schema,
    spans::{Order, Spans},
    terms::{Kind, Pending, Segments, term},
};
use crate::{
    fold::{Delta, Version, day, fold},
    report::What,
};

/// Recently written hits and conversions whose rows are found without the index.
const RECENT: usize = 65_536;

/// Pages of the write-ahead log that are moved into the file at once. They are brought to disk first, and the log's
/// writer, who answers requests, waits behind them: 48 MB were 20 to 25 ms of its time, twice.
const CHECKPOINT_PAGES: i32 = 2_048;

/// The one writer of one generation.
pub struct Tables {
    conn: Connection,
    open: bool,
    /// False: a write failed, so that what is in memory and what is in the transaction may differ.
    sound: bool,
    position: Position,
    /// Pages in the write-ahead log after the last commit, as SQLite's hook says.
    written: Arc<AtomicI32>,
    parts: Parts,
}

/// Everything but the connection, so that its statements can be held beside it.
struct Parts {
    next: u64,
    time: Time,
    log_time: Time,
    names: Names,
    cells: Cells,
    pending: Pending,
    segments: Segments,
    /// False: segments were written since they were last read.
    segments_read: bool,
    spans: Spans,
    next_conversion: i64,
    /// Hits that wait, by their row.
    hits: LruCache<EventId, i64>,
    /// By hash of the conversion's id; checked against the row.
    conversions: LruCache<u64, i64>,
    /// Conversions made since the last flush: while they fit into `conversions`, `pending` need not be searched.
    made: usize,
    buffer: Vec<u8>,
}

/// Where a stored file stands.
pub struct Stand {
    pub position: Position,
    pub live: bool,
}

impl Tables {
    /// Opens the file, or makes it. `None`: it has another form; delete it and open again.
    pub fn open(path: &Path, live: bool) -> Result<Option<Tables>> {
        let mut conn = schema::open_writer(path)?;
        let empty: bool = conn.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))?;
        if empty {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            schema::create(&conn)?;
            schema::begin(&conn, live)?;
            conn.execute_batch("COMMIT")?;
        } else if !schema::is_current(&conn)? {
            return Ok(None);
        }
        let stand = read_stand(&conn)?;
        let parts = Parts::load(&conn, stand.position.next)?;
        let written = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&written);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Some(Tables { conn, open: false, sound: true, position: stand.position, written, parts }))
    }

    /// Up to where the file is true; outcomes taken since the last flush are not in it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The `src` that is taken next.
    pub fn next(&self) -> u64 {
        self.parts.next
    }

    /// Takes outcomes that follow what was taken before. After an error the writer is of no use: open it again.
    pub fn take<'o>(&mut self, first: u64, outcomes: impl IntoIterator<Item = &'o Outcome>) -> Result<()> {
        if first != self.parts.next {
            bail!("outcome {first} does not follow: {} is next", self.parts.next);
        }
        self.begin()?;
        let mut sql = Sql::prepare(&self.conn)?;
        for outcome in outcomes {
            let src = self.parts.next;
            self.parts.take(&mut sql, src, outcome).with_context(|| format!("outcome {src} cannot be kept"))?;
        }
        self.sound = true;
        Ok(())
    }

    /// After an error SQLite may have ended the transaction by itself: going on would then write parts of it, and a
    /// position that is not true. So a writer that failed once stays out of use.
    fn begin(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.sound, false) {
            bail!("the tables' writer failed before");
        }
        if !self.open {
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
            self.open = true;
        }
        Ok(())
    }

    /// Commits everything that was taken, with the position after it.
    pub fn flush(&mut self, end: Position) -> Result<()> {
        if end.next != self.parts.next {
            bail!("a flush at {} with outcomes taken up to {}", end.next, self.parts.next);
        }
        self.begin()?;
        let parts = &mut self.parts;
        parts.names.store(&self.conn)?;
        let cells = parts.cells.flush(&self.conn)?;
        parts.spans.flush(&self.conn)?;
        parts.pending.flush(&self.conn)?;
        parts.segments_read = false;
        parts.made = 0;
        self.conn
            .prepare_cached(
                "UPDATE position SET next = ?, chain = ?, time = ?, log_time = ?, next_segment = ?, next_run = ?",
            )?
            .execute(params![
                end.next as i64,
                end.chain.as_str(),
                parts.time.ms(),
                parts.log_time.ms(),
                parts.pending.next_segment(),
                parts.cells.next_segment()
            ])?;
        self.conn.execute_batch("COMMIT")?;
        (self.open, self.sound) = (false, true);
        self.position = end;
        metrics::counter!("clickback_projector_cells_written_total").increment(cells as u64);
        Ok(())
    }

    /// From here on this generation is the one that is read.
    pub fn set_live(&mut self) -> Result<()> {
        self.conn.execute("UPDATE position SET live = 1", [])?;
        Ok(())
    }

    /// Bytes of the write-ahead log that are worth moving into the file.
    pub fn needs_checkpoint(&self) -> bool {
        self.written.load(Ordering::Relaxed) > CHECKPOINT_PAGES
    }

    /// Moves the write-ahead log into the file. Call it between flushes; readers are not in its way.
    pub fn checkpoint(&self) -> Result<()> {
        self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }
}

pub(super) fn read_stand(conn: &Connection) -> Result<Stand> {
    let (next, chain, live): (i64, String, bool) =
        conn.query_row("SELECT next, chain, live FROM position", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let chain = Chain::parse(&chain).context("the stored chain is not one")?;
    Ok(Stand { position: Position { next: next as u64, chain }, live })
}

impl Parts {
    fn load(conn: &Connection, next: u64) -> Result<Self> {
        let mut names = Names::default();
        names.refresh(conn)?;
        let (time, log_time) =
            conn.query_row("SELECT time, log_time FROM position", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let last: Option<i64> = conn.query_row("SELECT max(number) FROM conversions", [], |row| row.get(0))?;
        let recent = NonZeroUsize::new(RECENT).context("a cache of nothing")?;
        Ok(Self {
            next,
            time: Time::from_ms(time),
            log_time: Time::from_ms(log_time),
            names,
            cells: Cells::load(conn)?,
            pending: Pending::load(conn)?,
            segments: Segments::default(),
            segments_read: false,
            spans: Spans::load(conn)?,
            next_conversion: last.map_or(0, |last| last + 1),
            hits: LruCache::new(recent),
            conversions: LruCache::new(recent),
            made: 0,
            buffer: Vec::new(),
        })
    }

    fn take(&mut self, sql: &mut Sql<'_>, src: u64, outcome: &Outcome) -> Result<()> {
        let folded = fold(outcome);
        let row = i64::try_from(src).context("the log is too long")?;
        if let Some(click) = folded.click {
            self.click(sql, row, outcome, click)?;
        }
        for hit in folded.hits {
            self.hit(sql, row, outcome, hit)?;
        }
        for version in &folded.versions {
            let tenant = folded.hits.first().map_or(&outcome.tenant, |hit| &hit.tenant);
            self.version(sql, tenant, outcome.time, version)?;
        }
        if outcome.adjust.is_some() {
            self.adjust(sql, row, outcome)?;
        }
        if !folded.deltas.is_empty() {
            self.count(sql.conn, outcome, &folded.deltas)?;
        }
        self.log_time = folded.log_time.unwrap_or(self.log_time);
        self.time = self.time.max(outcome.time);
        self.next = src + 1;
        Ok(())
    }

    /// Deltas of one account that follow each other are added together.
    fn count(&mut self, conn: &Connection, outcome: &Outcome, deltas: &[Delta<'_>]) -> Result<()> {
        let tenant = self.names.tenant_or_new(&outcome.tenant);
        for part in deltas.chunk_by(|a, b| a.account == b.account) {
            let Some(first) = part.first() else { continue };
            let account = self.names.account_or_new(tenant, first.account);
            let mut coded = Vec::with_capacity(part.len());
            for delta in part {
                coded.push((self.names.code_or_new(delta.measure, delta.basis), *delta));
            }
            self.cells.add(conn, account, &coded)?;
        }
        Ok(())
    }

    fn click(&mut self, sql: &mut Sql<'_>, row: i64, outcome: &Outcome, click: &ClickData) -> Result<()> {
        let tenant = self.names.tenant_or_new(&outcome.tenant);
        let account = self.names.account_or_new(tenant, &click.account);
        encode(&StoredClick::of(account, self.log_time, click), &mut self.buffer)?;
        sql.insert_click.execute(params![row, self.buffer])?;
        self.pending.add(term(Kind::ClickId, 0, &click.id.bits().to_be_bytes()), row);
        self.pending.add(term(Kind::ClickOfAccount, account, b""), row);
        for name in [&click.foreign, &click.dyn_].into_iter().flatten() {
            self.pending.add(term(Kind::ClickName, account, name::fold(name).as_bytes()), row);
        }
        self.spans.add(Order::Clicks, row, click.time);
        Ok(())
    }

    fn hit(&mut self, sql: &mut Sql<'_>, row: i64, cause: &Outcome, hit: &HitOutcome) -> Result<()> {
        let tenant = self.names.tenant_or_new(&hit.tenant);
        let account = self.names.account_or_new(tenant, &hit.account);
        let decision = Decision::from(hit);
        let row = if hit.hit.id == cause.id {
            let stored = HitRow {
                account,
                id: hit.hit.id,
                time: hit.hit.time,
                log_time: self.log_time,
                read_again: None,
                method: hit.hit.method.as_deref().unwrap_or_default(),
                raw: hit.hit.raw.as_deref().unwrap_or_default(),
                body: hit.hit.body.as_deref(),
                remote: hit.hit.remote.as_deref(),
                decision,
            };
            encode(&stored, &mut self.buffer)?;
            sql.insert_hit.execute(params![row, self.buffer])?;
            self.pending.add(term(Kind::HitId, 0, &hit.hit.id.bits().to_be_bytes()), row);
            self.pending.add(term(Kind::HitOfTenant, tenant, b""), row);
            self.pending.add(term(Kind::HitOfAccount, account, b""), row);
            self.spans.add(Order::Hits, row, hit.hit.time);
            row
        } else {
            match self.find_hit(sql, hit.hit.id)? {
                Some((known, old)) => {
                    let before: HitRow<'_> = decode(&old)?;
                    let again = (cause.kind == outcome::Kind::Reprocess).then_some(row as u64);
                    let read_again = again.or(before.read_again);
                    encode(&HitRow { decision, read_again, ..before }, &mut self.buffer)?;
                    sql.update_hit.execute(params![self.buffer, known])?;
                    known
                }
                None => {
                    tracing::error!(hit = %hit.hit.id, "an outcome is of a hit that is not in the log before it");
                    return Ok(());
                }
            }
        };
        index::decision(&mut self.pending, tenant, account, row, hit);
        if hit.outcome == Status::Waiting {
            self.hits.put(hit.hit.id, row);
        } else if hit.hit.id != cause.id {
            self.hits.pop(&hit.hit.id);
        }
        Ok(())
    }

    fn find_hit(&mut self, sql: &mut Sql<'_>, id: EventId) -> Result<Option<(i64, Vec<u8>)>> {
        let known = self.hits.get(&id).copied();
        let rows = match known {
            Some(row) => vec![row],
            None => self.look_up(sql.conn, Kind::HitId, 0, &id.bits().to_be_bytes())?,
        };
        for row in rows {
            let data: Option<Vec<u8>> = sql.read_hit.query_row([row], |row| row.get(0)).optional()?;
            if let Some(data) = data
                && decode::<HitRow<'_>>(&data)?.id == id
            {
                return Ok(Some((row, data)));
            }
        }
        Ok(None)
    }

    fn look_up(&mut self, conn: &Connection, kind: Kind, scope: u32, value: &[u8]) -> Result<Vec<i64>> {
        let wanted = term(kind, scope, value);
        let kept_otherwise = kind == Kind::ConversionId && self.made <= RECENT / 2;
        let mut rows = if kept_otherwise { Vec::new() } else { self.pending.rows(wanted) };
        if !self.segments_read {
            self.segments.refresh(conn)?;
            self.segments_read = true;
        }
        rows.extend(self.segments.rows(conn, wanted, 0, i64::MAX, usize::MAX)?);
        Ok(rows)
    }

    fn version(&mut self, sql: &mut Sql<'_>, tenant: &str, time: Time, version: &Version<'_>) -> Result<()> {
        let tenant = self.names.tenant_or_new(tenant);
        let account = self.names.account_or_new(tenant, version.account);
        let new = StoredConversion::of(account, version, time);
        let key = rapidhash_v3(&new.id.0);
        // A reprocess names what it leaves as it is, too, also where that is a first version.
        let known = version.what == What::Reprocessed && self.find_conversion(sql, key, new.id)?.is_some();
        if new.version == 1 && known {
            return Ok(());
        }
        if new.version == 1 {
            let number = self.next_conversion;
            encode(&new, &mut self.buffer)?;
            sql.insert_conversion.execute(params![number, self.buffer])?;
            self.next_conversion += 1;
            self.conversions.put(key, number);
            self.made += 1;
            index::conversion(&mut self.pending, tenant, account, number, &new);
            self.spans.add(Order::ConversionsByClick, number, new.click_time);
            self.spans.add(Order::ConversionsByTime, number, new.time);
            self.pending.add(term(Kind::ConversionUpdated, tenant, &day(time).to_be_bytes()), number);
            return Ok(());
        }
        let Some((number, old)) = self.find_conversion(sql, key, new.id)? else {
            tracing::error!(conversion = %new.id, "an outcome changes a conversion that no outcome made");
            return Ok(());
        };
        let old: StoredConversion<'_> = decode(&old)?;
        if old.version >= new.version {
            return Ok(());
        }
        let (click_time, at) = (old.click_time, old.time);
        let (tid, player) = (old.tid.map(str::to_owned), old.player.map(str::to_owned));
        let now = old.becomes(new);
        encode(&now, &mut self.buffer)?;
        sql.update_conversion.execute(params![self.buffer, number])?;
        encode(&StoredChange::of(version, time), &mut self.buffer)?;
        sql.insert_change.execute(params![number, version.conversion.version, self.buffer])?;
        self.conversions.put(key, number);
        self.pending.add(term(Kind::ConversionUpdated, tenant, &day(time).to_be_bytes()), number);
        if (now.tid, now.player) != (tid.as_deref(), player.as_deref()) {
            index::names(&mut self.pending, tenant, number, &now);
        }
        for (order, before, after) in
            [(Order::ConversionsByClick, click_time, now.click_time), (Order::ConversionsByTime, at, now.time)]
        {
            if before != after {
                self.spans.widen(sql.conn, order, number, after)?;
            }
        }
        Ok(())
    }

    fn find_conversion(&mut self, sql: &mut Sql<'_>, key: u64, id: ConversionId) -> Result<Option<(i64, Vec<u8>)>> {
        let mut check = |number: i64| -> Result<Option<(i64, Vec<u8>)>> {
            let data: Option<Vec<u8>> = sql.read_conversion.query_row([number], |row| row.get(0)).optional()?;
            match data {
                Some(data) if decode::<StoredConversion<'_>>(&data)?.id == id => Ok(Some((number, data))),
                _ => Ok(None),
            }
        };
        if let Some(number) = self.conversions.get(&key).copied()
            && let Some(found) = check(number)?
        {
            return Ok(Some(found));
        }
        for number in self.look_up(sql.conn, Kind::ConversionId, 0, &id.0)? {
            if let Some(found) = check(number)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Corrections by hand are found again when the history of their click is read again.
    fn adjust(&mut self, sql: &mut Sql<'_>, row: i64, outcome: &Outcome) -> Result<()> {
        let Some(adjust) = &outcome.adjust else { return Ok(()) };
        sql.insert_adjust.execute(params![row, self.log_time.ms()])?;
        if let Some(click) = &outcome.click {
            self.pending.add(term(Kind::AdjustClick, 0, &click.id.bits().to_be_bytes()), row);
        }
        if let Some(label) = &adjust.label {
            let tenant = self.names.tenant_or_new(&outcome.tenant);
            let account = self.names.account_or_new(tenant, &adjust.account);
            self.pending.add(term(Kind::AdjustLabel, account, name::fold(label).as_bytes()), row);
        }
        Ok(())
    }
}

/// The statements of one run of outcomes, taken from the connection's cache once.
struct Sql<'c> {
    conn: &'c Connection,
    insert_hit: CachedStatement<'c>,
    read_hit: CachedStatement<'c>,
    update_hit: CachedStatement<'c>,
    insert_click: CachedStatement<'c>,
    insert_conversion: CachedStatement<'c>,
    read_conversion: CachedStatement<'c>,
    update_conversion: CachedStatement<'c>,
    insert_change: CachedStatement<'c>,
    insert_adjust: CachedStatement<'c>,
}

impl<'c> Sql<'c> {
    fn prepare(conn: &'c Connection) -> Result<Self> {
        Ok(Self {
            conn,
            insert_hit: conn.prepare_cached("INSERT INTO hits(src, data) VALUES (?, ?)")?,
            read_hit: conn.prepare_cached("SELECT data FROM hits WHERE src = ?")?,
            update_hit: conn.prepare_cached("UPDATE hits SET data = ? WHERE src = ?")?,
            insert_click: conn.prepare_cached("INSERT INTO clicks(src, data) VALUES (?, ?)")?,
            insert_conversion: conn.prepare_cached("INSERT INTO conversions(number, data) VALUES (?, ?)")?,
            read_conversion: conn.prepare_cached("SELECT data FROM conversions WHERE number = ?")?,
            update_conversion: conn.prepare_cached("UPDATE conversions SET data = ? WHERE number = ?")?,
            insert_change: conn.prepare_cached("INSERT INTO changes(conversion, version, data) VALUES (?, ?, ?)")?,
            insert_adjust: conn.prepare_cached("INSERT INTO adjusts(src, log_time) VALUES (?, ?)")?,
        })
    }
}
