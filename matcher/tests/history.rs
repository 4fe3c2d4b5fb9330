//! A saved state can be taken back to the save before it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use matcher::{
    State, apply,
    replica::Anchor,
    store::{self, Dirty, Writer},
};
use proptest::prelude::*;
use rusqlite::types::Value;
use schemas::chain::{Chain, Position};
use support::{Log, histories};

fn play_and_save(state: &mut State, writer: &mut Writer, log: &Log, part: std::ops::Range<usize>) {
    let next = part.end as u64;
    for at in part {
        let (cause, event) = &log.events[at];
        apply(state, *cause, event, &log.outcomes[at]);
    }
    let position = Position { next, chain: Chain::FIRST.next(&next.to_be_bytes()) };
    let mut dirty = Dirty::take(state, position);
    dirty.anchor = Some(Anchor { offset: next, position });
    writer.save(&dirty).unwrap();
}

/// Everything that a start reads. Homes that nothing refers to may stay.
fn content(dir: &std::path::Path) -> Vec<Vec<Value>> {
    let connection = rusqlite::Connection::open(dir.join(store::FILE)).unwrap();
    let mut all = Vec::new();
    for table in ["meta", "anchor", "clicks", "names", "labels", "runs"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
        all.extend(rows.map(Result::unwrap));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_step_back_is_the_save_before(steps in histories()) {
        let log = Log::of(&steps);
        let third = log.events.len() / 3;
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer, mut state, _) = store::open(dir.path()).unwrap();
        writer.keep_history().unwrap();
        let mut saved = Vec::new();
        for part in [0..third, third..2 * third, 2 * third..log.events.len()] {
            play_and_save(&mut state, &mut writer, &log, part);
            saved.push(content(dir.path()));
        }
        drop((reader, writer));
        prop_assert!(store::step_back(dir.path()).unwrap());
        prop_assert_eq!(content(dir.path()), saved[1].clone());
        // It is a state like any other: what comes after it can be saved again, and taken back again.
        let (reader, mut writer, mut state, position) = store::open(dir.path()).unwrap();
        writer.keep_history().unwrap();
        prop_assert_eq!(position.next, 2 * third as u64);
        prop_assert_eq!(reader.anchor().unwrap().map(|anchor| anchor.offset), Some(2 * third as u64));
        play_and_save(&mut state, &mut writer, &log, 2 * third..2 * third);
        drop((reader, writer));
        prop_assert!(store::step_back(dir.path()).unwrap());
        prop_assert_eq!(content(dir.path()), saved[1].clone());
        prop_assert!(store::step_back(dir.path()).unwrap());
        prop_assert_eq!(content(dir.path()), saved[0].clone());
        prop_assert!(!store::step_back(dir.path()).unwrap(), "before the first save there is nothing");
    }
}
