//! Walking rows from the newest to the oldest: by terms of the look-up index, or all of them, within ranges of rows.

use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::params;

use super::reader::Snapshot;
use crate::tables::Term;

/// Rows fetched at once.
const CHUNK: usize = 512;
/// After this time a page ends where it is; its cursor goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// Which rows can be meant at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    All,
    /// Those that may have one of the terms.
    Any(Vec<Term>),
}

/// A kind of row by its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Hits,
    Clicks,
    Conversions,
}

impl Table {
    fn one(self) -> &'static str {
        match self {
            Table::Hits => "SELECT data FROM hits WHERE src = ?",
            Table::Clicks => "SELECT data FROM clicks WHERE src = ?",
            Table::Conversions => "SELECT data FROM conversions WHERE number = ?",
        }
    }
    fn numbers(self) -> &'static str {
        match self {
            Table::Hits => "SELECT src FROM hits WHERE src BETWEEN ? AND ? ORDER BY src DESC LIMIT ?",
            Table::Clicks => "SELECT src FROM clicks WHERE src BETWEEN ? AND ? ORDER BY src DESC LIMIT ?",
            Table::Conversions => {
                "SELECT number FROM conversions WHERE number BETWEEN ? AND ? ORDER BY number DESC LIMIT ?"
            }
        }
    }
}

/// Shows rows to `see`, newest first, until it says that it has enough. `Some(row)`: everything from there on down
/// was not looked at.
pub fn walk(
    snapshot: &mut Snapshot<'_>,
    table: Table,
    candidates: &Candidates,
    ranges: &[(i64, i64)],
    mut see: impl FnMut(&Snapshot<'_>, i64, &[u8]) -> Result<Go>,
) -> Result<Option<i64>> {
    let began = Instant::now();
    for (first, last) in ranges.iter().rev() {
        let mut last = *last;
        while *first <= last {
            let numbers = numbers(snapshot, table, candidates, *first, last)?;
            let mut read = snapshot.conn().prepare_cached(table.one())?;
            for number in &numbers {
                let mut rows = read.query([number])?;
                let Some(row) = rows.next()? else { continue };
                if see(snapshot, *number, row.get_ref(0)?.as_blob()?)? == Go::Enough {
                    return Ok(Some(number - 1));
                }
            }
            drop(read);
            match numbers.last() {
                Some(lowest) if numbers.len() == CHUNK => last = lowest - 1,
                _ => break,
            }
            if began.elapsed() > LONGEST {
                return Ok(Some(last));
            }
            snapshot.breathe()?;
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    Enough,
}

fn numbers(snapshot: &Snapshot<'_>, table: Table, candidates: &Candidates, first: i64, last: i64) -> Result<Vec<i64>> {
    match candidates {
        Candidates::All => {
            let mut read = snapshot.conn().prepare_cached(table.numbers())?;
            let rows = read.query_map(params![first, last, CHUNK as i64], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        }
        Candidates::Any(terms) => {
            let mut found = Vec::new();
            for term in terms {
                found.extend(snapshot.segments().rows(snapshot.conn(), *term, first, last, CHUNK)?);
            }
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.dedup();
            found.truncate(CHUNK);
            Ok(found)
        }
    }
}

/// Ranges cut to what lies at or below a cursor.
pub fn below(ranges: Vec<(i64, i64)>, cursor: Option<i64>) -> Vec<(i64, i64)> {
    let Some(highest) = cursor else { return ranges };
    let cut = |(first, last): (i64, i64)| (first, last.min(highest));
    ranges.into_iter().map(cut).filter(|(first, last)| first <= last).collect()
}
