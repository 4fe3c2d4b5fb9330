//! Tokens with something glued to them, and postbacks that were encoded once too often: read all the same, recorded as
//! they came without the token, and read again the same from the record.

use schemas::{
    ClickId,
    event::{Hit, Name},
    interpret::{interpret, stored},
    settings::AccountSettings,
};
use serde_json::json;

use super::harness::{Edge, path, time, token};
use crate::IngestConfig;

fn own() -> ClickId {
    ClickId::new(time("2026-11-22T08:00:00Z"), 4711, 99)
}

/// Sends `target` as it stands, with TOKEN and OWN filled in, and gives the hit.
async fn hit(edge: &Edge, target: &str) -> Hit {
    let target = target.replace("TOKEN", &token(1)).replace("OWN", &own().to_string());
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = String::from_utf8(edge.raw(request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    edge.hits().pop().unwrap()
}

fn assert_read_again_the_same(hit: &Hit) {
    let settings = AccountSettings::generic("default", "acc");
    let again = interpret(&stored(&hit.raw), &settings, time("2999-01-01T00:00:00Z")).remove(0);
    let mut reading = hit.reading.clone();
    reading.currency = again.currency;
    assert_eq!(again, reading, "{}", hit.raw.query);
}

#[tokio::test]
async fn what_is_glued_to_a_token_is_read_and_recorded_without_it() {
    let edge = Edge::start().await;
    for (target, raw, code) in [
        ("/post-back/TOKEN?dyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("/post-back/TOKEN/?dyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("/post-back//TOKEN?dyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("//post-back/TOKEN?dyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("/Post-Back/{TOKEN}?dyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("/post-back/TOKEN??dyn=Ab&signups=1", "?dyn=Ab&signups=1", Some("second_question_mark")),
        ("/post-back/TOKEN&dyn=Ab&signups=1", "&dyn=Ab&signups=1", Some("glued_to_token")),
        ("/post-back/TOKEN&amp;dyn=Ab&amp;signups=1", "&amp;dyn=Ab&amp;signups=1", Some("html_mangled")),
        ("/post-back/TOKEN&dyn=Ab?signups=1", "&dyn=Ab?signups=1", Some("second_question_mark")),
        ("/post-back/TOKEN;dyn=Ab;signups=1", ";dyn=Ab;signups=1", Some("semicolon_for_ampersand")),
        ("/post-back/TOKEN;dyn=Ab&signups=1", ";dyn=Ab&signups=1", Some("glued_to_token")),
        ("/post-back/TOKEN%3Fdyn=Ab&signups=1", "%3Fdyn=Ab&signups=1", Some("second_question_mark")),
        ("/post-back/TOKEN%3fdyn%3DAb%26signups%3D1", "%3fdyn%3DAb%26signups%3D1", Some("encoded_as_a_whole")),
        ("/post-back/TOKEN?dyn%3DAb%26signups%3D1", "dyn%3DAb%26signups%3D1", Some("encoded_as_a_whole")),
        ("/post-back/TOKENdyn=Ab&signups=1", "dyn=Ab&signups=1", None),
        ("/post-back/TOKEN/dyn=Ab&signups=1", "/dyn=Ab&signups=1", None),
    ] {
        let hit = hit(&edge, target).await;
        assert_eq!(hit.raw.query, raw, "{target}");
        assert_eq!((hit.reading.reject, &hit.reading.name), (None, &Some(Name::Alias("ab".to_owned()))), "{target}");
        assert_eq!(hit.reading.goals[0].goal, "signups", "{target}");
        let codes: Vec<&str> = hit.reading.corrections.iter().map(|c| c.code.as_str()).collect();
        assert_eq!(codes.is_empty(), code.is_none(), "{target}: {codes:?}");
        assert!(code.is_none_or(|code| codes.contains(&code)), "{target}: {codes:?}");
        assert_read_again_the_same(&hit);
    }
}

#[tokio::test]
async fn our_click_id_is_found_in_the_path() {
    let edge = Edge::start().await;
    for target in [
        "/post-back/TOKEN/OWN?signups=1",
        "/post-back/TOKEN/OWN/?signups=1",
        "/post-back/TOKEN/OWN&signups=1",
        "/post-back/TOKEN/click/%22OWN%22?signups=1",
        "/post-back/TOKEN/OWN/signups=1",
        "/post-back/TOKEN?OWN&signups=1",
    ] {
        let hit = hit(&edge, target).await;
        assert_eq!((hit.reading.reject, &hit.reading.name), (None, &Some(Name::Click(own()))), "{target}");
        assert_eq!(hit.reading.corrections[0].code, "click_in_other_parameter", "{target}");
        assert_read_again_the_same(&hit);
    }
}

#[tokio::test]
async fn a_token_in_another_case_is_the_same_and_none_is_ever_recorded() {
    let edge = Edge::start().await;
    let upper = token(1).to_uppercase();
    for target in [
        format!("/post-back/{upper}?dyn=a&signups=1"),
        "/post-back/TOKEN/post-back/TOKEN?dyn=a&signups=1".to_owned(),
        format!("/post-back/TOKEN?dyn=a&signups=1&url=https://x/post-back/{upper}?b=1"),
    ] {
        let hit = hit(&edge, &target).await;
        assert_eq!(hit.reading.name, Some(Name::Alias("a".to_owned())), "{target}");
    }
    edge.post("dyn=a", None, format!("signups=1&token={}", token(1))).await;
    edge.post("", Some("application/json"), format!(r#"{{"dyn":"a","signups":1,"key":"{upper}"}}"#)).await;
    let hits = serde_json::to_string(&edge.hits()).unwrap();
    assert_eq!(edge.hits().len(), 5);
    assert!(!hits.to_lowercase().contains(&token(1)));
}

#[tokio::test]
async fn a_signature_over_the_query_is_right_without_the_sign_in_front() {
    let hmac = json!({"algorithm": "sha256", "in": "header", "name": "x-sign", "over": "query", "encoding": "hex", "secret": "s"});
    let edge = Edge::with(json!({ "hmac": hmac }), IngestConfig::default()).await;
    // printf 'dyn=a&signups=1' | openssl dgst -sha256 -hmac s
    let sign = "5cdf3246565dfee46335a56f778bb15ffd90375dd71063f8c4b0046d7c7b171d";
    for (sign, status) in [(sign, 200), ("00", 401)] {
        for target in [format!("{}?dyn=a&signups=1", path()), format!("{}&dyn=a&signups=1", path())] {
            let answer = edge.request("GET", &target).header("x-sign", sign).send().await.unwrap();
            assert_eq!(answer.status(), status, "{target}");
        }
    }
}

#[tokio::test]
async fn space_around_a_dyn_is_left_out_of_a_click_as_of_its_postback() {
    let edge = Edge::start().await;
    edge.click("dyn=%20%22Ab%20c%22%20&sub1=+x+").await;
    let click = edge.clicks().remove(0);
    assert_eq!((click.dyn_.as_deref(), click.alias.as_deref()), (Some("Ab c"), Some("ab c")));
    assert_eq!(click.sub1.as_deref(), Some("x"));
    edge.get("dyn=%20%22Ab%20c%22%20&signups=1").await;
    assert_eq!(edge.hit().reading.name, Some(Name::Alias("ab c".to_owned())));
}
