//! Latency of commits of 64 events: this log, against SQLite's own checkpoints in the writer, no checkpoints at
//! all, and the floor: the same bytes appended to a file with one fdatasync.
//!
//! `cargo run --profile release -p pipeline --example commit_latency -- FOLDER [COMMITS] [PAUSE_MICROS]`

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pipeline::{Block, Log, clock};
use rusqlite::{Connection, params};
use schemas::chain::Position;

const EVENTS: u32 = 64;
const EVENT_BYTES: usize = 1_000;
const OUTCOME_BYTES: usize = 600;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().context("which folder?")?);
    let commits: usize = args.next().map_or(Ok(3_000), |text| text.parse())?;
    let pause = Duration::from_micros(args.next().map_or(Ok(0), |text| text.parse())?);
    for round in 0..3 {
        for (name, run) in RUNS {
            let own = dir.join(format!("{name}-{round}"));
            std::fs::create_dir_all(&own)?;
            let mut times = run(&own, commits, pause)?;
            report(name, &mut times)?;
            std::fs::remove_dir_all(&own)?;
        }
    }
    Ok(())
}

type Run = fn(&Path, usize, Duration) -> Result<Vec<Duration>>;
const RUNS: [(&str, Run); 4] =
    [("fdatasync", file), ("this-log", log), ("sqlite-autocheckpoint", auto), ("no-checkpoint", never)];

fn report(name: &str, times: &mut [Duration]) -> Result<()> {
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    writeln!(
        std::io::stdout(),
        "{name:22} commits/s {:7.0}  p50 {:?}  p99 {:?}  p99.9 {:?}  max {:?}",
        times.len() as f64 / total.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        times.last().copied().unwrap_or_default()
    )?;
    Ok(())
}

fn measured(commits: usize, pause: Duration, mut commit: impl FnMut(&Block) -> Result<()>) -> Result<Vec<Duration>> {
    let mut at = Position::START;
    let mut times = Vec::with_capacity(commits);
    for _ in 0..commits {
        let block = block(&mut at);
        let start = Instant::now();
        commit(&block)?;
        times.push(start.elapsed());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(times)
}

fn block(at: &mut Position) -> Block {
    let (first, prev) = (at.next, at.chain);
    let line = |bytes: usize| [vec![b'x'; bytes - 1], vec![b'\n']].concat();
    for _ in 0..EVENTS {
        at.chain = at.chain.next(&line(OUTCOME_BYTES)[..OUTCOME_BYTES - 1]);
    }
    at.next += u64::from(EVENTS);
    Block {
        first,
        count: EVENTS,
        time: clock::now(),
        events: line(EVENT_BYTES).repeat(EVENTS as usize),
        outcomes: line(OUTCOME_BYTES).repeat(EVENTS as usize),
        prev,
        chain: at.chain,
    }
}

fn log(dir: &Path, commits: usize, pause: Duration) -> Result<Vec<Duration>> {
    let mut log = Log::open(dir)?;
    measured(commits, pause, |block| Ok(log.append(std::slice::from_ref(block), &[])?))
}

fn file(dir: &Path, commits: usize, pause: Duration) -> Result<Vec<Duration>> {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("file"))?;
    measured(commits, pause, |block| {
        file.write_all(&block.outcomes)?;
        file.write_all(&block.events)?;
        Ok(file.sync_data()?)
    })
}

fn auto(dir: &Path, commits: usize, pause: Duration) -> Result<Vec<Duration>> {
    sqlite(dir, 1_000, commits, pause)
}

fn never(dir: &Path, commits: usize, pause: Duration) -> Result<Vec<Duration>> {
    sqlite(dir, 0, commits, pause)
}

fn sqlite(dir: &Path, autocheckpoint: i64, commits: usize, pause: Duration) -> Result<Vec<Duration>> {
    let connection = Connection::open(dir.join("log.db"))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", autocheckpoint, |row| row.get::<_, i64>(0))?;
    connection.execute_batch("CREATE TABLE blocks (first INTEGER PRIMARY KEY, outcomes BLOB, events BLOB)")?;
    measured(commits, pause, |block| {
        let mut insert = connection.prepare_cached("INSERT INTO blocks VALUES (?1, ?2, ?3)")?;
        insert.execute(params![i64::try_from(block.first)?, block.outcomes, block.events])?;
        Ok(())
    })
}
