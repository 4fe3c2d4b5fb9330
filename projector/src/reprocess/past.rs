//! What a reprocess reads: stored hits and clicks, by what they are found by. A folder and a cluster have it each in its
//! own way.

use anyhow::Result;
use schemas::{ClickId, Event, Time};

use crate::tables::Decision;

/// Where an event stands: partition and `src`. A folder has partition 0 only.
pub type At = (u16, u64);

/// A stored hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PastHit {
    pub at: At,
    /// Log time when it came.
    pub log_time: Time,
    /// `src` of the event that last read it again, in the same partition.
    pub read_again: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct PastClick {
    pub at: At,
    /// Of the account that is read again.
    pub is_ours: bool,
    pub log_time: Time,
}

/// More rows than anybody will read again at once are an error, `TooLong`.
pub trait Past {
    /// Everything before it in that partition is in what the other questions give when they are asked afterwards.
    fn position(&mut self, partition: u16) -> Result<u64>;
    fn event(&mut self, at: At) -> Result<Event>;
    /// Hits of the account, received in `from..to`, with a decision that is meant.
    fn hits_between(&mut self, from: Time, to: Time, is_meant: &dyn Fn(&Decision<'_>) -> bool) -> Result<Vec<PastHit>>;
    fn click(&mut self, id: ClickId) -> Result<Option<PastClick>>;
    /// Clicks of the account with this folded `dyn` or foreign id, and perhaps more.
    fn clicks_named(&mut self, name: &str) -> Result<Vec<At>>;
    /// Hits that name the click by our id or were credited to it, and perhaps more.
    fn hits_of_click(&mut self, id: ClickId) -> Result<Vec<PastHit>>;
    /// Hits of the tenant with this folded name, and perhaps more.
    fn hits_named(&mut self, name: &str) -> Result<Vec<PastHit>>;
    /// Corrections by hand, with the log time when they came.
    fn adjusts_of_click(&mut self, id: ClickId) -> Result<Vec<(At, Time)>>;
    fn adjusts_of_label(&mut self, label: &str) -> Result<Vec<(At, Time)>>;
    /// Between two histories; before a `position`.
    fn breathe(&mut self) -> Result<()>;
}
