//! The look-up index: from a term (a click id, a `tid`, an account …) to the rows that have it.
//!
//! Terms come in no order, and an ordinary index would touch one page per entry. So entries are written in sorted
//! segments, one per flush, and segments are merged as they get many. An entry is 12 bytes: 48 bits of the term's
//! hash and 48 bits of the row number. Hashes may collide and rows may have changed since, so readers check the row.
//!
//! Invariant: every entry ever added is in exactly one segment of the `segments` table.

use anyhow::{Context, Result};
use rapidhash::v3::rapidhash_v3;
use rusqlite::{Connection, OptionalExtension, params};

/// What kind of thing a term names, and what its row numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Rows are hits (`src`).
    HitId = 1,
    HitOfTenant,
    HitOfAccount,
    /// Scope is the tenant, or the account.
    HitOutcomeOfTenant,
    HitOutcomeOfAccount,
    HitReasonOfTenant,
    HitReasonOfAccount,
    HitClick,
    HitName,
    HitTid,
    HitPlayer,
    /// Rows are clicks (`src`).
    ClickId = 32,
    ClickOfAccount,
    ClickName,
    /// Rows are conversions (their number).
    ConversionId = 64,
    ConversionOfTenant,
    ConversionOfAccount,
    ConversionClick,
    ConversionTid,
    ConversionPlayer,
    ConversionUpdated,
    /// Rows are adjustments (`src`).
    AdjustClick = 96,
    AdjustLabel,
}

/// 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(u64);

const ROW_BITS: u32 = 48;
const ROW_MASK: u64 = (1 << ROW_BITS) - 1;

/// `scope` is a tenant's or an account's number, or 0.
pub fn term(kind: Kind, scope: u32, value: &[u8]) -> Term {
    let mut key = [0u8; 5 + 264];
    key[0] = kind as u8;
    key[1..5].copy_from_slice(&scope.to_be_bytes());
    let hash = match key.get_mut(5..5 + value.len()) {
        Some(place) => {
            place.copy_from_slice(value);
            rapidhash_v3(&key[..5 + value.len()])
        }
        None => rapidhash_v3(&[&key[..5], value].concat()),
    };
    Term(hash >> (64 - ROW_BITS))
}

const ENTRY_BYTES: usize = 12;
/// Entries of one stored page; it fits into one page of the file.
const PAGE_ENTRIES: usize = 330;
/// As many segments of one level are merged into one of the next.
const FAN_IN: usize = 16;
/// A merge never makes a larger segment, so no flush takes long; larger tables have more segments.
const MERGED_ENTRIES: u64 = 2_000_000;
/// The level of segments that are as large as they may get.
const FULL: u8 = 255;
const PAGES_PER_SEGMENT: i64 = 1 << 24;

/// Entries of one flush, and the writing side.
#[derive(Debug, Default)]
pub struct Pending {
    entries: Vec<u128>,
    next_segment: i64,
}

impl Pending {
    pub fn load(conn: &Connection) -> Result<Self> {
        let last: Option<i64> = conn.query_row("SELECT max(id) FROM segments", [], |row| row.get(0))?;
        let retired: i64 =
            conn.query_row("SELECT next_segment FROM position", [], |row| row.get(0)).optional()?.unwrap_or(0);
        Ok(Self { entries: Vec::new(), next_segment: last.map_or(0, |last| last + 1).max(retired) })
    }

    pub fn add(&mut self, term: Term, row: i64) {
        self.entries.push(u128::from(term.0) << ROW_BITS | u128::from(row as u64 & ROW_MASK));
    }

    /// Rows that were added since the last flush and may have the term.
    pub fn rows(&self, term: Term) -> Vec<i64> {
        let of_term = self.entries.iter().filter(|entry| (**entry >> ROW_BITS) as u64 == term.0);
        of_term.map(|entry| (*entry as u64 & ROW_MASK) as i64).collect()
    }

    /// The number that the next segment gets. Numbers are never used twice, so readers may cache by them.
    pub fn next_segment(&self) -> i64 {
        self.next_segment
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable();
        entries.dedup();
        self.write_segment(conn, &entries, 0)?;
        entries.clear();
        self.entries = entries;
        self.merge(conn)
    }

    fn write_segment(&mut self, conn: &Connection, entries: &[u128], level: u8) -> Result<()> {
        let id = self.next_segment;
        self.next_segment += 1;
        let mut fences = Vec::with_capacity((entries.len() / PAGE_ENTRIES + 1) * ENTRY_BYTES);
        let mut page = Vec::with_capacity(PAGE_ENTRIES * ENTRY_BYTES);
        let mut insert = conn.prepare_cached("INSERT INTO postings(page, data) VALUES (?, ?)")?;
        for (number, part) in entries.chunks(PAGE_ENTRIES).enumerate() {
            page.clear();
            for entry in part {
                page.extend_from_slice(&entry.to_be_bytes()[16 - ENTRY_BYTES..]);
            }
            fences.extend_from_slice(&page[..ENTRY_BYTES]);
            insert.execute(params![id * PAGES_PER_SEGMENT + number as i64, page])?;
        }
        let rows = entries.iter().map(|entry| *entry as u64 & ROW_MASK);
        let (first, last) = rows.fold((u64::MAX >> 1, 0), |(low, high), row| (low.min(row), high.max(row)));
        conn.prepare_cached(
            "INSERT INTO segments(id, level, entries, first_row, last_row, fences) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![id, level, entries.len() as i64, first as i64, last as i64, fences])?;
        Ok(())
    }

    fn merge(&mut self, conn: &Connection) -> Result<()> {
        let mut level = 0;
        loop {
            let segments = segments_of_level(conn, level)?;
            if segments.len() < FAN_IN {
                return Ok(());
            }
            let total: u64 = segments.iter().map(|(_, entries)| entries).sum();
            if total > MERGED_ENTRIES {
                conn.execute("UPDATE segments SET level = ? WHERE level = ?", params![FULL, level])?;
                return Ok(());
            }
            let mut merged = Vec::with_capacity(total as usize);
            for (id, _) in &segments {
                take_segment(conn, *id, &mut merged)?;
            }
            // The segments are sorted runs, which the stable sort finds and merges.
            merged.sort();
            merged.dedup();
            level += 1;
            self.write_segment(conn, &merged, level)?;
        }
    }
}

fn segments_of_level(conn: &Connection, level: u8) -> Result<Vec<(i64, u64)>> {
    let mut statement = conn.prepare_cached("SELECT id, entries FROM segments WHERE level = ? ORDER BY id")?;
    let rows = statement.query_map([level], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Moves a segment's entries out of the file.
fn take_segment(conn: &Connection, id: i64, out: &mut Vec<u128>) -> Result<()> {
    let pages = params![id * PAGES_PER_SEGMENT, (id + 1) * PAGES_PER_SEGMENT];
    let mut read = conn.prepare_cached("SELECT data FROM postings WHERE page >= ? AND page < ? ORDER BY page")?;
    let mut rows = read.query(pages)?;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(0)?.as_blob()?;
        out.extend(data.chunks_exact(ENTRY_BYTES).map(read_entry));
    }
    conn.prepare_cached("DELETE FROM postings WHERE page >= ? AND page < ?")?.execute(pages)?;
    conn.prepare_cached("DELETE FROM segments WHERE id = ?")?.execute([id])?;
    Ok(())
}

fn read_entry(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |entry, byte| entry << 8 | u128::from(*byte))
}

/// A segment as a reader knows it.
#[derive(Clone, Debug)]
pub struct Segment {
    id: i64,
    first_row: i64,
    last_row: i64,
    /// The first entry of each page.
    fences: std::sync::Arc<Vec<u8>>,
}

/// The segments of one snapshot. Fences are kept from one refresh to the next, as segments never change.
#[derive(Clone, Debug, Default)]
pub struct Segments(Vec<Segment>);

impl Segments {
    pub fn refresh(&mut self, conn: &Connection) -> Result<()> {
        let mut known: std::collections::HashMap<i64, Segment> = self.0.drain(..).map(|s| (s.id, s)).collect();
        let mut list = conn.prepare_cached("SELECT id, first_row, last_row FROM segments ORDER BY id")?;
        let mut fences = conn.prepare_cached("SELECT fences FROM segments WHERE id = ?")?;
        let mut rows = list.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let segment = match known.remove(&id) {
                Some(segment) => segment,
                None => Segment {
                    id,
                    first_row: row.get(1)?,
                    last_row: row.get(2)?,
                    fences: std::sync::Arc::new(fences.query_row([id], |row| row.get(0))?),
                },
            };
            self.0.push(segment);
        }
        Ok(())
    }

    /// Rows from `first` to `last` that may have the term, each once, highest first, at most `limit`.
    pub fn rows(&self, conn: &Connection, term: Term, first: i64, last: i64, limit: usize) -> Result<Vec<i64>> {
        let mut found = Vec::new();
        for segment in &self.0 {
            if segment.last_row >= first && segment.first_row <= last {
                segment.collect(conn, term, first.max(0), last, limit, &mut found)?;
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }
}

impl Segment {
    /// The highest `limit` rows of the term in the range, walking the pages backwards.
    fn collect(
        &self,
        conn: &Connection,
        term: Term,
        first: i64,
        last: i64,
        limit: usize,
        found: &mut Vec<i64>,
    ) -> Result<()> {
        let entry = |row: i64| u128::from(term.0) << ROW_BITS | u128::from(row.min(ROW_MASK as i64) as u64);
        let (low, high) = (entry(first), entry(last));
        let mut read = conn.prepare_cached("SELECT data FROM postings WHERE page = ?")?;
        let mut taken = 0;
        // Pages that begin after `high` have none of it.
        let mut page = self.pages_up_to(high);
        while page > 0 && taken < limit {
            page -= 1;
            let number = self.id * PAGES_PER_SEGMENT + page as i64;
            let mut rows = read.query([number])?;
            let row = rows.next()?.context("a page of the look-up index is missing")?;
            let data = row.get_ref(0)?.as_blob()?;
            let entries = data.len() / ENTRY_BYTES;
            let at = |n: usize| read_entry(&data[n * ENTRY_BYTES..(n + 1) * ENTRY_BYTES]);
            let mut end = partition_point(entries, |n| at(n) <= high);
            while end > 0 && taken < limit {
                end -= 1;
                let entry = at(end);
                if entry < low {
                    return Ok(());
                }
                found.push((entry as u64 & ROW_MASK) as i64);
                taken += 1;
            }
        }
        Ok(())
    }

    fn pages_up_to(&self, high: u128) -> usize {
        let fence = |n: usize| read_entry(&self.fences[n * ENTRY_BYTES..(n + 1) * ENTRY_BYTES]);
        partition_point(self.fences.len() / ENTRY_BYTES, |n| fence(n) <= high)
    }
}

/// How many of `0..len` come before the first that does not hold; those that hold come first.
fn partition_point(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::tables::schema;

    fn value(n: u8) -> Term {
        term(Kind::HitTid, 0, &[n])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// However the entries are split into flushes, a look-up finds each of them once.
        #[test]
        fn finds_every_row_of_a_term(
            flushes in proptest::collection::vec(proptest::collection::vec((0u8..6, 0i64..5_000), 0..900), 1..40),
            first in 0i64..5_000, len in 0i64..5_000, limit in 1usize..50,
        ) {
            let conn = Connection::open_in_memory().unwrap();
            schema::create(&conn).unwrap();
            let mut pending = Pending::load(&conn).unwrap();
            let mut all = BTreeMap::<u8, BTreeSet<i64>>::new();
            let mut segments = Segments::default();
            for flush in &flushes {
                for (name, row) in flush {
                    pending.add(value(*name), *row);
                    all.entry(*name).or_default().insert(*row);
                }
                pending.flush(&conn).unwrap();
                segments.refresh(&conn).unwrap();
            }
            prop_assert!(segments.0.len() < 2 * FAN_IN);
            for (name, rows) in &all {
                let expected: Vec<i64> = rows.range(first..=first + len).rev().copied().take(limit).collect();
                prop_assert_eq!(segments.rows(&conn, value(*name), first, first + len, limit).unwrap(), expected);
            }
            prop_assert_eq!(segments.rows(&conn, value(99), 0, i64::MAX, 10).unwrap(), Vec::<i64>::new());
        }
    }

    #[test]
    fn terms_differ_by_kind_scope_and_value() {
        let long = "x".repeat(400);
        let terms = [
            term(Kind::HitTid, 1, b"a"),
            term(Kind::HitTid, 2, b"a"),
            term(Kind::HitPlayer, 1, b"a"),
            term(Kind::HitTid, 1, b"b"),
            term(Kind::HitTid, 1, long.as_bytes()),
            term(Kind::HitTid, 1, &long.as_bytes()[1..]),
        ];
        assert_eq!(terms.iter().collect::<std::collections::HashSet<_>>().len(), terms.len());
    }
}
