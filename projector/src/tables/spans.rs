//! Which row numbers can have which times: rows come nearly in the order of time, so a range of time is a few ranges
//! of rows.
//!
//! Invariant: the time of every row lies within the low and high of the span that its number is in.

use anyhow::Result;
use rusqlite::{Connection, params};
use schemas::Time;

/// Rows of one span.
const ROWS: u32 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    Hits,
    Clicks,
    ConversionsByClick,
    ConversionsByTime,
}

impl Order {
    const ALL: [Order; 4] = [Order::Hits, Order::Clicks, Order::ConversionsByClick, Order::ConversionsByTime];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: i64,
    last: i64,
    rows: u32,
    low: i64,
    high: i64,
}

/// The spans that grow, and those that changed since the last flush.
#[derive(Debug, Default)]
pub struct Spans {
    open: [Option<Span>; 4],
    dirty: Vec<(Order, Span)>,
}

impl Spans {
    pub fn load(conn: &Connection) -> Result<Self> {
        let mut spans = Self::default();
        for order in Order::ALL {
            let mut read = conn.prepare_cached(
                "SELECT first, last, rows, low, high FROM spans WHERE kind = ? ORDER BY first DESC LIMIT 1",
            )?;
            let mut rows = read.query([order as u8])?;
            if let Some(row) = rows.next()? {
                spans.open[order as usize] = Some(Span {
                    first: row.get(0)?,
                    last: row.get(1)?,
                    rows: row.get(2)?,
                    low: row.get(3)?,
                    high: row.get(4)?,
                });
            }
        }
        Ok(spans)
    }

    /// A new row; numbers only grow.
    pub fn add(&mut self, order: Order, row: i64, time: Time) {
        let ms = time.ms();
        let open = &mut self.open[order as usize];
        match open {
            Some(span) if span.rows < ROWS => {
                span.last = row;
                span.rows += 1;
                span.low = span.low.min(ms);
                span.high = span.high.max(ms);
            }
            _ => {
                self.dirty.extend(open.map(|full| (order, full)));
                *open = Some(Span { first: row, last: row, rows: 1, low: ms, high: ms });
            }
        }
    }

    /// A known row has another time now.
    pub fn widen(&mut self, conn: &Connection, order: Order, row: i64, time: Time) -> Result<()> {
        let ms = time.ms();
        let in_memory = self.dirty.iter_mut().filter(|(of, _)| *of == order).map(|(_, span)| span);
        let found =
            in_memory.chain(&mut self.open[order as usize]).find(|span| (span.first..=span.last).contains(&row));
        if let Some(span) = found {
            span.low = span.low.min(ms);
            span.high = span.high.max(ms);
            return Ok(());
        }
        conn.prepare_cached(
            "UPDATE spans SET low = min(low, ?1), high = max(high, ?1) WHERE kind = ?2 AND first =
             (SELECT max(first) FROM spans WHERE kind = ?2 AND first <= ?3)",
        )?
        .execute(params![ms, order as u8, row])?;
        Ok(())
    }

    pub fn flush(&mut self, conn: &Connection) -> Result<()> {
        let mut write = conn.prepare_cached(
            "INSERT OR REPLACE INTO spans(kind, first, last, rows, low, high) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        let open = Order::ALL.into_iter().zip(self.open).filter_map(|(order, span)| Some((order, span?)));
        for (order, s) in self.dirty.drain(..).chain(open) {
            write.execute(params![order as u8, s.first, s.last, s.rows, s.low, s.high])?;
        }
        Ok(())
    }
}

/// Ranges of row numbers (both ends included, lowest first) that hold every row with a time in `from..to`.
pub fn ranges(conn: &Connection, order: Order, from: Time, to: Time) -> Result<Vec<(i64, i64)>> {
    let mut read =
        conn.prepare_cached("SELECT first, last FROM spans WHERE kind = ? AND high >= ? AND low < ? ORDER BY first")?;
    let mut rows = read.query(params![order as u8, from.ms(), to.ms()])?;
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (first, last) = (row.get(0)?, row.get(1)?);
        match ranges.last_mut() {
            // Row numbers between two spans are of other kinds of rows, so there is nothing to skip.
            Some(range) if first - range.1 < i64::from(ROWS) => range.1 = last,
            _ => ranges.push((first, last)),
        }
    }
    Ok(ranges)
}
