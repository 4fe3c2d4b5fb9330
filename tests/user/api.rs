//! What holds for every call of the API: keys, scopes, tenants, errors, idempotency, description, health.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Server};

fn key(server: &Server, tenant: &str, scope: &str) -> String {
    server.new_key(tenant, scope)
}

#[tokio::test]
async fn without_a_key_or_with_a_wrong_one_it_is_401() {
    let server = Server::start();
    for path in ["/v1/accounts", "/v1/reports/conversions", "/v1/programs"] {
        Answer::of(server.http.get(format!("{}{path}", server.api))).await.expect(401);
        server.call_as("cbk_wrong_key", Method::GET, path, None).await.expect(401);
    }
    Answer::of(server.http.get(format!("{}/v1/accounts", server.ingest)).bearer_auth(&server.key)).await.expect(404);
}

#[tokio::test]
async fn scopes_read_write_admin() {
    let server = Server::start();
    let (account, _) = server.account_with_link(json!({})).await;
    let (read, write) = (key(&server, "default", "read"), key(&server, "default", "write"));
    let body = json!({ "name": "x", "program": "generic" });
    server.call_as(&read, Method::GET, "/v1/reports/conversions", None).await.expect(200);
    server.call_as(&read, Method::POST, "/v1/accounts", Some(&body)).await.expect(403);
    server.call_as(&write, Method::POST, "/v1/accounts", Some(&body)).await.expect(201);
    let rotate = format!("/v1/accounts/{}/rotate-token", account.id);
    server.call_as(&write, Method::POST, &rotate, Some(&json!({ "overlap": "1d" }))).await.expect(403);
    server.call_as(&write, Method::POST, "/v1/keys", Some(&json!({ "name": "x", "scope": "read" }))).await.expect(403);
    let program = json!({ "id": "p1", "name": "P", "click_param": "c" });
    server.call_as(&write, Method::POST, "/v1/programs", Some(&program)).await.expect(403);
    // Whoever may only read sees no token, also not within a URL.
    for path in [
        format!("/v1/accounts/{}", account.id),
        "/v1/accounts".to_owned(),
        format!("/v1/accounts/{}/postback-urls", account.id),
    ] {
        let answer = server.call_as(&read, Method::GET, &path, None).await;
        assert!(!answer.text().contains(&account.token), "{path}");
    }
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let server = Server::start();
    let made = server
        .call(Method::POST, "/v1/keys", Some(&json!({ "name": "dashboard", "scope": "read" })))
        .await
        .expect(201)
        .json();
    let secret = made["key"].as_str().unwrap();
    server.call_as(secret, Method::GET, "/v1/accounts", None).await.expect(200);
    let list = server.get("/v1/keys").await;
    assert!(list["items"].as_array().unwrap().iter().any(|k| k["id"] == made["id"] && k["scope"] == "read"));
    assert!(!list.to_string().contains(secret));
    let gone = server.call(Method::DELETE, &format!("/v1/keys/{}", made["id"].as_str().unwrap()), None).await;
    assert!((200..300).contains(&gone.status));
    server.call_as(secret, Method::GET, "/v1/accounts", None).await.expect(401);
}

#[tokio::test]
async fn a_key_sees_its_tenant_only() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let hit = server.accepted(&account, &format!("clickId={}&signups=1", click.id)).await;
    let theirs = key(&server, "other", "admin");
    let get = async |path: String| server.call_as(&theirs, Method::GET, &path, None).await;
    for path in [
        format!("/v1/accounts/{}", account.id),
        format!("/v1/links/{}", link.id),
        format!("/v1/clicks/{}", click.id),
        format!("/v1/hits/{}?after={}&wait=10s", hit.hit(), hit.receipt()),
        format!("/v1/accounts/{}/postback-urls", account.id),
    ] {
        assert_eq!(get(path.clone()).await.status, 404, "{path}");
    }
    assert_eq!(get("/v1/accounts".to_owned()).await.expect(200).json()["items"], json!([]));
    for report in ["conversions", "postbacks"] {
        let report = get(format!("/v1/reports/{report}?after=latest&wait=10s")).await.expect(200).json();
        assert_eq!(report["rows"], json!([]), "{report}");
    }
    let body = json!({ "name": "x" });
    server.call_as(&theirs, Method::PATCH, &format!("/v1/accounts/{}", account.id), Some(&body)).await.expect(404);
}

#[tokio::test]
async fn unknown_parameters_and_fields_are_errors_that_name_them() {
    let server = Server::start();
    let problem = server.refused(Method::GET, "/v1/reports/conversions?gruop_by=day", None, 400).await;
    assert_eq!(problem["errors"][0]["code"], "unknown_parameter", "{problem}");
    assert!(problem["errors"][0]["pointer"].as_str().unwrap().contains("gruop_by"), "{problem}");
    for path in [
        "/v1/reports/conversions?group_by=colour",
        "/v1/reports/conversions?tz=Mars/Base",
        "/v1/reports/conversions?from=yesterday",
        "/v1/reports/conversions?basis=x",
        "/v1/reports/postbacks?outcome=odd",
    ] {
        server.refused(Method::GET, path, None, 400).await;
    }
    server.refused(Method::GET, "/v1/nosuch", None, 404).await;
    let answer = Answer::of(
        server
            .http
            .post(format!("{}/v1/accounts", server.api))
            .bearer_auth(&server.key)
            .header("content-type", "application/json")
            .body("{"),
    )
    .await
    .expect(400);
    assert!(answer.json()["code"].is_string());
    server.refused(Method::DELETE, "/v1/accounts", None, 405).await;
}

#[tokio::test]
async fn an_idempotency_key_makes_a_post_happen_once() {
    let server = Server::start();
    let send = async |key: &str, body: &Value| {
        let request = server.http.post(format!("{}/v1/accounts", server.api)).bearer_auth(&server.key);
        Answer::of(request.header("Idempotency-Key", key).json(body)).await
    };
    let body = json!({ "name": "Once", "program": "generic" });
    let first = send("k1", &body).await.expect(201);
    let again = send("k1", &body).await.expect(201);
    assert_eq!(first.json(), again.json());
    assert_eq!(server.get("/v1/accounts").await["items"].as_array().unwrap().len(), 1);
    let other = send("k1", &json!({ "name": "Other", "program": "generic" })).await;
    assert!((400..500).contains(&other.status), "the key was used for another request: {}", other.status);
    assert_ne!(send("k2", &body).await.expect(201).json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn openapi_describes_every_call() {
    let server = Server::start();
    let description = Answer::of(server.http.get(format!("{}/openapi.json", server.api)).bearer_auth(&server.key))
        .await
        .expect(200)
        .json();
    let paths = description["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/v1/accounts", &["get", "post"][..]),
        ("/v1/accounts/{id}", &["get", "patch"]),
        ("/v1/accounts/{id}/postback-urls", &["get"]),
        ("/v1/accounts/{id}/rotate-token", &["post"]),
        ("/v1/accounts/{id}/links", &["get", "post"]),
        ("/v1/links/{id}", &["get", "patch"]),
        ("/v1/programs", &["get", "post"]),
        ("/v1/programs/{id}", &["get", "patch"]),
        ("/v1/clicks", &["get", "post"]),
        ("/v1/clicks/{id}", &["get"]),
        ("/v1/conversions", &["get"]),
        ("/v1/conversions/{id}", &["get"]),
        ("/v1/conversions/{id}/adjust", &["post"]),
        ("/v1/reports/conversions", &["get"]),
        ("/v1/reports/postbacks", &["get"]),
        ("/v1/hits/{id}", &["get"]),
        ("/v1/accounts/{id}/reprocess", &["post"]),
        ("/v1/accounts/{id}/reprocess/{job}", &["get"]),
        ("/v1/keys", &["get", "post"]),
        ("/v1/keys/{id}", &["delete"]),
        ("/v1/check", &["post"]),
    ] {
        let parts: Vec<bool> = path.split('/').map(|p| p.starts_with('{')).collect();
        let plain =
            |p: &str| p.split('/').zip(&parts).map(|(p, v)| if *v { "{}" } else { p }).collect::<Vec<_>>().join("/");
        let found = paths.iter().find(|(p, _)| p.split('/').count() == parts.len() && plain(p) == plain(path));
        let (_, described) = found.unwrap_or_else(|| panic!("{path} is not described"));
        for method in methods {
            assert!(described.get(method).is_some(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn check_explains_with_the_accounts_settings() {
    let server = Server::start();
    let account =
        server.create_account(json!({ "statuses": { "7": { "goal": "kyc" } }, "goals": [{ "name": "kyc" }] })).await;
    let url = format!("{}/post-back/{}?clickId=%7Bid%7D&status=7", server.ingest, account.token);
    let said = server.post("/v1/check", &json!({ "url": url, "account": account.id })).await;
    assert_eq!((&said["would"], &said["reason"]), (&json!("rejected"), &json!("unreplaced_macro")), "{said}");
    let said = server.post("/v1/check", &json!({ "url": url.replace("%7Bid%7D", "abc"), "account": account.id })).await;
    assert_eq!((&said["would"], &said["goals"][0]["goal"]), (&json!("accepted"), &json!("kyc")), "{said}");
}

#[tokio::test]
async fn health_and_metrics_need_no_key() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    server.accepted(&account, &format!("clickId={}&signups=1", click.id)).await;
    for path in ["/livez", "/readyz"] {
        Answer::of(server.http.get(format!("{}{path}", server.api))).await.expect(200);
    }
    let metrics = Answer::of(server.http.get(format!("{}/metrics", server.api))).await.expect(200).text();
    assert!(metrics.lines().filter(|l| l.starts_with("clickback_")).count() > 5, "{metrics}");
    assert!(metrics.contains("# HELP") && metrics.contains("# TYPE"));
    assert!(!metrics.contains(&account.token));
}
