//! Every documented program that is known of is in the catalogue, or there is a reason why it is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::collections::BTreeMap;

use schemas::catalogue;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// Id in the catalogue.
    Program(String),
    LeftOut(String),
}

#[test]
fn documented_programs_are_in_the_catalogue_or_left_out_for_a_reason() {
    let known: BTreeMap<String, Place> = serde_json::from_str(include_str!("documented.json")).unwrap();
    assert!(known.len() >= 83, "{}", known.len());
    for (id, place) in known {
        match place {
            Place::Program(program) => assert!(catalogue::find(&program).is_some(), "{id}: no program {program}"),
            Place::LeftOut(reason) => {
                assert!(reason.len() > 20, "{id}: {reason}");
                assert!(catalogue::find(&id).is_none(), "{id} is in the catalogue, and is said not to be");
            }
        }
    }
}
