//! Plays the stories: at most `rate` requests a second, what is due first.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use pipeline::lifecycle::CancellationToken;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{
    client::Client,
    story::{Later, Step, Teller, Visit},
};

/// Requests under way at once; above this the rate is not kept.
const AT_ONCE: usize = 128;
/// Steps that wait for their time; above this new arrivals wait.
const PLANNED: usize = 20_000;
const BEAT: Duration = Duration::from_millis(10);
/// Answer times that the percentiles are made of.
const TIMES: usize = 4_096;

/// What the senders saw.
#[derive(Default)]
pub struct Tally {
    pub clicks: AtomicU64,
    pub postbacks: AtomicU64,
    pub failures: AtomicU64,
    times: Mutex<Vec<Duration>>,
    last_failure: Mutex<String>,
}

impl Tally {
    pub fn requests(&self) -> u64 {
        self.clicks.load(Relaxed) + self.postbacks.load(Relaxed)
    }

    fn took(&self, nth: u64, time: Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() < TIMES {
            times.push(time);
        } else {
            times[nth as usize % TIMES] = time;
        }
    }

    fn failed(&self, error: &anyhow::Error) {
        self.failures.fetch_add(1, Relaxed);
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = format!("{error:#}");
    }

    pub fn last_failure(&self) -> String {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Median and 99th percentile of the last answers.
    pub fn answer_times(&self) -> (Duration, Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        (at(50), at(99))
    }
}

pub struct Traffic {
    client: Arc<Client>,
    tally: Arc<Tally>,
    stage: Mutex<Stage>,
    slots: Arc<Semaphore>,
}

struct Stage {
    teller: Teller,
    planned: BinaryHeap<Reverse<Planned>>,
    serial: u64,
}

/// Ordered by time, then by the order of planning.
struct Planned {
    at: Instant,
    serial: u64,
    step: Step,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

impl Stage {
    fn plan(&mut self, steps: Vec<Later>) {
        let now = Instant::now();
        for (delay, step) in steps {
            self.serial += 1;
            self.planned.push(Reverse(Planned { at: now + delay, serial: self.serial, step }));
        }
    }

    /// What is due, else a new arrival.
    fn next(&mut self) -> Option<Step> {
        let due = |stage: &Stage| stage.planned.peek().is_some_and(|Reverse(p)| p.at <= Instant::now());
        if !due(self) && self.planned.len() < PLANNED {
            let steps = self.teller.next();
            self.plan(steps);
        }
        if due(self) { self.planned.pop().map(|Reverse(p)| p.step) } else { None }
    }
}

impl Traffic {
    pub fn new(client: Arc<Client>, tally: Arc<Tally>, teller: Teller) -> Arc<Traffic> {
        let stage = Mutex::new(Stage { teller, planned: BinaryHeap::new(), serial: 0 });
        Arc::new(Traffic { client, tally, stage, slots: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Until `stop`; then what is under way is finished, and what is only planned is left.
    pub async fn play(self: Arc<Self>, rate: u32, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut last = Instant::now();
        let mut owed = 0.0;
        while stop.run_until_cancelled(beat.tick()).await.is_some() {
            // After a pause the requests of at most a tenth of a second are made up for.
            owed += last.elapsed().min(Duration::from_millis(100)).as_secs_f64() * f64::from(rate);
            last = Instant::now();
            while owed >= 1.0 {
                owed -= 1.0;
                let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { break };
                let Some(step) = self.locked().next() else { break };
                let traffic = Arc::clone(&self);
                tasks.spawn(async move {
                    traffic.act(step).await;
                    drop(slot);
                });
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(&self, step: Step) {
        let begun = Instant::now();
        let (done, nth) = match step {
            Step::Visit(visit) => (self.visit(&visit).await, self.tally.clicks.fetch_add(1, Relaxed)),
            Step::Send(postback) => {
                (self.client.send(&postback).await.map(drop), self.tally.postbacks.fetch_add(1, Relaxed))
            }
        };
        match done {
            Ok(()) => self.tally.took(nth, begun.elapsed()),
            Err(error) => self.tally.failed(&error),
        }
    }

    /// The operator reads the click id where its program looks for it; without one there is nothing to send.
    async fn visit(&self, visit: &Visit) -> anyhow::Result<()> {
        let landing = self.client.visit(&visit.link, &visit.query, visit.agent).await?;
        let mut stage = self.locked();
        if !visit.told
            && let Some(click) = stage.teller.click_of(visit.account, &landing)
        {
            let steps = stage.teller.landed(visit.account, click);
            stage.plan(steps);
        }
        Ok(())
    }
}
