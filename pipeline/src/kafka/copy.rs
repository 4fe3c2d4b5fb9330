//! A copy of the catalog on the node's own disk, to start from when Kafka is away.
//!
//! Owns: one file of JSON lines, the cluster first and then its records. Refuses: records that do not follow each other.
//! Invariant: it never has more than Kafka has. It may have less: what a crash took from its end is read again.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use schemas::catalog::Record;
use serde::{Deserialize, Serialize};

use super::Layout;
use crate::log::{create_folder, sync_folder};

const FILE: &str = "catalog.jsonl";

#[derive(Serialize, Deserialize)]
struct Line<R> {
    at: u64,
    record: R,
}

/// What a copy says.
pub(super) struct Found {
    pub(super) layout: Layout,
    pub(super) records: Vec<(u64, Record)>,
    /// Where the last good line ends.
    good: u64,
}

pub(super) struct Copy {
    path: PathBuf,
    file: BufWriter<File>,
    unsynced: bool,
}

/// `None` if there is no copy, or none that can be read.
pub(super) fn read(dir: &Path) -> Result<Option<Found>> {
    let path = dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("the catalog's copy {}", path.display()))?,
    };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let Some(first) = lines.next() else { return Ok(None) };
    let Ok(layout) = serde_json::from_slice::<Layout>(first) else { return Ok(None) };
    let mut found = Found { layout, records: Vec::new(), good: first.len() as u64 };
    for line in lines {
        let Ok(Line { at, record }) = serde_json::from_slice::<Line<Record>>(line) else { break };
        if found.records.last().is_some_and(|(before, _)| at <= *before) {
            break;
        }
        found.records.push((at, record));
        found.good += line.len() as u64;
    }
    Ok(Some(found))
}

impl Copy {
    /// Goes on with what was found, or begins anew.
    pub(super) fn open(dir: &Path, layout: &Layout, found: Option<&Found>) -> Result<Copy> {
        create_folder(dir)?;
        let path = dir.join(FILE);
        let about = || format!("the catalog's copy {}", path.display());
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.with_context(about)?;
        file.set_len(found.map_or(0, |found| found.good)).with_context(about)?;
        let file = OpenOptions::new().append(true).open(&path).with_context(about)?;
        let mut copy = Copy { path, file: BufWriter::new(file), unsynced: true };
        if found.is_none() {
            serde_json::to_writer(&mut copy.file, layout)?;
            copy.file.write_all(b"\n")?;
        }
        copy.sync()?;
        sync_folder(dir)?;
        Ok(copy)
    }

    pub(super) fn add(&mut self, at: u64, record: &Record) -> Result<()> {
        serde_json::to_writer(&mut self.file, &Line { at, record })?;
        self.file.write_all(b"\n")?;
        self.unsynced = true;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        if self.unsynced {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Kafka has less than the copy: it is kept for whoever repairs that, and not used again.
    pub(super) fn set_aside(self) -> Result<PathBuf> {
        let aside = self.path.with_extension("lost");
        std::fs::rename(&self.path, &aside).with_context(|| format!("{} cannot be renamed", self.path.display()))?;
        Ok(aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{EventId, Time};

    fn layout() -> Layout {
        Layout { id: EventId::new(Time::from_ms(1), 0, 1), partitions: 4, key: "h:x".into() }
    }

    fn record(n: u64) -> Record {
        serde_json::from_value(serde_json::json!({
            "v": 1, "id": format!("r{n}"), "tenant": "t", "time": "2026-01-01T00:00:00.000Z", "base": n,
            "body": { "key": { "id": "k", "name": "k", "scope": "read", "hash": "x", "revoked": false,
                               "created": "2026-01-01T00:00:00.000Z" } },
        }))
        .unwrap()
    }

    #[test]
    fn it_goes_on_where_it_ended_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let mut copy = Copy::open(dir.path(), &layout(), None).unwrap();
        copy.add(1, &record(0)).unwrap();
        copy.add(2, &record(1)).unwrap();
        copy.sync().unwrap();
        drop(copy);
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(br#"{"at":3,"rec"#);
        std::fs::write(&path, bytes).unwrap();

        let found = read(dir.path()).unwrap().unwrap();
        assert_eq!((found.layout.clone(), found.records.len()), (layout(), 2));
        let mut copy = Copy::open(dir.path(), &layout(), Some(&found)).unwrap();
        copy.add(3, &record(2)).unwrap();
        copy.sync().unwrap();
        let found = read(dir.path()).unwrap().unwrap();
        assert_eq!(found.records.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(found.records[2].1, record(2));

        copy.set_aside().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_no_copy_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "{}\n", "hello\n"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(read(dir.path()).unwrap().is_none(), "{text}");
        }
    }
}
