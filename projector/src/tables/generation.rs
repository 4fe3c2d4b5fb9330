//! Generations: files of tables side by side, of which one is live.
//!
//! `tables.db` is the first; `tables-2.db` and so on are built beside it by a rebuild. The live one with the highest
//! number counts; a file becomes live in one write, so there is always exactly one that counts.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use pipeline::LogReader;
use rusqlite::ErrorCode;

use super::{
    schema,
    writer::{Tables, read_stand},
};

/// A file of tables and its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    pub number: u32,
    pub path: PathBuf,
}

impl Generation {
    pub fn new(dir: &Path, number: u32) -> Self {
        let name = if number <= 1 { "tables.db".to_owned() } else { format!("tables-{number}.db") };
        Self { number, path: dir.join(name) }
    }

    pub fn delete(&self) -> Result<()> {
        for suffix in ["-wal", "-shm", ""] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot delete {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The files that are there, highest number first.
pub fn list(dir: &Path) -> Result<Vec<Generation>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let name = entry?.file_name();
        let number = match name.to_str() {
            Some("tables.db") => Some(1),
            Some(name) => name.strip_prefix("tables-").and_then(|n| n.strip_suffix(".db")).and_then(|n| n.parse().ok()),
            None => None,
        };
        found.extend(number.map(|number| Generation::new(dir, number)));
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Stands before an error of the log.
#[derive(Debug, Clone, Copy)]
pub struct OfTheLog;

impl fmt::Display for OfTheLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log cannot be read")
    }
}

/// Whether an error means that the file itself is no good, rather than that it cannot be read or written now. A log
/// that is damaged says nothing against the tables: they may hold what can no longer be read there.
pub fn is_broken(error: &anyhow::Error) -> bool {
    !error.is::<OfTheLog>()
        && error.chain().filter_map(|cause| cause.downcast_ref::<rusqlite::Error>()).any(|error| {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        })
}

/// The live tables, if they continue the log; else new ones. All other files are deleted.
pub fn open(dir: &Path, log: &LogReader) -> Result<(Generation, Tables)> {
    let files = list(dir)?;
    let mut opened = None;
    for file in &files {
        if opened.is_some() {
            file.delete()?;
            continue;
        }
        match open_live(file, log) {
            Ok(Some(tables)) => opened = Some((file.clone(), tables)),
            Ok(None) => file.delete()?,
            Err(error) if is_broken(&error) => {
                tracing::error!(file = %file.path.display(), error = format!("{error:#}"), "the tables are damaged; built again");
                file.delete()?;
            }
            Err(error) => return Err(error),
        }
    }
    match opened {
        Some(opened) => Ok(opened),
        None => create(dir, 1, true),
    }
}

/// The same tables once more, after an error of their writer. Files beside it may be those of a rebuild that is under
/// way, and stay. `None`: it is of no use any more.
pub fn reopen(file: &Generation, log: &LogReader) -> Result<Option<Tables>> {
    match open_live(file, log) {
        Err(error) if is_broken(&error) => Ok(None),
        opened => opened,
    }
}

pub fn create(dir: &Path, number: u32, live: bool) -> Result<(Generation, Tables)> {
    let generation = Generation::new(dir, number);
    generation.delete()?;
    let tables = Tables::open(&generation.path, live)?.context("a new file of tables has another form")?;
    Ok((generation, tables))
}

/// `None`: the file was never finished, has another form, or is no part of this log.
fn open_live(file: &Generation, log: &LogReader) -> Result<Option<Tables>> {
    {
        let conn = schema::open_writer(&file.path)?;
        let known: bool = conn.query_row("SELECT count(*) > 0 FROM sqlite_master", [], |row| row.get(0))?;
        if !known || !schema::is_current(&conn)? {
            tracing::info!(file = %file.path.display(), "the tables have another form; they are built again");
            return Ok(None);
        }
        let stand = read_stand(&conn)?;
        if !stand.live {
            return Ok(None);
        }
        let position = stand.position;
        if log.chain_at(position.next).context(OfTheLog)? != Some(position.chain) {
            tracing::error!(position = position.next, "the tables are of another log; they are built again");
            return Ok(None);
        }
    }
    Tables::open(&file.path, true)
}

/// The live file of a folder, for those who only read.
pub fn live(dir: &Path) -> Result<Option<Generation>> {
    for file in list(dir)? {
        let conn = schema::open_reader(&file.path)?;
        let has_tables: bool = conn.query_row("SELECT count(*) > 0 FROM sqlite_master", [], |row| row.get(0))?;
        if has_tables && schema::is_current(&conn)? && read_stand(&conn)?.live {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
