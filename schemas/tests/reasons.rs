//! `docs/reasons.md` has a section for every reason, in the order of precedence, with cause, example and fix; and the
//! examples that can be decided on receipt give the reason that they stand for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{fs, path::Path, sync::Arc};

use schemas::{
    Reason, Time,
    event::Reading,
    interpret::{RawRequest, interpret},
    settings::AccountSettings,
    status::Meaning,
};

const ON_RECEIPT: &str = "Decided on receipt.";
const AT_THE_EDGE: &str = "Decided at the edge.";
const BY_THE_MATCHER: &str = "Decided by the matcher.";

/// Code and text of every section.
fn sections() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let text = fs::read_to_string(path).unwrap();
    let section = |text: &str| text.split_once('\n').map(|(code, body)| (code.to_owned(), body.to_owned())).unwrap();
    text.split("\n## ").skip(1).map(section).collect()
}

/// Language and text of the section's example.
fn example(body: &str) -> (&str, &str) {
    let (_, fenced) = body.split_once("```").unwrap();
    let (language, rest) = fenced.split_once('\n').unwrap();
    (language, rest.split_once("\n```").unwrap().0)
}

/// Writes out `p1=1&p2=1&…&p200=1`.
fn written_out(text: &str) -> String {
    let between: Vec<_> = (3..200).map(|n| format!("p{n}=1")).collect();
    text.replace('…', &between.join("&"))
}

fn read(reason: Reason, language: &str, text: &str) -> Reading {
    let mut settings = AccountSettings::generic("t", "acc");
    settings.paused = reason == Reason::AccountPaused;
    if reason == Reason::IgnoredStatus {
        let ignored = Meaning { ignore: true, ..Meaning::default() };
        Arc::make_mut(&mut settings.statuses).insert("noise".to_owned(), ignored);
    }
    let text = written_out(text);
    let raw = match language {
        "query" => RawRequest { method: "GET", query: text.as_bytes(), body: None, content_type: None },
        "json" => RawRequest {
            method: "POST",
            query: b"",
            body: Some(text.as_bytes()),
            content_type: Some("application/json"),
        },
        other => panic!("an example in {other}"),
    };
    let mut readings = interpret(&raw, &settings, Time::from_ms(1_800_000_000_000));
    assert_eq!(readings.len(), 1, "{text}");
    readings.remove(0)
}

/// The reason that a reading gives for the postback, or for the money of its goals.
fn given(reading: &Reading) -> Option<Reason> {
    reading.reject.or_else(|| reading.goals.iter().find_map(|goal| goal.money.problem))
}

/// Who decides it. Only the listener knows addresses and signatures, only the matcher clicks and conversions.
fn decided(reason: Reason) -> &'static str {
    match reason {
        Reason::AddressNotAllowed | Reason::BadSignature => AT_THE_EDGE,
        Reason::IgnoredStatus => ON_RECEIPT,
        reason if reason < Reason::UnknownClick => ON_RECEIPT,
        _ => BY_THE_MATCHER,
    }
}

#[test]
fn every_reason_has_a_section_in_the_order_of_precedence() {
    let sections = sections();
    let codes: Vec<_> = sections.iter().map(|(code, _)| code.as_str()).collect();
    let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes, all);
    for (reason, (code, body)) in Reason::ALL.iter().zip(&sections) {
        assert!(body.trim_start().starts_with(decided(*reason)), "{code}");
        for (label, least) in [("**Cause.** ", 20), ("**Example.**", 0), ("**Fix.** ", 7)] {
            let (_, text) = body.split_once(label).unwrap_or_else(|| panic!("{code} has no {label}"));
            assert!(text.lines().next().unwrap().len() >= least, "{code}: {label}");
        }
        assert!(!example(body).1.trim().is_empty(), "{code}");
    }
}

#[test]
fn examples_give_the_reason_that_they_stand_for() {
    for (reason, (code, body)) in Reason::ALL.iter().zip(sections()) {
        let (language, text) = example(&body);
        if decided(*reason) != ON_RECEIPT {
            assert_eq!(language, "text", "{code}: nothing in the postback shows it");
            continue;
        }
        let reading = read(*reason, language, text);
        assert_eq!(given(&reading), Some(*reason), "{code}: {text}");
        if reading.reject.is_some() {
            assert!(reading.hint.is_some_and(|hint| !hint.is_empty()), "{code}: no hint");
        }
    }
}
