//! Goals: kinds of conversions, how deep they are, and how their repeats are told from new conversions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounds::DEFAULT_REPEAT_WINDOW_S;

/// How repeats of one goal are recognised. The key of a conversion follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dedup {
    /// Once per click or label, and per player where one is given.
    Once,
    /// Once per transaction id; without one, by the rules for hits that follow each other.
    PerTransaction,
    /// Every hit counts.
    Every,
}

/// One goal of an account, as `interpret` needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoalSettings {
    pub name: String,
    pub dedup: Dedup,
    /// Seconds in which a repeat without a transaction id is a duplicate.
    pub repeat_window_s: u32,
    /// Other words for this goal in `event=`, lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Built-in goals from the shallowest to the deepest, with the words that mean them.
pub const BUILT_IN: &[(&str, Dedup, &[&str])] = &[
    (
        "signups",
        Dedup::Once,
        &[
            "signup",
            "sign_up",
            "signed_up",
            "registration",
            "registrations",
            "complete_registration",
            "new_registration",
            "register",
            "registered",
            "reg",
            "regs",
            "lead",
            "leads",
        ],
    ),
    (
        "firsttimedeposits",
        Dedup::Once,
        &[
            "firsttimedeposit",
            "ftd",
            "ftds",
            "first_deposit",
            "first_time_deposit",
            "firstdeposit",
            "first_dep",
            "first_time_depositor",
            "1st_deposit",
            "1st_dep",
            "fdp",
            "ndc",
        ],
    ),
    (
        "deposits",
        Dedup::PerTransaction,
        &["deposit", "dep", "redeposit", "redep", "repeat_deposit", "second_deposit", "rebill", "topup"],
    ),
    ("sales", Dedup::PerTransaction, &["sale", "purchase", "purchases", "order", "orders"]),
    ("qualified", Dedup::Once, &["qftd", "qualified_ftd", "qualified_player", "qualification", "cpa"]),
    ("revshare", Dedup::PerTransaction, &["rs", "revenue_share", "rev_share"]),
];

/// Count parameters that mean a built-in goal under another name.
pub const COUNT_ALIASES: &[(&str, &str)] = &[("ftd", "firsttimedeposits"), ("ftds", "firsttimedeposits")];

/// Depth of a built-in goal; money of a hit with several goals belongs to the deepest. `None` for custom goals.
pub fn depth(goal: &str) -> Option<usize> {
    BUILT_IN.iter().position(|(name, _, _)| *name == goal)
}

/// The built-in goals with their default policies.
pub fn built_in() -> Vec<GoalSettings> {
    BUILT_IN
        .iter()
        .map(|(name, dedup, aliases)| GoalSettings {
            name: (*name).to_owned(),
            dedup: *dedup,
            repeat_window_s: DEFAULT_REPEAT_WINDOW_S,
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
        })
        .collect()
}
