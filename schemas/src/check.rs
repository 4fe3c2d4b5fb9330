//! Explains a URL offline: what a postback URL would do, or whether a landing URL carries the click parameter.
//!
//! Refuses to look anything up: whether the click exists, or the conversion was counted before, only the matcher
//! knows. No clock is read, so a `ts` in the future is not noticed.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    Amount, Currency, Reason, Time,
    catalog::Program,
    catalogue,
    event::{Correction, GoalReading, Money, Name, Reading},
    goal,
    id::token_is_well_formed,
    interpret::{RawRequest, interpret},
    json_body::Piece,
    landing::explain_link,
    macros::is_macro,
    own,
    params::{Param, Params, Role, Value},
    settings::AccountSettings,
    status::State,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    Postback,
    /// A tracking link, or the operator's page that it leads to.
    Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Would {
    Accepted,
    Rejected,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedGoal {
    pub goal: String,
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckResult {
    pub kind: Kind,
    pub would: Would,
    pub reason: Option<Reason>,
    /// What to fix.
    pub hint: Option<String>,
    /// The click name as it stands there.
    pub click: Option<String>,
    #[serde(rename = "dyn")]
    pub dyn_: Option<String>,
    pub goals: Vec<CheckedGoal>,
    /// The state that new conversions would have, or that existing ones would be given.
    pub state: Option<State>,
    pub earning: Option<Amount>,
    pub value: Option<Amount>,
    pub currency: Option<Currency>,
    pub tid: Option<String>,
    pub player: Option<String>,
    pub corrections: Vec<Correction>,
    /// All of it, in words.
    pub findings: Vec<String>,
}

/// `program`: whose placeholders and link parameter are meant; `generic` if none is given.
pub fn check(url: &str, settings: &AccountSettings, program: Option<&Program>) -> CheckResult {
    let url = url.trim();
    let program = program.or_else(|| catalogue::find(catalogue::GENERIC));
    match program {
        Some(program) if !is_postback(url, settings, program) => check_link(url, program),
        _ => check_postback(url, settings, program),
    }
}

fn is_postback(url: &str, settings: &AccountSettings, program: &Program) -> bool {
    let (place, query) = split(url);
    if place.contains("/c/lnk_") {
        return false;
    }
    if place.contains("/post-back/") || place.contains("/postback") {
        return true;
    }
    let params = params_of(query, settings);
    let has = |wanted: fn(&Role) -> bool| params.list.iter().any(|param| wanted(&param.role));
    if has(|role| matches!(role, Role::Count(_))) {
        return true;
    }
    let lands = params.list.iter().any(|param| param.name == program.click_param.as_str());
    !lands && has(|role| matches!(role, Role::Click(_))) && has(|role| matches!(role, Role::Word | Role::Status))
}

fn params_of<'a>(query: &'a str, settings: &AccountSettings) -> Params<'a> {
    Params::read(query, &Piece::Nothing, &settings.goals)
}

/// What stands before the query, and the query. A query alone is a postback's, too.
fn split(url: &str) -> (&str, &str) {
    let (place, query) = match url.split_once('?') {
        Some(both) => both,
        None if url.contains('=') && !url.contains('/') => ("", url),
        None => (url, ""),
    };
    // `#s2#` and `#{x}` are placeholders in a query; a single `#` begins a fragment, which no client sends.
    match query.split_once('#') {
        Some((before, after)) if !after.contains('#') && !after.starts_with('{') => (place, before),
        _ => (place, query),
    }
}

fn check_link(url: &str, program: &Program) -> CheckResult {
    let found = explain_link(url, program);
    let mut findings = Vec::new();
    let mut hint = None;
    for finding in found.findings {
        let fix = finding.fix.map(|fix| format!(" {fix}")).unwrap_or_default();
        let line = format!("{}{fix}", finding.detail);
        if hint.is_none() && !fix.is_empty() {
            hint = Some(line.clone());
        }
        findings.push(line);
    }
    CheckResult {
        kind: Kind::Link,
        would: if found.carries { Would::Accepted } else { Would::Rejected },
        reason: (!found.carries).then_some(Reason::MissingClick),
        hint,
        click: found.click.or(found.value),
        dyn_: None,
        goals: Vec::new(),
        state: None,
        earning: None,
        value: None,
        currency: None,
        tid: None,
        player: None,
        corrections: Vec::new(),
        findings,
    }
}

fn check_postback(url: &str, settings: &AccountSettings, program: Option<&Program>) -> CheckResult {
    let (place, query) = split(url);
    let raw = RawRequest { method: "GET", query: query.as_bytes(), body: None, content_type: None };
    let latest = Time::from_ms(i64::MAX);
    let reading = interpret(&raw, settings, latest).into_iter().next().unwrap_or_default();
    let mut lines = Lines::default();
    lines.verdict(&reading);
    lines.token(place);
    lines.name(&reading);
    lines.goals(&reading);
    lines.state(&reading, settings);
    lines.money(&reading);
    lines.rest(&reading);
    lines.placeholders(&params_of(query, settings), program);
    let money = money(&reading);
    CheckResult {
        kind: Kind::Postback,
        would: if reading.reject.is_none() { Would::Accepted } else { Would::Rejected },
        reason: reading.reject,
        hint: reading.hint.clone(),
        state: state(&reading),
        earning: money.earning,
        value: money.value,
        goals: reading.goals.iter().map(|g| CheckedGoal { goal: g.goal.clone(), count: g.count }).collect(),
        click: reading.click,
        dyn_: reading.dyn_,
        currency: reading.currency,
        tid: reading.tid,
        player: reading.player,
        corrections: reading.corrections,
        findings: lines.0,
    }
}

fn state(reading: &Reading) -> Option<State> {
    match reading.state {
        Some(state) => Some(state),
        None if reading.goals.is_empty() || reading.reject.is_some() => None,
        None if reading.unmapped => Some(State::Pending),
        None => Some(State::Approved),
    }
}

fn money(reading: &Reading) -> Money {
    let of_goal = reading.goals.iter().map(|goal| &goal.money).find(|money| !money.is_empty());
    of_goal.unwrap_or(&reading.money).clone()
}

#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn say(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    fn verdict(&mut self, reading: &Reading) {
        match reading.reject {
            None => self.say("Understood: a click that it names would be credited."),
            Some(reason) => {
                let hint = reading.hint.as_deref().unwrap_or(reason.hint());
                self.say(format!("Rejected as it stands ({}): {hint}", reason.code()));
            }
        }
    }

    fn token(&mut self, place: &str) {
        let Some((_, rest)) = place.split_once("/post-back/") else { return };
        let token = rest.split('/').next().unwrap_or_default();
        if is_macro(token) || token.chars().all(|c| c.is_ascii_uppercase()) {
            return;
        }
        if !token_is_well_formed(token) {
            self.say(format!(
                "The token `{token}` is none of Clickback's: the answer would be 404. Copy the URL from the account."
            ));
        }
    }

    fn name(&mut self, reading: &Reading) {
        match &reading.name {
            Some(Name::Click(id)) => self.say(format!("Names the click {id}, made at {}.", id.time())),
            Some(Name::Alias(alias)) => {
                self.say(format!("Names the click whose `dyn`, or id elsewhere, is `{alias}`."));
            }
            Some(Name::Label(label)) => self.say(format!("Counts for the campaign `{label}`, not for one click.")),
            None => {}
        }
    }

    fn goals(&mut self, reading: &Reading) {
        for GoalReading { goal, count, dedup, .. } in &reading.goals {
            let policy = match dedup {
                goal::Dedup::Once => "once per click (and player)",
                goal::Dedup::PerTransaction => "once per transaction",
                goal::Dedup::Every => "every time",
            };
            self.say(format!("Counts {count} × {goal}, {policy}."));
        }
    }

    fn state(&mut self, reading: &Reading, settings: &AccountSettings) {
        let word = reading.status.as_deref().unwrap_or_default();
        match (reading.state, reading.goals.is_empty()) {
            _ if reading.unmapped => self.say(format!(
                "No status map knows `{word}`: a new conversion would be pending. Add it to the account's statuses."
            )),
            (Some(state), true) => self.say(format!(
                "`{word}` means {state}, without a goal: it changes the conversion of the tid, else the pending {} of the click.",
                settings.default_goal
            )),
            (Some(state), false) => self.say(format!("`{word}` means {state}.")),
            (None, _) => {}
        }
    }

    fn money(&mut self, reading: &Reading) {
        let money = money(reading);
        let currency = reading.currency.map(Currency::code).unwrap_or_default();
        if let Some(earning) = money.earning {
            self.say(format!("Earning: {earning} {currency}."));
        }
        if let Some(value) = money.value {
            self.say(format!("Value, what the player paid: {value} {currency}."));
        }
        if let Some(problem) = money.problem {
            self.say(format!("The money is left out ({}): {}", problem.code(), problem.hint()));
        }
    }

    fn rest(&mut self, reading: &Reading) {
        if let Some(tid) = &reading.tid {
            self.say(format!("Transaction: `{tid}`."));
        }
        if let Some(player) = &reading.player {
            self.say(format!("Player: `{player}`."));
        }
        if let Some(ts) = reading.ts {
            self.say(format!("Time of the conversion: {ts}."));
        }
        if reading.test {
            self.say("A test: its outcome is `test`, and it is in no report.");
        }
        for correction in &reading.corrections {
            self.say(format!("Corrected ({}): {}.", correction.code, correction.detail.trim_end_matches('.')));
        }
    }

    fn placeholders(&mut self, params: &Params<'_>, program: Option<&Program>) {
        for param in params.list.iter().filter(|param| param.value() == Value::Macro) {
            let raw = param.raw();
            let known = program.and_then(|p| p.placeholders.iter().find(|(_, placeholder)| *placeholder == raw));
            let name = program.map(|program| program.name.as_str()).unwrap_or_default();
            self.say(match known {
                Some((key, _)) => format!("`{}={raw}`: {name} puts its {key} there.", param.name),
                None => format!(
                    "`{}={raw}` is a placeholder, and none that {name} is known for: whoever sends this has to replace it.",
                    param.name
                ),
            });
        }
    }
}

/// The role of a parameter's name, without an account's own goals.
fn role(name: &str) -> Option<Role> {
    let pair = format!("{name}=1");
    Params::read(&pair, &Piece::Nothing, &[]).list.first().map(|param| param.role)
}

/// True for `clickId`, `dyn` and their aliases.
pub fn names_a_click(name: &str) -> bool {
    matches!(role(name), Some(Role::Click(_)))
}

/// True for a parameter of postbacks with a meaning of its own; a custom goal cannot have such a name.
pub fn is_read(name: &str) -> bool {
    role(name).is_some_and(|role| role != Role::Other)
}

/// True for what senders write where they have no value: nothing, `null`, `-` and their like.
pub fn is_absent(text: &str) -> bool {
    Param::encoded("".into(), text).value() == Value::Absent
}

/// True where the text would be taken for one of our own click ids, with whatever signs stand around it.
pub fn is_own_click(text: &str) -> bool {
    own::find(&own::decoded(text.as_bytes()), Time::from_ms(i64::MAX)).id.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClickId, id};

    fn checked(url: &str) -> CheckResult {
        check(url, &AccountSettings::generic("t", "a"), None)
    }

    fn own_id() -> String {
        ClickId::new(Time::from_ms(1_700_000_000_000), 3, 5).to_string()
    }

    #[test]
    fn a_good_postback_is_explained() {
        let id = own_id();
        let token = id::new_token(&[7; 28]);
        let result = checked(&format!(
            "https://x.example/post-back/{token}?clickId={id}&firsttimedeposits=1&earning=12,5&currency=usd&tid=T1"
        ));
        assert_eq!((result.kind, result.would, result.reason), (Kind::Postback, Would::Accepted, None));
        assert_eq!(result.click.as_deref(), Some(id.as_str()));
        assert_eq!(result.goals, [CheckedGoal { goal: "firsttimedeposits".into(), count: 1 }]);
        assert_eq!(result.earning.map(|a| a.to_string()).as_deref(), Some("12.50"));
        assert_eq!((result.currency, result.tid.as_deref()), (Some(Currency::USD), Some("T1")));
        assert_eq!(result.state, Some(State::Approved));
        assert_eq!(result.corrections.len(), 1);
        assert!(result.findings.iter().any(|line| line.contains("12.50 USD")), "{:?}", result.findings);
        assert!(!result.findings.iter().any(|line| line.contains("404")), "{:?}", result.findings);
    }

    #[test]
    fn problems_come_with_what_to_fix() {
        for (url, reason) in [
            ("https://x.example/post-back/T?signups=1", Reason::MissingClick),
            ("https://x.example/post-back/T?clickId=abc", Reason::MissingEvent),
            ("https://x.example/post-back/T?clickId={click_id}&signups=1", Reason::UnreplacedMacro),
            ("https://x.example/post-back/T?clickId=#s2#&signups=1", Reason::UnreplacedMacro),
            ("clickId=abc&event=nonsense", Reason::UnknownEvent),
        ] {
            let result = checked(url);
            assert_eq!(
                (result.kind, result.would, result.reason),
                (Kind::Postback, Would::Rejected, Some(reason)),
                "{url}"
            );
            assert!(result.hint.is_some_and(|hint| !hint.is_empty()), "{url}");
        }
    }

    #[test]
    fn a_template_says_who_fills_it() {
        let program = catalogue::find("income-access").unwrap();
        let settings = AccountSettings::generic("t", "a");
        let placeholder = &program.placeholders["click_id"];
        let url = format!("https://x.example/post-back/T?clickId={placeholder}&signups=1&earning={{whatever}}");
        let result = check(&url, &settings, Some(program));
        assert!(result.findings.iter().any(|line| line.contains("puts its click_id there")), "{:?}", result.findings);
        assert!(result.findings.iter().any(|line| line.contains("has to replace it")), "{:?}", result.findings);
    }

    #[test]
    fn a_landing_url_needs_the_programs_parameter() {
        let program = catalogue::find("affilka").unwrap();
        let settings = AccountSettings::generic("t", "a");
        let id = own_id();
        let good = check(&format!("https://casino.example/?visit_id={id}"), &settings, Some(program));
        assert_eq!((good.kind, good.would, good.click), (Kind::Link, Would::Accepted, Some(id.clone())));
        let bad = check(&format!("https://casino.example/?payload={id}"), &settings, Some(program));
        assert_eq!((bad.kind, bad.would, bad.reason), (Kind::Link, Would::Rejected, Some(Reason::MissingClick)));
        assert!(bad.hint.is_some());
        let tracking = check("https://go.example/c/lnk_abc?dyn=1&signups=1", &settings, Some(program));
        assert_eq!((tracking.kind, tracking.would), (Kind::Link, Would::Accepted));
    }

    #[test]
    fn names_with_a_meaning_are_known() {
        for name in ["clickId", "DYN", "sub_id", "aff_sub"] {
            assert!(names_a_click(name) && is_read(name), "{name}");
        }
        for name in ["status", "payout", "ts", "test", "event", "currency", "tid"] {
            assert!(is_read(name) && !names_a_click(name), "{name}");
        }
        for name in ["vip", "trial_started", "x"] {
            assert!(!is_read(name), "{name}");
        }
        assert!(is_absent("") && is_absent("NULL") && is_absent("-") && !is_absent("0"));
        assert!(is_own_click(&format!("\"{}\"", own_id())) && !is_own_click("abc"));
    }
}
