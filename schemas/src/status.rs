//! States of a conversion, and the maps from senders' status words to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{goal, word};

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

/// Lays words over a map. A word takes the place of those that are written otherwise, but read as the same.
pub fn lay_over(map: &mut StatusMap, own: &StatusMap) {
    let keys: BTreeSet<String> = own.keys().map(|word| word::key(word)).collect();
    map.retain(|word, _| !keys.contains(&word::key(word)));
    map.extend(own.iter().map(|(word, meaning)| (word.trim().to_lowercase(), meaning.clone())));
}

/// The words that mean the same everywhere. Numbers are not among them: `1` is a sale here and a lead there.
pub fn default_map() -> StatusMap {
    let mut map = StatusMap::new();
    for (words, state) in [(APPROVED, State::Approved), (PENDING, State::Pending), (REJECTED, State::Rejected)] {
        for word in words {
            map.insert((*word).to_owned(), Meaning::state(state));
        }
    }
    for (name, _, aliases) in goal::BUILT_IN {
        for word in aliases.iter().chain([name]) {
            map.insert((*word).to_owned(), Meaning::goal(name));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_laid_over_take_the_place_of_their_other_spellings() {
        let mut map = default_map();
        let own = [
            ("On-Hold ".to_owned(), Meaning::state(State::Rejected)),
            ("first dep".to_owned(), Meaning::goal("sales")),
            ("-1".to_owned(), Meaning::state(State::Pending)),
        ];
        lay_over(&mut map, &own.into());
        lay_over(&mut map, &[("1".to_owned(), Meaning::state(State::Approved))].into());
        let spelled = |key: &str| {
            map.iter().filter(|(word, _)| word::key(word) == key).map(|(w, _)| w.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((spelled("onhold"), spelled("firstdep")), (vec!["on-hold"], vec!["first dep"]));
        assert_eq!((map["-1"].state, map["1"].state), (Some(State::Pending), Some(State::Approved)));
        assert_eq!(map["hold"].state, Some(State::Pending));
    }

    #[test]
    fn no_default_word_means_two_things() {
        let mut meanings: BTreeMap<String, Meaning> = BTreeMap::new();
        for (word, meaning) in default_map() {
            let known = meanings.entry(word::key(&word)).or_insert_with(|| meaning.clone());
            assert_eq!(*known, meaning, "{word}");
        }
    }
}
