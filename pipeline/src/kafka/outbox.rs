//! What was handed to the Kafka client and is not acknowledged yet.
//!
//! Owns: which events are under way, in the order of sending, and up to where the spool's are acknowledged.
//! Refuses: to be asked twice about one event. Pure: the caller tells it the time.
//! Invariant: `released` never passes a spooled event that is not acknowledged.

use std::{collections::VecDeque, time::Instant};

/// An event under way. `D` is what an answer to it needs.
#[derive(Debug)]
pub(super) enum Slot<D> {
    /// Somebody waits for it.
    Direct(D),
    /// It stands in the spool under this index; whoever sent it was answered.
    Spooled(u64),
    /// Whoever sent it was told that it is not known to be durable.
    Forgotten,
}

#[derive(Debug)]
struct Sent<D> {
    slot: Slot<D>,
    bytes: usize,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Outbox<D> {
    /// Key of the first slot.
    base: usize,
    slots: VecDeque<Option<Sent<D>>>,
    bytes: usize,
    /// Index in the spool of the first event that is not acknowledged.
    released: u64,
    /// Of those after it that were sent: whether they are acknowledged.
    acked: VecDeque<bool>,
}

impl<D> Outbox<D> {
    pub(super) fn new() -> Self {
        Self { base: 0, slots: VecDeque::new(), bytes: 0, released: 0, acked: VecDeque::new() }
    }

    /// From the oldest that is under way on; what was acknowledged out of order is counted, too.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// When the oldest of those under way was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.slots.front().and_then(|slot| slot.as_ref()).map(|sent| sent.at)
    }

    pub(super) fn next_key(&self) -> usize {
        self.base + self.slots.len()
    }

    /// Takes the `next_key`. Spooled events come in the order of their indices.
    pub(super) fn put(&mut self, slot: Slot<D>, bytes: usize, at: Instant) {
        if let Slot::Spooled(index) = slot {
            self.track(index);
        }
        self.bytes += bytes;
        self.slots.push_back(Some(Sent { slot, bytes, at }));
    }

    fn track(&mut self, index: u64) {
        debug_assert_eq!(index, self.released + self.acked.len() as u64, "spooled events are sent in their order");
        self.acked.push_back(false);
    }

    /// The event of this key was acknowledged. `None` if that was known.
    pub(super) fn done(&mut self, key: usize) -> Option<Slot<D>> {
        let sent = self.slots.get_mut(key.checked_sub(self.base)?)?.take()?;
        self.bytes -= sent.bytes;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        if let Slot::Spooled(index) = sent.slot {
            if let Some(acked) = index.checked_sub(self.released).and_then(|at| self.acked.get_mut(at as usize)) {
                *acked = true;
            }
            while let Some(true) = self.acked.front() {
                self.acked.pop_front();
                self.released += 1;
            }
        }
        Some(sent.slot)
    }

    /// All that somebody waits for, in the order of sending; `then` says what becomes of each.
    pub(super) fn convert(&mut self, mut then: impl FnMut(D) -> Slot<D>) {
        let mut spooled = Vec::new();
        for sent in self.slots.iter_mut().flatten() {
            if matches!(sent.slot, Slot::Direct(_))
                && let Slot::Direct(direct) = std::mem::replace(&mut sent.slot, Slot::Forgotten)
            {
                sent.slot = then(direct);
                if let Slot::Spooled(index) = sent.slot {
                    spooled.push(index);
                }
            }
        }
        spooled.into_iter().for_each(|index| self.track(index));
    }

    /// Of an event that somebody waits for: what an answer to it needs.
    pub(super) fn direct(&self, key: usize) -> Option<&D> {
        match &self.slots.get(key.checked_sub(self.base)?)?.as_ref()?.slot {
            Slot::Direct(direct) => Some(direct),
            Slot::Spooled(_) | Slot::Forgotten => None,
        }
    }

    pub(super) fn directs(&self) -> impl Iterator<Item = &D> {
        self.slots.iter().flatten().filter_map(|sent| match &sent.slot {
            Slot::Direct(direct) => Some(direct),
            Slot::Spooled(_) | Slot::Forgotten => None,
        })
    }

    /// Nothing is under way any more. What was is unknown, and keys of before are not taken again.
    pub(super) fn reset(&mut self) {
        self.base += self.slots.len();
        self.slots.clear();
        self.acked.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outbox(slots: Vec<Slot<u32>>) -> Outbox<u32> {
        let mut outbox = Outbox::new();
        let now = Instant::now();
        slots.into_iter().for_each(|slot| outbox.put(slot, 10, now));
        outbox
    }

    #[test]
    fn each_is_done_once() {
        let mut outbox = outbox(vec![Slot::Direct(1), Slot::Direct(2)]);
        assert!(matches!(outbox.done(1), Some(Slot::Direct(2))));
        assert!(outbox.done(1).is_none() && outbox.done(7).is_none());
        assert_eq!((outbox.len(), outbox.bytes()), (2, 10));
        assert!(matches!(outbox.done(0), Some(Slot::Direct(1))));
        assert_eq!((outbox.len(), outbox.bytes(), outbox.next_key()), (0, 0, 2));
        assert!(outbox.done(0).is_none());
    }

    #[test]
    fn who_waits_is_converted_and_may_still_be_acknowledged() {
        let mut outbox = outbox(vec![Slot::Spooled(0), Slot::Direct(1), Slot::Direct(2)]);
        assert_eq!(outbox.directs().copied().collect::<Vec<_>>(), [1, 2]);
        let mut index = 0;
        outbox.convert(|_| {
            index += 1;
            Slot::Spooled(index)
        });
        assert_eq!(outbox.directs().count(), 0);
        assert!(matches!(outbox.done(2), Some(Slot::Spooled(2))));
        assert_eq!(outbox.released(), 0);
        outbox.done(0);
        assert_eq!(outbox.released(), 1);
        outbox.done(1);
        assert_eq!(outbox.released(), 3);
    }

    #[test]
    fn after_a_reset_nothing_of_before_counts() {
        let mut outbox = outbox(vec![Slot::Spooled(0), Slot::Spooled(1)]);
        outbox.done(1);
        outbox.reset();
        assert_eq!((outbox.released(), outbox.bytes(), outbox.oldest()), (0, 0, None));
        assert!(outbox.done(0).is_none());
        outbox.put(Slot::Spooled(0), 1, Instant::now());
        assert!(matches!(outbox.done(2), Some(Slot::Spooled(0))));
        assert_eq!(outbox.released(), 1);
    }

    proptest! {
        /// However acknowledgements arrive, what is released is exactly what is acknowledged without a hole.
        #[test]
        fn released_never_passes_what_is_open(order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(), upto in 0..40usize) {
            let mut outbox = outbox((0..40).map(|n| if n % 3 == 0 { Slot::Direct(n) } else { Slot::Spooled(u64::from(n - n / 3 - 1)) }).collect());
            let mut acked = [false; 26];
            for key in order.into_iter().take(upto) {
                if let Some(Slot::Spooled(index)) = outbox.done(key) {
                    acked[index as usize] = true;
                }
                let whole = acked.iter().take_while(|acked| **acked).count() as u64;
                prop_assert_eq!(outbox.released(), whole);
            }
        }
    }
}
