//! Whatever comes in on the public listener: no 5xx, no panic, no hang, and a reason or an outcome for every hit
//! that was recorded.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use system_tests::{Server, repetitions};

struct Target {
    address: String,
    token: String,
    link: String,
}

/// Sends bytes as they are; gives the status, `None` where the connection was closed without an answer.
fn send(target: &Target, request: &[u8]) -> Result<Option<u16>, String> {
    let mut stream = TcpStream::connect(&target.address).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that has heard enough may close while we still write.
    if stream.write_all(request).is_ok() {
        stream.shutdown(Shutdown::Write).ok();
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            return Err("no answer, and the connection stays open".to_owned());
        }
        _ => {}
    }
    if answer.is_empty() {
        return Ok(None);
    }
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let status = line.strip_prefix("HTTP/1.").and_then(|l| l.get(2..5)).and_then(|s| s.parse().ok());
    status.map(Some).ok_or(format!("not an HTTP answer: {line}"))
}

fn acceptable(target: &Target, request: &[u8]) -> Result<(), String> {
    match send(target, request)? {
        Some(status @ 500..) => Err(format!("{status}")),
        _ => Ok(()),
    }
}

fn fill(target: &Target, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if rest.starts_with(b"TOKEN") {
            out.extend_from_slice(target.token.as_bytes());
            rest = &rest[5..];
        } else if rest.starts_with(b"LINK") {
            out.extend_from_slice(target.link.as_bytes());
            rest = &rest[4..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// Requests that once broke a server of somebody.
fn corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "GET /post-back/TOKEN?%00=%00&clickId=%00&signups=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?clickId=%C0%AF&signups=%F0%9F%92%A9 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?&&&===&=&a=&=b&clickId=a=b=c&signups=1& HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?signups=99999999999999999999999999&clickId=a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?signups=-1&deposits=1e9&clickId=a&earning=1e400&ts=-99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?earning=NaN&value=Infinity&currency=%E2%82%AC%E2%82%AC&sales=1&dyn=%F3 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?earning=79228162514264337593543950335&sales=1&dyn=big HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?earning=-79228162514264337593543950335.00000001&sales=1&dyn=big HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?dyn=x&sales=1&ts=253402300799999999 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?dyn=x&sales=1&ts=9999-12-31T23:59:60Z HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/TOKEN?dyn=\u{202e}\u{0}\u{feff}&sales=1&status=\u{0130} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /c/LINK?dyn=%&sub1=%2&sub2=%zz&sub3=%ff&sub4=+&sub5=%0d%0aSet-Cookie:x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /c/LINK/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /c/%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /post-back//?dyn=x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://other/post-back/TOKEN?dyn=x&signups=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "TRACE /c/LINK HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /c/LINK HTTP/1.0\r\n\r\n",
        "GET /c/LINK HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /c/LINK HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: , , 1.2.3.4.5, ::1, unknown, 999.9.9.9\r\nUser-Agent: \u{1}\r\n\r\n",
        "GET /c/LINK HTTP/1.1\r\nHost: x\r\nReferer: http://[::1\r\n\r\n",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n[[[[[",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=\"\r\nContent-Length: 4\r\n\r\nnull",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=\r\nContent-Length: 2\r\n\r\n--",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\ndyn=cut",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n5\r\n{\"dyn\r\n0\r\n\r\n",
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        "\r\n\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
        "GET",
        "",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep = format!("{{\"dyn\":{}1{}}}", "[".repeat(2_000), "]".repeat(2_000));
    for body in [
        nested,
        deep,
        format!("{{\"dyn\":\"{}\",\"signups\":1}}", "x".repeat(200_000)),
        "[{},{},{}]".to_owned(),
        "{\"dyn\":1e999,\"signups\":1.0}".to_owned(),
        "{\"dyn\":\"a\",\"dyn\":\"b\",\"signups\":true}".to_owned(),
        "{\"dyn\":\"\\ud800\",\"signups\":1}".to_owned(),
    ] {
        all.push(post("application/json", body.as_bytes()));
    }
    all.push(format!("GET /post-back/TOKEN?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a=1&".repeat(3_000)).into_bytes());
    all.push(format!("GET /c/LINK?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000)).into_bytes());
    all.push(format!("GET /c/LINK HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(5_000)).into_bytes());
    all.push(format!("GET /c/LINK HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "b".repeat(200_000)).into_bytes());
    all
}

fn post(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /post-back/TOKEN HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn piece() -> impl Strategy<Value = String> {
    let names = [
        "clickId", "dyn", "subid", "aff_sub", "signups", "ftd", "deposits", "event", "goal", "type", "status",
        "earning", "payout", "revenue", "value", "currency", "tid", "player", "ts", "test", "email", "ip",
    ];
    let values = [
        "1",
        "0",
        "-1",
        "1e3",
        "1,5",
        "1.234,56",
        "abc",
        "{c}",
        "%%ID%%",
        "[[x]]",
        "%24%7Bid%7D",
        "null",
        "-",
        "n/a",
        "EUR",
        "usd",
        "%E2%82%AC5",
        "approved",
        "trash",
        "rebill",
        "true",
        "2026-11-22T10:00:00Z",
        "1763800000",
        "&curren",
        "%",
        "%0",
        "%ff",
        "%00",
        "a%20b",
        "+",
        "06h04h780352c32wd6mej51ahk",
    ];
    prop_oneof![
        4 => (prop::sample::select(names.to_vec()), prop::sample::select(values.to_vec())).prop_map(|(n, v)| format!("{n}={v}")),
        1 => "[a-zA-Z_]{0,8}=[ -~]{0,20}",
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(|b| b.iter().map(|b| format!("%{b:02x}")).collect()),
        1 => (prop::sample::select(names.to_vec()), "\\PC{0,12}").prop_map(|(n, v)| format!("{n}={v}")),
    ]
}

fn query() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..12).prop_map(|p| p.join("&"))
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,16}".prop_map(Value::from),
        piece().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let names = prop::sample::select(vec![
            "clickId", "dyn", "signups", "event", "status", "earning", "currency", "tid", "ts", "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..8)
                .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let path =
        prop_oneof![6 => Just("/post-back/TOKEN".to_owned()), 3 => Just("/c/LINK".to_owned()), 1 => "/[ -~]{0,30}"];
    let header = prop_oneof![
        Just("X-Forwarded-For: 1.2.3.4".to_owned()),
        Just("Sec-Purpose: prefetch".to_owned()),
        Just("Accept: image/*".to_owned()),
        "[A-Za-z-]{1,12}: [ -~]{0,40}",
    ];
    let get = (
        prop::sample::select(vec!["GET", "HEAD", "GET", "PUT", "get"]),
        path,
        query(),
        prop::collection::vec(header, 0..4),
    )
        .prop_map(|(method, path, query, headers)| {
            let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
            format!("{method} {path}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").into_bytes()
        });
    let get = get.boxed();
    let form = query().prop_map(|q| post("application/x-www-form-urlencoded", q.as_bytes()));
    let body = json_value().prop_map(|v| post("application/json", v.to_string().as_bytes()));
    let bytes = prop::collection::vec(any::<u8>(), 0..200).prop_map(|b| post("application/json", &b));
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let cut = (get.clone(), any::<prop::sample::Index>()).prop_map(|(r, at)| r[..at.index(r.len())].to_vec());
    prop_oneof![6 => get, 3 => form, 3 => body, 1 => bytes, 1 => noise, 1 => cut]
}

#[test]
fn no_5xx_no_hang_and_a_reason_for_every_hit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    let (account, link) = runtime.block_on(server.account_with_link(json!({ "waiting_days": 0 })));
    let target =
        Target { address: server.ingest.replace("http://", ""), token: account.token.clone(), link: link.id.clone() };

    for request in corpus() {
        if let Err(problem) = acceptable(&target, &fill(&target, &request)) {
            panic!("{problem}: {}", String::from_utf8_lossy(&request));
        }
    }
    let cases = u32::try_from(repetitions(1_500, 30_000)).unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let held = TestRunner::new(config)
        .run(&request(), |request| acceptable(&target, &fill(&target, &request)).map_err(TestCaseError::fail));
    held.unwrap_or_else(|problem| panic!("{problem}"));

    runtime.block_on(every_hit_has_a_reason_or_an_outcome(&server));
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    server.folder.assert_audit_is_clean();
}

async fn every_hit_has_a_reason_or_an_outcome(server: &Server) {
    let mut cursor = String::new();
    let mut hits = 0;
    loop {
        let page = server.postbacks_report(&format!("limit=1000{cursor}")).await;
        for row in page["rows"].as_array().unwrap() {
            hits += 1;
            match row["outcome"].as_str().unwrap() {
                "rejected" | "duplicate" => assert!(row["reason"].is_string() && row["hint"].is_string(), "{row}"),
                "converted" | "updated" | "waiting" | "test" => {}
                other => panic!("{other}: {row}"),
            }
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(hits > 300, "{hits} hits were recorded");
}
