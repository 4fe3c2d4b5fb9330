//! `docs/dialects.md`: every built-in program, its link, its postback, and what is read of it.

use std::{fs, path::Path};

use super::*;
use crate::{Amount, landing, status::Meaning};

const HEAD: &str = "\
# Dialects

Every built-in program: what stands on the link, the postback URL in the program's own placeholders, an example of what
arrives when they are filled in, and what Clickback reads of it. `CLICK` stands for one of our click ids. Where a
program takes one URL per goal, the one for the first deposit is shown. With no placeholder filled in, each of these
URLs is rejected as [`unreplaced_macro`](reasons.md#unreplaced_macro), and the hint shows the placeholder. A client
that cuts the URL at the first `#` leaves no click id: [`missing_click`](reasons.md#missing_click).

\"Confirmed\" means that the program's own documentation shows the placeholders; of all others, ask the account manager.
`{click_id}` stands where a program's placeholder is not known. Sources and remarks are in `GET /v1/programs`.

This file is written by a test, which fails when the file is stale. To renew it:
`UPDATE_DOCS=1 cargo test -p schemas --lib dialects`.

| Program | Link | Postback URL | Example | What is read | Status words |
|---|---|---|---|---|---|
";

const TAIL: &str = "
## Programs without postbacks

Their reports show what the links bring in; each conversion has to be sent by whoever reads the report.

| Program | Link |
|---|---|
";

fn click_of(program: &Program) -> ClickId {
    samples(program)["click_id"].parse().unwrap()
}

fn link(program: &Program) -> String {
    let Program { click_param, click_in, click_value, .. } = program;
    let none = [None; 5];
    let id = click_of(program);
    landing::destination("https://operator.example/go", click_param, *click_in, click_value, Some(&id), None, none)
}

/// One cell of the table, as code.
fn code(text: &str, program: &Program) -> String {
    let text = text.replace(&samples(program)["click_id"], "CLICK");
    assert!(!text.contains(['`', '|', '\n']), "{text}");
    format!("`{text}`")
}

fn shown(reading: &Reading) -> String {
    let mut parts = vec!["the click".to_owned()];
    parts.extend(reading.goals.iter().map(|goal| format!("{} × {}", goal.count, goal.goal)));
    if reading.goals.is_empty() {
        parts.push("the default goal".to_owned());
    }
    let money = reading.goals.first().map_or(&reading.money, |goal| &goal.money);
    let currency = reading.currency.map(Currency::code).unwrap_or_default();
    let amount = |what: &str, amount: Option<Amount>| amount.map(|amount| format!("{what} {amount} {currency}"));
    parts.extend(amount("earning", money.earning));
    parts.extend(amount("value", money.value));
    parts.extend(reading.tid.iter().map(|tid| format!("transaction {tid}")));
    parts.extend(reading.player.iter().map(|player| format!("player {player}")));
    parts.extend(reading.state.map(|state| state.to_string()));
    parts.extend(reading.ts.map(|ts| format!("at {ts}")));
    parts.join(", ")
}

fn words(program: &Program) -> String {
    let meaning = |meaning: &Meaning| match (meaning.state, &meaning.goal) {
        (Some(state), Some(goal)) => format!("{state} {goal}"),
        (Some(state), None) => state.to_string(),
        (None, Some(goal)) => goal.clone(),
        (None, None) => "ignored".to_owned(),
    };
    let word = |(word, means): (&String, &Meaning)| format!("`{word}` {}", meaning(means));
    program.statuses.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The URL that says most: the first deposit's, or the only one.
fn example(program: &Program) -> String {
    let urls = postback_urls(BASE, program, &goals()).urls;
    let deposit = |url: &&PostbackUrl| url.goal.as_deref().is_none_or(|goal| goal == "firsttimedeposits");
    urls.iter().find(deposit).unwrap().url.strip_prefix(BASE).unwrap().to_owned()
}

fn row(program: &Program) -> String {
    let url = example(program);
    let filled = fill(&url, program);
    let reading = read(&filled, program);
    assert_eq!((reading.reject, reading.name.clone()), (None, Some(Name::Click(click_of(program)))), "{filled}");
    assert_eq!(reading.corrections, [], "{filled}");
    assert_eq!(read(&url, program).reject, Some(Reason::UnreplacedMacro), "{url}");
    let name = if program.verified { format!("{}, confirmed", program.name) } else { program.name.clone() };
    let cells = [
        name.replace("%%", "\\%\\%"),
        code(&link(program), program),
        code(&url, program),
        code(&filled, program),
        shown(&reading),
        words(program),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn document() -> String {
    let (with, without): (Vec<_>, Vec<_>) = catalogue::built_in().iter().partition(|program| program.postback);
    let rows: String = with.into_iter().map(row).collect();
    let others: String = without
        .into_iter()
        .map(|program| format!("| {} | {} |\n", program.name, code(&link(program), program)))
        .collect();
    format!("{HEAD}{rows}{TAIL}{others}")
}

#[test]
fn the_table_of_dialects_is_as_the_programs_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dialects.md");
    let current = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = current.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert_eq!(differs, None, "docs/dialects.md is stale: it says how to renew it");
    assert!(current == written, "docs/dialects.md is stale: it says how to renew it");
}
