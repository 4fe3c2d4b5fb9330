//! Moving the write-ahead log (WAL) into the file, out of the writer's way.
//!
//! Owns: when that is done, and by whom. Refuses: to make a commit wait for it.
//! Invariant: what is in the WAL is on disk already; a copy that fails loses nothing, a failed fsync ends the process.
//!
//! A checkpoint copies pages and waits for the disk, in the writer 10 to 50 ms. So a thread of its own does it in small
//! passes (`PASSIVE`: they wait for nobody and stop nobody). But a WAL starts again from its beginning only once all of it
//! is copied, and while commits go on no pass is ever that far. So when the WAL has grown to `RESET_BYTES`, the writer
//! itself copies the little that one more pass has left, and its next commit starts the WAL again.
//!
//! SQLite syncs the file only when all is copied: the writer would then wait for everything since the last time. So
//! the thread syncs it after each pass.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use rusqlite::{Connection, ErrorCode};

use super::store;

/// A pass begins when this much was committed since the last one. Larger passes make longer waits at the disk.
const PASS_BYTES: u64 = if cfg!(test) { 256 * 1024 } else { 1024 * 1024 };
/// The WAL starts again at this size: it bounds the file, and what a start after a crash has to read.
const RESET_BYTES: u64 = if cfg!(test) { 2 * 1024 * 1024 } else { 64 * 1024 * 1024 };
/// How much the WAL grows before the next try when a reader stood in the way.
const RETRY_BYTES: u64 = 16 * 1024 * 1024;
/// A WAL this large means that a reader holds on to an old state of the file.
const ALARM_BYTES: u64 = 1024 * 1024 * 1024;
/// A quiet log is copied too, so that a stopped process leaves little behind.
const IDLE: Duration = Duration::from_secs(30);

/// The writer's end.
pub(super) struct Checkpoints {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    frame_bytes: u64,
    /// Size of the WAL when the last pass was asked for.
    asked_at: u64,
    /// From this size on the writer tries to start the WAL again.
    reset_from: u64,
    /// It does so when this many passes have ended.
    due: Option<u64>,
}

struct Shared {
    /// Pages in the WAL after the last commit, set by SQLite's hook on the writer's connection.
    frames: AtomicU64,
    passes: AtomicU64,
    /// Held while a pass runs: SQLite lets only one run.
    running: Mutex<()>,
    stop: AtomicBool,
    failed: OnceLock<String>,
}

impl Checkpoints {
    pub(super) fn start(dir: &Path, writer: &mut Connection, file: Arc<File>) -> Result<Self> {
        let page_bytes = writer.pragma_query_value(None, "page_size", |row| store::number(row, 0))?;
        let shared = Arc::new(Shared {
            frames: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            running: Mutex::new(()),
            stop: AtomicBool::new(false),
            failed: OnceLock::new(),
        });
        let hooked = Arc::clone(&shared);
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: std::ffi::c_int| {
            hooked.frames.store(u64::try_from(frames).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        let connection = store::open_to_checkpoint(dir)?;
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-checkpoint".to_owned())
            .spawn(move || worker.work(&connection, &file))
            .context("the checkpoint thread")?;
        // In the WAL, 24 bytes stand before each page.
        let frame_bytes = page_bytes + 24;
        Ok(Self { shared, thread: Some(thread), frame_bytes, asked_at: 0, reset_from: RESET_BYTES, due: None })
    }

    /// Why the log must not be written any more.
    pub(super) fn failure(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// Called by the writer after each commit; nearly always it only compares a few numbers.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let size = self.size();
        if size < self.asked_at {
            (self.asked_at, self.reset_from, self.due) = (0, RESET_BYTES, None);
        }
        if size >= self.reset_from {
            self.reset(writer, size);
        } else if size >= self.asked_at + PASS_BYTES {
            self.ask(size);
        }
    }

    /// Asks for one more pass, and when it has ended copies what that has left.
    fn reset(&mut self, writer: &Connection, size: u64) {
        let passes = self.shared.passes.load(Ordering::Acquire);
        let Some(due) = self.due else {
            self.due = Some(passes + 1);
            return self.ask(size);
        };
        if passes < due {
            return;
        }
        let Ok(alone) = self.shared.running.try_lock() else { return };
        self.shared.note(pass(writer));
        drop(alone);
        self.due = None;
        self.reset_from = size + RETRY_BYTES;
    }

    fn ask(&mut self, size: u64) {
        self.asked_at = size;
        self.wake();
        metrics::gauge!("clickback_log_wal_bytes").set(size as f64);
        if size > ALARM_BYTES {
            tracing::warn!(bytes = size, "log.db-wal grows: a reader holds on to an old state of log.db");
        }
    }

    /// Bytes in the WAL after the last commit.
    pub(super) fn size(&self) -> u64 {
        self.shared.frames.load(Ordering::Relaxed) * self.frame_bytes
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread ended with a panic");
        }
    }
}

impl Shared {
    fn work(&self, connection: &Connection, file: &File) {
        let mut copied = 0;
        loop {
            std::thread::park_timeout(IDLE);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let frames = self.frames.load(Ordering::Relaxed);
            if frames == copied {
                continue;
            }
            let alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let done = pass(connection);
            if done.is_ok()
                && let Err(error) = file.sync_data()
            {
                self.fail(&error);
            }
            self.note(done);
            drop(alone);
            copied = frames;
        }
    }

    fn note(&self, pass: rusqlite::Result<()>) {
        match pass {
            Ok(()) => {
                self.passes.fetch_add(1, Ordering::Release);
            }
            Err(error) if is_failed_sync(&error) => self.fail(&error),
            Err(error) => tracing::warn!(%error, "log.db-wal could not be copied to log.db; it stays and grows"),
        }
    }

    /// After a failed fsync the system may have dropped what it should have written, and it says so only once.
    fn fail(&self, error: &dyn std::fmt::Display) {
        let why = format!("log.db could not be brought to disk: {error}");
        tracing::error!("{why}");
        drop(self.failed.set(why));
    }
}

fn pass(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
}

/// Whether the disk did not confirm what was written before.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.code == ErrorCode::SystemIoFailure
            && matches!(failure.extended_code, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC))
}

#[cfg(test)]
mod tests {
    use schemas::chain::Position;

    use crate::log::tests::block_of;
    use crate::{Log, LogReader};

    #[test]
    fn the_wal_stays_bounded_while_commits_go_on_without_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path()).unwrap();
        let reader = LogReader::open(dir.path()).unwrap();
        let mut at = log.position();
        let blocks = std::iter::repeat_with(|| {
            let block = block_of(at, 16, 1_000);
            at = Position { next: block.end(), chain: block.chain };
            block
        });
        let blocks: Vec<_> = blocks.take(1_500).collect();
        let mut resets = 0;
        let mut before = 0;
        for block in &blocks {
            log.append(std::slice::from_ref(block), &[]).unwrap();
            let size = log.wal_bytes();
            assert!(size < 3 * super::RESET_BYTES, "the WAL grows");
            resets += u32::from(size < before);
            before = size;
        }
        assert!(resets > 0);
        assert_eq!(reader.position().unwrap(), at);
        assert_eq!(reader.chain_at(at.next).unwrap(), Some(at.chain));
    }
}
