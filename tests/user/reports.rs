//! Both reports: grouping, filters, keys, time zones, basis, cursors, and reading one's own write.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Account, Server};

/// Clicks with given times, so that report days are fixed.
async fn import(server: &Server, account: &Account, clicks: &[(&str, &str, &str)]) {
    let list: Vec<Value> = clicks
        .iter()
        .map(|(id, time, sub1)| json!({ "account": account.id, "id": id, "time": time, "sub1": sub1 }))
        .collect();
    let made = server.post("/v1/clicks", &json!({ "clicks": list })).await;
    assert_eq!(made["accepted"], clicks.len(), "{made}");
}

fn keys(report: &Value, name: &str) -> Vec<Value> {
    report["rows"].as_array().unwrap().iter().map(|r| r[name].clone()).collect()
}

#[tokio::test]
async fn days_and_hours_are_those_of_the_time_zone() {
    let server = Server::start();
    let account = server.create_account(json!({ "timezone": "Europe/Malta" })).await;
    import(
        &server,
        &account,
        &[
            ("a", "2026-10-24T21:59:59Z", "x"),
            ("b", "2026-10-24T22:00:00Z", "x"),
            ("c", "2026-10-25T00:30:00Z", "y"),
            ("d", "2026-10-25T01:30:00Z", "y"),
        ],
    )
    .await;
    let range = "from=2026-10-24&to=2026-10-25";
    let utc = server.conversions_report(&format!("{range}&group_by=day&sort=day")).await;
    assert_eq!(keys(&utc, "day"), ["2026-10-24", "2026-10-25"]);
    assert_eq!(keys(&utc, "clicks"), [2, 2]);
    let malta = server.conversions_report(&format!("{range}&group_by=day&sort=day&tz=Europe/Malta")).await;
    assert_eq!(keys(&malta, "clicks"), [1, 3]);
    // With an account filtered its own zone is the default.
    let own = server.conversions_report(&format!("{range}&group_by=day&sort=day&account={}", account.id)).await;
    assert_eq!((keys(&own, "clicks"), &own["query"]["tz"]), (vec![json!(1), json!(3)], &json!("Europe/Malta")));
    // The hour that comes twice when summer time ends is two hours.
    let hours = server.conversions_report(&format!("{range}&group_by=hour&sort=hour&tz=Europe/Malta")).await;
    let hours = keys(&hours, "hour");
    assert!(
        hours.contains(&json!("2026-10-25T02:00:00+02:00")) && hours.contains(&json!("2026-10-25T02:00:00+01:00")),
        "{hours:?}"
    );
    let months = server.conversions_report(&format!("{range}&group_by=month")).await;
    assert_eq!(keys(&months, "month"), ["2026-10"]);
}

#[tokio::test]
async fn the_basis_moves_conversions_and_never_clicks() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    import(&server, &account, &[("a", "2026-11-10T10:00:00Z", "x")]).await;
    server.accepted(&account, "clickId=a&event=deposit&tid=1&ts=2026-11-12T10:00:00Z&earning=5").await;
    let report = async |basis: &str| {
        let report = server
            .conversions_report(&format!("from=2026-11-09&to=2026-11-13&group_by=day&sort=day&basis={basis}"))
            .await;
        report["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["day"].clone(), r["clicks"].clone(), r["goals"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(report("click").await, [(json!("2026-11-10"), json!(1), json!({ "deposits": 1 }))]);
    assert_eq!(
        report("conversion").await,
        [(json!("2026-11-10"), json!(1), json!({})), (json!("2026-11-12"), json!(0), json!({ "deposits": 1 })),]
    );
}

#[tokio::test]
async fn filters_of_one_name_are_any_of_and_of_different_names_all_of() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let other = server.create_account(json!({})).await;
    import(
        &server,
        &account,
        &[("a", "2026-11-10T10:00:00Z", "x"), ("b", "2026-11-10T10:00:00Z", "y"), ("c", "2026-11-10T10:00:00Z", "")],
    )
    .await;
    import(&server, &other, &[("d", "2026-11-10T10:00:00Z", "x")]).await;
    let clicks = async |filter: &str| {
        let report = server.conversions_report(&format!("from=2026-11-09&to=2026-11-11&group_by=sub1&{filter}")).await;
        report["totals"]["clicks"].as_i64().unwrap()
    };
    assert_eq!(clicks("").await, 4);
    assert_eq!(clicks("sub1=x&sub1=y").await, 3);
    assert_eq!(clicks(&format!("sub1=x&account={}", account.id)).await, 1);
    assert_eq!(clicks("sub1=").await, 1, "without one");
    assert_eq!(clicks("sub1=%21x").await, 2, "not");
    let report = server.conversions_report("from=2026-11-09&to=2026-11-11&group_by=sub1").await;
    let found: BTreeSet<String> = keys(&report, "sub1").iter().map(Value::to_string).collect();
    assert_eq!(found, ["\"x\"", "\"y\"", "null"].map(str::to_owned).into());
}

#[tokio::test]
async fn every_dimension_groups_and_totals_are_over_everything() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "dyn=d&sub1=1&sub2=2&sub3=3&sub4=4&sub5=5").await;
    server.follow_link(&link, "dyn=e&sub1=other").await;
    server.accepted(&account, &format!("clickId={}&signups=1&earning=2", click.id)).await;
    for dimension in
        ["day", "hour", "month", "account", "program", "link", "dyn", "sub1", "sub2", "sub3", "sub4", "sub5"]
    {
        let report = server.conversions_report(&format!("group_by={dimension}&limit=1")).await;
        assert_eq!(report["totals"]["clicks"], 2, "{dimension}");
        assert_eq!(report["totals"]["goals"], json!({ "signups": 1 }), "{dimension}");
        assert_eq!(report["rows"].as_array().unwrap().len(), 1, "{dimension}");
        assert!(!report["rows"][0][dimension].is_null(), "{dimension}: {report}");
    }
    for dimension in ["goal", "currency", "state"] {
        let report = server.conversions_report(&format!("group_by={dimension}")).await;
        assert!(report["rows"][0]["clicks"].is_null(), "{dimension}: clicks have no {dimension}");
        assert_eq!(report["rows"][0]["goals"], json!({ "signups": 1 }), "{dimension}");
    }
    let row = server.conversions_report("group_by=account,link,sub1&sub1=1").await["rows"][0].clone();
    assert_eq!((&row["account_name"], &row["link_name"]), (&json!("An account"), &json!("A link")), "{row}");
    let row = server.conversions_report("group_by=program").await["rows"][0].clone();
    assert!(row["program_name"].is_string(), "{row}");
}

#[tokio::test]
async fn pages_follow_one_another_without_a_silent_cap() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    for n in 0..7 {
        server.follow_link(&link, &format!("sub1=s{n}")).await;
    }
    let mut seen = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page = server.conversions_report(&format!("group_by=sub1&sort=sub1&limit=3{cursor}")).await;
        assert_eq!(page["totals"]["clicks"], 7);
        for key in keys(&page, "sub1") {
            assert!(seen.insert(key.to_string()));
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    server.refused(Method::GET, "/v1/reports/conversions?limit=1001", None, 400).await;
    server.refused(Method::GET, "/v1/reports/conversions?cursor=garbage", None, 400).await;
}

#[tokio::test]
async fn sorting_is_by_any_column_in_both_directions() {
    let server = Server::start();
    let (_, link) = server.account_with_link(json!({})).await;
    for sub1 in ["a", "b", "b", "c", "c", "c"] {
        server.follow_link(&link, &format!("sub1={sub1}")).await;
    }
    let up = server.conversions_report("group_by=sub1&sort=clicks").await;
    let down = server.conversions_report("group_by=sub1&sort=-clicks").await;
    assert_eq!(keys(&up, "clicks"), [1, 2, 3]);
    assert_eq!(keys(&down, "clicks"), [3, 2, 1]);
}

#[tokio::test]
async fn the_postback_report_is_newest_first_and_filtered() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let first = server.accepted(&account, &format!("clickId={}&event=deposit&tid=t1&player=p", click.id)).await;
    let second = server.postback(&account, "signups=1").await;
    let rows = server.postbacks_report("").await;
    assert_eq!(keys(&rows, "hit"), [second.hit(), first.hit()]);
    for (filter, hit) in [
        ("outcome=rejected".to_owned(), second.hit()),
        ("reason=missing_click".to_owned(), second.hit()),
        ("outcome=converted".to_owned(), first.hit()),
        (format!("click={}", click.id), first.hit()),
        ("tid=t1".to_owned(), first.hit()),
        ("player=p".to_owned(), first.hit()),
        ("q=tid%3Dt1".to_owned(), first.hit()),
        (format!("account={}&outcome=%21converted", account.id), second.hit()),
    ] {
        let rows = server.postbacks_report(&filter).await;
        assert_eq!(keys(&rows, "hit"), [hit], "{filter}");
    }
    let page = server.postbacks_report("limit=1").await;
    let next = server.get(&format!("/v1/reports/postbacks?limit=1&cursor={}", page["cursor"].as_str().unwrap())).await;
    assert_eq!(keys(&next, "hit"), [first.hit()]);
    let row = &rows["rows"][1];
    for field in [
        "hit",
        "time",
        "account",
        "method",
        "raw",
        "body",
        "remote",
        "outcome",
        "reason",
        "hint",
        "partial",
        "corrections",
        "click",
        "waiting_until",
        "goals",
        "since_click_ms",
    ] {
        assert!(row.get(field).is_some(), "{field} in {row}");
    }
    for field in [
        "goal",
        "count",
        "outcome",
        "reason",
        "conversion",
        "state",
        "earning",
        "value",
        "currency",
        "tid",
        "player",
        "same_as",
    ] {
        assert!(row["goals"][0].get(field).is_some(), "{field} in {row}");
    }
    assert!(row["since_click_ms"].as_i64().unwrap() >= 0);
}

#[tokio::test]
async fn a_reader_sees_its_own_write_or_is_told_that_it_is_not_there_yet() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    for n in 0..20 {
        let click = server.follow_link(&link, &format!("sub1=n{n}")).await;
        let hit = server.accepted(&account, &format!("clickId={}&signups=1", click.id)).await;
        let path =
            format!("/v1/reports/conversions?after={}&after={}&wait=10s&sub1=n{n}", click.receipt, hit.receipt());
        let report = server.get(&path).await;
        assert_eq!(
            (&report["totals"]["clicks"], &report["totals"]["goals"]),
            (&json!(1), &json!({ "signups": 1 })),
            "{n}"
        );
    }
    server.refused(Method::GET, "/v1/reports/postbacks?after=0-999999&wait=50ms", None, 504).await;
    server.refused(Method::GET, "/v1/reports/postbacks?after=nonsense", None, 400).await;
}

#[tokio::test]
async fn two_currencies_are_never_added() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    for (tid, money) in
        [("1", "earning=1.10&currency=EUR"), ("2", "earning=2.20&currency=USD"), ("3", "earning=0.1&currency=EUR")]
    {
        server.accepted(&account, &format!("clickId={}&event=deposit&tid={tid}&{money}", click.id)).await;
    }
    let totals = server.conversions_report("").await["totals"].clone();
    assert_eq!(
        totals["earnings"],
        json!([
            { "currency": "EUR", "state": "approved", "amount": "1.20" },
            { "currency": "USD", "state": "approved", "amount": "2.20" },
        ])
    );
    assert_eq!(totals["goals"], json!({ "deposits": 3 }));
    assert_eq!(totals["epc"][0], json!({ "currency": "EUR", "amount": "1.20" }));
}

#[tokio::test]
async fn an_empty_filter_means_rows_without_one() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "dyn=known").await;
    server.accepted(&account, &format!("clickId={}&event=deposit&tid=T1&earning=1", click.id)).await;
    server.accepted(&account, &format!("clickId={}&signups=1&player=P1", click.id)).await;
    server.postback(&account, "clickId=&signups=1").await.expect(200);

    let raws = async |query: &str| {
        let report = server.postbacks_report(query).await;
        let mut raws: Vec<_> = report["rows"].as_array().unwrap().iter().map(|r| r["raw"].to_string()).collect();
        raws.sort();
        raws
    };
    let all = raws("").await;
    assert_eq!(all.len(), 3, "{all:?}");
    let with = |part: &str| all.iter().filter(|raw| raw.contains(part)).cloned().collect::<Vec<_>>();
    assert_eq!(raws("tid=").await, with("signups"));
    assert_eq!(raws("tid=!").await, with("tid=T1"));
    assert_eq!(raws("player=").await, [with("clickId=&"), with("tid=T1")].concat());
    assert_eq!(raws("click=").await, with("clickId=&"));
    assert_eq!(raws("click=!").await, with(&click.id));
    assert_eq!(raws(&format!("click={}&tid=", click.id)).await, with("player=P1"));

    let goals = async |query: &str| {
        let list = server.get(&format!("/v1/conversions?{query}")).await;
        let mut goals: Vec<_> = list["items"].as_array().unwrap().iter().map(|r| r["goal"].clone()).collect();
        goals.sort_by_key(Value::to_string);
        goals
    };
    assert_eq!(goals("tid=").await, ["signups"]);
    assert_eq!(goals("player=").await, ["deposits"]);
    assert_eq!(goals("player=&player=P1").await, ["deposits", "signups"]);
    for (path, pointer) in [
        ("/v1/reports/postbacks?outcome=", "?outcome"),
        ("/v1/reports/postbacks?from=", "?from"),
        ("/v1/reports/conversions?state=", "?state"),
        ("/v1/conversions?state=", "?state"),
    ] {
        let problem = server.refused(Method::GET, path, None, 400).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}
