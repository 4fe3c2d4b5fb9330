//! Request targets that an HTTP parser refuses or cuts: over raw sockets they are read, and recorded as they were sent.

use schemas::interpret::encoded_text;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::harness::{Edge, LINK, path};

/// Status and body of the next answer on a connection.
async fn answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status.trim().to_owned(), String::from_utf8(body).unwrap())
}

async fn connect(edge: &Edge) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(edge.address).await.unwrap())
}

/// Every byte that a line can hold, in the middle of a value that nobody reads.
fn queries() -> Vec<Vec<u8>> {
    let bytes = (0..=u8::MAX).filter(|byte| *byte != b'\n');
    bytes.map(|byte| [format!("dyn=n{byte}&signups=1&x=").as_bytes(), &[byte], b"y"].concat()).collect()
}

fn assert_recorded_as_sent(edge: &Edge, queries: &[Vec<u8>]) {
    let hits = edge.hits();
    assert_eq!(hits.len(), queries.len());
    for (hit, query) in hits.iter().zip(queries) {
        assert_eq!(hit.raw.query, encoded_text(query));
        assert_eq!(hit.reading.reject, None, "{:?}", hit.raw.query);
    }
}

#[tokio::test]
async fn every_byte_is_read_on_one_connection_that_is_kept_alive() {
    let edge = Edge::start().await;
    let mut stream = connect(&edge).await;
    for query in queries() {
        let request = [format!("GET {}?", path()).as_bytes(), &query, b" HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        let (status, body) = answer(&mut stream).await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    }
    assert_recorded_as_sent(&edge, &queries());
}

#[tokio::test]
async fn every_byte_is_read_in_a_pipeline_with_bodies_that_look_like_requests() {
    let edge = Edge::start().await;
    let stream = connect(&edge).await;
    let body = "note=GET /<> HTTP/1.1\r\n\r\n";
    let mut sent = Vec::new();
    for (at, query) in queries().iter().enumerate() {
        sent.extend(format!("POST {}?", path()).bytes());
        sent.extend(query);
        sent.extend(b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n");
        match at % 2 {
            0 => sent.extend(format!("content-length: {}\r\n\r\n{body}", body.len()).bytes()),
            _ => sent
                .extend(format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).bytes()),
        }
    }
    let (reader, mut writer) = stream.into_inner().into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer
    });
    let mut reader = BufReader::new(reader);
    let mut answered = 0;
    let mut line = String::new();
    while answered < queries().len() {
        line.clear();
        assert!(reader.read_line(&mut line).await.unwrap() > 0);
        answered += usize::from(line.contains("HTTP/1.1 200 OK"));
        assert!(!line.contains("HTTP/1.1 4"), "{line}");
    }
    drop(writing.await.unwrap());
    assert_recorded_as_sent(&edge, &queries());
    assert!(edge.hits().iter().all(|hit| hit.raw.body.as_deref() == Some(body)));
}

#[tokio::test]
async fn macros_that_cut_or_break_a_url_are_named() {
    let edge = Edge::start().await;
    for (query, value) in [
        ("dyn=#s2#&signups=1", "#s2#"),
        ("dyn=##CLICK_ID##&signups=1", "##CLICK_ID##"),
        ("dyn=<click_id>&signups=1", "<click_id>"),
        ("signups=1&dyn={Sub Param 1}", "{Sub Param 1}"),
    ] {
        let request = format!("GET {}?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", path());
        let answer = String::from_utf8(edge.raw(request.as_bytes()).await).unwrap();
        assert!(answer.contains(r#""reason":"unreplaced_macro""#), "{answer}");
        assert!(answer.contains(value), "{answer}");
    }
}

#[tokio::test]
async fn visitors_come_with_any_byte_too() {
    let edge = Edge::start().await;
    let sent = [format!("GET /c/{LINK}?sub1=a b<c>&sub2=").as_bytes(), b"\xFC&sub3=x#y HTTP/1.0\r\n\r\n"].concat();
    let answer = String::from_utf8(edge.raw(&sent).await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 302"), "{answer}");
    let click = edge.clicks().remove(0);
    assert_eq!(
        (click.sub1.as_deref(), click.sub2.as_deref(), click.sub3.as_deref()),
        (Some("a b<c>"), None, Some("x#y"))
    );
    assert_eq!(click.flags, ["sub2_dropped"]);
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_not_recorded() {
    let edge = Edge::start().await;
    for sent in [&b"GET\r\n\r\n"[..], b"<html>\r\n\r\n", b"GET /post-back/x?a b\r\n\r\n", b"\x16\x03\x01\x02\x00\n\n"] {
        let answer = edge.raw(sent).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(edge.drafts().is_empty());
}
