//! The tables of a cluster against those of a folder: the same outcomes, the same answers.
//!
//! They need a database, whose address is in CLICKBACK_TEST_SCYLLA.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use futures_util::TryStreamExt;
use pipeline::kafka::{Met, Place, records::Number};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use schemas::{
    EventId, Outcome, Time,
    bounds::FREE_VALUES_PER_DAY,
    chain::{Chain, Position},
    status::State,
    time::{DAY_MS, MINUTE_MS},
};
use tokio::{runtime::Runtime, sync::watch};

use super::walk::{Bounds, Found, Key, merged};
use crate::{
    cluster::{
        flush::Writer,
        positions,
        store::{self, Database, Store},
    },
    report::{
        AsOf, Basis, ClickName, ClickQuery, ConversionQuery, ConversionRow, Dimension, Filter, Filters, Match, Moment,
        PostbackQuery, QueryError, Range, ReportQuery, Reports, figures::answer,
    },
    story::{fill, filters, only, pages, postbacks, queries, reports as reports_of},
    testing::{START, Step, World, account, directory, folder, nth_conversion, steps},
};

const PARTITIONS: u16 = 3;

fn given() -> Option<String> {
    let value = std::env::var("CLICKBACK_TEST_SCYLLA").ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CLICKBACK_TEST_SCYLLA is not set: the tables would not be tested");
        eprintln!("skipped: CLICKBACK_TEST_SCYLLA is not set");
    }
    value
}

/// A keyspace that nobody else uses, for as long as this is held.
pub(in crate::cluster) struct Tables {
    pub(in crate::cluster) runtime: Runtime,
    pub(in crate::cluster) store: Arc<Store>,
    cases: Cell<usize>,
    /// Values of a day that have cells of their own.
    names: usize,
}

impl Tables {
    pub(in crate::cluster) fn new(name: &str) -> Option<Tables> {
        let nodes = given()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let prefix = format!("{name}_{}_{}", pipeline::clock::now().ms(), std::process::id());
        let database = Database::new(&nodes, &prefix);
        let store = runtime.block_on(async {
            store::init(&database, "test", Some(1)).await.unwrap();
            Store::open(&database, "test").await.unwrap()
        });
        Some(Tables { runtime, store: Arc::new(store), cases: Cell::new(0), names: FREE_VALUES_PER_DAY })
    }

    /// A tenant that nobody had before, and the number of its first conversion.
    fn tenant(&self) -> (String, usize) {
        let number = self.cases.get();
        self.cases.set(number + 1);
        (format!("tenant{number}"), number * 1_000_000)
    }

    fn reports(&self) -> Reports {
        let read = self.runtime.block_on(positions::read(&self.store, PARTITIONS)).unwrap();
        let (_, store) = watch::channel(Arc::clone(&self.store));
        let (_, positions) = watch::channel(Arc::new(read));
        Reports::cluster(store, positions, self.runtime.handle().clone())
    }

    /// Takes the outcomes of every source partition, of some of them twice, as after a crash.
    fn take(&self, world: &World, partitions: u16, sizes: &[usize], again: usize) {
        let parts = split(&world.outcomes, partitions);
        let tasks = parts.into_iter().map(|(partition, outcomes)| async move {
            let again = again.min(outcomes.len());
            for part in [&outcomes[..again], &outcomes[..]] {
                let writer = Writer::open((*self.store).clone(), partition).await.unwrap();
                let mut writer = writer.naming(self.names).unwrap();
                let mut left = sizes.iter().copied().cycle().take(part.len()).chain([usize::MAX]);
                let mut until_flush = left.next().unwrap();
                for (src, outcome) in (1..).zip(part) {
                    writer.take(&met(src, outcome)).unwrap();
                    until_flush = until_flush.saturating_sub(1);
                    if until_flush == 0 {
                        writer.flush().await.unwrap();
                        until_flush = left.next().unwrap_or(1);
                    }
                }
                writer.flush().await.unwrap();
            }
        });
        self.runtime.block_on(futures_util::future::join_all(tasks));
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        let drop = format!("DROP KEYSPACE {}", self.store.keyspace);
        if let Err(error) = self.runtime.block_on(self.store.session.query_unpaged(drop, ())) {
            eprintln!("{} stays behind: {error}", self.store.keyspace);
        }
    }
}

pub(in crate::cluster) fn met(src: u64, outcome: &Outcome) -> Met {
    let position = Position { next: src + 1, chain: Chain::FIRST };
    Met {
        src,
        outcome: outcome.clone(),
        number: Number { from: EventId::from_bits(7), n: src },
        place: Place { offset: src + 1, position },
    }
}

/// Whatever belongs together is of one source partition, in the order of the log.
fn split(outcomes: &[Outcome], partitions: u16) -> BTreeMap<u16, Vec<Outcome>> {
    let mut groups: Vec<usize> = (0..outcomes.len()).collect();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let mut names: Vec<String> = outcome.changes.iter().map(|change| change.conversion.to_string()).collect();
        names.extend(outcome.hits.iter().map(|hit| hit.hit.id.to_string()));
        names.extend(outcome.hits.iter().flat_map(|hit| &hit.click).map(|click| click.id.to_string()));
        names.extend(outcome.click.iter().map(|click| click.id.to_string()));
        let made = outcome.hits.iter().flat_map(|hit| &hit.goals).filter_map(|goal| goal.conversion.as_ref());
        names.extend(made.map(|conversion| conversion.id.to_string()));
        for name in names {
            let group = groups[*known.entry(name).or_insert(at)];
            let mine = groups[at];
            groups.iter_mut().filter(|of| **of == mine).for_each(|of| *of = group);
        }
    }
    let mut parts = BTreeMap::<u16, Vec<Outcome>>::new();
    for (outcome, group) in outcomes.iter().zip(groups) {
        parts.entry((group % usize::from(partitions)) as u16).or_default().push(outcome.clone());
    }
    parts
}

/// The same world in a folder and in the cluster.
struct Both<'t> {
    _dir: tempfile::TempDir,
    world: World,
    tenant: String,
    folder: Reports,
    cluster: Reports,
    _tables: &'t Tables,
}

impl<'t> Both<'t> {
    fn of(tables: &'t Tables, steps: &[Step], partitions: u16, sizes: &[usize], again: usize) -> Both<'t> {
        let (tenant, first) = tables.tenant();
        let world = World::of_tenant(&tenant, first, steps);
        let (dir, log) = folder(&world.outcomes, &[5, 1, 30]);
        drop(fill(dir.path(), &log.reader().unwrap()));
        tables.take(&world, partitions, sizes, again);
        let (folder, cluster) = (reports_of(dir.path()), tables.reports());
        Both { _dir: dir, world, tenant, folder, cluster, _tables: tables }
    }

    fn figures(&self, query: &ReportQuery) -> Result<(), TestCaseError> {
        let query = ReportQuery { tenant: self.tenant.clone(), ..query.clone() };
        let folder = self.folder.conversions_report(&directory(), &query).unwrap();
        let cluster = self.cluster.conversions_report(&directory(), &query).unwrap();
        prop_assert_eq!(&cluster.rows, &folder.rows, "{:?}", &query);
        prop_assert_eq!(&cluster.totals, &folder.totals, "{:?}", &query);
        prop_assert_eq!((&cluster.query, &cluster.cursor), (&folder.query, &folder.cursor));
        Ok(())
    }

    fn postbacks(&self, query: &PostbackQuery) -> Result<(), TestCaseError> {
        let query = PostbackQuery { tenant: self.tenant.clone(), ..query.clone() };
        prop_assert_eq!(pages(&self.cluster, &query), pages(&self.folder, &query), "{:?}", query);
        Ok(())
    }

    fn conversions(&self, query: &ConversionQuery, in_order: bool) -> Result<(), TestCaseError> {
        let query = ConversionQuery { tenant: self.tenant.clone(), ..query.clone() };
        let (mut cluster, mut folder) = (all(&self.cluster, &query), all(&self.folder, &query));
        if !in_order {
            cluster.sort_by(|a, b| a.id.cmp(&b.id));
            folder.sort_by(|a, b| a.id.cmp(&b.id));
        }
        prop_assert_eq!(cluster, folder, "{:?}", query);
        Ok(())
    }

    fn look_ups(&self) -> Result<(), TestCaseError> {
        for hit in &self.world.hits {
            let found = self.cluster.hit(&self.tenant, *hit).unwrap();
            prop_assert!(found.is_some());
            prop_assert_eq!(found, self.folder.hit(&self.tenant, *hit).unwrap());
            prop_assert_eq!(self.cluster.hit("another", *hit).unwrap(), None);
        }
        for click in &self.world.clicks {
            let shown = |reports: &Reports| serde_json::to_value(reports.journey(&self.tenant, click.id).unwrap());
            let journey = shown(&self.cluster).unwrap();
            prop_assert!(!journey.is_null());
            prop_assert_eq!(journey, shown(&self.folder).unwrap());
            prop_assert!(self.cluster.journey("another", click.id).unwrap().is_none());
            let foreign = click.foreign.iter().map(|id| ClickName::Id(id.to_uppercase()));
            let by_dyn = click.dyn_.iter().map(|name| ClickName::Dyn(name.clone()));
            for by in foreign.chain(by_dyn).chain([ClickName::Id(click.id.to_string())]) {
                self.clicks(&click.account, by)?;
            }
        }
        for conversion in
            all(&self.folder, &ConversionQuery { tenant: self.tenant.clone(), limit: 100, ..<_>::default() })
        {
            let id = &conversion.id;
            let found = self.cluster.conversion(&self.tenant, id).unwrap();
            prop_assert!(found.is_some());
            prop_assert_eq!(found, self.folder.conversion(&self.tenant, id).unwrap());
            prop_assert!(self.cluster.conversion("another", id).unwrap().is_none());
        }
        Ok(())
    }

    fn clicks(&self, account: &str, by: ClickName) -> Result<(), TestCaseError> {
        let found = |reports: &Reports| {
            let mut query = ClickQuery {
                tenant: self.tenant.clone(),
                account: account.to_owned(),
                by: by.clone(),
                limit: 2,
                cursor: None,
            };
            let mut rows = Vec::new();
            loop {
                let page = reports.clicks(&query).unwrap();
                rows.extend(page.items);
                query.cursor = page.cursor;
                if query.cursor.is_none() {
                    rows.sort_by(|a, b| a.id.cmp(&b.id));
                    return rows;
                }
            }
        };
        let rows = found(&self.cluster);
        prop_assert!(!rows.is_empty());
        prop_assert_eq!(rows, found(&self.folder), "{:?}", by);
        Ok(())
    }
}

fn all(reports: &Reports, query: &ConversionQuery) -> Vec<ConversionRow> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    loop {
        let page = reports.conversions(&query).unwrap();
        assert!(page.items.len() <= query.limit);
        rows.extend(page.items);
        query.cursor = page.cursor;
        if query.cursor.is_none() {
            return rows;
        }
    }
}

fn at(minutes: i64) -> Time {
    Time::from_ms(START + minutes * MINUTE_MS)
}

fn more_postbacks(limit: usize, clicks: &World) -> Vec<PostbackQuery> {
    let mut queries = vec![
        PostbackQuery { tid: Filter(vec![Match::Is("t1".to_owned()), Match::Is("t2".to_owned())]), ..postbacks(limit) },
        PostbackQuery { tid: Filter(vec![Match::Not("t1".to_owned())]), ..postbacks(limit) },
        PostbackQuery { click: Filter(vec![Match::Without]), ..postbacks(limit) },
        PostbackQuery { player: only("nobody"), ..postbacks(limit) },
        PostbackQuery { accounts: (0..3).map(account).collect(), ..postbacks(limit) },
        PostbackQuery { accounts: (0..9).map(|n| format!("acc_{n}")).collect(), ..postbacks(limit) },
        PostbackQuery {
            from: Some(Moment::Instant(at(3))),
            to: Some(Moment::Instant(at(25))),
            accounts: vec![account(1)],
            ..postbacks(limit)
        },
    ];
    let of_clicks = clicks.clicks.iter().take(3).map(|click| PostbackQuery {
        click: Filter(vec![Match::Is(click.id.to_string()), Match::Is("name2".to_owned())]),
        ..postbacks(limit)
    });
    queries.extend(of_clicks);
    queries
}

/// With whether the order is that of the folder, too.
fn conversion_queries(limit: usize) -> Vec<(ConversionQuery, bool)> {
    let blank = || ConversionQuery { limit, ..ConversionQuery::default() };
    let range = |from, to, basis| ConversionQuery {
        from: Some(Moment::Instant(at(from))),
        to: Some(Moment::Instant(at(to))),
        basis,
        ..blank()
    };
    vec![
        (blank(), true),
        (ConversionQuery { accounts: vec![account(0), account(2)], ..blank() }, true),
        (ConversionQuery { states: vec![State::Approved], goals: vec!["signups".to_owned()], ..blank() }, true),
        (ConversionQuery { tid: only("t2"), ..blank() }, true),
        (
            ConversionQuery { tid: Filter(vec![Match::Is("t1".to_owned()), Match::Is("t3".to_owned())]), ..blank() },
            true,
        ),
        (ConversionQuery { tid: Filter(vec![Match::With]), ..blank() }, true),
        (ConversionQuery { player: only("nobody"), ..blank() }, true),
        (ConversionQuery { updated_after: Some(at(20)), ..blank() }, false),
        (ConversionQuery { updated_after: Some(at(10)), accounts: vec![account(1)], ..blank() }, false),
        (range(10, 1_000, Basis::Click), false),
        (range(10, 1_000, Basis::Conversion), false),
        (range(-4_000, 15, Basis::Click), false),
        (ConversionQuery { accounts: vec![account(1)], ..range(5, 4_000, Basis::Conversion) }, false),
    ]
}

#[test]
fn a_cluster_answers_as_a_folder_does() {
    let Some(tables) = Tables::new("read") else { return };
    let cases = if std::env::var_os("CLICKBACK_LONG").is_some() { 200 } else { 24 };
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() });
    let split = (1..=PARTITIONS, proptest::collection::vec(1usize..12, 1..6), 0usize..60);
    let strategy = (steps(1..90), proptest::collection::vec(queries(), 10), 1usize..9, split);
    let tested = runner.run(&strategy, |(steps, queries, limit, (partitions, sizes, again))| {
        let both = Both::of(&tables, &steps, partitions, &sizes, again);
        for query in &queries {
            both.figures(query)?;
        }
        for query in filters(limit).iter().chain([&postbacks(limit)]).chain(&more_postbacks(limit, &both.world)) {
            both.postbacks(query)?;
        }
        for (query, in_order) in conversion_queries(limit) {
            both.conversions(&query, in_order)?;
        }
        both.look_ups()
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}

/// Where values have no cells of their own, sums stay exact, and a filter still finds every value.
#[test]
fn values_beyond_the_bound_are_other() {
    let Some(mut tables) = Tables::new("other") else { return };
    tables.names = 1;
    let mut runner =
        TestRunner::new(Config { cases: 8, failure_persistence: None, max_shrink_iters: 40, ..Config::default() });
    let split = (1..=PARTITIONS, proptest::collection::vec(1usize..12, 1..6), 0usize..60);
    let strategy = (steps(30..90), proptest::collection::vec(queries(), 20), split);
    let others = Cell::new(0);
    let tested = runner.run(&strategy, |(steps, queries, (partitions, sizes, again))| {
        let both = Both::of(&tables, &steps, partitions, &sizes, again);
        for query in &queries {
            let query = ReportQuery { tenant: both.tenant.clone(), ..query.clone() };
            let folder = both.folder.conversions_report(&directory(), &query).unwrap();
            let cluster = both.cluster.conversions_report(&directory(), &query).unwrap();
            prop_assert_eq!(&cluster.totals, &folder.totals, "{:?}", &query);
            others.set(others.get() + cluster.rows.iter().filter(|row| row.other).count());
            if !cluster.rows.iter().any(|row| row.other || row.at_least) {
                prop_assert_eq!(&cluster.rows, &folder.rows, "{:?}", &query);
            }
            if query.filters.keys().any(|of| !matches!(of, Dimension::Account | Dimension::Program)) {
                prop_assert_eq!(&cluster.rows, &folder.rows, "{:?}", &query);
            }
        }
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
    assert!(others.get() > 0, "no value was beyond the bound");
}

#[test]
fn a_conversion_that_changes_between_two_pages_is_shown_once() {
    let Some(tables) = Tables::new("pages") else { return };
    let convert = Step::Label { account: 0, label: 1, goal: 0, earning: Some(100) };
    let mut steps = vec![convert.clone(), convert.clone(), convert];
    let before = World::of_tenant("pages", 0, &steps);
    steps.extend([0, 2].map(|conversion| Step::Update { conversion, state: 2, earning: None }));
    let after = World::of_tenant("pages", 0, &steps);
    tables.take(&before, 1, &[1], 0);
    let mut query = ConversionQuery {
        tenant: "pages".to_owned(),
        from: Some(Moment::Instant(at(0))),
        to: Some(Moment::Instant(at(60))),
        limit: 1,
        ..ConversionQuery::default()
    };
    let first = tables.reports().conversions(&query).unwrap();
    tables.take(&after, 1, &[1], 0);
    query.cursor = first.cursor;
    let rest = all(&tables.reports(), &query);
    let shown: Vec<_> = first.items.iter().chain(&rest).map(|row| (row.id.clone(), row.version)).collect();
    let expected = [(2, 1), (1, 1), (0, 2)].map(|(n, version)| (nth_conversion(n).to_string(), version));
    assert_eq!(shown, expected);
}

#[test]
fn a_question_ends_when_its_time_is_over() {
    let Some(tables) = Tables::new("end") else { return };
    let both = Both::of(&tables, &[Step::Reject { account: 0, reason: 1 }], 1, &[1], 0);
    let seen = super::Seen {
        store: Arc::clone(&tables.store),
        as_of: AsOf::default(),
        shards: PARTITIONS,
        until: Instant::now(),
    };
    let mut figures = super::Figures::new(tables.runtime.handle(), seen);
    let query = ReportQuery { tenant: both.tenant.clone(), now: Time::from_ms(START), ..ReportQuery::default() };
    let answer = answer(&mut figures, &directory(), &query);
    assert!(matches!(answer, Err(QueryError::TooLong)), "{answer:?}");
}

/// As it is asked whether a link has clicks: of all time.
#[test]
fn all_of_time_is_no_more_than_the_days_that_are_there() {
    let Some(tables) = Tables::new("time") else { return };
    let click = |link| Step::Click {
        account: 1,
        link: Some(link),
        values: [Some(1), None, None, None, None, None],
        flag: false,
        earlier_min: 0,
        imported: false,
    };
    let both = Both::of(&tables, &[click(1), click(2), click(1)], 2, &[1], 1);
    for (dimension, value, clicks) in [(Dimension::Link, "lnk_1", 2), (Dimension::Account, "acc_1", 3)] {
        let query = ReportQuery {
            tenant: both.tenant.clone(),
            from: Some(Moment::Instant(Time::from_ms(0))),
            to: Some(Moment::Instant(Time::from_ms(i64::MAX))),
            filters: Filters::from([(dimension, only(value))]),
            bots: true,
            ..ReportQuery::default()
        };
        let report = both.cluster.conversions_report(&directory(), &query).unwrap();
        assert_eq!(report.totals.clicks, Some(clicks), "{dimension}");
    }
    let query = ReportQuery {
        tenant: "another".to_owned(),
        from: Some(Moment::Instant(Time::from_ms(START - DAY_MS))),
        to: Some(Moment::Instant(Time::from_ms(START + DAY_MS))),
        ..ReportQuery::default()
    };
    assert!(both.cluster.conversions_report(&directory(), &query).unwrap().rows.is_empty());
}

#[test]
fn a_cursor_of_something_else_is_refused() {
    let range = Range::ALL;
    let key = Key { time: 5, id: vec![1, 2], version: 3 };
    assert!(Bounds::after(range, Some(&key.text().unwrap())).is_ok());
    for text in ["", "17", "!", "AAAA", "eyJrIjpbXX0"] {
        let refused = Bounds::after(range, Some(text)).unwrap_err();
        assert!(matches!(refused, QueryError::Refused { code: "invalid_cursor", .. }), "{text}: {refused:?}");
    }
}

#[test]
fn several_lists_are_one_without_doubles() {
    let found = |time| Found { key: Key { time, id: vec![1], version: 0 }, account: String::new(), hit: None };
    let chain = |times: &[i64]| -> super::walk::Chain<'static, Found> {
        let found: Vec<anyhow::Result<Found>> = times.iter().map(|time| Ok(found(*time))).collect();
        Box::pin(futures_util::stream::iter(found))
    };
    let all = merged(vec![chain(&[9, 5, 2]), chain(&[]), chain(&[9, 6, 5, 1])]);
    let times = futures_util::FutureExt::now_or_never(all.map_ok(|found| found.key.time).try_collect::<Vec<_>>());
    assert_eq!(times.unwrap().unwrap(), [9, 6, 5, 2, 1]);
    let broken = merged(vec![chain(&[3]), Box::pin(futures_util::stream::iter([Err(anyhow::anyhow!("away"))]))]);
    assert!(futures_util::FutureExt::now_or_never(broken.try_collect::<Vec<_>>()).unwrap().is_err());
}
