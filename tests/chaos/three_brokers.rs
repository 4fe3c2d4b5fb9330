//! Three brokers, every record on all of them and acknowledged by two: one may go, and nobody notices; two may go, and
//! nothing is lost.

use std::time::Duration;

use crate::{
    alone,
    live::Live,
    rounds, seed,
    stage::{Kind, Plan, Stage},
    traffic::Traffic,
    verdict::{compare, wait_for_an_empty_spool},
};

#[test]
fn one_of_three_brokers_is_not_missed_and_two_lose_nothing() {
    let _alone = alone();
    let plan = Plan { brokers: 3, partitions: 3, ingests: 1, matchers: 2, projectors: 0 };
    let seed = seed();
    let Some(mut stage) = Stage::open(&plan) else { return };
    let live = Live::begin(&stage.cluster, stage.partitions);
    let traffic = Traffic::begin(seed, stage.edges.clone());
    traffic.go_on(300);
    for round in 0..rounds().min(6) {
        let (first, second) = (round % 3, (round + 1) % 3);
        let before = traffic.failures();
        stage.broker(first).kill();
        // At once, by clients that were not there before: the first that they hear of leaders is out of date.
        stage.supervise(Kind::Ingest, round + 1);
        stage.supervise(Kind::Matcher, 2);
        live.settle();
        traffic.go_on_for(Duration::from_secs(6));
        live.settle();
        stage.numbers(Kind::Ingest).into_iter().for_each(|number| wait_for_an_empty_spool(&stage, number));
        assert_eq!(traffic.failures(), before, "somebody noticed that one broker of three was gone");
        stage.stop(Kind::Matcher, 2);
        stage.broker(second).kill();
        traffic.go_on_for(Duration::from_secs(4));
        stage.start_broker(second);
        stage.start_broker(first);
        stage.wait_for_brokers();
        live.settle();
        eprintln!(
            "brokers {first} and {second} were killed and came back; failures before {before:?}, after {:?}",
            traffic.failures()
        );
    }
    compare("three brokers", stage, traffic, live);
}
