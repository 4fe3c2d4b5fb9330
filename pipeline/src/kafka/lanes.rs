//! Which events of each partition are with the Kafka client, and which wait for their turn.
//!
//! Owns: the order of one partition's events on their way to the client. Pure.
//! Invariant: a client that has none of a partition gets at most `TOGETHER`; one that has some gets all that wait, but only
//! where it then has at most `PIPED`.
//!
//! An idempotent librdkafka sends nothing more for a partition while five messages of it or more are under way, and as
//! long as it has more of them it asks the clock and the socket again and again without waiting: a whole core, for as
//! long as an acknowledgement takes. What waits here instead goes out as one large request.

/// The client pipelines so many messages of one partition, each in a request of its own.
const PIPED: usize = 5;

/// So many of the usual size fit one request, which has at most a megabyte.
const TOGETHER: usize = 500;

#[derive(Debug)]
struct Lane<T> {
    with_client: usize,
    waiting: Vec<T>,
}

#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    /// Lanes to look at.
    moved: Vec<u16>,
}

impl<T> Lanes<T> {
    pub(super) fn new(partitions: u16) -> Self {
        let lane = || Lane { with_client: 0, waiting: Vec::new() };
        Self { lanes: (0..partitions).map(|_| lane()).collect(), moved: Vec::new() }
    }

    pub(super) fn put(&mut self, partition: u16, event: T) {
        if let Some(lane) = self.lanes.get_mut(usize::from(partition)) {
            lane.waiting.push(event);
            if self.moved.last() != Some(&partition) {
                self.moved.push(partition);
            }
        }
    }

    /// The client has one less of this partition.
    pub(super) fn done(&mut self, partition: u16) {
        if let Some(lane) = self.lanes.get_mut(usize::from(partition)) {
            lane.with_client = lane.with_client.saturating_sub(1);
            if lane.with_client == 0 && !lane.waiting.is_empty() {
                self.moved.push(partition);
            }
        }
    }

    /// Those whose turn it is, partition by partition. They are with the client from now on.
    pub(super) fn turns(&mut self) -> Vec<T> {
        let mut turns = Vec::new();
        for partition in self.moved.drain(..) {
            let Some(lane) = self.lanes.get_mut(usize::from(partition)) else { continue };
            let count = how_many(lane.with_client, lane.waiting.len());
            lane.with_client += count;
            turns.extend(lane.waiting.drain(..count));
        }
        turns
    }

    /// All that wait; and nothing is with the client any more, as far as is known here.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.moved.clear();
        self.lanes.iter_mut().for_each(|lane| lane.with_client = 0);
        self.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.waiting)).collect()
    }
}

/// How many of those that wait the client may get, by how many it has.
pub(super) fn how_many(with_client: usize, waiting: usize) -> usize {
    match with_client {
        0 => waiting.min(TOGETHER),
        some if some + waiting <= PIPED => waiting,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(lanes: &mut Lanes<u32>, partition: u16, events: impl IntoIterator<Item = u32>) {
        events.into_iter().for_each(|event| lanes.put(partition, event));
    }

    #[test]
    fn what_comes_meanwhile_goes_together() {
        let mut lanes = Lanes::new(2);
        put(&mut lanes, 0, 1..=8);
        assert_eq!(lanes.turns(), [1, 2, 3, 4, 5, 6, 7, 8]);
        put(&mut lanes, 0, 9..=10);
        put(&mut lanes, 1, 11..=12);
        assert_eq!(lanes.turns(), [11, 12], "one partition does not wait for another");
        for _ in 1..8 {
            lanes.done(0);
            assert!(lanes.turns().is_empty());
        }
        put(&mut lanes, 0, [13]);
        lanes.done(0);
        assert_eq!(lanes.turns(), [9, 10, 13]);
    }

    #[test]
    fn no_more_than_one_request_takes_go_together() {
        assert_eq!(how_many(0, TOGETHER + 7), TOGETHER);
        assert_eq!((how_many(1, 4), how_many(1, 5), how_many(TOGETHER, 1)), (4, 0, 0));
    }

    #[test]
    fn few_do_not_wait_for_each_other() {
        let mut lanes = Lanes::new(1);
        for event in 1..=5 {
            put(&mut lanes, 0, [event]);
            assert_eq!(lanes.turns(), [event]);
        }
        put(&mut lanes, 0, [6]);
        assert!(lanes.turns().is_empty());
    }

    #[test]
    fn after_clearing_nobody_is_waited_for() {
        let mut lanes = Lanes::new(1);
        put(&mut lanes, 0, 1..=9);
        lanes.turns();
        put(&mut lanes, 0, 10..=11);
        assert_eq!(lanes.clear(), [10, 11]);
        assert!(lanes.turns().is_empty());
        // Reported late.
        lanes.done(0);
        put(&mut lanes, 0, [12]);
        assert_eq!(lanes.turns(), [12]);
    }

    proptest! {
        /// Whatever is reported when: each goes once, in the order of its partition, and nothing waits for ever.
        #[test]
        fn all_go_in_their_order(steps in prop::collection::vec((0u16..3, any::<bool>()), 0..200)) {
            let mut lanes = Lanes::new(3);
            let (mut put, mut gone, mut reported) = (vec![Vec::new(); 3], vec![Vec::new(); 3], [0; 3]);
            let go = |lanes: &mut Lanes<(u16, usize)>, gone: &mut Vec<Vec<usize>>| {
                lanes.turns().into_iter().for_each(|(partition, event)| gone[usize::from(partition)].push(event));
            };
            for (at, (partition, comes)) in steps.into_iter().enumerate() {
                let lane = usize::from(partition);
                if comes {
                    lanes.put(partition, (partition, at));
                    put[lane].push(at);
                } else if reported[lane] < gone[lane].len() {
                    reported[lane] += 1;
                    lanes.done(partition);
                }
                go(&mut lanes, &mut gone);
            }
            for partition in 0..3u16 {
                let lane = usize::from(partition);
                while reported[lane] < gone[lane].len() {
                    reported[lane] += 1;
                    lanes.done(partition);
                    go(&mut lanes, &mut gone);
                }
            }
            prop_assert_eq!(gone, put);
        }
    }
}
