//! What is refused on a postback URL: who may not send, what is too large, what cannot be made durable.

use std::time::Duration;

use super::harness::{Edge, Weather, header, path, token};
use crate::IngestConfig;
use schemas::{
    Reason,
    bounds::{BODY_BYTES, HEADER_BYTES, URI_BYTES},
};
use serde_json::{Value, json};

const SIGNED: &str = "dyn=abc&signups=1";
/// `openssl dgst -sha256 -hmac s3cret` of it.
const SIGNATURE: &str = "f0924cb750336d7cd27978ed29749e839c71feccad1a4f46b5b92d2f6ab641f9";

async fn with(fields: Value) -> Edge {
    Edge::with(fields, IngestConfig::default()).await
}

async fn signed() -> Edge {
    with(json!({"hmac": {
        "algorithm": "sha256", "in": "header", "name": "X-Sig", "over": "query", "encoding": "hex", "secret": "s3cret",
    }}))
    .await
}

#[tokio::test]
async fn a_wrong_or_missing_signature_is_401_and_recorded() {
    let edge = signed().await;
    let send = |signature: &'static str| {
        edge.request("GET", &format!("{}?{SIGNED}", path())).header("x-sig", signature).send()
    };
    for wrong in ["", "00"] {
        let answer = send(wrong).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(header(&answer, "x-clickback-receipt").starts_with("0-"));
        let body = answer.json::<Value>().await.unwrap();
        assert_eq!((&body["status"], &body["reason"]), (&json!("rejected"), &json!("bad_signature")));
    }
    assert_eq!(send(SIGNATURE).await.unwrap().status(), 200);
    let rejects: Vec<_> = edge.hits().into_iter().map(|hit| hit.reading.reject).collect();
    assert_eq!(rejects, [Some(Reason::BadSignature), Some(Reason::BadSignature), None]);
    assert_eq!(edge.hits()[0].reading.dyn_.as_deref(), Some("abc"), "it can be searched for");
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_403_and_recorded() {
    let edge = with(json!({"allow": ["192.0.2.0/24"]})).await;
    let answer = edge.request("GET", &format!("{}?{SIGNED}", path())).header("x-forwarded-for", "192.0.2.1");
    let answer = answer.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "x-clickback-receipt")), (403, "0-0"));
    assert_eq!(answer.json::<Value>().await.unwrap()["reason"], "address_not_allowed");
    assert_eq!(edge.hit().reading.reject, Some(Reason::AddressNotAllowed));
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = Edge::with(json!({"allow": ["192.0.2.0/24"]}), IngestConfig { trusted_proxies, ..Default::default() });
    let edge = edge.await;
    for (forwarded, status) in [("192.0.2.77", 200), ("192.0.2.77, 198.51.100.1", 403), ("1.1.1.1, 192.0.2.77", 200)] {
        let request = edge.request("GET", &format!("{}?{SIGNED}", path())).header("x-forwarded-for", forwarded);
        assert_eq!(request.send().await.unwrap().status(), status, "{forwarded}");
    }
    assert_eq!(edge.hits()[0].raw.remote.as_deref(), Some("192.0.2.0/24"));
}

#[tokio::test]
async fn a_hundred_refusals_a_minute_are_recorded_and_the_rest_counted() {
    let edge = with(json!({"allow": ["192.0.2.0/24"]})).await;
    let mut recorded = 0;
    for _ in 0..230 {
        let answer = edge.get(SIGNED).await;
        assert_eq!(answer.status(), 403);
        let has_receipt = answer.headers().contains_key("x-clickback-receipt");
        let body = answer.json::<Value>().await.unwrap();
        assert_eq!(body["status"], if has_receipt { "rejected" } else { "refused" });
        assert_eq!(body["reason"], "address_not_allowed");
        recorded += usize::from(has_receipt);
    }
    assert_eq!(recorded, edge.hits().len());
    // A minute may have ended meanwhile.
    assert!((100..=200).contains(&recorded), "{recorded}");
}

#[tokio::test]
async fn an_odd_method_is_405() {
    let edge = Edge::start().await;
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let answer = edge.request(method, &format!("{}?{SIGNED}", path())).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "allow")), (405, "GET, HEAD, POST"), "{method}");
        assert_eq!(answer.json::<Value>().await.unwrap()["reason"], "method_not_allowed");
    }
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn too_large_a_body_is_413() {
    let edge = Edge::start().await;
    let form = "application/x-www-form-urlencoded";
    let fits = format!("{SIGNED}&pad={}", "x".repeat(BODY_BYTES - SIGNED.len() - 5));
    assert_eq!(edge.post("", Some(form), fits.clone()).await.status(), 200);
    for too_large in [fits.clone() + "x", fits.repeat(3)] {
        let answer = edge.post("", Some(form), too_large.clone()).await;
        assert_eq!(answer.status(), 413);
        let chunked = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: {form}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{too_large}\r\n0\r\n\r\n",
            path(),
            too_large.len()
        );
        assert!(edge.raw(chunked.as_bytes()).await.starts_with(b"HTTP/1.1 413 "));
    }
    assert_eq!(edge.hits().len(), 1);
}

#[tokio::test]
async fn too_long_a_uri_is_414_and_too_many_headers_431() {
    let edge = Edge::start().await;
    let query = |bytes: usize| format!("{SIGNED}&p={}", "x".repeat(bytes - path().len() - 1 - SIGNED.len() - 3));
    assert_eq!(edge.get(&query(URI_BYTES)).await.status(), 200);
    for bytes in [URI_BYTES + 1, 4 * URI_BYTES - 1, 4 * URI_BYTES, 100_000] {
        let head = format!("GET {}?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", path(), query(bytes));
        assert!(edge.raw(head.as_bytes()).await.starts_with(b"HTTP/1.1 414 "), "{bytes}");
    }
    let request = edge.request("GET", &format!("{}?{SIGNED}", path())).header("x-pad", "x".repeat(HEADER_BYTES));
    assert_eq!(request.send().await.unwrap().status(), 431);
    assert_eq!(edge.hits().len(), 1);
}

#[tokio::test]
async fn a_needed_body_of_unknown_type_is_415() {
    let edge = Edge::start().await;
    for kind in ["application/xml", "text/xml", "multipart/form-data; boundary=x", "image/png"] {
        assert_eq!(edge.post("", Some(kind), "<dyn>a</dyn>").await.status(), 415, "{kind}");
        assert_eq!(edge.post("dyn=a", Some(kind), "x").await.status(), 415, "{kind}");
    }
    assert_eq!(edge.post("", None, "neither form nor JSON").await.status(), 415);
    let request = edge.request("POST", &path()).header("content-encoding", "gzip").body(SIGNED);
    assert_eq!(request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap().status(), 415);
    assert!(edge.drafts().is_empty());
    assert_eq!(edge.post(SIGNED, Some("text/xml"), "<x/>").await.status(), 200, "nobody needs this body");
    assert_eq!(edge.post(SIGNED, Some("text/xml"), "").await.status(), 200);
    assert!(edge.hits().iter().all(|hit| hit.reading.reject.is_none()));
}

#[tokio::test]
async fn over_the_rate_limit_is_429_with_retry_after() {
    let edge = with(json!({"rate_limit": 2})).await;
    let mut statuses = Vec::new();
    for _ in 0..50 {
        let answer = edge.get(SIGNED).await;
        if answer.status() == 429 {
            assert!(header(&answer, "retry-after").parse::<u64>().unwrap() >= 1);
            assert!(!answer.headers().contains_key("x-clickback-receipt"));
        }
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429));
    assert_eq!(edge.hits().len(), statuses.iter().filter(|status| **status == 200).count());
}

#[tokio::test]
async fn what_cannot_be_made_durable_is_503_with_retry_after() {
    let config = IngestConfig { durable: Duration::from_millis(20), ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    for weather in [Weather::Broken, Weather::Silent] {
        edge.set(weather);
        for answer in [edge.get(SIGNED).await, edge.get("signups=1").await] {
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (503, "2"), "{weather:?}");
            assert!(!answer.headers().contains_key("x-clickback-receipt"));
        }
    }
    edge.set(Weather::Fair);
    assert_eq!(edge.get(SIGNED).await.status(), 200);
}

#[tokio::test]
async fn no_answer_before_the_log_has_it() {
    let edge = std::sync::Arc::new(Edge::start().await);
    edge.set(Weather::Held);
    let held = std::sync::Arc::clone(&edge);
    let postback = tokio::spawn(async move { held.get(SIGNED).await.status().as_u16() });
    edge.next_arrival().await;
    // The edge goes on meanwhile, and has had its chance to answer the other one.
    for _ in 0..20 {
        assert_eq!(edge.request("HEAD", &path()).send().await.unwrap().status(), 200);
    }
    assert!(!postback.is_finished());
    edge.release.add_permits(1);
    assert_eq!(postback.await.unwrap(), 200);
}

#[tokio::test]
async fn garbage_is_refused_before_its_body_is_read() {
    let edge = Edge::start().await;
    let head = "POST /post-back/garbage HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    assert!(edge.raw(head.as_bytes()).await.starts_with(b"HTTP/1.1 404 "));
    let unknown = format!("GET /post-back/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", token(7));
    assert!(edge.raw(unknown.as_bytes()).await.starts_with(b"HTTP/1.1 404 "));
}
