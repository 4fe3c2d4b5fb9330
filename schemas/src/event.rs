//! Records of `clickback.events`: the one ordered log that every decision is made from.
//!
//! An event carries all that its decision needs, settings included, so a changed account never rewrites the past.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Amount, ClickId, Currency, EventId, Reason, Time, goal::Dedup, status::State};

pub const VERSION: u32 = 1;

/// One record of the log. `from` and `n` tell a repeat: `n` counts the events of the run `from` in this partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub v: u32,
    pub id: EventId,
    pub tenant: String,
    /// Receipt of the cause.
    pub time: Time,
    pub from: EventId,
    pub n: u64,
    pub body: EventBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    Click(Click),
    Hit(Hit),
    /// Moves log time to the log's own append time. Carries nothing.
    Tick,
    Adjust(Adjust),
    Reprocess(Reprocess),
    /// Switches a rule version on, from this event on.
    Rules(u32),
}

impl EventBody {
    /// The `type` header.
    pub fn kind(&self) -> &'static str {
        match self {
            EventBody::Click(_) => "click",
            EventBody::Hit(_) => "hit",
            EventBody::Tick => "tick",
            EventBody::Adjust(_) => "adjust",
            EventBody::Reprocess(_) => "reprocess",
            EventBody::Rules(_) => "rules",
        }
    }
}

/// A visitor followed a link, or a click was imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Click {
    pub id: ClickId,
    pub account: String,
    pub program: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When the visitor clicked; differs from the receipt on import.
    pub time: Time,
    /// As received. It is the click's alias unless `dyn_mode` is campaign or a foreign id takes that place.
    #[serde(rename = "dyn", default, skip_serializing_if = "Option::is_none")]
    pub dyn_: Option<String>,
    /// The id under which an imported click is known elsewhere: its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub1: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub2: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub3: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub4: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub5: Option<String>,
    /// `preview`, `prefetch`, `bot`; and `dyn_dropped`, `sub1_dropped` … for values that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer: Option<String>,
    /// The folded alias that this click answers to besides its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    pub lookback_days: u16,
    pub lifetime_days: u16,
    pub waiting_days: u16,
}

/// One raw postback, what `interpret` read in it, and the settings that its decision needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    pub account: String,
    pub program: String,
    pub raw: Raw,
    pub reading: Reading,
    pub settings: HitSettings,
}

/// The request as it is stored: redacted, without the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Raw {
    pub method: String,
    /// The query as received. Bytes that are not UTF-8 are percent-encoded.
    pub query: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The sender's address, cut to /24 or /48.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HitSettings {
    pub lookback_days: u16,
    pub lifetime_days: u16,
    pub waiting_days: u16,
    /// The goal and policy of a status without a goal.
    pub default_goal: String,
    pub default_dedup: Dedup,
    pub default_repeat_window_s: u32,
}

/// The one name of a hit; `decide` looks up this name only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// One of our own click ids.
    Click(ClickId),
    /// A `dyn` or foreign id that names clicks of the account, folded.
    Alias(String),
    /// A `dyn` that labels many clicks of the account, folded.
    Label(String),
}

/// What `interpret` understood of a raw postback. If `reject` is set, no conversion can come of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reason>,
    /// What to fix: names the parameter and what was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The click name as it was received, for people to search by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
    /// The `dyn` as it was received.
    #[serde(rename = "dyn", default, skip_serializing_if = "Option::is_none")]
    pub dyn_: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<GoalReading>,
    /// The state that the status word means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The status word as received; with no `state` and no goal of its own it is unmapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// A status word that no map knows stands beside a goal: new conversions are `pending`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmapped: bool,
    /// Money of a status without a goal; with goals it stands on the deepest of them.
    #[serde(default, skip_serializing_if = "Money::is_empty")]
    pub money: Money,
    pub currency: Option<Currency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<String>,
    /// The conversion's own time, if the sender gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<Time>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Correction>,
}

/// Money of one goal. `problem` says why an amount that was sent is not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earning: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Reason>,
}

impl Money {
    pub fn is_empty(&self) -> bool {
        *self == Money::default()
    }
}

/// One goal that a hit names, with its policy at that time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoalReading {
    pub goal: String,
    pub count: u32,
    pub dedup: Dedup,
    pub repeat_window_s: u32,
    #[serde(default, skip_serializing_if = "Money::is_empty")]
    pub money: Money,
}

/// Something that was read otherwise than it stood there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Correction {
    pub code: String,
    pub detail: String,
}

/// A correction by hand. Fields that are absent stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adjust {
    pub account: String,
    pub conversion: String,
    /// The click or label that the conversion stands on.
    pub on: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earning: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Amount>,
    pub reason: String,
    /// Id of the API key that asked for it.
    pub by: String,
}

/// The history of everything that shares one name, read again with other settings.
///
/// `items` are all clicks, hits and adjustments of the name in log order. The decision replays them on an empty
/// state, so the result is what these settings would have given from the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reprocess {
    pub account: String,
    /// The reprocess request that this event belongs to.
    pub request: String,
    pub dry_run: bool,
    pub name: Name,
    /// The items are complete up to this position of the log; if what they concern was touched later, it is `stale`.
    pub position: u64,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// Id of the event that this item was.
    pub id: EventId,
    pub time: Time,
    /// Log time when it was decided.
    pub log_time: Time,
    pub what: ItemBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemBody {
    /// The click of this id arrived; its data is in the state.
    Click(ClickId),
    Hit {
        program: String,
        reading: Reading,
        settings: HitSettings,
    },
    Adjust(Adjust),
}
