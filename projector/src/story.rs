//! Tests of the whole: tables, reports, audit and rebuild over made-up stories.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use pipeline::{
    lifecycle::{Beat, Health},
    log::{Batch, LogEnd, LogReader},
};
use proptest::prelude::*;
use rusqlite::params;
use schemas::{Time, chain::Position, time::MINUTE_MS};

use crate::{
    audit::audit,
    report::{
        Basis, ClickName, ClickQuery, ConversionQuery, Dimension, Filter, Filters, Match, Moment, PostbackQuery,
        QueryError, ReportQuery, Reports,
    },
    run::{Projector, spawn},
    tables::{Tables, generation},
    testing::{START, Step, TENANT, World, append, directory, folder, nth_conversion, open_log, steps},
};

pub(crate) fn reports(dir: &std::path::Path) -> Reports {
    Reports::at(&generation::live(dir).unwrap().unwrap().path)
}

/// Takes everything from the log into new tables at once.
pub(crate) fn fill(dir: &std::path::Path, log: &LogReader) -> Tables {
    let (_, mut tables) = generation::open(dir, log).unwrap();
    crate::run::catch_up_for_tests(log, &mut tables);
    tables
}

/// An audit that has to find the tables as they should be.
fn is_right(dir: &std::path::Path) -> Result<(), TestCaseError> {
    let found = audit(dir).unwrap();
    prop_assert_eq!(found.differences, Vec::<String>::new());
    prop_assert_eq!(found.different, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// Whatever the split into batches, flushes and restarts, the tables are the fold of all outcomes.
    #[test]
    fn tables_are_the_fold_of_the_outcomes(
        steps in steps(1..120),
        batches in proptest::collection::vec((1usize..12, 0u8..6), 1..40),
    ) {
        let world = World::of(&steps);
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_log(dir.path());
        let reader = log.reader().unwrap();
        let (_, mut tables) = generation::open(dir.path(), &reader).unwrap();
        let mut rest = &world.outcomes[..];
        let mut sizes = batches.iter().copied().cycle();
        while !rest.is_empty() {
            let (size, then) = sizes.next().unwrap();
            let (part, after) = rest.split_at(size.min(rest.len()));
            let first = log.position().next;
            let end = append(&mut log, part);
            tables.take(first, part).unwrap();
            match then {
                0 | 1 => tables.flush(end).unwrap(),
                2 => {
                    // A crash before the flush: what was taken is gone, and is read from the log again.
                    drop(tables);
                    tables = fill(dir.path(), &reader);
                }
                3 => {
                    tables.flush(end).unwrap();
                    tables.checkpoint().unwrap();
                    drop(tables);
                    tables = fill(dir.path(), &reader);
                }
                _ => {}
            }
            rest = after;
        }
        tables.flush(log.position()).unwrap();
        is_right(dir.path())?;
    }

    /// Cells and rows give the same report.
    #[test]
    fn cells_and_rows_agree(steps in steps(1..150), queries in proptest::collection::vec(queries(), 12)) {
        let world = World::of(&steps);
        let (dir, log) = folder(&world.outcomes, &[5, 1, 30]);
        fill(dir.path(), &log.reader().unwrap()).checkpoint().unwrap();
        let reports = reports(dir.path());
        let directory = directory();
        for query in queries {
            let by_cells = reports.conversions_report(&directory, &query).unwrap();
            let by_rows = reports.live().unwrap().read(|snapshot| crate::report::answer_by_rows(snapshot, &directory, &query)).unwrap();
            prop_assert_eq!(&by_cells.rows, &by_rows.rows, "{:?}", query);
            prop_assert_eq!(&by_cells.totals, &by_rows.totals);
            paged(&reports, &query, &by_cells.rows)?;
        }
    }

    /// Lists show each row once over all pages, and look-ups find what scans find.
    #[test]
    fn lists_are_complete(steps in steps(1..120), limit in 1usize..9) {
        let world = World::of(&steps);
        let (dir, log) = folder(&world.outcomes, &[3, 9]);
        fill(dir.path(), &log.reader().unwrap());
        let reports = reports(dir.path());
        let all = pages(&reports, &postbacks(limit));
        let mut newest_first: Vec<_> = world.hits.clone();
        newest_first.reverse();
        prop_assert_eq!(all.iter().map(|row| row.hit).collect::<Vec<_>>(), newest_first);
        for row in &all {
            prop_assert_eq!(reports.hit(TENANT, row.hit).unwrap(), Some(row.clone()));
            prop_assert_eq!(reports.hit("another", row.hit).unwrap(), None);
        }
        for query in filters(limit) {
            let wanted: Vec<_> = all.iter().filter(|row| is_wanted(&query, row)).cloned().collect();
            prop_assert_eq!(pages(&reports, &query), wanted, "{:?}", query);
        }
        for click in &world.clicks {
            let journey = reports.journey(TENANT, click.id).unwrap().unwrap();
            prop_assert_eq!(&journey.click.id, &click.id.to_string());
            let id = click.id.to_string();
            prop_assert_eq!(journey.hits.len(), all.iter().filter(|row| row.click.as_ref() == Some(&id)).count());
            for conversion in &journey.conversions {
                prop_assert_eq!(reports.conversion(TENANT, &conversion.id).unwrap(), Some(conversion.clone()));
            }
            let by = click.foreign.clone().map_or(ClickName::Id(id.clone()), |id| ClickName::Id(id.to_uppercase()));
            let query = ClickQuery { tenant: TENANT.to_owned(), account: click.account.clone(), by, limit: 10, cursor: None };
            let found = reports.clicks(&query).unwrap().items;
            prop_assert_eq!(found.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), [id]);
        }
        conversion_lists(&reports, limit)?;
    }
}

pub(crate) fn queries() -> impl Strategy<Value = ReportQuery> {
    let dimensions = proptest::sample::subsequence(Dimension::ALL.to_vec(), 0..4).prop_shuffle();
    let value = prop_oneof!["V[0-3]", "!V[0-3]", Just(String::new()), Just("!".to_owned()), "lnk_[0-2]", "acc_[0-2]"];
    let of = proptest::sample::select(Dimension::ALL[3..12].to_vec());
    let filters = proptest::collection::vec((of, proptest::collection::vec(value, 1..3)), 0..2);
    let moment = (-3_000i64..4_000, prop_oneof![2 => Just(15 * MINUTE_MS), 1 => Just(1_001)]);
    let zone = proptest::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"]);
    (dimensions, filters, moment, 0i64..4_000, zone, any::<bool>(), any::<bool>(), 0usize..4).prop_map(
        |(group_by, filters, (from, unit), len, tz, by_time, bots, sort)| {
            let from = (START + from * MINUTE_MS).div_euclid(unit) * unit;
            let to = (from + len * 3 * MINUTE_MS).div_euclid(unit) * unit;
            let sorts = [None, Some("-clicks"), Some("goal_signups"), Some("-earning_EUR")];
            ReportQuery {
                tenant: TENANT.to_owned(),
                now: Time::from_ms(START),
                from: Some(Moment::Instant(Time::from_ms(from))),
                to: Some(Moment::Instant(Time::from_ms(to.max(from)))),
                tz: Some(tz.to_owned()),
                basis: if by_time { Basis::Conversion } else { Basis::Click },
                group_by,
                filters: filters
                    .into_iter()
                    .map(|(of, values)| (of, Filter(values.iter().map(|value| Match::parse(value)).collect())))
                    .collect(),
                sort: sorts[sort].map(str::to_owned),
                limit: None,
                cursor: None,
                bots,
            }
        },
    )
}

/// Pages together are the whole.
fn paged(reports: &Reports, query: &ReportQuery, whole: &[crate::report::ReportRow]) -> Result<(), TestCaseError> {
    let mut rows = Vec::new();
    let mut query = ReportQuery { limit: Some(3), ..query.clone() };
    loop {
        let page = reports.conversions_report(&directory(), &query).unwrap();
        prop_assert!(page.rows.len() <= 3);
        rows.extend(page.rows);
        if page.cursor.is_none() {
            break;
        }
        query.cursor = page.cursor;
    }
    prop_assert_eq!(&rows[..], whole);
    Ok(())
}

pub(crate) fn postbacks(limit: usize) -> PostbackQuery {
    PostbackQuery {
        tenant: TENANT.to_owned(),
        now: Time::from_ms(START),
        from: Some(Moment::Instant(Time::from_ms(0))),
        to: Some(Moment::Instant(Time::from_ms(START * 2))),
        limit,
        ..PostbackQuery::default()
    }
}

pub(crate) fn pages(reports: &Reports, query: &PostbackQuery) -> Vec<crate::report::PostbackRow> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    loop {
        let page = reports.postbacks(&query).unwrap();
        assert!(page.items.len() <= query.limit);
        rows.extend(page.items);
        match page.cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return rows,
        }
    }
}

pub(crate) fn only(value: &str) -> Filter {
    Filter(vec![Match::Is(value.to_owned())])
}

pub(crate) fn filters(limit: usize) -> Vec<PostbackQuery> {
    use schemas::{Reason, outcome::Status};
    let some = |change: fn(&mut PostbackQuery)| {
        let mut query = postbacks(limit);
        change(&mut query);
        query
    };
    vec![
        some(|q| q.outcomes = vec![Status::Rejected, Status::Waiting]),
        some(|q| q.outcomes = vec![Status::Converted]),
        some(|q| q.accounts = vec!["acc_1".to_owned(), "acc_2".to_owned()]),
        some(|q| q.accounts = vec!["nobody".to_owned()]),
        some(|q| q.reasons = vec![Reason::UnknownClick, Reason::MissingClick]),
        some(|q| q.tid = only("t1")),
        some(|q| q.click = only("NAME1")),
        some(|q| q.q = Some("CLICKID=1".to_owned())),
        some(|q| {
            q.outcomes = vec![Status::Withdrawn];
            q.accounts = vec!["acc_0".to_owned()];
        }),
        some(|q| q.from = Some(Moment::Instant(Time::from_ms(START + 20 * MINUTE_MS)))),
    ]
}

fn is_wanted(query: &PostbackQuery, row: &crate::report::PostbackRow) -> bool {
    let from = match &query.from {
        Some(Moment::Instant(from)) => *from,
        _ => Time::default(),
    };
    row.time >= from
        && (query.outcomes.is_empty() || query.outcomes.contains(&row.outcome))
        && (query.accounts.is_empty() || query.accounts.contains(&row.account))
        && (query.reasons.is_empty() || row.reason.is_some_and(|reason| query.reasons.contains(&reason)))
        && (query.tid.0.is_empty() || row.goals.iter().any(|goal| goal.tid.as_deref() == Some("t1")))
        && (query.click.0.is_empty() || row.click.as_deref() == Some("Name1"))
        && (query.q.is_none() || row.raw.to_lowercase().contains("clickid=1"))
}

fn conversion_lists(reports: &Reports, limit: usize) -> Result<(), TestCaseError> {
    let all = |query: ConversionQuery| {
        let mut query = ConversionQuery { tenant: TENANT.to_owned(), limit, ..query };
        let mut rows = Vec::new();
        loop {
            let page = reports.conversions(&query).unwrap();
            rows.extend(page.items);
            match page.cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return rows,
            }
        }
    };
    let everything = all(ConversionQuery::default());
    let made = everything.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let mut newest_first: Vec<_> = (0..made.len()).map(|n| nth_conversion(n).to_string()).collect();
    newest_first.reverse();
    prop_assert_eq!(made, newest_first);
    let middle = Time::from_ms(START + 30 * MINUTE_MS);
    let updated = all(ConversionQuery { updated_after: Some(middle), ..ConversionQuery::default() });
    prop_assert_eq!(updated, everything.iter().filter(|row| row.updated > middle).cloned().collect::<Vec<_>>());
    for basis in [Basis::Click, Basis::Conversion] {
        let from = Some(Moment::Instant(middle));
        let to = Some(Moment::Instant(middle.plus_ms(1_000 * MINUTE_MS)));
        let some =
            all(ConversionQuery { from, to, basis, goals: vec!["signups".to_owned()], ..ConversionQuery::default() });
        let within = |row: &&crate::report::ConversionRow| {
            let time = if basis == Basis::Click { row.click_time } else { row.time };
            time >= middle && time < middle.plus_ms(1_000 * MINUTE_MS) && row.goal == "signups"
        };
        prop_assert_eq!(some, everything.iter().filter(within).cloned().collect::<Vec<_>>());
    }
    let of_tid = all(ConversionQuery { tid: only("t2"), ..ConversionQuery::default() });
    prop_assert_eq!(
        of_tid,
        everything.iter().filter(|row| row.tid.as_deref() == Some("t2")).cloned().collect::<Vec<_>>()
    );
    Ok(())
}

fn beat() -> Beat {
    Health::new(Duration::from_secs(60)).component("projector")
}

fn some_world(clicks: u32) -> World {
    let mut steps = Vec::new();
    for n in 0..clicks {
        let values = [Some(n as u8 % 7), Some(1), None, None, None, None];
        steps.push(Step::Click {
            account: n as u8,
            link: Some(0),
            values,
            flag: false,
            earlier_min: 0,
            imported: false,
        });
        steps.push(Step::Convert {
            click: n as u8,
            goal: n as u8,
            state: 1,
            count: 1,
            earning: Some(1_000),
            usd: false,
            tid: Some(1),
            later_min: 1,
        });
    }
    World::of(&steps)
}

#[test]
fn the_audit_finds_what_was_planted() {
    let world = some_world(40);
    let plant = |sql: &str, what: &str| {
        let (dir, log) = folder(&world.outcomes, &[10]);
        drop(fill(dir.path(), &log.reader().unwrap()));
        assert_eq!(audit(dir.path()).unwrap().different, 0);
        let conn = rusqlite::Connection::open(generation::live(dir.path()).unwrap().unwrap().path).unwrap();
        assert!(conn.execute(sql, params![]).unwrap() > 0);
        drop(conn);
        let found = audit(dir.path()).unwrap();
        assert!(found.different > 0 && found.differences[0].contains(what), "{sql}: {:?}", found.differences);
    };
    plant("DELETE FROM cells WHERE page = (SELECT min(page) FROM cells)", "cell default/acc_0");
    plant("DELETE FROM cell_segments", "cell default/acc_0");
    let last = "(SELECT data FROM cells ORDER BY page DESC LIMIT 1)";
    plant(&format!("UPDATE cells SET data = {last} WHERE page = (SELECT min(page) FROM cells)"), "cell");
    plant("UPDATE hits SET data = (SELECT max(data) FROM hits) WHERE src = (SELECT min(src) FROM hits)", "hit");
    plant("DELETE FROM hits WHERE src = (SELECT max(src) FROM hits)", "1 hits of the log");
    plant("DELETE FROM clicks WHERE src = 0", "1 clicks of the log");
    plant("DELETE FROM conversions WHERE number = 3", &format!("conversion {}", nth_conversion(3)));
    plant("UPDATE conversions SET data = (SELECT max(data) FROM conversions) WHERE number = 3", "conversion");
}

/// Waits until the projector shows everything before `next`.
fn shows(projector: &Projector, next: u64) {
    let mut visible = projector.visible.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { visible.wait_for(|seen| *seen >= next).await.map(drop) }).unwrap();
}

fn batch(world: &World, first: usize, end: Position) -> Arc<Batch> {
    let outcomes = world.outcomes[first..end.next as usize].iter().cloned().map(Arc::new).collect();
    Arc::new(Batch { first: first as u64, end, outcomes })
}

#[test]
fn a_read_ends_when_its_time_is_over() {
    let world = some_world(20);
    let (dir, log) = folder(&world.outcomes, &[9]);
    fill(dir.path(), &log.reader().unwrap());
    let (reports, directory) = (reports(dir.path()), directory());
    let query = ReportQuery { now: Time::from_ms(START), tenant: TENANT.to_owned(), ..ReportQuery::default() };
    let ask = |until| {
        reports
            .live()
            .unwrap()
            .read_until(until, |snapshot| crate::report::answer_by_rows(snapshot, &directory, &query))
            .err()
    };
    let now = std::time::Instant::now();
    assert!(matches!(ask(Some(now)), Some(QueryError::TooLong)));
    assert!(ask(Some(now + Duration::from_secs(60))).is_none() && ask(None).is_none());
}

/// As it is asked whether a link has clicks. It took so long that it was given up: every day since 1970 was looked at.
#[test]
fn all_of_time_is_no_more_than_the_days_that_are_there() {
    let world = some_world(20);
    let (dir, log) = folder(&world.outcomes, &[9]);
    fill(dir.path(), &log.reader().unwrap());
    let query = ReportQuery {
        tenant: TENANT.to_owned(),
        from: Some(Moment::Instant(Time::from_ms(0))),
        to: Some(Moment::Instant(Time::from_ms(i64::MAX))),
        filters: Filters::from([(Dimension::Link, only("lnk_0"))]),
        ..ReportQuery::default()
    };
    let report = reports(dir.path()).conversions_report(&directory(), &query).unwrap();
    assert_eq!(report.totals.clicks, Some(20));
}

#[test]
fn follows_batches_and_reads_what_is_missing_from_the_log() {
    let world = some_world(60);
    let (dir, mut log) = folder(&world.outcomes[..20], &[4]);
    let end = Arc::new(LogEnd::new(20));
    let (sender, receiver) = mpsc::sync_channel(4);
    let projector = spawn(dir.path(), log.reader().unwrap(), receiver, Arc::clone(&end), beat()).unwrap();
    let mut decided = projector.decided.subscribe();
    shows(&projector, 20);
    let position = append(&mut log, &world.outcomes[20..30]);
    end.set(30);
    sender.send(batch(&world, 20, position)).unwrap();
    shows(&projector, 30);
    let news = decided.blocking_recv().unwrap();
    assert_eq!((news[0].hit, &*news[0].tenant), (world.outcomes[21].id, TENANT));
    // This one never comes as a batch; the next one shows the gap.
    append(&mut log, &world.outcomes[30..45]);
    let position = append(&mut log, &world.outcomes[45..50]);
    end.set(50);
    sender.send(batch(&world, 45, position)).unwrap();
    shows(&projector, 50);
    // Nor does this one, and nothing follows it.
    append(&mut log, &world.outcomes[50..60]);
    end.set(60);
    shows(&projector, 60);
    append(&mut log, &world.outcomes[60..]);
    end.set(120);
    drop(sender);
    let reports = projector.reports.clone();
    projector.join().unwrap();
    assert_eq!(reports.position().unwrap(), 120);
    assert_eq!(audit(dir.path()).unwrap().different, 0);
}

#[test]
fn a_rebuild_switches_to_new_tables_while_the_old_serve() {
    let world = some_world(100);
    let (dir, mut log) = folder(&world.outcomes[..150], &[9]);
    let end = Arc::new(LogEnd::new(150));
    let (sender, receiver) = mpsc::sync_channel(4);
    let projector = spawn(dir.path(), log.reader().unwrap(), receiver, Arc::clone(&end), beat()).unwrap();
    shows(&projector, 150);
    let before = generation::live(dir.path()).unwrap().unwrap();
    let held = projector.reports.clone();
    // Damage that only a rebuild repairs.
    let conn = rusqlite::Connection::open(&before.path).unwrap();
    conn.execute("DELETE FROM cells", []).unwrap();
    drop(conn);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(projector.rebuild()).unwrap();
    let after = generation::live(dir.path()).unwrap().unwrap();
    assert!(after.number > before.number && !before.path.exists());
    assert_eq!(held.position().unwrap(), 150);
    let position = append(&mut log, &world.outcomes[150..]);
    end.set(200);
    sender.send(batch(&world, 150, position)).unwrap();
    shows(&projector, 200);
    drop(sender);
    projector.join().unwrap();
    assert_eq!(audit(dir.path()).unwrap().different, 0);
}

#[test]
fn tables_of_another_log_or_form_are_built_again() {
    let world = some_world(10);
    let (dir, log) = folder(&world.outcomes, &[4]);
    drop(fill(dir.path(), &log.reader().unwrap()));
    let path = generation::live(dir.path()).unwrap().unwrap().path;
    let break_with = |sql: &str| {
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        let reader = log.reader().unwrap();
        let (_, tables) = generation::open(dir.path(), &reader).unwrap();
        assert_eq!(tables.position(), Position::START, "{sql}");
        drop(tables);
        drop(fill(dir.path(), &reader));
        assert_eq!(audit(dir.path()).unwrap().different, 0);
    };
    break_with("UPDATE position SET chain = '0123456789abcdef0123456789abcdef'");
    break_with("UPDATE position SET next = 1000");
    break_with("PRAGMA user_version = 77");
    break_with("UPDATE position SET live = 0");
    std::fs::write(&path, b"this is no database, but it is long enough to be read as one: ........................")
        .unwrap();
    let (_, tables) = generation::open(dir.path(), &log.reader().unwrap()).unwrap();
    assert_eq!(tables.position(), Position::START);
}

/// Values beyond the bound of a day fold into one row; totals stay exact, and a filter still finds single values.
#[test]
fn free_values_beyond_the_bound_are_other() {
    let named = schemas::bounds::FREE_VALUES_PER_DAY;
    let mut world = some_world(1);
    let click = world.outcomes[0].clone();
    world.outcomes = (0..named + 20)
        .map(|n| {
            let mut outcome = click.clone();
            let data = outcome.click.as_mut().unwrap();
            data.id = schemas::ClickId::new(data.time, 1, n as u64);
            data.dyn_ = Some(format!("value{n:05}"));
            outcome
        })
        .collect();
    let (dir, log) = folder(&world.outcomes, &[4_000, 4_000, 4_000]);
    drop(fill(dir.path(), &log.reader().unwrap()));
    assert_eq!(audit(dir.path()).unwrap().different, 0);
    let reports = reports(dir.path());
    let mut query = ReportQuery {
        tenant: TENANT.to_owned(),
        now: Time::from_ms(START),
        group_by: vec![Dimension::Dyn],
        sort: Some("-clicks".to_owned()),
        limit: Some(2),
        ..ReportQuery::default()
    };
    let report = reports.conversions_report(&directory(), &query).unwrap();
    assert_eq!(report.totals.clicks, Some(named as i64 + 20));
    assert!(report.rows[0].other && report.rows[0].measures.clicks == Some(20) && !report.rows[0].at_least);
    assert!(report.rows[1].at_least && report.rows[1].measures.clicks == Some(1));
    assert!(
        serde_json::to_string(&report.rows[1])
            .unwrap()
            .starts_with(r#"{"dyn":"value00000","at_least":true,"clicks":1"#)
    );
    let unnamed = Filter(vec![Match::Is(format!("value{:05}", named + 7))]);
    query.filters = Filters::from([(Dimension::Dyn, unnamed)]);
    let report = reports.conversions_report(&directory(), &query).unwrap();
    assert_eq!((report.rows.len(), report.rows[0].measures.clicks, report.rows[0].at_least), (1, Some(1), false));
}

#[test]
fn a_label_keeps_its_figures_through_a_reprocess_that_voids_it() {
    let steps = [
        Step::Label { account: 0, label: 1, goal: 0, earning: Some(500) },
        Step::Reprocess { conversion: 0, dry_run: true },
        Step::Reprocess { conversion: 0, dry_run: false },
    ];
    let world = World::of(&steps);
    let (dir, log) = folder(&world.outcomes, &[1]);
    drop(fill(dir.path(), &log.reader().unwrap()));
    assert_eq!(audit(dir.path()).unwrap().different, 0);
    let query = ReportQuery {
        tenant: TENANT.to_owned(),
        now: Time::from_ms(START),
        group_by: vec![Dimension::Dyn],
        ..ReportQuery::default()
    };
    let report = reports(dir.path()).conversions_report(&directory(), &query).unwrap();
    assert!(report.rows.is_empty(), "{:?}", report.rows);
}
