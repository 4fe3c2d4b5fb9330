//! Connections to the live generation, and the short snapshots that questions are answered from.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Result;
use rusqlite::Connection;
use schemas::Time;

use super::rows::AsOf;
use crate::tables::{Names, Segments, open_reader, runs::Runs};

/// A snapshot is given up for a new one after this time, so that no read transaction lasts over a second.
const SNAPSHOT: Duration = Duration::from_millis(400);
/// Connections kept open.
const POOL: usize = 8;

/// The question took longer than it may, and was given up between two pieces of the read.
#[derive(Debug, thiserror::Error)]
#[error("the question to the tables took too long")]
pub struct TooLong;

/// The generation that is read, and its idle connections.
#[derive(Debug)]
struct Generation {
    path: PathBuf,
    idle: Mutex<Vec<Reader>>,
}

/// Which generation is live; the projector's thread switches it.
#[derive(Debug)]
pub struct Live(RwLock<Arc<Generation>>);

#[derive(Debug)]
struct Reader {
    conn: Connection,
    names: Names,
    segments: Segments,
    runs: Runs,
}

impl Live {
    pub fn new(path: &Path) -> Self {
        Self(RwLock::new(Arc::new(Generation::at(path))))
    }

    pub fn switch(&self, path: &Path) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Generation::at(path));
    }

    /// Runs a question on a snapshot. A connection that saw an error is not used again.
    pub fn read<T, E: From<anyhow::Error>>(&self, ask: impl FnOnce(&mut Snapshot<'_>) -> Result<T, E>) -> Result<T, E> {
        self.read_until(None, ask)
    }

    /// The same, with an end: a read that goes on for longer fails with `TooLong`.
    pub fn read_until<T, E: From<anyhow::Error>>(
        &self,
        until: Option<Instant>,
        ask: impl FnOnce(&mut Snapshot<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let generation = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let mut reader = generation.take()?;
        let answer = ask(&mut Snapshot::begin(&mut reader, until)?)?;
        reader.conn.execute_batch("COMMIT").map_err(anyhow::Error::from)?;
        generation.give_back(reader);
        Ok(answer)
    }
}

impl Generation {
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default() }
    }

    fn take(&self) -> Result<Reader> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(reader) => Ok(reader),
            None => {
                let conn = open_reader(&self.path)?;
                Ok(Reader { conn, names: Names::default(), segments: Segments::default(), runs: Runs::default() })
            }
        }
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < POOL {
            idle.push(reader);
        }
    }
}

/// One state of the tables.
pub struct Snapshot<'r> {
    reader: &'r mut Reader,
    /// Of the first snapshot of this question: the answer is at least as new.
    pub as_of: AsOf,
    pub log_time: Time,
    began: Instant,
    until: Option<Instant>,
}

impl<'r> Snapshot<'r> {
    fn begin(reader: &'r mut Reader, until: Option<Instant>) -> Result<Self> {
        let mut snapshot =
            Snapshot { reader, as_of: AsOf::default(), log_time: Time::default(), began: Instant::now(), until };
        (snapshot.as_of, snapshot.log_time) = snapshot.start()?;
        Ok(snapshot)
    }

    fn start(&mut self) -> Result<(AsOf, Time)> {
        let reader = &mut *self.reader;
        reader.conn.execute_batch("BEGIN")?;
        let (next, time, log_time) = reader
            .conn
            .prepare_cached("SELECT next, time, log_time FROM position")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?)))?;
        reader.names.refresh(&reader.conn)?;
        reader.segments.refresh(&reader.conn)?;
        reader.runs.refresh(&reader.conn)?;
        self.began = Instant::now();
        Ok((AsOf { time: Time::from_ms(time), next: next as u64 }, Time::from_ms(log_time)))
    }

    /// Call it between two pieces of a long read: it goes on with a newer snapshot when this one is old, and not at all
    /// when the time is over.
    pub fn breathe(&mut self) -> Result<()> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Err(TooLong.into());
        }
        if self.began.elapsed() > SNAPSHOT {
            self.reader.conn.execute_batch("COMMIT")?;
            self.start()?;
        }
        Ok(())
    }

    /// Up to where this very snapshot is true; `as_of` is that of the first one.
    pub fn position(&self) -> Result<u64> {
        let next: i64 = self.conn().prepare_cached("SELECT next FROM position")?.query_row([], |row| row.get(0))?;
        Ok(next as u64)
    }

    pub fn conn(&self) -> &Connection {
        &self.reader.conn
    }
    pub fn names(&self) -> &Names {
        &self.reader.names
    }
    pub fn runs(&self) -> &Runs {
        &self.reader.runs
    }
    pub fn segments(&self) -> &Segments {
        &self.reader.segments
    }
}
