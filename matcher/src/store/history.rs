//! The state as it was before the last saves, for a state that turns out to be ahead of its log.
//!
//! In a cluster a broker may lose its last seconds, and a state that was made of them cannot be used any more. So that
//! the whole log need not be read then, every save keeps the rows that it overwrites, until another one is old enough.
//!
//! Invariant: `step_back` gives exactly what was saved before, with the position that it is true of.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use schemas::Time;

use super::{BadCache, FILE};

/// A broker without other copies may lose this much.
const KEPT_MS: i64 = 60_000;
/// Tables with the names of their keys, and whether rows are marked as waiting.
const TABLES: [(&str, &str, bool); 4] =
    [("clicks", "id", true), ("names", "key", true), ("labels", "key", true), ("runs", "id", false)];

/// From now on old rows are kept.
pub(super) fn begin(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS saves (number INTEGER PRIMARY KEY, time INTEGER NOT NULL, next INTEGER NOT NULL,
            chain TEXT NOT NULL, data BLOB NOT NULL, anchor_at INTEGER, anchor_next INTEGER, anchor_chain TEXT);
         CREATE TABLE IF NOT EXISTS before (save INTEGER NOT NULL, place TEXT NOT NULL, key BLOB NOT NULL, data BLOB, waiting);
         CREATE INDEX IF NOT EXISTS before_save ON before (save);",
    )?;
    let save = "(SELECT COALESCE(MAX(number), 0) + 1 FROM saves)";
    for (table, key, waits) in TABLES {
        let waiting = if waits { "waiting" } else { "NULL" };
        let of_old = if waits { "OLD.waiting" } else { "NULL" };
        connection.execute_batch(&format!(
            "CREATE TRIGGER IF NOT EXISTS {table}_put BEFORE INSERT ON {table} BEGIN
                INSERT INTO before SELECT {save}, '{table}', NEW.{key},
                    (SELECT data FROM {table} WHERE {key} = NEW.{key}), (SELECT {waiting} FROM {table} WHERE {key} = NEW.{key});
             END;
             CREATE TRIGGER IF NOT EXISTS {table}_gone BEFORE DELETE ON {table} BEGIN
                INSERT INTO before SELECT {save}, '{table}', OLD.{key}, OLD.data, {of_old};
             END;"
        ))?;
    }
    Ok(())
}

/// After everything else of a save, in its transaction.
pub(super) fn note(transaction: &Transaction, now: Time) -> Result<()> {
    transaction.execute(
        "INSERT INTO saves (time, next, chain, data, anchor_at, anchor_next, anchor_chain)
         SELECT ?1, meta.next, meta.chain, meta.data, anchor.at, anchor.next, anchor.chain FROM meta LEFT JOIN anchor",
        [now.ms()],
    )?;
    let old: Option<i64> = transaction.query_row(
        "SELECT MAX(number) FROM saves WHERE time <= ?1",
        [now.plus_ms(-KEPT_MS).ms()],
        |row| row.get(0),
    )?;
    if let Some(old) = old {
        transaction.execute("DELETE FROM before WHERE save <= ?1", [old])?;
        transaction.execute("DELETE FROM saves WHERE number < ?1", [old])?;
    }
    Ok(())
}

/// Makes the file what the save before the last one left. False if nothing is known of that.
pub fn step_back(dir: &Path) -> Result<bool> {
    step(&mut Connection::open(dir.join(FILE))?).map_err(|error| error.context(BadCache))
}

fn step(connection: &mut Connection) -> Result<bool> {
    let transaction = connection.transaction()?;
    // A file that never kept old rows has no such table.
    let Ok(known) = last_saves(&transaction) else { return Ok(false) };
    let [last, previous] = known[..] else { return Ok(false) };
    for (table, key, waits) in TABLES {
        let columns = if waits { format!("{key}, data, waiting") } else { format!("{key}, data") };
        let values = if waits { "key, data, waiting" } else { "key, data" };
        // What a key had before its first change in that save.
        let first = format!(
            "FROM before WHERE save = ?1 AND place = '{table}' AND rowid IN
                (SELECT MIN(rowid) FROM before WHERE save = ?1 AND place = '{table}' GROUP BY key)"
        );
        transaction
            .execute(&format!("DELETE FROM {table} WHERE {key} IN (SELECT key {first} AND data IS NULL)"), [last])?;
        transaction.execute(
            &format!("INSERT OR REPLACE INTO {table} ({columns}) SELECT {values} {first} AND data IS NOT NULL"),
            [last],
        )?;
    }
    // Also what was kept of this very change.
    transaction.execute("DELETE FROM before WHERE save >= ?1", [last])?;
    transaction.execute("DELETE FROM saves WHERE number = ?1", [last])?;
    transaction.execute(
        "INSERT OR REPLACE INTO meta (one, next, chain, data) SELECT 1, next, chain, data FROM saves WHERE number = ?1",
        [previous],
    )?;
    transaction.execute("DELETE FROM anchor", [])?;
    transaction.execute(
        "INSERT INTO anchor (one, at, next, chain) SELECT 1, anchor_at, anchor_next, anchor_chain FROM saves
         WHERE number = ?1 AND anchor_at IS NOT NULL",
        [previous],
    )?;
    let next: Option<i64> = transaction.query_row("SELECT next FROM meta", params![], |row| row.get(0)).optional()?;
    transaction.commit()?;
    tracing::info!(next, "the state is the one of an older save");
    Ok(true)
}

fn last_saves(transaction: &Transaction) -> rusqlite::Result<Vec<i64>> {
    transaction
        .prepare("SELECT number FROM saves ORDER BY number DESC LIMIT 2")?
        .query_map([], |row| row.get(0))?
        .collect()
}
