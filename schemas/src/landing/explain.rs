//! Does a tracking or landing URL carry the click parameter that the program expects?

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Parts, VALUE, check_destination, has_click_id, is_name, utf8_percent_encode};
use crate::{
    ClickId,
    catalog::{ClickIn, Program},
    macros::is_macro,
};

/// What was found in one URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LinkFindings {
    pub program: String,
    /// The parameter that the program expects; empty for one that reads the path.
    pub click_param: String,
    pub click_in: ClickIn,
    /// The program will find a click id in this URL, or in the one that a redirect makes of it.
    pub carries: bool,
    /// What stands in the parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The click id in it, if it is one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub code: &'static str,
    pub detail: String,
    /// What to change, if something has to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl LinkFindings {
    fn say(&mut self, code: &'static str, detail: impl Into<String>, fix: Option<String>) {
        self.findings.push(Finding { code, detail: detail.into(), fix });
    }
}

pub fn explain_link(url: &str, program: &Program) -> LinkFindings {
    let mut found = LinkFindings {
        program: program.id.clone(),
        click_param: program.click_param.clone(),
        click_in: program.click_in,
        carries: false,
        value: None,
        click: None,
        findings: Vec::new(),
    };
    let url = url.trim();
    if let Err(error) = check_destination(url) {
        found.say("not_a_link", format!("The address {error}."), Some("Check that it was copied whole.".to_owned()));
        return found;
    }
    let parts = Parts::of(url);
    if is_tracking_link(parts.path) {
        found.carries = true;
        let detail = format!("A tracking link of Clickback: its redirect adds {}.", place(program));
        found.say("tracking_link", detail, None);
    } else if parts.after_origin().any(has_click_id) {
        found.carries = true;
        found.say(
            "template",
            "A destination with {click_id}: the redirect puts the click id there and adds nothing.",
            None,
        );
    } else if program.click_in == ClickIn::Path {
        in_path(&mut found, &parts);
    } else {
        in_query(&mut found, &parts, program);
    }
    found
}

/// `/c/lnk_…`, as our own links look; a program's own `/c/…` does not begin like that.
fn is_tracking_link(path: &str) -> bool {
    path.contains("/c/lnk_")
}

fn place(program: &Program) -> String {
    match program.click_in {
        ClickIn::Query => format!("{}=<click id>", program.click_param),
        ClickIn::Path => "the click id as the last part of the path".to_owned(),
    }
}

fn in_path(found: &mut LinkFindings, parts: &Parts<'_>) {
    let ours = parts.path.split('/').find(|part| ClickId::parse(part.as_bytes()).is_some());
    match ours {
        Some(part) => {
            found.carries = true;
            found.value = Some(part.to_owned());
            found.click = ClickId::parse(part.as_bytes()).map(|id| id.to_string());
            found.say("found", "The click id is a part of the path, where this program reads it.", None);
        }
        None => {
            let fix = "Use the tracking link that Clickback made, or put {click_id} in the destination's path.";
            found.say("missing", "No part of the path is a click id of ours.", Some(fix.to_owned()));
        }
    }
}

fn in_query(found: &mut LinkFindings, parts: &Parts<'_>, program: &Program) {
    let param = program.click_param.as_str();
    let pairs = pairs(parts.query.unwrap_or_default());
    let here: Vec<_> = pairs.iter().filter(|pair| is_name(pair.name, param)).collect();
    match here.as_slice() {
        [] => {
            elsewhere(found, parts, &pairs, program);
            return;
        }
        [_] => {}
        _ => {
            let fix = format!("Keep one {param}: programs differ in which one they read.");
            found.say("twice", format!("{param} is there {} times.", here.len()), Some(fix));
        }
    }
    if let Some(pair) = here.first() {
        value(found, pair, program);
    }
}

/// The parameter is there: is its value one that can come back?
fn value(found: &mut LinkFindings, pair: &Pair<'_>, program: &Program) {
    let param = &program.click_param;
    let value = pair.value.as_str();
    found.value = Some(value.to_owned());
    let (before, after) = program.click_value.split_once("{click_id}").unwrap_or_default();
    let inner = value.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).unwrap_or(value);
    if let Some(id) = ClickId::parse(inner.as_bytes()) {
        found.carries = true;
        found.click = Some(id.to_string());
        found.say("found", format!("{param} carries a click id of Clickback, as {} expects it.", program.name), None);
    } else if value.is_empty() {
        let fix =
            format!("Use the tracking link that Clickback made, or write {param}={{click_id}} in the destination.");
        found.say("empty", format!("{param} is there but empty."), Some(fix));
    } else if is_macro(pair.raw_value) {
        let fix = format!("Write {param}={{click_id}} in the destination, which Clickback fills in.");
        found.say(
            "unreplaced_macro",
            format!("{param} holds the placeholder {value}, which nobody replaced."),
            Some(fix),
        );
    } else {
        found.carries = true;
        let detail = format!("{param} is there, but {value} is not a click id of Clickback.");
        let fix = "Right if the click was made elsewhere and imported; else use the tracking link that Clickback made.";
        found.say("foreign_value", detail, Some(fix.to_owned()));
    }
}

/// The parameter is not there: say where the click id is instead, and what to add.
fn elsewhere(found: &mut LinkFindings, parts: &Parts<'_>, pairs: &[Pair<'_>], program: &Program) {
    let param = program.click_param.as_str();
    let mangled = |name: &str| name.strip_prefix("amp;").is_some_and(|rest| rest == param);
    if let Some(pair) = pairs.iter().find(|pair| mangled(pair.name)) {
        let fix = "Copy the address again, from a place that is not HTML source.".to_owned();
        found.say("html_mangled", format!("{} was & and {param} before HTML changed it.", pair.name), Some(fix));
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.name.eq_ignore_ascii_case(param)) {
        let fix = format!("Write {param}: programs tell capitals from small letters.");
        found.say("wrong_case", format!("{} is there, {param} is expected.", pair.name), Some(fix));
    }
    if let Some(pair) = pairs.iter().find(|pair| ClickId::parse(pair.value.as_bytes()).is_some()) {
        found.click = ClickId::parse(pair.value.as_bytes()).map(|id| id.to_string());
        let fix = format!(
            "Set click_param to {} on the account if this program reads that; else the id must be in {param}.",
            pair.name
        );
        found.say("other_parameter", format!("The click id is in {}.", pair.name), Some(fix));
    }
    let fragment = parts.fragment.unwrap_or_default();
    let in_fragment = fragment.split(['?', '&']).any(|pair| is_name(pair.split('=').next().unwrap_or_default(), param));
    if in_fragment {
        let fix = "Move it before the #: what follows a # never reaches the program's server.".to_owned();
        found.say("in_fragment", format!("{param} stands after the #."), Some(fix));
    }
    if found.findings.is_empty() {
        let name = utf8_percent_encode(param, VALUE);
        let joint = if parts.query.is_some() { '&' } else { '?' };
        let fix =
            format!("Add {joint}{name}={{click_id}} to the destination, or use the tracking link that Clickback made.");
        found.say(
            "missing",
            format!("{} expects the click id in {param}, which is not there.", program.name),
            Some(fix),
        );
    }
}

struct Pair<'a> {
    name: &'a str,
    raw_value: &'a str,
    value: String,
}

fn pairs(query: &str) -> Vec<Pair<'_>> {
    let pair = |text| {
        let (name, raw_value) = super::split(text, '=');
        let raw_value = raw_value.unwrap_or_default();
        let value = percent_decode_str(&raw_value.replace('+', " ")).decode_utf8_lossy().into_owned();
        Pair { name, raw_value, value }
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Time, catalogue};

    fn explain(url: &str, program: &str) -> LinkFindings {
        explain_link(url, catalogue::find(program).unwrap())
    }

    fn codes(url: &str, program: &str) -> (bool, Vec<&'static str>) {
        let found = explain(url, program);
        (found.carries, found.findings.iter().map(|f| f.code).collect())
    }

    #[test]
    fn the_expected_parameter_with_our_id() {
        let id = ClickId::new(Time::from_ms(1_700_000_000_000), 7, 99).to_string();
        let found = explain(&format!("https://op.example/land?a=1&c={id}#top"), "income-access");
        assert!(found.carries);
        assert_eq!((found.click_param.as_str(), found.value, found.click), ("c", Some(id.clone()), Some(id.clone())));
        assert_eq!(found.findings[0].code, "found");
        assert_eq!(codes(&format!("https://op.example/c/1/2/3/{id}"), "paid-on-results"), (true, vec!["found"]));
        assert_eq!(codes("https://op.example/c/1/2/3/x", "paid-on-results"), (false, vec!["missing"]));
    }

    #[test]
    fn a_click_value_around_the_id_is_taken_off() {
        let id = ClickId::new(Time::from_ms(1), 7, 99);
        let mut program = catalogue::find("posh-partners").unwrap().clone();
        program.click_value = "{click_id}|src=cb".to_owned();
        let found = explain_link(&format!("https://op.example/?promo={id}%7Csrc%3Dcb"), &program);
        assert_eq!((found.carries, found.click), (true, Some(id.to_string())));
    }

    #[test]
    fn what_is_wrong_has_a_code_and_a_fix() {
        let id = ClickId::new(Time::from_ms(1), 7, 99);
        for (url, carries, code) in [
            ("https://op.example/".to_owned(), false, "missing"),
            ("https://op.example/?c=".to_owned(), false, "empty"),
            ("https://op.example/?c=%7BVISIT%7D".to_owned(), false, "unreplaced_macro"),
            ("https://op.example/?c=%%CLICK_ID%%".to_owned(), false, "unreplaced_macro"),
            ("https://op.example/?C=abc".to_owned(), false, "wrong_case"),
            ("https://op.example/?a=1&amp;c=abc".to_owned(), false, "html_mangled"),
            ("https://op.example/?a=1#/reg?c=abc".to_owned(), false, "in_fragment"),
            (format!("https://op.example/?clickid={id}"), false, "other_parameter"),
            ("https://op.example/?c=abc".to_owned(), true, "foreign_value"),
            (format!("https://op.example/?c=abc&c={id}"), true, "twice"),
            ("op.example/?c=abc".to_owned(), false, "not_a_link"),
        ] {
            let found = explain(&url, "income-access");
            assert_eq!((found.carries, found.findings[0].code), (carries, code), "{url}");
            assert!(found.findings[0].fix.is_some(), "{url}");
        }
    }

    #[test]
    fn templates_and_our_own_links_carry_it_after_the_redirect() {
        assert_eq!(codes("https://op.example/?anything={click_id}", "income-access"), (true, vec!["template"]));
        assert_eq!(codes("https://t.example/c/lnk_0abc?dyn=x", "income-access"), (true, vec!["tracking_link"]));
    }
}
