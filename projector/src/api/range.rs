//! Parameters that several reports share: ranges, time zones, bases, filters, formats.
//!
//! Filters repeat: the same name = any of, `!value` = not, an empty value = without one.

use pipeline::View;
use schemas::status::State;

use super::{
    fields::{self, given},
    input::did_you_mean,
    problem::Problem,
};
use crate::report::{Basis, Filter, Match, Moment};

pub fn moment(text: Option<&str>, pointer: &str) -> Result<Option<Moment>, Problem> {
    let Some(text) = some_time(text, pointer)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let detail =
            format!("`{text}` is neither an instant such as 2026-11-22T08:00:00Z nor a date such as 2026-11-22");
        Problem::field(pointer, "invalid_time", detail)
    })
}

/// Rows of all times are not what somebody means who left the time empty.
pub fn some_time<'t>(text: Option<&'t str>, pointer: &str) -> Result<Option<&'t str>, Problem> {
    match text.map(str::trim) {
        Some("") => {
            let detail = "an empty value is no time: give one, or leave the parameter out";
            Err(Problem::field(pointer, "invalid_time", detail))
        }
        text => Ok(text),
    }
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

pub fn filter(texts: &[String]) -> Filter {
    Filter(texts.iter().map(|text| Match::parse(text.trim())).collect())
}

/// For what every row has.
pub fn never_without(texts: &[String], pointer: &str) -> Result<(), Problem> {
    if texts.iter().all(|text| !text.trim().is_empty()) {
        return Ok(());
    }
    let name = pointer.trim_start_matches('?');
    let detail =
        format!("an empty value means rows without one, and none is without {name}: leave it out for all rows");
    Err(Problem::field(pointer, "invalid_value", detail))
}

/// What of `all` a filter lets pass; everything, written as an empty list, where there is no filter.
pub fn choose<T: Copy>(
    texts: &[String],
    pointer: &str,
    all: &[T],
    code: impl Fn(T) -> &'static str,
) -> Result<Vec<T>, Problem> {
    never_without(texts, pointer)?;
    let known: Vec<&str> = all.iter().map(|one| code(*one)).collect();
    let filter = filter(texts);
    for test in &filter.0 {
        match test {
            Match::Is(text) | Match::Not(text) if !known.contains(&text.as_str()) => {
                return Err(word(text, pointer, &known));
            }
            Match::Is(_) | Match::Not(_) | Match::With | Match::Without => {}
        }
    }
    let chosen: Vec<T> = all.iter().copied().filter(|one| filter.admits(Some(code(*one)))).collect();
    if chosen.is_empty() && !texts.is_empty() {
        return Err(Problem::field(pointer, "invalid_value", "nothing is left that could stand here"));
    }
    Ok(if chosen.len() == all.len() { Vec::new() } else { chosen })
}

pub fn states(texts: &[String]) -> Result<Vec<State>, Problem> {
    choose(texts, "?state", &State::ALL, State::code)
}

/// The ids of the accounts that are meant; all of the tenant's, written as an empty list, where there is no filter.
pub fn accounts(view: &View, tenant: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    never_without(texts, "?account")?;
    let filter = filter(texts);
    if filter.0.iter().all(|test| matches!(test, Match::With)) {
        return Ok(Vec::new());
    }
    if let Some(positive) = filter.positive() {
        return Ok(positive.into_iter().filter(|id| filter.admits(Some(*id))).map(str::to_owned).collect());
    }
    let mut ids: Vec<String> =
        view.accounts(tenant).map(|entry| entry.record.id.clone()).filter(|id| filter.admits(Some(id))).collect();
    if ids.is_empty() {
        // An empty list would mean all of them; no account has this id.
        ids.push(String::new());
    }
    Ok(ids)
}

/// The time zone that was asked for, else that of the one account that is filtered, else UTC.
pub fn zone(view: &View, tenant: &str, asked: Option<String>, accounts: &[String]) -> String {
    let of_account = || match accounts {
        [only] => Some(view.account(tenant, only)?.settings.timezone.clone()),
        _ => None,
    };
    asked.or_else(of_account).unwrap_or_else(|| "UTC".to_owned())
}

pub fn json_only(format: Option<&str>) -> Result<(), Problem> {
    match given(format) {
        None | Some("json") => Ok(()),
        Some(other) => Err(word(other, "?format", &["json"])),
    }
}
