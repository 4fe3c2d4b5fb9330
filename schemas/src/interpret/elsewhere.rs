//! A goal that is named where none is looked for: `registration=1`, `event_name=ftd`.
//!
//! Asked only for a hit that would be rejected because it names no goal. Refuses to choose: where two goals could be meant,
//! none is found. An id or an amount is never taken for a count.

use super::goals::goal_of_word;
use crate::{
    params::{Param, Params, Role, Value},
    settings::AccountSettings,
    word,
};

/// Parts of a parameter's name that say that its value is a kind of event.
const SPEAKING: &[&str] = &["event", "goal", "action", "conversion", "cnvstatus"];

/// The only goal that such a parameter names, and the first parameter that names it.
pub(super) fn find<'p, 'a>(params: &'p Params<'a>, settings: &AccountSettings) -> Option<(&'p Param<'a>, usize)> {
    let mut found: Option<(&Param, usize)> = None;
    for param in params.list.iter().filter(|param| param.role == Role::Other) {
        let Some(at) = goal_of(param, settings) else { continue };
        match found {
            Some((_, known)) if known != at => return None,
            Some(_) => {}
            None => found = Some((param, at)),
        }
    }
    found
}

fn goal_of(param: &Param, settings: &AccountSettings) -> Option<usize> {
    let Value::Text { text, .. } = param.value() else { return None };
    if ["1", "true", "yes"].iter().any(|once| text.eq_ignore_ascii_case(once)) {
        return goal_of_word(&param.name, settings);
    }
    let name = word::key(&param.name);
    // A number is a goal's number with somebody else, so only letters are a word here.
    let speaks = name == "et" || SPEAKING.iter().any(|part| name.contains(part));
    let is_word = text.chars().any(char::is_alphabetic);
    if speaks && is_word { goal_of_word(&text, settings) } else { None }
}
