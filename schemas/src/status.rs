//! States of a conversion, and the maps from senders' status words to them.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Pending,
    Approved,
    Rejected,
}

impl State {
    pub const ALL: [State; 3] = [State::Pending, State::Approved, State::Rejected];
    pub fn code(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Approved => "approved",
            State::Rejected => "rejected",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What a status word means: a state, a goal, both, or nothing at all (`ignore`).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Meaning {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore: bool,
}

impl Meaning {
    pub fn state(state: State) -> Self {
        Self { state: Some(state), ..Self::default() }
    }
    pub fn goal(goal: &str) -> Self {
        Self { goal: Some(goal.to_owned()), ..Self::default() }
    }
}

/// Lower-case word → meaning.
pub type StatusMap = BTreeMap<String, Meaning>;

const APPROVED: &[&str] = &[
    "approved",
    "approve",
    "confirmed",
    "confirm",
    "paid",
    "ok",
    "accepted",
    "accept",
    "success",
    "successful",
    "completed",
    "complete",
    "valid",
    "validated",
    "payable",
    "active",
    "locked",
    "buyout",
];
const PENDING: &[&str] = &[
    "pending",
    "hold",
    "onhold",
    "on_hold",
    "on-hold",
    "new",
    "wait",
    "waiting",
    "open",
    "processing",
    "in_progress",
    "review",
    "unconfirmed",
];
const REJECTED: &[&str] = &[
    "rejected",
    "reject",
    "declined",
    "decline",
    "cancelled",
    "canceled",
    "cancel",
    "trash",
    "chargeback",
    "charge_back",
    "reversed",
    "reverse",
    "reversal",
    "refund",
    "refunded",
    "invalid",
    "fraud",
    "spam",
    "fail",
    "failed",
    "denied",
    "void",
    "scrubbed",
    "return",
    "returned",
];

/// The words that mean the same everywhere. Numbers are not among them: `1` is a sale here and a lead there.
pub fn default_map() -> StatusMap {
    let mut map = StatusMap::new();
    for (words, state) in [(APPROVED, State::Approved), (PENDING, State::Pending), (REJECTED, State::Rejected)] {
        for word in words {
            map.insert((*word).to_owned(), Meaning::state(state));
        }
    }
    for (word, goal) in [
        ("lead", "signups"),
        ("reg", "signups"),
        ("registration", "signups"),
        ("signup", "signups"),
        ("sale", "sales"),
        ("ftd", "firsttimedeposits"),
        ("first_dep", "firsttimedeposits"),
        ("dep", "deposits"),
        ("deposit", "deposits"),
        ("rebill", "deposits"),
    ] {
        map.insert(word.to_owned(), Meaning::goal(goal));
    }
    map
}
