use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use schemas::catalog::Scope;
use serde_json::json;

use super::world::{ADMIN, World};

#[tokio::test]
async fn keys_are_created_shown_once_listed_and_deleted() {
    let world = World::start();
    let made = world.post("/v1/keys", json!({"name": "reader", "scope": "read"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let (id, key) = (made.body["id"].as_str().unwrap(), made.body["key"].as_str().unwrap());
    assert!(key.starts_with(&format!("cbk_{id}_")), "{key}");
    assert_eq!(world.get_as(key, "/v1/accounts").await.status, StatusCode::OK);

    let list = world.get("/v1/keys").await;
    assert_eq!(list.body["items"][0]["name"], "reader");
    assert!(!list.text.contains(key) && !list.text.contains("hash"), "{}", list.text);

    let gone = world.ask(World::request(ADMIN, Method::DELETE, &format!("/v1/keys/{id}"), None)).await;
    assert_eq!((gone.status, &gone.body["revoked"]), (StatusCode::OK, &json!(true)));
    assert_eq!(world.get_as(key, "/v1/accounts").await.code(), "invalid_key");
    assert_eq!(world.get("/v1/keys").await.body["items"], json!([]));
    assert_eq!(world.get("/v1/keys?revoked=true").await.body["items"][0]["id"], id);
    let unknown = world.ask(World::request(ADMIN, Method::DELETE, "/v1/keys/nope", None)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_answered() {
    let world = World::start();
    let bare = world.ask(Request::builder().uri("/v1/accounts").body(Body::empty()).unwrap()).await;
    assert_eq!((bare.status, bare.code()), (StatusCode::UNAUTHORIZED, "missing_key"));
    assert_eq!(bare.headers["www-authenticate"], "Bearer");
    assert_eq!(bare.headers["content-type"], "application/problem+json");
    for key in ["", "cbk_x_y", &ADMIN[1..]] {
        assert_eq!(world.get_as(key, "/v1/accounts").await.code(), "invalid_key", "{key}");
    }
}

#[tokio::test]
async fn scopes_read_write_admin() {
    let world = World::start();
    let account = world.account("a").await;
    let read = world.key("default", Scope::Read).await;
    let write = world.key("default", Scope::Write).await;
    let token = world.get(&format!("/v1/accounts/{account}")).await.body["token"].as_str().unwrap().to_owned();

    for path in ["/v1/accounts".to_owned(), format!("/v1/accounts/{account}")] {
        let seen = world.get_as(&read, &path).await;
        assert!(seen.status == StatusCode::OK && !seen.text.contains(&token), "{}", seen.text);
        assert!(world.get_as(&write, &path).await.text.contains(&token));
    }
    let urls = world.get_as(&read, &format!("/v1/accounts/{account}/postback-urls")).await;
    assert_eq!((urls.status, urls.code()), (StatusCode::FORBIDDEN, "insufficient_scope"));

    for (key, method, path) in [
        (&read, Method::POST, "/v1/accounts".to_owned()),
        (&read, Method::PATCH, format!("/v1/accounts/{account}")),
        (&read, Method::POST, format!("/v1/accounts/{account}/links")),
        (&read, Method::POST, "/v1/clicks".to_owned()),
        (&read, Method::POST, "/v1/conversions/x/adjust".to_owned()),
        (&read, Method::POST, format!("/v1/accounts/{account}/reprocess")),
        (&write, Method::POST, format!("/v1/accounts/{account}/rotate-token")),
        (&write, Method::POST, "/v1/programs".to_owned()),
        (&write, Method::PATCH, "/v1/programs/generic".to_owned()),
        (&write, Method::POST, "/v1/keys".to_owned()),
        (&write, Method::GET, "/v1/keys".to_owned()),
        (&write, Method::DELETE, "/v1/keys/x".to_owned()),
    ] {
        let body = (method != Method::GET).then(|| json!({}));
        let reply = world.ask(World::request(key, method.clone(), &path, body.as_ref())).await;
        assert_eq!((reply.status, reply.code()), (StatusCode::FORBIDDEN, "insufficient_scope"), "{method} {path}");
    }
    let made = world.post_as(&write, "/v1/accounts", json!({"name": "b", "program": "generic"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_key_sees_its_tenant_only() {
    let world = World::start();
    let account = world.account("ours").await;
    let link = world
        .post(&format!("/v1/accounts/{account}/links"), json!({"name": "l", "destination": "https://c.example/"}))
        .await;
    let link = link.body["id"].as_str().unwrap();
    world.post("/v1/programs", json!({"name": "Own one", "click_param": "x"})).await;
    let other = world.key("other", Scope::Admin).await;

    for path in ["/v1/accounts", "/v1/keys"] {
        let seen = world.get_as(&other, path).await;
        assert!(!seen.text.contains(&account) && !seen.text.contains("configured"), "{}", seen.text);
    }
    assert_eq!(world.get_as(&other, "/v1/programs?q=own-one").await.body["items"], json!([]));
    for path in [
        format!("/v1/accounts/{account}"),
        format!("/v1/accounts/{account}/links"),
        format!("/v1/accounts/{account}/postback-urls"),
        format!("/v1/accounts/{account}/reprocess/x"),
        format!("/v1/links/{link}"),
        format!("/v1/clicks?account={account}&id=x"),
        "/v1/programs/own-one".to_owned(),
    ] {
        assert_eq!(world.get_as(&other, &path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in [format!("/v1/accounts/{account}"), format!("/v1/links/{link}")] {
        let reply = world.ask(World::request(&other, Method::PATCH, &path, Some(&json!({"name": "theirs"})))).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
    }
    for (path, body) in [
        (format!("/v1/accounts/{account}/rotate-token"), json!({})),
        (format!("/v1/accounts/{account}/links"), json!({"name": "l", "destination": "https://c.example/"})),
        (format!("/v1/accounts/{account}/reprocess"), json!({"from": "2026-01-01", "to": "2026-01-02"})),
    ] {
        assert_eq!(world.post_as(&other, &path, body).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let import = json!({"clicks": [{"account": account, "id": "f1"}, {"link": link, "id": "f2"}]});
    let import = world.post_as(&other, "/v1/clicks", import).await;
    assert_eq!(import.body["accepted"], 0);
    assert_eq!(import.body["rejected"][0]["reason"], "unknown_account");
    assert_eq!(import.body["rejected"][1]["reason"], "unknown_link");
    let check = world.post_as(&other, "/v1/check", json!({"url": "clickId=1&signups=1", "account": account})).await;
    assert_eq!(check.errors(), [("/account", "unknown_account")]);
    assert_eq!(world.get(&format!("/v1/accounts/{account}")).await.body["name"], "ours");
}
