//! Parameters that several reports share: ranges, time zones, bases, states, formats.

use schemas::status::State;

use super::{
    fields::{self, given},
    input::did_you_mean,
    problem::Problem,
};
use crate::report::{Basis, Moment};

pub fn moment(text: Option<&str>, pointer: &str) -> Result<Option<Moment>, Problem> {
    let Some(text) = given(text) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let detail = format!("`{text}` is neither an instant such as 2026-11-22T08:00:00Z nor a date such as 2026-11-22");
        Problem::field(pointer, "invalid_time", detail)
    })
}

pub fn tz(text: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(text) = given(text) else { return Ok(None) };
    fields::timezone_name(text).map(Some).map_err(|wrong| wrong.at("?tz"))
}

pub fn basis(text: Option<&str>) -> Result<Basis, Problem> {
    match given(text) {
        None | Some("click") => Ok(Basis::Click),
        Some("conversion") => Ok(Basis::Conversion),
        Some(other) => Err(word(other, "?basis", &["click", "conversion"])),
    }
}

/// A word that is none of those that may stand here.
pub fn word(given: &str, pointer: &str, known: &[&str]) -> Problem {
    let near = did_you_mean(given, known);
    Problem::field(pointer, "invalid_value", format!("`{given}` is not one of {}{near}", known.join(", ")))
}

pub fn states(texts: &[String]) -> Result<Vec<State>, Problem> {
    let known = State::ALL.map(State::code);
    let find = |text: &String| {
        let state = State::ALL.into_iter().find(|state| state.code() == text.trim());
        state.ok_or_else(|| word(text, "?state", &known))
    };
    texts.iter().map(find).collect()
}

pub fn json_only(format: Option<&str>) -> Result<(), Problem> {
    match given(format) {
        None | Some("json") => Ok(()),
        Some(other) => Err(word(other, "?format", &["json"])),
    }
}
