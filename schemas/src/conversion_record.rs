//! Records of `clickback.conversions`: the whole present state of one conversion, flat, for connectors.
//!
//! The key is the conversion's id. An upsert by key that keeps the higher `version` is exact, in whatever order and
//! however often records arrive: the same id and version always have the same content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Amount, ClickId, ConversionId, Currency, Time, status::State};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConversionRecord {
    pub v: u32,
    pub id: ConversionId,
    /// 1 when made, one more with every change.
    pub version: u32,
    pub tenant: String,
    pub account: String,
    pub program: String,
    pub link: Option<String>,
    /// `null` for a label.
    pub click: Option<ClickId>,
    /// Of a label: the conversion's time.
    pub click_time: Time,
    /// The click's `dyn`; of a label: the label.
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    pub goal: String,
    /// 0 where only money came, as with a chargeback of something unknown.
    pub count: u32,
    pub state: State,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Currency,
    pub tid: Option<String>,
    pub player: Option<String>,
    /// The conversion's own time: `ts`, else the receipt of the hit that made it.
    pub time: Time,
    /// Receipt of the event that made this version.
    pub updated: Time,
    /// Other settings made it void; it counts for nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}
