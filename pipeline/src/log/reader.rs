//! Reading the log beside its writer: each call is one short read of its own.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OptionalExtension, Row};
use schemas::{
    Event, Outcome, Time,
    catalog::Record,
    chain::{Chain, Position},
};

use super::{Block, store};

const COLUMNS: &str = "first, count, time, prev, chain, outcomes, events";
const OUTCOME_COLUMNS: &str = "first, count, time, prev, chain, outcomes, x''";

/// Not shared between threads: open one for each.
pub struct LogReader {
    connection: Connection,
}

impl LogReader {
    pub fn open(dir: &Path) -> Result<LogReader> {
        Ok(LogReader { connection: store::open_to_read(dir)? })
    }

    /// Where the log ends.
    pub fn position(&self) -> Result<Position> {
        store::position(&self.connection)
    }

    /// The block that the event `src` is in.
    pub fn block_with(&self, src: u64) -> Result<Option<Block>> {
        self.block(src, COLUMNS)
    }

    fn block(&self, src: u64, columns: &str) -> Result<Option<Block>> {
        let select = format!("SELECT {columns} FROM blocks WHERE first <= ?1 ORDER BY first DESC LIMIT 1");
        let block = self.connection.prepare_cached(&select)?.query_row([store::stored(src)], read).optional()?;
        let block = block.map(Stored::check).transpose()?;
        Ok(block.filter(|block| src < block.end()))
    }

    /// Blocks that follow each other, from the one that `from_src` is in. At least one, if there is one; no more
    /// after `max_bytes`.
    pub fn blocks(&self, from_src: u64, max_bytes: usize) -> Result<Vec<Block>> {
        self.blocks_of(from_src, max_bytes, COLUMNS)
    }

    /// As `blocks`, with `events` left empty, for those who need the outcomes only.
    pub fn outcome_blocks(&self, from_src: u64, max_bytes: usize) -> Result<Vec<Block>> {
        self.blocks_of(from_src, max_bytes, OUTCOME_COLUMNS)
    }

    fn blocks_of(&self, from_src: u64, max_bytes: usize, columns: &str) -> Result<Vec<Block>> {
        let select = format!(
            "SELECT {columns} FROM blocks
             WHERE first >= coalesce((SELECT max(first) FROM blocks WHERE first <= ?1), 0) AND first + count > ?1
             ORDER BY first"
        );
        let mut statement = self.connection.prepare_cached(&select)?;
        let mut rows = statement.query([store::stored(from_src)])?;
        let mut blocks: Vec<Block> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let block = read(row)?.check()?;
            if let Some(last) = blocks.last() {
                if block.first != last.end() || block.prev != last.chain {
                    bail!("the log has a hole or a break between events {} and {}", last.end(), block.first);
                }
            } else if block.first > from_src {
                bail!("the log begins at event {}, after {from_src}", block.first);
            }
            bytes += block.outcomes.len() + block.events.len();
            blocks.push(block);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(blocks)
    }

    /// An event, and when it was appended.
    pub fn event(&self, src: u64) -> Result<Option<(Time, Event)>> {
        let Some(block) = self.block_with(src)? else { return Ok(None) };
        for (at, line) in block.event_lines().enumerate() {
            if block.first + at as u64 == src {
                let event = serde_json::from_slice(line?).with_context(|| format!("event {src} of the log"))?;
                return Ok(Some((block.time, event)));
            }
        }
        bail!("event {src} is missing in its block")
    }

    /// An outcome; its block's chain is checked.
    pub fn outcome(&self, src: u64) -> Result<Option<Outcome>> {
        let Some(block) = self.block(src, OUTCOME_COLUMNS)? else { return Ok(None) };
        block.verify()?;
        for outcome in block.outcomes() {
            let (at, payload) = outcome?;
            if at == src {
                let outcome = serde_json::from_slice(payload).with_context(|| format!("outcome {src} of the log"))?;
                return Ok(Some(outcome));
            }
        }
        bail!("outcome {src} is missing in its block")
    }

    /// Records of the catalog in their order.
    pub fn catalog(&self, from_seq: u64, max: usize) -> Result<Vec<(u64, Record)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT seq, record FROM catalog WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = statement.query([store::stored(from_seq), i64::try_from(max).unwrap_or(i64::MAX)])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let seq = store::number(row, 0)?;
            let due = from_seq + records.len() as u64;
            if seq != due {
                bail!("catalog record {due} is missing");
            }
            let record = serde_json::from_slice(row.get_ref(1)?.as_blob()?)
                .with_context(|| format!("catalog record {seq} of the log"))?;
            records.push((seq, record));
        }
        Ok(records)
    }

    /// The chain before the outcome of `src`, after checking the block that it stands in; `None` past the end.
    pub fn chain_at(&self, src: u64) -> Result<Option<Chain>> {
        if src == 0 {
            return Ok(Some(Chain::FIRST));
        }
        // The block of the event before `src` also holds the chain after it.
        match self.block(src - 1, OUTCOME_COLUMNS)? {
            Some(block) => block.chain_before(src).map(Some),
            None => Ok(None),
        }
    }
}

/// A row as it stands, before its texts are understood.
struct Stored {
    block: Block,
    prev: String,
    chain: String,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let block = Block {
        first: store::number(row, 0)?,
        count: row.get(1)?,
        time: Time::from_ms(row.get(2)?),
        prev: Chain::FIRST,
        chain: Chain::FIRST,
        outcomes: row.get(5)?,
        events: row.get(6)?,
    };
    Ok(Stored { block, prev: row.get(3)?, chain: row.get(4)? })
}

impl Stored {
    fn check(self) -> Result<Block> {
        Ok(Block { prev: store::parse_chain(&self.prev)?, chain: store::parse_chain(&self.chain)?, ..self.block })
    }
}
