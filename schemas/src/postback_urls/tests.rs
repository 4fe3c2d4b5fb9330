mod dialects;

use super::*;
use crate::{
    ClickId, Currency, Reason, Time, catalogue,
    event::{Name, Reading},
    goal::{Dedup, GoalSettings},
    interpret::{RawRequest, interpret},
    settings::AccountSettings,
    status::State,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use url::Url;

const BASE: &str = "https://t.example/post-back/0123456789abcdef";

fn goals() -> Vec<String> {
    goal::BUILT_IN.iter().map(|(name, _, _)| (*name).to_owned()).chain(["vip".to_owned()]).collect()
}

fn of(program: &str) -> PostbackUrls {
    postback_urls(BASE, catalogue::find(program).unwrap(), &goals())
}

fn queries(urls: &PostbackUrls) -> Vec<&str> {
    urls.urls.iter().map(|url| url.url.strip_prefix(BASE).unwrap()).collect()
}

#[test]
fn income_access_as_its_help_pages_show_it() {
    let urls = of("income-access");
    assert_eq!((urls.supported, urls.mode, &urls.problem), (true, Mode::PerGoal, &None));
    assert_eq!(queries(&urls)[..2], ["?clickId={c}&signups=1", "?clickId={c}&firsttimedeposits=1"]);
    let names: Vec<_> = urls.urls.iter().filter_map(|url| url.goal.as_deref()).collect();
    assert_eq!(names, ["signups", "firsttimedeposits", "deposits", "sales", "qualified", "revshare", "vip"]);
    assert_eq!(queries(&urls)[6], "?clickId={c}&event=vip");
}

#[test]
fn only_what_the_program_can_fill_in() {
    assert_eq!(
        queries(&of("rapidpace"))[..3],
        [
            "?clickId={{click_id}}&signups=1&player={{profile_id}}",
            "?clickId={{click_id}}&firsttimedeposits=1&value={{amount}}&tid={{postback_id}}&player={{profile_id}}",
            "?clickId={{click_id}}&deposits=1&value={{amount}}&tid={{postback_id}}&player={{profile_id}}",
        ]
    );
    assert_eq!(
        queries(&of("affilka"))[..2],
        [
            "?clickId=${visit_id}&signups=1&player=${player_id}",
            "?clickId=${visit_id}&firsttimedeposits=1&value=${amount}&currency=${currency}&tid=${deposit_id}\
             &player=${player_id}",
        ]
    );
    assert_eq!(queries(&of("cake"))[0], "?clickId=#s2#&signups=1&earning=#price#&ts=#utcunixtime#");
}

#[test]
fn one_url_for_programs_with_a_status_or_event_placeholder() {
    let urls = of("affise");
    assert_eq!(urls.mode, Mode::Single);
    assert_eq!(urls.urls[0].goal, None);
    assert_eq!(
        queries(&urls),
        ["?clickId={sub1}&event={goal}&earning={sum}&currency={currency}&tid={transactionid}&player={user_id}\
          &status={status}&ts={timestamp}"]
    );
    assert!(urls.urls[0].when.contains("change of its status") && urls.urls[0].when.contains("aliases"));
    assert_eq!(queries(&of("kuala")), ["?clickId={tid}&sales=1&earning={payout}&tid={xid}"]);
    assert!(queries(&of("limonad"))[0].contains("&status={status}"));
}

#[test]
fn programs_without_postbacks_say_what_to_do() {
    let urls = of("amazon-associates");
    assert!(!urls.supported && urls.urls.is_empty());
    assert!(urls.problem.unwrap().contains("reports") && urls.message.contains("ascsubtag"));
}

#[test]
fn an_unknown_placeholder_is_neutral_and_the_manager_is_told() {
    let urls = of("referon");
    assert_eq!(queries(&urls)[0], "?clickId={click_id}&signups=1");
    assert!(urls.problem.as_ref().unwrap().contains("clickid"));
    assert!(urls.message.contains("in the place of {click_id}"));
    assert!(of("generic").message.contains("put your own in their place"));
}

#[test]
fn names_of_goals_are_encoded() {
    let goals = ["Big win & more".to_owned(), "type".to_owned(), "signups".to_owned()];
    let urls = postback_urls(BASE, catalogue::find("generic").unwrap(), &goals);
    let queries = queries(&urls);
    assert_eq!(queries.len(), 4);
    assert!(queries[2].contains("&event=Big%20win%20%26%20more&"));
    assert!(queries[3].contains("&event=type&"));
}

#[test]
fn a_status_that_names_goals_stays_out_of_urls_for_one_goal() {
    let mut program = catalogue::find("generic").unwrap().clone();
    program.placeholders.insert("status".into(), "{status}".into());
    assert!(queries(&postback_urls(BASE, &program, &[]))[0].contains("&status={status}"));
    program.statuses.insert("ftd".into(), crate::status::Meaning::goal("firsttimedeposits"));
    assert!(!queries(&postback_urls(BASE, &program, &[]))[0].contains("status"));
    program.single_url = true;
    assert_eq!(queries(&postback_urls(BASE, &program, &[])).len(), 1);
    assert!(queries(&postback_urls(BASE, &program, &[]))[0].ends_with("&status={status}"));
}

#[test]
fn the_message_has_every_url_and_says_what_is_in_it() {
    for program in catalogue::built_in().iter().filter(|p| p.postback) {
        let urls = postback_urls(BASE, program, &goals());
        for url in &urls.urls {
            assert!(urls.message.contains(&url.url), "{}", program.id);
            assert!(url.when.ends_with('.'), "{}", url.when);
        }
        for (key, text) in &program.placeholders {
            let shown = urls.message.contains(&format!("={text}: "));
            assert!(shown || (urls.mode == Mode::PerGoal && matches!(key.as_str(), "goal" | "event")), "{text}");
        }
    }
}

#[test]
fn the_json_is_as_the_contract_says() {
    let json = serde_json::to_value(of("income-access")).unwrap();
    assert_eq!((&json["mode"], &json["supported"]), (&"per_goal".into(), &true.into()));
    assert!(json.get("problem").is_none());
    assert_eq!(json["urls"][0]["goal"], "signups");
    assert_eq!(serde_json::to_value(of("kuala")).unwrap()["urls"][0]["goal"], serde_json::Value::Null);
    assert_eq!(serde_json::to_value(of("kuala")).unwrap()["mode"], "single");
}

proptest! {
    #[test]
    fn any_goal_comes_back_whole(goal in "[^\\pC]{1,20}") {
        let urls = postback_urls(BASE, catalogue::find("income-access").unwrap(), std::slice::from_ref(&goal));
        let last = urls.urls.last().unwrap();
        let url = Url::parse(&last.url.replace("{c}", "x")).unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let expected = match goal::depth(&goal) {
            Some(_) => (goal, "1".to_owned()),
            None => ("event".to_owned(), goal),
        };
        prop_assert_eq!(&pairs[1], &expected);
    }
}

/// What an operator's system would put in the place of each placeholder.
fn samples(program: &Program) -> BTreeMap<&'static str, String> {
    let status = program.statuses.iter().find(|(_, m)| m.state == Some(State::Approved));
    BTreeMap::from([
        ("click_id", ClickId::new(Time::from_ms(1_700_000_000_000), 7, 99).to_string()),
        ("dyn", "some-label".to_owned()),
        ("goal", "ftd".to_owned()),
        ("event", "ftd".to_owned()),
        ("amount", "12.50".to_owned()),
        ("value", "100.00".to_owned()),
        ("currency", "USD".to_owned()),
        ("tid", "T-1".to_owned()),
        ("player", "P-9".to_owned()),
        ("status", status.map_or("approved", |(word, _)| word.as_str()).to_owned()),
        ("time", "1700000100".to_owned()),
    ])
}

fn fill(url: &str, program: &Program) -> String {
    let samples = samples(program);
    let mut placeholders: Vec<_> = program.placeholders.iter().collect();
    placeholders.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
    let filled =
        placeholders.iter().fold(url.to_owned(), |url, (key, text)| url.replace(*text, &samples[key.as_str()]));
    filled.replace(NEUTRAL_CLICK_ID, &samples["click_id"])
}

#[test]
fn filled_in_urls_are_plain_urls() {
    for program in catalogue::built_in().iter().filter(|p| p.postback) {
        for url in postback_urls(BASE, program, &goals()).urls {
            let filled = fill(&url.url, program);
            let parsed = Url::parse(&filled).unwrap();
            assert_eq!((parsed.as_str(), parsed.fragment()), (filled.as_str(), None), "{}", program.id);
            let pairs: Vec<_> = parsed.query_pairs().into_owned().collect();
            let names: std::collections::BTreeSet<_> = pairs.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), pairs.len(), "{filled}");
            assert!(!filled.contains(['{', '}', '[', ']', '$', '!']), "{filled}");
        }
    }
}

/// The settings of an account with this program that leaves everything at its default.
fn settings(program: &Program) -> AccountSettings {
    let mut settings = AccountSettings::generic("t", "acc");
    Arc::make_mut(&mut settings.statuses).extend(program.statuses.clone());
    Arc::make_mut(&mut settings.goals).push(GoalSettings {
        name: "vip".to_owned(),
        dedup: Dedup::Once,
        repeat_window_s: 600,
        aliases: Vec::new(),
    });
    settings
}

fn read(url: &str, program: &Program) -> Reading {
    let query = url.split_once('?').unwrap().1.as_bytes();
    let raw = RawRequest { method: "GET", query, body: None, content_type: None };
    let readings = interpret(&raw, &settings(program), Time::from_ms(1_700_000_200_000));
    assert_eq!(readings.len(), 1, "{url}");
    readings.into_iter().next().unwrap()
}

/// What the reading has to say about one parameter: what the operator filled in, or nothing.
fn filled<T: std::str::FromStr>(url: &str, program: &Program, parameter: &str, key: &str) -> Option<T> {
    url.contains(&format!("&{parameter}=")).then(|| samples(program)[key].parse().ok()).flatten()
}

#[test]
fn every_program_is_read_as_it_was_meant() {
    for program in catalogue::built_in().iter().filter(|p| p.postback) {
        for url in postback_urls(BASE, program, &goals()).urls {
            let full = fill(&url.url, program);
            let reading = read(&full, program);
            assert_eq!((reading.reject, &reading.hint), (None, &None), "{full}");
            assert_eq!(reading.corrections, [], "{full}");
            let id = samples(program)["click_id"].parse().unwrap();
            assert_eq!(reading.name, Some(Name::Click(id)), "{full}");
            let by_event = event_placeholder(program).map(|_| "firsttimedeposits");
            let by_default = placeholder(program, "status").is_none().then_some("sales");
            let goal = url.goal.as_deref().or(by_event).or(by_default);
            let read: Vec<_> = reading.goals.iter().map(|g| (g.goal.as_str(), g.count)).collect();
            assert_eq!(read, goal.map(|goal| (goal, 1)).into_iter().collect::<Vec<_>>(), "{full}");
            let money = reading.goals.first().map_or(&reading.money, |goal| &goal.money);
            assert_eq!(money.earning, filled(&full, program, "earning", "amount"), "{full}");
            assert_eq!(money.value, filled(&full, program, "value", "value"), "{full}");
            assert_eq!(money.problem, None, "{full}");
            let currency = filled(&full, program, "currency", "currency").unwrap_or(Currency::EUR);
            assert_eq!(reading.currency, Some(currency), "{full}");
            assert_eq!(reading.tid, filled(&full, program, "tid", "tid"), "{full}");
            assert_eq!(reading.player, filled(&full, program, "player", "player"), "{full}");
            let has_status = full.contains("&status=");
            assert_eq!(reading.state, has_status.then_some(State::Approved), "{full}");
            let ts = full.contains("&ts=").then_some(Time::from_ms(1_700_000_100_000));
            assert_eq!((reading.ts, reading.test, reading.unmapped), (ts, false, false), "{full}");
        }
    }
}

#[test]
fn status_words_of_a_program_mean_states() {
    for program in catalogue::built_in() {
        for (word, meaning) in &program.statuses {
            let url = format!("{BASE}?clickId=abc&status={word}");
            let reading = read(&url, program);
            assert_eq!((reading.reject, reading.state), (None, meaning.state), "{url}");
            assert_eq!(reading.goals, [], "{url}");
        }
    }
}

#[test]
fn what_nobody_filled_in_is_noticed() {
    for program in catalogue::built_in().iter().filter(|p| p.postback) {
        for url in postback_urls(BASE, program, &goals()).urls {
            // A client cuts a URL at its first `#` before it sends it.
            let sent = url.url.split('#').next().unwrap();
            let expected = if sent == url.url { Reason::UnreplacedMacro } else { Reason::MissingClick };
            assert_eq!(read(sent, program).reject, Some(expected), "{sent}");
        }
    }
}
