use std::{path::Path, sync::Arc};

use pipeline::{
    Appender, Sealer, append,
    lifecycle::{CancellationToken, Health},
};
use schemas::{
    ClickId,
    event::{self, Hit, HitSettings, Money, Name, Raw, Reading},
    goal::Dedup,
    outcome::{Kind, Status},
    time::DAY_MS,
};

use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A matcher's thread on a folder.
struct Running {
    appender: Appender,
    thread: JoinHandle<Result<()>>,
    stop: CancellationToken,
    _batches: Receiver<Arc<Batch>>,
}

fn beat() -> Beat {
    Health::new(Duration::from_secs(60)).component("matcher")
}

fn start_on(dir: &Path) -> Result<Running> {
    let log = Log::open(dir)?;
    let (appender, requests) = append::channel(100_000);
    let (batches, _batches) = sync_channel(1);
    let catalog = Arc::new(Catalog::load(&log.reader()?, Arc::new(Sealer::from_text(KEY)?))?);
    let end = Arc::new(LogEnd::new(log.position().next));
    let stop = CancellationToken::new();
    let thread =
        start(Parts { dir: dir.to_owned(), log, requests, catalog, batches, end, beat: beat(), stop: stop.clone() })?;
    Ok(Running { appender, thread, stop, _batches })
}

impl Running {
    fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, Unavailable> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.appender.append_all(drafts))
    }

    fn stop(self) -> Result<()> {
        drop(self.appender);
        self.thread.join().unwrap()
    }
}

fn draft(n: u64, body: EventBody) -> Draft {
    let now = clock::now();
    Draft { id: EventId::new(now, 0, n), tenant: "t".into(), time: now, shard: 0, body }
}

fn clicks(from: u64, count: u64) -> (Vec<ClickId>, Vec<Draft>) {
    let made = (from..from + count).map(|n| {
        let id = ClickId::new(clock::now(), 0, n);
        let click = event::Click {
            id,
            account: "a".into(),
            program: "generic".into(),
            link: None,
            time: clock::now(),
            dyn_: Some(format!("visitor-{n}-{}", "x".repeat(100))),
            foreign: None,
            sub1: None,
            sub2: None,
            sub3: None,
            sub4: None,
            sub5: None,
            flags: Vec::new(),
            agent: None,
            referrer: None,
            alias: Some(format!("visitor-{n}")),
            lookback_days: 90,
            lifetime_days: 1_825,
            waiting_days: 7,
        };
        (id, draft(n, EventBody::Click(click)))
    });
    made.unzip()
}

fn hit_on(n: u64, click: ClickId) -> Draft {
    let goal = event::GoalReading {
        goal: "signups".into(),
        count: 1,
        dedup: Dedup::Once,
        repeat_window_s: 600,
        money: Money::default(),
    };
    let reading = Reading { name: Some(Name::Click(click)), goals: vec![goal], ..Reading::default() };
    let settings = HitSettings {
        lookback_days: 90,
        lifetime_days: 1_825,
        waiting_days: 7,
        default_goal: "sales".into(),
        default_dedup: Dedup::PerTransaction,
        default_repeat_window_s: 600,
    };
    let hit = Hit { account: "a".into(), program: "generic".into(), raw: Raw::default(), reading, settings };
    draft(n, EventBody::Hit(hit))
}

fn status_of(dir: &Path, receipt: Receipt) -> Status {
    let outcome = pipeline::LogReader::open(dir).unwrap().outcome(receipt.src().unwrap()).unwrap().unwrap();
    outcome.hits[0].outcome
}

/// A folder whose state was saved, and the clicks in it.
fn saved_folder() -> (tempfile::TempDir, Vec<ClickId>) {
    let dir = tempfile::tempdir().unwrap();
    let running = start_on(dir.path()).unwrap();
    let (ids, drafts) = clicks(0, 2_000);
    running.append(drafts).unwrap();
    running.stop().unwrap();
    (dir, ids)
}

#[test]
fn a_state_cache_that_was_damaged_or_lost_is_rebuilt() {
    let (dir, ids) = saved_folder();
    let path = dir.path().join(store::FILE);
    let whole = std::fs::read(&path).unwrap();
    let meddle = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let damages: [(&str, &dyn Fn()); 7] = [
        ("deleted", &|| std::fs::remove_file(&path).unwrap()),
        ("cut off", &|| std::fs::write(&path, &whole[..whole.len() / 2]).unwrap()),
        ("no database", &|| std::fs::write(&path, vec![7; 20_000]).unwrap()),
        ("zeroes behind the first page", &|| {
            std::fs::write(&path, [&whole[..4_096], &vec![0; whole.len() - 4_096]].concat()).unwrap();
        }),
        ("records that cannot be read", &|| meddle("UPDATE clicks SET data = x'ff'")),
        ("no meaning", &|| meddle("UPDATE meta SET data = x'', chain = 'x'")),
        ("of another log", &|| meddle("UPDATE meta SET chain = '0123456789abcdef0123456789abcdef'")),
    ];
    for (n, (what, damage)) in damages.iter().enumerate() {
        damage();
        // What a live read finds ends the process; the start after that must not find it again.
        let mut found = None;
        for _ in 0..2 {
            let running = start_on(dir.path()).unwrap_or_else(|error| panic!("{what}: {error:#}"));
            found = running.append(vec![hit_on(100_000 + n as u64, ids[n])]).ok();
            let ended = running.stop();
            assert_eq!(ended.is_ok(), found.is_some(), "{what}: {ended:?}");
            if found.is_some() {
                break;
            }
        }
        let receipt = found.unwrap_or_else(|| panic!("{what}: still there at the second start"))[0];
        assert_eq!(status_of(dir.path(), receipt), Status::Converted, "{what}");
    }
}

#[test]
fn recovery_keeps_nothing_to_take_back() {
    let (dir, _) = saved_folder();
    store::delete(dir.path()).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let (state, _, _) = recover(dir.path(), &log, &beat()).unwrap();
    assert_eq!(state.clicks.len(), 2_000);
    assert_eq!(state.clicks.undo_len() + state.names.undo_len() + state.runs.undo_len(), 0);
}

/// A wrong clock moved log time ahead; then it was set right and the process was started again.
#[test]
fn events_after_a_clock_that_was_ahead_are_not_taken_for_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = clock::now().plus_ms(400 * DAY_MS);
    let mut log = Log::open(dir.path()).unwrap();
    let id = EventId::new(ahead, 0, 1);
    let tick =
        Event { v: event::VERSION, id, tenant: String::new(), time: ahead, from: id, n: 0, body: EventBody::Tick };
    let outcome = decide(&State::default(), Cause { src: 0, appended: ahead }, &tick).unwrap();
    assert_eq!(outcome.log_time, Some(ahead));
    let (mut events, mut outcomes) = (serde_json::to_vec(&tick).unwrap(), serde_json::to_vec(&outcome).unwrap());
    let prev = log.position().chain;
    let chain = prev.next(&outcomes);
    events.push(b'\n');
    outcomes.push(b'\n');
    log.append(&[Block { first: 0, count: 1, time: ahead, events, outcomes, prev, chain }], &[]).unwrap();
    drop(log);

    let running = start_on(dir.path()).unwrap();
    let (_, drafts) = clicks(0, 3);
    let receipts = running.append(drafts).unwrap();
    running.stop().unwrap();
    let reader = pipeline::LogReader::open(dir.path()).unwrap();
    for receipt in receipts {
        assert_eq!(reader.outcome(receipt.src().unwrap()).unwrap().unwrap().kind, Kind::Click);
    }
}

#[test]
fn ticks_go_on_after_the_clock_was_set_back() {
    let now = Time::from_ms(1_000_000_000_000);
    let minute = now.plus_ms(MINUTE_MS);
    assert!(is_due(Time::from_ms(0), now) && is_due(now, now));
    assert!(!is_due(minute, now) && !is_due(minute, now.plus_ms(1)));
    assert!(is_due(minute, now.plus_ms(-1)) && is_due(now.plus_ms(3_650 * DAY_MS), now));
}

#[test]
fn a_batch_without_room_leaves_nothing_and_the_next_one_counts() {
    let (dir, ids) = saved_folder();
    let log = Log::open(dir.path()).unwrap();
    let (mut state, mut reader, _) = recover(dir.path(), &log, &beat()).unwrap();
    let event = hit_on(1, ids[7]).into_event(EventId::new(clock::now(), 0, 5), 0);
    let cause = Cause { src: log.position().next, appended: clock::now() };
    state.begin();
    // As if something had been changed that was not loaded before.
    state.clicks.set(ids[9], None);
    reader.load(&mut state, &event).unwrap();
    let outcome = decide(&state, cause, &event).unwrap();
    apply(&mut state, cause, &event, &outcome);
    state.rollback();
    assert!(!state.clicks.is_loaded(&ids[9]));
    let (clicks, _) = state.clicks.take_dirty().into_iter().partition::<Vec<_>, _>(|(id, _)| *id == ids[9]);
    assert!(clicks.is_empty(), "a click that is only in the file would be deleted there");
    assert_eq!(decide(&state, cause, &event).unwrap(), outcome);
}

#[test]
fn a_stop_does_not_wait_for_somebody_who_keeps_an_appender() {
    let dir = tempfile::tempdir().unwrap();
    let running = start_on(dir.path()).unwrap();
    running.append(clicks(0, 3).1).unwrap();
    let kept = running.appender.clone();
    running.stop.cancel();
    let (said, heard) = sync_channel(1);
    std::thread::spawn(move || said.send(running.stop()));
    heard.recv_timeout(Duration::from_secs(20)).expect("the thread ends").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (_, late) = clicks(3, 1);
    assert_eq!(runtime.block_on(kept.append_all(late)), Err(Unavailable::Closed));
    let (_, _, _, saved) = store::open(dir.path()).unwrap();
    assert_eq!(saved, pipeline::LogReader::open(dir.path()).unwrap().position().unwrap());
}
