//! Connections: how many, how long, and what happens to them at the end.

use std::{sync::Arc, time::Duration};

use super::harness::{Edge, Weather, path};
use crate::IngestConfig;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LONG: Duration = Duration::from_secs(20);

fn get(query: &str) -> String {
    format!("GET {}?{query} HTTP/1.1\r\nhost: x\r\n\r\n", path())
}

/// Reads one answer, whose length is in its head.
async fn answer(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return text.into_owned();
            }
        }
        let mut byte = [0];
        assert_eq!(timeout(LONG, stream.read(&mut byte)).await.unwrap().unwrap(), 1, "ended after {text}");
        seen.push(byte[0]);
    }
}

/// True if the other side ends the connection without a word.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.is_ok() && rest.is_empty()
}

#[tokio::test]
async fn a_connection_is_kept_for_more_requests() {
    let edge = Edge::start().await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    }
    stream.write_all(get("dyn=a&signups=1").repeat(5).as_bytes()).await.unwrap();
    for _ in 0..5 {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK"), "pipelined");
    }
    assert_eq!(edge.hits().len(), 8);
}

#[tokio::test]
async fn silence_half_a_head_and_an_idle_connection_are_closed() {
    let config = IngestConfig { patience: Duration::from_millis(50), ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    let mut silent = TcpStream::connect(edge.address).await.unwrap();
    assert!(ends(&mut silent).await);
    let mut slow = TcpStream::connect(edge.address).await.unwrap();
    slow.write_all(b"GET /c/spring HTTP/1.1\r\nhost").await.unwrap();
    assert!(ends(&mut slow).await);
    let mut idle = TcpStream::connect(edge.address).await.unwrap();
    idle.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
    assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200 OK"));
    assert!(ends(&mut idle).await);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let config = IngestConfig { body: Duration::from_millis(50), ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    let mut slow = TcpStream::connect(edge.address).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\ndyn", path());
    slow.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 408 "));
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn no_more_connections_than_the_bound() {
    let config = IngestConfig { connections: 1, ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    let mut first = TcpStream::connect(edge.address).await.unwrap();
    first.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
    answer(&mut first).await;
    let mut second = TcpStream::connect(edge.address).await.unwrap();
    second.write_all(get("dyn=b&signups=1").as_bytes()).await.unwrap();
    for _ in 0..3 {
        first.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
        answer(&mut first).await;
    }
    assert_eq!(edge.hits().len(), 4, "the second one waits");
    drop(first);
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_request_that_was_begun_is_answered_at_the_end() {
    let edge = Arc::new(Edge::start().await);
    edge.set(Weather::Held);
    let mut idle = TcpStream::connect(edge.address).await.unwrap();
    let mut busy = TcpStream::connect(edge.address).await.unwrap();
    busy.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
    edge.next_arrival().await;
    edge.shutdown.cancel();
    assert!(ends(&mut idle).await);
    assert!(!edge.served.is_finished());
    edge.release.add_permits(1);
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200 OK"));
    let edge = Arc::into_inner(edge).unwrap();
    timeout(LONG, edge.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(edge.address).await.is_err());
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let config = IngestConfig { drain: Duration::from_millis(50), ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    edge.set(Weather::Silent);
    let mut stuck = TcpStream::connect(edge.address).await.unwrap();
    stuck.write_all(get("dyn=a&signups=1").as_bytes()).await.unwrap();
    edge.next_arrival().await;
    edge.shutdown.cancel();
    timeout(LONG, edge.served).await.unwrap().unwrap();
    assert!(ends(&mut stuck).await);
}
