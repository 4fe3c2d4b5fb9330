mod names;
mod shapes;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    ClickId, Currency,
    event::{GoalReading, Name},
    goal::{Dedup, GoalSettings},
    redact::redact,
    settings::DynMode,
    status::{Meaning, State},
};

const NOW: Time = Time::from_ms(1_800_000_000_000);

fn settings() -> AccountSettings {
    AccountSettings::generic("default", "acc")
}

fn custom(names: &[(&str, Dedup, &[&str])]) -> AccountSettings {
    let mut settings = settings();
    let goals = Arc::make_mut(&mut settings.goals);
    goals.extend(names.iter().map(|(name, dedup, aliases)| GoalSettings {
        name: (*name).to_owned(),
        dedup: *dedup,
        repeat_window_s: 600,
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
    }));
    settings
}

fn id(n: u64) -> ClickId {
    ClickId::new(Time::from_ms(1_799_999_000_000), 7, n)
}

fn query(query: &str) -> RawRequest<'_> {
    RawRequest { method: "GET", query: query.as_bytes(), body: None, content_type: None }
}

fn json(body: &str) -> RawRequest<'_> {
    RawRequest { method: "POST", query: b"", body: Some(body.as_bytes()), content_type: Some("application/json") }
}

fn one(raw: &RawRequest, settings: &AccountSettings) -> Reading {
    let mut readings = interpret(raw, settings, NOW);
    assert_eq!(readings.len(), 1);
    readings.remove(0)
}

/// Reads a query in which `OWN1` stands for our id number 1 and `OWN2` for number 2.
fn read_with(text: &str, settings: &AccountSettings) -> Reading {
    let text = text.replace("OWN2", &id(2).to_string()).replace("OWN1", &id(1).to_string());
    one(&query(&text), settings)
}

fn read(text: &str) -> Reading {
    read_with(text, &settings())
}

fn goals(reading: &Reading) -> Vec<(&str, u32)> {
    reading.goals.iter().map(|g| (g.goal.as_str(), g.count)).collect()
}

fn codes(reading: &Reading) -> Vec<&str> {
    reading.corrections.iter().map(|c| c.code.as_str()).collect()
}

fn alias(text: &str) -> Option<Name> {
    Some(Name::Alias(text.to_owned()))
}

/// Earning, value and problem of the goal at `at`.
fn money(reading: &Reading, at: usize) -> (Option<String>, Option<String>, Option<Reason>) {
    let GoalReading { money, .. } = &reading.goals[at];
    (money.earning.map(|a| a.to_string()), money.value.map(|a| a.to_string()), money.problem)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_two_urls_of_the_seed() {
    let reading = read("dyn={DynamicVar}&signups=1");
    assert_eq!(reading.reject, Some(Reason::UnreplacedMacro));
    assert!(reading.hint.as_deref().is_some_and(|h| h.starts_with("dyn={DynamicVar} ")), "{:?}", reading.hint);
    assert_eq!(goals(&reading), [("signups", 1)]);

    let reading = read("dyn=Aff-77&signups=1");
    assert_eq!(reading.reject, None);
    assert_eq!(reading.name, alias("aff-77"));
    assert_eq!((reading.click.as_deref(), reading.dyn_.as_deref()), (Some("Aff-77"), Some("Aff-77")));
    assert_eq!(reading.currency, Some(Currency::EUR));

    let reading = read("clickId=OWN1&earning=50.5&firsttimedeposits=1");
    assert_eq!(reading.reject, None);
    assert_eq!(reading.name, Some(Name::Click(id(1))));
    assert_eq!(goals(&reading), [("firsttimedeposits", 1)]);
    assert_eq!(money(&reading, 0), (some("50.50"), None, None));
    assert!(reading.corrections.is_empty());

    let reading = read("clickId=OWN1&earning={amount}&firsttimedeposits=1");
    assert_eq!((reading.reject, codes(&reading)), (None, vec![code::MACRO]));
    assert_eq!(money(&reading, 0), (None, None, None));
}

#[test]
fn dialects_of_the_programs() {
    for (text, goal, earning, tid) in [
        ("clickId=abc&event=ftd&amount=12.50&currency=EUR", "firsttimedeposits", Some("12.50"), None),
        ("clickId={{click_id}}&cid=abc&event=ftd&amount=5&txid=t-9", "firsttimedeposits", Some("5.00"), Some("t-9")),
        ("subid=abc&payout=7&status=sale", "sales", Some("7.00"), None),
        ("cid=abc&payout=10.00&txid=120&event=sale", "sales", Some("10.00"), Some("120")),
        ("clickid=abc&action_id=a1&goal=Registration&sum=3", "signups", Some("3.00"), Some("a1")),
        ("cid=abc&payout=9&status=OPTIONAL&txid=OPTIONAL&type=purchase", "sales", Some("9.00"), None),
        ("cnv_id=abc&payout=2&event=rebill", "deposits", Some("2.00"), None),
        ("aff_sub=abc&type=lead&revenue=1", "signups", Some("1.00"), None),
        ("sub_id=abc&event=Deposit&transaction_id=77&profit=4", "deposits", Some("4.00"), Some("77")),
        ("sid=abc&commission=11&order_id=o1&goal=SALES", "sales", Some("11.00"), Some("o1")),
        ("click_id=abc&qualified=true&commission=250", "qualified", Some("250.00"), None),
        ("SubID=abc&RevShare=yes&Earning=-3.2", "revshare", Some("-3.20"), None),
    ] {
        let reading = read(text);
        assert_eq!(reading.reject, None, "{text}: {:?}", reading.hint);
        assert_eq!(reading.name, alias("abc"), "{text}");
        assert_eq!(goals(&reading), [(goal, 1)], "{text}");
        assert_eq!(money(&reading, 0).0.as_deref(), earning, "{text}");
        assert_eq!(reading.tid.as_deref(), tid, "{text}");
    }
}

#[test]
fn a_body_is_read_like_a_query() {
    let body = r#"{"click_id":"partner-1","event":"registration","user_id":2451,"amount":5.0,"test":true,"deep":{"a":[1]},"x":null}"#;
    let reading = one(&json(body), &settings());
    assert_eq!((reading.reject, reading.name.clone()), (None, alias("partner-1")));
    assert_eq!(reading.player.as_deref(), Some("2451"));
    assert_eq!(money(&reading, 0).0, some("5.00"));
    assert!(reading.test);

    let form = |body: &'static str, kind| RawRequest {
        method: "POST",
        query: b"dyn=q",
        body: Some(body.as_bytes()),
        content_type: kind,
    };
    let kind = Some("application/x-www-form-urlencoded; charset=utf-8");
    let reading = one(&form("dyn=b&signups=1&tid=a%20b\n", kind), &settings());
    assert_eq!((reading.name, reading.tid.as_deref()), (alias("q"), Some("a b")));
    assert_eq!(one(&form("signups=1", None), &settings()).reject, None);
    assert_eq!(one(&form("{\"signups\":1}", None), &settings()).reject, None);
    let reading = one(&form("{\"signups\":1}", kind), &settings());
    assert_eq!((reading.reject, codes(&reading)), (None, vec![code::JSON_AS_FORM]));
}

#[test]
fn the_query_wins_over_the_body_unless_it_says_nothing() {
    let with = |q: &'static str, b: &'static str| RawRequest {
        method: "POST",
        query: q.as_bytes(),
        body: Some(b.as_bytes()),
        content_type: Some("application/json"),
    };
    let reading = one(&with("clickid={click}&signups=1", r#"{"clickId":"real"}"#), &settings());
    assert_eq!(reading.name, alias("real"));
    let reading = one(&with("dyn=a&event=ftd", r#"{"event":"sale","dyn":"b"}"#), &settings());
    assert_eq!((reading.reject, goals(&reading)), (None, vec![("firsttimedeposits", 1)]));
    let body = format!(r#"{{"clickid":"{}"}}"#, id(2));
    let text = format!("clickId={}&signups=1", id(1));
    let raw = RawRequest { query: text.as_bytes(), body: Some(body.as_bytes()), ..with("", "") };
    assert_eq!(one(&raw, &settings()).name, Some(Name::Click(id(1))));
}

#[test]
fn arrays_are_several_hits() {
    let text =
        format!(r#"[{{"clickId":"a","signups":1}}, {{"clickId":"{}","event":"ftd"}}, 5, [{{"dyn":"x"}}]]"#, id(1));
    let readings = interpret(&json(&text), &settings(), NOW);
    assert_eq!(readings.len(), 4);
    assert_eq!(readings[0].name, alias("a"));
    assert_eq!(readings[1].name, Some(Name::Click(id(1))));
    assert_eq!((readings[2].reject, readings[3].reject), (Some(Reason::MalformedBody), Some(Reason::MalformedBody)));
    let many = |n: usize| format!("[{}]", vec![r#"{"dyn":"a","signups":1}"#; n].join(","));
    assert_eq!(interpret(&json(&many(100)), &settings(), NOW).len(), 100);
    for bad in [many(101), "[]".to_owned(), "[1".to_owned()] {
        assert_eq!(one(&json(&bad), &settings()).reject, Some(Reason::MalformedBody));
    }
}

#[test]
fn a_body_that_cannot_be_read_matters_only_where_it_is_needed() {
    let with = |query: &'static str, body: &'static str, kind| RawRequest {
        method: "POST",
        query: query.as_bytes(),
        body: Some(body.as_bytes()),
        content_type: Some(kind),
    };
    for (raw, other_type) in [
        (with("dyn=a", "{\"signups\":1", "application/json"), false),
        (with("dyn=a", "7", "application/json"), false),
        (with("dyn=a", "--x", "multipart/form-data; boundary=x"), true),
    ] {
        let readings = interpret(&raw, &settings(), NOW);
        assert_eq!(readings[0].reject, Some(Reason::MalformedBody));
        assert_eq!(needs_another_body(&raw, &readings), other_type);
    }
    let raw = with("dyn=a&signups=1", "{\"earning\":1", "application/json");
    let reading = one(&raw, &settings());
    assert_eq!((reading.reject, codes(&reading), money(&reading, 0).0), (None, vec![code::BODY], None));
    assert_eq!(one(&with("dyn=a&signups=1", " \n", "image/png"), &settings()).corrections, []);
}

#[test]
fn the_name_in_its_order() {
    for (text, name) in [
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6&subid=5&cid=4&click_id=3&dyn=2&clickId=1", "1"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6&subid=5&cid=4&click_id=3&dyn=2", "2"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6&subid=5&cid=4&click_id=3", "3"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6&subid=5&cid=4", "4"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6&subid=5", "5"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7&sub_id=6", "6"),
        ("signups=1&aff_sub=9&cnv_id=8&sid=7", "7"),
        ("signups=1&aff_sub=9&cnv_id=8", "8"),
        ("signups=1&aff_sub=9", "9"),
        ("signups=1&clickId=-&dyn=Null&CID=x", "x"),
        ("signups=1&clickId={ClickId}&dyn=%7Ba%7D&cid=%2522{x}%2522&sid=S", "s"),
        ("signups=1&CLICKID=%20%22Ab%20c%22%20", "ab c"),
        ("signups=1&dyn=%C3%84rger", "ärger"),
        ("signups=1&clickId=first&clickid=second", "first"),
    ] {
        let reading = read(text);
        assert_eq!(reading.reject, None, "{text}: {:?}", reading.hint);
        assert_eq!(reading.name, alias(name), "{text}");
    }
    let settings = AccountSettings { dyn_mode: DynMode::Campaign, ..settings() };
    assert_eq!(read_with("dyn=Spring&signups=1", &settings).name, Some(Name::Label("spring".to_owned())));
    assert_eq!(read_with("cid=X&signups=1", &settings).name, alias("x"));
    assert_eq!(read_with("dyn=OWN1&signups=1", &settings).name, Some(Name::Click(id(1))));
}

#[test]
fn our_own_id_is_found_anywhere() {
    for (text, noted) in [
        ("clickId=OWN1&signups=1", false),
        ("dyn=OWN1&signups=1", false),
        ("clickId=foreign&cid=OWN1&signups=1", false),
        ("foo=OWN1&signups=1", true),
        ("clickId=foreign&foo=OWN1&signups=1", true),
        ("clickId={x}&foo=%20OWN1%20&signups=1", true),
        ("foo=%22OWN1%22&signups=1", true),
        ("foo={OWN1}&signups=1", true),
        ("transaction_id=OWN1&signups=1", true),
        ("amount=OWN1&signups=1", true),
        ("player=OWN1&dyn=x&signups=1", true),
        ("foo=OWN1&clickId=OWN1&signups=1", false),
    ] {
        let reading = read(text);
        assert_eq!(reading.reject, None, "{text}: {:?}", reading.hint);
        assert_eq!(reading.name, Some(Name::Click(id(1))), "{text}");
        assert_eq!(reading.click.as_deref(), Some(id(1).to_string().as_str()), "{text}");
        assert_eq!(codes(&reading).contains(&code::CLICK_ELSEWHERE), noted, "{text}");
        assert_eq!((&reading.tid, &reading.player, money(&reading, 0)), (&None, &None, (None, None, None)), "{text}");
    }
    let upper = read(&format!("dyn={}&signups=1", id(1).to_string().to_uppercase()));
    assert_eq!(upper.name, Some(Name::Click(id(1))));
    for text in ["clickId=OWN1&dyn=OWN2&signups=1", "clickId=OWN1&foo=OWN2&signups=1", "tid=OWN1&x=OWN2&signups=1"] {
        let reading = read(text);
        assert_eq!((reading.reject, reading.name), (Some(Reason::AmbiguousClick), None), "{text}");
    }
}

#[test]
fn names_that_cannot_be() {
    let long = "x".repeat(256);
    for (text, reason) in [
        ("signups=1".to_owned(), Reason::MissingClick),
        (String::new(), Reason::MissingClick),
        ("clickId=&dyn=n/a&signups=1".to_owned(), Reason::MissingClick),
        ("clickId=&dyn=%AD_ID%&signups=1".to_owned(), Reason::UnreplacedMacro),
        ("dyn=%%DEPOSIT%%&signups=1".to_owned(), Reason::UnreplacedMacro),
        ("dyn=%257Bc%257D".to_owned(), Reason::UnreplacedMacro),
        ("dyn={c}&signups=abc".to_owned(), Reason::UnreplacedMacro),
        ("dyn=REPLACE&signups=1".to_owned(), Reason::UnreplacedMacro),
        ("dyn=%FF&signups=1".to_owned(), Reason::InvalidEncoding),
        (format!("dyn={long}&signups=1"), Reason::MalformedClick),
        ("dyn=a%00b&signups=1".to_owned(), Reason::MalformedClick),
        ("dyn=a%0Ab&signups=1".to_owned(), Reason::MalformedClick),
    ] {
        let reading = read(&text);
        assert_eq!((reading.reject, &reading.name), (Some(reason), &None), "{text}");
        assert!(reading.hint.is_some_and(|h| h.len() < 300), "{text}");
    }
    assert_eq!(read(&format!("dyn={}&signups=1", &long[..255])).reject, None);
}

#[test]
fn counts_and_words() {
    for (text, expected) in [
        ("signups=1", vec![("signups", 1)]),
        ("signups=true", vec![("signups", 1)]),
        ("FTD=Yes", vec![("firsttimedeposits", 1)]),
        ("ftds=1", vec![("firsttimedeposits", 1)]),
        ("deposits=3", vec![("deposits", 3)]),
        ("deposits=100", vec![("deposits", 100)]),
        ("deposits=3.0", vec![("deposits", 3)]),
        ("signups=5", vec![("signups", 1)]),
        ("signups=0&ftd=1", vec![("firsttimedeposits", 1)]),
        ("signups=1&firsttimedeposits=1&deposits=2", vec![("signups", 1), ("firsttimedeposits", 1), ("deposits", 2)]),
        ("ftd=1&ftds=1&firsttimedeposits=1", vec![("firsttimedeposits", 1)]),
        ("event=signup", vec![("signups", 1)]),
        ("goal=FTD&type=firsttimedeposits", vec![("firsttimedeposits", 1)]),
        ("signups=1&event=reg", vec![("signups", 1)]),
        ("status=lead", vec![("signups", 1)]),
        ("status=Sale&event=purchase", vec![("sales", 1)]),
        ("signups=1&event=unheard", vec![("signups", 1)]),
        ("signups=abc&ftd=1", vec![("firsttimedeposits", 1)]),
        ("signups={n}&ftd=1", vec![("firsttimedeposits", 1)]),
        ("signups=%201&x=%FF", vec![("signups", 1)]),
    ] {
        let reading = read(&format!("dyn=a&{text}"));
        assert_eq!(reading.reject, None, "{text}: {:?}", reading.hint);
        assert_eq!(goals(&reading), expected, "{text}");
    }
    assert_eq!(codes(&read("dyn=a&signups=5")), [code::COUNT_ONCE]);
    assert_eq!(codes(&read("dyn=a&signups=1&event=unheard")), [code::EVENT]);
}

#[test]
fn goals_that_cannot_be() {
    for (text, reason) in [
        ("", Reason::MissingEvent),
        ("signups=0", Reason::MissingEvent),
        ("signups=0&status=approved", Reason::MissingEvent),
        ("signups=", Reason::MissingEvent),
        ("earning=5", Reason::MissingEvent),
        ("signups=x", Reason::InvalidCount),
        ("signups=-1", Reason::InvalidCount),
        ("signups=1.5", Reason::InvalidCount),
        ("deposits=101", Reason::InvalidCount),
        ("signups=101", Reason::InvalidCount),
        ("deposits=99999999999999999999999", Reason::InvalidCount),
        ("signups=%FF", Reason::InvalidEncoding),
        ("event=%FF", Reason::InvalidEncoding),
        ("event=unheard", Reason::UnknownEvent),
        ("event=unheard&status=approved", Reason::UnknownEvent),
        ("event={event}", Reason::UnreplacedMacro),
        ("status={status}", Reason::UnreplacedMacro),
        ("signups=1&event=ftd", Reason::AmbiguousEvent),
        ("signups=1&ftd=1&event=ftd", Reason::AmbiguousEvent),
        ("event=ftd&type=signup", Reason::AmbiguousEvent),
        ("event=ftd&status=lead", Reason::AmbiguousEvent),
        ("status=wibble", Reason::UnmappedStatus),
        ("status=1", Reason::UnmappedStatus),
    ] {
        let reading = read(&format!("dyn=a&{text}"));
        assert_eq!(reading.reject, Some(reason), "{text}");
        assert_eq!((reading.name, reading.goals), (alias("a"), vec![]), "{text}");
    }
}

#[test]
fn custom_goals() {
    let settings =
        custom(&[("VIP level", Dedup::Once, &["vip"]), ("größe", Dedup::Every, &[]), ("kyc", Dedup::Every, &[])]);
    for (text, expected) in [
        ("kyc=4", vec![("kyc", 4)]),
        ("event=VIP", vec![("VIP level", 1)]),
        ("vip+LEVEL=3", vec![("VIP level", 1)]),
        ("GR%C3%96SSE=1", vec![]),
        ("GR%C3%96%C3%9FE=2", vec![("größe", 2)]),
        ("event=Kyc&status=approved", vec![("kyc", 1)]),
    ] {
        let reading = read_with(&format!("dyn=a&{text}"), &settings);
        assert_eq!(goals(&reading), expected, "{text}");
    }
}

#[test]
fn status_words() {
    let mut settings = settings();
    let map = Arc::make_mut(&mut settings.statuses);
    map.insert(
        "2".to_owned(),
        Meaning { state: Some(State::Pending), goal: Some("deposits".to_owned()), ignore: false },
    );
    map.insert("noise".to_owned(), Meaning { ignore: true, ..Meaning::default() });
    map.insert("gone".to_owned(), Meaning::goal("deleted goal"));
    let read = |text: &str| read_with(&format!("dyn=a&{text}"), &settings);

    let reading = read("status=Approved&earning=7");
    assert_eq!((reading.reject, reading.state, goals(&reading)), (None, Some(State::Approved), vec![]));
    assert_eq!(reading.money.earning.map(|a| a.to_string()), some("7.00"));
    assert_eq!(reading.status.as_deref(), Some("Approved"));

    let reading = read("status=2");
    assert_eq!((reading.reject, reading.state, goals(&reading)), (None, Some(State::Pending), vec![("deposits", 1)]));
    let reading = read("status=chargeback&event=sale");
    assert_eq!((reading.state, goals(&reading)), (Some(State::Rejected), vec![("sales", 1)]));
    let reading = read("status=wibble&event=sale");
    assert_eq!((reading.reject, reading.unmapped, reading.state), (None, true, None));
    let reading = read("status=%FF&event=sale");
    assert_eq!((reading.reject, reading.unmapped), (None, true));
    let reading = read("status={status}&event=sale");
    assert_eq!((reading.reject, reading.unmapped, codes(&reading)), (None, false, vec![code::MACRO]));
    assert_eq!(read("status=noise").reject, Some(Reason::IgnoredStatus));
    let reading = read("status=noise&event=sale");
    assert_eq!((reading.reject, reading.unmapped, reading.state), (None, false, None));
    assert_eq!(read("status=gone").reject, Some(Reason::UnknownEvent));
}

#[test]
fn money_belongs_to_the_deepest_goal() {
    let settings = custom(&[("first", Dedup::Every, &[]), ("second", Dedup::Every, &[])]);
    for (text, at) in [
        ("signups=1&ftd=1", 1),
        ("ftd=1&signups=1", 0),
        ("revshare=1&qualified=1&deposits=1", 0),
        ("sales=1&qualified=1&deposits=1", 1),
        ("second=1&first=1", 1),
        ("signups=1&second=1", 0),
    ] {
        let reading = read_with(&format!("dyn=a&{text}&earning=5&deposit_amount=20"), &settings);
        for (i, goal) in reading.goals.iter().enumerate() {
            assert_eq!(goal.money.is_empty(), i != at, "{text}");
        }
        assert_eq!(money(&reading, at), (some("5.00"), some("20.00"), None), "{text}");
        assert!(reading.money.is_empty());
    }
}

#[test]
fn amounts_and_currencies() {
    use Reason::{InvalidAmount, InvalidCurrency};
    for (text, earning, currency, problem, noted) in [
        ("earning=12,50", Some("12.50"), "EUR", None, vec![code::DECIMAL_COMMA]),
        ("earning=1.234,50", Some("1234.50"), "EUR", None, vec![code::DECIMAL_COMMA, code::THOUSANDS]),
        ("earning=%E2%82%AC50", Some("50.00"), "EUR", None, vec![code::CURRENCY_SIGN]),
        ("earning=$50", Some("50.00"), "USD", None, vec![code::CURRENCY_SIGN]),
        ("earning=50+USD&currency=usd", Some("50.00"), "USD", None, vec![code::CURRENCY_SIGN]),
        ("earning=$50&currency=EUR", None, "EUR", Some(InvalidCurrency), vec![code::CURRENCY_SIGN, code::CURRENCY]),
        ("earning=5&currency=COIN", None, "EUR", Some(InvalidCurrency), vec![code::CURRENCY]),
        ("earning=5&currency=rub,usd,eur", None, "EUR", Some(InvalidCurrency), vec![code::CURRENCY]),
        ("earning=5&currency=RUR", Some("5.00"), "RUB", None, vec![code::CURRENCY_CODE]),
        ("earning=5&currency=%E2%82%BD", Some("5.00"), "RUB", None, vec![code::CURRENCY_CODE]),
        ("earning=5&currency=usdt", Some("5.00"), "USDT", None, vec![]),
        ("earning=5&currency={currency}", Some("5.00"), "EUR", None, vec![code::MACRO]),
        ("earning=5&currency=null", Some("5.00"), "EUR", None, vec![]),
        ("earning=abc", None, "EUR", Some(InvalidAmount), vec![code::AMOUNT]),
        ("earning=1,234", None, "EUR", Some(InvalidAmount), vec![code::AMOUNT]),
        ("earning=%FF", None, "EUR", Some(InvalidAmount), vec![code::AMOUNT]),
        ("earning=abc&currency=?", None, "EUR", Some(InvalidAmount), vec![code::AMOUNT, code::CURRENCY]),
        ("earning=null&payout=-&sum=4", Some("4.00"), "EUR", None, vec![]),
        ("amount=1&revenue=2&sum=3&profit=4", Some("4.00"), "EUR", None, vec![code::NOT_USED; 3]),
        ("commission=5&payout=6&earning=7", Some("7.00"), "EUR", None, vec![code::NOT_USED; 2]),
    ] {
        let reading = read(&format!("dyn=a&ftd=1&{text}"));
        assert_eq!(reading.reject, None, "{text}");
        assert_eq!(money(&reading, 0), (earning.map(str::to_owned), None, problem), "{text}");
        assert_eq!(reading.currency.map(Currency::code), Some(currency), "{text}");
        assert_eq!(codes(&reading), noted, "{text}");
    }
    let reading = read("dyn=a&ftd=1&earning=x&value=20");
    assert_eq!(money(&reading, 0), (None, some("20.00"), Some(InvalidAmount)));
    let reading = read("dyn=a&ftd=1&order_sum=3&sale_amount=2");
    assert_eq!(money(&reading, 0), (None, some("2.00"), None));
}

#[test]
fn damaged_urls_are_mended() {
    for (text, noted) in [
        ("dyn=a&amp;signups=1&amp;earning=5&amp;currency=USD", vec![code::HTML; 3]),
        ("dyn=a&signups=1&earning=5\u{a4}cy=USD", vec![code::HTML]),
        ("dyn=a&signups=1&earning=5%c2%a4cy=USD", vec![code::HTML]),
        ("dyn=a&signups=1&earning=5&\u{a4}cy=USD", vec![code::HTML]),
        ("dyn=a&signups=1&earning=5&curren;cy=USD", vec![code::HTML]),
        ("dyn=a&signups=1&earning=5&curren=USD", vec![code::HTML]),
        ("dyn=a&signups=1?earning=5&currency=USD", vec![code::SECOND_QUESTION_MARK]),
        ("?dyn=a&signups=1&earning=5&currency=USD", vec![code::SECOND_QUESTION_MARK]),
        ("dyn=a\u{b6}m1=x&signups=1&earning=5&currency=USD", vec![]),
        ("&&dyn=a&&signups=1&earning=5&currency=USD&", vec![]),
        ("d%79n=a&sign%75ps=1&earning=5&currency=USD", vec![]),
    ] {
        let reading = read(text);
        assert_eq!(reading.reject, None, "{text}: {:?}", reading.hint);
        assert_eq!(reading.name, alias("a"), "{text}");
        assert_eq!(goals(&reading), [("signups", 1)], "{text}");
        assert_eq!((money(&reading, 0).0, reading.currency), (some("5.00"), Some(Currency::USD)), "{text}");
        assert_eq!(codes(&reading), noted, "{text}");
    }
    let reading = read("dyn=a&signups=1&ref=https://x.example/p?dyn=other");
    assert_eq!(reading.name, alias("a"));
    assert_eq!(read("signups=1&dyn=https://x.example/?a=b").name, alias("https://x.example/?a=b"));
}

#[test]
fn optional_parameters() {
    let reading = read("dyn=a&ftd=1&tid=+T%201+&order_id=9&customer_id=P7&ts=1799999999&test=1");
    assert_eq!((reading.tid.as_deref(), reading.player.as_deref()), (Some("T 1"), Some("P7")));
    assert_eq!(reading.ts, Some(Time::from_ms(1_799_999_999_000)));
    assert!(reading.test);
    assert_eq!(codes(&reading), [code::NOT_USED, code::TRIMMED]);
    for (text, time) in [
        ("1799999999123", Some(1_799_999_999_123)),
        ("1799999999.5", Some(1_799_999_999_500)),
        ("2027-01-15T08:00:00Z", Some(1_800_000_000_000)),
        ("2027-01-15T09:00:00%2B01:00", Some(1_800_000_000_000)),
        ("2027-01-15T09:00:00+01:00", Some(1_800_000_000_000)),
        ("1800000600", Some(1_800_000_600_000)),
        ("1800000601", None),
        ("9999999999999", None),
        ("5", None),
        ("99999999999999999999", None),
        ("yesterday", None),
        ("{ts}", None),
        ("1.x", None),
    ] {
        let reading = read(&format!("dyn=a&ftd=1&ts={text}"));
        assert_eq!((reading.reject, reading.ts), (None, time.map(Time::from_ms)), "{text}");
        assert_eq!(reading.corrections.is_empty(), time.is_some() && !text.contains('+'), "{text}");
    }
    for (text, test) in [("1", true), ("true", true), ("0", false), ("{test}", false), ("", false)] {
        assert_eq!(read(&format!("dyn=a&ftd=1&test={text}")).test, test, "{text}");
    }
    let long = format!("dyn=a&ftd=1&tid={}&player=%E9t%E9", "t".repeat(256));
    let reading = read(&long);
    assert_eq!((reading.tid.as_deref(), reading.player.as_deref()), (None, Some("%E9t%E9")));
    assert_eq!(codes(&reading), [code::TOO_LONG, code::ENCODING]);
    assert_eq!(read("dyn=a&ftd=1&tid={transactionid}_{goal}").tid, None);
}

#[test]
fn what_nobody_reads_harms_nothing() {
    let reading = read("dyn=a&ftd=1&x=%FF%ZZ%&y={macro}&%FF=1&sub1=&=&==&z");
    assert_eq!((reading.reject, reading.corrections), (None, vec![]));
    let raw = RawRequest { query: b"dyn=a&ftd=1&x=\xFF\xFE", ..query("") };
    assert_eq!(one(&raw, &settings()).reject, None);
    let raw = RawRequest { body: Some(b"{\"dyn\":\"a\",\"ftd\":1,\"x\":\"\xE9\"}"), ..json("") };
    assert_eq!(one(&raw, &settings()).reject, None);
    let raw = RawRequest { body: Some(b"{\"dyn\":\"\xE9\",\"ftd\":1}"), ..json("") };
    assert_eq!(one(&raw, &settings()).reject, Some(Reason::InvalidEncoding));
    assert_eq!(one(&json(r#"{"dyn":{"a":1},"ftd":1}"#), &settings()).reject, Some(Reason::MissingClick));
    assert_eq!(
        one(&json(r#"{"dyn":"a","ftd":1,"earning":[5]}"#), &settings()).goals[0].money.problem,
        Some(Reason::InvalidAmount)
    );
}

#[test]
fn the_first_reason_in_their_order_is_given() {
    let paused = AccountSettings { paused: true, ..settings() };
    let reading = read_with("dyn=a&ftd=1&earning=5", &paused);
    assert_eq!(reading.reject, Some(Reason::AccountPaused));
    assert_eq!((reading.name.clone(), goals(&reading)), (alias("a"), vec![("firsttimedeposits", 1)]));
    for (text, reason) in [
        ("", Reason::MissingClick),
        ("signups=x", Reason::MissingClick),
        ("dyn={x}", Reason::UnreplacedMacro),
        ("dyn=a%01&event=zzz", Reason::MalformedClick),
        ("dyn=a%01&event=%FF", Reason::InvalidEncoding),
        ("clickId=OWN1&x=OWN2", Reason::AmbiguousClick),
    ] {
        assert_eq!(read(text).reject, Some(reason), "{text}");
    }
}

#[test]
fn two_hundred_parameters_are_read() {
    let filler = |n: usize| (0..n).map(|i| format!("&p{i}=1")).collect::<String>();
    assert_eq!(read(&format!("dyn=a&ftd=1{}", filler(198))).reject, None);
    let reading = read(&format!("dyn=a&ftd=1{}", filler(199)));
    assert_eq!((reading.reject, reading.name), (Some(Reason::TooManyParameters), alias("a")));
    let form = filler(100);
    let text = format!("dyn=a&ftd=1{}", filler(100));
    let raw = RawRequest { body: Some(form.as_bytes()), query: text.as_bytes(), ..query("") };
    assert_eq!(one(&raw, &settings()).reject, Some(Reason::TooManyParameters));
}

#[test]
fn hints_are_short_whatever_came() {
    let long = "%7B".repeat(5_000);
    for text in
        [format!("dyn={long}"), format!("dyn=a&event={long}"), format!("dyn=a&status={long}"), format!("{long}=1")]
    {
        let reading = read(&text);
        assert!(reading.hint.is_some_and(|h| h.len() < 400));
    }
}

#[test]
fn work_is_linear_in_the_request() {
    let hidden = format!("dyn=a&ftd=1&x={}", "?b=".repeat(80_000));
    let marks = format!("dyn=a&ftd=1&x={}", "\u{a4}cy=".repeat(40_000));
    let url = format!("dyn=a&ftd=1&x=https://x{}", "?b=".repeat(80_000));
    let many = "a={b}&".repeat(200);
    let objects = format!("[{}]", vec![format!("{{{}\"z\":1}}", "\"a\":\"{b}\",".repeat(190)); 100].join(","));
    for (query, body) in [(&hidden, ""), (&marks, ""), (&url, ""), (&many, objects.as_str())] {
        let raw = RawRequest { query: query.as_bytes(), ..json(body) };
        let start = std::time::Instant::now();
        let readings = interpret(&raw, &settings(), NOW);
        let kept = redact(&raw, &settings().redact, &|_, _| String::new());
        assert_eq!(readings.len(), kept.len());
        // Thousands of times what it takes, and a small part of what work that grows with the square would take.
        assert!(start.elapsed().as_secs() < 20);
    }
}

fn raw_bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "clickId",
        "dyn",
        "cid",
        "signups",
        "ftd",
        "event",
        "status",
        "earning",
        "amount",
        "value",
        "currency",
        "tid",
        "ts",
        "test",
        "player",
        "email",
        "=",
        "&",
        "?",
        "&amp;",
        "¤cy",
        "%",
        "%2",
        "%25",
        "%7B",
        "%FF",
        "{",
        "}",
        "##",
        "[",
        "]",
        "\"",
        "'",
        ":",
        ",",
        "\\",
        "\\u",
        "null",
        "1",
        "12,5",
        "€",
        "USD",
        "approved",
        "sale",
        "+",
        " ",
        "-",
        "true",
        "{\"dyn\":\"a\",\"ftd\":1}",
        "0d8xq5rv5c0001zzzzzzzzzzzz",
        "://",
        "\n",
    ]);
    let piece = prop_oneof![
        6 => word.prop_map(|w| w.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => any::<u64>().prop_map(|n| id(n).to_string().into_bytes()),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn content_type() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("multipart/form-data"),
        Some("application/vnd.x+json; charset=utf-8"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_read_within_bounds_and_the_stored_form_reads_the_same(
        query in raw_bytes(), body in prop::option::of(raw_bytes()), content_type in content_type(), campaign: bool,
    ) {
        let mode = if campaign { DynMode::Campaign } else { DynMode::Click };
        let settings = AccountSettings { dyn_mode: mode, ..settings() };
        let raw = RawRequest { method: "POST", query: &query, body: body.as_deref(), content_type };
        let readings = interpret(&raw, &settings, NOW);
        prop_assert!(!readings.is_empty() && readings.len() <= bounds::HITS_PER_REQUEST);
        for reading in &readings {
            prop_assert!(reading.currency.is_some());
            prop_assert_eq!(reading.reject.is_some(), reading.hint.is_some());
            prop_assert!(reading.corrections.len() <= 32);
            if reading.reject.is_none() {
                prop_assert!(reading.name.is_some());
                prop_assert!(!reading.goals.is_empty() || reading.state.is_some());
            }
            let text = serde_json::to_string(reading).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Reading>(&text).unwrap(), reading);
        }
        let kept = redact(&raw, &[], &|_, _| unreachable!());
        prop_assert_eq!(kept.len(), readings.len());
        for (kept, reading) in kept.iter().zip(&readings) {
            let text = serde_json::to_string(kept).unwrap();
            let kept: Raw = serde_json::from_str(&text).unwrap();
            let again = interpret(&stored(&kept), &settings, NOW);
            prop_assert_eq!(&again, std::slice::from_ref(reading));
            prop_assert_eq!(redact(&stored(&kept), &[], &|_, _| unreachable!()).len(), 1);
        }
    }

    #[test]
    fn a_good_postback_is_understood_with_anything_beside_it(noise in raw_bytes(), earning in 0u32..10_000) {
        let text = [format!("dyn=good&ftd=1&earning={earning}&x=").into_bytes(), noise].concat();
        let raw = RawRequest { method: "GET", query: &text, body: None, content_type: None };
        let reading = one(&raw, &settings());
        prop_assert_eq!(reading.dyn_.as_deref(), Some("good"));
        if reading.reject.is_none() {
            prop_assert!(reading.goals.iter().any(|g| g.goal == "firsttimedeposits"));
        }
    }

    #[test]
    fn encoding_a_value_changes_nothing(value in "[^\\p{C}\\p{Z}\"'“‘]{1,40}") {
        let encoded = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC).to_string();
        let reading = read(&format!("signups=1&dyn={encoded}"));
        if reading.reject.is_none() {
            prop_assert_eq!(reading.dyn_.as_deref(), Some(value.as_str()));
        } else {
            prop_assert!(crate::macros::is_macro(&value) || value == "-");
        }
    }
}
