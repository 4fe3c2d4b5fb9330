use axum::http::StatusCode;
use pipeline::{Draft, clock, secrets};
use schemas::{
    Amount, ClickId, ConversionId, Currency, EventBody, EventId, Outcome,
    event::{Hit, HitSettings, Raw, Reading},
    goal::Dedup,
    outcome::{ClickRef, Conversion, GoalOutcome, HitOutcome, HitRef, Kind, Status},
    status::State,
};
use serde_json::{Value, json};

use super::world::{World, ago, change, outcome};

struct Made {
    hit: String,
    click: String,
    conversion: String,
}

/// A click, and a hit that made a conversion of it.
async fn converted(world: &World, account: &str, foreign: &str, goal: &str, earning: &str) -> Made {
    world
        .post(
            "/v1/clicks",
            json!({"clicks": [{"account": account, "id": foreign, "time": ago(30).to_string(), "sub1": "s"}]}),
        )
        .await;
    let found = world.get(&format!("/v1/clicks?account={account}&id={foreign}&after=latest&wait=10s")).await;
    let click = found.body["items"][0]["id"].as_str().unwrap().to_owned();
    let id: ClickId = click.parse().unwrap();
    let now = clock::now();
    let hit = EventId::new(now, 0, secrets::random_bits());
    let conversion = Conversion {
        id: ConversionId(std::array::from_fn(|i| format!("{foreign}/{goal}................").as_bytes()[i])),
        version: 1,
        goal: goal.to_owned(),
        count: 1,
        state: State::Pending,
        earning: Some(earning.parse::<Amount>().unwrap()),
        value: None,
        currency: Currency::EUR,
        tid: Some(format!("T{foreign}")),
        player: None,
        time: now,
        withdrawn: false,
    };
    let click_ref = ClickRef {
        id,
        time: id.time(),
        link: None,
        dyn_: None,
        sub1: Some("s".to_owned()),
        sub2: None,
        sub3: None,
        sub4: None,
        sub5: None,
    };
    let raw = Raw {
        method: "GET".to_owned(),
        query: format!("clickId={foreign}&{goal}=1&earning={earning}"),
        ..Raw::default()
    };
    let draft = Draft {
        id: hit,
        tenant: "default".to_owned(),
        time: now,
        shard: 0,
        body: EventBody::Hit(event(account, raw.clone())),
    };
    let event = draft.clone().into_event(hit, 0);
    let decided = HitOutcome {
        hit: HitRef { id: hit, time: now, method: Some(raw.method), raw: Some(raw.query), body: None, remote: None },
        tenant: "default".to_owned(),
        account: account.to_owned(),
        program: "generic".to_owned(),
        click: Some(click_ref.clone()),
        named: Some(foreign.to_owned()),
        label: None,
        outcome: Status::Converted,
        reason: None,
        hint: None,
        waiting_until: None,
        corrections: Vec::new(),
        goals: vec![GoalOutcome {
            goal: goal.to_owned(),
            count: 1,
            outcome: Status::Converted,
            reason: None,
            same_as: None,
            conversion: Some(conversion.clone()),
        }],
    };
    let prepared = Outcome {
        hits: vec![decided],
        changes: vec![change(account, &click_ref, &conversion, 1)],
        ..outcome(&event, Kind::Hit)
    };
    {
        let mut decisions = world.decisions.lock().unwrap();
        decisions.prepared.insert(hit, prepared);
        decisions.conversions.insert(conversion.id.to_string(), (conversion.clone(), click_ref));
    }
    world.appender.append(draft).await.unwrap();
    Made { hit: hit.to_string(), click, conversion: conversion.id.to_string() }
}

fn event(account: &str, raw: Raw) -> Hit {
    Hit {
        account: account.to_owned(),
        program: "generic".to_owned(),
        raw,
        reading: Reading::default(),
        settings: HitSettings {
            lookback_days: 90,
            lifetime_days: 1_825,
            waiting_days: 7,
            default_goal: "sales".to_owned(),
            default_dedup: Dedup::PerTransaction,
            default_repeat_window_s: 600,
        },
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let mut ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn conversions_are_listed_filtered_and_shown_with_every_change() {
    let world = World::start();
    let account = world.account("a").await;
    let one = converted(&world, &account, "f1", "signups", "1.50").await;
    let two = converted(&world, &account, "f2", "deposits", "20").await;
    let list = world.get("/v1/conversions?after=latest&wait=10s").await;
    assert_eq!(ids(&list.body), [one.conversion.as_str(), two.conversion.as_str()], "{}", list.text);
    for (query, expected) in [
        ("goal=signups", vec![&one]),
        ("goal=signups&goal=deposits", vec![&one, &two]),
        ("state=pending&tid=Tf2", vec![&two]),
        ("state=approved", vec![]),
        ("state=!approved&goal=!signups", vec![&two]),
        (&format!("account=!{account}"), vec![]),
        ("player=nobody", vec![]),
        ("player=", vec![&one, &two]),
        ("tid=", vec![]),
        ("tid=!Tf2", vec![&one]),
        ("tid=Tf1&tid=Tf2", vec![&one, &two]),
        (&format!("account={account}&basis=conversion&from={}", ago(5)), vec![&one, &two]),
        (&format!("basis=click&from={}", ago(5)), vec![]),
        (&format!("updated_after={}", ago(-5)), vec![]),
    ] {
        let list = world.get(&format!("/v1/conversions?{query}")).await;
        assert_eq!(list.status, StatusCode::OK, "{query}: {}", list.text);
        let expected: Vec<_> = expected.iter().map(|made| made.conversion.as_str()).collect();
        assert_eq!(ids(&list.body), expected, "{query}");
    }
    for (query, pointer, code) in [
        ("state=", "?state", "invalid_value"),
        ("goal=", "?goal", "invalid_value"),
        ("account=", "?account", "invalid_value"),
        ("to=", "?to", "invalid_time"),
        ("updated_after=", "?updated_after", "invalid_time"),
    ] {
        let reply = world.get(&format!("/v1/conversions?{query}")).await;
        assert_eq!((reply.status, reply.errors()), (StatusCode::BAD_REQUEST, vec![(pointer, code)]), "{query}");
    }
    let page = world.get("/v1/conversions?limit=1").await;
    let cursor = page.body["cursor"].as_str().unwrap();
    let rest = world.get(&format!("/v1/conversions?limit=1&cursor={cursor}")).await;
    assert_ne!(page.body["items"][0]["id"], rest.body["items"][0]["id"]);

    let shown = world.get(&format!("/v1/conversions/{}", one.conversion)).await;
    assert_eq!(
        (&shown.body["earning"], &shown.body["changes"][0]["what"]),
        (&json!("1.50"), &json!("made")),
        "{}",
        shown.text
    );
    assert_eq!(shown.body["changes"][0]["hit"], one.hit);
    assert_eq!(world.get("/v1/conversions/none").await.status, StatusCode::NOT_FOUND);
    let other = world.key("other", schemas::catalog::Scope::Admin).await;
    assert_eq!(
        world.get_as(&other, &format!("/v1/conversions/{}", one.conversion)).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(world.get_as(&other, "/v1/conversions").await.body["items"], json!([]));
}

#[tokio::test]
async fn conversions_are_adjusted_by_hand() {
    let world = World::start();
    let account = world.account("a").await;
    let made = converted(&world, &account, "f1", "signups", "1.50").await;
    let path = format!("/v1/conversions/{}", made.conversion);
    assert_eq!(world.get(&format!("{path}?after=latest&wait=10s")).await.status, StatusCode::OK);
    let reply = world
        .post(&format!("{path}/adjust"), json!({"state": "approved", "earning": "2.5", "reason": "their mail"}))
        .await;
    assert!(reply.body["receipt"].as_str().unwrap().starts_with("0-"), "{}", reply.text);
    let shown = world.get(&format!("{path}?after={}&wait=10s", reply.body["receipt"].as_str().unwrap())).await;
    assert_eq!(
        (&shown.body["state"], &shown.body["earning"], &shown.body["version"]),
        (&json!("approved"), &json!("2.50"), &json!(2))
    );
    let change = &shown.body["changes"][1];
    assert_eq!(
        (&change["what"], &change["note"], &change["by"]),
        (&json!("adjusted"), &json!("their mail"), &json!("configured")),
        "{}",
        shown.text
    );
    let same = world.post(&format!("{path}/adjust"), json!({"state": "approved", "reason": "again"})).await;
    assert!(same.status.is_success(), "{}", same.text);
    for (body, pointer, code) in [
        (json!({"state": "approved"}), "/reason", "missing_field"),
        (json!({"reason": "x"}), "", "missing_field"),
        (json!({"reason": "x", "state": "won"}), "/state", "invalid_value"),
        (json!({"reason": "x", "earning": "1,5"}), "/earning", "invalid_amount"),
        (json!({"reason": "x", "earning": 1.5}), "/earning", "wrong_type"),
        (json!({"reason": "x", "earnings": "1"}), "/earnings", "unknown_field"),
    ] {
        assert_eq!(world.post(&format!("{path}/adjust"), body).await.errors(), [(pointer, code)]);
    }
    let none = world.post("/v1/conversions/none/adjust", json!({"state": "approved", "reason": "x"})).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

/// Where half an hour ago is the same day, whenever the test runs. The names count hours behind Greenwich.
fn zone_where_it_is_noon() -> String {
    let hour = clock::now().ms() / 3_600_000 % 24;
    let behind = if hour == 12 { String::new() } else { format!("{:+}", hour - 12) };
    format!("Etc/GMT{}", behind.replace('+', "%2B"))
}

#[tokio::test]
async fn the_conversions_report_groups_filters_and_adds_up() {
    let world = World::start();
    let account = world.account("Casino").await;
    converted(&world, &account, "f1", "signups", "1.50").await;
    converted(&world, &account, "f2", "deposits", "20").await;
    let report = world.get("/v1/reports/conversions?group_by=account&after=latest&wait=10s").await;
    assert_eq!(report.status, StatusCode::OK, "{}", report.text);
    let row = &report.body["rows"][0];
    assert_eq!(
        (&row["account"], &row["account_name"], &row["clicks"]),
        (&json!(account), &json!("Casino"), &json!(2)),
        "{}",
        report.text
    );
    assert_eq!(row["goals"], json!({"deposits": 1, "signups": 1}));
    assert_eq!(row["conversions"], json!({"pending": 2, "approved": 0, "rejected": 0}));
    assert_eq!(row["earnings"], json!([{"currency": "EUR", "state": "pending", "amount": "21.50"}]));
    for field in ["values", "rates", "epc"] {
        assert!(row.get(field).is_some(), "{field}");
    }
    assert_eq!(report.body["totals"]["goals"], row["goals"]);
    for field in ["as_of", "query", "cursor"] {
        assert!(report.body.get(field).is_some(), "{field}");
    }
    for (query, rows) in [
        ("group_by=goal&goal=signups", 1),
        ("group_by=goal&goal=!signups", 1),
        ("group_by=goal,state&sub1=s", 2),
        ("group_by=account&sub1=", 0),
        (&format!("group_by=day&bots=include&basis=conversion&tz={}", zone_where_it_is_noon()), 1),
    ] {
        let report = world.get(&format!("/v1/reports/conversions?{query}")).await;
        assert_eq!(report.body["rows"].as_array().map(Vec::len), Some(rows), "{query}: {}", report.text);
    }
    for (query, pointer, code) in [
        ("group_by=acount", "?group_by", "unknown_dimension"),
        ("groupby=day", "?groupby", "unknown_parameter"),
        ("from=last-week", "?from", "invalid_time"),
        ("from=", "?from", "invalid_time"),
        ("to=", "?to", "invalid_time"),
        ("state=", "?state", "invalid_value"),
        ("account=", "?account", "invalid_value"),
        ("goal=", "?goal", "invalid_value"),
        ("currency=", "?currency", "invalid_value"),
        ("tz=Mars", "?tz", "invalid_timezone"),
        ("basis=now", "?basis", "invalid_value"),
        ("state=won", "?state", "invalid_value"),
        ("bots=only", "?bots", "invalid_value"),
        ("limit=0", "?limit", "out_of_range"),
        ("tz=UTC&tz=UTC", "?tz", "repeated_parameter"),
    ] {
        let reply = world.get(&format!("/v1/reports/conversions?{query}")).await;
        assert_eq!((reply.status, reply.errors()), (StatusCode::BAD_REQUEST, vec![(pointer, code)]), "{query}");
    }
    let near = world.get("/v1/reports/conversions?groupby=day").await;
    assert!(near.body["errors"][0]["detail"].as_str().unwrap().contains("did you mean `group_by`?"), "{}", near.text);
}

#[tokio::test]
async fn the_postback_report_shows_every_hit() {
    let world = World::start();
    let account = world.account("a").await;
    let one = converted(&world, &account, "f1", "signups", "1.50").await;
    let two = converted(&world, &account, "f2", "deposits", "20").await;
    let report = world.get("/v1/reports/postbacks?after=latest&wait=10s").await;
    assert_eq!(report.status, StatusCode::OK, "{}", report.text);
    let rows = report.body["rows"].as_array().unwrap();
    let hits: Vec<_> = rows.iter().map(|row| row["hit"].as_str().unwrap()).collect();
    assert_eq!(hits, [two.hit.as_str(), one.hit.as_str()], "newest first");
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
        assert!(rows[0].get(field).is_some(), "{field}: {}", rows[0]);
    }
    assert_eq!((&rows[1]["click"], &rows[1]["raw"]), (&json!(one.click), &json!("clickId=f1&signups=1&earning=1.50")));
    assert_eq!(rows[1]["goals"][0]["conversion"], one.conversion);
    for (query, count) in [
        ("outcome=converted", 2),
        ("outcome=!converted", 0),
        ("outcome=!waiting&reason=!duplicate", 2),
        ("reason=", 2),
        (&format!("account=!{account}"), 0),
        ("account=!none", 2),
        ("outcome=rejected&outcome=waiting", 0),
        ("reason=unknown_click", 0),
        (&format!("account={account}&click={}", one.click), 1),
        ("click=f1", 1),
        ("tid=Tf2", 1),
        ("q=DEPOSITS", 1),
        ("q=nothing-like-this", 0),
        ("tid=Tf1&tid=Tf2", 2),
        ("tid=!Tf2", 1),
        ("tid=", 0),
        ("tid=&tid=Tf1", 1),
        ("tid=!", 2),
        ("player=", 2),
        ("player=!", 0),
        ("click=", 0),
        ("click=F1&click=f2", 2),
        ("click=!f1", 1),
    ] {
        let report = world.get(&format!("/v1/reports/postbacks?{query}")).await;
        assert_eq!(report.body["rows"].as_array().map(Vec::len), Some(count), "{query}: {}", report.text);
    }
    for (query, pointer) in [
        ("outcome=convert", "?outcome"),
        ("outcome=", "?outcome"),
        ("outcome=converted&outcome=", "?outcome"),
        ("account=", "?account"),
        ("reason=nope", "?reason"),
        ("format=xml", "?format"),
    ] {
        let reply = world.get(&format!("/v1/reports/postbacks?{query}")).await;
        assert_eq!(reply.errors(), [(pointer, "invalid_value")]);
    }
    let hit = world.get(&format!("/v1/hits/{}", one.hit)).await;
    assert_eq!(hit.body, rows[1]);
    assert_eq!(world.get("/v1/hits/none").await.status, StatusCode::NOT_FOUND);
    let other = world.key("other", schemas::catalog::Scope::Admin).await;
    assert_eq!(world.get_as(&other, &format!("/v1/hits/{}", one.hit)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get_as(&other, "/v1/reports/postbacks").await.body["rows"], json!([]));

    let journey = world.get(&format!("/v1/clicks/{}", one.click)).await;
    assert_eq!(journey.body["hits"][0]["hit"], one.hit, "{}", journey.text);
    assert_eq!(journey.body["conversions"][0]["id"], one.conversion);
    assert_eq!(journey.body["conversions"][0]["changes"].as_array().unwrap().len(), 1);
}
