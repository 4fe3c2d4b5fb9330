//! The reader's rule, and what a data team makes of the outcomes, written from the documentation and not with the
//! product's own code.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::oracle::{Key, Worth};

pub fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let found = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}

/// Takes one list of outcomes out of whatever stands in a partition.
pub struct Taking {
    pub next: u64,
    /// The chain of each outcome that was taken; the last one stands for all of them.
    pub chains: Vec<String>,
    /// Records that came before and again.
    pub skipped: u64,
    /// Something later came than what is taken next.
    pub hole: bool,
}

impl Taking {
    /// Offset 0 of `events` is the identity record, which has no outcome.
    pub fn new() -> Taking {
        Taking { next: 1, chains: Vec::new(), skipped: 0, hole: false }
    }

    /// Whether the record is the next one of the list.
    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let (Some(src), Some(prev), Some(chain)) =
            (header(message, "src"), header(message, "prev"), header(message, "chain"))
        else {
            assert_eq!(header(message, "type"), Some("identity"));
            return false;
        };
        let src: u64 = src.parse().unwrap();
        if src != self.next {
            self.hole |= src > self.next;
            self.skipped += u64::from(src < self.next);
            return false;
        }
        let first = "0".repeat(32);
        let last = self.chains.last().unwrap_or(&first);
        let digest = Sha256::new().chain_update(last).chain_update(message.payload().unwrap()).finalize();
        assert_eq!((prev, chain), (last.as_str(), &hex::encode(digest)[..32]), "outcome {src} diverges");
        self.chains.push(chain.to_owned());
        (self.next, self.hole) = (src + 1, false);
        true
    }
}

#[derive(Default)]
struct Conversion {
    click: String,
    goal: String,
    tid: Option<String>,
    version: u64,
    now: Option<Worth>,
    /// State → count and cents: the sum of all changes.
    sums: BTreeMap<String, (i64, i64)>,
}

/// Clicks, hits and conversions, built from outcomes as a warehouse does.
#[derive(Default)]
pub struct Warehouse {
    /// Click → visitor.
    clicks: BTreeMap<String, u32>,
    conversions: BTreeMap<String, Conversion>,
    /// Hit → what became of it, one after the other.
    pub hits: BTreeMap<String, Vec<String>>,
    /// Ids of the events, in the order of each partition.
    pub events: Vec<String>,
    pub kinds: BTreeMap<String, u64>,
}

impl Warehouse {
    pub fn add(&mut self, payload: &[u8]) {
        let outcome: Value = serde_json::from_slice(payload).unwrap();
        self.events.push(text(&outcome["id"]));
        *self.kinds.entry(text(&outcome["kind"])).or_default() += 1;
        if let Some(visitor) = outcome["click"]["sub1"].as_str() {
            let visitor = visitor[1..].parse().unwrap();
            assert!(self.clicks.insert(text(&outcome["click"]["id"]), visitor).is_none(), "a click counts twice");
        }
        for hit in outcome["hits"].as_array().into_iter().flatten() {
            self.hits.entry(text(&hit["hit"]["id"])).or_default().push(text(&hit["outcome"]));
            for goal in hit["goals"].as_array().into_iter().flatten() {
                if matches!(goal["outcome"].as_str(), Some("converted" | "updated")) {
                    self.version(&goal["conversion"]);
                }
            }
        }
        for change in outcome["changes"].as_array().into_iter().flatten() {
            let conversion = self.conversions.get_mut(change["conversion"].as_str().unwrap()).unwrap();
            conversion.click = text(&change["click"]);
            let sum = conversion.sums.entry(text(&change["state"])).or_default();
            sum.0 += change["count"].as_i64().unwrap();
            sum.1 += cents(&change["earning"]).unwrap_or(0);
        }
    }

    fn version(&mut self, stated: &Value) {
        let conversion = self.conversions.entry(text(&stated["id"])).or_default();
        let version = stated["version"].as_u64().unwrap();
        assert_eq!(version, conversion.version + 1, "versions of {} are not in order", stated["id"]);
        conversion.version = version;
        conversion.goal = text(&stated["goal"]);
        conversion.tid = stated["tid"].as_str().map(str::to_owned);
        assert_eq!(stated["currency"], "EUR");
        let count = stated["count"].as_u64().unwrap();
        conversion.now = Some(Worth { count, state: text(&stated["state"]), cents: cents(&stated["earning"]) });
    }

    /// What was made, by what it is about. Twice the same is an error.
    pub fn conversions(&self) -> BTreeMap<Key, Worth> {
        let mut all = BTreeMap::new();
        for (id, conversion) in &self.conversions {
            let now = conversion.now.clone().unwrap();
            for (state, (count, cents)) in &conversion.sums {
                let expected = if *state == now.state { (now.count as i64, now.cents.unwrap_or(0)) } else { (0, 0) };
                assert_eq!((*count, *cents), expected, "changes of {id} do not add up to what it is");
            }
            let transaction = conversion.tid.as_ref().map(|tid| tid[1..].parse().unwrap());
            let key = Key { visitor: self.clicks[&conversion.click], goal: conversion.goal.clone(), transaction };
            assert!(all.insert(key.clone(), now).is_none(), "{key:?} counts twice");
        }
        all
    }

    pub fn clicked(&self) -> BTreeSet<&str> {
        self.clicks.keys().map(String::as_str).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Amounts are decimal strings; these have two places.
fn cents(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    let (whole, rest) = text.split_once('.').unwrap();
    assert_eq!(rest.len(), 2, "{text}");
    Some(format!("{whole}{rest}").parse().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sign_up(event: &str, conversion: &str) -> Vec<u8> {
        let stated = json!({ "id": conversion, "version": 1, "goal": "signups", "count": 1, "state": "approved",
                             "earning": null, "currency": "EUR", "tid": null });
        let goals = json!([{ "outcome": "converted", "conversion": stated }]);
        let change =
            json!({ "conversion": conversion, "click": "c", "state": "approved", "count": 1, "earning": null });
        let hit = json!({ "hit": { "id": event }, "outcome": "converted", "goals": goals });
        serde_json::to_vec(&json!({ "id": event, "kind": "hit", "hits": [hit], "changes": [change] })).unwrap()
    }

    fn warehouse() -> Warehouse {
        let mut warehouse = Warehouse::default();
        let click = json!({ "id": "e0", "kind": "click", "click": { "id": "c", "sub1": "v7" } });
        warehouse.add(&serde_json::to_vec(&click).unwrap());
        warehouse.add(&sign_up("e1", "one"));
        warehouse
    }

    #[test]
    fn one_sign_up_is_one() {
        let all = warehouse().conversions();
        let key = Key { visitor: 7, goal: "signups".to_owned(), transaction: None };
        assert_eq!(all[&key], Worth { count: 1, state: "approved".to_owned(), cents: None });
    }

    #[test]
    #[should_panic(expected = "counts twice")]
    fn a_second_sign_up_is_seen() {
        let mut warehouse = warehouse();
        warehouse.add(&sign_up("e2", "two"));
        warehouse.conversions();
    }

    #[test]
    #[should_panic(expected = "not in order")]
    fn an_outcome_that_is_taken_twice_is_seen() {
        warehouse().add(&sign_up("e1", "one"));
    }

    #[test]
    fn amounts_keep_their_sign() {
        assert_eq!(cents(&json!("-12.05")), Some(-1205));
        assert_eq!(cents(&json!(null)), None);
    }
}
