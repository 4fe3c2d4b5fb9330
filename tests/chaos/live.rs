//! A reader that reads along during the whole run, as a data team's does: it keeps what it took, whatever the topics do.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pipeline::kafka::{Cluster, PartitionReader, Topic};

use crate::reader::Taking;

const KBYTES: u32 = 1_024;
/// A hole that stays for so long is not going to be filled from behind.
const HOLE: Duration = Duration::from_secs(5);
/// For the outcomes of what is there. Brokers, groups and states come back in this time.
const PATIENCE: Duration = Duration::from_secs(90);

struct Shared {
    /// By partition: what is taken next.
    next: Mutex<Vec<u64>>,
    moved: Condvar,
    stop: AtomicBool,
}

pub struct Live {
    cluster: Cluster,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<Taken>>,
}

/// What a reader of one partition has in the end.
pub struct Taken {
    pub chains: Vec<String>,
    /// How often it had to go back to the beginning.
    pub restarts: u32,
}

impl Live {
    pub fn begin(cluster: &Cluster, partitions: u16) -> Live {
        let shared = Arc::new(Shared {
            next: Mutex::new(vec![1; usize::from(partitions)]),
            moved: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let readers = (0..partitions)
            .map(|partition| {
                let (cluster, shared) = (cluster.clone(), Arc::clone(&shared));
                std::thread::spawn(move || read(&cluster, partition, &shared))
            })
            .collect();
        Live { cluster: cluster.clone(), shared, readers }
    }

    /// Waits until everything that is on the events topic now has its outcome.
    pub fn settle(&self) {
        let partitions: Vec<u16> = (0..self.readers.len() as u16).collect();
        self.settle_of(&partitions);
    }

    pub fn settle_of(&self, partitions: &[u16]) {
        let ends: Vec<(usize, u64)> =
            partitions.iter().map(|p| (usize::from(*p), end(&self.cluster, Topic::Events, *p))).collect();
        let missing = |next: &mut Vec<u64>| ends.iter().any(|(partition, end)| next[*partition] < *end);
        let next = self.shared.next.lock().unwrap();
        let (next, late) = self.shared.moved.wait_timeout_while(next, PATIENCE, missing).unwrap();
        assert!(!late.timed_out(), "outcomes up to {next:?} after {PATIENCE:?}; events (partition, end): {ends:?}");
    }

    pub fn all_taken(&self) -> u64 {
        self.shared.next.lock().unwrap().iter().sum()
    }

    /// Waits until outcomes come again.
    pub fn wait_for_more_than(&self, taken: u64) {
        let next = self.shared.next.lock().unwrap();
        let none = |next: &mut Vec<u64>| next.iter().sum::<u64>() <= taken;
        let (_next, late) = self.shared.moved.wait_timeout_while(next, PATIENCE, none).unwrap();
        assert!(!late.timed_out(), "no outcomes in {PATIENCE:?}");
    }

    /// What is taken next in a partition.
    pub fn next(&self, partition: u16) -> u64 {
        self.shared.next.lock().unwrap()[usize::from(partition)]
    }

    pub fn end(self) -> Vec<Taken> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    }
}

/// The offset that the next record of a partition gets, once a broker can be asked.
pub fn end(cluster: &Cluster, topic: Topic, partition: u16) -> u64 {
    let until = Instant::now() + PATIENCE;
    let reader = PartitionReader::open(cluster, topic, partition, KBYTES).unwrap();
    loop {
        match reader.ends() {
            Ok((_, end)) => return end,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

fn read(cluster: &Cluster, partition: u16, shared: &Shared) -> Taken {
    let mut reader = PartitionReader::open(cluster, Topic::Outcomes, partition, KBYTES).unwrap();
    reader.seek(0).unwrap();
    let (mut taking, mut restarts, mut moved) = (Taking::new(), 0, Instant::now());
    // A broker that is away says so again and again.
    let mut read_since = false;
    while !shared.stop.load(Ordering::Relaxed) {
        let gone = match reader.poll(Duration::from_millis(50)) {
            Ok(Some(message)) => {
                read_since = true;
                if taking.take(&message) {
                    moved = Instant::now();
                    shared.next.lock().unwrap()[usize::from(partition)] = taking.next;
                    shared.moved.notify_all();
                }
                false
            }
            Ok(None) => false,
            // Whatever it is: what was read may not be there any more.
            Err(_) => true,
        };
        let hole = taking.hole && moved.elapsed() > HOLE;
        if gone || hole {
            reader.seek(0).unwrap();
            (taking.hole, moved) = (false, Instant::now());
            restarts += u32::from(std::mem::take(&mut read_since));
        }
    }
    Taken { chains: taking.chains, restarts }
}
