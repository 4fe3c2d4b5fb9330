//! The file behind the log: where it is, how a connection to it is opened, and which format it has.

use std::{fs::File, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use schemas::chain::{Chain, Position};

const FILE: &str = "log.db";
const FORMAT: i64 = 1;
/// Batches are 10 to 1,000 KB, which large pages carry with fewer links and a shorter write-ahead index. A commit
/// of one event stays below what a disk writes in the same time anyway.
const PAGE_BYTES: u32 = 8_192;
/// Others hold a lock of this file only for moments: at opening, and when the last one closes.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The large columns stand last, outcomes before events: SQLite reads a row from its start, and most readers need
/// no events.
const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE blocks (
        first INTEGER PRIMARY KEY, count INTEGER NOT NULL, time INTEGER NOT NULL,
        prev TEXT NOT NULL, chain TEXT NOT NULL, outcomes BLOB NOT NULL, events BLOB NOT NULL
    );
    CREATE TABLE catalog (seq INTEGER PRIMARY KEY, record BLOB NOT NULL);
";

/// Opens or creates the file for its one writer, who must hold the folder's lock.
pub(super) fn open_to_write(dir: &Path) -> Result<Connection> {
    let path = dir.join(FILE);
    let about = || format!("the log {}", path.display());
    let mut connection =
        Connection::open_with_flags(&path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE))
            .with_context(about)?;
    prepare_to_write(&mut connection).with_context(about)?;
    Ok(connection)
}

fn prepare_to_write(connection: &mut Connection) -> Result<()> {
    connection.busy_timeout(LOCK_WAIT)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let is_new: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if !is_new {
        check_format(connection)?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        bail!("this file system cannot keep a write-ahead log (journal mode {mode})");
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |row| row.get::<_, i64>(0))?;
    if is_new {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO meta VALUES ('format', ?1)", [FORMAT.to_string()])?;
        transaction.commit()?;
    }
    Ok(())
}

/// The connection that moves the write-ahead log into the file beside the writer.
pub(super) fn open_to_checkpoint(dir: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(dir.join(FILE), flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

/// A handle to bring the file to disk with. While it is open, so must be kept: see `Log`.
pub(super) fn open_to_sync(dir: &Path) -> Result<File> {
    let path = dir.join(FILE);
    File::open(&path).with_context(|| format!("the log {}", path.display()))
}

pub(super) fn open_to_read(dir: &Path) -> Result<Connection> {
    let path = dir.join(FILE);
    if !path.exists() {
        bail!("there is no log in {}: was `clickback run` ever started with this folder?", dir.display());
    }
    let about = || format!("the log {}", path.display());
    let connection = Connection::open_with_flags(&path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY)).with_context(about)?;
    connection.busy_timeout(LOCK_WAIT)?;
    check_format(&connection).with_context(about)?;
    Ok(connection)
}

fn flags(what: OpenFlags) -> OpenFlags {
    what | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn check_format(connection: &Connection) -> Result<()> {
    let has_meta: bool =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    if !has_meta {
        bail!("this file is not a Clickback log");
    }
    let format: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0)).optional()?;
    match format.as_deref().and_then(|text| text.parse::<i64>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => {
            bail!("it has format {newer}, and this version of Clickback knows formats up to {FORMAT}: use a newer one")
        }
        Some(_) | None => bail!("its format cannot be read ({})", format.as_deref().unwrap_or("none")),
    }
}

/// Where the log ends.
pub(super) fn position(connection: &Connection) -> Result<Position> {
    let last = "SELECT first, count, chain FROM blocks ORDER BY first DESC LIMIT 1";
    let end = connection
        .prepare_cached(last)?
        .query_row([], |row| Ok((number(row, 0)? + number(row, 1)?, row.get::<_, String>(2)?)))
        .optional()?;
    match end {
        None => Ok(Position::START),
        Some((next, chain)) => Ok(Position { next, chain: parse_chain(&chain)? }),
    }
}

pub(super) fn catalog_next(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT coalesce(max(seq) + 1, 0) FROM catalog")?.query_row([], |row| number(row, 0))
}

pub(super) fn parse_chain(text: &str) -> Result<Chain> {
    Chain::parse(text).with_context(|| format!("`{text}` is no chain value: the log is damaged"))
}

/// Positions are whole numbers from 0, which SQLite keeps in 63 bits.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes the names in a folder durable: a file whose name is lost with the power is lost itself.
pub(crate) fn sync_folder(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|folder| folder.sync_all()).with_context(|| format!("the folder {}", dir.display()))
}

/// Creates the folder where it does not exist, so that it outlives a power cut.
pub(crate) fn create_folder(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        Some(_) | None => sync_folder(Path::new(".")),
    }
}
