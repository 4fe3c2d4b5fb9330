use super::*;

/// Vectors by `openssl dgst -hmac`.
const MESSAGE: &[u8] = b"clickId=abc&signups=1";
const SECRET: &[u8] = b"s3cret";

fn rule(algorithm: HmacAlgorithm, place: HmacPlace, over: HmacOver, encoding: HmacEncoding) -> Hmac {
    Hmac { algorithm, place, name: "X-Sig".into(), over, encoding, secret: String::new() }
}
fn header(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-sig", value.parse().unwrap());
    headers
}
fn by_header(algorithm: HmacAlgorithm, encoding: HmacEncoding, value: &str) -> bool {
    let rule = rule(algorithm, HmacPlace::Header, HmacOver::Query, encoding);
    signature_is_right(&rule, SECRET, &header(value), MESSAGE, b"")
}

#[test]
fn a_header_signs_the_query() {
    use HmacAlgorithm::{Md5, Sha1, Sha256};
    use HmacEncoding::{Base64, Hex};
    let sha256 = "f0ffca2a113e70b957393ff3f07106894856263637d0a7b602341c34688661dc";
    assert!(by_header(Sha256, Hex, sha256));
    assert!(by_header(Sha256, Hex, &sha256.to_uppercase()));
    assert!(by_header(Sha256, Hex, &format!(" sha256={sha256}")));
    assert!(by_header(Sha1, Hex, "39b53b75551b66844d8b64b7891c1f8ec3bbed44"));
    assert!(by_header(Md5, Hex, "4ac0ae67875947769d18494ab2e06f0d"));
    for same in ["8P/KKhE+cLlXOT/z8HEGiUhWJjY30Ke2AjQcNGiGYdw=", "8P_KKhE-cLlXOT_z8HEGiUhWJjY30Ke2AjQcNGiGYdw"] {
        assert!(by_header(Sha256, Base64, same), "{same}");
    }
    for wrong in ["", &sha256[..62], &sha256.replace('f', "0"), &sha256[..32], "zz", "sha1=00"] {
        assert!(!by_header(Sha256, Hex, wrong), "{wrong}");
    }
    assert!(!by_header(Sha1, Hex, sha256));
}

#[test]
fn a_missing_header_is_wrong() {
    let rule = rule(HmacAlgorithm::Sha256, HmacPlace::Header, HmacOver::Query, HmacEncoding::Hex);
    assert!(!signature_is_right(&rule, SECRET, &HeaderMap::new(), MESSAGE, b""));
}

#[test]
fn a_signature_in_the_query_signs_the_rest_of_it_as_received() {
    let rule = rule(HmacAlgorithm::Sha256, HmacPlace::Query, HmacOver::Query, HmacEncoding::Base64);
    let right = |query: &str| signature_is_right(&rule, SECRET, &HeaderMap::new(), query.as_bytes(), b"");
    let signature = "8P/KKhE+cLlXOT/z8HEGiUhWJjY30Ke2AjQcNGiGYdw=";
    assert!(right(&format!("clickId=abc&signups=1&x-sig={signature}")));
    assert!(right(&format!("clickId=abc&X-SIG={}&signups=1", signature.replace('+', "%2B").replace('/', "%2f"))));
    assert!(right(&format!("X%2DSig={signature}&clickId=abc&signups=1")));
    assert!(!right(&format!("clickId=abc&signups=2&x-sig={signature}")));
    assert!(!right(&format!("signups=1&clickId=abc&x-sig={signature}")), "the order is signed too");
    assert!(!right("clickId=abc&signups=1&x-sig"));
    assert!(!right("clickId=abc&signups=1"));
}

#[test]
fn a_body_is_signed_as_received() {
    let rule = rule(HmacAlgorithm::Sha1, HmacPlace::Header, HmacOver::Body, HmacEncoding::Hex);
    let headers = header("39b53b75551b66844d8b64b7891c1f8ec3bbed44");
    assert!(signature_is_right(&rule, SECRET, &headers, b"", MESSAGE));
    assert!(!signature_is_right(&rule, SECRET, &headers, b"", b"clickId=abc&signups=2"));
    assert!(!signature_is_right(&rule, SECRET, &headers, MESSAGE, b""));
}

#[test]
fn over_the_rate_there_is_a_time_to_wait() {
    let limits = Limits::default();
    assert!((0..3).all(|_| limits.take("t/a", 3).is_ok()));
    assert!(limits.take("t/a", 3).unwrap_err() <= Duration::from_secs(1));
    assert!(limits.take("t/b", 3).is_ok(), "another account has its own");
    assert!(limits.take("t/a", 4).is_ok(), "a changed limit holds at once");
}

#[test]
fn limits_are_bounded() {
    let limits = Limits::default();
    for n in 0..2 * ACCOUNTS {
        limits.take(&n.to_string(), 1).unwrap();
        limits.record_refusals(&n.to_string(), Time::from_ms(0), 1);
    }
    assert!(limits.rates.read().unwrap().len() <= ACCOUNTS);
    assert!(limits.refusals.lock().unwrap().len() <= ACCOUNTS);
    assert!(limits.record_refusals("new", Time::from_ms(MINUTE_MS), 1), "older minutes make room");
}

#[test]
fn a_hundred_refusals_a_minute_are_recorded() {
    let limits = Limits::default();
    let at = |ms| Time::from_ms(ms);
    assert_eq!((0..150).filter(|_| limits.record_refusals("t/a", at(5), 1)).count(), 100);
    assert!(limits.record_refusals("t/b", at(5), 1));
    assert!(!limits.record_refusals("t/a", at(MINUTE_MS - 1), 1));
    assert!(limits.record_refusals("t/a", at(MINUTE_MS), 99));
    assert!(!limits.record_refusals("t/a", at(MINUTE_MS), 2));
    assert!(limits.record_refusals("t/a", at(MINUTE_MS), 1));
}
