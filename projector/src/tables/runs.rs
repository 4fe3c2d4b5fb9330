//! Sorted segments of cells: written once, read by ranges of keys, merged sixteen at a time.
//!
//! Invariant: every cell ever written is in exactly one segment, alone or added up with others of its key.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, params};

use super::cell::{Cell, add_stored};

/// Bytes of one stored page; it fits into one page of the file.
const PAGE_BYTES: usize = 3_900;
const FAN_IN: usize = 16;
/// A merge never reads more, so no flush takes long; larger tables have more segments.
const MERGED_BYTES: i64 = 24 * 1024 * 1024;
/// The level of segments that are as large as they may get.
const FULL: u8 = 255;
const PAGES_PER_SEGMENT: i64 = 1 << 24;
const KEY_HEAD: usize = 9;

/// The key of a cell; keys sort by family, account, day, value.
pub fn key(family: u8, account: u32, day: i64, value: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY_HEAD + value.len());
    put_key(&mut key, family, account, day, value);
    key
}

pub fn put_key(key: &mut Vec<u8>, family: u8, account: u32, day: i64, value: &str) {
    key.push(family);
    key.extend_from_slice(&account.to_be_bytes());
    key.extend_from_slice(&(day.clamp(0, i64::from(u32::MAX)) as u32).to_be_bytes());
    key.extend_from_slice(value.as_bytes());
}

pub fn value_of(key: &[u8]) -> &[u8] {
    &key[KEY_HEAD.min(key.len())..]
}

/// Family, account, day and value.
pub fn parts(key: &[u8]) -> Result<(u8, u32, i64, &str)> {
    let head: [u8; KEY_HEAD] = key.get(..KEY_HEAD).context("a cell's key is too short")?.try_into()?;
    let [family, a, b, c, d, e, f, g, h] = head;
    let value = std::str::from_utf8(value_of(key))?;
    Ok((family, u32::from_be_bytes([a, b, c, d]), i64::from(u32::from_be_bytes([e, f, g, h])), value))
}

#[derive(Debug)]
pub struct RunsWriter {
    next_segment: i64,
}

impl RunsWriter {
    pub fn load(conn: &Connection) -> Result<Self> {
        let retired: i64 = conn.query_row("SELECT next_run FROM position", [], |row| row.get(0))?;
        Ok(Self { next_segment: retired })
    }

    pub fn next_segment(&self) -> i64 {
        self.next_segment
    }

    /// Writes cells in the order of their keys.
    pub fn write<'c>(&mut self, conn: &Connection, cells: impl Iterator<Item = (&'c [u8], &'c Cell)>) -> Result<()> {
        let mut pages = PageWriter::new(conn, self.next_segment)?;
        let mut encoded = Vec::new();
        for (key, cell) in cells {
            encoded.clear();
            cell.encode(&mut encoded)?;
            pages.add(key, &encoded)?;
        }
        if pages.finish(0)? {
            self.next_segment += 1;
        }
        Ok(())
    }

    pub fn merge(&mut self, conn: &Connection) -> Result<()> {
        for level in 0..FULL - 1 {
            let segments = of_level(conn, level)?;
            if segments.len() < FAN_IN {
                return Ok(());
            }
            if segments.iter().map(|(_, bytes)| bytes).sum::<i64>() > MERGED_BYTES {
                conn.execute("UPDATE cell_segments SET level = ? WHERE level = ?", params![FULL, level])?;
                return Ok(());
            }
            let mut pages = PageWriter::new(conn, self.next_segment)?;
            merge_into(conn, &segments, &mut pages)?;
            if pages.finish(level + 1)? {
                self.next_segment += 1;
            }
            for (id, _) in segments {
                let range = params![id * PAGES_PER_SEGMENT, (id + 1) * PAGES_PER_SEGMENT];
                conn.prepare_cached("DELETE FROM cells WHERE page >= ? AND page < ?")?.execute(range)?;
                conn.prepare_cached("DELETE FROM cell_segments WHERE id = ?")?.execute([id])?;
            }
        }
        Ok(())
    }
}

fn of_level(conn: &Connection, level: u8) -> Result<Vec<(i64, i64)>> {
    let mut statement = conn.prepare_cached("SELECT id, bytes FROM cell_segments WHERE level = ? ORDER BY id")?;
    let rows = statement.query_map([level], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Cells of one key are added up; the others are taken over as they stand.
fn merge_into(conn: &Connection, segments: &[(i64, i64)], out: &mut PageWriter<'_>) -> Result<()> {
    let mut cursors = Vec::with_capacity(segments.len());
    for (id, _) in segments {
        cursors.push(Cursor::new(conn, *id)?);
    }
    let (mut key, mut encoded, mut sum) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let Some(lowest) = cursors.iter().filter(|cursor| !cursor.is_done()).min_by(|a, b| a.key.cmp(&b.key)) else {
            return Ok(());
        };
        key.clone_from(&lowest.key);
        let mut same = cursors.iter_mut().filter(|cursor| !cursor.is_done() && cursor.key == key);
        let first = same.next().context("the lowest key is nowhere")?;
        encoded.clear();
        encoded.extend_from_slice(first.cell());
        first.next(conn)?;
        for other in same {
            sum.clear();
            add_stored(&encoded, other.cell(), &mut sum)?;
            std::mem::swap(&mut encoded, &mut sum);
            other.next(conn)?;
        }
        // An emptied cell still names its value: which values are named must not depend on merges.
        out.add(&key, &encoded)?;
    }
}

/// Each entry of a page: bytes shared with the key before, bytes that follow, these bytes, length of the cell, cell.
struct PageWriter<'c> {
    conn: &'c Connection,
    id: i64,
    page: Vec<u8>,
    last_key: Vec<u8>,
    /// Of each page its first key, with its length before it.
    fences: Vec<u8>,
    pages: i64,
    bytes: i64,
}

impl<'c> PageWriter<'c> {
    fn new(conn: &'c Connection, id: i64) -> Result<Self> {
        Ok(Self { conn, id, page: Vec::new(), last_key: Vec::new(), fences: Vec::new(), pages: 0, bytes: 0 })
    }

    fn add(&mut self, key: &[u8], cell: &[u8]) -> Result<()> {
        if self.page.len() + key.len() + cell.len() + 8 > PAGE_BYTES {
            self.flush()?;
        }
        if self.page.is_empty() {
            self.last_key.clear();
            put_length(&mut self.fences, key.len());
            self.fences.extend_from_slice(key);
        }
        let shared = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count();
        put_length(&mut self.page, shared);
        put_length(&mut self.page, key.len() - shared);
        self.page.extend_from_slice(&key[shared..]);
        put_length(&mut self.page, cell.len());
        self.page.extend_from_slice(cell);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let number = self.id * PAGES_PER_SEGMENT + self.pages;
        self.conn.prepare_cached("INSERT INTO cells(page, data) VALUES (?, ?)")?.execute(params![number, self.page])?;
        self.pages += 1;
        self.bytes += self.page.len() as i64;
        self.page.clear();
        Ok(())
    }

    /// False: there was nothing to write.
    fn finish(mut self, level: u8) -> Result<bool> {
        self.flush()?;
        if self.pages == 0 {
            return Ok(false);
        }
        self.conn
            .prepare_cached("INSERT INTO cell_segments(id, level, bytes, last, fences) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![self.id, level, self.bytes, self.last_key, self.fences])?;
        Ok(true)
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take_length(bytes: &[u8], at: &mut usize) -> Result<usize> {
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let byte = *bytes.get(*at).context("a page of cells ends too early")?;
        *at += 1;
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    bail!("a length in a page of cells is too long")
}

fn take_bytes<'p>(page: &'p [u8], at: &mut usize, length: usize) -> Result<&'p [u8]> {
    let taken = page.get(*at..*at + length).context("a page of cells ends too early")?;
    *at += length;
    Ok(taken)
}

/// Reads an entry at `at`: its key goes into `key`, its cell is given back.
fn read_entry<'p>(page: &'p [u8], at: &mut usize, key: &mut Vec<u8>) -> Result<&'p [u8]> {
    let shared = take_length(page, at)?;
    let length = take_length(page, at)?;
    key.truncate(shared);
    key.extend_from_slice(take_bytes(page, at, length)?);
    let length = take_length(page, at)?;
    take_bytes(page, at, length)
}

/// One segment, entry by entry, for a merge.
struct Cursor {
    next_page: i64,
    end_page: i64,
    page: Vec<u8>,
    at: usize,
    key: Vec<u8>,
    cell: (usize, usize),
    done: bool,
}

impl Cursor {
    fn new(conn: &Connection, id: i64) -> Result<Self> {
        let mut cursor = Self {
            next_page: id * PAGES_PER_SEGMENT,
            end_page: (id + 1) * PAGES_PER_SEGMENT,
            page: Vec::new(),
            at: 0,
            key: Vec::new(),
            cell: (0, 0),
            done: false,
        };
        cursor.next(conn)?;
        Ok(cursor)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn cell(&self) -> &[u8] {
        &self.page[self.cell.0..self.cell.1]
    }

    fn next(&mut self, conn: &Connection) -> Result<()> {
        if self.at >= self.page.len() {
            let mut read = conn.prepare_cached("SELECT data, page FROM cells WHERE page >= ? AND page < ? LIMIT 1")?;
            let mut rows = read.query(params![self.next_page, self.end_page])?;
            let Some(row) = rows.next()? else {
                self.done = true;
                return Ok(());
            };
            self.page.clear();
            self.page.extend_from_slice(row.get_ref(0)?.as_blob()?);
            self.next_page = row.get::<_, i64>(1)? + 1;
            self.at = 0;
            self.key.clear();
        }
        let length = read_entry(&self.page, &mut self.at, &mut self.key)?.len();
        self.cell = (self.at - length, self.at);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum See {
    On,
    Enough,
}

/// Higher than every key.
const NO_KEY: &[u8] = &[0xFF];

#[derive(Clone, Debug)]
struct Segment {
    id: i64,
    last: Vec<u8>,
    fences: Arc<Vec<Box<[u8]>>>,
}

/// The segments of one snapshot. Fences are kept from one refresh to the next, as segments never change.
#[derive(Clone, Debug, Default)]
pub struct Runs(Vec<Segment>);

impl Runs {
    pub fn refresh(&mut self, conn: &Connection) -> Result<()> {
        let mut known: HashMap<i64, Segment> = self.0.drain(..).map(|segment| (segment.id, segment)).collect();
        let mut list = conn.prepare_cached("SELECT id FROM cell_segments ORDER BY id")?;
        let mut read = conn.prepare_cached("SELECT last, fences FROM cell_segments WHERE id = ?")?;
        let mut rows = list.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let segment = match known.remove(&id) {
                Some(segment) => segment,
                None => {
                    let (last, fences): (Vec<u8>, Vec<u8>) =
                        read.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    Segment { id, last, fences: Arc::new(split(&fences)?) }
                }
            };
            self.0.push(segment);
        }
        Ok(())
    }

    /// The lowest key from `from` on.
    pub fn next_key(&self, conn: &Connection, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut lowest: Option<Vec<u8>> = None;
        for segment in self.0.iter().filter(|segment| segment.last.as_slice() >= from) {
            if let Some(key) = segment.first_from(conn, from)?
                && lowest.as_ref().is_none_or(|lowest| key < *lowest)
            {
                lowest = Some(key);
            }
        }
        Ok(lowest)
    }

    /// Shows what each segment has of the keys from `from` up to and without `to`. A key is shown once per segment
    /// that has it; the cell is the sum.
    pub fn scan(
        &self,
        conn: &Connection,
        from: &[u8],
        to: &[u8],
        mut see: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        for segment in &self.0 {
            if segment.last.as_slice() >= from && segment.fences.first().is_some_and(|first| **first < *to) {
                segment.scan(conn, from, to, &mut |key, cell| see(key, cell).map(|()| See::On))?;
            }
        }
        Ok(())
    }
}

impl Segment {
    fn first_from(&self, conn: &Connection, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.scan(conn, from, NO_KEY, &mut |key, _| {
            found = Some(key.to_vec());
            Ok(See::Enough)
        })?;
        Ok(found)
    }

    fn scan(
        &self,
        conn: &Connection,
        from: &[u8],
        to: &[u8],
        see: &mut impl FnMut(&[u8], &[u8]) -> Result<See>,
    ) -> Result<()> {
        let first = self.fences.partition_point(|fence| **fence <= *from).saturating_sub(1);
        let base = self.id * PAGES_PER_SEGMENT;
        let mut read = conn.prepare_cached("SELECT data FROM cells WHERE page >= ? AND page < ? ORDER BY page")?;
        let mut rows = read.query(params![base + first as i64, base + PAGES_PER_SEGMENT])?;
        let mut key = Vec::new();
        while let Some(row) = rows.next()? {
            let page = row.get_ref(0)?.as_blob()?;
            let mut at = 0;
            key.clear();
            while at < page.len() {
                let cell = read_entry(page, &mut at, &mut key)?;
                if key.as_slice() >= to {
                    return Ok(());
                }
                if key.as_slice() >= from && see(&key, cell)? == See::Enough {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn split(fences: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let mut at = 0;
    let mut split = Vec::new();
    while at < fences.len() {
        let length = take_length(fences, &mut at)?;
        split.push(take_bytes(fences, &mut at, length)?.into());
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        fold::Sums,
        tables::{schema, stored_entries},
    };

    fn sums(count: i64) -> Sums {
        Sums { count, earning: i128::from(count) * 7, value: 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// However the cells are split into flushes, the sum over the segments is right.
        #[test]
        fn cells_add_up(
            flushes in proptest::collection::vec(
                proptest::collection::vec((0u8..3, 0u32..3, 20_000i64..20_003, "[a-c]{0,3}", 1i64..100), 0..150), 1..60),
            range in (0u8..3, 0u32..3, 20_000i64..20_004),
        ) {
            let conn = Connection::open_in_memory().unwrap();
            schema::create(&conn).unwrap();
            schema::begin(&conn, true).unwrap();
            let mut writer = RunsWriter::load(&conn).unwrap();
            let mut all = BTreeMap::<Vec<u8>, i64>::new();
            let mut runs = Runs::default();
            for flush in &flushes {
                let mut part = BTreeMap::<Vec<u8>, Cell>::new();
                for (family, account, day, value, count) in flush {
                    let key = key(*family, *account, *day, value);
                    *all.entry(key.clone()).or_default() += count;
                    part.entry(key).or_default().add(3, 5, sums(*count)).unwrap();
                }
                writer.write(&conn, part.iter().map(|(key, cell)| (&key[..], cell))).unwrap();
                writer.merge(&conn).unwrap();
                runs.refresh(&conn).unwrap();
            }
            prop_assert!(runs.0.len() < 2 * FAN_IN);
            let from = key(range.0, range.1, range.2, "");
            for to in [key(range.0, range.1, range.2 + 1, ""), key(9, 0, 0, "")] {
                let mut found = BTreeMap::<Vec<u8>, i64>::new();
                runs.scan(&conn, &from, &to, |key, cell| {
                    let entries: Vec<_> = stored_entries(cell).map(Result::unwrap).collect();
                    let [(0, 5, day), (4, 5, quarter)] = entries[..] else { panic!("{entries:?}") };
                    assert_eq!((day, day.earning), (quarter, i128::from(day.count) * 7));
                    *found.entry(key.to_vec()).or_default() += day.count;
                    Ok(())
                }).unwrap();
                let expected: BTreeMap<_, _> = all.range(from.clone()..to).map(|(k, v)| (k.clone(), *v)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn keys_come_apart_again() {
        let key = key(3, 70_000, 20_750, "Käse\u{10FFFF}");
        assert_eq!(parts(&key).unwrap(), (3, 70_000, 20_750, "Käse\u{10FFFF}"));
    }
}
