//! The postback URLs of an account, ready to hand to the operator, and the text that goes with them.
//!
//! Owns: which of our parameters a program can fill in, in its own placeholder syntax.
//! Refuses: to encode placeholders: a program replaces them as they are written, before it sends anything.
//! Invariant: a URL whose placeholders are filled in has a name and a goal, and is read without corrections.

use percent_encoding::utf8_percent_encode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    catalog::{ClickIn, Program},
    catalogue::GENERIC,
    goal,
    landing::VALUE,
};

/// Stands for the click id where the program's own placeholder is not known.
const NEUTRAL_CLICK_ID: &str = "{click_id}";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PostbackUrls {
    /// False: the program cannot send postbacks, and `problem` says what to do.
    pub supported: bool,
    pub mode: Mode,
    pub urls: Vec<PostbackUrl>,
    /// Text to send to the account manager.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One URL for each goal.
    PerGoal,
    /// One URL for everything; the goal comes in a placeholder or from the status.
    Single,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PostbackUrl {
    /// `None` for the one URL of a program with a single one.
    pub goal: Option<String>,
    pub url: String,
    /// When the operator has to call it.
    pub when: String,
}

/// `base` is `<public-url>/post-back/<token>`; `goals` are the account's, in any order.
pub fn postback_urls(base: &str, program: &Program, goals: &[String]) -> PostbackUrls {
    let mode = if program.single_url { Mode::Single } else { Mode::PerGoal };
    if !program.postback {
        return unsupported(base, program, mode);
    }
    let urls = match mode {
        Mode::Single => vec![single(base, program)],
        Mode::PerGoal => ordered(goals).into_iter().map(|goal| for_goal(base, program, goal)).collect(),
    };
    let message = message(program, mode, &urls);
    PostbackUrls { supported: true, mode, urls, message, problem: unknown_placeholder(program) }
}

/// Sign-ups and first deposits before all others, each goal once.
fn ordered(goals: &[String]) -> Vec<&str> {
    let mut order = vec!["signups", "firsttimedeposits"];
    for goal in goals {
        if !order.contains(&goal.as_str()) {
            order.push(goal);
        }
    }
    order
}

/// Our parameters with the key of the placeholder that fills each, and what we tell the operator about it.
const PARAMETERS: &[(&str, &str, &str)] = &[
    ("earning", "amount", "our commission for it, a plain decimal number such as 12.50"),
    ("value", "value", "what the player paid, a plain decimal number"),
    ("currency", "currency", "the currency of the amounts, such as EUR"),
    ("tid", "tid", "your id of this transaction, a different one for each"),
    ("player", "player", "your id of the player"),
    ("status", "status", "the state of the conversion"),
    ("ts", "time", "when it happened: unix time, or RFC 3339"),
];

fn placeholder<'p>(program: &'p Program, key: &str) -> Option<&'p str> {
    program.placeholders.get(key).map(String::as_str)
}

/// The parameters that name the click.
fn names(program: &Program) -> Vec<(&'static str, &str)> {
    let click_id = placeholder(program, "click_id").map(|text| ("clickId", text));
    let dyn_value = placeholder(program, "dyn").map(|text| ("dyn", text));
    let known: Vec<_> = click_id.into_iter().chain(dyn_value).collect();
    if known.is_empty() { vec![("clickId", NEUTRAL_CLICK_ID)] } else { known }
}

/// What else the program can fill in for this goal; `None` is the single URL for all of them.
fn details<'p>(program: &'p Program, goal: Option<&str>) -> Vec<(&'static str, &'p str)> {
    let applies = |key: &str| match key {
        // Nobody has paid anything at a sign-up, and what numbers payments is not filled in there.
        "value" | "tid" => goal != Some("signups"),
        // A status word that names a goal of its own would contradict the goal of the URL.
        "status" => goal.is_none() || program.statuses.values().all(|meaning| meaning.goal.is_none()),
        "currency" => ["amount", "value"]
            .iter()
            .any(|money| placeholder(program, money).is_some() && !(*money == "value" && goal == Some("signups"))),
        _ => true,
    };
    let parameter = |(name, key, _): &(&'static str, &str, &str)| {
        placeholder(program, key).filter(|_| applies(key)).map(|text| (*name, text))
    };
    PARAMETERS.iter().filter_map(parameter).collect()
}

/// The program's placeholder for the kind of event, if it has one.
fn event_placeholder(program: &Program) -> Option<&str> {
    placeholder(program, "goal").or_else(|| placeholder(program, "event"))
}

fn join(base: &str, parameters: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> String {
    let mut url = base.to_owned();
    let mut separator = if base.contains('?') { '&' } else { '?' };
    for (name, value) in parameters {
        url.push(separator);
        url.push_str(name.as_ref());
        url.push('=');
        url.push_str(value.as_ref());
        separator = '&';
    }
    url
}

/// How a URL says its goal. Goals of the account's own come as a word, so that none of them can be mistaken for
/// one of our parameters.
fn goal_parameter(goal: &str) -> (String, String) {
    match goal::depth(goal) {
        Some(_) => (goal.to_owned(), "1".to_owned()),
        None => ("event".to_owned(), utf8_percent_encode(goal, VALUE).to_string()),
    }
}

fn for_goal(base: &str, program: &Program, goal: &str) -> PostbackUrl {
    let mut parameters = owned(names(program));
    parameters.push(goal_parameter(goal));
    parameters.extend(owned(details(program, Some(goal))));
    PostbackUrl { goal: Some(goal.to_owned()), url: join(base, parameters), when: when(goal) }
}

fn single(base: &str, program: &Program) -> PostbackUrl {
    let mut parameters = owned(names(program));
    let mut when = occasion(program).to_owned();
    if let Some(event) = event_placeholder(program) {
        parameters.push(("event".to_owned(), event.to_owned()));
        when.push_str(" The words that come in event have to be goals of the account, or aliases of them.");
    } else if placeholder(program, "status").is_none() {
        let goal = program.default_goal.as_deref().unwrap_or("sales");
        parameters.push(goal_parameter(goal));
    }
    parameters.extend(owned(details(program, None)));
    PostbackUrl { goal: None, url: join(base, parameters), when }
}

/// When the single URL is called.
fn occasion(program: &Program) -> &'static str {
    match placeholder(program, "status") {
        Some(_) => "At every conversion and every change of its status.",
        None => "At every conversion.",
    }
}

fn owned(parameters: Vec<(&str, &str)>) -> Vec<(String, String)> {
    parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn when(goal: &str) -> String {
    match goal {
        "signups" => "When a visitor signs up.",
        "firsttimedeposits" => "When a player makes the first deposit.",
        "deposits" => "When a player makes a deposit.",
        "sales" => "When a sale is made.",
        "qualified" => "When a player meets the terms of the deal (CPA).",
        "revshare" => "When a share of revenue is booked.",
        other => return format!("When \"{other}\" happens."),
    }
    .to_owned()
}

fn unsupported(base: &str, program: &Program, mode: Mode) -> PostbackUrls {
    let name = &program.name;
    let goal = program.default_goal.as_deref().unwrap_or("sales");
    let problem = format!(
        "{name} does not send postbacks. Its reports show what the links bring in {}: send each conversion yourself, \
         to {base}?clickId=<click id>&{goal}=1. If {name} has begun to send postbacks, make a program of your own with \
         its placeholders.",
        link_place(program)
    );
    let message = format!(
        "Hello,\n\nas far as we know, {name} does not call postback URLs. Is there by now a way to be told of each \
         conversion, server to server, together with the value that our links bring in {}? If so, please tell us how \
         your placeholders are written.\n\nThank you!",
        link_place(program)
    );
    PostbackUrls { supported: false, mode, urls: Vec::new(), message, problem: Some(problem) }
}

fn unknown_placeholder(program: &Program) -> Option<String> {
    (!program.placeholders.contains_key("click_id") && !program.placeholders.contains_key("dyn")).then(|| {
        format!(
            "It is not known how {} writes its placeholder for the value of {}: the account manager has to put it in \
             the place of {NEUTRAL_CLICK_ID}.",
            program.name,
            link_place(program)
        )
    })
}

fn link_place(program: &Program) -> String {
    match program.click_in {
        ClickIn::Query => format!("the parameter {}", program.click_param),
        ClickIn::Path => "the last part of the path".to_owned(),
    }
}

fn message(program: &Program, mode: Mode, urls: &[PostbackUrl]) -> String {
    let mut text = "Hello,\n\nplease set up server-to-server postbacks for our affiliate account. ".to_owned();
    text.push_str(match mode {
        Mode::PerGoal => "There is one URL for each event; leave out the events that you do not have:\n",
        Mode::Single => "There is one URL for everything:\n",
    });
    for url in urls {
        let when = if mode == Mode::Single { occasion(program) } else { &url.when };
        text.push_str(&format!("\n{when}\n{}\n", url.url));
    }
    text.push_str("\nWhat the parameters are:\n");
    for (name, placeholder) in names(program) {
        let place = link_place(program);
        text.push_str(&format!("- {name}={placeholder}: the value that our links bring you in {place}, unchanged\n"));
    }
    if let (Mode::Single, Some(event)) = (mode, event_placeholder(program)) {
        text.push_str(&format!("- event={event}: the kind of event\n"));
    }
    let all = details(program, None);
    for (name, _, meaning) in PARAMETERS {
        if let Some((_, placeholder)) = all.iter().find(|(known, _)| known == name) {
            text.push_str(&format!("- {name}={placeholder}: {meaning}\n"));
        }
    }
    text.push('\n');
    text.push_str(&placeholder_advice(program));
    text.push_str(
        " Leave a parameter empty where you have no value for it. Please call a URL with GET or POST as soon as the \
         event has happened; the answer 200 means that we have it. If no answer comes, or 503, please call again: a \
         repeat is recognised.\n\nPlease test it with one of our links, and tell us when it is live.\n\nThank you!",
    );
    text
}

fn placeholder_advice(program: &Program) -> String {
    if program.id == GENERIC {
        return "The placeholders in { } are ours: please put your own in their place.".to_owned();
    }
    if unknown_placeholder(program).is_some() {
        return format!(
            "Please put your own placeholder for the value of {} in the place of {NEUTRAL_CLICK_ID}.",
            link_place(program)
        );
    }
    "The placeholders are written as your system fills them in, as far as we know: please correct them where yours \
     differ."
        .to_owned()
}

#[cfg(test)]
mod tests;
