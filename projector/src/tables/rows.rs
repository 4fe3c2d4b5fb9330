//! The rows that are kept per hit, click and conversion, and their stored form.

use anyhow::{Context, Result};
use postcard::ser_flavors::Flavor;
use schemas::{
    Amount, ClickId, ConversionId, Currency, EventId, Reason, Time,
    outcome::{ClickData, Conversion, HitOutcome, Status},
    status::State,
};
use serde::{Deserialize, Serialize};

use crate::{
    fold::{Origin, Version, pairs},
    report::What,
};

/// A hit with its current outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRow<'a> {
    pub account: u32,
    pub id: EventId,
    pub time: Time,
    /// Log time when it came.
    pub log_time: Time,
    /// The event that last read it again: its reading there is the one that holds.
    pub read_again: Option<u64>,
    pub method: &'a str,
    pub raw: &'a str,
    pub body: Option<&'a str>,
    pub remote: Option<&'a str>,
    #[serde(borrow)]
    pub decision: Decision<'a>,
}

/// What a later outcome of the same hit replaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision<'a> {
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub hint: Option<&'a str>,
    pub waiting_until: Option<Time>,
    pub click: Option<(ClickId, Time)>,
    pub named: Option<&'a str>,
    pub label: Option<&'a str>,
    #[serde(borrow)]
    pub corrections: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    pub goals: Vec<GoalPart<'a>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalPart<'a> {
    pub goal: &'a str,
    pub count: u32,
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub same_as: Option<EventId>,
    #[serde(borrow)]
    pub conversion: Option<ConversionPart<'a>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversionPart<'a> {
    pub id: ConversionId,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
    pub tid: Option<&'a str>,
    pub player: Option<&'a str>,
}

impl<'a> From<&'a HitOutcome> for Decision<'a> {
    fn from(hit: &'a HitOutcome) -> Self {
        let part = |c: &'a Conversion| ConversionPart {
            id: c.id,
            state: c.state,
            earning: c.earning,
            value: c.value,
            currency: c.currency,
            tid: c.tid.as_deref(),
            player: c.player.as_deref(),
        };
        let goals = hit.goals.iter().map(|goal| GoalPart {
            goal: &goal.goal,
            count: goal.count,
            outcome: goal.outcome,
            reason: goal.reason,
            same_as: goal.same_as,
            conversion: goal.conversion.as_ref().map(part),
        });
        Decision {
            outcome: hit.outcome,
            reason: hit.reason,
            hint: hit.hint.as_deref(),
            waiting_until: hit.waiting_until,
            click: hit.click.as_ref().map(|click| (click.id, click.time)),
            named: hit.named.as_deref(),
            label: hit.label.as_deref(),
            corrections: pairs(&hit.corrections),
            goals: goals.collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredClick<'a> {
    pub account: u32,
    pub id: ClickId,
    pub time: Time,
    /// Log time when it came.
    pub log_time: Time,
    pub program: &'a str,
    pub foreign: Option<&'a str>,
    #[serde(borrow)]
    pub origin: StoredOrigin<'a>,
    #[serde(borrow)]
    pub flags: Vec<&'a str>,
}

impl<'a> StoredClick<'a> {
    pub fn of(account: u32, log_time: Time, click: &'a ClickData) -> Self {
        Self {
            account,
            id: click.id,
            time: click.time,
            log_time,
            program: &click.program,
            foreign: click.foreign.as_deref(),
            origin: Origin::from(click).into(),
            flags: click.flags.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOrigin<'a> {
    pub link: Option<&'a str>,
    pub dyn_: Option<&'a str>,
    #[serde(borrow)]
    pub subs: [Option<&'a str>; 5],
}

impl<'a> From<Origin<'a>> for StoredOrigin<'a> {
    fn from(origin: Origin<'a>) -> Self {
        Self { link: origin.link, dyn_: origin.dyn_, subs: origin.subs }
    }
}

impl<'a> From<StoredOrigin<'a>> for Origin<'a> {
    fn from(origin: StoredOrigin<'a>) -> Self {
        Self { link: origin.link, dyn_: origin.dyn_, subs: origin.subs }
    }
}

/// A conversion as it stands, and its first version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredConversion<'a> {
    pub account: u32,
    pub id: ConversionId,
    pub program: &'a str,
    pub click: Option<ClickId>,
    pub click_time: Time,
    #[serde(borrow)]
    pub origin: StoredOrigin<'a>,
    pub version: u32,
    pub goal: &'a str,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
    pub tid: Option<&'a str>,
    pub player: Option<&'a str>,
    pub time: Time,
    pub withdrawn: bool,
    pub updated: Time,
    #[serde(borrow)]
    pub first: StoredChange<'a>,
}

/// One version of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredChange<'a> {
    pub version: u32,
    pub time: Time,
    pub what: What,
    pub hit: Option<EventId>,
    #[serde(borrow)]
    pub hand: Option<(&'a str, &'a str)>,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
}

impl<'a> StoredChange<'a> {
    pub fn of(version: &Version<'a>, time: Time) -> Self {
        let c = version.conversion;
        Self {
            version: c.version,
            time,
            what: version.what,
            hit: version.hit,
            hand: version.hand,
            count: c.count,
            state: c.state,
            earning: c.earning,
            value: c.value,
            currency: c.currency,
        }
    }
}

impl<'a> StoredConversion<'a> {
    /// `time`: receipt of the event that brought this version.
    pub fn of(account: u32, version: &Version<'a>, time: Time) -> Self {
        let c = version.conversion;
        Self {
            account,
            id: c.id,
            program: version.program,
            click: version.click.map(|(id, _)| id),
            click_time: version.click.map_or(c.time, |(_, time)| time),
            origin: version.origin.into(),
            version: c.version,
            goal: &c.goal,
            count: c.count,
            state: c.state,
            earning: c.earning,
            value: c.value,
            currency: c.currency,
            tid: c.tid.as_deref(),
            player: c.player.as_deref(),
            time: c.time,
            withdrawn: c.withdrawn,
            updated: time,
            first: StoredChange::of(version, time),
        }
    }
    /// The next version. A conversion never moves to another click, and a hit that is read again as worthless does
    /// not name the click, so what was true of the first version stays.
    pub fn becomes(self, next: StoredConversion<'a>) -> Self {
        let click_time = if self.click.is_some() { self.click_time } else { next.time };
        let Self { account, id, program, click, origin, first, .. } = self;
        Self { account, id, program, click, click_time, origin, first, ..next }
    }
}

pub fn encode<T: Serialize>(row: &T, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    let reused = Reused(std::mem::take(buffer));
    *buffer = postcard::serialize_with_flavor(row, reused).context("a row cannot be stored")?;
    Ok(())
}

/// A buffer that is used again. The one that comes with `postcard` copies texts byte by byte.
struct Reused(Vec<u8>);

impl Flavor for Reused {
    type Output = Vec<u8>;
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    postcard::from_bytes(bytes).context("a stored row cannot be read")
}
