//! Accounts, links, tokens and postback URLs through the API.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::Server;

#[tokio::test]
async fn an_account_is_made_read_changed_and_listed() {
    let server = Server::start();
    let settings = json!({
        "name": "Full", "program": "income-access", "currency": "SEK", "timezone": "Europe/Stockholm", "lookback_days": 30,
        "lifetime_days": 365, "waiting_days": 2, "strict": true, "max_count": 10,
        "goals": [{ "name": "kyc", "dedup": "once", "aliases": ["verified"] }, { "name": "deposits", "repeat_window": "1m" }],
        "statuses": { "2": "approved", "9": { "state": "pending", "goal": "firsttimedeposits" }, "visit": "ignore" },
        "default_goal": "firsttimedeposits", "click_param": "subid", "dyn": "campaign", "allow": ["198.51.100.0/24"],
        "hmac": { "algorithm": "sha1", "in": "query", "name": "sig", "over": "query", "encoding": "hex", "secret": "x" },
        "answer": "ok", "rate_limit": 500, "redact": ["iban"]
    });
    let account = server.create_account(settings.clone()).await;
    let path = format!("/v1/accounts/{}", account.id);
    let read = server.get(&path).await;
    for (name, value) in settings.as_object().unwrap() {
        match name.as_str() {
            "hmac" => assert!(read["hmac"]["secret"].is_null() && read["hmac"]["name"] == "sig"),
            "goals" | "statuses" => assert!(!read[name].is_null()),
            _ => assert_eq!(&read[name], value, "{name}"),
        }
    }
    // RFC 7396: null takes a setting back, what is absent stays.
    let changed = server.patch(&path, &json!({ "currency": null, "name": "Renamed", "strict": false })).await;
    assert_eq!(
        (&changed["name"], &changed["strict"], &changed["click_param"]),
        (&json!("Renamed"), &json!(false), &json!("subid"))
    );
    let list = server.get("/v1/accounts").await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["cursor"]), (1, &Value::Null));

    server.patch(&path, &json!({ "archived": true })).await;
    assert_eq!(server.get("/v1/accounts").await["items"], json!([]));
    assert_eq!(server.get(&path).await["archived"], true, "nothing is deleted");
}

#[tokio::test]
async fn wrong_settings_are_named_one_by_one() {
    let server = Server::start();
    let body = json!({ "name": "", "program": "no-such", "currency": "XXQ", "lookback_days": 0, "allow": ["10.0.0.0/40"], "timezone": "Mars/Base" });
    let problem = server.refused(Method::POST, "/v1/accounts", Some(&body), 400).await;
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    for name in ["name", "program", "currency", "lookback_days", "allow", "timezone"] {
        assert!(pointers.iter().any(|p| p.contains(name)), "{name} in {pointers:?}");
    }
    let unknown = server
        .refused(Method::POST, "/v1/accounts", Some(&json!({ "name": "x", "program": "generic", "nmae": 1 })), 400)
        .await;
    assert!(unknown.to_string().contains("nmae"), "{unknown}");
}

#[tokio::test]
async fn lists_go_on_with_a_cursor() {
    let server = Server::start();
    for _ in 0..5 {
        server.create_account(json!({})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/accounts?limit=2".to_owned();
    loop {
        let page = server.get(&path).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|a| a["id"].as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("/v1/accounts?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn postback_urls_are_ready_to_hand_to_the_operator() {
    let server = Server::start();
    let account = server.create_account(json!({ "goals": [{ "name": "kyc" }] })).await;
    let urls = server.get(&format!("/v1/accounts/{}/postback-urls", account.id)).await;
    let goals: Vec<_> = urls["urls"].as_array().unwrap().iter().map(|u| u["goal"].as_str().unwrap()).collect();
    assert_eq!(goals[..2], ["signups", "firsttimedeposits"]);
    assert!(goals.contains(&"kyc") && goals.contains(&"revshare"), "{goals:?}");
    for url in urls["urls"].as_array().unwrap() {
        let text = url["url"].as_str().unwrap();
        assert!(text.starts_with(&server.ingest) && text.contains(&account.token), "{text}");
        assert!(url["when"].is_string());
        assert!(urls["message"].as_str().unwrap().contains(text), "the message for the account manager has every URL");
    }
    // What is handed out works: the operator fills in its placeholders.
    let filled = urls["urls"][1]["url"].as_str().unwrap().replace("{click_id}", "some-dyn").replace("{amount}", "5");
    let filled = regex_free_fill(&filled);
    let answer = system_tests::Answer::of(server.http.get(filled)).await.expect(200);
    assert_eq!(answer.said(), "accepted", "{}", answer.text());
}

/// Fills what is left of `{placeholders}` with nothing.
fn regex_free_fill(url: &str) -> String {
    let mut out = String::new();
    let mut depth = 0;
    for c in url.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[tokio::test]
async fn a_program_with_one_global_url_and_one_without_postbacks() {
    let server = Server::start();
    let single = json!({ "id": "one-url", "name": "One URL", "click_param": "v", "single_url": true, "placeholders": { "click_id": "{v}", "status": "{st}" }, "statuses": { "1": "approved" } });
    server.post("/v1/programs", &single).await;
    let account = server.create_account(json!({ "program": "one-url" })).await;
    let urls = server.get(&format!("/v1/accounts/{}/postback-urls", account.id)).await;
    assert_eq!((urls["mode"].as_str(), urls["urls"].as_array().unwrap().len()), (Some("single"), 1));
    assert!(
        urls["urls"][0]["goal"].is_null() && urls["urls"][0]["url"].as_str().unwrap().contains("status={st}"),
        "{urls}"
    );

    let silent = json!({ "id": "silent", "name": "Silent", "click_param": "v", "postback": false });
    server.post("/v1/programs", &silent).await;
    let account = server.create_account(json!({ "program": "silent" })).await;
    let urls = server.get(&format!("/v1/accounts/{}/postback-urls", account.id)).await;
    assert_eq!(urls["supported"], false);
    assert!(urls["message"].as_str().unwrap().len() > 20, "what to do: {urls}");
}

#[tokio::test]
async fn a_rotated_token_overlaps_as_long_as_it_is_said() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let path = format!("/v1/accounts/{}/rotate-token", account.id);
    let rotated = server.post(&path, &json!({ "overlap": "7d" })).await;
    let mut new = account.clone();
    new.token = rotated["token"].as_str().unwrap().to_owned();
    assert_ne!(new.token, account.token);
    assert!(rotated["previous_valid_until"].is_string());
    server.accepted(&account, "dyn=a&signups=1").await;
    server.accepted(&new, "dyn=b&signups=1").await;

    let rotated = server.post(&path, &json!({ "overlap": "0s" })).await;
    server.postback(&new, "dyn=c&signups=1").await.expect(404);
    new.token = rotated["token"].as_str().unwrap().to_owned();
    server.accepted(&new, "dyn=c&signups=1").await;
}

#[tokio::test]
async fn links_are_listed_read_and_changed() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    assert_eq!(link.url, format!("{}/c/{}", server.ingest, link.id));
    let list = server.get(&format!("/v1/accounts/{}/links", account.id)).await;
    assert_eq!(list["items"][0]["id"], link.id);
    let path = format!("/v1/links/{}", link.id);
    server.patch(&path, &json!({ "destination": "https://other.example/", "name": "Other" })).await;
    assert_eq!(server.get(&path).await["name"], "Other");
    let click = server.follow_link(&link, "").await;
    assert_eq!(click.location.host_str(), Some("other.example"));
    server.refused(Method::GET, "/v1/links/nosuch", None, 404).await;
}

#[tokio::test]
async fn health_says_what_is_wrong_since_when_and_what_to_do() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let path = format!("/v1/accounts/{}/health?after=latest", account.id);
    assert_eq!(server.get(&path).await["status"], "new");
    for _ in 0..24 {
        let click = server.follow_link(&link, "").await;
        server.postback(&account, &format!("clickId={}&signups=1", click.id)).await.expect(200);
    }
    let health = server.get(&path).await;
    assert_eq!((&health["status"], &health["problems"]), (&json!("healthy"), &json!([])), "{health}");
    assert_eq!(health["looked_at"]["hits"], 24);

    let mut broken = Vec::new();
    for _ in 0..3 {
        let answer = server.postback(&account, "clickId=%7Bclick_id%7D&signups=1").await.expect(200).json();
        broken.insert(0, answer["hit"].clone());
    }
    let health = server.get(&path).await;
    let problem = &health["problems"][0];
    assert_eq!((&health["status"], &problem["code"]), (&json!("failing"), &json!("unreplaced_macro")), "{health}");
    assert_eq!((&problem["examples"], &problem["usual_percent"]), (&json!(broken), &json!(0)), "{health}");
    assert!(problem["fix"].as_str().unwrap().contains("clickId=%7Bclick_id%7D"), "{health}");
    assert_eq!(health["since"], problem["since"]);
    server.refused(Method::GET, "/v1/accounts/acc_none/health", None, 404).await;
}
