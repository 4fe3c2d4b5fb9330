//! Status words in requests and answers: `"approved"`, `"ignore"`, or `{"state","goal"}`.

use schemas::status::{Meaning, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{fields::Errors, input::did_you_mean};

/// What a status word means.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Word {
    /// `pending`, `approved`, `rejected` or `ignore`.
    Short(String),
    Long {
        /// `pending`, `approved` or `rejected`.
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        goal: Option<String>,
    },
}

const SHORT: [&str; 4] = ["pending", "approved", "rejected", "ignore"];

fn state(text: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.code().eq_ignore_ascii_case(text.trim()))
}

/// In the shortest form.
pub fn word(meaning: &Meaning) -> Word {
    match (meaning.ignore, meaning.state, &meaning.goal) {
        (true, _, _) => Word::Short("ignore".to_owned()),
        (false, Some(state), None) => Word::Short(state.code().to_owned()),
        (false, state, goal) => Word::Long { state: state.map(|s| s.code().to_owned()), goal: goal.clone() },
    }
}

pub fn value(meaning: &Meaning) -> Value {
    match word(meaning) {
        Word::Short(word) => json!(word),
        Word::Long { state: None, goal } => json!({ "goal": goal }),
        Word::Long { state, goal } => json!({ "state": state, "goal": goal }),
    }
}

/// The goal is folded, but not looked up.
pub fn read(value: Value, pointer: &str, errors: &mut Errors) -> Option<Meaning> {
    match value {
        Value::String(text) if text.trim().eq_ignore_ascii_case("ignore") => {
            Some(Meaning { ignore: true, ..Meaning::default() })
        }
        Value::String(text) => match state(&text) {
            Some(state) => Some(Meaning::state(state)),
            None => {
                let near = did_you_mean(&text, &SHORT);
                let detail = format!(
                    "`{text}` is not one of {}{near}; a goal is written {{\"goal\":\"signups\"}}",
                    SHORT.join(", ")
                );
                errors.add(pointer, "invalid_value", detail);
                None
            }
        },
        Value::Object(map) => read_object(map, pointer, errors),
        _ => {
            errors.add(
                pointer,
                "wrong_type",
                "a state such as \"approved\", \"ignore\", or {\"state\",\"goal\"} is needed",
            );
            None
        }
    }
}

fn read_object(map: serde_json::Map<String, Value>, pointer: &str, errors: &mut Errors) -> Option<Meaning> {
    let mut meaning = Meaning::default();
    let before = errors.0.len();
    for (name, value) in map {
        let at = format!("{pointer}/{name}");
        match (name.as_str(), value) {
            ("state" | "goal" | "ignore", Value::Null) => {}
            ("ignore", Value::Bool(ignore)) => meaning.ignore = ignore,
            ("goal", Value::String(goal)) => meaning.goal = Some(goal.trim().to_ascii_lowercase()),
            ("state", Value::String(text)) => match state(&text) {
                Some(state) => meaning.state = Some(state),
                None => errors.add(at, "invalid_value", format!("`{text}` is not one of pending, approved, rejected")),
            },
            ("state" | "goal" | "ignore", _) => errors.add(at, "wrong_type", "a text is needed"),
            _ => {
                let near = did_you_mean(&name, &["state", "goal", "ignore"]);
                errors.add(at, "unknown_field", format!("there is no field `{name}` here{near}"));
            }
        }
    }
    if errors.0.len() == before && meaning == Meaning::default() {
        errors.add(pointer, "missing_field", "a state, a goal or both are needed, or \"ignore\"");
    }
    (errors.0.len() == before).then_some(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_they_are_read() {
        for text in [r#""approved""#, r#""ignore""#, r#"{"goal":"signups"}"#, r#"{"goal":"sales","state":"pending"}"#] {
            let given: Value = serde_json::from_str(text).unwrap();
            let mut errors = Errors::default();
            let meaning = read(given.clone(), "/statuses/x", &mut errors).unwrap();
            assert_eq!((value(&meaning), errors.0.len()), (given, 0));
        }
    }

    #[test]
    fn other_words_are_refused_with_a_reason() {
        for (text, code) in [
            (r#""aproved""#, "invalid_value"),
            (r#"{}"#, "missing_field"),
            (r#"7"#, "wrong_type"),
            (r#"{"stat":"pending"}"#, "unknown_field"),
            (r#"{"state":5}"#, "wrong_type"),
        ] {
            let mut errors = Errors::default();
            assert_eq!(read(serde_json::from_str(text).unwrap(), "/s", &mut errors), None, "{text}");
            assert_eq!(errors.0[0].code, code, "{text}");
        }
    }
}
