//! The rows that the private listener answers with, as written in the contract.

use std::collections::BTreeMap;

use schemas::{Amount, EventId, Reason, Time, event::Correction, outcome::Status, status::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a list, newest first where nothing else is said.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub cursor: Option<String>,
    /// Up to where the answer is true.
    #[serde(skip)]
    pub as_of: AsOf,
}

/// The answer is the fold of every event before `next`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AsOf {
    /// Receipt of the last event in it.
    pub time: Time,
    #[serde(skip)]
    pub next: u64,
}

/// A postback row.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PostbackRow {
    pub hit: EventId,
    pub time: Time,
    pub account: String,
    pub method: String,
    pub raw: String,
    pub body: Option<String>,
    pub remote: Option<String>,
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub hint: Option<String>,
    pub partial: bool,
    pub corrections: Vec<Correction>,
    /// Our id of the click it was credited to, else the click name as received.
    pub click: Option<String>,
    pub waiting_until: Option<Time>,
    pub goals: Vec<GoalRow>,
    pub since_click_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct GoalRow {
    pub goal: String,
    pub count: u32,
    pub outcome: Status,
    pub reason: Option<Reason>,
    pub conversion: Option<String>,
    pub state: Option<State>,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Option<&'static str>,
    pub tid: Option<String>,
    pub player: Option<String>,
    pub same_as: Option<EventId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClickRow {
    /// Ours.
    pub id: String,
    pub time: Time,
    pub account: String,
    pub program: String,
    pub link: Option<String>,
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    /// The id under which an imported click is known elsewhere.
    pub foreign: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    pub flags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ConversionRow {
    pub id: String,
    pub version: u32,
    pub account: String,
    pub program: String,
    pub link: Option<String>,
    pub click: Option<String>,
    pub click_time: Time,
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    pub goal: String,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: &'static str,
    pub tid: Option<String>,
    pub player: Option<String>,
    pub time: Time,
    pub withdrawn: bool,
    /// Receipt of the event that changed it last.
    pub updated: Time,
    /// Every change, the first one first; given where one conversion or one click is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<ChangeRow>>,
}

/// One version of a conversion: when it came to be, by what, and how it stood then.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ChangeRow {
    pub version: u32,
    /// Receipt of the event.
    pub time: Time,
    pub what: What,
    /// The hit, for what a hit changed.
    pub hit: Option<EventId>,
    /// Of a correction by hand: which API key, and what the person wrote.
    pub by: Option<String>,
    pub note: Option<String>,
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Made,
    Updated,
    Adjusted,
    Reprocessed,
    Withdrawn,
}

impl What {
    pub const ALL: [What; 5] = [What::Made, What::Updated, What::Adjusted, What::Reprocessed, What::Withdrawn];
}

/// `GET /v1/clicks/{click_id}`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Journey {
    pub click: ClickRow,
    /// In log order.
    pub hits: Vec<PostbackRow>,
    pub conversions: Vec<ConversionRow>,
    /// False: there are more hits than are shown.
    pub complete: bool,
}

/// The conversions report.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Report {
    pub rows: Vec<ReportRow>,
    pub totals: Measures,
    pub as_of: AsOf,
    pub query: Understood,
    pub cursor: Option<String>,
}

/// The question as it was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Understood {
    pub from: Time,
    pub to: Time,
    pub tz: String,
    pub basis: &'static str,
    pub group_by: Vec<&'static str>,
    pub filters: BTreeMap<&'static str, Vec<String>>,
    pub sort: Option<String>,
    pub bots: &'static str,
    pub limit: Option<usize>,
}

/// Written flat: the group keys in the order asked for (with names behind accounts, programs and links), then the
/// measures. `at_least` and `other` are written only where true.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    pub keys: Vec<(&'static str, Option<String>)>,
    pub other: bool,
    pub at_least: bool,
    pub measures: Measures,
}

impl Serialize for ReportRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.keys {
            map.serialize_entry(name, value)?;
        }
        for (name, mark) in [("other", self.other), ("at_least", self.at_least)] {
            if mark {
                map.serialize_entry(name, &true)?;
            }
        }
        let m = &self.measures;
        map.serialize_entry("clicks", &m.clicks)?;
        map.serialize_entry("goals", &m.goals)?;
        map.serialize_entry("conversions", &m.conversions)?;
        map.serialize_entry("earnings", &m.earnings)?;
        map.serialize_entry("values", &m.values)?;
        map.serialize_entry("rates", &m.rates)?;
        map.serialize_entry("epc", &m.epc)?;
        map.end()
    }
}

#[derive(Clone, Debug, PartialEq, Default, Serialize, ToSchema)]
pub struct Measures {
    /// `null` when grouped by goal, currency or state.
    pub clicks: Option<i64>,
    /// Pending and approved.
    pub goals: BTreeMap<String, i64>,
    pub conversions: StateCounts,
    pub earnings: Vec<MoneyRow>,
    pub values: Vec<MoneyRow>,
    pub rates: Rates,
    pub epc: Vec<Epc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct StateCounts {
    pub pending: i64,
    pub approved: i64,
    pub rejected: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MoneyRow {
    pub currency: &'static str,
    pub state: State,
    /// A sum: it may be larger than one hit's amount may be.
    pub amount: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Rates {
    pub click_to_signup: Option<String>,
    pub signup_to_ftd: Option<String>,
    pub click_to_ftd: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Epc {
    pub currency: &'static str,
    pub amount: String,
}
