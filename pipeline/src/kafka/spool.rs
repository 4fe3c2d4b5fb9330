//! Events on disk that Kafka has not acknowledged yet.
//!
//! Owns: the spool's files and their bound. Refuses: a second process on the same folder; an event beyond the bound; to
//! give an event up before it was acknowledged.
//! Invariant: after `append` said `Ok` its events are on disk, and are read again in their order until they are `release`d,
//! also after a crash. Some that were released may be read again then: sending twice is harmless.
//!
//! Frames (length, CRC, shard, payload) stand one behind the other in segments, which are deleted as a whole. A crash
//! leaves at most one batch that nobody was told about: the last segment's torn end is cut off.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use crc::{CRC_32_ISO_HDLC, Crc};
use schemas::bounds::RECORD_BYTES;

use crate::log::{create_folder, sync_folder};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const LOCK: &str = "lock";
const SUFFIX: &str = ".spool";
/// Length of the payload, CRC of shard and payload, shard.
const HEAD: usize = 10;
/// A segment that has grown beyond this is followed by another.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// An event as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub shard: u16,
    pub payload: Vec<u8>,
}

#[derive(thiserror::Error, Debug)]
pub enum SpoolError {
    /// Nothing of the batch is kept. It may fit later.
    #[error("{0}")]
    Full(String),
    /// What is on disk can only be told by opening the spool anew.
    #[error("{0}")]
    Broken(String),
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    /// Index of its first entry; entries are counted from the opening on.
    first: u64,
    count: u64,
    bytes: u64,
}

/// Where reading goes on.
#[derive(Debug)]
struct Cursor {
    index: u64,
    offset: u64,
    file: Option<(u64, File)>,
}

#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    writer: Option<File>,
    cursor: Cursor,
    /// Index of the first entry that is not released.
    released: u64,
    end: u64,
    bytes: u64,
    max_bytes: u64,
    next_number: u64,
    _lock: File,
}

impl Spool {
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Spool> {
        create_folder(dir)?;
        let lock = lock(dir)?;
        let mut files: Vec<(u64, PathBuf)> = Vec::new();
        for file in std::fs::read_dir(dir).with_context(|| format!("the folder {}", dir.display()))? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(number) = name.strip_suffix(SUFFIX).and_then(|number| number.parse().ok()) {
                files.push((number, path));
            }
        }
        files.sort();
        let mut spool = Spool {
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            writer: None,
            cursor: Cursor { index: 0, offset: 0, file: None },
            released: 0,
            end: 0,
            bytes: 0,
            max_bytes,
            next_number: files.last().map_or(0, |(number, _)| number + 1),
            _lock: lock,
        };
        let last = files.len().saturating_sub(1);
        for (at, (number, path)) in files.into_iter().enumerate() {
            spool.take_over(number, path, at == last)?;
        }
        Ok(spool)
    }

    /// A segment that is there already. It is not written to any more.
    fn take_over(&mut self, number: u64, path: PathBuf, last: bool) -> Result<()> {
        let about = || format!("the spool file {}", path.display());
        let bytes = std::fs::read(&path).with_context(about)?;
        let (count, good) = scan(&bytes);
        if good < bytes.len() {
            if !last {
                bail!(
                    "{} is damaged at byte {good}: it holds events that were answered; restore it, or move it away and lose them",
                    about()
                );
            }
            tracing::warn!(cut = bytes.len() - good, "the torn end of {} is cut off: nobody was told of it", about());
            let file = OpenOptions::new().write(true).open(&path).with_context(about)?;
            file.set_len(good as u64).and_then(|()| file.sync_all()).with_context(about)?;
        }
        if count == 0 {
            return std::fs::remove_file(&path).with_context(about);
        }
        self.segments.push_back(Segment { number, path, first: self.end, count, bytes: good as u64 });
        self.end += count;
        self.bytes += good as u64;
        Ok(())
    }

    /// Entries that are not released.
    pub fn len(&self) -> u64 {
        self.end - self.released
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Index that the next entry gets.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Index of the entry that is read next.
    pub fn next(&self) -> u64 {
        self.cursor.index
    }

    /// All of them or none.
    pub fn append(&mut self, entries: &[&Entry]) -> Result<(), SpoolError> {
        let mut frames = Vec::with_capacity(entries.iter().map(|entry| HEAD + entry.payload.len()).sum());
        for entry in entries {
            put_frame(&mut frames, entry);
        }
        if self.bytes + frames.len() as u64 > self.max_bytes {
            return Err(SpoolError::Full(format!("the spool has reached its {} bytes", self.max_bytes)));
        }
        if self.writer.is_none() || self.segments.back().is_none_or(|last| last.bytes >= SEGMENT_BYTES) {
            self.begin_segment().map_err(|error| SpoolError::Full(format!("{error:#}")))?;
        }
        let (Some(file), Some(segment)) = (self.writer.as_mut(), self.segments.back_mut()) else {
            return Err(SpoolError::Broken("the spool has no file".to_owned()));
        };
        if let Err(error) = file.write_all(&frames) {
            // What a later crash leaves must end where the last good batch does.
            let cut = file.set_len(segment.bytes);
            let why = format!("the spool file {} cannot be written: {error}", segment.path.display());
            return Err(if cut.is_ok() { SpoolError::Full(why) } else { SpoolError::Broken(why) });
        }
        if let Err(error) = file.sync_data() {
            // The system may have thrown the pages away and call the next sync good: what is on disk is unknown.
            return Err(SpoolError::Broken(format!("fsync of {} failed: {error}", segment.path.display())));
        }
        segment.bytes += frames.len() as u64;
        segment.count += entries.len() as u64;
        self.bytes += frames.len() as u64;
        self.end += entries.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<()> {
        let number = self.next_number;
        let path = self.dir.join(format!("{number:012}{SUFFIX}"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("the spool file {} cannot be made", path.display()))?;
        sync_folder(&self.dir)?;
        self.next_number += 1;
        self.writer = Some(file);
        self.segments.push_back(Segment { number, path, first: self.end, count: 0, bytes: 0 });
        Ok(())
    }

    /// The next entries, in their order; empty at the end. Not many more bytes than `READ_BYTES` at once.
    pub fn read(&mut self, most: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < most && bytes < READ_BYTES && self.cursor.index < self.end {
            let segment = self
                .segments
                .iter()
                .find(|segment| self.cursor.index < segment.first + segment.count)
                .context("an entry of the spool has no file")?;
            let about = || format!("the spool file {}", segment.path.display());
            let file = match self.cursor.file.take() {
                Some((number, file)) if number == segment.number => file,
                Some(_) | None => {
                    self.cursor.offset = 0;
                    File::open(&segment.path).with_context(about)?
                }
            };
            let room = segment.bytes.saturating_sub(self.cursor.offset);
            let mut chunk = vec![0; usize::try_from(room).unwrap_or(usize::MAX).min(READ_BYTES)];
            file.read_exact_at(&mut chunk, self.cursor.offset).with_context(about)?;
            if let Some(needed) = first_frame_bytes(&chunk).filter(|needed| *needed > chunk.len()) {
                chunk = vec![0; needed.min(usize::try_from(room).unwrap_or(usize::MAX))];
                file.read_exact_at(&mut chunk, self.cursor.offset).with_context(about)?;
            }
            let mut rest = &chunk[..];
            let mut progress = false;
            while entries.len() < most
                && let Some((entry, after)) = split_frame(rest)
            {
                bytes += entry.payload.len();
                entries.push(entry);
                self.cursor.index += 1;
                self.cursor.offset += (rest.len() - after.len()) as u64;
                rest = after;
                progress = true;
            }
            if !progress {
                bail!("{} is damaged at byte {}", about(), self.cursor.offset);
            }
            self.cursor.file = Some((segment.number, file));
        }
        Ok(entries)
    }

    /// Reading begins again with the first entry that is not released.
    pub fn rewind(&mut self) -> Result<()> {
        let to = self.released;
        self.cursor =
            Cursor { index: self.segments.front().map_or(self.end, |front| front.first), offset: 0, file: None };
        while self.cursor.index < to {
            let most = usize::try_from(to - self.cursor.index).unwrap_or(usize::MAX).min(1_000);
            self.read(most)?;
        }
        Ok(())
    }

    /// The entries up to this end are sent already, and are not read.
    pub fn skip_to_end(&mut self) {
        let offset = self.segments.back().map_or(0, |last| last.bytes);
        self.cursor = Cursor { index: self.end, offset, file: None };
        if let Some(last) = self.segments.back()
            && let Ok(file) = File::open(&last.path)
        {
            self.cursor.file = Some((last.number, file));
        }
    }

    /// Everything before this index was acknowledged. Files of which that is true are deleted.
    pub fn release(&mut self, before: u64) -> Result<()> {
        self.released = self.released.max(before.min(self.end));
        let all = self.released == self.end;
        while let Some(front) = self.segments.front() {
            let done = front.first + front.count <= self.released;
            if !done || (self.segments.len() == 1 && !all) {
                break;
            }
            if self.segments.len() == 1 {
                self.writer = None;
                self.cursor.file = None;
            }
            let Some(front) = self.segments.pop_front() else { break };
            std::fs::remove_file(&front.path)
                .with_context(|| format!("the spool file {} cannot be deleted", front.path.display()))?;
            self.bytes -= front.bytes;
        }
        Ok(())
    }
}

/// One process owns a spool, until it ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be written: choose another folder with --spool", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another process uses the spool {}: give each ingest a folder of its own with --spool", dir.display())
        }
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
            bail!("the folder {} knows no locks: choose another with --spool", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

fn put_frame(frames: &mut Vec<u8>, entry: &Entry) {
    let mut digest = CRC.digest();
    digest.update(&entry.shard.to_be_bytes());
    digest.update(&entry.payload);
    frames.extend((entry.payload.len() as u32).to_be_bytes());
    frames.extend(digest.finalize().to_be_bytes());
    frames.extend(entry.shard.to_be_bytes());
    frames.extend(&entry.payload);
}

/// Bytes that the first frame takes, if its head is there.
fn first_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    Some(HEAD + u32::from_be_bytes(*length) as usize)
}

/// The first frame and what comes after it; `None` if it is not whole.
fn split_frame(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    // Zeros are what a crash may leave behind, and would be an empty frame with a good CRC otherwise.
    if length == 0 || length > 2 * RECORD_BYTES {
        return None;
    }
    let (checked, after) = rest.split_at_checked(2 + length)?;
    if CRC.checksum(checked) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (shard, payload) = checked.split_first_chunk::<2>()?;
    Some((Entry { shard: u16::from_be_bytes(*shard), payload: payload.to_vec() }, after))
}

/// How many whole frames there are, and where the last of them ends.
fn scan(bytes: &[u8]) -> (u64, usize) {
    let (mut count, mut rest) = (0, bytes);
    while let Some((_, after)) = split_frame(rest) {
        count += 1;
        rest = after;
    }
    (count, bytes.len() - rest.len())
}

#[cfg(test)]
mod tests;
