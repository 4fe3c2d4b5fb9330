//! Anything at all may be sent: no 5xx, no hang, and every recorded hit has a reading.

use super::harness::{Edge, path};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
use schemas::event::Hit;

/// What the HTTP parser lets through in a request target.
const PIECES: &[&[u8]] = &[
    b"clickId=",
    b"dyn=",
    b"&signups=",
    b"event=",
    b"status=",
    b"earning=",
    b"&ip=",
    b"1",
    b"abc",
    b"&",
    b"&&",
    b"=",
    b"%",
    b"%00",
    b"%AD_ID%",
    b"%FF",
    b"{x}",
    b"[x]",
    b"+",
    b"?",
    b";",
    b"\\",
    b"|",
    b"^",
    b"`",
    b"'",
    b"~",
    b"null",
    b"\xC3\xBC",
    b"-1",
    b"1e999",
    b"9999999999999999",
    b"approved",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"&dyn=a&ftd=1",
];
/// What it may not let through, and what only a body has.
const ODD: &[&[u8]] = &[
    b"#",
    b"\xFF",
    b"<",
    b">",
    b"\"",
    b" ",
    b"\t",
    b"\x01",
    b"\0",
    b"\r",
    b"\n",
    b"\"dyn\":\"a\"",
    b"\"signups\":1",
    b"dyn=",
    b"{\"dyn\":\"a\",\"signups\":1}",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"null",
];
const HEADERS: &[&str] = &[
    "content-type: application/json",
    "content-type: application/x-www-form-urlencoded",
    "content-type: text/xml",
    "content-type: ;;;",
    "content-encoding: gzip",
    "accept: image/*",
    "x-forwarded-for: ,,, 1.2.3.4:x",
    "expect: 100-continue",
    "connection: close",
    "transfer-encoding: chunked",
    "content-length: 5",
    "content-length: -1",
    "user-agent: \u{fc}\u{7f}",
];

#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    path: String,
    query: Vec<u8>,
    headers: Vec<&'static str>,
    body: Vec<u8>,
    cut: usize,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {}?", self.method, self.path).into_bytes();
        bytes.extend(&self.query);
        bytes.extend(b" HTTP/1.1\r\nhost: x\r\n");
        for header in &self.headers {
            bytes.extend(format!("{header}\r\n").bytes());
        }
        if !self.headers.iter().any(|h| h.starts_with("content-length") || h.starts_with("transfer")) {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes.truncate(bytes.len().saturating_sub(self.cut));
        bytes
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let known = vec(select(PIECES), 0..24).prop_map(|pieces| pieces.concat());
    let odd = vec(prop_oneof![select(PIECES), select(ODD)], 0..24).prop_map(|pieces| pieces.concat());
    prop_oneof![4 => known, 2 => odd, 1 => vec(any::<u8>(), 0..200)]
}

fn sent() -> impl Strategy<Value = Sent> {
    let others = select(vec!["/c/spring".to_owned(), "/post-back/x".to_owned(), "*".to_owned(), String::new()]);
    let paths = prop_oneof![8 => Just(path()), 1 => others];
    let methods = prop_oneof![8 => select(vec!["GET", "POST"]), 1 => select(vec!["HEAD", "PUT", "get", ""])];
    let cut = prop_oneof![8 => Just(0usize), 1 => 0usize..300];
    (methods, paths, text(), vec(select(HEADERS), 0..4), text(), cut)
        .prop_map(|(method, path, query, headers, body, cut)| Sent { method, path, query, headers, body, cut })
}

fn has_a_reading(hit: &Hit) -> bool {
    let reading = &hit.reading;
    let understood = reading.name.is_some() && (!reading.goals.is_empty() || reading.status.is_some());
    reading.reject.is_some() || understood
}

#[test]
fn no_5xx_no_hang_and_every_recorded_hit_has_a_reading() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let edge = runtime.block_on(Edge::start());
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let recorded = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&sent(), |sent| {
            let before = edge.drafts().len();
            let answer = runtime.block_on(edge.raw(&sent.bytes()));
            let status = answer.strip_prefix(b"HTTP/1.1 ").map(|rest| rest[0]);
            prop_assert!(status != Some(b'5'), "{}", String::from_utf8_lossy(&answer));
            prop_assert!(status.is_some() || answer.is_empty());
            for hit in edge.hits().iter().skip(before) {
                prop_assert!(has_a_reading(hit), "{hit:?}");
            }
            recorded.set(recorded.get() + usize::from(edge.drafts().len() > before));
            Ok(())
        })
        .unwrap();
    assert!(recorded.get() > 50, "much of it is recorded, not only refused: {}", recorded.get());
    assert_eq!(runtime.block_on(edge.get("dyn=a&signups=1")).status(), 200);
}
