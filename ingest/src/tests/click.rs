//! `GET /c/{link}`: one test per sentence of the contract.

use std::time::Duration;

use super::harness::{ACCOUNT, Edge, LINK, TENANT, Weather, header};
use crate::IngestConfig;
use schemas::{ClickId, event::Name, id::alias_shard};
use serde_json::json;

#[tokio::test]
async fn found_with_the_click_id_in_the_programs_parameter() {
    let edge = Edge::start().await;
    let answer = edge.click("dyn=Player-7&sub1=a&sub5=e%20e").await;
    assert_eq!(answer.status(), 302);
    let id: ClickId = header(&answer, "x-clickback-click").parse().unwrap();
    assert_eq!(header(&answer, "location"), format!("https://casino.example/play?lang=en&click_id={id}#top"));
    assert_eq!(header(&answer, "cache-control"), "no-store");
    assert_eq!(header(&answer, "x-clickback-receipt"), "0-0");
    assert_eq!(header(&answer, "content-length"), "0");

    let click = edge.clicks().remove(0);
    assert_eq!((click.id, click.account.as_str(), click.program.as_str()), (id, ACCOUNT, "generic"));
    assert_eq!(click.link.as_deref(), Some(LINK));
    assert_eq!((click.dyn_.as_deref(), click.alias.as_deref()), (Some("Player-7"), Some("player-7")));
    assert_eq!((click.sub1.as_deref(), click.sub2, click.sub5.as_deref()), (Some("a"), None, Some("e e")));
    assert_eq!((click.lookback_days, click.lifetime_days, click.waiting_days), (90, 1825, 7));
    assert_eq!(click.id.time(), click.time);
    assert!(click.flags.is_empty());
}

#[tokio::test]
async fn placeholders_in_the_destination_are_replaced() {
    let edge = Edge::start().await;
    edge.link("placed", json!({"destination": "https://casino.example/{dyn}?c={click_id}&s={sub1}"}));
    let answer = edge.request("GET", "/c/placed?dyn=a%2Fb&sub1=x%26y").send().await.unwrap();
    let id = header(&answer, "x-clickback-click");
    assert_eq!(header(&answer, "location"), format!("https://casino.example/a%2Fb?c={id}&s=x%26y"));
}

#[tokio::test]
async fn unusable_values_are_absent_and_noted() {
    let edge = Edge::start().await;
    edge.click(&format!("dyn=%7Bclickid%7D&sub1=&sub2={}&sub3=ok", "x".repeat(256))).await;
    let click = edge.clicks().remove(0);
    assert_eq!((click.dyn_, click.alias, click.sub1, click.sub2), (None, None, None, None));
    assert_eq!(click.sub3.as_deref(), Some("ok"));
    assert_eq!(click.flags, ["dyn_dropped", "sub1_dropped", "sub2_dropped"]);
}

#[tokio::test]
async fn agent_referrer_host_and_flags_are_recorded() {
    let edge = Edge::start().await;
    let request = edge.request("GET", &format!("/c/{LINK}"));
    let request = request.header("user-agent", "TelegramBot (like TwitterBot)").header("sec-purpose", "prefetch");
    request.header("referer", "https://Blog.example:8443/secret?page=1").send().await.unwrap();
    let click = edge.clicks().remove(0);
    assert_eq!(click.agent.as_deref(), Some("TelegramBot (like TwitterBot)"));
    assert_eq!(click.referrer.as_deref(), Some("blog.example"));
    assert_eq!(click.flags, ["preview", "prefetch", "bot"]);
}

#[tokio::test]
async fn head_shows_the_destination_and_counts_nothing() {
    let edge = Edge::start().await;
    let answer = edge.request("HEAD", &format!("/c/{LINK}?dyn=a")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "location")),
        (302, "https://casino.example/play?lang=en#top")
    );
    assert!(!answer.headers().contains_key("x-clickback-click"));
    assert!(!answer.headers().contains_key("x-clickback-receipt"));
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn an_unknown_link_is_404_and_another_method_405() {
    let edge = Edge::start().await;
    for path in ["/c/other", "/c/", "/c", "/c/spring/more", "/", "/C/spring", "/c/%2e%2e"] {
        let answer = edge.request("GET", path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["status"], "refused");
    }
    let answer = edge.request("POST", &format!("/c/{LINK}")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "allow")), (405, "GET, HEAD"));
    assert!(edge.drafts().is_empty());
}

#[tokio::test]
async fn archived_links_go_on_working() {
    let edge = Edge::start().await;
    edge.link("old", json!({"archived": true}));
    let answer = edge.request("GET", "/c/old").send().await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(edge.clicks().len(), 1);
}

#[tokio::test]
async fn a_visitor_is_never_stopped() {
    let config = IngestConfig { click_durable: Duration::from_millis(20), ..IngestConfig::default() };
    let edge = Edge::with(json!({}), config).await;
    for weather in [Weather::Broken, Weather::Silent] {
        edge.set(weather);
        let answer = edge.click("dyn=a").await;
        assert_eq!(answer.status(), 302, "{weather:?}");
        assert_eq!(header(&answer, "location"), "https://casino.example/play?lang=en#top");
        assert!(!answer.headers().contains_key("x-clickback-click"));
        assert!(!answer.headers().contains_key("x-clickback-receipt"));
    }
}

#[tokio::test]
async fn a_click_and_a_hit_of_one_alias_meet_in_one_shard() {
    let edge = Edge::start().await;
    edge.click("dyn=ÄB-1").await;
    edge.get("dyn=äb-1&signups=1").await;
    let drafts = edge.drafts();
    assert_eq!(drafts[0].shard, alias_shard(TENANT, ACCOUNT, "äb-1"));
    assert_eq!(drafts[1].shard, drafts[0].shard);
    assert!(drafts.iter().all(|draft| draft.id.shard() == draft.shard));
    assert_eq!(edge.clicks()[0].id.shard(), drafts[0].shard);
}

#[tokio::test]
async fn the_dyn_of_a_campaign_is_no_alias_and_folded_as_on_its_conversions() {
    let edge = Edge::with(json!({"dyn": "campaign"}), IngestConfig::default()).await;
    edge.link("single", json!({"dyn": "click"}));
    edge.click("dyn=Mail").await;
    edge.request("GET", "/c/single?dyn=Mail").send().await.unwrap();
    let aliases: Vec<_> = edge.clicks().into_iter().map(|click| (click.dyn_, click.alias)).collect();
    assert_eq!(aliases, [(Some("mail".into()), None), (Some("Mail".into()), Some("mail".into()))]);
    edge.get("dyn=Mail&signups=1").await;
    assert_eq!(edge.hit().reading.name, Some(Name::Label("mail".into())));
}
