//! Records of `clickback.outcomes`: exactly one per event, in order, with everything that the event caused.
//! Their fold is the report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Amount, ClickId, ConversionId, Currency, EventId, Reason, Time,
    event::{Correction, VERSION},
    status::State,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Click,
    Hit,
    Tick,
    Adjust,
    Reprocess,
    Repeat,
    Rules,
}

impl Kind {
    /// The `type` header.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Click => "click",
            Kind::Hit => "hit",
            Kind::Tick => "tick",
            Kind::Adjust => "adjust",
            Kind::Reprocess => "reprocess",
            Kind::Repeat => "repeat",
            Kind::Rules => "rules",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    pub v: u32,
    /// Id of the event.
    pub id: EventId,
    pub tenant: String,
    /// Receipt of the event; of a tick the append time.
    pub time: Time,
    pub kind: Kind,
    /// Of a click: its data. Of an adjustment or a reprocess: the click concerned, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<ClickData>,
    /// Why the event changed nothing: a repeated import, a repeat that came too late, a stale reprocess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Of a tick: log time after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_time: Option<Time>,
    /// Of a rules event: the version from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjust: Option<AdjustOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprocess: Option<ReprocessOutcome>,
    /// One entry per hit that this event decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<HitOutcome>,
    /// Signed; their sum over all records is the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl Outcome {
    /// Of an event that caused nothing.
    pub fn blank(id: EventId, tenant: &str, time: Time, kind: Kind) -> Self {
        Outcome {
            v: VERSION,
            id,
            tenant: tenant.to_owned(),
            time,
            kind,
            click: None,
            reason: None,
            log_time: None,
            rules: None,
            adjust: None,
            reprocess: None,
            hits: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// A click as the reports see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClickData {
    pub id: ClickId,
    pub time: Time,
    pub account: String,
    pub program: String,
    pub link: Option<String>,
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// The click that a hit was credited to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClickRef {
    pub id: ClickId,
    pub time: Time,
    pub link: Option<String>,
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
}

/// What became of a hit: the best of its goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Converted,
    Updated,
    Waiting,
    Duplicate,
    Rejected,
    Withdrawn,
    Test,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::Converted,
        Status::Updated,
        Status::Waiting,
        Status::Duplicate,
        Status::Rejected,
        Status::Withdrawn,
        Status::Test,
    ];
    pub fn code(self) -> &'static str {
        match self {
            Status::Converted => "converted",
            Status::Updated => "updated",
            Status::Waiting => "waiting",
            Status::Duplicate => "duplicate",
            Status::Rejected => "rejected",
            Status::Withdrawn => "withdrawn",
            Status::Test => "test",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HitOutcome {
    pub hit: HitRef,
    pub tenant: String,
    pub account: String,
    pub program: String,
    /// `null` while no click is known, and for labels.
    pub click: Option<ClickRef>,
    /// The click name as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// The label that the hit counts for, where it is named by a campaign's `dyn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub outcome: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Correction>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<GoalOutcome>,
}

/// `method`, `raw`, `body` and `remote` stand here where the event is the hit itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HitRef {
    pub id: EventId,
    pub time: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoalOutcome {
    /// Empty for a status without a goal that found no conversion.
    pub goal: String,
    pub count: u32,
    pub outcome: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The hit that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<EventId>,
    /// The conversion concerned, as it stands after this hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversion: Option<Conversion>,
}

/// A conversion after the change of which it is part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conversion {
    /// Hash of the key under which it was first made.
    pub id: ConversionId,
    /// 1 when made, one more with every change.
    pub version: u32,
    pub goal: String,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
    pub tid: Option<String>,
    pub player: Option<String>,
    /// The conversion's own time: `ts`, else the receipt of the hit that made it.
    pub time: Time,
    /// Other settings made it void; it counts for nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

/// A signed change of one report cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    pub conversion: ConversionId,
    pub account: String,
    /// `null` for a label.
    pub click: Option<ClickId>,
    /// Of a label: the conversion's time.
    pub click_time: Time,
    /// The conversion's time: the bucket of the original, also for corrections.
    pub time: Time,
    pub goal: String,
    pub state: State,
    pub currency: Currency,
    pub count: i64,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdjustOutcome {
    pub account: String,
    pub outcome: Status,
    /// What the person wrote.
    pub note: String,
    pub by: String,
    pub program: Option<String>,
    pub label: Option<String>,
    pub conversion: Option<Conversion>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReprocessOutcome {
    pub account: String,
    pub request: String,
    pub dry_run: bool,
    /// Conversions that changed (in a dry run: would change).
    pub changed: u32,
    /// The clicks whose history was replayed; `changes` refer to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clicks: Vec<ClickRef>,
    /// The label whose history was replayed; `changes` without a click refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
