//! Everything breaks while traffic goes on, and in the end every conversion is counted once.
//!
//! Servers of its own, as it kills them: Apache Kafka in plain Java processes, with nothing else on it. What was sent is
//! written down with what was answered (`traffic`); what follows from it is computed without any code of the product
//! (`oracle`); what the topics say is read by the reader's rule, written here once more (`reader`).
//!
//! One round of all faults in an ordinary run, 12 with `cargo xtask chaos` (or `--rounds N`). `CLICKBACK_SEED` repeats what is sent and the
//! order of the faults, though not their moments. When a run fails, what the roles said is in `target/tmp`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

mod faults;
mod live;
mod lost_events;
mod oracle;
mod reader;
mod reports;
mod stage;
mod three_brokers;
mod traffic;
mod verdict;

use std::{
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

/// One test at a time: each has servers of its own, and moments in which nothing else should take its time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Numbers that look random and are the same in each run with the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        // So that neighbours do not begin alike.
        Dice(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// How often everything is broken.
fn rounds() -> usize {
    let given = std::env::var("CLICKBACK_ROUNDS").ok().map(|rounds| rounds.parse().expect("a number of rounds"));
    given.unwrap_or_else(|| system_tests::repetitions(1, 12))
}

/// Fixed in an ordinary run; a long one takes another each time, and says which.
fn seed() -> u64 {
    let given = std::env::var("CLICKBACK_SEED").ok().map(|seed| seed.parse().expect("CLICKBACK_SEED is a number"));
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as usize;
    let seed = given.unwrap_or_else(|| system_tests::repetitions(4, now()) as u64);
    eprintln!("CLICKBACK_SEED={seed}");
    seed
}
