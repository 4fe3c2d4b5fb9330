//! What a postback is answered with: status codes, bodies, and that everything recorded has a receipt.

use base64::Engine;
use hmac::Mac;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Server};

#[tokio::test]
async fn accepted_and_rejected_are_200_and_durable() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let good = server.postback(&account, &format!("clickId={}&signups=1", click.id)).await.expect(200);
    let body = good.json();
    assert_eq!(body["status"], "accepted");
    assert_eq!(body["receipt"], good.receipt());
    let bad = server.postback(&account, "signups=1").await.expect(200);
    let body = bad.json();
    assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("missing_click")));
    assert!(body["hint"].as_str().unwrap().len() > 10);
    let row = server.hit(&bad).await;
    assert_eq!(
        (&row["outcome"], &row["reason"], &row["raw"]),
        (&json!("rejected"), &json!("missing_click"), &json!("signups=1"))
    );
}

#[tokio::test]
async fn a_strict_account_answers_400_with_the_same_body() {
    let server = Server::start();
    let account = server.create_account(json!({ "strict": true })).await;
    let answer = server.postback(&account, "signups=1").await.expect(400);
    assert_eq!(answer.json()["reason"], "missing_click");
    assert_eq!(server.hit(&answer).await["outcome"], "rejected");
}

fn signature(secret: &str, over: &str) -> Vec<u8> {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(over.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[tokio::test]
async fn a_signature_that_is_missing_or_wrong_is_401_and_recorded() {
    let server = Server::start();
    let hmac = json!({ "algorithm": "sha256", "in": "header", "name": "X-Signature", "over": "query", "encoding": "hex", "secret": "s3cret" });
    let (account, link) = server.account_with_link(json!({ "hmac": hmac })).await;
    assert!(account.json["hmac"]["secret"].is_null(), "the secret is write-only: {}", account.json);
    let click = server.follow_link(&link, "").await;
    let query = format!("clickId={}&signups=1", click.id);
    let missing = server.postback(&account, &query).await.expect(401);
    missing.receipt();
    let url = format!("{}/post-back/{}?{query}", server.ingest, account.token);
    let good = hex::encode(signature("s3cret", &query));
    let bad = hex::encode(signature("other", &query));
    Answer::of(server.http.get(&url).header("X-Signature", bad)).await.expect(401);
    let answer = Answer::of(server.http.get(&url).header("X-Signature", good)).await.expect(200);
    assert_eq!(answer.said(), "accepted");
    let rows = server.postbacks_report("reason=bad_signature").await;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_signature_over_the_body_in_base64() {
    let server = Server::start();
    let hmac = json!({ "algorithm": "sha256", "in": "header", "name": "X-Sig", "over": "body", "encoding": "base64", "secret": "k" });
    let account = server.create_account(json!({ "hmac": hmac })).await;
    let body = "dyn=abc&signups=1";
    let sign = base64::engine::general_purpose::STANDARD.encode(signature("k", body));
    let url = format!("{}/post-back/{}", server.ingest, account.token);
    let request = server.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = Answer::of(request.header("X-Sig", sign)).await.expect(200);
    assert_eq!(answer.said(), "accepted");
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_403_and_recorded() {
    let server = Server::start();
    let account = server.create_account(json!({ "allow": ["198.51.100.0/24"] })).await;
    server.postback(&account, "dyn=a&signups=1").await.expect(403).receipt();
    let rows = server.postbacks_report("reason=address_not_allowed").await;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 1);
}

/// The address is cut before anything is durable.
#[tokio::test]
async fn addresses_are_cut_and_named_parameters_are_hashed() {
    let server = Server::start();
    let account = server.create_account(json!({ "redact": ["iban"] })).await;
    let answer = server.accepted(&account, "dyn=a&signups=1&email=me%40x.example&iban=DE89&phone=123&other=kept").await;
    let row = server.hit(&answer).await;
    let raw = row["raw"].as_str().unwrap();
    assert!(!raw.contains("x.example") && !raw.contains("DE89") && !raw.contains("123"), "{raw}");
    assert!(raw.contains("other=kept") && raw.contains("email="), "{raw}");
    assert!(row["remote"].as_str().unwrap().starts_with("127.0.0.0"), "{row}");
}

#[tokio::test]
async fn unknown_tokens_are_404() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let mut garbage = account.clone();
    garbage.token = "not-a-token".to_owned();
    server.postback(&garbage, "dyn=a&signups=1").await.expect(404);
    // Well-formed, but of nobody.
    garbage.token = schemas::id::new_token(&[7; 28]);
    server.postback(&garbage, "dyn=a&signups=1").await.expect(404);
    Answer::of(server.http.get(format!("{}/other", server.ingest))).await.expect(404);
}

/// What the API has confirmed works at once.
#[tokio::test]
async fn a_new_account_works_at_once_after_unknown_tokens_were_asked_for() {
    let server = Server::start();
    for n in 0..20u8 {
        let mut account = server.create_account(json!({})).await;
        let real = std::mem::replace(&mut account.token, schemas::id::new_token(&[n; 28]));
        server.postback(&account, "dyn=a&signups=1").await.expect(404);
        account.token = real;
        server.accepted(&account, "dyn=a&signups=1").await;
    }
}

#[tokio::test]
async fn odd_methods_sizes_and_types() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let url = format!("{}/post-back/{}", server.ingest, account.token);
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = Answer::of(server.http.request(method, format!("{url}?dyn=a&signups=1"))).await.expect(405);
        assert!(answer.header("allow").is_some());
    }
    server.postback(&account, &format!("dyn=a&signups=1&x={}", "y".repeat(20_000))).await.expect(414);
    let form = "application/x-www-form-urlencoded";
    server.postback_body(&account, "", form, "x=".to_owned() + &"y".repeat(300_000)).await.expect(413);
    server.postback_body(&account, "", "application/xml", "<a/>").await.expect(415);
    // A body that is not needed is not read.
    let answer = server.postback_body(&account, "dyn=a&signups=1", "application/xml", "<a/>").await.expect(200);
    assert_eq!(answer.said(), "accepted");
}

#[tokio::test]
async fn a_rate_limit_answers_429_with_retry_after() {
    let server = Server::start();
    let account = server.create_account(json!({ "rate_limit": 2 })).await;
    let mut limited = 0;
    for _ in 0..20 {
        let answer = server.postback(&account, "dyn=a&signups=1").await;
        if answer.status == 429 {
            limited += 1;
            assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        }
    }
    assert!(limited > 0, "20 postbacks in a row under a limit of 2 a second");
}

#[tokio::test]
async fn head_is_200_and_counts_nothing() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    let url = format!("{}/post-back/{}?dyn=a&signups=1", server.ingest, account.token);
    let answer = Answer::of(server.http.head(url)).await.expect(200);
    assert!(answer.header("x-clickback-receipt").is_none());
    assert_eq!(server.postbacks_report("").await["rows"], json!([]));
}

#[tokio::test]
async fn a_json_array_is_so_many_hits() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let body = json!([{ "clickId": click.id, "signups": 1 }, { "clickId": click.id, "event": "ftd", "payout": 12.5 }, { "signups": 1 }]);
    let answer = server.postback_body(&account, "", "application/json", body.to_string()).await.expect(200);
    let hits = answer.json()["hits"].as_array().unwrap().clone();
    let said: Vec<&str> = hits.iter().map(|h| h["status"].as_str().unwrap()).collect();
    assert_eq!(said, ["accepted", "accepted", "rejected"]);
    let rows = server.postbacks_report("").await["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 3);
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["goals"], json!({ "signups": 1, "firsttimedeposits": 1 }));
    assert_eq!(report["totals"]["earnings"][0]["amount"], "12.50");
    let many = Value::Array(vec![json!({ "clickId": click.id, "signups": 1 }); 101]);
    let answer = server.postback_body(&account, "", "application/json", many.to_string()).await;
    assert_ne!((answer.status, answer.text().contains("\"accepted\"")), (200, true), "101 hits are too many");
}

#[tokio::test]
async fn senders_that_test_the_body_get_what_they_expect() {
    let server = Server::start();
    for (mode, status, body) in [("ok", 200, b"OK".as_slice()), ("empty", 204, b""), ("gif", 200, b"GIF8")] {
        let account = server.create_account(json!({ "answer": mode })).await;
        let answer = server.postback(&account, "dyn=a&signups=1").await.expect(status);
        assert!(
            answer.body.starts_with(body) && answer.body.is_empty() == body.is_empty(),
            "{mode}: {}",
            answer.text()
        );
        answer.receipt();
    }
    let account = server.create_account(json!({})).await;
    let url = format!("{}/post-back/{}?dyn=a&signups=1", server.ingest, account.token);
    let pixel = Answer::of(server.http.get(url).header("accept", "image/avif,image/*;q=0.8")).await.expect(200);
    assert_eq!(pixel.header("content-type"), Some("image/gif"));
    assert!(pixel.body.starts_with(b"GIF89a"));
}

#[tokio::test]
async fn a_paused_account_records_and_rejects() {
    let server = Server::start();
    let account = server.create_account(json!({})).await;
    server.change_account(&account, json!({ "paused": true })).await;
    let row = server.decided(&account, "dyn=a&signups=1").await;
    assert_eq!((&row["outcome"], &row["reason"]), (&json!("rejected"), &json!("account_paused")));
}
