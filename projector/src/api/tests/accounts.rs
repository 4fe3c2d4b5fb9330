use axum::http::StatusCode;
use schemas::Time;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn accounts_are_created_with_token_and_postback_base() {
    let world = World::start();
    let made = world.post("/v1/accounts", json!({"name": " Casino ", "program": "generic"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.body["token"].as_str().unwrap();
    assert!(schemas::id::token_is_well_formed(token));
    assert_eq!(made.body["postback_base"], format!("https://go.example/post-back/{token}"));
    for (field, value) in [
        ("name", json!("Casino")),
        ("program", json!("generic")),
        ("currency", json!("EUR")),
        ("timezone", json!("UTC")),
        ("lookback_days", json!(90)),
        ("lifetime_days", json!(1825)),
        ("waiting_days", json!(7)),
        ("strict", json!(false)),
        ("max_count", json!(100)),
        ("goals", json!([])),
        ("statuses", json!({})),
        ("default_goal", json!("sales")),
        ("click_param", json!("click_id")),
        ("dyn", json!("click")),
        ("allow", json!([])),
        ("hmac", Value::Null),
        ("answer", json!("json")),
        ("rate_limit", Value::Null),
        ("paused", json!(false)),
        ("archived", json!(false)),
    ] {
        assert_eq!(made.body[field], value, "{field}");
    }
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/accounts/{id}")).await.body, made.body);
    assert!(world.api.catalog.view().by_token(token, pipeline::clock::now()).is_some());
}

#[tokio::test]
async fn every_setting_is_taken_and_shown() {
    let world = World::start();
    let settings = json!({
        "name": "All", "program": "affilka", "currency": "usd", "timezone": "europe/malta", "lookback_days": 30,
        "lifetime_days": 365, "waiting_days": 0, "strict": true, "max_count": 5,
        "goals": [{"name": "VIP", "dedup": "every", "repeat_window": "1h", "aliases": ["Gold"]}, {"name": "signups", "dedup": "per_transaction"}],
        "statuses": {"Won": "approved", "LOST": {"state": "rejected", "goal": "vip"}, "noise": "ignore"},
        "default_goal": "vip", "click_param": "sub7", "dyn": "campaign", "allow": ["203.0.113.7", "2001:db8::/48"],
        "hmac": {"algorithm": "sha256", "in": "header", "name": "X-Sign", "over": "query", "encoding": "hex", "secret": "s3cret"},
        "answer": "gif", "rate_limit": 50, "redact": ["Nick"], "paused": true
    });
    let made = world.post("/v1/accounts", settings).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(!made.text.contains("s3cret"));
    for (field, value) in [
        ("currency", json!("USD")),
        ("timezone", json!("Europe/Malta")),
        (
            "goals",
            json!([{"name": "vip", "dedup": "every", "repeat_window": "1h", "aliases": ["gold"]}, {"name": "signups", "dedup": "per_transaction"}]),
        ),
        ("statuses", json!({"won": "approved", "lost": {"state": "rejected", "goal": "vip"}, "noise": "ignore"})),
        ("default_goal", json!("vip")),
        ("click_param", json!("sub7")),
        ("dyn", json!("campaign")),
        ("allow", json!(["203.0.113.7/32", "2001:db8::/48"])),
        ("hmac", json!({"algorithm": "sha256", "in": "header", "name": "X-Sign", "over": "query", "encoding": "hex"})),
        ("answer", json!("gif")),
        ("rate_limit", json!(50)),
        ("redact", json!(["nick"])),
        ("paused", json!(true)),
    ] {
        assert_eq!(made.body[field], value, "{field}");
    }
    let entry = world.api.catalog.view().account("default", made.body["id"].as_str().unwrap()).unwrap();
    assert_eq!(entry.hmac_secret.as_deref(), Some(b"s3cret".as_slice()));
    assert!(!format!("{:?}", entry.record).contains("s3cret"), "the catalog holds it sealed");
}

#[tokio::test]
async fn every_wrong_setting_is_named_with_what_to_do() {
    let world = World::start();
    for (field, value, pointer, code) in [
        ("name", json!(" "), "/name", "missing_field"),
        ("name", json!(7), "/name", "wrong_type"),
        ("program", json!("generik"), "/program", "unknown_program"),
        ("currency", json!("XXZ"), "/currency", "invalid_currency"),
        ("timezone", json!("Mars"), "/timezone", "invalid_timezone"),
        ("lookback_days", json!(0), "/lookback_days", "out_of_range"),
        ("lookback_days", json!(731), "/lookback_days", "out_of_range"),
        ("lookback_days", json!(-1), "/lookback_days", "invalid_value"),
        ("waiting_days", json!(91), "/waiting_days", "out_of_range"),
        ("lifetime_days", json!(0), "/lifetime_days", "out_of_range"),
        ("max_count", json!(0), "/max_count", "out_of_range"),
        ("strict", json!("yes"), "/strict", "wrong_type"),
        ("goals", json!([{"name": "a b"}]), "/goals/0/name", "invalid_goal"),
        ("goals", json!([{"name": "clickid"}]), "/goals/0/name", "reserved_name"),
        ("goals", json!([{"name": "ftd"}]), "/goals/0/name", "reserved_name"),
        ("goals", json!([{"name": "x"}, {"name": "X"}]), "/goals/1/name", "repeated_name"),
        ("goals", json!([{"name": "x", "aliases": ["ftds"]}]), "/goals/0/aliases/0", "repeated_name"),
        ("goals", json!([{"name": "x", "dedup": "twice"}]), "/goals/0/dedup", "invalid_value"),
        ("goals", json!([{"name": "x", "repeat_window": "soon"}]), "/goals/0/repeat_window", "invalid_duration"),
        ("goals", json!([{"name": "x", "window": "1h"}]), "/goals/0/window", "unknown_field"),
        ("goals", json!([{"dedup": "once"}]), "/goals/0/name", "missing_field"),
        ("statuses", json!({"x": "aproved"}), "/statuses/x", "invalid_value"),
        ("statuses", json!({"x": {"goal": "nope"}}), "/statuses/x/goal", "unknown_goal"),
        ("default_goal", json!("nope"), "/default_goal", "unknown_goal"),
        ("click_param", json!("a=b"), "/click_param", "invalid_parameter_name"),
        ("dyn", json!("label"), "/dyn", "invalid_value"),
        ("allow", json!(["10.0.0.0/40"]), "/allow/0", "invalid_cidr"),
        ("hmac", json!({"algorithm": "sha256"}), "/hmac/in", "missing_field"),
        (
            "hmac",
            json!({"algorithm": "crc", "in": "query", "name": "s", "over": "query", "encoding": "hex", "secret": "x"}),
            "/hmac/algorithm",
            "invalid_value",
        ),
        (
            "hmac",
            json!({"algorithm": "md5", "in": "query", "name": "s", "over": "query", "encoding": "hex"}),
            "/hmac/secret",
            "missing_field",
        ),
        ("answer", json!("xml"), "/answer", "invalid_value"),
        ("rate_limit", json!(0), "/rate_limit", "out_of_range"),
        ("redact", json!(["clickid"]), "/redact/0", "reserved_name"),
        ("lookback_day", json!(5), "/lookback_day", "unknown_field"),
        ("token", json!("x"), "/token", "unknown_field"),
    ] {
        let mut body = json!({"name": "a", "program": "generic"});
        body[field] = value.clone();
        let reply = world.post("/v1/accounts", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{field} {value}: {}", reply.text);
        assert_eq!(reply.errors(), [(pointer, code)], "{field} {value}: {}", reply.text);
        assert_eq!(reply.code(), code);
    }
    let reply = world.post("/v1/accounts", json!({"program": "generik", "lookback_days": 0})).await;
    assert_eq!(
        reply.errors(),
        [("/lookback_days", "out_of_range"), ("/name", "missing_field"), ("/program", "unknown_program")]
    );
    assert!(reply.text.contains("did you mean `generic`?"), "{}", reply.text);
    assert_eq!(world.get("/v1/accounts").await.body["items"], json!([]));
}

#[tokio::test]
async fn accounts_are_patched_by_rfc_7396() {
    let world = World::start();
    let id = world.account("a").await;
    let path = format!("/v1/accounts/{id}");
    let hmac =
        json!({"algorithm": "sha1", "in": "query", "name": "sig", "over": "query", "encoding": "hex", "secret": "old"});
    let first = json!({"currency": "USD", "statuses": {"won": "approved", "lost": "rejected"}, "hmac": hmac, "goals": [{"name": "vip"}]});
    assert_eq!(world.patch(&path, first).await.status, StatusCode::OK);
    let second = json!({"currency": null, "statuses": {"WON": null, "open": "pending"}, "hmac": {"algorithm": "sha256"}, "paused": true});
    let reply = world.patch(&path, second).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.body["currency"], "EUR");
    assert_eq!(reply.body["statuses"], json!({"lost": "rejected", "open": "pending"}));
    assert_eq!(reply.body["hmac"]["algorithm"], "sha256");
    assert_eq!((&reply.body["paused"], &reply.body["name"]), (&json!(true), &json!("a")));
    assert_eq!(reply.body["goals"][0]["name"], "vip");
    let entry = world.api.catalog.view().account("default", &id).unwrap();
    assert_eq!(entry.hmac_secret.as_deref(), Some(b"old".as_slice()), "the secret stays where a patch has none");
    assert!(entry.settings.paused);

    let shown = world.get(&path).await.body;
    assert_eq!(world.patch(&path, shown.clone()).await.body, shown, "what is shown can be sent back");
    let wrong = world.patch(&path, json!({"id": "other", "name": null, "colour": 1})).await;
    assert_eq!(wrong.errors(), [("/colour", "unknown_field"), ("/id", "read_only_field")]);
    assert_eq!(world.patch(&path, json!({"name": null})).await.errors(), [("/name", "missing_field")]);
}

#[tokio::test]
async fn archived_leaves_lists_and_goes_on_working() {
    let world = World::start();
    let id = world.account("a").await;
    let reply = world.patch(&format!("/v1/accounts/{id}"), json!({"archived": true})).await;
    assert_eq!(reply.body["archived"], true);
    assert_eq!(world.get("/v1/accounts").await.body["items"], json!([]));
    assert_eq!(world.get("/v1/accounts?archived=true").await.body["items"][0]["id"], id);
    let token = reply.body["token"].as_str().unwrap();
    assert!(world.api.catalog.view().by_token(token, pipeline::clock::now()).is_some());
}

#[tokio::test]
async fn dyn_is_fixed_after_the_first_click() {
    let world = World::start();
    let id = world.account("a").await;
    let path = format!("/v1/accounts/{id}");
    assert_eq!(world.patch(&path, json!({"dyn": "campaign"})).await.status, StatusCode::OK);
    assert_eq!(world.patch(&path, json!({"dyn": "click"})).await.status, StatusCode::OK);
    world.post("/v1/clicks", json!({"clicks": [{"account": id, "id": "f1"}]})).await;
    let reply = world.patch(&path, json!({"dyn": "campaign"})).await;
    assert_eq!((reply.status, reply.code()), (StatusCode::CONFLICT, "dyn_fixed"), "{}", reply.text);
    assert_eq!(world.patch(&path, json!({"dyn": "click", "name": "b"})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn tokens_are_rotated_with_an_overlap() {
    let world = World::start();
    let id = world.account("a").await;
    let first = world.get(&format!("/v1/accounts/{id}")).await.body["token"].as_str().unwrap().to_owned();
    let reply = world.post(&format!("/v1/accounts/{id}/rotate-token"), json!({"overlap": "7d"})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let second = reply.body["token"].as_str().unwrap();
    let until: Time = reply.body["previous_valid_until"].as_str().unwrap().parse().unwrap();
    let view = world.api.catalog.view();
    for token in [first.as_str(), second] {
        assert_eq!(view.by_token(token, until.plus_ms(-1)).unwrap().record.id, id);
    }
    assert!(view.by_token(&first, until).is_none() && view.by_token(second, until).is_some());
    assert_eq!(
        world.get(&format!("/v1/accounts/{id}")).await.body["previous_valid_until"],
        reply.body["previous_valid_until"]
    );

    world.post(&format!("/v1/accounts/{id}/rotate-token"), json!({"overlap": "0s"})).await;
    assert!(world.api.catalog.view().by_token(second, pipeline::clock::now()).is_none());
    let bad = world.post(&format!("/v1/accounts/{id}/rotate-token"), json!({"overlap": "soon"})).await;
    assert_eq!(bad.errors(), [("/overlap", "invalid_duration")]);
}

#[tokio::test]
async fn postback_urls_are_ready_to_hand_over() {
    let world = World::start();
    let made =
        world.post("/v1/accounts", json!({"name": "a", "program": "income-access", "goals": [{"name": "vip"}]})).await;
    let (id, base) = (made.body["id"].as_str().unwrap(), made.body["postback_base"].as_str().unwrap());
    let reply = world.get(&format!("/v1/accounts/{id}/postback-urls")).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!((&reply.body["supported"], &reply.body["mode"]), (&json!(true), &json!("per_goal")));
    let urls = reply.body["urls"].as_array().unwrap();
    assert_eq!((&urls[0]["goal"], &urls[1]["goal"]), (&json!("signups"), &json!("firsttimedeposits")));
    assert!(urls.iter().any(|url| url["goal"] == "vip"));
    assert!(urls.iter().all(|url| url["url"].as_str().unwrap().starts_with(base)), "{}", reply.text);
    assert!(reply.body["message"].as_str().unwrap().contains(urls[0]["url"].as_str().unwrap()));

    world.post("/v1/programs", json!({"name": "Silent", "click_param": "x", "postback": false})).await;
    let made = world.post("/v1/accounts", json!({"name": "b", "program": "silent"})).await;
    let id = made.body["id"].as_str().unwrap();
    let reply = world.get(&format!("/v1/accounts/{id}/postback-urls")).await;
    assert_eq!(reply.body["supported"], false);
    assert!(reply.body["problem"].as_str().is_some_and(|problem| !problem.is_empty()), "{}", reply.text);
}
