//! The contract with readers of the topics: the published JSON Schemas, and one example per record kind.
//!
//! `json-schema/*.json` is generated from the Rust types; `cargo xtask schemas` writes it anew, and refuses a change
//! that would break a reader or an old record. A file that differs from the types fails here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use schemars::{JsonSchema, generate::SchemaSettings};
use schemas::{ConversionRecord, Event, Outcome, catalog};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[path = "contract/compat.rs"]
mod compat;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &std::path::Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is written, as a reader sees it: every field that is always there is required, enumerations are open.
fn schema<T: JsonSchema>(name: &str, title: &str) -> Value {
    let mut schema =
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value();
    compat::open_enumerations(&mut schema);
    schema["$id"] = json!(format!("urn:clickback:{name}:v{}", schemas::event::VERSION));
    schema["title"] = json!(title);
    schema
}

/// What our own reader needs: a field that it requires must be in every record ever written.
fn needed<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn types() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("event", schema::<Event>("event", "A record of clickback.events"), needed::<Event>()),
        ("outcome", schema::<Outcome>("outcome", "A record of clickback.outcomes"), needed::<Outcome>()),
        (
            "conversion",
            schema::<ConversionRecord>("conversion", "A record of clickback.conversions"),
            needed::<ConversionRecord>(),
        ),
        ("catalog", schema::<catalog::Record>("catalog", "A record of clickback.catalog"), needed::<catalog::Record>()),
    ]
}

#[test]
fn published_schemas_are_those_of_the_types() {
    let update = std::env::var("UPDATE_SCHEMAS").ok();
    let anew = update.as_deref() == Some("anew");
    for (name, current, needed) in types() {
        let path = folder("json-schema").join(format!("{name}.json"));
        if !anew {
            let published = read(&path);
            let breaks = compat::breaks(&published, &current, &needed);
            assert!(
                breaks.is_empty(),
                "{name}: this change breaks readers of records that were published under the same `v`:\n  {}",
                breaks.join("\n  ")
            );
            assert!(
                update.is_some() || published == current,
                "{name}: the type has changed: run `cargo xtask schemas`"
            );
        }
        if update.is_some() {
            let text = serde_json::to_string_pretty(&current).unwrap();
            fs::write(&path, text + "\n").unwrap();
        }
    }
}

fn examples(topic: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder("examples").join(topic)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(path.extension().and_then(|e| e.to_str()), Some("json"), "{}", path.display());
        found.insert(name, read(&path));
    }
    assert!(!found.is_empty(), "no examples of {topic}");
    found
}

/// Every example reads as the Rust type, is written as the same JSON, and fits the published schema.
fn check<T: Serialize + DeserializeOwned>(topic: &str, schema: &str) -> BTreeMap<String, T> {
    let published = read(&folder("json-schema").join(format!("{schema}.json")));
    let validator = jsonschema::validator_for(&published).unwrap();
    let mut records = BTreeMap::new();
    for (name, example) in examples(topic) {
        let record: T = serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{topic}/{name}: {e}"));
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(again, example, "{topic}/{name} is written otherwise than it stands in the example");
        let problems: Vec<String> =
            validator.iter_errors(&example).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(problems.is_empty(), "{topic}/{name}: {problems:#?}");
        records.insert(name, record);
    }
    records
}

fn kinds_of(kinds: impl Iterator<Item = String>) -> Vec<String> {
    let mut kinds: Vec<String> = kinds.collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn examples_of_events() {
    let events = check::<Event>("events", "event");
    let kinds = kinds_of(events.values().map(|e| e.body.kind().to_owned()));
    assert_eq!(kinds, ["adjust", "click", "hit", "reprocess", "rules", "tick"]);
}

#[test]
fn examples_of_outcomes() {
    let outcomes = check::<Outcome>("outcomes", "outcome");
    let kinds = kinds_of(outcomes.values().map(|o| serde_json::to_value(o.kind).unwrap().as_str().unwrap().to_owned()));
    assert_eq!(kinds, ["adjust", "click", "hit", "repeat", "reprocess", "rules", "tick"]);

    let statuses = kinds_of(outcomes.values().flat_map(|o| o.hits.iter().map(|h| h.outcome.code().to_owned())));
    let mut all: Vec<&str> = schemas::outcome::Status::ALL.iter().map(|s| s.code()).collect();
    all.sort_unstable();
    assert_eq!(statuses, all, "one example at least of every outcome of a hit");
}

/// The flat record says the same of a conversion as the outcome that made it.
#[test]
fn examples_of_conversions() {
    let records = check::<ConversionRecord>("conversions", "conversion");
    assert!(records.values().any(|r| r.withdrawn) && records.values().any(|r| r.click.is_none()));
    let flat = serde_json::to_value(&records["conversion"]).unwrap();
    let outcome = &examples("outcomes")["hit-money"];
    for (field, stands) in outcome["hits"][0]["goals"][0]["conversion"].as_object().unwrap() {
        assert_eq!(&flat[field], stands, "{field}");
    }
    for field in ["dyn", "link", "sub1", "sub2", "sub3", "sub4", "sub5"] {
        assert_eq!(flat[field], outcome["hits"][0]["click"][field], "{field}");
    }
}

#[test]
fn examples_of_the_catalog() {
    let records = check::<catalog::Record>("catalog", "catalog");
    let kinds = kinds_of(records.values().map(|r| r.body.thing().split('/').next().unwrap_or_default().to_owned()));
    assert_eq!(kinds, ["account", "answer", "key", "link", "program", "reprocess"]);
}

/// The examples of outcomes follow the examples of events of the same name.
#[test]
fn an_outcome_names_its_event_by_id() {
    let events = examples("events");
    for (name, outcome) in examples("outcomes") {
        if let Some(event) = events.get(&name) {
            assert_eq!((&event["id"], &event["tenant"]), (&outcome["id"], &outcome["tenant"]), "{name}");
        }
    }
}

#[test]
fn asyncapi_names_every_schema_and_every_example_folder() {
    let text = fs::read_to_string(folder("asyncapi.yaml")).unwrap();
    for (name, _, _) in types() {
        assert!(text.contains(&format!("json-schema/{name}.json")), "asyncapi.yaml does not name {name}.json");
    }
    for topic in ["events", "outcomes", "conversions", "catalog"] {
        assert!(text.contains(&format!("address: clickback.{topic}")), "asyncapi.yaml does not have clickback.{topic}");
    }
}
