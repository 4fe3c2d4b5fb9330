//! The past of a folder: its tables in one snapshot at a time, and its log.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use pipeline::log::{Block, LogReader};
use rusqlite::OptionalExtension;
use schemas::{ClickId, Event, Time, bounds::ITEMS_PER_REPROCESS, name::fold};

use super::{
    history::TooLong,
    past::{At, Past, PastClick, PastHit},
};
use crate::{
    report::Snapshot,
    tables::{Decision, HitRow, Kind, Order, StoredClick, decode, ranges, term},
};

/// Blocks of the log that are kept while histories are put together.
const BLOCKS: usize = 64;
/// Rows looked up at once.
const CHUNK: usize = 2_048;

/// Reads events, several of which often lie in one block.
pub struct Events {
    log: LogReader,
    blocks: BTreeMap<u64, Block>,
}

impl Events {
    pub fn new(log: LogReader) -> Self {
        Self { log, blocks: BTreeMap::new() }
    }

    fn get(&mut self, src: u64) -> Result<Event> {
        let known =
            self.blocks.range(..=src).next_back().filter(|(_, block)| src < block.end()).map(|(first, _)| *first);
        let first = match known {
            Some(first) => first,
            None => {
                let block = self.log.block_with(src)?.with_context(|| format!("event {src} is not in the log"))?;
                if self.blocks.len() >= BLOCKS {
                    self.blocks.pop_first();
                }
                let first = block.first;
                self.blocks.insert(first, block);
                first
            }
        };
        let block = self.blocks.get(&first).context("a block went away")?;
        block.event(src)
    }
}

pub struct OfFolder<'s, 'r> {
    pub snapshot: &'s mut Snapshot<'r>,
    pub events: Events,
    pub tenant: &'s str,
    pub account: &'s str,
}

impl OfFolder<'_, '_> {
    /// Numbers of the tenant and the account; `None`: there are no rows of them.
    fn scope(&self) -> Option<(u32, u32)> {
        let names = self.snapshot.names();
        let tenant = names.tenant(self.tenant)?;
        Some((tenant, names.account(tenant, self.account)?))
    }

    fn rows(&self, kind: Kind, scope: u32, value: &[u8]) -> Result<Vec<i64>> {
        let limit = ITEMS_PER_REPROCESS * 4;
        let rows = self.snapshot.segments().rows(self.snapshot.conn(), term(kind, scope, value), 0, i64::MAX, limit)?;
        if rows.len() == limit {
            return Err(TooLong.into());
        }
        Ok(rows)
    }

    fn hit<T>(&self, row: i64, take: impl FnOnce(&HitRow<'_>) -> T) -> Result<Option<T>> {
        let mut read = self.snapshot.conn().prepare_cached("SELECT data FROM hits WHERE src = ?")?;
        let mut rows = read.query([row])?;
        let Some(found) = rows.next()? else { return Ok(None) };
        Ok(Some(take(&decode(found.get_ref(0)?.as_blob()?)?)))
    }

    fn hits(&self, rows: Vec<i64>) -> Result<Vec<PastHit>> {
        let hit = |row: i64| {
            let found = self.hit(row, |hit| past(row, hit))?;
            found.with_context(|| format!("hit {row} has no row"))
        };
        rows.into_iter().map(hit).collect()
    }

    fn adjusts(&self, rows: Vec<i64>) -> Result<Vec<(At, Time)>> {
        let mut read = self.snapshot.conn().prepare_cached("SELECT log_time FROM adjusts WHERE src = ?")?;
        let mut adjust = |row: i64| {
            let log_time: i64 = read.query_row([row], |row| row.get(0))?;
            Ok((at(row), Time::from_ms(log_time)))
        };
        rows.into_iter().map(&mut adjust).collect()
    }
}

fn at(row: i64) -> At {
    (0, row as u64)
}

fn past(row: i64, hit: &HitRow<'_>) -> PastHit {
    PastHit { at: at(row), log_time: hit.log_time, read_again: hit.read_again }
}

impl Past for OfFolder<'_, '_> {
    fn position(&mut self, _: u16) -> Result<u64> {
        self.snapshot.position()
    }

    fn event(&mut self, (partition, src): At) -> Result<Event> {
        if partition != 0 {
            bail!("a folder has no partition {partition}");
        }
        self.events.get(src)
    }

    fn hits_between(&mut self, from: Time, to: Time, is_meant: &dyn Fn(&Decision<'_>) -> bool) -> Result<Vec<PastHit>> {
        let Some((_, account)) = self.scope() else { return Ok(Vec::new()) };
        let of_account = term(Kind::HitOfAccount, account, b"");
        let mut found = Vec::new();
        for (first, mut last) in ranges(self.snapshot.conn(), Order::Hits, from, to)? {
            loop {
                let rows = self.snapshot.segments().rows(self.snapshot.conn(), of_account, first, last, CHUNK)?;
                for row in &rows {
                    let wanted = |hit: &HitRow<'_>| {
                        (from <= hit.time && hit.time < to && is_meant(&hit.decision)).then(|| past(*row, hit))
                    };
                    found.extend(self.hit(*row, wanted)?.flatten());
                }
                match rows.last() {
                    Some(lowest) if rows.len() == CHUNK && *lowest > first => last = lowest - 1,
                    _ => break,
                }
                self.snapshot.breathe()?;
            }
        }
        Ok(found)
    }

    fn click(&mut self, id: ClickId) -> Result<Option<PastClick>> {
        let ours = self.scope().map(|(_, account)| account);
        for row in self.rows(Kind::ClickId, 0, &id.bits().to_be_bytes())? {
            let data: Option<Vec<u8>> = self
                .snapshot
                .conn()
                .prepare_cached("SELECT data FROM clicks WHERE src = ?")?
                .query_row([row], |row| row.get(0))
                .optional()?;
            let Some(data) = data else { continue };
            let click: StoredClick<'_> = decode(&data)?;
            if click.id == id {
                let is_ours = ours == Some(click.account);
                return Ok(Some(PastClick { at: at(row), is_ours, log_time: click.log_time }));
            }
        }
        Ok(None)
    }

    fn clicks_named(&mut self, name: &str) -> Result<Vec<At>> {
        let Some((_, account)) = self.scope() else { return Ok(Vec::new()) };
        Ok(self.rows(Kind::ClickName, account, name.as_bytes())?.into_iter().map(at).collect())
    }

    fn hits_of_click(&mut self, id: ClickId) -> Result<Vec<PastHit>> {
        let rows = self.rows(Kind::HitClick, 0, &id.bits().to_be_bytes())?;
        self.hits(rows)
    }

    fn hits_named(&mut self, name: &str) -> Result<Vec<PastHit>> {
        let Some((tenant, _)) = self.scope() else { return Ok(Vec::new()) };
        let rows = self.rows(Kind::HitName, tenant, name.as_bytes())?;
        self.hits(rows)
    }

    fn adjusts_of_click(&mut self, id: ClickId) -> Result<Vec<(At, Time)>> {
        let rows = self.rows(Kind::AdjustClick, 0, &id.bits().to_be_bytes())?;
        self.adjusts(rows)
    }

    fn adjusts_of_label(&mut self, label: &str) -> Result<Vec<(At, Time)>> {
        let Some((_, account)) = self.scope() else { return Ok(Vec::new()) };
        let rows = self.rows(Kind::AdjustLabel, account, fold(label).as_bytes())?;
        self.adjusts(rows)
    }

    fn breathe(&mut self) -> Result<()> {
        self.snapshot.breathe()
    }
}
