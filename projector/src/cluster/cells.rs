//! The cells of one source partition: their absolute sums, and which values of a free dimension are named.
//!
//! Owns: what has been added since the last flush, and the cells that were written lately. Refuses: to be the truth: a
//! cell that is not in memory is read before it is written, and skips what it has in it already.
//! Invariant: a cell with `next` is the sum of every delta before `next`. Which values are named follows from the order
//! of the log alone: those with the first `FREE_VALUES_PER_DAY` places, and each row says since when (`first`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
};

use anyhow::{Context, Result};
use lru::LruCache;
use schemas::{Currency, bounds::FREE_VALUES_PER_DAY, status::State};
use serde::{Deserialize, Serialize};

use super::writes::AccountKey;
use crate::{
    fold::{Delta, Family, Measure, Sums, day, quarter},
    report::Basis,
    tables::{Cell, OTHER},
};

/// Cells kept in memory between flushes.
const CELLS: usize = 200_000;
/// Places whose named values are kept in memory; each has at most `FREE_VALUES_PER_DAY` of them.
const PLACES: usize = 2_000;

/// A measure as a cell's row names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredMeasure {
    Clicks { flagged: bool },
    Conversions { goal: String, state: State, currency: Currency, by_conversion: bool },
}

impl StoredMeasure {
    fn of(measure: Measure<'_>, basis: Basis) -> Self {
        match measure {
            Measure::Clicks { flagged } => StoredMeasure::Clicks { flagged },
            Measure::Conversions { goal, state, currency } => StoredMeasure::Conversions {
                goal: goal.to_owned(),
                state,
                currency,
                by_conversion: basis == Basis::Conversion,
            },
        }
    }

    pub fn measure(&self) -> (Measure<'_>, Basis) {
        match self {
            StoredMeasure::Clicks { flagged } => (Measure::Clicks { flagged: *flagged }, Basis::Click),
            StoredMeasure::Conversions { goal, state, currency, by_conversion } => {
                let basis = if *by_conversion { Basis::Conversion } else { Basis::Click };
                (Measure::Conversions { goal, state: *state, currency: *currency }, basis)
            }
        }
    }
}

/// All values of one family on one UTC day.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub of: AccountKey,
    /// With `OTHER` for the values that are not named.
    pub family: u8,
    pub day: i64,
}

impl Place {
    fn is_free(&self) -> bool {
        Family::ALL.iter().any(|family| family.is_free() && *family as u8 == self.family)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CellKey {
    pub place: Place,
    pub value: String,
}

/// A cell as its row says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredCell {
    /// Codes within `cell` are places in this list.
    pub measures: Vec<StoredMeasure>,
    pub cell: Cell,
    /// The `src` that named the value.
    pub first: u64,
    /// It is the sum of everything before.
    pub next: u64,
}

impl StoredCell {
    fn add(&mut self, quarter: u8, measure: &StoredMeasure, by: Sums) -> Result<()> {
        let code = match self.measures.iter().position(|known| known == measure) {
            Some(code) => code,
            None => {
                self.measures.push(measure.clone());
                self.measures.len() - 1
            }
        };
        self.cell.add(quarter, code as u32, by)
    }
}

/// A delta that waits for the next flush.
#[derive(Clone, Debug)]
struct Added {
    src: u64,
    quarter: u8,
    measure: StoredMeasure,
    by: Sums,
}

#[derive(Debug)]
pub struct Cells {
    known: LruCache<CellKey, StoredCell>,
    /// By place: since when each value is named.
    named: LruCache<Place, HashMap<String, u64>>,
    added: HashMap<CellKey, Vec<Added>>,
    /// Of this flush: cells that were known, and those that are new.
    held: HashMap<CellKey, StoredCell>,
    /// Values that may be named per place.
    limit: usize,
}

impl Cells {
    pub fn new() -> Result<Self> {
        Self::with_limit(FREE_VALUES_PER_DAY)
    }

    pub fn with_limit(limit: usize) -> Result<Self> {
        let size = |size| NonZeroUsize::new(size).context("a cache of nothing");
        Ok(Self {
            limit,
            known: LruCache::new(size(CELLS)?),
            named: LruCache::new(size(PLACES)?),
            added: HashMap::new(),
            held: HashMap::new(),
        })
    }

    pub fn add(&mut self, src: u64, tenant: &str, delta: &Delta<'_>) {
        let measure = StoredMeasure::of(delta.measure, delta.basis);
        for family in Family::ALL {
            let Some(value) = delta.origin.value(family) else { continue };
            let of = AccountKey { tenant: tenant.to_owned(), account: delta.account.to_owned() };
            let place = Place { of, family: family as u8, day: day(delta.time) };
            let key = CellKey { place, value: value.to_owned() };
            let quarter = quarter(delta.time) as u8;
            self.added.entry(key).or_default().push(Added { src, quarter, measure: measure.clone(), by: delta.by });
        }
    }

    /// Cells that were added to.
    pub fn changed(&self) -> usize {
        self.added.len()
    }

    /// Places of free dimensions whose named values are needed, and not known.
    pub fn unknown_places(&self) -> Vec<Place> {
        let unknown =
            |key: &&CellKey| key.place.is_free() && !self.known.contains(*key) && !self.named.contains(&key.place);
        let places: HashSet<&Place> = self.added.keys().filter(unknown).map(|key| &key.place).collect();
        places.into_iter().cloned().collect()
    }

    /// Decides under which cells the deltas go, and gives the cells that must be read. `read`: since when the values of the
    /// unknown places are named.
    pub fn resolve(&mut self, read: HashMap<Place, HashMap<String, u64>>) -> Vec<CellKey> {
        let mut places: HashMap<Place, HashMap<String, u64>> = read;
        let mut unread = Vec::new();
        // In the order of the log: the first values are the ones that are named.
        let mut keys: BTreeMap<(u64, String, u8, i64), CellKey> = BTreeMap::new();
        for (key, added) in &self.added {
            if let Some(cell) = self.known.pop(key) {
                self.held.insert(key.clone(), cell);
                continue;
            }
            if !key.place.is_free() {
                unread.push(key.clone());
                continue;
            }
            let first = added.first().map_or(0, |added| added.src);
            keys.insert((first, key.value.clone(), key.place.family, key.place.day), key.clone());
        }
        for ((src, ..), key) in keys {
            let named = match places.get_mut(&key.place) {
                Some(named) => named,
                None => {
                    let known = self.named.pop(&key.place).unwrap_or_default();
                    places.entry(key.place.clone()).or_insert(known)
                }
            };
            if named.contains_key(&key.value) {
                unread.push(key);
                continue;
            }
            let full = named.len() >= self.limit && named.values().filter(|first| **first < src).count() >= self.limit;
            if !full {
                named.insert(key.value.clone(), src);
                // Nobody named it before, so it has no row.
                self.held.insert(key, StoredCell { first: src, ..StoredCell::default() });
                continue;
            }
            let other = CellKey {
                place: Place { family: key.place.family | OTHER, ..key.place.clone() },
                value: String::new(),
            };
            let moved = self.added.remove(&key).unwrap_or_default();
            let there = self.added.entry(other.clone()).or_default();
            there.extend(moved);
            there.sort_by_key(|added| added.src);
            match self.known.pop(&other) {
                Some(cell) => drop(self.held.insert(other, cell)),
                None if self.held.contains_key(&other) || unread.contains(&other) => {}
                None => unread.push(other),
            }
        }
        for (place, named) in places {
            self.named.push(place, named);
        }
        unread
    }

    /// Applies the deltas, and gives the cells as they are to be written. `read`: the rows of the cells that had to be read,
    /// empty where there was none. `next`: every delta before it was added.
    pub fn apply(&mut self, read: HashMap<CellKey, StoredCell>, next: u64) -> Result<Vec<(CellKey, StoredCell)>> {
        let mut read = read;
        let mut written = Vec::with_capacity(self.added.len());
        for (key, added) in std::mem::take(&mut self.added) {
            let known = self.held.remove(&key).or_else(|| read.remove(&key));
            let mut cell = known.context("a cell was not read before its flush")?;
            let before = cell.next;
            for delta in added.iter().filter(|delta| delta.src >= before) {
                cell.add(delta.quarter, &delta.measure, delta.by)?;
            }
            // A row that is ahead, from before a restart, stays as it is.
            if cell.next < next {
                cell.next = next;
                written.push((key.clone(), cell.clone()));
            }
            self.known.push(key, cell);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
