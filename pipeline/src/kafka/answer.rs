//! Answers to those who appended: of several events in one request, all or the first that failed.

use std::{cell::RefCell, rc::Rc};

use tokio::sync::oneshot;

use crate::{Receipt, Unavailable};

type Sender = oneshot::Sender<Result<Vec<Receipt>, Unavailable>>;

/// Of one event.
#[derive(Debug)]
pub(super) enum Answer {
    Alone(Sender),
    Among(Rc<RefCell<Group>>, usize),
}

#[derive(Debug)]
pub(super) struct Group {
    answer: Option<Sender>,
    receipts: Vec<Option<Receipt>>,
    missing: usize,
}

impl Answer {
    /// One for each of `count` events, in their order.
    pub(super) fn split(answer: Sender, count: usize) -> Vec<Answer> {
        if count == 1 {
            return vec![Answer::Alone(answer)];
        }
        let group = Group { answer: Some(answer), receipts: vec![None; count], missing: count };
        let group = Rc::new(RefCell::new(group));
        (0..count).map(|at| Answer::Among(Rc::clone(&group), at)).collect()
    }

    /// Somebody who no longer waits is not an error: the event is where it is.
    pub(super) fn give(self, result: Result<Receipt, Unavailable>) {
        match self {
            Answer::Alone(answer) => {
                answer.send(result.map(|receipt| vec![receipt])).ok();
            }
            Answer::Among(group, at) => group.borrow_mut().put(at, result),
        }
    }
}

impl Group {
    fn put(&mut self, at: usize, result: Result<Receipt, Unavailable>) {
        match result {
            Err(error) => {
                if let Some(answer) = self.answer.take() {
                    answer.send(Err(error)).ok();
                }
            }
            Ok(receipt) => {
                if let Some(slot) = self.receipts.get_mut(at)
                    && slot.replace(receipt).is_none()
                {
                    self.missing -= 1;
                }
                if self.missing == 0
                    && let Some(answer) = self.answer.take()
                {
                    answer.send(Ok(self.receipts.iter().copied().flatten().collect())).ok();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(src: u64) -> Receipt {
        Receipt::Logged { partition: 0, src }
    }

    #[test]
    fn all_are_answered_in_their_order() {
        let (answer, mut answered) = oneshot::channel();
        let mut parts = Answer::split(answer, 3);
        for (place, src) in [(2, 30), (0, 10)] {
            parts.remove(place).give(Ok(at(src)));
            assert!(answered.try_recv().is_err());
        }
        parts.remove(0).give(Ok(at(20)));
        assert_eq!(answered.try_recv().unwrap(), Ok(vec![at(10), at(20), at(30)]));
    }

    #[test]
    fn the_first_failure_answers_for_all() {
        let (answer, mut answered) = oneshot::channel();
        let mut parts = Answer::split(answer, 2);
        parts.remove(0).give(Err(Unavailable::Busy));
        parts.remove(0).give(Ok(at(1)));
        assert_eq!(answered.try_recv().unwrap(), Err(Unavailable::Busy));
        let (answer, mut answered) = oneshot::channel();
        Answer::split(answer, 1).remove(0).give(Ok(at(1)));
        assert_eq!(answered.try_recv().unwrap(), Ok(vec![at(1)]));
    }
}
