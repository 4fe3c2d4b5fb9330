use std::{
    sync::{PoisonError, mpsc},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use schemas::bounds::API_READERS;
use serde_json::{Value, json};

use super::world::{ADMIN, Reply, World};
use crate::{api::ask_within, report::QueryError};

async fn with_key(world: &World, key: &str, path: &str, body: Value) -> Reply {
    let mut request = World::request(ADMIN, Method::POST, path, Some(&body));
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    world.ask(request).await
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_answer_again() {
    let world = World::start();
    let body = json!({"name": "a", "program": "generic"});
    let first = with_key(&world, "k-1", "/v1/accounts", body.clone()).await;
    let again = with_key(&world, "k-1", "/v1/accounts", body.clone()).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED), "{}", again.text);
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(world.get("/v1/accounts").await.body["items"].as_array().unwrap().len(), 1);

    let other = with_key(&world, "k-1", "/v1/accounts", json!({"name": "b", "program": "generic"})).await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"));
    let fresh = with_key(&world, "k-2", "/v1/accounts", body).await;
    assert_ne!(fresh.body["id"], first.body["id"]);
    let bad = with_key(&world, &"x".repeat(256), "/v1/accounts", json!({})).await;
    assert_eq!(bad.code(), "invalid_idempotency_key");
}

#[tokio::test]
async fn a_failed_call_leaves_its_idempotency_key_free() {
    let world = World::start();
    let wrong = with_key(&world, "k", "/v1/accounts", json!({"name": "a"})).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let right = with_key(&world, "k", "/v1/accounts", json!({"name": "a", "program": "generic"})).await;
    assert_eq!(right.status, StatusCode::CREATED, "{}", right.text);
}

#[tokio::test]
async fn a_repeat_after_a_crash_finds_what_it_made() {
    let world = World::start();
    let body = json!({"name": "a", "program": "generic"});
    let idempotent = crate::api::idempotency::Idempotent("the hashed key".to_owned());
    let id = crate::api::writes::new_id("acc_", Some(&idempotent));
    let input = |name: &str| serde_json::from_value(json!({"name": name, "program": "generic"})).unwrap();
    let caller = crate::api::auth::Caller {
        tenant: "default".to_owned(),
        scope: schemas::catalog::Scope::Admin,
        key: "configured".to_owned(),
    };
    // The account was made, and the process ended before the answer was kept.
    for name in ["a", "a"] {
        let made = crate::api::accounts::create_account(&world.api, &caller, Some(&idempotent), input(name)).await;
        assert_eq!(made.unwrap(), id);
    }
    assert_eq!(world.get("/v1/accounts").await.body["items"].as_array().unwrap().len(), 1, "{body}");
}

#[tokio::test]
async fn a_key_that_is_shown_once_is_kept_sealed() {
    let world = World::start();
    let body = json!({"name": "k", "scope": "read"});
    let first = with_key(&world, "k", "/v1/keys", body.clone()).await;
    let again = with_key(&world, "k", "/v1/keys", body).await;
    assert_eq!(first.body["key"], again.body["key"]);
    assert_eq!(world.get_as(first.body["key"].as_str().unwrap(), "/v1/accounts").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_write_that_was_overtaken_is_made_again_and_then_given_up() {
    let world = World::start();
    let id = world.account("a").await;
    let stale = |n| world.decisions.lock().unwrap_or_else(PoisonError::into_inner).stale = n;
    stale(3);
    let reply = world.patch(&format!("/v1/accounts/{id}"), json!({"name": "b"})).await;
    assert_eq!((reply.status, &reply.body["name"]), (StatusCode::OK, &json!("b")));
    stale(1_000);
    let reply = world.patch(&format!("/v1/accounts/{id}"), json!({"name": "c"})).await;
    assert_eq!((reply.status, reply.code()), (StatusCode::CONFLICT, "conflict"));
    stale(0);
    assert_eq!(world.get(&format!("/v1/accounts/{id}")).await.body["name"], "b");
}

#[tokio::test]
async fn patches_of_different_fields_at_once_both_hold() {
    let world = World::start();
    let id = world.account("a").await;
    let path = format!("/v1/accounts/{id}");
    let (one, two, three) = tokio::join!(
        world.patch(&path, json!({"name": "b"})),
        world.patch(&path, json!({"paused": true})),
        world.patch(&path, json!({"statuses": {"won": "approved"}})),
    );
    assert!([one.status, two.status, three.status].iter().all(StatusCode::is_success));
    let shown = world.get(&path).await.body;
    assert_eq!(
        (&shown["name"], &shown["paused"], &shown["statuses"]),
        (&json!("b"), &json!(true), &json!({"won": "approved"}))
    );
}

#[tokio::test]
async fn after_waits_until_an_event_is_visible_and_gives_up_in_time() {
    let world = World::start();
    let account = world.account("a").await;
    let path = format!("/v1/clicks?account={account}&id=x");
    let late = world.get(&format!("{path}&after=0-99&wait=20ms")).await;
    assert_eq!((late.status, late.code()), (StatusCode::GATEWAY_TIMEOUT, "not_yet_visible"));
    let made = world.post("/v1/clicks", json!({"clicks": [{"account": account, "id": "x"}]})).await;
    let receipt = made.body["receipt"].as_str().unwrap();
    for after in [receipt.to_owned(), "latest".to_owned(), format!("{receipt}&after=latest")] {
        let seen = world.get(&format!("{path}&after={after}&wait=10s")).await;
        assert_eq!(seen.body["items"].as_array().map(Vec::len), Some(1), "{after}: {}", seen.text);
    }
    for (query, pointer, code) in [
        ("after=x", "?after", "invalid_receipt"),
        ("after=3-0", "?after", "invalid_receipt"),
        ("after=latest&wait=soon", "?wait", "invalid_duration"),
        ("after=latest&wait=1h", "?wait", "out_of_range"),
    ] {
        assert_eq!(world.get(&format!("{path}&{query}")).await.errors(), [(pointer, code)], "{query}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_have_to_be_json() {
    let world = World::start();
    let send = |kind: &'static str, body: String| {
        let request = Request::post("/v1/accounts").header("authorization", format!("Bearer {ADMIN}"));
        world.ask(request.header("content-type", kind).body(Body::from(body)).unwrap())
    };
    let large = send("application/json", format!("{{\"name\":\"{}\"}}", "x".repeat(2 * 1024 * 1024))).await;
    assert_eq!((large.status, large.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    let form = send("application/x-www-form-urlencoded", "name=a".to_owned()).await;
    assert_eq!((form.status, form.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"));
    let broken = send("application/json", "{\"name\":".to_owned()).await;
    assert_eq!((broken.status, broken.code()), (StatusCode::BAD_REQUEST, "malformed_json"));
    let list = send("application/json; charset=utf-8", "[]".to_owned()).await;
    assert_eq!((list.status, list.code()), (StatusCode::BAD_REQUEST, "wrong_type"));
}

#[tokio::test]
async fn what_cannot_be_made_durable_is_503_with_retry_after() {
    let problem = crate::api::problem::Problem::from(pipeline::Unavailable::NotDurable("the disk is full".to_owned()));
    let response = axum::response::IntoResponse::into_response(problem);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up_and_never_runs_beside_too_many_others() {
    let world = World::start();
    let limit = Duration::from_millis(50);
    let mut holding = Vec::new();
    for _ in 0..API_READERS {
        let (release, held) = mpsc::channel::<()>();
        let slow = ask_within(&world.api, limit, move |_| Ok(held.recv().is_err()));
        let problem = slow.await.unwrap_err();
        assert_eq!(problem.code, "timeout");
        holding.push(release);
    }
    // All readers are still at it, though nobody waits for them.
    let problem = ask_within(&world.api, limit, |_| Ok(())).await.unwrap_err();
    let response = axum::response::IntoResponse::into_response(problem);
    assert_eq!(
        (response.status(), response.headers().contains_key("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    drop(holding);
    ask_within(&world.api, Duration::from_secs(20), |_| Ok(())).await.unwrap();
    let problem = ask_within::<()>(&world.api, limit, |_| Err(QueryError::TooLong)).await.unwrap_err();
    assert_eq!(problem.code, "timeout");
}
