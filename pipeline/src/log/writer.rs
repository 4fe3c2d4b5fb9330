//! The one writer of the log.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, ErrorCode, params};
use schemas::chain::Position;

use super::{
    Block, LogReader,
    checkpoint::{Checkpoints, is_failed_sync},
    store,
};

#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
pub enum LogError {
    /// Disk full, read-only or an I/O error: nothing was written, and it may be tried again.
    #[error("{0}")]
    NoRoom(String),
    /// It is not known what is on disk: the process must end, and the next one reads what is there.
    #[error("{0}")]
    Fatal(String),
}

pub struct Log {
    // Dropped in this order: first the checkpoint thread ends, and the lock goes last. `_file` goes after the
    // connections, as closing any handle of a file ends the locks that this process holds on it.
    checkpoints: Checkpoints,
    connection: Connection,
    _file: Arc<File>,
    position: Position,
    catalog_next: u64,
    dir: PathBuf,
    _lock: File,
}

impl Log {
    /// Creates the folder and the log where there are none.
    pub fn open(dir: &Path) -> Result<Log> {
        store::create_folder(dir)?;
        let lock = lock(dir)?;
        let mut connection = store::open_to_write(dir)?;
        store::sync_folder(dir)?;
        let position = store::position(&connection)?;
        let catalog_next = store::catalog_next(&connection)?;
        let file = Arc::new(store::open_to_sync(dir)?);
        let checkpoints = Checkpoints::start(dir, &mut connection, Arc::clone(&file))?;
        Ok(Log { checkpoints, connection, _file: file, position, catalog_next, dir: dir.to_owned(), _lock: lock })
    }

    /// Where the next block begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The sequence number of the next catalog record.
    pub fn catalog_next(&self) -> u64 {
        self.catalog_next
    }

    pub fn reader(&self) -> Result<LogReader> {
        LogReader::open(&self.dir)
    }

    /// Appends all of it in one transaction. After `Ok` it is on disk; after `NoRoom` nothing of it is in the log.
    pub fn append(&mut self, blocks: &[Block], catalog: &[(u64, Vec<u8>)]) -> Result<(), LogError> {
        if blocks.is_empty() && catalog.is_empty() {
            return Ok(());
        }
        if let Some(why) = self.checkpoints.failure() {
            return Err(LogError::Fatal(why.to_owned()));
        }
        let position = self.position_after(blocks)?;
        let catalog_next = self.catalog_after(catalog)?;
        if let Err(error) = self.write(blocks, catalog) {
            return Err(self.undo(&error));
        }
        self.position = position;
        self.catalog_next = catalog_next;
        self.checkpoints.after_commit(&self.connection);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn wal_bytes(&self) -> u64 {
        self.checkpoints.size()
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn write(&self, blocks: &[Block], catalog: &[(u64, Vec<u8>)]) -> rusqlite::Result<()> {
        self.run("BEGIN IMMEDIATE")?;
        if !blocks.is_empty() {
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO blocks (first, count, time, prev, chain, outcomes, events) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for block in blocks {
                insert.execute(params![
                    store::stored(block.first),
                    block.count,
                    block.time.ms(),
                    block.prev.as_str(),
                    block.chain.as_str(),
                    block.outcomes,
                    block.events,
                ])?;
            }
        }
        if !catalog.is_empty() {
            let mut insert = self.connection.prepare_cached("INSERT INTO catalog (seq, record) VALUES (?1, ?2)")?;
            for (seq, record) in catalog {
                insert.execute(params![store::stored(*seq), record])?;
            }
        }
        self.run("COMMIT")
    }

    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.raw_execute().map(drop)
    }

    /// Takes a failed write back, and finds out whether nothing of it is left.
    fn undo(&self, error: &rusqlite::Error) -> LogError {
        let fatal = |why: &str| LogError::Fatal(format!("{} in {}: {error}", why, self.dir.display()));
        if is_failed_sync(error) {
            return fatal("the log could not be brought to disk");
        }
        // Some errors end the transaction by themselves.
        if !self.connection.is_autocommit() && self.run("ROLLBACK").is_err() {
            return fatal("a failed write could not be taken back");
        }
        let unchanged = store::position(&self.connection).is_ok_and(|position| position == self.position)
            && store::catalog_next(&self.connection).is_ok_and(|next| next == self.catalog_next);
        if !unchanged {
            return fatal("it is not known whether a failed write is in the log");
        }
        if may_be_tried_again(error) {
            LogError::NoRoom(format!("the log in {} cannot be written: {error}", self.dir.display()))
        } else {
            fatal("the log cannot be written")
        }
    }

    fn position_after(&self, blocks: &[Block]) -> Result<Position, LogError> {
        let mut end = self.position;
        for block in blocks {
            if block.count == 0 || block.first != end.next || block.prev != end.chain {
                return Err(LogError::Fatal(format!(
                    "a block at {} after {:?} does not continue the log, which is at {} after {:?}",
                    block.first, block.prev, end.next, end.chain
                )));
            }
            debug_assert!(block.verify().is_ok(), "a block has another chain than it says");
            end = Position { next: block.end(), chain: block.chain };
        }
        Ok(end)
    }

    fn catalog_after(&self, records: &[(u64, Vec<u8>)]) -> Result<u64, LogError> {
        let mut next = self.catalog_next;
        for (seq, _) in records {
            if *seq != next {
                return Err(LogError::Fatal(format!("catalog record {seq} came where {next} is due")));
            }
            next += 1;
        }
        Ok(next)
    }
}

/// Whether the cause may go away while the process runs.
fn may_be_tried_again(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::TooBig
        )
    )
}

/// Nobody writes to the folder while this is held.
#[must_use]
pub struct FolderLock(#[expect(dead_code, reason = "held, not read")] File);

impl FolderLock {
    /// For who only reads, and must see nothing change.
    pub fn take(dir: &Path) -> Result<FolderLock> {
        lock(dir).map(FolderLock)
    }
}

/// The lock is the system's: it goes with the process, however that ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = match file.read_to_string(&mut holder) {
                Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
                Ok(_) | Err(_) => String::new(),
            };
            bail!(
                "the folder {} is in use by another Clickback process{holder}: stop it first, or use another folder",
                dir.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
