//! `clickback check`: what a URL would do, explained without a server.

use std::process::ExitCode;

use schemas::{
    Amount, Currency, Reason, bounds,
    catalog::Program,
    catalogue,
    check::{CheckResult, CheckedGoal, Kind, Would, check},
    event::Correction,
    settings::AccountSettings,
    status::{self, State},
};
use serde::Serialize;

use crate::{BAD_USAGE, cli::CheckArgs, out};

pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let id = args.program.as_deref().unwrap_or(catalogue::GENERIC);
    let Some(program) = catalogue::find(id) else {
        eprintln!("clickback: there is no program `{id}`; did you mean `{}`?", nearest(id));
        return Ok(ExitCode::from(BAD_USAGE));
    };
    if args.url.len() > bounds::URI_BYTES {
        eprintln!("clickback: the URL is longer than {} bytes, which no request may be", bounds::URI_BYTES);
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let result = check(&args.url, &settings(program), Some(program));
    if args.json {
        out::say(&serde_json::to_string(&object(&result))?)?;
    } else {
        out::say(&text(&result, program))?;
    }
    Ok(match result.would {
        Would::Accepted => ExitCode::SUCCESS,
        Would::Rejected => ExitCode::FAILURE,
    })
}

/// Those of an account of this program that changed nothing.
fn settings(program: &Program) -> AccountSettings {
    let mut settings = AccountSettings::generic("offline", "check");
    settings.program.clone_from(&program.id);
    let mut statuses = (*settings.statuses).clone();
    status::lay_over(&mut statuses, &program.statuses);
    settings.statuses = statuses.into();
    settings.currency = program.currency.unwrap_or(settings.currency);
    if let Some(timezone) = &program.timezone {
        settings.timezone.clone_from(timezone);
    }
    if let Some(goal) = &program.default_goal {
        settings.default_goal.clone_from(goal);
    }
    settings
}

/// What `--json` prints: these fields in this order, no others.
#[derive(Serialize)]
struct Object<'a> {
    would: Would,
    reason: Option<Reason>,
    hint: &'a Option<String>,
    click: &'a Option<String>,
    #[serde(rename = "dyn")]
    dyn_: &'a Option<String>,
    goals: &'a [CheckedGoal],
    state: Option<State>,
    earning: Option<Amount>,
    currency: Option<Currency>,
    tid: &'a Option<String>,
    corrections: &'a [Correction],
}

fn object(result: &CheckResult) -> Object<'_> {
    Object {
        would: result.would,
        reason: result.reason,
        hint: &result.hint,
        click: &result.click,
        dyn_: &result.dyn_,
        goals: &result.goals,
        state: result.state,
        earning: result.earning,
        currency: result.currency,
        tid: &result.tid,
        corrections: &result.corrections,
    }
}

fn text(result: &CheckResult, program: &Program) -> String {
    let verdict = match (result.kind, result.would) {
        (Kind::Postback, Would::Accepted) => "accepted: this postback would be taken",
        (Kind::Postback, Would::Rejected) => "rejected: no conversion would come of this postback",
        (Kind::Link, Would::Accepted) => "good: the program finds its click id in this URL",
        (Kind::Link, Would::Rejected) => "not good: the program would not find a click id in this URL",
    };
    let lines = result.findings.iter().map(|finding| format!("\n  {finding}"));
    lines.fold(format!("{verdict} (program: {})", program.name), |all, line| all + &line)
}

fn nearest(id: &str) -> &'static str {
    let distance = |program: &&Program| strsim::damerau_levenshtein(id, &program.id);
    catalogue::built_in().iter().min_by_key(distance).map_or(catalogue::GENERIC, |program| program.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let program = catalogue::find("affise").unwrap();
        let url = "https://t.example.com/post-back/T?clickId=abc&goal=sales&status=2&tid=9&earning=1,5";
        let object = serde_json::to_value(object(&check(url, &settings(program), Some(program)))).unwrap();
        let names: Vec<&String> = object.as_object().unwrap().keys().collect();
        assert_eq!(names.len(), 11, "{names:?}");
        assert_eq!((object["would"].as_str(), object["state"].as_str()), (Some("accepted"), Some("pending")));
        assert_eq!(object["goals"][0], serde_json::json!({ "goal": "sales", "count": 1 }));
        assert_eq!((object["earning"].as_str(), object["currency"].as_str()), (Some("1.50"), Some("EUR")));
    }

    #[test]
    fn a_program_that_is_not_there_has_a_neighbour() {
        assert_eq!(nearest("income-acess"), "income-access");
    }
}
