//! The cells in memory: loaded when touched, written absolute at a flush.
//!
//! Invariant: between flushes a cell here is the stored one plus every delta since; which values of a free dimension
//! are named depends on the log's order alone.

use std::hash::{Hash, Hasher};

use anyhow::Result;
use hashbrown::{Equivalent, HashMap, HashSet};
use rapidhash::v3::rapidhash_v3;
use rusqlite::{Connection, OptionalExtension, params};
use schemas::bounds::FREE_VALUES_PER_DAY;

use super::cell::{Cell, WHOLE_DAY};
use crate::fold::{Delta, Family, day, quarter};

/// Added to a family's number: all values beyond the named ones.
pub const OTHER: u8 = 0x80;
/// Entries kept in memory between flushes.
const CACHED_ENTRIES: usize = 400_000;
/// Hashes of named values kept in memory.
const CACHED_NAMES: usize = 4_000_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellKey {
    pub account: u32,
    /// A `Family`'s number, maybe with `OTHER`.
    pub family: u8,
    pub day: i64,
    pub value: Box<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyRef<'a> {
    account: u32,
    family: u8,
    day: i64,
    value: &'a str,
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.account, self.family, self.day, self.value).hash(state);
    }
}

impl Equivalent<CellKey> for KeyRef<'_> {
    fn equivalent(&self, key: &CellKey) -> bool {
        (self.account, self.family, self.day, self.value) == (key.account, key.family, key.day, &*key.value)
    }
}

#[derive(Debug)]
struct Cached {
    cell: Cell,
    dirty: bool,
}

#[derive(Debug, Default)]
pub struct Cells {
    cells: HashMap<CellKey, Cached>,
    /// Per account, free family and day: hashes of its named values.
    named: HashMap<(u32, u8, i64), HashSet<u64>>,
    dirty: Vec<CellKey>,
    entries: usize,
    names: usize,
}

impl Cells {
    /// Moves every cell that the delta belongs to.
    pub fn add(&mut self, conn: &Connection, account: u32, measure: u32, delta: &Delta<'_>) -> Result<()> {
        let day = day(delta.time);
        let slot = quarter(delta.time) as u8 + 1;
        for family in Family::ALL {
            let Some(value) = delta.origin.value(family) else { continue };
            let mut key = KeyRef { account, family: family as u8, day, value };
            let mut fresh = false;
            if family.is_free() && !self.cells.contains_key(&key) {
                match self.name(conn, &key)? {
                    Named::Known => {}
                    Named::New => fresh = true,
                    Named::Refused => key = KeyRef { family: key.family | OTHER, value: "", ..key },
                }
            }
            let (dirty, entries) = (&mut self.dirty, &mut self.entries);
            let cached = match self.cells.get_mut(&key) {
                Some(cached) => cached,
                None => {
                    let cell = if fresh { Cell::default() } else { load(conn, &key)? };
                    *entries += cell.len();
                    self.cells.entry(key.owned()).or_insert(Cached { cell, dirty: false })
                }
            };
            if !cached.dirty {
                cached.dirty = true;
                dirty.push(key.owned());
            }
            let before = cached.cell.len();
            cached.cell.add(WHOLE_DAY, measure, delta.by)?;
            cached.cell.add(slot, measure, delta.by)?;
            *entries += cached.cell.len() - before;
        }
        Ok(())
    }

    /// The first values of an account and day get rows of their own, in log order.
    fn name(&mut self, conn: &Connection, key: &KeyRef<'_>) -> Result<Named> {
        let place = (key.account, key.family, key.day);
        if !self.named.contains_key(&place) {
            let named = load_named(conn, place)?;
            self.names += named.len();
            self.named.insert(place, named);
        }
        let Some(named) = self.named.get_mut(&place) else { return Ok(Named::Refused) };
        let hash = rapidhash_v3(key.value.as_bytes());
        if named.contains(&hash) {
            return Ok(Named::Known);
        }
        if named.len() >= FREE_VALUES_PER_DAY {
            return Ok(Named::Refused);
        }
        named.insert(hash);
        self.names += 1;
        Ok(Named::New)
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<usize> {
        let mut keys = std::mem::take(&mut self.dirty);
        keys.sort_unstable();
        let mut write = conn.prepare_cached(
            "INSERT OR REPLACE INTO cells(account, family, day, value, totals, quarters) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        let (mut totals, mut quarters) = (Vec::new(), Vec::new());
        for key in &keys {
            let Some(cached) = self.cells.get_mut(key) else { continue };
            cached.cell.encode(&mut totals, &mut quarters);
            write.execute(params![key.account, key.family, key.day, &*key.value, totals, quarters])?;
            cached.dirty = false;
        }
        self.forget(&keys);
        let written = keys.len();
        keys.clear();
        self.dirty = keys;
        Ok(written)
    }

    /// Keeps memory bounded: the cells of the last flush stay, as they are likely to be touched again.
    fn forget(&mut self, last: &[CellKey]) {
        if self.entries > CACHED_ENTRIES {
            let stays: HashSet<&CellKey> = if last.len() < CACHED_ENTRIES / 4 { last.iter().collect() } else { HashSet::new() };
            self.cells.retain(|key, _| stays.contains(key));
            self.entries = self.cells.values().map(|cached| cached.cell.len()).sum();
        }
        if self.names > CACHED_NAMES {
            self.named.clear();
            self.names = 0;
        }
    }
}

enum Named {
    Known,
    New,
    Refused,
}

impl KeyRef<'_> {
    fn owned(&self) -> CellKey {
        CellKey { account: self.account, family: self.family, day: self.day, value: self.value.into() }
    }
}

fn load(conn: &Connection, key: &KeyRef<'_>) -> Result<Cell> {
    let mut read = conn.prepare_cached(
        "SELECT totals, quarters FROM cells WHERE account = ? AND family = ? AND day = ? AND value = ?",
    )?;
    let mut rows = read.query(params![key.account, key.family, key.day, key.value])?;
    match rows.next()? {
        Some(row) => Cell::decode(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?),
        None => Ok(Cell::default()),
    }
}

fn load_named(conn: &Connection, (account, family, day): (u32, u8, i64)) -> Result<HashSet<u64>> {
    let mut read = conn.prepare_cached("SELECT value FROM cells WHERE account = ? AND family = ? AND day = ?")?;
    let mut rows = read.query(params![account, family, day])?;
    let mut named = HashSet::new();
    while let Some(row) = rows.next()? {
        named.insert(rapidhash_v3(row.get_ref(0)?.as_bytes()?));
    }
    Ok(named)
}

/// Whether a day of the account has values beyond the named ones.
pub fn has_other(conn: &Connection, account: u32, family: Family, days: (i64, i64)) -> Result<bool> {
    let mut read =
        conn.prepare_cached("SELECT 1 FROM cells WHERE account = ? AND family = ? AND day BETWEEN ? AND ? LIMIT 1")?;
    let found = read.query_row(params![account, family as u8 | OTHER, days.0, days.1], |_| Ok(())).optional()?;
    Ok(found.is_some())
}
