//! One batch as it stands in the log: JSON lines of events and of their outcomes, and the chain through them.

use anyhow::{Context, Result, bail};
use schemas::{Event, Time, chain::Chain};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `src` of its first event.
    pub first: u64,
    pub count: u32,
    /// When it was appended.
    pub time: Time,
    /// JSON lines, `\n` after each.
    pub events: Vec<u8>,
    /// One line per event, `\n` after each.
    pub outcomes: Vec<u8>,
    pub prev: Chain,
    /// After the last outcome.
    pub chain: Chain,
}

impl Block {
    /// The `src` after its last event.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub fn events(&self) -> impl Iterator<Item = Result<(u64, Event)>> {
        self.lines(&self.events, "events").map(|line| {
            let (src, line) = line?;
            let event = serde_json::from_slice(line).with_context(|| format!("event {src} of the log"))?;
            Ok((src, event))
        })
    }

    /// One of its events.
    pub fn event(&self, src: u64) -> Result<Event> {
        let at = src.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let line = at.and_then(|at| self.event_lines().nth(at));
        let line = line.with_context(|| format!("event {src} is not in the block from {}", self.first))??;
        serde_json::from_slice(line).with_context(|| format!("event {src} of the log"))
    }

    pub(super) fn event_lines(&self) -> impl Iterator<Item = Result<&[u8]>> {
        self.lines(&self.events, "events").map(|line| line.map(|(_, line)| line))
    }

    /// The payloads of the outcomes, as they are chained.
    pub fn outcomes(&self) -> impl Iterator<Item = Result<(u64, &[u8])>> {
        self.lines(&self.outcomes, "outcomes")
    }

    /// The chain before the outcome of `src`, after checking the whole block.
    pub(super) fn chain_before(&self, src: u64) -> Result<Chain> {
        let mut chain = self.prev;
        let mut before = self.chain;
        for outcome in self.outcomes() {
            let (at, payload) = outcome?;
            if at == src {
                before = chain;
            }
            chain = chain.next(payload);
        }
        if chain != self.chain {
            bail!(
                "the chain breaks in the block of events {} to {}: the log was changed or damaged",
                self.first,
                self.end()
            );
        }
        Ok(before)
    }

    /// Checks that the outcomes lead from `prev` to `chain`.
    pub fn verify(&self) -> Result<()> {
        self.chain_before(self.end()).map(drop)
    }

    fn lines<'a>(&self, bytes: &'a [u8], what: &'static str) -> impl Iterator<Item = Result<(u64, &'a [u8])>> {
        let (first, count) = (self.first, u64::from(self.count));
        let mut rest = bytes;
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= count {
                return None;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                at = count;
                return Some(Err(anyhow::anyhow!("the block at {first} has fewer {what} than it should")));
            };
            let line = &rest[..end];
            rest = &rest[end + 1..];
            at += 1;
            Some(Ok((first + at - 1, line)))
        })
    }
}
