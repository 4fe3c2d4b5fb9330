//! The outcomes of one partition as every reader sees them: the one list, whoever wrote to the log and however often.
//!
//! Owns: the reader's rule on a real log. Refuses: to take a record that is not the next one; to go on where two writers
//! decided differently.
//! Invariant: what `next` gives continues what it gave before, without one left out and without one twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::Message;
use schemas::{
    Outcome,
    chain::{Position, Verdict, judge},
};

use super::{
    Cluster, PartitionReader, Problem, ReadError, Topic,
    records::{self, Number},
};

/// How long a hole may stay until the log is read again from its beginning.
const HOLE: Duration = Duration::from_secs(5);
/// To read a record that is known to be there.
const ANSWER: Duration = Duration::from_secs(5);

/// Up to where a reader has come. The offset is a hint where to go on; `position` is what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The offset after the last record that was taken.
    pub offset: u64,
    pub position: Position,
}

impl Place {
    /// Before the first outcome. It is of the event after the identity record, which has offset 0.
    pub const START: Place = Place { offset: 0, position: Position { next: 1, ..Position::START } };
}

/// The next outcome of the list.
#[derive(Debug)]
pub struct Met {
    pub src: u64,
    pub outcome: Outcome,
    /// Of its event.
    pub number: Number,
    /// After it.
    pub place: Place,
}

/// Nobody can go on behind it before somebody has looked at it.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error(
    "record {offset} of the outcomes, of event {src}, does not continue what was read before: two writers decided \
     differently, or acknowledged data was lost"
)]
pub struct Diverged {
    offset: u64,
    src: u64,
}

pub struct OutcomeReader {
    reader: PartitionReader,
    place: Place,
    /// Since when a later record is there without the next one.
    hole: Option<Instant>,
    patience: Duration,
}

impl OutcomeReader {
    /// Continues at `place`, wherever in the log that is now.
    pub fn open(cluster: &Cluster, partition: u16, place: Place, kbytes: u32) -> Result<Self> {
        let reader = PartitionReader::open(cluster, Topic::Outcomes, partition, kbytes)?;
        let mut this = Self { reader, place, hole: None, patience: HOLE };
        let (first, end) = this.reader.ends()?;
        if !(first < place.offset && place.offset <= end && this.is_there()?) {
            this.go_back()?;
        }
        Ok(this)
    }

    /// Where the log ends by now.
    pub fn end(&self) -> Result<u64> {
        Ok(self.reader.ends()?.1)
    }

    /// What is read next; everything before was met, and taken or skipped.
    pub fn offset(&self) -> u64 {
        self.reader.next()
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether the record before the place is the one that was taken last. Afterwards the place is what is read next.
    fn is_there(&mut self) -> Result<bool> {
        self.reader.seek(self.place.offset - 1)?;
        let until = Instant::now() + ANSWER;
        while Instant::now() < until {
            match self.reader.poll(Duration::from_millis(100)) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let position = self.place.position;
                    let Ok(link) = records::decode_link(message.headers()) else { return Ok(false) };
                    return Ok(link.src + 1 == position.next && link.chain == position.chain);
                }
                Err(ReadError::Gone(_)) => return Ok(false),
                Err(ReadError::Away(why)) => return Err(Problem::Unreachable(why).into()),
            }
        }
        Err(Problem::Unreachable("a record that is there is not given".to_owned()).into())
    }

    /// What was taken before is met again and skipped.
    fn go_back(&mut self) -> Result<()> {
        let (first, _) = self.reader.ends()?;
        self.hole = None;
        Ok(self.reader.seek(first)?)
    }

    /// `None`: nothing came in this time, which does not mean that there is nothing more. Where the brokers are away that is
    /// `Problem::Unreachable`.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Met>> {
        let until = Instant::now() + wait;
        loop {
            if self.hole.is_some_and(|since| since.elapsed() > self.patience) {
                tracing::warn!(next = self.place.position.next, "an outcome is missing; the log is read again");
                // The matcher heals it; until then reading it all over and over would help nobody.
                self.patience = (self.patience * 2).min(HOLE * 64);
                self.go_back()?;
            }
            match self.poll(until.saturating_duration_since(Instant::now()))? {
                Polled::Met(met) => return Ok(Some(*met)),
                Polled::Nothing if Instant::now() >= until => return Ok(None),
                Polled::Nothing | Polled::Passed => {}
                Polled::Gone(why) => {
                    tracing::warn!(next = self.place.position.next, "the log is read again from its beginning: {why}");
                    self.go_back()?;
                }
            }
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled> {
        let message = match self.reader.poll(wait) {
            Ok(None) => return Ok(Polled::Nothing),
            Ok(Some(message)) => message,
            Err(ReadError::Gone(why)) => return Ok(Polled::Gone(why)),
            Err(ReadError::Away(why)) => return Err(Problem::Unreachable(why).into()),
        };
        if records::is_identity(message.headers()) {
            return Ok(Polled::Passed);
        }
        let offset = u64::try_from(message.offset()).unwrap_or_default();
        let at = || format!("record {offset} of the outcomes");
        let link = records::decode_link(message.headers()).with_context(at)?;
        let payload = message.payload().with_context(at)?;
        match judge(&self.place.position, &link, payload) {
            Verdict::Skip => return Ok(Polled::Passed),
            Verdict::Hole => {
                self.hole.get_or_insert_with(Instant::now);
                return Ok(Polled::Passed);
            }
            Verdict::Diverged => return Err(Diverged { offset, src: link.src }.into()),
            Verdict::Take => {}
        }
        let outcome = serde_json::from_slice(payload).with_context(at)?;
        let number = records::decode_number(message.headers()).with_context(at)?;
        let position = Position { next: link.src + 1, chain: link.chain };
        self.place = Place { offset: offset + 1, position };
        (self.hole, self.patience) = (None, HOLE);
        Ok(Polled::Met(Box::new(Met { src: link.src, outcome, number, place: self.place })))
    }
}

enum Polled {
    Met(Box<Met>),
    Passed,
    Nothing,
    Gone(String),
}
