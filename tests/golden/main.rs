//! The published examples are no invention: their hits are read by `interpret`, and the outcomes are what the matcher
//! decides on the events, byte for byte. Rule version 1 is pinned by the chain through these bytes.
//!
//! `UPDATE_EXAMPLES=1 cargo test -p system-tests --test golden` writes readings and outcomes anew. A change of the chain
//! below is a new rule version, once the version was published.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use matcher::{Cause, State, apply, decide};
use schemas::{
    Event, EventBody, EventId, Outcome, Time,
    chain::Chain,
    event::{Hit, ItemBody, Raw, Reading},
    goal::{Dedup, GoalSettings},
    interpret::{interpret, stored},
    outcome::Kind,
    settings::{AccountSettings, DynMode},
    time::DAY_MS,
};

/// The chain after all outcomes of the examples, in the order of their events.
const VERSION_1: &str = "127a58683024071eee405871667fc923";
/// An outcome that needs more history than the examples have; it is checked against its schema only.
const WITHOUT_EVENT: &str = "repeat-too-late";

fn folder(topic: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/examples").join(topic)
}

fn update() -> bool {
    std::env::var_os("UPDATE_EXAMPLES").is_some()
}

/// In the order of the log: by number, a repeat after what it repeats.
fn events() -> Vec<(String, Event)> {
    let mut events: Vec<(String, Event)> = fs::read_dir(folder("events"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect();
    events.sort_by_key(|(name, event)| (event.n, name.clone()));
    events
}

fn write(topic: &str, name: &str, record: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(record).unwrap() + "\n";
    fs::write(folder(topic).join(format!("{name}.json")), text).unwrap();
}

/// The account's settings when the example's hit came in.
fn settings(name: &str) -> AccountSettings {
    let mut settings = AccountSettings::generic("default", "ac_7q2m5xk3");
    match name {
        "hit-label" => settings.dyn_mode = DynMode::Campaign,
        "hit-custom" => {
            let mut goals = Vec::clone(&settings.goals);
            goals.push(GoalSettings {
                name: "kyc".to_owned(),
                dedup: Dedup::Once,
                repeat_window_s: 600,
                aliases: vec![],
            });
            settings.goals = Arc::new(goals);
        }
        _ => {}
    }
    settings
}

fn read(raw: &Raw, time: Time, settings: &AccountSettings) -> Reading {
    let mut readings = interpret(&stored(raw), settings, time);
    assert_eq!(readings.len(), 1);
    readings.remove(0)
}

#[test]
fn hits_of_the_examples_are_read_as_they_say() {
    let events = events();
    let hits: HashMap<EventId, (Time, Hit)> = events
        .iter()
        .filter_map(|(_, event)| match &event.body {
            EventBody::Hit(hit) => Some((event.id, (event.time, hit.clone()))),
            _ => None,
        })
        .collect();
    for (name, mut event) in events {
        let time = event.time;
        let published = event.clone();
        match &mut event.body {
            EventBody::Hit(hit) => hit.reading = read(&hit.raw, time, &settings(&name)),
            // Read again with the settings that the account had without its custom goal.
            EventBody::Reprocess(request) => {
                for item in &mut request.items {
                    if let ItemBody::Hit { reading, .. } = &mut item.what {
                        let (time, hit) = &hits[&item.id];
                        *reading = read(&hit.raw, *time, &settings("today"));
                    }
                }
            }
            _ => {}
        }
        if update() {
            write("events", &name, &event);
        } else {
            assert_eq!(published, event, "events/{name}");
        }
    }
}

struct Log {
    state: State,
    src: u64,
    chain: Chain,
}

impl Log {
    fn take(&mut self, event: &Event) -> Outcome {
        let cause = Cause { src: self.src, appended: event.time };
        let outcome = decide(&self.state, cause, event).unwrap();
        apply(&mut self.state, cause, event, &outcome);
        self.src += 1;
        outcome
    }

    /// A tick a day, which the published examples leave out.
    fn wait_until(&mut self, like: &Event) {
        for day in (1..=7).rev() {
            let time = like.time.plus_ms(-day * DAY_MS);
            let id = EventId::new(time, 0, 0);
            self.take(&Event { id, time, n: 1_000 + day.unsigned_abs(), ..like.clone() });
        }
    }
}

#[test]
fn outcomes_of_the_examples_are_what_the_matcher_decides() {
    let mut log = Log { state: State::default(), src: 0, chain: Chain::FIRST };
    let mut decided = Vec::new();
    for (name, event) in events() {
        if name == "tick-expires" {
            log.wait_until(&event);
        }
        let outcome = log.take(&event);
        log.chain = log.chain.next(&serde_json::to_vec(&outcome).unwrap());
        if update() {
            write("outcomes", &name, &outcome);
        }
        let published: Outcome =
            serde_json::from_slice(&fs::read(folder("outcomes").join(format!("{name}.json"))).unwrap()).unwrap();
        assert_eq!(published, outcome, "outcomes/{name}");
        assert_eq!(outcome.kind == Kind::Repeat, name == "repeat");
        decided.push(name);
    }
    for entry in fs::read_dir(folder("outcomes")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(decided.contains(&name) || name == WITHOUT_EVENT, "outcomes/{name} is of no event");
    }
    assert_eq!(log.chain.as_str(), VERSION_1, "the bytes of an outcome have changed");
}
