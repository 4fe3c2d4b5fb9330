//! The file's form: its tables, its settings, and how it is known to be of this form.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, params};
use schemas::{Reason, chain::Chain};

/// Part of the stamp in the file: a file of another form is rebuilt.
const VERSION: u32 = 2;

const TABLES: &str = "
CREATE TABLE position(
    id INTEGER PRIMARY KEY CHECK (id = 0), next INTEGER NOT NULL, chain TEXT NOT NULL, time INTEGER NOT NULL,
    log_time INTEGER NOT NULL, next_segment INTEGER NOT NULL, next_run INTEGER NOT NULL, live INTEGER NOT NULL);
CREATE TABLE tenants(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE accounts(id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE measures(id INTEGER PRIMARY KEY, goal TEXT NOT NULL, state INTEGER NOT NULL, currency TEXT NOT NULL);
CREATE TABLE cells(page INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE cell_segments(
    id INTEGER PRIMARY KEY, level INTEGER NOT NULL, bytes INTEGER NOT NULL, last BLOB NOT NULL, fences BLOB NOT NULL);
CREATE TABLE hits(src INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE clicks(src INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE conversions(number INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE changes(
    conversion INTEGER NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (conversion, version)) WITHOUT ROWID;
CREATE TABLE adjusts(src INTEGER PRIMARY KEY, log_time INTEGER NOT NULL);
CREATE TABLE spans(
    kind INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL,
    low INTEGER NOT NULL, high INTEGER NOT NULL, PRIMARY KEY (kind, first)) WITHOUT ROWID;
CREATE TABLE segments(
    id INTEGER PRIMARY KEY, level INTEGER NOT NULL, entries INTEGER NOT NULL, first_row INTEGER NOT NULL,
    last_row INTEGER NOT NULL, fences BLOB NOT NULL);
CREATE TABLE postings(page INTEGER PRIMARY KEY, data BLOB NOT NULL);
";

/// Reasons are stored by their number, so another list of reasons is another form.
fn stamp() -> i32 {
    let codes = Reason::ALL.iter().map(|reason| reason.code()).collect::<Vec<_>>().join(" ");
    let list = rapidhash::v3::rapidhash_v3(codes.as_bytes()) as u32;
    ((list & 0x00FF_FFFF) | VERSION << 24) as i32
}

pub fn create(conn: &Connection) -> Result<()> {
    conn.execute_batch(TABLES)?;
    conn.pragma_update(None, "user_version", stamp())?;
    Ok(())
}

/// The position of tables that hold nothing yet.
pub fn begin(conn: &Connection, live: bool) -> Result<()> {
    conn.execute(
        "INSERT INTO position(id, next, chain, time, log_time, next_segment, next_run, live)
         VALUES (0, 0, ?, 0, 0, 0, 0, ?)",
        params![Chain::FIRST.as_str(), live],
    )?;
    Ok(())
}

/// Whether the file has this build's form.
pub fn is_current(conn: &Connection) -> Result<bool> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? == stamp())
}

/// The one writing connection of a generation. Checkpoints are run between flushes, not within a commit.
pub fn open_writer(path: &Path) -> Result<Connection> {
    let conn = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "cache_size", -64 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

pub fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).with_context(|| format!("cannot open {}", path.display()))?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.pragma_update(None, "cache_size", -8 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}
