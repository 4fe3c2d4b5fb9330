use proptest::{strategy::Strategy, test_runner::TestRunner};

use super::*;
use crate::testing::{World, folder, steps};
use pipeline::{
    lifecycle::Health,
    log::{Block, Log},
};

fn world() -> World {
    let mut runner = TestRunner::deterministic();
    let tree = steps(60..61).new_tree(&mut runner).unwrap();
    World::of(&proptest::strategy::ValueTree::current(&tree))
}

fn beat() -> Beat {
    Health::new(Duration::from_secs(60)).component("projector")
}

struct Started {
    dir: tempfile::TempDir,
    log: Log,
    sender: mpsc::SyncSender<Arc<Batch>>,
    projector: Projector,
    end: u64,
}

fn started() -> Started {
    let world = world();
    let (dir, log) = folder(&world.outcomes, &[4]);
    let end = log.position().next;
    let (sender, receiver) = mpsc::sync_channel(4);
    let projector = spawn(dir.path(), log.reader().unwrap(), receiver, Arc::new(LogEnd::new(end)), beat()).unwrap();
    Started { dir, log, sender, projector, end }
}

fn shows(projector: &Projector, next: u64) {
    let mut visible = projector.visible.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { visible.wait_for(|seen| *seen >= next).await.map(drop) }).unwrap();
}

fn meddle(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Fails every commit, as a full disk does.
const NO_ROOM: &str = "CREATE TRIGGER no_room BEFORE UPDATE ON position BEGIN SELECT RAISE(ROLLBACK, 'no room'); END";

#[test]
fn an_end_does_not_wait_for_tables_that_cannot_be_written() {
    let Started { dir, mut log, sender, projector, end } = started();
    shows(&projector, end);
    meddle(&generation::live(dir.path()).unwrap().unwrap().path, NO_ROOM);
    crate::testing::append(&mut log, &world().outcomes[..3]);
    drop(sender);
    let (said, heard) = mpsc::channel();
    thread::spawn(move || said.send(projector.join()));
    let ended = heard.recv_timeout(Duration::from_secs(20)).expect("the thread ends");
    assert!(format!("{:#}", ended.unwrap_err()).contains("no room"));
}

#[test]
fn a_writer_that_failed_never_says_that_it_is_further() {
    let world = world();
    let (dir, log) = folder(&world.outcomes, &[4]);
    let reader = log.reader().unwrap();
    let (live, mut tables) = generation::open(dir.path(), &reader).unwrap();
    meddle(&live.path, NO_ROOM);
    let end = take_from_log(&reader, &mut tables).unwrap().unwrap();
    assert!(tables.flush(end).is_err());
    meddle(&live.path, "DROP TRIGGER no_room");
    // There is room again, but the rows went with the transaction.
    assert!(tables.flush(end).is_err() && tables.take(end.next, &world.outcomes[..1]).is_err());
    drop(tables);
    let mut tables = generation::reopen(&live, &reader).unwrap().unwrap();
    assert_eq!(tables.position(), Position::START);
    catch_up_for_tests(&reader, &mut tables);
    assert_eq!(crate::audit::audit(dir.path()).unwrap().different, 0);
}

#[test]
fn an_error_of_the_live_tables_leaves_a_rebuild_alone() {
    let Started { dir, log, sender, projector, end } = started();
    shows(&projector, end);
    drop(sender);
    projector.join().unwrap();
    let reader = log.reader().unwrap();
    let live = generation::open(dir.path(), &reader).unwrap();
    let (beside, built) = build(dir.path(), live.0.number + 1, &LogEnd::new(end)).unwrap();
    let mut follower = follower(dir.path(), log.reader().unwrap(), end, live);
    follower.number = beside.number;
    for error in [anyhow!("no room"), anyhow!(broken())] {
        follower.reopen(&error);
        assert!(beside.path.exists(), "{error}");
    }
    follower.finish(beside.clone(), built).unwrap();
    drop(follower);
    assert_eq!(generation::live(dir.path()).unwrap(), Some(beside));
    assert_eq!(generation::list(dir.path()).unwrap().len(), 1);
    assert_eq!(crate::audit::audit(dir.path()).unwrap().different, 0);
}

fn broken() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

#[test]
fn a_long_log_is_read_in_pieces() {
    let world = world();
    let (dir, log) = folder(&world.outcomes, &[4]);
    let live = generation::open(dir.path(), &log.reader().unwrap()).unwrap();
    let end = log.position().next;
    let mut follower = follower(dir.path(), log.reader().unwrap(), end, live);
    follower.catch_up(u64::MAX, Duration::ZERO).unwrap();
    assert!(follower.behind && follower.tables.next() == 0);
    // A batch that does not follow yet is left to the log.
    let batch = Batch { first: 10, end: log.position(), outcomes: Vec::new() };
    follower.take(&batch).unwrap();
    assert_eq!(follower.tables.next(), 0);
    follower.catch_up(u64::MAX, READ_FOR).unwrap();
    assert!(!follower.behind && follower.tables.next() == end);
}

fn follower(dir: &Path, log: LogReader, end: u64, live: (Generation, Tables)) -> Follower {
    let links = Links {
        reports: Reports::at(&live.0.path),
        visible: watch::channel(0).0,
        decided: broadcast::channel(1).0,
        requests: mpsc::channel().1,
        beat: beat(),
    };
    Follower::new(dir, log, Arc::new(LogEnd::new(end)), live, links)
}

#[test]
fn a_damaged_log_leaves_the_tables_alone() {
    let Started { dir, log, sender, projector, end } = started();
    shows(&projector, end);
    drop(sender);
    projector.join().unwrap();
    drop(log);
    let path = dir.path().join("log.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2 * 8_192..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let reader = LogReader::open(dir.path()).unwrap();
    let error = generation::open(dir.path(), &reader).err().expect("the log cannot be read");
    assert!(error.chain().any(|cause| cause.is::<rusqlite::Error>()), "{error:#}");
    assert!(!generation::is_broken(&error) && generation::live(dir.path()).unwrap().is_some());
}

/// An outcome that no build can read.
fn append_garbage(log: &mut Log) -> u64 {
    let Position { next, chain } = log.position();
    let chain_after = chain.next(b"garbage");
    let (events, outcomes) = (b"{}\n".to_vec(), b"garbage\n".to_vec());
    let time = schemas::Time::from_ms(0);
    let block = Block { first: next, count: 1, time, events, outcomes, prev: chain, chain: chain_after };
    log.append(&[block], &[]).unwrap();
    log.position().next
}

#[test]
fn a_heart_beats_for_progress_and_not_for_trying() {
    let world = world();
    let (dir, mut log) = folder(&world.outcomes, &[4]);
    let live = generation::open(dir.path(), &log.reader().unwrap()).unwrap();
    let mut follower = follower(dir.path(), log.reader().unwrap(), log.position().next, live);
    let (sender, batches) = mpsc::sync_channel(1);
    let turn = |follower: &mut Follower| {
        let turn = follower.turn(&batches);
        let moved = follower.has_moved(turn.is_ok());
        if let Err(error) = &turn {
            follower.reopen(error);
        }
        (turn.is_ok(), moved)
    };
    assert_eq!(turn(&mut follower), (true, true), "it has read the log");
    assert_eq!(turn(&mut follower), (true, true), "there is nothing to do");
    follower.end.set(append_garbage(&mut log));
    for _ in 0..3 {
        assert_eq!(turn(&mut follower), (false, false), "it tries for ever");
    }
    drop(sender);
}

#[test]
fn a_projector_that_is_stuck_is_not_live_and_still_ready() {
    let world = world();
    let (dir, mut log) = folder(&world.outcomes, &[4]);
    let readable = log.position().next;
    let end = Arc::new(LogEnd::new(append_garbage(&mut log)));
    let (sender, receiver) = mpsc::sync_channel(4);
    let health = Health::new(AFTER_ERROR * 5 / 2);
    let beat = health.component("projector");
    let projector = spawn(dir.path(), log.reader().unwrap(), receiver, end, beat).unwrap();
    let began = Instant::now();
    let why = loop {
        match health.live() {
            Err(why) => break why,
            Ok(()) => assert!(began.elapsed() < Duration::from_secs(20), "it stays live"),
        }
        thread::park_timeout(LOOK);
    };
    assert!(why.starts_with("projector has made no progress"), "{why}");
    assert_eq!(health.ready(), Ok(()));
    assert!(*projector.visible.borrow() < readable + 1);
    drop(sender);
    projector.join().unwrap_err();
    assert_eq!(health.live(), Err("projector has died".to_owned()));
}
