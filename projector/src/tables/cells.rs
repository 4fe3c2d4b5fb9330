//! The cells: what a flush adds to them is written as one sorted segment, and segments are merged as they get many.
//!
//! A cell's row could be read, added to and written back. But a flush touches thousands of cells in no order, one page
//! of the file each, and that cost more than everything else together. A segment's pages are full of what the flush
//! touched. A cell is the sum of what all segments have of it, so readers just add up.
//!
//! Invariant: the sum over the segments of a cell is the fold of the outcomes before the position; which values of a
//! free dimension are named depends on the log's order alone.

use anyhow::{Context, Result};
use hashbrown::{HashMap, HashSet, HashTable};
use rapidhash::v3::rapidhash_v3;
use rusqlite::Connection;
use schemas::bounds::FREE_VALUES_PER_DAY;

use super::{
    cell::Cell,
    runs::{Runs, RunsWriter, key, put_key, value_of},
};
use crate::fold::{Delta, Family, Origin, day, quarter};

/// Added to a family's number: all values beyond the named ones.
pub const OTHER: u8 = 0x80;
/// Hashes of named values kept in memory.
const CACHED_NAMES: usize = 4_000_000;

/// Account, family and day.
type Place = (u32, u8, i64);

/// What has been added since the last flush.
#[derive(Debug)]
pub struct Cells {
    /// The keys of all cells, one behind the other.
    keys: Vec<u8>,
    cells: Vec<Added>,
    /// By hash of the key.
    numbers: HashTable<u32>,
    /// Per free family: hashes of its named values.
    named: HashMap<Place, HashSet<u64>>,
    names: usize,
    writer: RunsWriter,
}

#[derive(Debug)]
struct Added {
    /// Of the key within `keys`.
    start: u32,
    end: u32,
    cell: Cell,
}

impl Added {
    fn key<'k>(&self, keys: &'k [u8]) -> &'k [u8] {
        &keys[self.start as usize..self.end as usize]
    }
    /// The first bytes of the key: they decide nearly every comparison.
    fn head(&self, keys: &[u8]) -> u128 {
        let mut head = [0; 16];
        let key = self.key(keys);
        let length = key.len().min(head.len());
        head[..length].copy_from_slice(&key[..length]);
        u128::from_be_bytes(head)
    }
}

impl Cells {
    pub fn load(conn: &Connection) -> Result<Self> {
        Ok(Self {
            keys: Vec::new(),
            cells: Vec::new(),
            numbers: HashTable::new(),
            named: HashMap::new(),
            names: 0,
            writer: RunsWriter::load(conn)?,
        })
    }

    /// The number that the next segment gets.
    pub fn next_segment(&self) -> i64 {
        self.writer.next_segment()
    }

    /// Moves every cell of the account that the deltas belong to. Before each stands its measure's code.
    pub fn add(&mut self, conn: &Connection, account: u32, deltas: &[(u32, Delta<'_>)]) -> Result<()> {
        let mut last: Option<(i64, Origin<'_>)> = None;
        let mut numbers = [None; Family::ALL.len()];
        for (measure, delta) in deltas {
            let day = day(delta.time);
            // Both bases of a conversion mostly lie on one day, and so in the same cells.
            if last != Some((day, delta.origin)) {
                last = Some((day, delta.origin));
                for family in Family::ALL {
                    numbers[family as usize] = match delta.origin.value(family) {
                        Some(value) => Some(self.number(conn, family, (account, family as u8, day), value)?),
                        None => None,
                    };
                }
            }
            let quarter = quarter(delta.time) as u8;
            for number in numbers.into_iter().flatten() {
                self.cells[number as usize].cell.add(quarter, *measure, delta.by)?;
            }
        }
        Ok(())
    }

    /// The cell of a value, or that of the values beyond the named ones.
    fn number(&mut self, conn: &Connection, family: Family, place: Place, value: &str) -> Result<u32> {
        let start = self.keys.len();
        put_key(&mut self.keys, place.1, place.0, place.2, value);
        if let Some(number) = self.known(start) {
            return Ok(number);
        }
        if family.is_free() && !self.is_named(conn, place, value)? {
            self.keys.truncate(start);
            put_key(&mut self.keys, place.1 | OTHER, place.0, place.2, "");
            if let Some(number) = self.known(start) {
                return Ok(number);
            }
        }
        let number = self.cells.len() as u32;
        let (start, end) = (u32::try_from(start)?, u32::try_from(self.keys.len())?);
        self.cells.push(Added { start, end, cell: Cell::default() });
        let (keys, cells) = (&self.keys, &self.cells);
        let hash = |number: &u32| rapidhash_v3(cells[*number as usize].key(keys));
        self.numbers.insert_unique(hash(&number), number, hash);
        Ok(number)
    }

    /// The cell whose key stands at the end of `keys`; if there is one, that copy is taken away again.
    fn known(&mut self, start: usize) -> Option<u32> {
        let (keys, cells) = (&self.keys, &self.cells);
        let wanted = &keys[start..];
        let found = self.numbers.find(rapidhash_v3(wanted), |number| cells[*number as usize].key(keys) == wanted);
        let found = found.copied();
        if found.is_some() {
            self.keys.truncate(start);
        }
        found
    }

    /// The first values of an account and day get cells of their own, in log order.
    fn is_named(&mut self, conn: &Connection, place: Place, value: &str) -> Result<bool> {
        if !self.named.contains_key(&place) {
            let named = self.load_named(conn, place)?;
            self.names += named.len();
            self.named.insert(place, named);
        }
        let named = self.named.get_mut(&place).context("the named values went away")?;
        let hash = rapidhash_v3(value.as_bytes());
        if named.contains(&hash) {
            return Ok(true);
        }
        let room = named.len() < FREE_VALUES_PER_DAY;
        if room {
            named.insert(hash);
            self.names += 1;
        }
        Ok(room)
    }

    fn load_named(&self, conn: &Connection, (account, family, day): Place) -> Result<HashSet<u64>> {
        let (from, to) = (key(family, account, day, ""), key(family, account, day + 1, ""));
        let mut named = HashSet::new();
        let mut runs = Runs::default();
        runs.refresh(conn)?;
        runs.scan(conn, &from, &to, |found, _| {
            named.insert(rapidhash_v3(value_of(found)));
            Ok(())
        })?;
        // Those that are not written yet.
        for added in &self.cells {
            let found = added.key(&self.keys);
            if found >= &from[..] && found < &to[..] {
                named.insert(rapidhash_v3(value_of(found)));
            }
        }
        Ok(named)
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<usize> {
        let keys = &self.keys;
        let mut order: Vec<(u128, u32)> =
            self.cells.iter().zip(0..).map(|(added, number)| (added.head(keys), number)).collect();
        let key = |number: u32| self.cells[number as usize].key(keys);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        let cells = order.iter().map(|(_, number)| (key(*number), &self.cells[*number as usize].cell));
        self.writer.write(conn, cells)?;
        self.writer.merge(conn)?;
        let written = self.cells.len();
        self.keys.clear();
        self.cells.clear();
        self.numbers.clear();
        // After an unusual day the next flushes need not hold all that memory.
        self.keys.shrink_to(1 << 22);
        self.cells.shrink_to(1 << 16);
        if self.names > CACHED_NAMES {
            self.named.clear();
            self.names = 0;
        }
        Ok(written)
    }
}

/// Whether a day of the account has values beyond the named ones.
pub fn has_other(runs: &Runs, conn: &Connection, account: u32, family: Family, days: (i64, i64)) -> Result<bool> {
    let family = family as u8 | OTHER;
    let mut found = false;
    runs.scan(conn, &key(family, account, days.0, ""), &key(family, account, days.1 + 1, ""), |_, _| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}
