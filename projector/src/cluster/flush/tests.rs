//! Where a new owner of a partition begins.

use schemas::{Time, outcome::Kind};

use super::*;
use crate::cluster::read::tests::{Tables, met};

fn tick(n: u64) -> schemas::Outcome {
    let time = Time::from_ms(1_790_000_000_000 + n as i64);
    schemas::Outcome::blank(EventId::new(time, 0, n), "tenant", time, Kind::Tick)
}

/// Owners that stay for a moment only move the place to restart from all the same.
#[test]
fn a_place_gets_old_also_while_owners_change() {
    let Some(tables) = Tables::new("settle") else { return };
    let open = || tables.runtime.block_on(Writer::open((*tables.store).clone(), 0)).unwrap();
    let mut first = open();
    assert_eq!(first.restart().next(), 1);
    (1..=5).for_each(|src| first.take(&met(src, &tick(src))).unwrap());
    tables.runtime.block_on(async {
        assert!(!first.settle().await.unwrap(), "nothing is visible yet");
        first.flush().await.unwrap();
        assert!(first.settle().await.unwrap());
        first.choose(7).await.unwrap();
        assert!(!first.settle().await.unwrap(), "one at a time");
    });
    let second = open();
    assert_eq!((second.restart().next(), second.stand().place.position.next), (1, 1), "it is too young");

    let older = format!(
        "UPDATE {} USING TIMESTAMP 7 SET settling_since = '2020-01-01' WHERE partition = 0",
        tables.store.table("positions")
    );
    tables.runtime.block_on(tables.store.session.query_unpaged(older, ())).unwrap();
    let mut third = open();
    assert_eq!((third.restart().next(), third.restart().read, third.stand().place.offset), (6, 7, 6));
    tables.runtime.block_on(async {
        assert!(!third.settle().await.unwrap(), "there is nothing newer to choose");
        (6..=9).for_each(|src| third.take(&met(src, &tick(src))).unwrap());
        third.flush().await.unwrap();
        assert!(third.settle().await.unwrap());
        third.choose(8).await.unwrap();
    });
    let fourth = open();
    assert_eq!(fourth.restart().next(), 6, "the old place stays until the next one is old enough");
}
