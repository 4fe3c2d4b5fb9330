//! What a program has to be like, built-in or a tenant's own.
//!
//! Owns: the rules, each with the place in the program that breaks it.
//! Refuses: the time zone, whose names are not known without reading the machine's database.
//! Invariant: links and postback URLs can be made from a program without problems.

use crate::{
    catalog::{ClickIn, Program},
    catalogue::PLACEHOLDER_KEYS,
    status::Meaning,
};

/// Bytes of an id, a parameter name, a status word or a goal.
const WORD_BYTES: usize = 64;
/// Bytes of a name, a placeholder or a click value.
const LINE_BYTES: usize = 255;
/// Bytes of source and notes.
const TEXT_BYTES: usize = 4_000;

/// One rule that a program breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer into the program.
    pub pointer: String,
    pub code: &'static str,
    pub detail: String,
}

fn problem(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Problem {
    Problem { pointer: pointer.into(), code, detail: detail.into() }
}

/// Every rule that the program breaks; empty for a good one.
pub fn problems(program: &Program) -> Vec<Problem> {
    let mut found = Vec::new();
    if !is_slug(&program.id) {
        found.push(problem("/id", "invalid_id", "1 to 64 of a-z, 0-9 and -, starting with a letter or digit"));
    }
    line(&mut found, "/name", &program.name, LINE_BYTES);
    click(&mut found, program);
    placeholders(&mut found, program);
    for (word, meaning) in &program.statuses {
        status(&mut found, word, meaning);
    }
    if let Some(goal) = &program.default_goal {
        line(&mut found, "/default_goal", goal, WORD_BYTES);
    }
    for (pointer, text) in [("/source", &program.source), ("/notes", &program.notes)] {
        if text.len() > TEXT_BYTES {
            found.push(problem(pointer, "too_long", format!("{TEXT_BYTES} bytes at most")));
        }
    }
    found
}

fn click(found: &mut Vec<Problem>, program: &Program) {
    let name = &program.click_param;
    // In a path the value has no name; it is kept for the texts that we write.
    if !(name.is_empty() && program.click_in == ClickIn::Path) {
        line(found, "/click_param", name, WORD_BYTES);
    }
    if name.contains(|c: char| "&=#?/".contains(c) || c.is_whitespace()) {
        found.push(problem("/click_param", "invalid_parameter", "the bare name, without & = # ? / or spaces"));
    }
    line(found, "/click_value", &program.click_value, LINE_BYTES);
    if !program.click_value.contains("{click_id}") {
        found.push(problem("/click_value", "no_click_id", "{click_id} must be part of it"));
    }
}

fn placeholders(found: &mut Vec<Problem>, program: &Program) {
    for (key, placeholder) in &program.placeholders {
        let pointer = format!("/placeholders/{}", escape(key));
        if !PLACEHOLDER_KEYS.contains(&key.as_str()) {
            found.push(problem(&pointer, "unknown_placeholder", format!("one of {}", PLACEHOLDER_KEYS.join(", "))));
        }
        line(found, &pointer, placeholder, LINE_BYTES);
        // `&` would end the parameter that the placeholder is the value of.
        if placeholder.contains('&') {
            found.push(problem(&pointer, "invalid_placeholder", "a placeholder cannot have & in it"));
        }
    }
}

fn status(found: &mut Vec<Problem>, word: &str, meaning: &Meaning) {
    let pointer = format!("/statuses/{}", escape(word));
    line(found, &pointer, word, WORD_BYTES);
    if word.to_lowercase() != word {
        found.push(problem(&pointer, "not_lower_case", "status words are compared in lower case: write it so"));
    }
    if meaning.state.is_none() && meaning.goal.is_none() && !meaning.ignore {
        found.push(problem(&pointer, "no_meaning", "a state, a goal, both, or ignore"));
    }
    if meaning.ignore && meaning.state.is_some() {
        found.push(problem(&pointer, "two_meanings", "ignore goes with no state"));
    }
    if let Some(goal) = &meaning.goal {
        line(found, &format!("{pointer}/goal"), goal, WORD_BYTES);
    }
}

/// One line of text: not empty, not too long, no control characters, no space around it.
fn line(found: &mut Vec<Problem>, pointer: &str, text: &str, bytes: usize) {
    let (code, detail) = if text.is_empty() {
        ("empty", "must not be empty".to_owned())
    } else if text.len() > bytes {
        ("too_long", format!("{bytes} bytes at most"))
    } else if text.contains(char::is_control) {
        ("control_character", "must not have control characters".to_owned())
    } else if text.trim() != text {
        ("space_around", "must not start or end with a space".to_owned())
    } else {
        return;
    };
    found.push(problem(pointer, code, detail));
}

pub fn is_slug(id: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    id.len() <= WORD_BYTES && id.bytes().all(inner) && !id.is_empty() && !id.starts_with('-')
}

/// `~` and `/` as a JSON pointer writes them.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, status::State};

    fn broken(change: impl FnOnce(&mut Program)) -> Vec<(String, &'static str)> {
        let mut program = catalogue::built_in()[0].clone();
        change(&mut program);
        problems(&program).into_iter().map(|p| (p.pointer, p.code)).collect()
    }

    #[test]
    fn each_rule_names_its_place() {
        assert_eq!(broken(|_| ()), []);
        assert_eq!(broken(|p| p.id = "Has Space".into()), [("/id".into(), "invalid_id")]);
        assert_eq!(broken(|p| p.name = String::new()), [("/name".into(), "empty")]);
        assert_eq!(broken(|p| p.name = "a\nb".into()), [("/name".into(), "control_character")]);
        assert_eq!(broken(|p| p.click_param = "a=b".into()), [("/click_param".into(), "invalid_parameter")]);
        assert_eq!(broken(|p| p.click_param = "c ".into()).len(), 2);
        assert_eq!(broken(|p| p.click_value = "fixed".into()), [("/click_value".into(), "no_click_id")]);
        assert_eq!(
            broken(|p| drop(p.placeholders.insert("ip/6".into(), "{ip}".into()))),
            [("/placeholders/ip~16".into(), "unknown_placeholder")]
        );
        assert_eq!(
            broken(|p| drop(p.placeholders.insert("tid".into(), "{a}&x=1".into()))),
            [("/placeholders/tid".into(), "invalid_placeholder")]
        );
        assert_eq!(broken(|p| p.default_goal = Some(String::new())), [("/default_goal".into(), "empty")]);
        assert_eq!(broken(|p| p.notes = "x".repeat(4_001)), [("/notes".into(), "too_long")]);
    }

    #[test]
    fn status_words_need_one_meaning_in_lower_case() {
        let with = |word: &str, meaning: Meaning| broken(|p| drop(p.statuses.insert(word.into(), meaning)));
        assert_eq!(with("1", Meaning::state(State::Approved)), []);
        assert_eq!(with("Sale", Meaning::goal("sales")), [("/statuses/Sale".into(), "not_lower_case")]);
        assert_eq!(with("x", Meaning::default()), [("/statuses/x".into(), "no_meaning")]);
        assert_eq!(
            with("x", Meaning { ignore: true, ..Meaning::state(State::Approved) }),
            [("/statuses/x".into(), "two_meanings")]
        );
        assert_eq!(with("x", Meaning::goal("")), [("/statuses/x/goal".into(), "empty")]);
    }

    #[test]
    fn a_path_needs_no_parameter_name() {
        let unnamed = |click_in| {
            broken(|p| {
                p.click_param = String::new();
                p.click_in = click_in;
            })
        };
        assert_eq!(unnamed(ClickIn::Path), []);
        assert_eq!(unnamed(ClickIn::Query), [("/click_param".into(), "empty")]);
    }
}
