//! The log as its users see it.

use std::path::Path;

use rusqlite::Connection;
use schemas::{
    Event, EventBody, EventId, Time,
    catalog::{ApiKey, Body, Record, Scope},
    chain::{Chain, Position},
};

use super::{Block, Log, LogError, LogReader};

/// A block with these payloads as outcomes, and ticks as events.
pub(super) fn block_with(at: Position, payloads: &[String]) -> Block {
    let mut chain = at.chain;
    let (mut events, mut outcomes) = (Vec::new(), Vec::new());
    for (i, payload) in payloads.iter().enumerate() {
        let time = Time::from_ms(1_000 + at.next as i64 + i as i64);
        let id = EventId::new(time, 0, at.next + i as u64);
        let event =
            Event { v: 1, id, tenant: "t".into(), time, from: id, n: at.next + i as u64, body: EventBody::Tick };
        serde_json::to_writer(&mut events, &event).unwrap();
        events.push(b'\n');
        chain = chain.next(payload.as_bytes());
        outcomes.extend_from_slice(payload.as_bytes());
        outcomes.push(b'\n');
    }
    let count = u32::try_from(payloads.len()).unwrap();
    Block { first: at.next, count, time: Time::from_ms(5), events, outcomes, prev: at.chain, chain }
}

pub(super) fn next_block(log: &Log, payloads: &[&str]) -> Block {
    block_with(log.position(), &payloads.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
}

pub(super) fn block_of(at: Position, count: usize, bytes: usize) -> Block {
    block_with(at, &vec!["x".repeat(bytes); count])
}

fn record(n: u64) -> (u64, Vec<u8>) {
    let time = Time::from_ms(1);
    let key = ApiKey {
        id: format!("k{n}"),
        name: "n".into(),
        scope: Scope::Read,
        hash: "h".into(),
        revoked: false,
        created: time,
    };
    let record = Record { v: 1, id: format!("r{n}"), tenant: "t".into(), time, base: 0, body: Body::Key(key) };
    (n, serde_json::to_vec(&record).unwrap())
}

/// Runs SQL as a program that is not ours would.
fn meddle(dir: &Path, sql: &str) {
    let connection = Connection::open(dir.join("log.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn what_is_appended_is_read_back_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let mut log = Log::open(&folder).unwrap();
    assert_eq!((log.position(), log.catalog_next()), (Position::START, 0));
    let one = next_block(&log, &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    let two = block_with(Position { next: 3, chain: one.chain }, &["{}".to_owned()]);
    log.append(&[one.clone(), two.clone()], &[record(0), record(1)]).unwrap();
    let end = Position { next: 4, chain: two.chain };
    assert_eq!((log.position(), log.catalog_next()), (end, 2));
    drop(log);

    let log = Log::open(&folder).unwrap();
    assert_eq!((log.position(), log.catalog_next()), (end, 2));
    let reader = log.reader().unwrap();
    assert_eq!(reader.position().unwrap(), end);
    for src in 0..3 {
        assert_eq!(reader.block_with(src).unwrap().as_ref(), Some(&one));
    }
    assert_eq!(reader.block_with(3).unwrap(), Some(two.clone()));
    assert_eq!(reader.block_with(4).unwrap(), None);
    let events: Vec<_> = one.events().map(Result::unwrap).collect();
    assert_eq!(events.len(), 3);
    assert_eq!(reader.event(2).unwrap(), Some((Time::from_ms(5), events[2].1.clone())));
    assert_eq!(reader.event(4).unwrap(), None);
    let payloads: Vec<_> = one.outcomes().map(Result::unwrap).collect();
    assert_eq!(payloads[1], (1, b"{\"b\":2}".as_slice()));
    let keys: Vec<_> = reader.catalog(1, 10).unwrap().into_iter().map(|(seq, record)| (seq, record.id)).collect();
    assert_eq!(keys, [(1, "r1".to_owned())]);
    assert_eq!(reader.catalog(0, 1).unwrap().len(), 1);
}

#[test]
fn blocks_come_in_order_and_in_bounded_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    let reader = log.reader().unwrap();
    assert_eq!(reader.blocks(0, 1_000_000).unwrap(), []);
    for _ in 0..5 {
        log.append(&[block_of(log.position(), 4, 100)], &[]).unwrap();
    }
    let firsts = |from, max| reader.blocks(from, max).unwrap().iter().map(|b| b.first).collect::<Vec<_>>();
    assert_eq!(firsts(0, usize::MAX), [0, 4, 8, 12, 16]);
    assert_eq!(firsts(6, usize::MAX), [4, 8, 12, 16]);
    assert_eq!(firsts(8, 1), [8]);
    assert!(firsts(20, usize::MAX).is_empty());
    assert!(firsts(1_000, usize::MAX).is_empty());
    let outcomes = reader.outcome_blocks(5, usize::MAX).unwrap();
    assert_eq!(outcomes.len(), 4);
    assert!(outcomes[0].events.is_empty() && outcomes[0].verify().is_ok());
}

#[test]
fn the_chain_is_known_at_every_event_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    let reader = log.reader().unwrap();
    assert_eq!(reader.chain_at(0).unwrap(), Some(Chain::FIRST));
    assert_eq!(reader.chain_at(1).unwrap(), None);
    log.append(&[next_block(&log, &["a", "b"])], &[]).unwrap();
    log.append(&[next_block(&log, &["c"])], &[]).unwrap();
    let mut chain = Chain::FIRST;
    for (src, payload) in [(0, "a"), (1, "b"), (2, "c")] {
        assert_eq!(reader.chain_at(src).unwrap(), Some(chain));
        chain = chain.next(payload.as_bytes());
    }
    assert_eq!(reader.chain_at(3).unwrap(), Some(chain));
    assert_eq!(reader.chain_at(4).unwrap(), None);

    meddle(dir.path(), "UPDATE blocks SET outcomes = CAST('a' || char(10) || 'x' || char(10) AS BLOB) WHERE first = 0");
    let error = reader.chain_at(1).unwrap_err().to_string();
    assert!(error.contains("the chain breaks"), "{error}");
    assert!(reader.outcome(0).is_err());
}

#[test]
fn a_hole_is_an_error_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    for _ in 0..3 {
        log.append(&[next_block(&log, &["a", "b"])], &[]).unwrap();
    }
    let reader = log.reader().unwrap();
    meddle(dir.path(), "DELETE FROM blocks WHERE first = 2");
    assert!(reader.blocks(0, usize::MAX).unwrap_err().to_string().contains("hole"));
    meddle(dir.path(), "DELETE FROM blocks WHERE first = 0");
    assert!(reader.blocks(0, usize::MAX).unwrap_err().to_string().contains("begins at event 4"));
    meddle(dir.path(), "UPDATE blocks SET count = 3");
    assert!(reader.block_with(6).unwrap().unwrap().verify().is_err());
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = Log::open(dir.path()).unwrap();
    let error = Log::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    Log::open(dir.path()).unwrap();
}

#[test]
fn a_block_that_does_not_continue_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    let good = next_block(&log, &["a"]);
    log.append(std::slice::from_ref(&good), &[]).unwrap();
    let other_chain = block_with(Position { next: 1, chain: Chain::FIRST }, &["b".into()]);
    let later = block_with(Position { next: 2, chain: good.chain }, &["b".into()]);
    for bad in [good, other_chain, later] {
        assert!(matches!(log.append(&[bad], &[]), Err(LogError::Fatal(_))));
    }
    assert!(matches!(log.append(&[], &[record(1)]), Err(LogError::Fatal(_))));
    assert_eq!((log.position().next, log.catalog_next()), (1, 0));
    log.append(&[next_block(&log, &["b"])], &[record(0)]).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_behind_and_room_lets_it_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.append(&[next_block(&log, &["a"])], &[]).unwrap();
    let before = log.position();
    log.connection().pragma_update_and_check(None, "max_page_count", 8, |row| row.get::<_, i64>(0)).unwrap();
    // The first block fits, the second does not: neither may stay.
    let small = next_block(&log, &["b"]);
    let large = block_of(Position { next: small.end(), chain: small.chain }, 10, 50_000);
    for _ in 0..3 {
        let refused = log.append(&[small.clone(), large.clone()], &[record(0)]);
        assert!(matches!(&refused, Err(LogError::NoRoom(why)) if why.contains("full")), "{refused:?}");
    }
    let reader = log.reader().unwrap();
    assert_eq!((log.position(), reader.position().unwrap()), (before, before));
    assert_eq!((log.catalog_next(), reader.catalog(0, 9).unwrap().len()), (0, 0));

    log.connection().pragma_update_and_check(None, "max_page_count", 100_000, |row| row.get::<_, i64>(0)).unwrap();
    log.append(&[small, large.clone()], &[record(0)]).unwrap();
    assert_eq!(reader.position().unwrap(), Position { next: large.end(), chain: large.chain });
    drop((log, reader));
    assert_eq!(Log::open(dir.path()).unwrap().position().next, large.end());
}

#[test]
fn a_folder_that_turned_read_only_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.connection().pragma_update(None, "query_only", true).unwrap();
    assert!(matches!(log.append(&[next_block(&log, &["a"])], &[]), Err(LogError::NoRoom(_))));
    log.connection().pragma_update(None, "query_only", false).unwrap();
    log.append(&[next_block(&log, &["a"])], &[]).unwrap();
}

#[test]
fn a_writer_that_meets_another_state_than_its_own_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    meddle(
        dir.path(),
        "INSERT INTO blocks VALUES (0, 1, 0, '00000000000000000000000000000000', '00000000000000000000000000000000', x'', x'')",
    );
    assert!(matches!(log.append(&[next_block(&log, &["a"])], &[]), Err(LogError::Fatal(_))));
}

/// What a crash leaves of the last commit is cut off at any byte: the log is then at one commit or the one before.
#[test]
fn a_torn_write_ahead_log_ends_at_a_whole_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    let mut ends = vec![log.position()];
    for n in 0..4 {
        log.append(&[block_of(log.position(), 3, 3_000)], &[record(n)]).unwrap();
        ends.push(log.position());
    }
    let wal = std::fs::read(dir.path().join("log.db-wal")).unwrap();
    let db = std::fs::read(dir.path().join("log.db")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..=wal.len()).step_by(1_999).chain([wal.len()]) {
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("log.db"), &db).unwrap();
        std::fs::write(torn.path().join("log.db-wal"), &wal[..cut]).unwrap();
        // A cut before the tables were made leaves an empty file, which is a new log.
        let mut log = Log::open(torn.path()).unwrap();
        let nth = ends.iter().position(|end| *end == log.position()).expect("a whole commit");
        assert_eq!(log.catalog_next(), nth as u64, "events and catalog of one commit stand or fall together");
        seen.insert(nth);
        log.append(&[next_block(&log, &["on"])], &[]).unwrap();
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn other_files_and_newer_formats_are_refused_in_plain_words() {
    let dir = tempfile::tempdir().unwrap();
    assert!(LogReader::open(dir.path()).err().unwrap().to_string().contains("there is no log in"));
    drop(Log::open(dir.path()).unwrap());
    meddle(dir.path(), "UPDATE meta SET value = '7'");
    for error in [Log::open(dir.path()).err().unwrap(), LogReader::open(dir.path()).err().unwrap()] {
        let text = format!("{error:#}");
        assert!(text.contains("log.db") && text.contains("format 7") && text.contains("newer"), "{text}");
    }
    meddle(dir.path(), "DROP TABLE meta");
    assert!(format!("{:#}", Log::open(dir.path()).err().unwrap()).contains("not a Clickback log"));
}
