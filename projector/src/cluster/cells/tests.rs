//! However often a source partition is taken again, from wherever, and whoever writes: the rows end as the plain sums.

use std::collections::BTreeMap;

use proptest::prelude::*;
use schemas::{Time, time::DAY_MS};

use super::*;
use crate::{
    fold::{Origin, QUARTER_MS},
    tables::stored_entries,
};

const LIMIT: usize = 3;

/// By slot and measure.
type Entries = BTreeMap<(u8, String), Sums>;

/// What the database does with rows: the newest time stamp wins.
#[derive(Default)]
struct Rows(HashMap<CellKey, (u64, StoredCell)>);

impl Rows {
    fn flush(&mut self, cells: &mut Cells, next: u64) {
        let named = cells.unknown_places().into_iter().map(|place| {
            let of_place = self.0.iter().filter(|(key, _)| key.place == place);
            let values = of_place.map(|(key, (_, cell))| (key.value.clone(), cell.first)).collect();
            (place, values)
        });
        let unread = cells.resolve(named.collect());
        let read = unread.into_iter().map(|key| {
            let row = self.0.get(&key).map(|(_, cell)| cell.clone()).unwrap_or_default();
            (key, row)
        });
        for (key, cell) in cells.apply(read.collect(), next).unwrap() {
            let known = self.0.entry(key).or_default();
            if cell.next >= known.0 {
                *known = (cell.next, cell);
            }
        }
    }

    fn sums(&self) -> BTreeMap<(u8, i64, String), Entries> {
        let cells = self.0.iter().map(|(key, (_, cell))| {
            let (whole, quarters) = cell.cell.encode_apart().unwrap();
            let entries = stored_entries(&whole).chain(stored_entries(&quarters)).map(|entry| {
                let (slot, code, sums) = entry.unwrap();
                ((slot, format!("{:?}", cell.measures[code as usize])), sums)
            });
            ((key.place.family, key.place.day, key.value.clone()), entries.collect())
        });
        cells.collect()
    }
}

#[derive(Clone, Debug)]
struct Event {
    value: u8,
    quarter: i64,
    day: i64,
    count: i64,
}

fn take(cells: &mut Cells, src: u64, event: &Event) {
    let value = format!("v{}", event.value);
    let origin = Origin { link: Some("one"), dyn_: Some(&value), ..Origin::default() };
    let delta = Delta {
        account: "acc",
        origin,
        basis: Basis::Click,
        time: Time::from_ms(event.day * DAY_MS + event.quarter * QUARTER_MS),
        measure: Measure::Clicks { flagged: false },
        by: Sums { count: event.count, earning: 0, value: 0 },
    };
    cells.add(src, "tenant", &delta);
}

fn event() -> impl Strategy<Value = Event> {
    (0u8..8, 0i64..4, 20_000i64..20_002, 1i64..5).prop_map(|(value, quarter, day, count)| Event {
        value,
        quarter,
        day,
        count,
    })
}

proptest! {
    #[test]
    fn rows_are_the_plain_sums_after_any_restarts(
        events in proptest::collection::vec(event(), 1..60),
        runs in proptest::collection::vec((0usize..60, 0usize..60, 1usize..9), 0..6),
    ) {
        let mut plain = Rows::default();
        let mut cells = Cells::with_limit(LIMIT).unwrap();
        for (at, event) in events.iter().enumerate() {
            take(&mut cells, at as u64 + 1, event);
        }
        plain.flush(&mut cells, events.len() as u64 + 1);

        let mut rows = Rows::default();
        let mut restart = 0;
        // Each run begins at a place that was flushed before, goes on for a while, and is forgotten; the last one ends.
        let last = (events.len(), events.len(), 3);
        for (back, length, every) in runs.into_iter().chain([last]) {
            let from = restart - back.min(restart);
            let to = (from + length).min(events.len());
            let mut cells = Cells::with_limit(LIMIT).unwrap();
            for (at, event) in events.iter().enumerate().take(to).skip(from) {
                take(&mut cells, at as u64 + 1, event);
                if at % every == 0 {
                    rows.flush(&mut cells, at as u64 + 2);
                    restart = restart.max(at + 1);
                }
            }
            if to == events.len() {
                rows.flush(&mut cells, to as u64 + 1);
            }
        }
        prop_assert_eq!(rows.sums(), plain.sums());
    }

    /// Two writers on one partition, each with its own pace, one of which stops somewhere.
    #[test]
    fn two_writers_at_once_write_the_same_rows(
        events in proptest::collection::vec(event(), 1..40),
        turns in proptest::collection::vec((any::<bool>(), 1usize..6), 1..40),
    ) {
        let mut plain = Rows::default();
        let mut cells = Cells::with_limit(LIMIT).unwrap();
        events.iter().enumerate().for_each(|(at, event)| take(&mut cells, at as u64 + 1, event));
        plain.flush(&mut cells, events.len() as u64 + 1);

        let mut rows = Rows::default();
        let mut writers = [(0, Cells::with_limit(LIMIT).unwrap()), (0, Cells::with_limit(LIMIT).unwrap())];
        for (second, length) in turns.into_iter().chain([(false, events.len())]) {
            let (at, cells) = &mut writers[usize::from(second)];
            let to = (*at + length).min(events.len());
            for event in &events[*at..to] {
                *at += 1;
                take(cells, *at as u64, event);
            }
            rows.flush(cells, to as u64 + 1);
        }
        prop_assert_eq!(rows.sums(), plain.sums());
    }
}

#[test]
fn the_values_beyond_the_limit_are_one_row() {
    let mut rows = Rows::default();
    let mut cells = Cells::with_limit(LIMIT).unwrap();
    for (at, value) in [1u8, 2, 3, 4, 5, 1, 4].into_iter().enumerate() {
        take(&mut cells, at as u64 + 1, &Event { value, quarter: 0, day: 20_000, count: 1 });
    }
    rows.flush(&mut cells, 8);
    let family = Family::Dyn as u8;
    let count = |family: u8, value: &str| {
        let sums = rows.sums();
        sums.get(&(family, 20_000, value.to_owned())).map(|cell| cell.values().next().unwrap().count)
    };
    assert_eq!((count(family, "v1"), count(family, "v3"), count(family, "v4")), (Some(2), Some(1), None));
    assert_eq!(count(family | OTHER, ""), Some(3));
    assert_eq!(count(Family::Account as u8, ""), Some(7));
}
