//! One broker, a database, two of each role, and everything that can happen to them, one after the other and in an order
//! that the seed gives. Nothing waits for a fault to be over: traffic goes on all the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pipeline::kafka::Topic;
use system_tests::repetitions;

use crate::{
    Dice, alone,
    live::Live,
    rounds, seed,
    stage::{Kind, Plan, Stage},
    traffic::Traffic,
    verdict::compare,
};

/// Requests between a fault and its end, where nothing else says when that is.
const MOMENT: usize = 60;
/// The number of the matcher that joins and leaves.
const THIRD: usize = 2;
/// Of a topic's end, when it is cut off.
const CUT_BYTES: u64 = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    IngestKilled,
    IngestStoppedAndContinued,
    MatcherKilled,
    RollingRestart,
    MatcherStoppedAndContinued,
    StateDeleted,
    Rebalances,
    BrokerKilled,
    BrokerPaused,
    KafkaAway,
    OutcomesCutOff,
    ProjectorKilled,
    ProjectorStoppedAndContinued,
    DatabaseKilled,
    NewerRules,
}

const ALL: [Fault; 15] = [
    Fault::IngestKilled,
    Fault::IngestStoppedAndContinued,
    Fault::MatcherKilled,
    Fault::RollingRestart,
    Fault::MatcherStoppedAndContinued,
    Fault::StateDeleted,
    Fault::Rebalances,
    Fault::BrokerKilled,
    Fault::BrokerPaused,
    Fault::KafkaAway,
    Fault::OutcomesCutOff,
    Fault::ProjectorKilled,
    Fault::ProjectorStoppedAndContinued,
    Fault::DatabaseKilled,
    Fault::NewerRules,
];

struct Chaos {
    stage: Stage,
    traffic: Traffic,
    live: Live,
    dice: Dice,
    injected: BTreeMap<String, u64>,
}

#[test]
fn everything_breaks_and_every_conversion_counts_once() {
    let _alone = alone();
    let plan = Plan { brokers: 1, partitions: 4, ingests: 2, matchers: 2, projectors: 2 };
    let seed = seed();
    let Some(stage) = Stage::open(&plan) else { return };
    let live = Live::begin(&stage.cluster, stage.partitions);
    let traffic = Traffic::begin(seed, stage.edges.clone());
    let mut chaos = Chaos { stage, traffic, live, dice: Dice::new(seed), injected: BTreeMap::new() };
    chaos.traffic.go_on(MOMENT);
    for round in 1..=rounds() {
        let mut faults = ALL.to_vec();
        chaos.dice.shuffle(&mut faults);
        // Two others do it as well, and each time it is a quarter of a minute.
        faults.retain(|fault| rounds() > 1 || *fault != Fault::BrokerKilled);
        for fault in faults {
            chaos.inject(fault);
        }
        chaos.live.settle();
        eprintln!("round {round}: every event has its outcome");
    }
    chaos.live.settle();
    for (what, times) in &chaos.injected {
        eprintln!("injected: {times:4} x {what}");
    }
    compare("chaos", chaos.stage, chaos.traffic, chaos.live);
}

impl Chaos {
    fn inject(&mut self, fault: Fault) {
        let begun = Instant::now();
        match fault {
            Fault::IngestKilled => self.killed(Kind::Ingest, 3),
            Fault::MatcherKilled => self.killed(Kind::Matcher, 3),
            Fault::ProjectorKilled => self.killed(Kind::Projector, 2),
            Fault::ProjectorStoppedAndContinued => self.projector_stopped_and_continued(),
            Fault::DatabaseKilled => self.database_killed(),
            Fault::IngestStoppedAndContinued => self.ingest_stopped_and_continued(),
            Fault::RollingRestart => self.rolling_restart(),
            Fault::MatcherStoppedAndContinued => self.matcher_stopped_and_continued(),
            Fault::StateDeleted => self.state_deleted(),
            Fault::Rebalances => self.rebalances(repetitions(4, 8)),
            Fault::BrokerKilled => self.broker_killed(),
            Fault::BrokerPaused => self.broker_paused(),
            Fault::KafkaAway => self.kafka_away(),
            Fault::OutcomesCutOff => self.outcomes_cut_off(),
            Fault::NewerRules => self.newer_rules(),
        }
        self.stage.assert_all_run();
        eprintln!("{fault:?} took {:.1} s", begun.elapsed().as_secs_f32());
    }

    fn count(&mut self, what: &str) {
        *self.injected.entry(what.to_owned()).or_default() += 1;
    }

    fn moment(&mut self) {
        let requests = self.dice.below(MOMENT as u64) as usize + 1;
        self.traffic.go_on(requests);
    }

    fn some(&mut self, kind: Kind) -> usize {
        let up = self.stage.numbers(kind);
        up[self.dice.below(up.len() as u64) as usize]
    }

    fn killed(&mut self, kind: Kind, times: u32) {
        for _ in 0..times {
            let number = self.some(kind);
            self.moment();
            self.stage.kill(kind, number);
            self.count(&format!("{kind:?} killed and started again"));
            self.moment();
            self.stage.start(kind, number);
        }
    }

    /// Senders give up, and what they sent is read when it goes on: nobody knows of it what became of it.
    fn ingest_stopped_and_continued(&mut self) {
        let number = self.some(Kind::Ingest);
        self.stage.role(Kind::Ingest, number).signal("STOP");
        self.traffic.go_on(2 * MOMENT);
        self.stage.role(Kind::Ingest, number).signal("CONT");
        self.count("Ingest stopped and continued");
        self.moment();
    }

    /// Longer than the group waits for it, so that another one writes the same rows meanwhile, and further ones.
    fn projector_stopped_and_continued(&mut self) {
        let number = self.some(Kind::Projector);
        self.stage.role(Kind::Projector, number).signal("STOP");
        self.traffic.go_on_for(Duration::from_secs(13));
        self.stage.role(Kind::Projector, number).signal("CONT");
        self.count("Projector stopped for 13 s, then continued");
        self.moment();
    }

    fn database_killed(&mut self) {
        self.moment();
        self.stage.restart_database();
        self.count("database killed and started again");
        self.moment();
    }

    /// As an upgrade does it: one after the other, each in good order.
    fn rolling_restart(&mut self) {
        for kind in [Kind::Ingest, Kind::Matcher, Kind::Projector] {
            for number in self.stage.numbers(kind) {
                self.stage.stop(kind, number);
                self.moment();
                self.stage.start(kind, number);
                self.count(&format!("{kind:?} told to end, and started again"));
            }
        }
    }

    /// In the middle of its work, and for longer than the group waits for it: somebody else has done that work when it
    /// goes on.
    fn matcher_stopped_and_continued(&mut self) {
        let all = self.stage.numbers(Kind::Matcher);
        self.stage.stop_all(Kind::Matcher);
        self.traffic.go_on(5 * MOMENT);
        let taken = self.live.all_taken();
        all.into_iter().for_each(|number| self.stage.start(Kind::Matcher, number));
        let number = self.some(Kind::Matcher);
        self.live.wait_for_more_than(taken);
        self.stage.role(Kind::Matcher, number).signal("STOP");
        self.live.settle();
        self.stage.role(Kind::Matcher, number).signal("CONT");
        self.count("Matcher stopped until others had its partitions, then continued");
        self.moment();
    }

    fn state_deleted(&mut self) {
        let number = self.some(Kind::Matcher);
        self.stage.kill(Kind::Matcher, number);
        self.stage.delete_folder(Kind::Matcher, number);
        self.stage.start(Kind::Matcher, number);
        self.count("Matcher killed, its state deleted");
        self.moment();
    }

    /// Another matcher joins and leaves every few seconds.
    fn rebalances(&mut self, times: usize) {
        for _ in 0..times {
            self.stage.start(Kind::Matcher, THIRD);
            self.traffic.go_on_for(Duration::from_secs(2));
            match self.dice.below(2) {
                0 => self.stage.stop(Kind::Matcher, THIRD),
                _ => self.stage.kill(Kind::Matcher, THIRD),
            }
            self.count("Matcher joined and left again");
        }
    }

    fn broker_killed(&mut self) {
        self.moment();
        self.stage.start_broker(0);
        self.count("broker killed and started again");
        self.stage.wait_for_brokers();
        self.traffic.go_on(MOMENT);
    }

    fn broker_paused(&mut self) {
        self.stage.signal_broker(0, "STOP");
        // Before the spool takes over, so with everything under way that there is.
        self.traffic.go_on(self.dice.below(3) as usize);
        let number = self.some(Kind::Ingest);
        self.stage.kill(Kind::Ingest, number);
        self.stage.start(Kind::Ingest, number);
        self.count("Ingest killed while the broker was paused");
        self.traffic.go_on_for(Duration::from_secs(repetitions(4, 15) as u64));
        self.stage.signal_broker(0, "CONT");
        self.count("broker paused");
        self.traffic.go_on(MOMENT);
    }

    /// Ingest answers from its spool, and is killed with a full one.
    fn kafka_away(&mut self) {
        self.stage.broker(0).kill();
        self.count("broker killed and started again");
        let away = Duration::from_secs(repetitions(6, 60) as u64);
        self.traffic.go_on_for(away / 2);
        let number = self.some(Kind::Ingest);
        self.stage.kill(Kind::Ingest, number);
        self.stage.start(Kind::Ingest, number);
        self.count("Ingest killed while Kafka was away");
        self.traffic.go_on_for(away / 2);
        self.stage.start_broker(0);
        self.stage.wait_for_brokers();
        self.count("Kafka away, traffic going on");
        self.traffic.go_on(MOMENT);
    }

    /// A newer build takes all partitions over, works beside older ones, and then its rules are switched on: there is no
    /// way back, so all matchers are newer from then on.
    fn newer_rules(&mut self) {
        if self.stage.newer {
            return;
        }
        let all = self.stage.numbers(Kind::Matcher);
        self.stage.stop_all(Kind::Matcher);
        self.stage.newer = true;
        self.stage.start(Kind::Matcher, THIRD);
        self.traffic.go_on(MOMENT);
        self.live.settle();
        self.count("newer matcher took over before its rules were on");
        self.stage.newer = false;
        all.iter().for_each(|number| self.stage.start(Kind::Matcher, *number));
        self.moment();
        self.stage.switch_rules();
        self.traffic.go_on(MOMENT);
        self.stage.newer = true;
        for number in all {
            self.stage.ends_over_rules(Kind::Matcher, number);
            self.stage.start(Kind::Matcher, number);
            self.moment();
        }
        self.stage.stop(Kind::Matcher, THIRD);
        self.count("newer rules switched on under older matchers");
    }

    /// The broker has lost the end of what it had acknowledged: on its disk, as after a crash that took it with it.
    fn outcomes_cut_off(&mut self) {
        self.live.settle();
        let partition = self.dice.below(u64::from(self.stage.partitions)) as u16;
        let before = self.live.next(partition);
        self.stage.broker(0).kill();
        self.count("broker killed and started again");
        let bytes = self.stage.cut(Topic::Outcomes, partition, CUT_BYTES);
        self.stage.start_broker(0);
        self.stage.wait_for_brokers();
        let left = crate::live::end(&self.stage.cluster, Topic::Outcomes, partition);
        eprintln!("outcomes {partition}: {bytes} bytes cut off, {left} records left; a reader had taken {before}");
        self.count("acknowledged outcomes cut off");
        self.traffic.go_on(MOMENT);
    }
}
