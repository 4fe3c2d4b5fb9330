//! `/post-back/{token}`: what is accepted, and how each mistake in a postback is answered.

use super::harness::{ACCOUNT, Edge, TENANT, account, header, path, time, token};
use crate::IngestConfig;
use schemas::{
    ClickId, EventId, Reason,
    catalog::Body,
    event::Name,
    goal::Dedup,
    id::{alias_shard, new_token},
};
use serde_json::{Value, json};

async fn with(fields: Value) -> Edge {
    Edge::with(fields, IngestConfig::default()).await
}

#[tokio::test]
async fn durable_and_understood() {
    let edge = Edge::start().await;
    let click = ClickId::new(time("2026-11-22T08:00:00Z"), 4711, 99);
    let answer = edge.get(&format!("clickId={click}&signups=1")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert_eq!(header(&answer, "x-clickback-receipt"), "0-0");
    let draft = edge.drafts().remove(0);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"status": "accepted", "hit": draft.id, "receipt": "0-0"}));
    assert_eq!((draft.tenant.as_str(), draft.shard, draft.id.shard()), (TENANT, 4711, 4711));

    let hit = edge.hit();
    assert_eq!((hit.account.as_str(), hit.program.as_str()), (ACCOUNT, "generic"));
    assert_eq!(hit.reading.name, Some(Name::Click(click)));
    assert_eq!(hit.reading.goals[0].goal, "signups");
    assert_eq!(hit.raw.method, "GET");
    assert_eq!(hit.raw.query, format!("clickId={click}&signups=1"));
    assert_eq!(hit.raw.remote.as_deref(), Some("127.0.0.0/24"), "the address is cut");
    assert_eq!((hit.settings.default_goal.as_str(), hit.settings.default_dedup), ("sales", Dedup::PerTransaction));
    assert!(!serde_json::to_string(&hit).unwrap().contains(&token(1)), "never the token");
}

#[tokio::test]
async fn durable_and_shown_but_no_conversion_can_come_of_it() {
    let edge = Edge::start().await;
    let answer = edge.get("clickId={clickid}&signups=1").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "x-clickback-receipt")), (200, "0-0"));
    let body = answer.json::<Value>().await.unwrap();
    assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("unreplaced_macro")));
    assert!(body["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
    assert!(body["hit"].as_str().unwrap().parse::<EventId>().is_ok());
    assert_eq!(edge.hit().reading.reject, Some(Reason::UnreplacedMacro));
}

#[tokio::test]
async fn a_strict_account_gets_400_with_the_same_body() {
    let edge = with(json!({"strict": true, "answer": "ok"})).await;
    let answer = edge.get("signups=1").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "x-clickback-receipt")), (400, "0-0"));
    let body = answer.json::<Value>().await.unwrap();
    assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("missing_click")));
    assert_eq!(body["receipt"], "0-0");
    assert_eq!(edge.get("dyn=a&signups=1").await.status(), 200);
}

#[tokio::test]
async fn an_unknown_token_is_404() {
    let edge = Edge::start().await;
    let garbage = ["x", "0123456789abcdefghjkmnpqrstvwxyz", "%00", "..%2f..", "a%20b"].map(str::to_owned);
    for unknown in garbage.into_iter().chain([new_token(&[9; 28]), token(1) + "x", token(1)[1..].to_owned()]) {
        for method in ["GET", "HEAD", "POST"] {
            let answer = edge.request(method, &format!("/post-back/{unknown}?dyn=a&signups=1")).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{method} {unknown}");
        }
    }
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn what_the_catalog_takes_works_at_once() {
    let edge = Edge::start().await;
    let other = account(edge.catalog.sealer(), "acc_two", &token(2), json!({}));
    let path = format!("/post-back/{}?dyn=a&signups=1", token(2));
    assert_eq!(edge.request("GET", &path).send().await.unwrap().status(), 404);
    edge.put(0, Body::Account(Box::new(other)));
    assert_eq!(edge.request("GET", &path).send().await.unwrap().status(), 200);
    assert_eq!(edge.hit().account, "acc_two");
}

#[tokio::test]
async fn a_former_token_works_until_its_end() {
    let edge = Edge::start().await;
    let sealer = edge.catalog.sealer();
    let former = [(token(3), "2999-01-01T00:00:00Z"), (token(4), "2026-01-01T00:00:00Z")];
    let former = former.map(|(token, until)| json!({"token": sealer.seal(&token), "valid_until": until}));
    edge.put(1, Body::Account(Box::new(account(sealer, ACCOUNT, &token(2), json!({"previous_tokens": former})))));
    for (n, status) in [(2, 200), (3, 200), (4, 404), (1, 404)] {
        let path = format!("/post-back/{}?dyn=a&signups=1", token(n));
        assert_eq!(edge.request("GET", &path).send().await.unwrap().status(), status, "token {n}");
    }
}

#[tokio::test]
async fn head_is_200_and_counts_nothing() {
    let edge = Edge::start().await;
    let answer = edge.request("HEAD", &format!("{}?dyn=a&signups=1", path())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("x-clickback-receipt"));
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn parameters_come_in_query_form_or_flat_json_and_the_query_wins() {
    let edge = Edge::start().await;
    edge.post("dyn=query", Some("application/x-www-form-urlencoded"), "dyn=form&signups=1").await;
    edge.post("", Some("application/json; charset=utf-8"), r#"{"dyn":"json","signups":1}"#).await;
    edge.post("", None, "dyn=bare&signups=1").await;
    edge.post("", None, r#" {"dyn":"bare-json","signups":true}"#).await;
    edge.request("GET", &path())
        .header("content-type", "application/json")
        .body(r#"{"dyn":"get","signups":1}"#)
        .send()
        .await
        .unwrap();
    let names: Vec<_> = edge.hits().into_iter().map(|hit| hit.reading.dyn_.unwrap_or_default()).collect();
    assert_eq!(names, ["query", "json", "bare", "bare-json", "get"]);
    assert!(edge.hits().iter().all(|hit| hit.reading.reject.is_none()));
    assert_eq!(edge.hits()[1].raw.body.as_deref(), Some(r#"{"dyn":"json","signups":1}"#));
}

#[tokio::test]
async fn a_json_array_is_so_many_hits_and_one_answer() {
    let edge = Edge::start().await;
    let body = r#"[{"dyn":"a","signups":1},{"signups":1},{"dyn":"c","signups":1}]"#;
    let answer = edge.post("", Some("application/json"), body).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "x-clickback-receipt")), (200, "0-2"));
    let body = answer.json::<Value>().await.unwrap();
    assert_eq!((&body["status"], &body["receipt"]), (&json!("accepted"), &json!("0-2")));
    let told: Vec<_> = body["hits"].as_array().unwrap().iter().map(|hit| (&hit["status"], &hit["receipt"])).collect();
    let said = |status: &str, receipt: &str| (json!(status), json!(receipt));
    let expected = [said("accepted", "0-0"), said("rejected", "0-1"), said("accepted", "0-2")];
    assert_eq!(told, expected.iter().map(|(status, receipt)| (status, receipt)).collect::<Vec<_>>());
    assert_eq!(body["hits"][1]["reason"], "missing_click");
    let stored: Vec<_> = edge.hits().into_iter().map(|hit| hit.raw.body.unwrap()).collect();
    assert_eq!(stored[2], r#"{"dyn":"c","signups":1}"#, "each hit is stored as its own");
    assert_eq!(edge.drafts()[2].shard, alias_shard(TENANT, ACCOUNT, "c"));
}

#[tokio::test]
async fn an_array_of_one_is_an_array_and_a_long_one_is_one_rejected_hit() {
    let edge = with(json!({"strict": true})).await;
    let answer = edge.post("", Some("application/json"), r#"[{"signups":1}]"#).await;
    assert_eq!(answer.status(), 400, "none of it was accepted");
    assert_eq!(answer.json::<Value>().await.unwrap()["hits"].as_array().map(Vec::len), Some(1));
    let long = format!("[{}]", vec![r#"{"dyn":"a","signups":1}"#; 101].join(","));
    let body = edge.post("", Some("application/json"), long).await.json::<Value>().await.unwrap();
    assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("malformed_body")));
    assert_eq!(edge.hits().len(), 2);
}

#[tokio::test]
async fn answers_look_as_the_account_or_the_sender_wants_them() {
    for (mode, status, kind, body) in [
        ("ok", 200, "text/plain; charset=utf-8", &b"OK"[..]),
        ("empty", 204, "", b""),
        ("gif", 200, "image/gif", b"GIF89a\x01\x00\x01\x00"),
    ] {
        let edge = with(json!({ "answer": mode })).await;
        for query in ["dyn=a&signups=1", "signups=1"] {
            let answer = edge.get(query).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (status, kind), "{mode}");
            assert!(header(&answer, "x-clickback-receipt").starts_with("0-"));
            assert!(answer.bytes().await.unwrap().starts_with(body));
        }
    }
    let edge = Edge::start().await;
    let pixel = edge.request("GET", &format!("{}?dyn=a&signups=1", path())).header("accept", "image/*");
    let answer = pixel.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "image/gif"));
    assert!(answer.headers().contains_key("x-clickback-receipt"));
}

#[tokio::test]
async fn a_paused_account_says_so() {
    let edge = with(json!({"paused": true, "allow": ["192.0.2.0/24"]})).await;
    let body = edge.get("signups=1").await.json::<Value>().await.unwrap();
    assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("account_paused")));
    assert_eq!(edge.hit().reading.reject, Some(Reason::AccountPaused));
}

#[tokio::test]
async fn named_values_are_hashed_before_anything_is_durable() {
    let edge = with(json!({"redact": ["tel"]})).await;
    edge.post("dyn=a&ip=203.0.113.77", Some("application/json"), r#"{"signups":1,"tel":"+4930123"}"#).await;
    edge.get("dyn=a&signups=1&ip=203.0.113.77").await;
    let stored = serde_json::to_string(&edge.hits()).unwrap();
    assert!(!stored.contains("203.0.113.77") && !stored.contains("4930123"), "{stored}");
    let [first, second] = [&edge.hits()[0].raw.query, &edge.hits()[1].raw.query];
    assert_eq!(first.split("ip=").last(), second.split("ip=").last(), "the same value has the same hash");
}

#[tokio::test]
async fn a_hit_without_a_name_lies_anywhere() {
    let edge = Edge::start().await;
    for _ in 0..64 {
        edge.get("signups=1").await;
    }
    let shards: std::collections::HashSet<u16> = edge.drafts().iter().map(|draft| draft.shard).collect();
    assert!(shards.len() > 32);
}
